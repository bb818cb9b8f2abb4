/** The primes below a bound, and the question whether a number has one of them as a factor. Public inputs only. */
import { gcd } from "./modulus.js";

/** All primes below `bound`, ascending. */
export function primesBelow(bound: number): readonly number[] {
  const composite = new Uint8Array(bound);
  const primes: number[] = [];
  for (let p = 2; p < bound; p++) {
    if (composite[p] === 1) continue;
    primes.push(p);
    for (let multiple = p * p; multiple < bound; multiple += p) composite[multiple] = 1;
  }
  return primes;
}

/** Balanced, so that the factors of each product are about as long as each other. */
export function product(factors: readonly bigint[]): bigint {
  if (factors.length <= 8) return factors.reduce((left, right) => left * right, 1n);
  const half = factors.length >> 1;
  return product(factors.slice(0, half)) * product(factors.slice(half));
}

const products = new Map<number, bigint>();

/** Whether a prime below `bound` divides the positive number n: one gcd with the product of all of them. */
export function hasFactorBelow(n: bigint, bound: number): boolean {
  const all = products.get(bound) ?? product(primesBelow(bound).map(BigInt));
  products.set(bound, all);
  return gcd(n, all % n) !== 1n;
}
