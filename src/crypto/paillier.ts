/**
 * Paillier encryption: enc_N(m; ρ) = (1 + N)^m ρ^N mod N², additively homomorphic.
 *
 * `PaillierKey` is what everybody knows; `PaillierSecret` is the owner's, with the same methods by Chinese remainders,
 * so that one line of a proof runs three times faster where its prover or verifier owns the key.
 *
 * @source CGGMP24, section 2.3; NIST SP 800-57 for the lengths of the profiles.
 */
import type { Random } from "./ambient.js";
import { Bug, InvalidInput } from "./fault.js";
import {
  bitLength,
  FactoredModulus,
  gcd,
  invert,
  invertBlinded,
  Modulus,
  parseNatural,
  Remainders,
  randomBelow,
  reduce,
  toBytes,
} from "./modulus.js";
import type { SecurityProfile } from "./security-profile.js";
import { residuesChallenge } from "./transcript.js";

declare const ciphertextBrand: unique symbol;
/** A residue modulo N² that is claimed to be a ciphertext; membership is checked where it is received. */
export type Ciphertext = bigint & { readonly [ciphertextBrand]: true };

/** A ciphertext with the randomness that its maker keeps for the proofs. */
export interface Encryption {
  readonly ciphertext: Ciphertext;
  readonly nonce: bigint;
}

/** exponent ⊙ base, with a base in Z*_{N²}. */
export interface Term {
  readonly base: bigint;
  readonly exponent: bigint;
}

/** A claim about ciphertexts: enc(m; nonce) is the sum ⊕ of the terms. */
export interface Opening {
  readonly m: bigint;
  /** In Z*_N. */
  readonly nonce: bigint;
  readonly sum: readonly Term[];
}

/** Weights of openings that are decided together lie below this, and no prime of a well-formed N does. */
const WEIGHTS = 1n << 128n;

/** What `PaillierKey.areMembers` decides about: everything that one proof contains under one key. */
export interface Members {
  /** Must lie in Z*_{N²}. */
  readonly ciphertexts?: readonly bigint[];
  /** Must lie in Z*_N. */
  readonly nonces?: readonly bigint[];
}

export class PaillierKey {
  readonly N: bigint;
  readonly NN: bigint;
  readonly profile: SecurityProfile;
  protected readonly modulus: Modulus;
  protected readonly square: Modulus;

  /** Refuses a modulus that is even or not exactly as long as the profile says (InvalidInput). */
  constructor(N: bigint, profile: SecurityProfile) {
    if (bitLength(N) !== profile.modulusBits) {
      throw new InvalidInput("paillier-length", "a Paillier modulus has exactly the profile's length", {
        bits: bitLength(N),
      });
    }
    if ((N & 1n) === 0n) throw new InvalidInput("paillier-even", "a Paillier modulus is odd");
    this.N = N;
    this.NN = N * N;
    this.profile = profile;
    this.modulus = Modulus.of(N);
    this.square = Modulus.of(this.NN);
  }

  /** Big-endian, exactly as many bytes as the profile says; refused before it is parsed otherwise (InvalidInput). */
  static parse(bytes: Uint8Array, profile: SecurityProfile): PaillierKey {
    return new PaillierKey(parseNatural(bytes, profile.modulusBits / 8), profile);
  }

  toBytes(): Buffer {
    return toBytes(this.N, this.profile.modulusBits / 8);
  }

  /** enc(m; ρ) for any integer m, which is taken modulo N. Constant time in ρ only as far as BigInt is. */
  encryptWith(m: bigint, nonce: bigint): Ciphertext {
    return this.#withMessage(m, this.nthPower(nonce));
  }

  encrypt(m: bigint, random: Random): Encryption {
    const nonce = this.randomNonce(random);
    return { ciphertext: this.encryptWith(m, nonce), nonce };
  }

  /** Uniform in [1, N): no unit only if it meets a factor of N, and those of a well-formed N are above 2^255. */
  randomNonce(random: Random): bigint {
    for (;;) {
      const nonce = randomBelow(random, this.N);
      if (nonce !== 0n) return nonce;
    }
  }

