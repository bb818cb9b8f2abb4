/**
 * The integer fields of the proofs: one canonical encoding each, of a length that follows from the profile.
 */
import { InvalidInput } from "../fault.js";
import { inRange, parseNatural, parseSigned, signedToBytes, toBytes } from "../modulus.js";
import type { SecurityProfile } from "../security-profile.js";

export interface IntegerField {
  encode(value: bigint): Uint8Array;
  /** Refuses any other length or form before a big integer is made (InvalidInput). */
  decode(bytes: Uint8Array): bigint;
  /** Whether the value lies in the field's range. */
  admits(value: bigint): boolean;
}

function natural(length: number): IntegerField {
  return {
    encode: (value) => toBytes(value, length),
    decode: (bytes) => parseNatural(bytes, length),
    admits: (value) => value >= 0n && value >> BigInt(8 * length) === 0n,
  };
}

/** ±2^bits, both ends included. */
export function signed(bits: number): IntegerField {
  const length = Math.ceil((bits + 1) / 8);
  return {
    encode: (value) => signedToBytes(value, length),
    decode: (bytes) => parseSigned(bytes, length),
    admits: (value) => inRange(value, bits),
  };
}

/** The fields that the proofs of a profile share. */
export interface Fields {
  /** Modulo N or N̂. */
  readonly residue: IntegerField;
  /** Modulo N². */
  readonly ciphertext: IntegerField;
  /** α + e·x for x ∈ ±2^ℓ: ±2^(ℓ+ε). */
  readonly factor: IntegerField;
  /** β + e·y for y ∈ ±2^ℓ': ±2^(ℓ'+ε). */
  readonly summand: IntegerField;
  /** Exponent of t that blinds: below 2^(ℓ+ε)·N̂ + 2^ℓ·2^ℓ·N̂. The figures leave it unbounded; a field needs a length. */
  readonly blinding: IntegerField;
  /** A prime factor's response: the byte length of ±√N·2^(ℓ+ε). */
  readonly prime: IntegerField;
  /** v of Π-fac: below 2^(ℓ+ε)·N·N̂ and a little. */
  readonly product: IntegerField;
}

const known = new Map<SecurityProfile, Fields>();

export function fields(profile: SecurityProfile): Fields {
  const found = known.get(profile);
  if (found !== undefined) return found;
  const { modulusBits, primeBits, ell, ellPrime, epsilon } = profile;
  const made: Fields = {
    residue: natural(modulusBits / 8),
    ciphertext: natural(modulusBits / 4),
    factor: signed(ell + epsilon),
    summand: signed(ellPrime + epsilon),
    blinding: signed(ell + epsilon + modulusBits + 1),
    prime: signed(ell + epsilon + primeBits),
    product: signed(ell + epsilon + 2 * modulusBits + 1),
  };
  known.set(profile, made);
  return made;
}

/** Runs a decoder; what it refuses is undefined, what it breaks is thrown. */
export function decoded<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (refusal) {
    if (refusal instanceof InvalidInput) return undefined;
    throw refusal;
  }
}

/** Exactly `count` entries, counted before any is decoded (InvalidInput otherwise). */
export function decodeEntries<M, T>(messages: readonly M[], count: number, decode: (message: M) => T): readonly T[] {
  if (messages.length !== count) {
    throw new InvalidInput("entry-count", "a proof has exactly its repetitions", { count: messages.length });
  }
  return messages.map(decode);
}
