/**
 * Signing with a presignature: CGGMP24, Fig. 10. One message a party, and a wrong one names its sender at once. The
 * nonce is re-randomized by a hash of everything that is signed, so that nobody can choose a message or a derived key
 * after seeing a nonce (Groth and Shoup, ePrint 2021/1330).
 */
import { create } from "@bufbuild/protobuf";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import * as libsecp256k1 from "tiny-secp256k1";
import { PartialSignaturesSchema } from "../../../gen/mpcwallet/cggmp24/v1/sign_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import { Point, q, Scalar, scalar } from "../../crypto/curve.js";
import { Bug, InvalidInput } from "../../crypto/fault.js";
import { toInteger } from "../../crypto/modulus.js";
import { hashTuple, scalarChallenge } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import {
  broadcast,
  type Check,
  type Participant,
  type Protocol,
  type Round,
  receive,
  type Steps,
  verify,
} from "../../session/protocol.js";
import { isScalar } from "../element-shape.js";
import { keyDigest, type PublicKeyPackage } from "../key-share.js";
import { isSound, type Presignature, type PresignatureShares, type PublicPresignature } from "./presignature.js";

/** Most messages that one session signs. */
export const MAX_BATCH = 256;

/**
 * A digest that this node computed itself from the transaction that it checked; the wallet's `Sighash` is one. It is
 * an object on purpose: 32 bytes that somebody handed over are no checked digest.
 */
export interface CheckedDigest {
  /** m, 32 bytes. */
  readonly bytes: Uint8Array;
}

/** What is signed, under which key, by which right. Equal at all signers. */
export interface SigningRequest {
  readonly digest: CheckedDigest;
  /** τ: sum of the BIP32 tweaks from the group key to the signing key; X' = X g^τ. */
  readonly bip32Tweak: Scalar;
  /** Digest of the approval certificate. */
  readonly authorization: Uint8Array;
}

/** An ECDSA signature with s in the lower half. */
export class EcdsaSignature {
  readonly r: Scalar;
  readonly s: Scalar;

  /** Normalizes s. @throws InvalidInput `signature-degenerate` when r or s is 0 */
  constructor(r: Scalar, s: Scalar) {
    if (r === 0n || s === 0n) throw new InvalidInput("signature-degenerate", "r and s are not 0");
    this.r = r;
    this.s = s > q >> 1n ? Scalar.negate(s) : s;
  }

  /** r and s, 64 bytes. */
  toCompact(): Uint8Array {
    return Buffer.concat([Scalar.toBytes(this.r), Scalar.toBytes(this.s)]);
  }

  /** Strict DER (BIP66), without a sighash byte. */
  toDer(): Uint8Array {
    return new secp256k1.Signature(this.r, this.s).toBytes("der");
  }

  /** Plain ECDSA by libsecp256k1, which also refuses a high s. */
  verifies(digest: CheckedDigest, key: Point): boolean {
    return libsecp256k1.verify(digest.bytes, key.toBytes(), this.toCompact(), true);
  }
}

/** Public values of one signature, the same at all signers. */
interface Equation {
  /** X'. */
  readonly X: Point;
  /** Γ'. */
  readonly nonce: Point;
  readonly m: Scalar;
  readonly r: Scalar;
  readonly rho: Scalar;
  readonly tau: Scalar;
}

/** r = x(Γ') mod q. @throws InvalidInput `signature-degenerate` when it is 0 */
export function nonceCoordinate(nonce: Point): Scalar {
  const r = scalar(nonce.x);
  if (r === 0n) throw new InvalidInput("signature-degenerate", "the nonce's coordinate is 0 modulo q");
  return r;
}

/** ρ = H(presignature id, Γ, X', m, authorization) ∈ F_q*. */
export function rerandomizer(
  { id, nonce }: PublicPresignature,
  X: Point,
  { digest, authorization }: SigningRequest,
): Scalar {
  for (let counter = 0; ; counter++) {
    const rho = scalarChallenge("sign/rerandomizer", [id, nonce, X, digest.bytes, authorization, counter]);
    if (rho !== 0n) return rho;
  }
}

function equationOf(presignature: PublicPresignature, groupKey: Point, request: SigningRequest): Equation {
  const { bytes } = request.digest;
  if (!(bytes instanceof Uint8Array) || bytes.length !== 32) {
    throw new InvalidInput("digest", "what is signed is a checked digest of 32 bytes");
  }
  const tau = request.bip32Tweak;
  const X = groupKey.plus(Point.base.timesPublic(tau)); // X' = X g^τ
  if (X.isIdentity) throw new InvalidInput("derived-key", "the derived key is the identity");
  const rho = rerandomizer(presignature, X, request);
  const nonce = presignature.nonce.timesPublic(rho); // Γ' = Γ^ρ
  return { X, nonce, m: scalar(toInteger(bytes)), r: nonceCoordinate(nonce), rho, tau };
}

