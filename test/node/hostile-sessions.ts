import assert from "node:assert/strict";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
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
import { sign as cggmp24Sign } from "../../src/protocols/cggmp24/sign.js";
import { frostSign } from "../../src/protocols/frost/sign.js";
import { frostSignPrepared } from "../../src/protocols/frost/sign-prepared.js";
import { keygen } from "../../src/protocols/keygen.js";
import type { Protocol, Round } from "../../src/session/protocol.js";
import { cheating } from "../session/simulation.js";

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
      if (settle === undefined) return; // dropped
      session = startSession(job, seat, { random: systemRandom, sign, protocols });
      step(() => {});
    });
    return {
      result,
      receive: (bytes) => {
        if (settle === undefined) throw new Bug("a session receives before it began");
        setImmediate(() => step((running) => running.receive(bytes)));
      },
      release: () => {},
      drop: () => {
        session = undefined;
        settle = undefined;
      },
      lost: () => setTimeout(() => step((running) => running.expire()), 500).unref(),
    };
  }

  async close(): Promise<void> {}
}

/** The protocol with scalars of one round off by a bit; `to` limits it to one victim. */
function spoiling<Pub, Secret, Out>(
  protocol: Protocol<Pub, Secret, Out>,
  roundId: string,
  spoil: (message: MessageShape<DescMessage>) => void,
  victim?: number,
): Protocol<Pub, Secret, Out> {
  const round = protocol.rounds.find(({ id }) => id === roundId);
  assert.ok(round !== undefined);
  return cheating(protocol, round as Round, (message, to) => {
    const copy = structuredClone(message);
    if (victim === undefined || victim === to) spoil(copy);
    return copy;
  });
}

export const flipLast = (bytes: Uint8Array): void => {
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
};
/** A wrong share for everyone, or for one party. */
export const badKeyShare = (victim?: number): Cheat => ({
  protocols: {
    keygen: spoiling(
      keygen,
      "share",
      (message) => flipLast((message as unknown as { share: { be32: Uint8Array } }).share.be32),
      victim,
    ),
  },
});
export const badSignatureShare: Cheat = {
  protocols: {
    frostSign: spoiling(frostSign, "shares", (message) => {
      for (const { be32 } of (message as unknown as { shares: { be32: Uint8Array }[] }).shares) flipLast(be32);
    }),
  },
};
/** The same in the one-round protocol. */
export const badPreparedShare: Cheat = {
  protocols: {
    frostSignPrepared: spoiling(frostSignPrepared, "shares", (message) => {
      for (const { share } of (message as unknown as { shares: { share: { be32: Uint8Array } }[] }).shares)
        flipLast(share.be32);
    }),
  },
};
/** And of a SegWit wallet. */
export const badEcdsaShare: Cheat = {
  protocols: {
    cggmp24Sign: spoiling(cggmp24Sign, "shares", (message) => {
      for (const { be32 } of (message as unknown as { shares: { be32: Uint8Array }[] }).shares) flipLast(be32);
    }),
  },
};
