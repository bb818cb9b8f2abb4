/**
 * Feldman's verifiable secret sharing over F_q: f(X) = f_0 + f_1 X + … + f_{t-1} X^{t-1}, committed to as g^{f_k}.
 */
import type { Random } from "./ambient.js";
import { checkIndices, Point, Scalar, scalar } from "./curve.js";
import { InvalidInput } from "./fault.js";

/** A secret polynomial; its length is the threshold t. */
export interface Polynomial {
  readonly coefficients: readonly Scalar[];
}

/** F = (g^{f_0} … g^{f_{t-1}}): exactly t points. */
export type Commitment = readonly Point[];

/** A random polynomial with t coefficients; `constant` is shared (a random secret when absent, 0 for a refresh). */
export function randomPolynomial(threshold: number, random: Random, constant?: Scalar): Polynomial {
  if (!Number.isInteger(threshold) || threshold < 1) {
    throw new InvalidInput("threshold-range", "a threshold is at least 1", { threshold });
  }
  const rest = Array.from({ length: threshold - 1 }, () => Scalar.randomNonZero(random));
  return { coefficients: [constant ?? Scalar.randomNonZero(random), ...rest] };
}

/** f(index); the index is that of a party, never 0. */
export function share(polynomial: Polynomial, index: number): Scalar {
  checkIndices([index]);
  const x = scalar(BigInt(index));
  return polynomial.coefficients.reduceRight((sum, f_k) => Scalar.plus(Scalar.times(sum, x), f_k), Scalar.zero);
}

/** Constant time in the coefficients; a sharing of zero commits to f_0 as the identity, which has no encoding. */
export function commit(polynomial: Polynomial): Commitment {
  return polynomial.coefficients.map((f_k) => Point.base.times(f_k));
}

/** g^{f(index)} = Π F_k^{index^k}. Public inputs only. */
export function shareCommitment(commitment: Commitment, index: number): Point {
  checkIndices([index]);
  const x = scalar(BigInt(index));
  return commitment.reduceRight((sum, F_k) => sum.timesPublic(x).plus(F_k), Point.identity); // Horner
}

/**
 * What a verifier requires of a commitment before anything else: exactly t points, and no identity among the
 * coefficients (`zeroConstant`: F_0 must be the identity, as in a refresh). A longer one would raise the threshold.
 */
export function isCommitment(
  commitment: Commitment,
  { threshold, zeroConstant = false }: { readonly threshold: number; readonly zeroConstant?: boolean },
): boolean {
  return commitment.length === threshold && commitment.every((F_k, k) => F_k.isIdentity === (zeroConstant && k === 0));
}

/** Whether the share of `index` lies on the committed polynomial. The share is the verifier's own secret. */
export function verifyShare(commitment: Commitment, index: number, value: Scalar): boolean {
  return Point.base.times(value).equals(shareCommitment(commitment, index)); // g^{f(i)} = Π F_k^{i^k}
}
