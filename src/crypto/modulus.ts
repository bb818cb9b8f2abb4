/**
 * The integer kernel: modular exponentiation, number theory, canonical encodings and uniform sampling.
 *
 * Exponentiation runs on Node's own OpenSSL: a Diffie-Hellman object with "prime" m computes b^e mod m for any odd m,
 * in constant time in the bits of e. Measured (3072-bit modulus and exponent, AMD EPYC): 4.9 ms, BigInt windows 27 ms.
 * Its edges are handled in `Modulus.pow` and each object is checked against BigInt arithmetic when it is created.
 *
 * BigInt itself is not constant time and cannot be erased; buffers that held secrets are erased.
 */
import {
  constants,
  createDiffieHellman,
  createPublicKey,
  type DiffieHellman,
  generatePrime,
  publicEncrypt,
} from "node:crypto";
import type { Random } from "./ambient.js";
import { Bug, InvalidInput } from "./fault.js";

// Encodings ---------------------------------------------------------------------------------------------------------

/** Any bytes, big-endian, as a non-negative integer; no bytes are 0. The caller has bounded the length. */
export function toInteger(bytes: Uint8Array): bigint {
  if (bytes.length === 0) return 0n;
  return BigInt(`0x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}`);
}

/** Exactly `length` bytes, big-endian, of a non-negative integer that fits (Bug otherwise). */
export function toBytes(value: bigint, length: number): Buffer {
  const hex = value.toString(16);
  if (value < 0n || hex.length > 2 * length) throw new Bug("the integer does not fit its field", { length });
  return Buffer.from(hex.padStart(2 * length, "0"), "hex");
}

/** Canonical natural of a fixed width; the length is refused before any big integer is made (InvalidInput). */
export function parseNatural(bytes: Uint8Array, length: number): bigint {
  if (bytes.length !== length) {
    throw new InvalidInput("integer-length", "an integer field has another length", { length: bytes.length });
  }
  return toInteger(bytes);
}

/** Signed integer as one sign byte (00 or 01) and the magnitude in a fixed width. */
export function signedToBytes(value: bigint, magnitudeBytes: number): Buffer {
  const magnitude = toBytes(value < 0n ? -value : value, magnitudeBytes);
  return Buffer.concat([Uint8Array.of(value < 0n ? 1 : 0), magnitude]);
}

/** The inverse of `signedToBytes`; other lengths, other sign bytes and a negative zero are refused (InvalidInput). */
export function parseSigned(bytes: Uint8Array, magnitudeBytes: number): bigint {
  if (bytes.length !== magnitudeBytes + 1) {
    throw new InvalidInput("integer-length", "an integer field has another length", { length: bytes.length });
  }
  const sign = bytes[0];
  if (sign !== 0 && sign !== 1) throw new InvalidInput("integer-sign", "a sign byte is 00 or 01");
  const magnitude = toInteger(bytes.subarray(1));
  if (sign === 1 && magnitude === 0n) throw new InvalidInput("integer-negative-zero", "zero has no sign");
  return sign === 1 ? -magnitude : magnitude;
}

export const bitLength = (value: bigint): number => (value === 0n ? 0 : value.toString(2).length);

/** value ∈ ±2^bits, both ends included. */
export function inRange(value: bigint, bits: number): boolean {
  const bound = 1n << BigInt(bits);
  return -bound <= value && value <= bound;
}

// Sampling ----------------------------------------------------------------------------------------------------------

/** Uniform in [0, bound), by rejection. */
export function randomBelow(random: Random, bound: bigint): bigint {
  if (bound <= 0n) throw new Bug("a bound is positive");
  const bits = bitLength(bound - 1n);
  for (;;) {
    const value = randomBits(random, bits);
    if (value < bound) return value;
  }
}

/**
 * Uniform in [0, 2^bits). The masks of the proofs are drawn from here instead of ±2^bits: hiding loses one bit of a
 * statistical distance of 2^-256, and no exponent is negative. The verifier keeps the symmetric range checks.
 */
export function randomBits(random: Random, bits: number): bigint {
  if (bits === 0) return 0n;
  const length = Math.ceil(bits / 8);
  const bytes = random.bytes(length);
  const value = toInteger(bytes) >> BigInt(8 * length - bits);
  bytes.fill(0);
  return value;
}

/** Uniform in Z*_m. */
export function randomUnit(random: Random, m: bigint): bigint {
  for (;;) {
    const value = randomBelow(random, m);
    if (gcd(value, m) === 1n) return value;
  }
}

