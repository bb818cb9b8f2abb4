/**
 * A presignature serves one signing set, so a pool must hold some for enough sets: whichever nodes are down, a set of
 * the others must have one.
 */

export interface SignerCover {
  /** Signing sets: party indices, ascending. */
  readonly sets: readonly (readonly number[])[];
  /** Any so many parties may be down, and a set is left. */
  readonly mayBeDown: number;
}

/** Combinations beyond this are not enumerated. */
const ENUMERATED_MAX = 20_000;

/**
 * The cover that tolerates the most parties down with at most `setsMax` sets. For all n-t only the collection of all
 * sets will do (exactly t parties are left, and those are the set); for fewer, each step takes the set that outlives
 * the most of the failures that no set outlives yet.
 */
export function signerCover(options: {
  readonly parties: number;
  readonly threshold: number;
  readonly setsMax: number;
}): SignerCover {
  const { parties, threshold, setsMax } = options;
  for (let down = parties - threshold; down > 0; down--) {
    const sets = coverAgainst(down, options);
    if (sets !== undefined && sets.length <= setsMax) return { sets, mayBeDown: down };
  }
  return { sets: [Array.from({ length: threshold }, (_, index) => index + 1)], mayBeDown: 0 };
}

function coverAgainst(
  down: number,
  { parties, threshold, setsMax }: { parties: number; threshold: number; setsMax: number },
): readonly (readonly number[])[] | undefined {
  if (binomial(parties, threshold) > ENUMERATED_MAX || binomial(parties, down) > ENUMERATED_MAX) return undefined;
  const all = combinations(parties, threshold);
  if (down === parties - threshold) return all;
  let open = combinations(parties, down);
  const chosen: (readonly number[])[] = [];
  while (open.length > 0 && chosen.length <= setsMax) {
    const outlives = (set: readonly number[]) => open.filter((failed) => !failed.some((party) => set.includes(party)));
    const [best] = all
      .map((set) => ({ set, gain: outlives(set).length }))
      .sort((left, right) => right.gain - left.gain);
    if (best === undefined || best.gain === 0) return undefined;
    const { set } = best;
    chosen.push(set);
    open = open.filter((failed) => failed.some((party) => set.includes(party)));
  }
  return chosen;
}

function binomial(n: number, k: number): number {
  let result = 1;
  for (let index = 1; index <= k; index++) result = (result * (n - k + index)) / index;
  return result;
}

/** All sets of `size` of the numbers 1 to `parties`, each ascending, in lexicographic order. */
function combinations(parties: number, size: number, from = 1): readonly (readonly number[])[] {
  if (size === 0) return [[]];
  const sets: (readonly number[])[] = [];
  for (let first = from; first <= parties - size + 1; first++) {
    for (const rest of combinations(parties, size - 1, first + 1)) sets.push([first, ...rest]);
  }
  return sets;
}
