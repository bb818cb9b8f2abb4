import type { KeyObject } from "node:crypto";
import type { Random } from "../crypto/ambient.js";
import { equalBytes } from "../crypto/bytes.js";
import { type Scalar, scalar } from "../crypto/curve.js";
import { signEd25519 } from "../crypto/ed25519.js";
import { Bug, InvalidInput, PeerFault } from "../crypto/fault.js";
import { profiles, type SecurityProfile } from "../crypto/security-profile.js";
import { type AuxPrimes, auxInfo } from "../protocols/cggmp24/aux-info.js";
import { type AuxInfo, decodeAuxInfo, encodeAuxInfo, epochId } from "../protocols/cggmp24/aux-record.js";
import { presign } from "../protocols/cggmp24/presign.js";
import { encodePublicPresignature, Presignature } from "../protocols/cggmp24/presignature.js";
import { refresh } from "../protocols/cggmp24/refresh.js";
import { reshare } from "../protocols/cggmp24/reshare.js";
import { sign as cggmp24Sign } from "../protocols/cggmp24/sign.js";
import { prepareNonces } from "../protocols/frost/prepare-nonces.js";
import { PreparedNonces } from "../protocols/frost/prepared-nonces.js";
import { frostSign } from "../protocols/frost/sign.js";
import { frostSignPrepared } from "../protocols/frost/sign-prepared.js";
import {
  decodeKeyShare,
  decodePublicKeyPackage,
  encodeKeyShare,
  encodePublicKeyPackage,
  keyDigest,
  type PublicKeyPackage,
  type Scheme,
} from "../protocols/key-share.js";
import { keygen } from "../protocols/keygen.js";
import type { SignIdentity } from "../session/envelope.js";
import { Group, type PartyId, partyId } from "../session/party.js";
import type { Protocol } from "../session/protocol.js";
import { type Progress, Session } from "../session/session.js";
import { systemRandom } from "./ambient.js";

/** A protocol run as it crosses into a worker thread: plain values, no functions. */
export type SessionJob =
  | {
      readonly kind: "keygen";
      readonly scheme: Scheme;
      readonly threshold: number;
      readonly walletId: string;
    }
  | {
      readonly kind: "frost-nonces";
      /** Encoded KeyShare; secret. */
      readonly keyShare: Uint8Array;
      /** Pairs of nonces to make. */
      readonly count: number;
    }
  | {
      readonly kind: "frost-sign";
      /** Encoded KeyShare; secret. */
      readonly keyShare: Uint8Array;
      /** With nonces taken from the ledger for every item (encoded, secret), or for none. */
      readonly items: readonly {
        readonly message: Uint8Array;
        readonly bip32Tweak: bigint;
        readonly nonces?: Uint8Array;
      }[];
      readonly authorization: Uint8Array;
    }
  | {
      readonly kind: "aux-info";
      /** Encoded KeyShare; secret. */
      readonly keyShare: Uint8Array;
      readonly profile: SecurityProfile["name"];
      /** Secret; used in this session and never again. */
      readonly primes: AuxPrimes;
    }
  | {
      readonly kind: "refresh";
      /** Encoded KeyShare of a SegWit wallet, whose shares and auxiliary info are replaced; secret. */
      readonly keyShare: Uint8Array;
      readonly profile: SecurityProfile["name"];
      /** Secret; used in this session and never again. */
      readonly primes: AuxPrimes;
    }
  | {
      readonly kind: "reshare";
      /** Encoded KeyShare of a dealer; undefined for everybody else; secret. */
      readonly keyShare: Uint8Array | undefined;
      /** Encoded PublicKeyPackage that is replaced. */
      readonly publicKeyPackage: Uint8Array;
      /** Dealers by their index in the session, with their index among the old holders. */
      readonly dealers: readonly { readonly id: number; readonly oldIndex: number }[];
      readonly holders: readonly number[];
      readonly threshold: number;
    }
  | {
      readonly kind: "presign";
      /** Encoded KeyShare; secret. */
      readonly keyShare: Uint8Array;
      /** Encoded AuxInfo; secret. */
      readonly auxInfo: Uint8Array;
    }
  | {
      readonly kind: "cggmp24-sign";
      /** Encoded KeyShare; secret. */
      readonly keyShare: Uint8Array;
      /** The wallet's current epoch, 32 bytes. */
      readonly epoch: Uint8Array;
      /** One for each item, taken from the ledger. The presignature is encoded; secret. */
      readonly items: readonly {
        readonly message: Uint8Array;
        readonly bip32Tweak: bigint;
        readonly presignature: Uint8Array;
      }[];
      readonly authorization: Uint8Array;
    };

