/**
 * The two parameter sets. A profile is part of every transcript, so a proof of one never verifies under the other.
 *
 * ℓ = κ, ε = 2κ, ℓ' = 5κ with κ = log2 q = 256, as in CGGMP24.
 */
import { Bug } from "./fault.js";
import type { Item } from "./transcript.js";

export interface SecurityProfile {
  readonly name: "security128" | "security112";
  /** Length of every prime factor. */
  readonly primeBits: number;
  /** Length of N and of N̂, exactly. */
  readonly modulusBits: number;
  /** ℓ: secrets x lie in ±2^ℓ. */
  readonly ell: number;
  /** ℓ': masks y of the multiplication lie in ±2^ℓ'. */
  readonly ellPrime: number;
  /** ε: slack of the range proofs. */
  readonly epsilon: number;
  /**
   * Slack of Π-dec, whose binary challenge adds y itself and not e·y. At 2048 bits ε would let w exceed N/2, and then
   * S = G^y would no longer be bound to the plaintext; 136 bits leave a statistical distance of 2^-128 over 256
   * repetitions.
   */
  readonly decSlack: number;
  /** Repetitions of Π-mod and Π-prm. */
  readonly repetitions: number;
  /** Repetitions of Π-dec and Π-aff-g*. */
  readonly binaryRepetitions: number;
}

/** The most parties that share a key; enters the inequalities below. */
export const MOST_PARTIES = 64;

const SHARED = { ell: 256, ellPrime: 1280, epsilon: 512, repetitions: 128, binaryRepetitions: 256 } as const;

export const security128: SecurityProfile = checked({
  name: "security128",
  primeBits: 1536,
  modulusBits: 3072,
  decSlack: 512,
  ...SHARED,
});

export const security112: SecurityProfile = checked({
  name: "security112",
  primeBits: 1024,
  modulusBits: 2048,
  decSlack: 136,
  ...SHARED,
});

export const profiles: readonly SecurityProfile[] = [security128, security112];

/** Bits of y in Π-dec: a sum of up to n masks that honest verification lets grow to ±2^(ℓ'+ε+1). */
export function decRangeBits(profile: SecurityProfile, parties: number): number {
  return profile.ellPrime + profile.epsilon + 1 + Math.ceil(Math.log2(parties));
}

/** Bits of w = β + e·y in Π-dec. */
export function decResponseBits(profile: SecurityProfile, parties: number): number {
  return decRangeBits(profile, parties) + profile.decSlack;
}

/** |N| > ℓ' + ε + 1 + log n, and the same for what Π-dec lets w become. */
function checked(profile: SecurityProfile): SecurityProfile {
  const { modulusBits, primeBits } = profile;
  const logN = Math.ceil(Math.log2(MOST_PARTIES));
  const fits =
    modulusBits === 2 * primeBits &&
    modulusBits > profile.ellPrime + profile.epsilon + 1 + logN &&
    modulusBits - 2 > decResponseBits(profile, MOST_PARTIES);
  if (!fits) throw new Bug("the profile's ranges do not fit its modulus", { profile: profile.name });
  return Object.freeze(profile);
}

/** The profile as a transcript item. */
export function profileItem(profile: SecurityProfile): Item {
  const { name, primeBits, modulusBits, ell, ellPrime, epsilon, decSlack, repetitions, binaryRepetitions } = profile;
  return [name, primeBits, modulusBits, ell, ellPrime, epsilon, decSlack, repetitions, binaryRepetitions];
}
