import { Bug, PeerFault } from "../../src/crypto/fault.js";
import type { MessageIdentity } from "../../src/network/identity/message-identity.js";
import { systemRandom } from "../../src/node/ambient.js";
import {
  PROTOCOLS,
  type RunningSession,
  type SessionJob,
  type SessionResult,
  type SessionSeat,
  startSession,
} from "../../src/node/session-job.js";
import type { SessionHandle, SessionRunner, SessionWire } from "../../src/node/session-pool.js";

/** How a node cheats in its sessions. */
export interface Cheat {
  readonly protocols?: Partial<typeof PROTOCOLS>;
  /** What goes out in place of an envelope. */
  readonly tamper?: (out: { to: number; bytes: Uint8Array }) => readonly { to: number; bytes: Uint8Array }[];
}

/**
 * Sessions of a dishonest node, in place of its worker threads. It takes part as its cheat says, and then accuses
 * everyone else without proof.
 */
export class HostileSessions implements SessionRunner {
  readonly identity: MessageIdentity;
  /** Honest while this is undefined. */
  cheat: Cheat | undefined;
  runs = 0;

  constructor(identity: MessageIdentity) {
    this.identity = identity;
  }

  run(job: SessionJob, seat: SessionSeat, wire: SessionWire): SessionHandle {
    const { cheat } = this;
    if (cheat !== undefined) this.runs += 1;
    const sign = (message: Uint8Array) => this.identity.sign(message);
    const protocols = { ...PROTOCOLS, ...cheat?.protocols };
    let session: RunningSession | undefined;
    let settle: { done: (result: SessionResult) => void; failed: (error: unknown) => void } | undefined;
    const result = new Promise<SessionResult>((done, failed) => {
      settle = { done, failed };
    });
    const lie = () => {
      const culprits = seat.parties.filter(({ id }) => id !== seat.self).map(({ nodeId }) => nodeId);
      return new PeerFault("protocol-violation", "everyone else cheats", { culprits, evidence: [] });
    };
    const step = (act: (session: RunningSession) => void): void => {
      try {
        if (session === undefined) return;
        act(session);
        for (const out of session.drain())
          for (const { to, bytes } of cheat?.tamper?.(out) ?? [out]) wire.send(to, bytes);
        const { progress } = session;
        if (progress.state === "waiting") return;
        session = undefined;
        if (cheat !== undefined) settle?.failed(lie());
        else if (progress.state === "done") settle?.done(progress.output);
        else settle?.failed(progress.fault);
      } catch (error) {
        session = undefined;
        settle?.failed(cheat === undefined ? error : lie());
      }
    };
    setImmediate(() => {
      session = startSession(job, seat, { random: systemRandom, sign, protocols });
      step(() => {});
    });
    return {
      result,
      receive: (bytes) => {
        if (settle === undefined) throw new Bug("a session receives before it began");
        setImmediate(() => step((running) => running.receive(bytes)));
      },
      lost: () => setTimeout(() => step((running) => running.expire()), 500).unref(),
    };
  }

  async close(): Promise<void> {}
}
