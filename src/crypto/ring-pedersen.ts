/**
 * Ring-Pedersen commitments: ped(x; μ) = s^x t^μ mod N̂, binding for whoever does not know the factors of N̂, hiding
 * because s lies in the group of t (Π-prm). A proof "for j" commits under the parameters of j.
 *
 * `RingPedersenSetup` is public; `RingPedersenTrapdoor` is the owner's, who verifies others' range proofs 5 to 6 times
 * faster: s^x t^μ = t^(λx+μ), by Chinese remainders.
 *
 * @source CGGMP24, section 2.3 and Fig. 7
 */
import type { Random } from "./ambient.js";
import { InvalidInput } from "./fault.js";
import { bitLength, FactoredModulus, gcd, Modulus, parseNatural, randomBelow, randomUnit, toBytes } from "./modulus.js";
import type { SecurityProfile } from "./security-profile.js";
import type { Item } from "./transcript.js";

/** (N̂, s, t) as integers. */
export interface RingPedersenParameters {
  readonly N: bigint;
  readonly s: bigint;
  readonly t: bigint;
}

export class RingPedersenSetup {
  readonly N: bigint;
  readonly s: bigint;
  readonly t: bigint;
  readonly profile: SecurityProfile;
  protected readonly modulus: Modulus;

  /**
   * Refuses an N̂ that is even or not exactly as long as the profile says, and an s or t that is no unit or ±1
   * (InvalidInput). That s lies in the group of t is what Π-prm shows.
   */
  constructor({ N, s, t }: RingPedersenParameters, profile: SecurityProfile) {
    if (bitLength(N) !== profile.modulusBits || (N & 1n) === 0n) {
      throw new InvalidInput("ring-pedersen-modulus", "N̂ is odd and has exactly the profile's length");
    }
    for (const generator of [s, t]) {
      if (generator <= 1n || generator >= N - 1n || gcd(generator, N) !== 1n) {
        throw new InvalidInput("ring-pedersen-generator", "s and t are units modulo N̂ other than ±1");
      }
    }
    this.N = N;
    this.s = s;
    this.t = t;
    this.profile = profile;
    this.modulus = Modulus.of(N);
  }

  /** Three big-endian fields of exactly the profile's length (InvalidInput otherwise). */
  static parse(
    fields: { readonly N: Uint8Array; readonly s: Uint8Array; readonly t: Uint8Array },
    profile: SecurityProfile,
  ): RingPedersenSetup {
    const length = profile.modulusBits / 8;
    const [N, s, t] = [fields.N, fields.s, fields.t].map((bytes) => parseNatural(bytes, length));
    return new RingPedersenSetup({ N: N ?? 0n, s: s ?? 0n, t: t ?? 0n }, profile);
  }

  toBytes(): { readonly N: Buffer; readonly s: Buffer; readonly t: Buffer } {
    const length = this.profile.modulusBits / 8;
    return { N: toBytes(this.N, length), s: toBytes(this.s, length), t: toBytes(this.t, length) };
  }

  /** As a transcript item. */
  get item(): Item {
    return [this.N, this.s, this.t];
  }

  /** s^x t^μ mod N̂, constant time in the bits of both exponents. */
  commit(x: bigint, mu: bigint): bigint {
    return this.modulus.times(this.modulus.pow(this.s, x), this.modulus.pow(this.t, mu));
  }

  /** base^exponent mod N̂. */
  power(base: bigint, exponent: bigint): bigint {
    return this.modulus.pow(base, exponent);
  }

  times(a: bigint, b: bigint): bigint {
    return (a * b) % this.N;
  }

  /** left = T·S^e mod N̂, the shape of every check under these parameters; a negative e moves to the left side. */
  closes(left: bigint, { T, S, e }: { readonly T: bigint; readonly S: bigint; readonly e: bigint }): boolean {
    return e < 0n ? this.times(left, this.power(S, -e)) === T : left === this.times(T, this.power(S, e));
  }

  /** Whether every value lies in Z*_N̂. Public inputs only. */
  areMembers(values: readonly bigint[]): boolean {
    if (!values.every((value) => value > 0n && value < this.N)) return false;
    let product = 1n;
    for (const value of values) product = (product * value) % this.N;
    return gcd(product, this.N) === 1n;
  }

  /** A mask μ from [0, 2^ℓ · N̂), for a committed secret. */
  randomMask(random: Random): bigint {
    return randomBelow(random, this.N << BigInt(this.profile.ell));
  }

  /** A mask γ from [0, 2^(ℓ+ε) · N̂), for a committed mask. */
  randomWideMask(random: Random): bigint {
    return randomBelow(random, this.N << BigInt(this.profile.ell + this.profile.epsilon));
  }
}

/** The primes and the logarithm that the owner keeps. */
export interface TrapdoorSecrets {
  readonly p: bigint;
  readonly q: bigint;
  readonly t: bigint;
  /** s = t^λ. */
  readonly lambda: bigint;
}

export class RingPedersenTrapdoor extends RingPedersenSetup {
  readonly #lambda: bigint; // private fields and getters: neither inspect nor JSON shows them
  readonly #p: bigint;
  readonly #q: bigint;
  readonly #factors: FactoredModulus;

  /** Refuses primes of another length, not ≡ 3 mod 4 or equal (InvalidInput); the caller vouches for safe primes. */
  constructor({ p, q, t, lambda }: TrapdoorSecrets, profile: SecurityProfile) {
    const lengths = bitLength(p) === profile.primeBits && bitLength(q) === profile.primeBits;
    if (!lengths || p % 4n !== 3n || q % 4n !== 3n || p === q) {
      throw new InvalidInput("ring-pedersen-primes", "the primes of N̂ are distinct, safe, of the profile's length");
    }
    const factors = new FactoredModulus(p, q);
    super({ N: p * q, s: factors.pow(t, lambda), t }, profile);
    this.#p = p;
    this.#q = q;
    this.#lambda = lambda;
    this.#factors = factors;
  }

  /** Fig. 7: t a random square, λ from Z_φ(N̂), s = t^λ. */
  static generate(
    { p, q }: { readonly p: bigint; readonly q: bigint },
    profile: SecurityProfile,
    random: Random,
  ): RingPedersenTrapdoor {
    const root = randomUnit(random, p * q);
    const lambda = randomBelow(random, (p - 1n) * (q - 1n));
    return new RingPedersenTrapdoor({ p, q, t: (root * root) % (p * q), lambda }, profile);
  }

  get p(): bigint {
    return this.#p;
  }

  get q(): bigint {
    return this.#q;
  }

  get lambda(): bigint {
    return this.#lambda;
  }

  /** φ(N̂). */
  get phi(): bigint {
    return (this.#p - 1n) * (this.#q - 1n);
  }

  override commit(x: bigint, mu: bigint): bigint {
    return this.#factors.pow(this.t, this.#lambda * x + mu); // s^x t^μ = t^(λx+μ)
  }

  override power(base: bigint, exponent: bigint): bigint {
    return this.#factors.pow(base, exponent);
  }

  override areMembers(values: readonly bigint[]): boolean {
    return values.every((value) => value > 0n && value < this.N && this.#factors.isUnit(value));
  }

  /** Never shown: an inspector or a log gets the profile only. */
  toJSON(): string {
    return `RingPedersenTrapdoor(${this.profile.name})`;
  }
}
