import type { KeyObject } from "node:crypto";
import type { Clock } from "../crypto/ambient.js";
import { type SessionJob, type SessionSeat, signs } from "./session-job.js";
import {
  type SessionHandle,
  type SessionPatience,
  SessionPool,
  type SessionRunner,
  type SessionWire,
} from "./session-pool.js";

export interface SessionLanesOptions {
  /** Threads for everything but signing, which has one of its own. */
  readonly workers: number;
  /** This node's Ed25519 identity. */
  readonly identity: KeyObject;
  /** Sessions at once in each lane; one more is refused. */
  readonly maxSessions: number;
  /** With key generation and signing, which take milliseconds. */
  readonly patience: SessionPatience;
  /** With presigning, which computes for seconds, and with what waits for its thread. Auxiliary info gets AUX_INFO_PATIENCE times as much. */
  readonly presignPatience: SessionPatience;
}

/** Every party proves and verifies for seconds in one round of the aux-info protocol. */
const AUX_INFO_PATIENCE = 6;

/**
 * Messages of a session that signs in the main thread. A message costs about a millisecond there and two hops between
 * threads as much again; what takes longer must not hold up the event loop. The main thread holds the key share and
 * the item's nonces anyway, because key store and ledger are there: a thread of its own would only get copies of them.
 */
const SIGNED_INLINE_MAX = 4;

/**
 * Three lanes: short signing in the main thread, longer signing in a thread of its own, and everything else in others,
 * because a step of presigning holds its thread for a second and signing must not stand behind it.
 */
export class SessionLanes implements SessionRunner {
  readonly #inline: SessionPool;
  readonly #urgent: SessionPool;
  readonly #patient: SessionPool;

  private constructor(inline: SessionPool, urgent: SessionPool, patient: SessionPool) {
    this.#inline = inline;
    this.#urgent = urgent;
    this.#patient = patient;
  }

  static async start(options: SessionLanesOptions, dependencies: { readonly clock: Clock }): Promise<SessionLanes> {
    const { identity, maxSessions } = options;
    const patience = (kind: SessionJob["kind"]): SessionPatience => patienceWith(kind, options);
    const start = (workers: number) => SessionPool.start({ workers, identity, maxSessions, patience }, dependencies);
    const [inline, urgent, patient] = await Promise.all([start(0), start(1), start(options.workers)]);
    return new SessionLanes(inline, urgent, patient);
  }

  run(job: SessionJob, seat: SessionSeat, wire: SessionWire): SessionHandle {
    return this.#lane(job).run(job, seat, wire);
  }

  #lane(job: SessionJob): SessionPool {
    if (!signs(job)) return this.#patient;
    return job.items.length <= SIGNED_INLINE_MAX ? this.#inline : this.#urgent;
  }

  async close(): Promise<void> {
    await Promise.all([this.#inline.close(), this.#urgent.close(), this.#patient.close()]);
  }
}

function patienceWith(
  kind: SessionJob["kind"],
  { patience, presignPatience }: Pick<SessionLanesOptions, "patience" | "presignPatience">,
): SessionPatience {
  switch (kind) {
    case "keygen":
    case "frost-sign":
    case "cggmp24-sign":
      return patience;
    // Behind presigning in the same threads.
    case "presign":
    case "frost-nonces":
    case "reshare":
      return presignPatience;
    case "aux-info":
    case "refresh":
      return {
        roundTimeoutMs: AUX_INFO_PATIENCE * presignPatience.roundTimeoutMs,
        sessionTimeoutMs: AUX_INFO_PATIENCE * presignPatience.sessionTimeoutMs,
      };
  }
}
