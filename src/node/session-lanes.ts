import type { KeyObject } from "node:crypto";
import type { Clock } from "../crypto/ambient.js";
import { isUrgent, type SessionJob, type SessionSeat } from "./session-job.js";
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
  /** With presigning, which computes for seconds. Auxiliary info gets AUX_INFO_PATIENCE times as much. */
  readonly presignPatience: SessionPatience;
}

/** Every party proves and verifies for seconds in one round of the aux-info protocol. */
const AUX_INFO_PATIENCE = 6;

/** Two pools of threads: a step of presigning holds its thread for a second, and signing must not stand behind it. */
export class SessionLanes implements SessionRunner {
  readonly #urgent: SessionPool;
  readonly #patient: SessionPool;

  private constructor(urgent: SessionPool, patient: SessionPool) {
    this.#urgent = urgent;
    this.#patient = patient;
  }

  static async start(options: SessionLanesOptions, dependencies: { readonly clock: Clock }): Promise<SessionLanes> {
    const { identity, maxSessions } = options;
    const patience = (kind: SessionJob["kind"]): SessionPatience => patienceWith(kind, options);
    const start = (workers: number) => SessionPool.start({ workers, identity, maxSessions, patience }, dependencies);
    const [urgent, patient] = await Promise.all([start(1), start(options.workers)]);
    return new SessionLanes(urgent, patient);
  }

  run(job: SessionJob, seat: SessionSeat, wire: SessionWire): SessionHandle {
    return (isUrgent(job) ? this.#urgent : this.#patient).run(job, seat, wire);
  }

  async close(): Promise<void> {
    await Promise.all([this.#urgent.close(), this.#patient.close()]);
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
