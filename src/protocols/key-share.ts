import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type KeyShare as KeyShareMessage, KeyShareSchema } from "../../gen/mpcwallet/keygen/v1/keygen_pb.js";
import { Point, Scalar } from "../crypto/curve.js";
import { InvalidInput } from "../crypto/fault.js";
import { hashTuple } from "../crypto/transcript.js";
import { type PartyId, partyId } from "../session/party.js";

/** What a key signs: FROST for Taproot, CGGMP24 for SegWit. A key is never used for both. */
export type Scheme = "frost" | "cggmp24";

/** Everything public about a shared key; equal at all parties. */
export interface PublicKeyPackage {
  readonly scheme: Scheme;
  /** t: how many parties sign. */
  readonly threshold: number;
  /** X_j for every party, ascending. */
  readonly publicShares: ReadonlyMap<PartyId, Point>;
  /** X. */
  readonly groupKey: Point;
  /** BIP32 chain code, 32 bytes. */
  readonly chainCode: Uint8Array;
}

/** One party's share of a key. `secretShare` never leaves the node. */
export interface KeyShare extends PublicKeyPackage {
  readonly self: PartyId;
  /** x_i with X_i = g^{x_i}. */
  readonly secretShare: Scalar;
}

/** Of key objects that are in use: a session needs the digest several times. */
const digests = new WeakMap<PublicKeyPackage, Uint8Array>();

/** Digest of everything public about the key, 32 bytes; parties compare it, sessions bind it. */
export function keyDigest(key: PublicKeyPackage): Uint8Array {
  const known = digests.get(key);
  if (known !== undefined) return known;
  const digest = hashTuple("key", [
    key.scheme,
    BigInt(key.threshold),
    [...key.publicShares].map(([party, point]) => [BigInt(party), point]),
    key.groupKey,
    key.chainCode,
  ]);
  digests.set(key, digest);
  return digest;
}

/** The share, secret included. */
export function encodeKeyShare(share: KeyShare): Uint8Array {
  const message = publicFields(share);
  message.self = share.self;
  message.secretShare = Scalar.toProto(share.secretShare);
  return toBinary(KeyShareSchema, message);
}

/** The same message without the fields of one party; equal at all parties. */
export function encodePublicKeyPackage(key: PublicKeyPackage): Uint8Array {
  return toBinary(KeyShareSchema, publicFields(key));
}

/** Reads what `encodePublicKeyPackage` wrote. @throws InvalidInput `key-package` when the bytes are no such package */
export function decodePublicKeyPackage(bytes: Uint8Array): PublicKeyPackage {
  try {
    const { scheme, threshold, publicShares, groupKey, chainCode } = fromBinary(KeyShareSchema, bytes);
    const shares = new Map(publicShares.map(({ party, point }) => [partyId(party), Point.fromProto(point)]));
    const known = scheme === "frost" || scheme === "cggmp24";
    if (known && threshold >= 1 && threshold <= shares.size && chainCode.length === 32) {
      return {
        scheme,
        threshold,
        publicShares: shares,
        groupKey: Point.fromProto(groupKey),
        chainCode: Uint8Array.from(chainCode),
      };
    }
  } catch {
    // Points and party indices that are none say no more than that.
  }
  throw new InvalidInput("key-package", "the bytes are no public key package");
}

function publicFields(key: PublicKeyPackage): KeyShareMessage {
  return create(KeyShareSchema, {
    scheme: key.scheme,
    threshold: key.threshold,
    publicShares: [...key.publicShares].map(([party, point]) => ({ party, point: point.toProto() })),
    groupKey: key.groupKey.toProto(),
    chainCode: key.chainCode,
  });
}

/** @throws InvalidInput `key-share` when the bytes are no share, or the secret does not fit its public share */
export function decodeKeyShare(bytes: Uint8Array): KeyShare {
  const message = fromBinary(KeyShareSchema, bytes);
  const { scheme, threshold } = message;
  // A copy: protobuf hands out views, and callers erase the bytes of a share after use.
  const chainCode = Uint8Array.from(message.chainCode);
  if (scheme !== "frost" && scheme !== "cggmp24") throw new InvalidInput("key-share", "unknown scheme", { scheme });
  const publicShares = new Map(
    message.publicShares.map(({ party, point }) => [partyId(party), Point.fromProto(point)]),
  );
  const self = partyId(message.self);
  const secretShare = Scalar.fromProto(message.secretShare);
  if (threshold < 1 || threshold > publicShares.size || chainCode.length !== 32) {
    throw new InvalidInput("key-share", "threshold or chain code is out of range", { threshold });
  }
  if (publicShares.get(self)?.equals(Point.base.times(secretShare)) !== true) {
    throw new InvalidInput("key-share", "the secret share does not fit its public share", { self });
  }
  return { scheme, threshold, self, secretShare, publicShares, groupKey: Point.fromProto(message.groupKey), chainCode };
}