/**
 * The party's share of the signature. Consumes the presignature before anything can fail: the caller has marked it
 * used, durably.
 * @throws InvalidInput `presignature-used`, `signature-degenerate`, `digest`, `derived-key`
 */
export function signShare(presignature: Presignature, groupKey: Point, request: SigningRequest): Scalar {
  return shareOf(presignature.take(), equationOf(presignature.public, groupKey, request));
}

function shareOf({ nonceShare, keyShare }: PresignatureShares, { m, r, rho, tau }: Equation): Scalar {
  const key = Scalar.plus(keyShare, Scalar.times(tau, nonceShare)); // χ̃_i + τ k̃_i
  const sum = Scalar.plus(Scalar.times(m, nonceShare), Scalar.times(r, key));
  return Scalar.times(Scalar.invertPublic(rho), sum); // σ_i = ρ^-1 (m k̃_i + r (χ̃_i + τ k̃_i))
}

/** Whether σ_j is the share of that signer. Public inputs only. Total for a request that was signed. */
export function verifyShare(
  presignature: PublicPresignature,
  groupKey: Point,
  request: SigningRequest,
  { party, share }: { readonly party: PartyId; readonly share: Scalar },
): boolean {
  return shareHolds(presignature, equationOf(presignature, groupKey, request), { party, share });
}

function shareHolds(
  { commitments }: PublicPresignature,
  { nonce, m, r, tau }: Equation,
  { party, share }: { readonly party: PartyId; readonly share: Scalar },
): boolean {
  const own = commitments.get(party);
  if (own === undefined) return false;
  const right = Point.productOfPowers([
    [own.nonce, Scalar.plus(m, Scalar.times(r, tau))],
    [own.key, r],
  ]);
  return nonce.timesPublic(share).equals(right); // Γ'^{σ_j} = Δ̃_j^m (S̃_j Δ̃_j^τ)^r
}

export type Combined =
  | { readonly kind: "signed"; readonly signature: EcdsaSignature }
  | { readonly kind: "bad-shares"; readonly culprits: readonly PartyId[] };

/**
 * The signature from the shares of all signers, low-s and verified as plain ECDSA under X', or who sent a wrong share.
 * Verifies as a whole; only a failure verifies each share.
 * @throws InvalidInput `signature-degenerate`
 */
export function combine(
  presignature: PublicPresignature,
  groupKey: Point,
  request: SigningRequest,
  shares: ReadonlyMap<PartyId, Scalar>,
): Combined {
  return combineUnder(equationOf(presignature, groupKey, request), presignature, request.digest, shares);
}

function combineUnder(
  equation: Equation,
  presignature: PublicPresignature,
  digest: CheckedDigest,
  shares: ReadonlyMap<PartyId, Scalar>,
): Combined {
  const signers = [...presignature.commitments.keys()];
  const s = Scalar.sum(signers.map((party) => shares.get(party) ?? Scalar.zero)); // s = Σ σ_j
  if (s !== 0n) {
    const signature = new EcdsaSignature(equation.r, s);
    if (signature.verifies(digest, equation.X)) return { kind: "signed", signature };
  }
  const culprits = signers.filter((party) => {
    const share = shares.get(party);
    return share === undefined || !shareHolds(presignature, equation, { party, share });
  });
  if (culprits.length > 0) return { kind: "bad-shares", culprits };
  if (s === 0n) throw new InvalidInput("signature-degenerate", "s is 0");
  throw new Bug("every share verifies but the signature does not");
}

// The same as a session of one round, so that evidence against a wrong share is portable ----------------------------

/** One message of a signing session. */
export interface SigningItem {
  readonly presignature: PublicPresignature;
  readonly digest: CheckedDigest;
  /** τ. */
  readonly bip32Tweak: Scalar;
}

/** Public parameters of a signing session; the session's parties are the presignatures' signing set. */
export interface Signing {
  readonly key: PublicKeyPackage;
  /** The current epoch, 32 bytes. */
  readonly epoch: Uint8Array;
  readonly items: readonly SigningItem[];
  /** Digest of the approval certificate. */
  readonly authorization: Uint8Array;
}

const SHARES: Round<typeof PartialSignaturesSchema> = {
  id: "shares",
  step: 1,
  message: PartialSignaturesSchema,
  delivery: "broadcast",
  maxBytes: MAX_BATCH * 48,
  wellFormed: ({ shares }, { batch }) => shares.length === batch && shares.every(isScalar),
};

const requestOf = ({ digest, bip32Tweak }: SigningItem, { authorization }: Signing): SigningRequest => ({
  digest,
  bip32Tweak,
  authorization,
});

