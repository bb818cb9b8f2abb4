import type { Random } from "../../crypto/ambient.js";
import { generateBlumPrime } from "../../crypto/modulus.js";
import { generateSafePrime } from "../../crypto/safe-prime.js";
import type { SecurityProfile } from "../../crypto/security-profile.js";
import type { AuxPrimes } from "./aux-info.js";

/** How far the drawing of one party's primes is. */
export interface PrimeProgress {
  /** Primes found, 0 to 4. */
  readonly found: number;
  /** Candidates for safe primes that were tested so far. There is no telling how many it takes. */
  readonly tested: number;
}

/** Tests between two reports. */
const REPORT_TESTS = 64;

/**
 * The four primes of one party: seconds of a core, most of them for the two safe ones. `report` hears of every prime
 * and of every 64th candidate.
 */
export async function drawAuxPrimes(
  { primeBits }: SecurityProfile,
  random: Random,
  report: (progress: PrimeProgress) => void,
): Promise<AuxPrimes> {
  let [found, tested] = [0, 0];
  const told = async (prime: Promise<bigint>): Promise<bigint> => {
    const value = await prime;
    found++;
    report({ found, tested });
    return value;
  };
  const onTest = (): void => {
    if (++tested % REPORT_TESTS === 0) report({ found, tested });
  };
  const [p, q, safeP, safeQ] = await Promise.all([
    told(generateBlumPrime(primeBits)),
    told(generateBlumPrime(primeBits)),
    told(generateSafePrime(primeBits, random, onTest)),
    told(generateSafePrime(primeBits, random, onTest)),
  ]);
  return { paillier: { p, q }, ringPedersen: { p: safeP, q: safeQ } };
}
