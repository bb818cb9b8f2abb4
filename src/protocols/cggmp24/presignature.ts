/** A presignature: one use, one signing set, one epoch of one key. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Presignature as PresignatureMessage,
  PresignatureSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import type { Point as PointMessage } from "../../../gen/mpcwallet/crypto/v1/elements_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import { Point, Scalar } from "../../crypto/curve.js";
import { InvalidInput } from "../../crypto/fault.js";
import { hashTuple } from "../../crypto/transcript.js";
import { type PartyId, partyId } from "../../session/party.js";

/** Longest encoding of a presignature. */
const MAX_BYTES = 1 << 14;

/** What verifies one signer's share. */
export interface SignerCommitment {
  /** Δ̃_j = Γ^{k̃_j}. */
  readonly nonce: Point;
  /** S̃_j = Γ^{χ̃_j}. */
  readonly key: Point;
}

/** Everything public about a presignature; equal at all its signers. */
export interface PublicPresignature {
  /** Hash of the fields below, 32 bytes. */
  readonly id: Uint8Array;
  /** Digest of the key with its shares, 32 bytes. */
  readonly keyDigest: Uint8Array;
  /** Epoch of shares and aux info, 32 bytes. */
  readonly epoch: Uint8Array;
  /** Γ. */
  readonly nonce: Point;
  /** Ascending by party; the indices are the signing set. */
  readonly commitments: ReadonlyMap<PartyId, SignerCommitment>;
}

/** What one signer keeps secret. */
export interface PresignatureShares {
  /** k̃_i = k_i/δ. */
  readonly nonceShare: Scalar;
  /** χ̃_i = χ_i/δ. */
  readonly keyShare: Scalar;
}

export function presignatureId(presignature: Omit<PublicPresignature, "id">): Uint8Array {
  const { keyDigest, epoch, nonce, commitments } = presignature;
  return hashTuple("presignature", [
    keyDigest,
    epoch,
    nonce,
    [...commitments].map(([party, commitment]) => [party, commitment.nonce, commitment.key]),
  ]);
}

/** For a judge: no shares. */
export const encodePublicPresignature = (presignature: PublicPresignature): Uint8Array =>
  toBinary(PresignatureSchema, publicMessage(presignature));

const publicMessage = ({ id, keyDigest, epoch, nonce, commitments }: PublicPresignature): PresignatureMessage =>
  create(PresignatureSchema, {
    id,
    keyDigest,
    epoch,
    nonce: nonce.toProto(),
    commitments: [...commitments].map(([party, commitment]) => ({
      party,
      nonce: commitment.nonce.toProto(),
      key: commitment.key.toProto(),
    })),
  });

/** Reads what `encodePublicPresignature` wrote; the id is computed, not believed. @throws InvalidInput */
export function decodePublicPresignature(bytes: Uint8Array): PublicPresignature {
  const fields = readFields(readMessage(bytes), Point.fromProto);
  return { id: presignatureId(fields), ...fields };
}

function readMessage(bytes: Uint8Array): PresignatureMessage {
  if (bytes.length > MAX_BYTES) throw new InvalidInput("presignature", "too long", { bytes: bytes.length });
  try {
    return fromBinary(PresignatureSchema, bytes);
  } catch {
    throw new InvalidInput("presignature", "the presignature does not decode");
  }
}

type ReadPoint = (message: PointMessage | undefined) => Point;

const sealedPoint: ReadPoint = (message) => Point.restore(message?.sec1 ?? new Uint8Array());

/** Copies: what the decoder returns are views of its bytes, which may be erased. */
function readFields(message: PresignatureMessage, point: ReadPoint): Omit<PublicPresignature, "id"> {
  return {
    keyDigest: Uint8Array.from(message.keyDigest),
    epoch: Uint8Array.from(message.epoch),
    nonce: point(message.nonce),
    commitments: new Map(
      message.commitments.map((commitment) => [
        partyId(commitment.party),
        { nonce: point(commitment.nonce), key: point(commitment.key) },
      ]),
    ),
  };
}

/**
 * One signer's presignature. Taking the shares consumes the object: a second taking is refused. That no copy of it is
 * used either is the ledger's promise (take and erase durably, before anything leaves the process), not this object's.
 */
export class Presignature {
  readonly self: PartyId;
  readonly public: PublicPresignature;
  #shares: PresignatureShares | undefined;

