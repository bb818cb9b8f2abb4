/**
 * Safe primes p = 2q + 1, found by a sieve over q and p together. OpenSSL's own search sieves by a few hundred primes and
 * so tests several times as many candidates; here the sieve has all primes below 2^22 and OpenSSL tests what is left.
 */
import { checkPrime } from "node:crypto";
import type { Random } from "./ambient.js";
import { Bug } from "./fault.js";
import { passesFermat, randomBelow } from "./modulus.js";
import { primesBelow } from "./small-primes.js";

/** Candidates q, q + 2, q + 4 … that are sieved at once. At 1536 bits one in 430,000 is what is looked for. */
const WINDOW = 1 << 20;
const SIEVE_BELOW = 1 << 22;
/** Tests between two turns of the event loop. */
const TESTS_A_TURN = 16;

let sieving: readonly number[] | undefined;

/**
 * A safe prime of exactly `bits` bits, at least 64, its two highest bits set; ≡ 3 mod 4, as all are. Uniform among those
 * of a window with a uniform beginning. OpenSSL confirms both primes (64 rounds of Miller and Rabin each). `onTest` is
 * told of every candidate that is tested: about 1,500 at 1536 bits. Blocks for milliseconds at a time.
 */
export async function generateSafePrime(bits: number, random: Random, onTest: () => void = () => {}): Promise<bigint> {
  if (bits < 64) throw new Bug("a safe prime has at least 64 bits", { bits });
  sieving ??= primesBelow(SIEVE_BELOW).slice(1);
  for (;;) {
    const least = 3n << BigInt(bits - 3); // q ≥ 3·2^(bits-3) gives p its two highest bits
    const room = (1n << BigInt(bits - 3)) - BigInt(2 * WINDOW);
    const from = (least + randomBelow(random, room)) | 1n;
    const left = shuffled(survivors(from, sieving), random);
    for (const [index, offset] of left.entries()) {
      if (index % TESTS_A_TURN === TESTS_A_TURN - 1) await new Promise((resolve) => setImmediate(resolve));
      onTest();
      const q = from + BigInt(2 * offset);
      const p = 2n * q + 1n;
      if (passesFermat(q) && passesFermat(p) && (await isPrime(q)) && (await isPrime(p))) return p;
    }
  }
}

/** The i for which neither q = from + 2i nor 2q + 1 has a factor among the odd primes. */
function survivors(from: bigint, primes: readonly number[]): Uint32Array {
  const isOut = new Uint8Array(WINDOW);
  for (const r of primes) {
    const first = Number(from % BigInt(r));
    for (const residue of [0, (r - 1) / 2]) {
      const twice = (residue + r - first) % r; // r divides q or 2q + 1 where 2i ≡ residue - from mod r
      for (let i = twice % 2 === 0 ? twice / 2 : (twice + r) / 2; i < WINDOW; i += r) isOut[i] = 1;
    }
  }
  const left: number[] = [];
  for (let i = 0; i < WINDOW; i++) if (isOut[i] === 0) left.push(i);
  return Uint32Array.from(left);
}

/** In uniform order, so that a prime after a long gap is not found more often than others. */
function shuffled(values: Uint32Array, random: Random): Uint32Array {
  for (let last = values.length - 1; last > 0; last--) {
    const other = Number(randomBelow(random, BigInt(last + 1)));
    const moved = values[last] ?? 0;
    values[last] = values[other] ?? 0;
    values[other] = moved;
  }
  return values;
}

function isPrime(n: bigint): Promise<boolean> {
  return new Promise((resolve, reject) => {
    checkPrime(n, (error, result) => (error instanceof Error ? reject(error) : resolve(result)));
  });
}
