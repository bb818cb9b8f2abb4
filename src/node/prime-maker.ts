/**
 * Draws the primes of one party's auxiliary info and says them to the parent. A process of its own, because the search
 * keeps a core busy for seconds, and because the least priority of the scheduler applies to it as a whole.
 */
import { constants, setPriority } from "node:os";
import { InvalidInput } from "../crypto/fault.js";
import { profiles } from "../crypto/security-profile.js";
import { drawAuxPrimes } from "../protocols/cggmp24/aux-primes.js";
import { systemRandom } from "./ambient.js";
import type { PrimeReport } from "./prime-pool.js";

setPriority(constants.priority.PRIORITY_LOW); // before OpenSSL's threads begin: they inherit it
process.once("disconnect", () => process.kill(process.pid, "SIGKILL"));

const say = (report: PrimeReport, then = (): void => {}): void => void process.send?.(report, then);
const profile = profiles.find(({ name }) => name === process.argv[2]);
if (profile === undefined) throw new InvalidInput("profile-unknown", "the argument is a security profile");
const primes = await drawAuxPrimes(profile, systemRandom, (progress) => say({ kind: "progress", progress }));
say({ kind: "primes", primes }, () => process.disconnect());