// Number theory -----------------------------------------------------------------------------------------------------

/** The representative of a modulo m in [0, m). */
export function reduce(a: bigint, m: bigint): bigint {
  const rest = a % m;
  return rest < 0n ? rest + m : rest;
}

export function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b];
  while (y !== 0n) [x, y] = [y, x % y];
  return x;
}

/** a^-1 mod m in [0, m), or undefined when there is none. Variable time: blind a secret first. */
export function invert(a: bigint, m: bigint): bigint | undefined {
  let [r0, r1] = [m, reduce(a, m)];
  let [t0, t1] = [0n, 1n];
  while (r1 !== 0n) {
    const quotient = r0 / r1;
    [r0, r1] = [r1, r0 - quotient * r1];
    [t0, t1] = [t1, t0 - quotient * t1];
  }
  return r0 === 1n ? reduce(t0, m) : undefined;
}

/** a^-1 mod m for a secret unit a: a random unit hides a from the variable-time algorithm. */
export function invertBlinded(a: bigint, m: bigint, random: Random): bigint {
  const blinding = randomUnit(random, m);
  const inverse = invert(a * blinding, m);
  if (inverse === undefined) throw new InvalidInput("not-invertible", "the value is no unit of the modulus");
  return (inverse * blinding) % m;
}

/** Jacobi symbol (a / n) for odd positive n: -1, 0 or 1. Variable time. */
export function jacobi(a: bigint, n: bigint): -1 | 0 | 1 {
  if (n <= 0n || (n & 1n) === 0n) throw new Bug("the Jacobi symbol is defined for odd positive moduli");
  let [x, y] = [reduce(a, n), n];
  let sign: -1 | 1 = 1;
  const flip = () => {
    sign = sign === 1 ? -1 : 1;
  };
  while (x !== 0n) {
    let twos = 0n;
    while (((x >> twos) & 0xffffn) === 0n) twos += 16n;
    while (((x >> twos) & 1n) === 0n) twos += 1n;
    x >>= twos;
    const y8 = y & 7n;
    if ((twos & 1n) === 1n && (y8 === 3n || y8 === 5n)) flip(); // (2 / y) = -1 iff y ≡ ±3 mod 8
    if ((x & 3n) === 3n && (y & 3n) === 3n) flip(); //             quadratic reciprocity
    [x, y] = [y % x, x];
  }
  return y === 1n ? sign : 0;
}