  #withMessage(m: bigint, power: bigint): Ciphertext {
    return (((1n + reduce(m, this.N) * this.N) * power) % this.NN) as Ciphertext; // (1 + N)^m = 1 + mN mod N²
  }

  /** C ⊕ D: encrypts the sum. */
  add(c: bigint, d: bigint): Ciphertext {
    return ((c * d) % this.NN) as Ciphertext;
  }

  /** C ⊖ D, for a D in Z*_{N²}. Variable time, public inputs only. */
  subtract(c: bigint, d: bigint): Ciphertext {
    return this.add(c, this.square.invert(d));
  }

  /**
   * Whether every opening holds. One alone is compared as it stands. Of several, what is compared is their product, each
   * to a power that is hashed from all of them: a wrong plaintext passes with probability 2^-128 if no prime below 2^128
   * divides N, which Π-mod and Π-fac show. A nonce off by a root of unity may pass, and no plaintext depends on it.
   * The members are checked before, by `areMembers`. Variable time, public inputs only.
   */
  opens(openings: readonly Opening[]): boolean {
    let [m, nonce] = [0n, 1n];
    const exponents = new Map<bigint, bigint>();
    this.#weights(openings).forEach((weight, index) => {
      const opening = openings[index];
      if (opening === undefined) throw new Bug("one weight for each opening");
      m += weight * opening.m;
      nonce = this.modulus.times(nonce, this.modulus.pow(opening.nonce, weight));
      for (const { base, exponent } of opening.sum) {
        exponents.set(base, (exponents.get(base) ?? 0n) + weight * exponent);
      }
    });
    let [left, right]: [bigint, bigint] = [this.encryptWith(m, nonce), 1n];
    for (const [base, exponent] of exponents) {
      // A negative power moves to the left side: no inversion.
      if (exponent < 0n) left = this.add(left, this.scale(base, -exponent));
      else right = this.add(right, this.scale(base, exponent));
    }
    return left === right;
  }

  #weights(openings: readonly Opening[]): readonly bigint[] {
    if (openings.length < 2) return openings.map(() => 1n);
    const items = openings.map(({ m, nonce, sum }) => [m, nonce, sum.map(({ base, exponent }) => [base, exponent])]);
    const count = openings.length - 1;
    return [1n, ...residuesChallenge("paillier/openings", [this.N, items], { count, bound: WEIGHTS })];
  }

  /** x ⊙ C = C^x: encrypts the x-fold. A negative x inverts C first. */
  scale(c: bigint, x: bigint): Ciphertext {
    return this.square.pow(c, x) as Ciphertext;
  }

  /** ρ^N mod N². */
  nthPower(nonce: bigint): bigint {
    return this.square.pow(nonce, this.N);
  }

  /** r ρ^e mod N, the response for a nonce; the inversion of a negative e is blinded. */
  maskNonce(r: bigint, nonce: bigint, e: bigint, random: Random): bigint {
    const base = e < 0n ? invertBlinded(nonce, this.N, random) : nonce;
    return (r * this.modulus.pow(base, e < 0n ? -e : e)) % this.N;
  }

  /** Whether every value lies in its range and is a unit: one gcd over the product of all. Public inputs only. */
  areMembers({ ciphertexts = [], nonces = [] }: Members): boolean {
    if (!ciphertexts.every((c) => c > 0n && c < this.NN) || !nonces.every((r) => r > 0n && r < this.N)) return false;
    let product = 1n;
    for (const value of [...ciphertexts, ...nonces]) product = (product * (value % this.N)) % this.N;
    return gcd(product, this.N) === 1n;
  }

  /** Big-endian, exactly 2·|N| bits; in Z*_{N²} (InvalidInput otherwise). */
  parseCiphertext(bytes: Uint8Array): Ciphertext {
    const c = parseNatural(bytes, this.profile.modulusBits / 4);
    if (!this.areMembers({ ciphertexts: [c] })) {
      throw new InvalidInput("ciphertext-not-unit", "a ciphertext is a unit modulo N²");
    }
    return c as Ciphertext;
  }

  ciphertextToBytes(c: bigint): Buffer {
    return toBytes(c, this.profile.modulusBits / 4);
  }
}

/** The owner's key. p and q stay in this thread; BigInt cannot be erased, so its lifetime is that of the object. */
export class PaillierSecret extends PaillierKey {
  readonly #p: bigint; // private fields and getters: neither inspect nor JSON shows them
  readonly #q: bigint;
  readonly #factors: FactoredModulus;
  readonly #squares: { readonly pp: Modulus; readonly qq: Modulus; readonly remainders: Remainders };
  /** (q·N's residue)^-1 mod p and mod q: what L_p and L_q are multiplied with. */
  readonly #h: { readonly p: bigint; readonly q: bigint };
  readonly #nthRootExponent: bigint;
  /** v, and (1 + N)^v modulo p² and modulo q². */
  readonly #shift: { readonly v: bigint; readonly pp: bigint; readonly qq: bigint };