  constructor(self: PartyId, publicPart: PublicPresignature, shares: PresignatureShares) {
    this.self = self;
    this.public = publicPart;
    this.#shares = shares;
  }

  get id(): Uint8Array {
    return this.public.id;
  }

  get isUsed(): boolean {
    return this.#shares === undefined;
  }

  /** The secret shares, once. @throws InvalidInput `presignature-used` */
  take(): PresignatureShares {
    const shares = this.#shares;
    this.#shares = undefined;
    if (shares === undefined) throw new InvalidInput("presignature-used", "a presignature signs once");
    return shares;
  }

  /** For the ledger, before first use. @throws InvalidInput `presignature-used` */
  encode(): Uint8Array {
    if (this.#shares === undefined) throw new InvalidInput("presignature-used", "a used presignature is not kept");
    return toBinary(PresignatureSchema, {
      ...publicMessage(this.public),
      self: this.self,
      nonceShare: Scalar.toProto(this.#shares.nonceShare),
      keyShare: Scalar.toProto(this.#shares.keyShare),
    });
  }

  /** Reads what `encode` wrote, and checks the equations that every honest presignature satisfies. */
  static decode(bytes: Uint8Array, groupKey: Point): Presignature {
    const read = Presignature.#read(bytes, Point.fromProto);
    const { nonce, commitments } = read.public;
    const own = commitments.get(read.self);
    const shares = read.#shares;
    const sound =
      shares !== undefined &&
      isSound(read.public, groupKey) &&
      own?.nonce.equals(nonce.times(shares.nonceShare)) === true && // Δ̃_i = Γ^{k̃_i}
      own.key.equals(nonce.times(shares.keyShare)); //                 S̃_i = Γ^{χ̃_i}
    if (!sound) throw unsound(read.self);
    return read;
  }

  /**
   * Reads what `encode` wrote and an authenticated seal has kept since. What the making of the presignature has shown is
   * not computed again in the time of a signature: that its points are on the curve, that its commitments fit together,
   * and that its secret shares are those of its commitments. Its id, which names key and epoch, is.
   */
  static decodeSealed(bytes: Uint8Array): Presignature {
    const read = Presignature.#read(bytes, sealedPoint);
    sealed.add(read.public);
    return read;
  }

  static #read(bytes: Uint8Array, point: ReadPoint): Presignature {
    const message = readMessage(bytes);
    const self = partyId(message.self);
    const publicPart = { id: Uint8Array.from(message.id), ...readFields(message, point) };
    if (!publicPart.commitments.has(self)) throw unsound(self);
    const shares = {
      nonceShare: Scalar.fromProto(message.nonceShare),
      keyShare: Scalar.fromProto(message.keyShare),
    };
    return new Presignature(self, publicPart, shares);
  }

  /** Never shown: an inspector or a log gets the id only. */
  toJSON(): string {
    return `Presignature(${Buffer.from(this.id).toString("hex")})`;
  }
}

const unsound = (self: PartyId): InvalidInput =>
  new InvalidInput("presignature", "the presignature is not one of this key", { self });

/** Presignatures out of a seal, whose commitments were seen to fit when they were made. */
const sealed = new WeakSet<PublicPresignature>();

/**
 * The id is of these fields, Π Δ̃_j = g and Π S̃_j = X: together the shares sign under X, which is the key that the
 * presignature names. Public inputs only.
 */
export function isSound(presignature: PublicPresignature, groupKey: Point): boolean {
  if (!equalBytes(presignature.id, presignatureId(presignature))) return false;
  return sealed.has(presignature) || isConsistent(presignature, groupKey);
}

/** Π Δ̃_j = g and Π S̃_j = X. */
export function isConsistent({ commitments }: PublicPresignature, groupKey: Point): boolean {
  const all = [...commitments.values()];
  const ordered = [...commitments.keys()].every((party, i, parties) => i === 0 || (parties[i - 1] ?? 0) < party);
  return (
    ordered &&
    Point.sum(all.map(({ nonce }) => nonce)).equals(Point.base) && // Γ^{Σ k̃_j} = Γ^{1/γ} = g
    Point.sum(all.map(({ key }) => key)).equals(groupKey) //           Γ^{Σ χ̃_j} = Γ^{x/γ} = X
  );
}