/** Γ'^{σ_j} = Δ̃_j^m (S̃_j Δ̃_j^τ)^r for every message. */
const SHARE_VERIFIES: Check<Signing> = {
  id: "signature-share",
  needs: [{ round: SHARES, from: "accused" }],
  holds({ pub, accused: party }, view) {
    const { shares } = view.accused(SHARES);
    return pub.items.every((item, index) => {
      const share = Scalar.fromProto(shares[index]);
      return verifyShare(item.presignature, pub.key.groupKey, requestOf(item, pub), { party, share });
    });
  },
};

/**
 * Refuses presignatures of another key, epoch or signing set, unsound ones, and one for two messages.
 * @throws InvalidInput `batch`, `presignature`, `presignature-key`, `-epoch`, `-signers`, `-repeated`
 */
export function validateSigning({ key, epoch, items }: Signing, parties: readonly PartyId[]): void {
  if (items.length === 0 || items.length > MAX_BATCH) {
    throw new InvalidInput("batch", `a session signs 1 to ${MAX_BATCH} messages`, { count: items.length });
  }
  const digest = keyDigest(key);
  for (const { presignature } of items) {
    if (!equalBytes(presignature.keyDigest, digest)) {
      throw new InvalidInput("presignature-key", "the presignature is of another key");
    }
    if (!equalBytes(presignature.epoch, epoch)) {
      throw new InvalidInput("presignature-epoch", "the presignature is of another epoch");
    }
    if ([...presignature.commitments.keys()].join() !== parties.join()) {
      throw new InvalidInput("presignature-signers", "the presignature is of another signing set");
    }
    if (!isSound(presignature, key.groupKey)) {
      throw new InvalidInput("presignature", "the presignature does not sign under this key");
    }
  }
  const ids = new Set(items.map(({ presignature: { id } }) => Buffer.from(id).toString("hex")));
  if (ids.size !== items.length) throw new InvalidInput("presignature-repeated", "one presignature signs one message");
}

function* run(
  participant: Participant<Signing>,
  presignatures: readonly Presignature[],
): Steps<Signing, readonly EcdsaSignature[]> {
  const { self, parties, pub } = participant;
  validateSigning(pub, parties);
  if (presignatures.length !== pub.items.length) {
    throw new InvalidInput("batch", "one presignature for each message", { count: presignatures.length });
  }
  const own = presignatures.map((presignature, index) => {
    const item = pub.items[index];
    if (item === undefined || presignature.self !== self || !equalBytes(presignature.id, item.presignature.id)) {
      throw new InvalidInput("presignature-order", "the presignatures are not those of the session", { index });
    }
    return { presignature, request: requestOf(item, pub) };
  });

  // Fig. 10, round 1: σ_i, once for each presignature, which is consumed before anything of it can fail.
  const taken = own.map(({ presignature }) => presignature.take());
  const equations = own.map(({ presignature, request }) => equationOf(presignature.public, pub.key.groupKey, request));
  const sigma = taken.map((shares, index) => shareOf(shares, at(equations, index)));
  yield* broadcast(SHARES, create(PartialSignaturesSchema, { shares: sigma.map(Scalar.toProto) }));
  const shares = yield* receive(SHARES);

  // Output: s = Σ σ_j, verified as plain ECDSA; only a failure verifies each share, to name its sender.
  const results = pub.items.map((item, index) =>
    combineUnder(
      at(equations, index),
      item.presignature,
      item.digest,
      new Map([...shares].map(([party, message]) => [party, Scalar.fromProto(message.shares[index])])),
    ),
  );
  const signatures = results.flatMap((result) => (result.kind === "signed" ? [result.signature] : []));
  if (signatures.length === results.length) return signatures;
  yield* verify(SHARE_VERIFIES);
  const damaged = results.findIndex((result) => result.kind === "bad-shares" && result.culprits.includes(self));
  if (damaged >= 0) throw new Bug("an own share does not verify: the presignature was damaged", { index: damaged });
  throw new Bug("every signature share verifies but a signature does not");
}

function at<T>(list: readonly T[], index: number): T {
  const value = list[index];
  if (value === undefined) throw new Bug("one for each message", { index });
  return value;
}

/**
 * Signs with exactly the presignatures' signers. The caller has marked every presignature used, durably, before.
 * Blames: a party whose signature share does not verify, with evidence.
 */
export const sign: Protocol<Signing, readonly Presignature[], readonly EcdsaSignature[]> = {
  name: "cggmp24-sign/1",
  rounds: [SHARES],
  checks: [SHARE_VERIFIES],
  shape: ({ key, items }, parties) => ({ parties, threshold: key.threshold, batch: items.length }),
  digest: ({ key, epoch, items, authorization }) =>
    hashTuple("sign/parameters", [
      keyDigest(key),
      epoch,
      items.map(({ presignature, digest, bip32Tweak }) => [presignature.id, digest.bytes, { scalar: bip32Tweak }]),
      authorization,
    ]),
  run,
};
