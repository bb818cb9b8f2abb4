/** Signature shares: made, verified and added, RFC 9591 sections 5.2 and 5.3 with the even y coordinates of BIP340. */
import * as libsecp256k1 from "tiny-secp256k1";
import { Point, Scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import type { PartyId } from "../../session/party.js";
import { type Binding, commitmentShare } from "./binding.js";
import { xOnly } from "./ciphersuite.js";
import type { SigningNonces } from "./nonces.js";

/** What one signer signs with. */
export interface Signer {
  readonly self: PartyId;
  /** x_i: share of the output key whose y is even; secret. */
  readonly secretShare: Scalar;
  /** λ_i over the signers. */
  readonly lambda_i: Scalar;
  readonly nonces: SigningNonces;
}

/**
 * RFC 9591 section 5.2, sign: z_i = ±(d_i + ρ_i e_i) + λ_i x_i c, minus where R has odd y. The nonces are spent first,
 * whatever follows. Parities, ρ_i, λ_i and c are public; the secrets see BigInt arithmetic modulo q only.
 * @throws Bug when the nonces are spent, the list holds another commitment of this signer, or R is the identity
 */
export function signatureShare({ self, secretShare, lambda_i, nonces }: Signer, binding: Binding): Scalar {
  const { hiding: d_i, binding: e_i } = nonces.spend();
  const own = binding.list.find(({ party }) => party === self);
  if (own === undefined || !own.hiding.equals(nonces.hiding) || !own.binding.equals(nonces.binding)) {
    throw new Bug("the commitment list does not hold the own commitment");
  }
  const { factors, R, c } = binding;
  const rho_i = factors.get(self);
  // R depends on a hash of everything that R is made of: nobody can steer it to the identity.
  if (rho_i === undefined || c === undefined) throw new Bug("the group commitment is the identity");
  const nonce = Scalar.plus(d_i, Scalar.times(rho_i, e_i));
  return Scalar.plus(R.hasEvenY ? nonce : Scalar.negate(nonce), Scalar.times(Scalar.times(lambda_i, secretShare), c));
}

/** A share as its sender's public values must explain it. */
export interface ShareClaim {
  readonly party: PartyId;
  /** z_i. */
  readonly share: Scalar;
  /** X_i: verifying share of the output key whose y is even. */
  readonly verifyingShare: Point;
  /** λ_i over the signers. */
  readonly lambda_i: Scalar;
}

/** RFC 9591 section 5.4, verify_signature_share: g^{z_i} = (D_i E_i^{ρ_i})^± X_i^{c λ_i}. Total. */
export function verifyShare({ party, share, verifyingShare, lambda_i }: ShareClaim, binding: Binding): boolean {
  const { list, factors, R, c } = binding;
  const commitment = list.find((candidate) => candidate.party === party);
  if (commitment === undefined || c === undefined) return false; // under an identity R nobody's share verifies
  const R_i = commitmentShare(commitment, factors);
  const expected = (R.hasEvenY ? R_i : R_i.negate()).plus(verifyingShare.timesPublic(Scalar.times(c, lambda_i)));
  return Point.base.timesPublic(share).equals(expected);
}

/** RFC 9591 section 5.3, aggregate: z = Σ z_i; the signature is x(R) || z, 64 bytes, not verified yet. */
export function aggregate(shares: Iterable<Scalar>, { R }: Binding): Uint8Array {
  return new Uint8Array(Buffer.concat([xOnly(R), Scalar.toBytes(Scalar.sum(shares))]));
}

/**
 * BIP340 verification by libsecp256k1, of a 32-byte message under an x-only key. Total. (tiny-secp256k1 refuses
 * x(R) >= q, though BIP340 allows it up to p; no honest or hostile signer meets one but once in 2^128.)
 */
export function verifySignature(signature: Uint8Array, message: Uint8Array, outputKey: Uint8Array): boolean {
  try {
    return libsecp256k1.verifySchnorr(message, outputKey, signature);
  } catch {
    return false;
  }
}
