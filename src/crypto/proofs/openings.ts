/**
 * Openings of ciphertexts that one verifier checks for one prover, decided together: the N-th power modulo N², the
 * dearest part of most proofs, is then computed once for each key. @see PAPER.md, "Openings decided together"
 */
import type { Opening, PaillierKey, Term } from "../paillier.js";

/** exponent ⊙ base. */
export const term = (base: bigint, exponent = 1n): Term => ({ base, exponent });

export class Openings {
  readonly #claimed = new Map<PaillierKey, Opening[]>();

  /** Takes down what must hold; true, so that it stands among the conditions of a proof. */
  claim(key: PaillierKey, opening: Opening): true {
    const claimed = this.#claimed.get(key) ?? [];
    claimed.push(opening);
    this.#claimed.set(key, claimed);
    return true;
  }

  /** Whether everything that was claimed holds, but for a probability of 2^-128. */
  hold(): boolean {
    return [...this.#claimed].every(([key, openings]) => key.opens(openings));
  }
}

/** Decides what `conditions` claims at once, unless the caller gathers the openings of several proofs. */
export function settled(gathered: Openings | undefined, conditions: (openings: Openings) => boolean): boolean {
  if (gathered !== undefined) return conditions(gathered);
  const own = new Openings();
  return conditions(own) && own.hold();
}
