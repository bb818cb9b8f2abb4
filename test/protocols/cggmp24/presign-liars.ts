// Liars in presigning, for its test files: a signing set of three, a pair, and products that are not what they should be.
import { partyId } from "../../../src/session/party.js";
import { ceremony, fewRepetitions, of, presignRun } from "./ceremony.js";
import { assertNamed, type Lies, type Loose } from "./dishonesty.js";
import { otherProductIn, rehearseIn, shiftUnder } from "./product-lies.js";

export const CHEAT = 3;
export const signers = [1, 2, 3];
export const wallet = ceremony({ threshold: 3, n: 4, profile: fewRepetitions }, "presign misbehaviour");
export const run = presignRun(wallet, signers, "presign misbehaviour");
export const cheat = (lies: Lies, check: string) => assertNamed(run, { liars: { [CHEAT]: lies }, check });

// One pair is enough where a field of a proof is changed.
export const couple = ceremony({ threshold: 2, n: 3, profile: fewRepetitions }, "presign misbehaviour of two");
export const pair = presignRun(couple, [2, 3], "presign misbehaviour of two");
export const pairCheat = (lies: Lies, check: string) => assertNamed(pair, { liars: { [CHEAT]: lies }, check });

/** Adds 1 to a plaintext under that party's key, homomorphically. */
export function shift(ciphertext: Uint8Array, owner: number): Uint8Array {
  return shiftUnder(of(wallet.publicAux.parties, partyId(owner)).paillier, ciphertext);
}

const rehearsals = new Map<string, Map<number, Loose>>();
/** What the cheat would honestly have sent. */
export function rehearse(factor: "mask" | "key"): Map<number, Loose> {
  const seen = rehearsals.get(factor) ?? rehearseIn({ run, cheat: CHEAT }, factor);
  rehearsals.set(factor, seen);
  return seen;
}

/** The cheat's product for `targets` is shifted by one in every message that shows it. */
export function otherProduct(factor: "mask" | "key", part: "product" | "summand", targets: readonly number[]): Lies {
  return otherProductIn({ run, cheat: CHEAT, rehearsal: rehearse(factor) }, { factor, part, targets });
}