/** ⌊√value⌋. */
export function squareRoot(value: bigint): bigint {
  if (value < 2n) return value;
  let root = 1n << BigInt(Math.ceil(bitLength(value) / 2));
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** Whether no two of the moduli share a factor; equal ones do. */
export function pairwiseCoprime(moduli: readonly bigint[]): boolean {
  let product = 1n;
  for (const m of moduli) {
    if (gcd(product, m) !== 1n) return false;
    product *= m;
  }
  return true;
}

// Primes ------------------------------------------------------------------------------------------------------------

/**
 * A prime ≡ 3 mod 4 of exactly `bits` bits, its two highest bits set (so that a product of two has exactly 2·bits).
 * OpenSSL draws from its own entropy, on the thread pool: a draw that no seed reproduces. About 0.1 s at 1536 bits.
 */
export async function generateBlumPrime(bits: number): Promise<bigint> {
  for (;;) {
    const p = await new Promise<bigint>((resolve, reject) => {
      generatePrime(bits, { bigint: true }, (error, prime) =>
        error instanceof Error ? reject(error) : resolve(prime),
      );
    });
    if (p >> BigInt(bits - 2) === 3n && p % 4n === 3n) return p;
  }
}

/**
 * Fermat's test to base 2 of an odd n > 3: false for a composite, but for rare ones, which a caller looks at again.
 * Variable time: for candidates that are thrown away, and those that become secret only by passing further tests.
 */
export function passesFermat(n: bigint): boolean {
  const bits = bitLength(n);
  const byteLength = Math.ceil(bits / 8);
  const isOffered = bits >= ENGINE_BITS.least && bits <= RSA_MOST_BITS;
  const rsa = { n: toBytes(n, byteLength).toString("base64url"), byteLength };
  return ((isOffered ? powWithRsa(rsa, 2n, n - 1n) : undefined) ?? powBigInt(2n, n - 1n, n)) === 1n;
}

// Exponentiation ----------------------------------------------------------------------------------------------------

/** OpenSSL answers wrongly below 512 bits and refuses above 10,000. */
const ENGINE_BITS = { least: 512, most: 10_000 } as const;
/** Above this length OpenSSL's RSA takes no exponents longer than 64 bits. */
const RSA_MOST_BITS = 3072;
const CACHED_MODULI = 256;

/** b^e mod m by left-to-right windows of 4 bits: the fallback, and what the engines are checked against. */
export function powBigInt(base: bigint, exponent: bigint, m: bigint): bigint {
  const b = reduce(base, m);
  const powers = [1n % m];
  for (let index = 1; index < 16; index++) powers.push(((powers[index - 1] ?? 0n) * b) % m);
  let result = 1n % m;
  for (const digit of exponent.toString(16)) {
    result = (result * result) % m;
    result = (result * result) % m;
    result = (result * result) % m;
    result = (result * result) % m;
    result = (result * (powers[Number.parseInt(digit, 16)] ?? 0n)) % m;
  }
  return result;
}

/** A modulus with its exponentiation engine. The engine is made at first use: 5 to 90 ms, once a modulus and thread. */
export class Modulus {
  readonly value: bigint;
  readonly bits: number;
  readonly byteLength: number;
  #engine: DiffieHellman | "none" | undefined;
  #rsa: RsaModulus | "none" | undefined;

  /** For a modulus that is a secret (a prime factor): it stays out of the cache. */
  constructor(value: bigint) {
    if (value < 2n) throw new Bug("a modulus is at least 2");
    this.value = value;
    this.bits = bitLength(value);
    this.byteLength = Math.ceil(this.bits / 8);
  }

  static readonly #cache = new Map<bigint, Modulus>();

  /** The modulus of this thread with that public value; the least recently used of 256 are dropped. */
  static of(value: bigint): Modulus {
    const cache = Modulus.#cache;
    const modulus = cache.get(value) ?? new Modulus(value);
    cache.delete(value);
    cache.set(value, modulus);
    if (cache.size > CACHED_MODULI) {
      for (const oldest of cache.keys()) {
        cache.delete(oldest);
        break;
      }
    }
    return modulus;
  }

  times(a: bigint, b: bigint): bigint {
    return reduce(a * b, this.value);
  }

  /**
   * base^exponent mod m, constant time in the bits of the exponent (not in its length).
   * A negative exponent needs a base that is a unit (InvalidInput otherwise), and its inversion is variable time.
   */
  pow(base: bigint, exponent: bigint): bigint {
    const m = this.value;
    if (exponent < 0n) return this.pow(this.invert(base), -exponent);
    const b = reduce(base, m);
    if (exponent === 0n || b === 1n) return 1n;
    if (b === 0n) return 0n;
    if (b === m - 1n) return (exponent & 1n) === 1n ? b : 1n;
    const engine = this.#startEngine();
    if (engine === "none") return powBigInt(b, exponent, m);
    return powWith(engine, b, exponent) ?? refusedPower(engine, { base: b, exponent, m });
  }

  /**
   * The same in variable time, public inputs only, about a tenth faster where OpenSSL's RSA takes the exponent
   * (modulus of at most 3072 bits, 2 < exponent < m).
   */
  powPublic(base: bigint, exponent: bigint): bigint {
    if (exponent <= 2n || exponent >= this.value) return this.pow(base, exponent);
    this.#rsa ??= createRsa(this.value, this.bits);
    if (this.#rsa === "none") return this.pow(base, exponent);
    return powWithRsa(this.#rsa, reduce(base, this.value), exponent) ?? this.pow(base, exponent);
  }

  /** a^-1 mod m; InvalidInput when there is none. Variable time. */
  invert(a: bigint): bigint {
    const inverse = invert(a, this.value);
    if (inverse === undefined) throw new InvalidInput("not-invertible", "the value is no unit of the modulus");
    return inverse;
  }

  #startEngine(): DiffieHellman | "none" {
    this.#engine ??= createEngine(this.value, this.bits);
    return this.#engine;
  }
}

/** Creates the object and checks it against BigInt; "none" where OpenSSL cannot be relied on. */
function createEngine(m: bigint, bits: number): DiffieHellman | "none" {
  if ((m & 1n) === 0n || bits < ENGINE_BITS.least || bits > ENGINE_BITS.most) return "none";
  try {
    const engine = createDiffieHellman(toBytes(m, Math.ceil(bits / 8)), 2);
    const base = m / 3n + 1n;
    const exponent = 0x1_0003n;
    return powWith(engine, base, exponent) === powBigInt(base, exponent, m) ? engine : "none";
  } catch {
    return "none";
  }
}

/** undefined when OpenSSL refuses, which it does for results of 0, 1 and m - 1. */
function powWith(engine: DiffieHellman, base: bigint, exponent: bigint): bigint | undefined {
  const secret = toBytes(exponent, Math.ceil(bitLength(exponent) / 8));
  try {
    engine.setPrivateKey(secret);
    return toInteger(engine.computeSecret(toBytes(base, Math.ceil(bitLength(base) / 8))));
  } catch {
    return undefined;
  } finally {
    secret.fill(0);
    engine.setPrivateKey(ERASED);
  }
}

/**
 * A power that OpenSSL refused, of a base other than 0 and ±1: it is 0, 1 or m - 1. The next power tells which, since that
 * is 0, b or m - b and only 0 is refused again. So a power of ±1 costs a second power in constant time.
 */
function refusedPower(
  engine: DiffieHellman,
  { base, exponent, m }: { readonly base: bigint; readonly exponent: bigint; readonly m: bigint },
): bigint {
  const next = powWith(engine, base, exponent + 1n); // b^(e+1) = b^e·b
  if (next === base) return 1n;
  if (next === m - base) return m - 1n;
  return powBigInt(base, exponent, m); // 0, which a unit's power is not; or OpenSSL failed for a reason of its own
}

/** What replaces the last exponent inside the engine; OpenSSL clears the old one. */
const ERASED = Uint8Array.of(2);

interface RsaModulus {
  /** As a JSON web key has it. */
  readonly n: string;
  readonly byteLength: number;
}

/** Checks the textbook RSA operation against BigInt; "none" where OpenSSL does not offer it. */
function createRsa(m: bigint, bits: number): RsaModulus | "none" {
  if ((m & 1n) === 0n || bits < ENGINE_BITS.least || bits > RSA_MOST_BITS) return "none";
  const byteLength = Math.ceil(bits / 8);
  const rsa = { n: toBytes(m, byteLength).toString("base64url"), byteLength };
  const base = m / 3n + 1n;
  const exponent = 0x1_0002n;
  return powWithRsa(rsa, base, exponent) === powBigInt(base, exponent, m) ? rsa : "none";
}

/** base^exponent mod m with base < m. Public inputs only. */
function powWithRsa({ n, byteLength }: RsaModulus, base: bigint, exponent: bigint): bigint | undefined {
  try {
    const e = toBytes(exponent, Math.ceil(bitLength(exponent) / 8)).toString("base64url");
    const key = createPublicKey({ key: { kty: "RSA", n, e }, format: "jwk" });
    return toInteger(publicEncrypt({ key, padding: constants.RSA_NO_PADDING }, toBytes(base, byteLength)));
  } catch {
    return undefined;
  }
}

// Chinese remainders ------------------------------------------------------------------------------------------------

/** Recombination modulo two coprime secret moduli. */
export class Remainders {
  readonly first: bigint;
  readonly second: bigint;
  readonly #inverse: bigint;

  constructor(first: bigint, second: bigint) {
    const inverse = invert(second, first);
    if (inverse === undefined) throw new InvalidInput("not-coprime", "the moduli share a factor");
    this.first = first;
    this.second = second;
    this.#inverse = inverse;
  }

  /** The x in [0, first·second) with x ≡ a mod first and x ≡ b mod second. */
  combine(a: bigint, b: bigint): bigint {
    return b + this.second * reduce((a - b) * this.#inverse, this.first);
  }
}

/** A modulus whose two prime factors are known: exponentiation by CRT, with exponents reduced by Fermat. */
export class FactoredModulus {
  readonly p: Modulus;
  readonly q: Modulus;
  readonly remainders: Remainders;

  constructor(p: bigint, q: bigint) {
    this.p = new Modulus(p);
    this.q = new Modulus(q);
    this.remainders = new Remainders(p, q);
  }

  /** base^exponent mod p·q for a unit base; the exponent may be negative. */
  pow(base: bigint, exponent: bigint): bigint {
    return this.remainders.combine(powFermat(this.p, base, exponent), powFermat(this.q, base, exponent));
  }

  isUnit(a: bigint): boolean {
    return a % this.p.value !== 0n && a % this.q.value !== 0n;
  }
}

function powFermat(prime: Modulus, base: bigint, exponent: bigint): bigint {
  const b = reduce(base, prime.value);
  return b === 0n && exponent !== 0n ? 0n : prime.pow(b, reduce(exponent, prime.value - 1n));
}
