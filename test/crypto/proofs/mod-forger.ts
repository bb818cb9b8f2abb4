// Answers to Π-mod by somebody who knows all factors of any modulus, sound or not: the true ones wherever there are any.

import type { Random } from "../../../src/crypto/ambient.js";
import { invert, jacobi, Modulus, randomUnit, reduce } from "../../../src/crypto/modulus.js";
import type { PaillierKey } from "../../../src/crypto/paillier.js";
import { challengeResidues, type ProofContext } from "../../../src/crypto/proofs/context.js";

export const challenges = (context: ProofContext, key: PaillierKey, w: bigint, count = context.profile.repetitions) =>
  challengeResidues(context, { proof: "mod", statement: [key.N], commitments: [w] }, { count, bound: key.N });

export const pow = (base: bigint, exponent: bigint, m: bigint): bigint => Modulus.of(m).pow(base, exponent);

/** Chinese remainders of several moduli, textbook. */
export function combine(residues: readonly bigint[], primes: readonly bigint[]): bigint {
  const product = primes.reduce((left, right) => left * right, 1n);
  const terms = primes.map((p, i) => (residues[i] ?? 0n) * (product / p) * (invert(product / p, p) ?? 0n));
  return reduce(
    terms.reduce((left, right) => left + right, 0n),
    product,
  );
}

/** A fourth root of y modulo a prime p ≢ 1 mod 8, or undefined. */
export function fourthRoot(y: bigint, p: bigint): bigint | undefined {
  const squareRoot = (value: bigint): bigint | undefined => {
    if (p % 4n === 3n) {
      const root = pow(value, (p + 1n) / 4n, p);
      return pow(root, 2n, p) === reduce(value, p) ? root : undefined;
    }
    const half = pow(value, (p + 3n) / 8n, p); // p ≡ 5 mod 8
    for (const root of [half, (half * pow(2n, (p - 1n) / 4n, p)) % p]) {
      if (pow(root, 2n, p) === reduce(value, p)) return root;
    }
    return undefined;
  };
  const root = squareRoot(y);
  if (root === undefined) return undefined;
  return squareRoot(root) ?? squareRoot(p - root);
}

/** The best that someone who knows all factors can do: the true answer wherever there is one. */
export function bestEffort(context: ProofContext, key: PaillierKey, primes: readonly bigint[], w: bigint) {
  const phi = primes.reduce((left, p) => left * (p - 1n), 1n);
  const nth = invert(key.N, phi);
  let answered = 0;
  const right = (a: boolean, b: boolean, y: bigint) => (a ? -1n : 1n) * (b ? w : 1n) * y;
  const entries = challenges(context, key, w).map((y) => {
    const z =
      nth === undefined
        ? 1n
        : combine(
            primes.map((p) => pow(y, nth % (p - 1n), p)),
            primes,
          );
    for (const b of [false, true]) {
      for (const a of [false, true]) {
        const roots = primes.map((p) => fourthRoot(reduce(right(a, b, y), p), p));
        if (roots.includes(undefined)) continue;
        answered++;
        return {
          x: combine(
            roots.map((root) => root ?? 0n),
            primes,
          ),
          a,
          b,
          z,
        };
      }
    }
    return { x: 1n, a: false, b: false, z };
  });
  return { proof: { w, entries }, answered };
}

/** A w as the figure asks for it. */
export function nonresidue(N: bigint, random: Random): bigint {
  let w = randomUnit(random, N);
  while (jacobi(w, N) !== -1) w = randomUnit(random, N);
  return w;
}
