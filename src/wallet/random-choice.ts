import type { Random } from "../crypto/ambient.js";

/** Choices from a source of randomness; the same source makes the same choices. */

/** Uniform in [0, bound), by rejection. `bound` is 1 to 2^31. */
export function randomBelow(random: Random, bound: number): number {
  const limit = 2 ** 32 - (2 ** 32 % bound);
  for (;;) {
    const value = Buffer.from(random.bytes(4)).readUInt32BE(0);
    if (value < limit) return value % bound;
  }
}

/** A new array in random order (Fisher and Yates). */
export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const result: T[] = [];
  for (const [index, item] of items.entries()) {
    const place = randomBelow(random, index + 1);
    const displaced = result[place];
    if (displaced === undefined) result.push(item);
    else {
      result.push(displaced);
      result[place] = item;
    }
  }
  return result;
}
