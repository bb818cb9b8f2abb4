/**
 * Draws the primes of one party's auxiliary info and says them to the parent. A process of its own, because drawing a
 * safe prime cannot be interrupted, and because the least priority of the scheduler applies to it as a whole.
 */
import { constants, setPriority } from "node:os";
import { InvalidInput } from "../crypto/fault.js";
import { generateBlumPrime } from "../crypto/modulus.js";
import { profiles } from "../crypto/security-profile.js";
import type { AuxPrimes } from "../protocols/cggmp24/aux-info.js";

setPriority(constants.priority.PRIORITY_LOW); // before OpenSSL's threads begin: they inherit it
process.once("disconnect", () => process.kill(process.pid, "SIGKILL"));

const bits = profiles.find(({ name }) => name === process.argv[2])?.primeBits;
if (bits === undefined) throw new InvalidInput("profile-unknown", "the argument is a security profile");
const [p, q, safeP, safeQ] = await Promise.all([
  generateBlumPrime(bits, { safe: false }),
  generateBlumPrime(bits, { safe: false }),
  generateBlumPrime(bits, { safe: true }),
  generateBlumPrime(bits, { safe: true }),
]);
const primes: AuxPrimes = { paillier: { p, q }, ringPedersen: { p: safeP, q: safeQ } };
process.send?.(primes, () => process.disconnect());