export type SigningJob = Extract<SessionJob, { readonly kind: "frost-sign" | "cggmp24-sign" }>;

/** Jobs that a person waits for; the others may take their time and must not stand in front of these. */
export const signs = (job: SessionJob): job is SigningJob => job.kind === "frost-sign" || job.kind === "cggmp24-sign";

/** What a finished job hands back. */
export type SessionResult =
  | { readonly kind: "keygen" /** Encoded KeyShare; secret. */; readonly keyShare: Uint8Array }
  | {
      readonly kind: "frost-nonces";
      readonly nonces: readonly {
        readonly id: Uint8Array;
        /** Encoded PreparedNonces; secret. */
        readonly secret: Uint8Array;
      }[];
    }
  | { readonly kind: "frost-sign"; readonly signatures: readonly Uint8Array[] }
  | {
      readonly kind: "aux-info";
      /** Encoded AuxInfo; secret. */
      readonly auxInfo: Uint8Array;
      /** 32 bytes. */
      readonly epochId: Uint8Array;
    }
  | {
      readonly kind: "refresh";
      /** Encoded KeyShare; secret. */
      readonly keyShare: Uint8Array;
      /** Encoded AuxInfo; secret. */
      readonly auxInfo: Uint8Array;
      /** 32 bytes. */
      readonly epochId: Uint8Array;
    }
  | {
      readonly kind: "reshare";
      /** Encoded KeyShare, undefined for a party that holds no longer; secret. */
      readonly keyShare: Uint8Array | undefined;
      /** Encoded PublicKeyPackage of the new shares. */
      readonly publicKeyPackage: Uint8Array;
    }
  | {
      readonly kind: "presign";
      readonly id: Uint8Array;
      /** Encoded Presignature; secret. */
      readonly presignature: Uint8Array;
    }
  /** DER with the byte for SIGHASH_ALL. */
  | { readonly kind: "cggmp24-sign"; readonly signatures: readonly Uint8Array[] };

const SIGHASH_ALL = 1;

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
export const PROTOCOLS = { keygen, frostSign, frostSignPrepared, cggmp24Sign } as const;

export interface SessionDependencies {
  readonly random: Random;
  readonly sign: SignIdentity;
  readonly protocols: typeof PROTOCOLS;
}

