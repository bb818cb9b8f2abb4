import type { Random } from "../crypto/ambient.js";
import { Scalar } from "../crypto/curve.js";
import { Bug, InvalidInput } from "../crypto/fault.js";
import { frostSign } from "../protocols/frost/sign.js";
import { decodeKeyShare, encodeKeyShare, type Scheme } from "../protocols/key-share.js";
import { keygen } from "../protocols/keygen.js";
import type { SignIdentity } from "../session/envelope.js";
import { Group, type PartyId, partyId } from "../session/party.js";
import type { Protocol } from "../session/protocol.js";
import { type Progress, Session } from "../session/session.js";

/** A protocol run as it crosses into a worker thread: plain values, no functions. */
export type SessionJob =
  | {
      readonly kind: "keygen";
      readonly scheme: Scheme;
      readonly threshold: number;
      readonly walletId: string;
    }
  | {
      readonly kind: "frost-sign";
      /** Encoded KeyShare; secret. */
      readonly keyShare: Uint8Array;
      readonly items: readonly { readonly message: Uint8Array; readonly bip32Tweak: bigint }[];
      readonly authorization: Uint8Array;
    };

/** What a finished job hands back. */
export type SessionResult =
  | { readonly kind: "keygen" /** Encoded KeyShare; secret. */; readonly keyShare: Uint8Array }
  | { readonly kind: "frost-sign"; readonly signatures: readonly Uint8Array[] };

/** Who takes part, as plain values. */
export interface SessionSeat {
  /** 16 random bytes of the initiator. */
  readonly sessionId: Uint8Array;
  readonly self: number;
  readonly parties: readonly { readonly id: number; readonly nodeId: string; readonly identityKey: Uint8Array }[];
}

/** A session of any protocol, its output already turned into a result. */
export interface RunningSession {
  receive(bytes: Uint8Array): void;
  expire(): void;
  drain(): readonly { readonly to: number; readonly bytes: Uint8Array }[];
  readonly progress: Progress<SessionResult>;
}

/** The protocols that jobs run. A session thread runs exactly these. */
export const PROTOCOLS = { keygen, frostSign } as const;

export interface SessionDependencies {
  readonly random: Random;
  readonly sign: SignIdentity;
  readonly protocols: typeof PROTOCOLS;
}

/** @throws InvalidInput when the job's parameters do not fit the parties */
export function startSession(
  job: SessionJob,
  seat: SessionSeat,
  { protocols, ...dependencies }: SessionDependencies,
): RunningSession {
  const group = new Group(seat.parties.map((party) => ({ ...party, id: partyId(party.id) })));
  const self = partyId(seat.self);
  const start = <Pub, Secret, Out>(
    protocol: Protocol<Pub, Secret, Out>,
    parameters: { readonly pub: Pub; readonly secret: Secret; readonly toResult: (output: Out) => SessionResult },
  ): RunningSession => {
    const { pub, secret, toResult } = parameters;
    const context = { sessionId: seat.sessionId, group, pub };
    const session = new Session<Pub, Secret, Out>({ protocol, context, self, secret }, dependencies);
    return {
      receive: (bytes) => void session.receive(bytes),
      expire: () => session.expire(),
      drain: () => session.drain(),
      get progress(): Progress<SessionResult> {
        const { progress } = session;
        return progress.state === "done" ? { state: "done", output: toResult(progress.output) } : progress;
      },
    };
  };
  switch (job.kind) {
    case "keygen": {
      const { scheme, threshold, walletId } = job;
      if (threshold < 2 || threshold > group.ids.length) {
        throw new InvalidInput("threshold-out-of-range", "the threshold is from 2 to the number of parties", {
          threshold,
        });
      }
      return start(protocols.keygen, {
        pub: { scheme, threshold, walletId },
        secret: undefined,
        toResult: (share) => ({ kind: "keygen", keyShare: encodeKeyShare(share) }),
      });
    }
    case "frost-sign": {
      const { secretShare, ...key } = decodeKeyShare(job.keyShare);
      if (key.scheme !== "frost") throw new Bug("a key of another scheme must not sign with FROST");
      checkSigners(group.ids, key);
      const items = job.items.map(({ message, bip32Tweak }) => ({
        message,
        bip32Tweak: Scalar.plus(Scalar.zero, bip32Tweak as Scalar),
      }));
      return start(protocols.frostSign, {
        pub: { key, items, authorization: job.authorization },
        secret: secretShare,
        toResult: (signatures) => ({ kind: "frost-sign", signatures }),
      });
    }
  }
}

function checkSigners(
  signers: readonly PartyId[],
  key: { readonly threshold: number; readonly publicShares: ReadonlyMap<PartyId, unknown> },
): void {
  if (signers.length !== key.threshold || signers.some((id) => !key.publicShares.has(id))) {
    throw new InvalidInput("signers", "a signing set is exactly the threshold of the key's parties", { signers });
  }
}
