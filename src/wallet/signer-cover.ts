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

/** Failures that are enumerated at most. */
const FAILURES_MAX = 20_000;

/**
 * A cover that tolerates as many parties down as fits into `setsMax` sets. For all n-t only the collection of all sets
 * will do: exactly t parties are left, and those are the set. Greedy, so perhaps not the smallest.
 */
export function signerCover(options: {
  readonly parties: number;
  readonly threshold: number;
  readonly setsMax: number;
}): SignerCover {
  const { parties, threshold } = options;
  for (let down = parties - threshold; down > 0; down--) {
    const sets = binomial(parties, down) > FAILURES_MAX ? undefined : coverAgainst(down, options);
    if (sets !== undefined) return { sets, mayBeDown: down };
  }
  return { sets: [range(threshold)], mayBeDown: 0 };
}

/** Until every failure is outlived: the set that leaves one of them out, and with it the parties that fail most often. */
function coverAgainst(
  down: number,
  { parties, threshold, setsMax }: { parties: number; threshold: number; setsMax: number },
): readonly (readonly number[])[] | undefined {
  let open = combinations(parties, down);
  const chosen: (readonly number[])[] = [];
  for (let [failed] = open; failed !== undefined; [failed] = open) {
    if (chosen.length === setsMax) return undefined;
    const up = range(parties).filter((party) => failed?.includes(party) === false);
    const failures = (party: number): number => open.filter((other) => other.includes(party)).length;
    const set = up
      .map((party) => ({ party, failures: failures(party) }))
      .sort((left, right) => left.failures - right.failures || left.party - right.party)
      .slice(0, threshold)
      .map(({ party }) => party)
      .sort((left, right) => left - right);
    chosen.push(set);
    open = open.filter((other) => other.some((party) => set.includes(party)));
  }
  return chosen;
}

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index + 1);

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