/** What honest sessions of a node run with. @param identity the node's Ed25519 key */
export const sessionDependencies = (identity: KeyObject): SessionDependencies => ({
  random: systemRandom,
  sign: (message) => signEd25519(identity, message),
  protocols: PROTOCOLS,
});

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
    parameters: {
      readonly pub: Pub;
      readonly secret: Secret;
      readonly toResult: (output: Out) => SessionResult;
      /** For a judge of evidence who knows the order of the session only. */
      readonly exhibits?: () => readonly Uint8Array[];
    },
  ): RunningSession => {
    const { pub, secret, toResult, exhibits } = parameters;
    const context = { sessionId: seat.sessionId, group, pub };
    const session = new Session<Pub, Secret, Out>({ protocol, context, self, secret }, dependencies);
    return {
      receive: (bytes) => void session.receive(bytes),
      expire: () => session.expire(),
      drain: () => session.drain(),
      get progress(): Progress<SessionResult> {
        const { progress } = session;
        if (progress.state === "done") return { state: "done", output: toResult(progress.output) };
        if (progress.state === "waiting" || exhibits === undefined || progress.fault.kind === "peer-silent")
          return progress;
        const { code, message, culprits, evidence, facts } = progress.fault;
        return {
          state: "aborted",
          fault: new PeerFault(code, message, { culprits, evidence, exhibits: exhibits() }, facts),
        };
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
    case "frost-nonces": {
      const { secretShare, key } = schnorrShare(job.keyShare);
      checkSigners(group.ids, key);
      return start(prepareNonces, {
        pub: { key, count: job.count },
        secret: secretShare,
        toResult: (made) => ({
          kind: "frost-nonces",
          nonces: made.map((nonces) => ({ id: nonces.id, secret: nonces.encode() })),
        }),
      });
    }
    case "frost-sign": {
      const { secretShare, key } = schnorrShare(job.keyShare);
      checkSigners(group.ids, key);
      const { authorization } = job;
      const items = job.items.map(({ message, bip32Tweak }) => ({ message, bip32Tweak: scalar(bip32Tweak) }));
      const toResult = (signatures: readonly Uint8Array[]) => ({ kind: "frost-sign" as const, signatures });
      const prepared = job.items.flatMap(({ nonces }) => (nonces === undefined ? [] : [takeUp(nonces)]));
      if (prepared.length === 0) {
        return start(protocols.frostSign, { pub: { key, items, authorization }, secret: secretShare, toResult });
      }
      if (prepared.length !== items.length) throw new Bug("nonces for some messages only");
      const named = items.map((item, index) => ({ ...item, noncesId: prepared[index]?.id ?? new Uint8Array() }));
      return start(protocols.frostSignPrepared, {
        pub: { key, items: named, authorization },
        secret: { secretShare, nonces: prepared },
        toResult,
      });
    }
    case "aux-info": {
      const { key } = ecdsaShare(job.keyShare);
      return start(auxInfo, {
        pub: { profile: profileOf(job.profile), keyDigest: keyDigest(key) },
        secret: job.primes,
        toResult: (aux) => ({ kind: "aux-info", auxInfo: encodeAuxInfo(aux), epochId: epochId(key, aux) }),
      });
    }
    case "refresh": {
      const share = decodeKeyShare(job.keyShare);
      const { secretShare: _, self: __, ...key } = share;
      if (key.scheme !== "cggmp24") throw new InvalidInput("scheme", "a FROST key has no auxiliary info to refresh");
      return start(refresh, {
        pub: { profile: profileOf(job.profile), key },
        secret: { share, primes: job.primes },
        toResult: ({ share: fresh, aux }) => ({
          kind: "refresh",
          keyShare: encodeKeyShare(fresh),
          auxInfo: encodeAuxInfo(aux),
          epochId: epochId(fresh, aux),
        }),
      });
    }
    case "reshare": {
      const { threshold } = job;
      return start(reshare, {
        pub: {
          key: decodePublicKeyPackage(job.publicKeyPackage),
          dealers: job.dealers.map(({ id }) => partyId(id)),
          oldIndices: new Map(job.dealers.map(({ id, oldIndex }) => [partyId(id), partyId(oldIndex)])),
          holders: job.holders.map(partyId),
          threshold,
        },
        secret: job.keyShare === undefined ? undefined : decodeKeyShare(job.keyShare),
        toResult: ({ key, share }) => ({
          kind: "reshare",
          keyShare: share && encodeKeyShare(share),
          publicKeyPackage: encodePublicKeyPackage(key),
        }),
      });
    }
    case "presign": {
      const { secretShare, key } = ecdsaShare(job.keyShare);
      checkSigners(group.ids, key);
      const aux = rememberedAux(job.auxInfo);
      return start(presign, {
        pub: { key, aux },
        secret: { secretShare, paillier: aux.paillier },
        toResult: (made) => ({ kind: "presign", id: made.id, presignature: made.encode() }),
      });
    }
    case "cggmp24-sign": {
      const { key } = ecdsaShare(job.keyShare);
      checkSigners(group.ids, key);
      const presignatures = job.items.map(({ presignature }) => {
        const taken = Presignature.decodeSealed(presignature);
        presignature.fill(0);
        return taken;
      });
      const items = presignatures.map((presignature, index) => ({
        presignature: presignature.public,
        digest: { bytes: job.items[index]?.message ?? new Uint8Array() },
        bip32Tweak: scalar(job.items[index]?.bip32Tweak ?? 0n),
      }));
      return start(protocols.cggmp24Sign, {
        pub: { key, epoch: job.epoch, items, authorization: job.authorization },
        secret: presignatures,
        toResult: (signatures) => ({
          kind: "cggmp24-sign",
          signatures: signatures.map((signature) => Uint8Array.from([...signature.toDer(), SIGHASH_ALL])),
        }),
        exhibits: () => items.map((item) => encodePublicPresignature(item.presignature)),
      });
    }
  }
}

function profileOf(wanted: SecurityProfile["name"]): SecurityProfile {
  const profile = profiles.find(({ name }) => name === wanted);
  if (profile === undefined) throw new Bug("a job names an unknown profile");
  return profile;
}

function ecdsaShare(keyShare: Uint8Array): OpenedShare {
  const share = rememberedShare(keyShare);
  if (share.key.scheme !== "cggmp24") throw new InvalidInput("scheme", "a FROST key is never used for ECDSA");
  return share;
}

function schnorrShare(keyShare: Uint8Array): OpenedShare {
  const share = rememberedShare(keyShare);
  if (share.key.scheme !== "frost") throw new Bug("a key of another scheme must not sign with FROST");
  return share;
}

interface OpenedShare {
  readonly secretShare: Scalar;
  readonly key: PublicKeyPackage;
}

const OPENED_SHARES_MAX = 32;
/**
 * The last share of each key that signed in this thread: opening one checks it against its public share in constant
 * time, and what is computed about a key (its digest, output keys) is remembered with the object. A refreshed share
 * takes the place of the one before, whose bytes are erased.
 */
const openedShares = new Map<string, { readonly bytes: Uint8Array; readonly share: OpenedShare }>();

function rememberedShare(bytes: Uint8Array): OpenedShare {
  for (const known of openedShares.values()) if (equalBytes(known.bytes, bytes)) return known.share;
  const { secretShare, self: _, ...key } = decodeKeyShare(bytes);
  const name = Buffer.from(key.groupKey.toBytes()).toString("hex");
  const [oldest] = openedShares.keys();
  const goes = openedShares.has(name) || openedShares.size < OPENED_SHARES_MAX ? name : (oldest ?? name);
  openedShares.get(goes)?.bytes.fill(0);
  openedShares.delete(goes);
  const share = { secretShare, key };
  openedShares.set(name, { bytes: Uint8Array.from(bytes), share });
  return share;
}

/** Nonces out of the bytes of the ledger's row, which are erased. */
function takeUp(bytes: Uint8Array): PreparedNonces {
  try {
    return PreparedNonces.decode(bytes);
  } finally {
    bytes.fill(0);
  }
}

/** Engines of a wallet's moduli take tens of milliseconds to make, and a pool is filled for one wallet at a time. */
let lastAux: { readonly bytes: Uint8Array; readonly aux: AuxInfo } | undefined;

function rememberedAux(bytes: Uint8Array): AuxInfo {
  if (lastAux !== undefined && equalBytes(lastAux.bytes, bytes)) return lastAux.aux;
  const aux = decodeAuxInfo(bytes);
  lastAux?.bytes.fill(0);
  lastAux = { bytes, aux };
  return aux;
}

function checkSigners(
  signers: readonly PartyId[],
  key: { readonly threshold: number; readonly publicShares: ReadonlyMap<PartyId, unknown> },
): void {
  if (signers.length !== key.threshold || signers.some((id) => !key.publicShares.has(id))) {
    throw new InvalidInput("signers", "a signing set is exactly the threshold of the key's parties", { signers });
  }
}