  /**
   * Refuses primes that are not of the profile's length, not ≡ 3 mod 4, equal, or with gcd(N, φ(N)) ≠ 1
   * (InvalidInput). The caller vouches for primality.
   */
  constructor(p: bigint, q: bigint, profile: SecurityProfile) {
    const lengths = bitLength(p) === profile.primeBits && bitLength(q) === profile.primeBits;
    if (!lengths || p % 4n !== 3n || q % 4n !== 3n || p === q) {
      throw new InvalidInput("paillier-primes", "Paillier primes are distinct, ≡ 3 mod 4, of the profile's length");
    }
    super(p * q, profile);
    const phi = (p - 1n) * (q - 1n);
    const nthRootExponent = invert(this.N, phi);
    if (nthRootExponent === undefined) throw new InvalidInput("paillier-primes", "N is not coprime to φ(N)");
    this.#p = p;
    this.#q = q;
    this.#nthRootExponent = nthRootExponent;
    this.#factors = new FactoredModulus(p, q);
    this.#squares = {
      pp: new Modulus(p * p),
      qq: new Modulus(q * q),
      remainders: new Remainders(p * p, q * q),
    };
    // (1 + N)^{p-1} = 1 + (p-1)N mod p², so L_p of it is (p-1)q = -q mod p.
    this.#h = { p: inverseOrBug(-q, p), q: inverseOrBug(-p, q) };
    // A number that whoever knows the factors can compute, and nobody else can guess.
    const [v = 0n] = residuesChallenge("paillier/decryption-shift", [p, q], { count: 1, bound: this.N });
    const shift = 1n + v * this.N; // (1 + N)^v = 1 + vN mod N²
    this.#shift = { v, pp: shift % (p * p), qq: shift % (q * q) };
  }

  get p(): bigint {
    return this.#p;
  }

  get q(): bigint {
    return this.#q;
  }

  /** The arithmetic modulo N by its factors. */
  get factors(): FactoredModulus {
    return this.#factors;
  }

  /** N^-1 mod φ(N): y ↦ y^(1/N). */
  get nthRootExponent(): bigint {
    return this.#nthRootExponent;
  }

  /**
   * The plaintext in ±N/2, for a C in Z*_{N²}. It is m + v that is decrypted, for a v that only the owner knows: OpenSSL
   * refuses powers of 1, which C^{p-1} is for m = 0 and bases of ±1, so without v such ciphertexts would take longer.
   */
  decrypt(c: bigint): bigint {
    const { pp, qq } = this.#squares;
    const { p, q } = this;
    const { v, pp: shift_p, qq: shift_q } = this.#shift;
    const power_p = pp.pow(pp.times(c, shift_p), p - 1n); // (C·(1 + N)^v)^{p-1} mod p²
    const power_q = qq.pow(qq.times(c, shift_q), q - 1n);
    const m_p = (((power_p - 1n) / p) * this.#h.p) % p; //    m + v = L_p(…) · h_p mod p
    const m_q = (((power_q - 1n) / q) * this.#h.q) % q;
    const m = reduce(this.#factors.remainders.combine(m_p, m_q) - v, this.N);
    return m > this.N >> 1n ? m - this.N : m;
  }

  /** The ρ of C = enc(m; ρ): the N-th root of C modulo N. */
  extractNonce(c: bigint): bigint {
    return this.#factors.pow(c, this.#nthRootExponent); // C = ρ^N mod N, whatever m is
  }

  /** ρ^N mod N² from two short powers a prime: x^p mod p² depends on x mod p only. */
  override nthPower(nonce: bigint): bigint {
    const { pp, qq, remainders } = this.#squares;
    const { p, q } = this.#factors;
    const modP = pp.pow(p.pow(nonce, q.value % (p.value - 1n)), p.value); // ρ^N = (ρ^q)^p mod p²
    const modQ = qq.pow(q.pow(nonce, p.value % (q.value - 1n)), q.value);
    return remainders.combine(modP, modQ);
  }

  override scale(c: bigint, x: bigint): Ciphertext {
    const { pp, qq, remainders } = this.#squares;
    const { p, q } = this;
    return remainders.combine(
      pp.pow(c, shorten(x, p * (p - 1n))), // the group of units modulo p² has order p(p-1)
      qq.pow(c, shorten(x, q * (q - 1n))),
    ) as Ciphertext;
  }

  /** A negative e becomes a positive one modulo p - 1 and q - 1: nothing is inverted. */
  override maskNonce(r: bigint, nonce: bigint, e: bigint): bigint {
    return (r * this.#factors.pow(nonce, e)) % this.N;
  }

  override areMembers({ ciphertexts = [], nonces = [] }: Members): boolean {
    return (
      ciphertexts.every((c) => c > 0n && c < this.NN && this.#factors.isUnit(c)) &&
      nonces.every((r) => r > 0n && r < this.N && this.#factors.isUnit(r))
    );
  }

  /** Never shown: an inspector or a log gets the public modulus length only. */
  toJSON(): string {
    return `PaillierSecret(${this.profile.name})`;
  }
}

/** Exponents that are already shorter than the order stay as they are; negative ones become positive. */
function shorten(exponent: bigint, order: bigint): bigint {
  return exponent >= 0n && exponent < order ? exponent : reduce(exponent, order);
}

function inverseOrBug(a: bigint, m: bigint): bigint {
  const inverse = invert(a, m);
  if (inverse === undefined) throw new Bug("distinct primes are coprime");
  return inverse;
}
