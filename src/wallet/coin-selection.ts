import type { Random } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import { shuffled } from "./random-choice.js";
import { feeSat, type InputType, inputWeight, outputWeight, transactionWeight } from "./transaction-size.js";

/**
 * Which coins pay. Three searches propose, the least waste wins (Erhardt, "An Evaluation of Coin Selection
 * Strategies", 2016; the waste metric is Bitcoin Core's):
 *
 * 1. branch and bound: a set that needs no change, no further above the target than change would cost;
 * 2. single random draw: private, and leaves change of useful size;
 * 3. knapsack: the smallest sum above the target that random subsets find, or one coin that is enough alone.
 *
 * Largest first is the last resort, when the others need more inputs than a transaction may have.
 */

export interface Candidate {
  readonly valueSat: bigint;
  readonly inputType: InputType;
}

export interface SelectionTarget {
  /** Sum of all outputs without change. */
  readonly targetSat: bigint;
  /** Script length of every output without change. */
  readonly outputScriptBytes: readonly number[];
  readonly changeScriptBytes: number;
  readonly changeInputType: InputType;
  /** Change below this is not made. */
  readonly dustSat: bigint;
  readonly feeRateSatPerKvb: bigint;
  /** What spending an input is expected to cost some day; 10 sat/vB in Bitcoin Core. */
  readonly longTermFeeRateSatPerKvb: bigint;
  /** 1 to 252 */
  readonly maxInputs: number;
}

export type Algorithm = "branch-and-bound" | "single-random-draw" | "knapsack" | "largest-first";

export interface Selection<C extends Candidate> {
  readonly inputs: readonly C[];
  /** 0 without change. */
  readonly changeSat: bigint;
  /** Inputs minus outputs, exactly. */
  readonly feeSat: bigint;
  /** What this choice costs more than necessary, in satoshi; negative when it saves future fees. */
  readonly wasteSat: bigint;
  readonly algorithm: Algorithm;
}

/** Steps of the search; enough for hundreds of coins, a few milliseconds. */
const BRANCHES_MAX = 50_000;
const KNAPSACK_ROUNDS = 100;

interface Coin<C> {
  readonly candidate: C;
  /** Value minus the fee of its own input, rounded down; satoshi fit in a double. */
  readonly effective: number;
}

interface Search<C extends Candidate> {
  readonly target: SelectionTarget;
  /** Positive effective values only, largest first. */
  readonly coins: readonly Coin<C>[];
  /** Sum of effective values that pays the outputs and the rest of the transaction, without and with change. */
  readonly needed: number;
  readonly neededWithChange: number;
  readonly costOfChange: number;
}

function sumSat(candidates: readonly Candidate[]): bigint {
  return candidates.reduce((sum, { valueSat }) => sum + valueSat, 0n);
}

function weightOf(inputs: readonly Candidate[], target: SelectionTarget, withChange: boolean): number {
  const change = withChange ? [target.changeScriptBytes] : [];
  return transactionWeight({
    inputTypes: inputs.map(({ inputType }) => inputType),
    outputScriptBytes: [...target.outputScriptBytes, ...change],
  });
}

/** Fee of so much weight alone, rounded up. */
function partFeeSat(weight: number, rate: bigint): bigint {
  return (BigInt(weight) * rate + 3999n) / 4000n;
}

/** Settles change and fee of a set of inputs; undefined when they do not pay for themselves. */
function settle<C extends Candidate>(
  inputs: readonly C[],
  target: SelectionTarget,
  algorithm: Algorithm,
): Selection<C> | undefined {
  if (inputs.length === 0 || inputs.length > target.maxInputs) return undefined;
  const availableSat = sumSat(inputs) - target.targetSat;
  const plainFee = feeSat(weightOf(inputs, target, false), target.feeRateSatPerKvb);
  if (availableSat < plainFee) return undefined;
  const changeSat = availableSat - feeSat(weightOf(inputs, target, true), target.feeRateSatPerKvb);
  const withChange = changeSat >= target.dustSat;
  const inputsWeight = inputs.reduce((sum, { inputType }) => sum + inputWeight(inputType), 0);
  const rates = target.feeRateSatPerKvb - target.longTermFeeRateSatPerKvb;
  const early = (BigInt(inputsWeight) * rates) / 4000n;
  const changeCost =
    partFeeSat(outputWeight(target.changeScriptBytes), target.feeRateSatPerKvb) +
    partFeeSat(inputWeight(target.changeInputType), target.longTermFeeRateSatPerKvb);
  return {
    inputs,
    changeSat: withChange ? changeSat : 0n,
    feeSat: withChange ? availableSat - changeSat : availableSat,
    wasteSat: early + (withChange ? changeCost : availableSat - plainFee),
    algorithm,
  };
}

function prepare<C extends Candidate>(candidates: readonly C[], target: SelectionTarget): Search<C> {
  const rate = target.feeRateSatPerKvb;
  const coins = candidates
    .map((candidate) => ({
      candidate,
      effective: Number(candidate.valueSat - partFeeSat(inputWeight(candidate.inputType), rate)),
    }))
    .filter(({ effective }) => effective > 0)
    .sort((a, b) => b.effective - a.effective);
  const rest = (withChange: boolean) => partFeeSat(weightOf([], target, withChange), rate);
  const needed = Number(target.targetSat + rest(false));
  const neededWithChange = Number(target.targetSat + rest(true) + target.dustSat);
  return { target, coins, needed, neededWithChange, costOfChange: neededWithChange - needed };
}

/**
 * Depth-first over "take or leave", largest first; leaves a branch that cannot reach the target or passed beyond it.
 * Keeps the set of least waste: what is above the target, and the price of spending each input now instead of later.
 */
function branchAndBound<C extends Candidate>(search: Search<C>): C[] | undefined {
  const { coins, needed, target } = search;
  const ratesSatPerKvb = Number(target.feeRateSatPerKvb - target.longTermFeeRateSatPerKvb);
  const earlySat = (inputWeight(target.changeInputType) * ratesSatPerKvb) / 4000;
  const ceiling = needed + search.costOfChange;
  const remaining = new Array<number>(coins.length + 1).fill(0);
  for (let index = coins.length - 1; index >= 0; index--) {
    remaining[index] = (remaining[index + 1] ?? 0) + (coins[index]?.effective ?? 0);
  }
  let best: { readonly waste: number; readonly taken: readonly number[] } | undefined;
  const taken: number[] = [];
  let sum = 0;
  let next = 0;
  for (let branch = 0; branch < BRANCHES_MAX; branch++) {
    const coin = coins[next];
    const beyond = sum > ceiling || taken.length > target.maxInputs;
    const hopeless = sum + (remaining[next] ?? 0) < needed;
    const waste = sum - needed + taken.length * earlySat;
    if (!beyond && sum >= needed && (best === undefined || waste < best.waste)) {
      best = { waste, taken: [...taken] };
      // With fees as they are expected to be, or higher, nothing beats an exact match of few inputs by much.
      if (sum === needed && earlySat >= 0) break;
    }
    if (beyond || hopeless || sum >= needed || coin === undefined) {
      const last = taken.pop();
      if (last === undefined) break;
      sum -= coins[last]?.effective ?? 0;
      next = last + 1;
      // A coin of the same value as the one just left would repeat its branch.
      const left = coins[last]?.effective;
      while (next < coins.length && coins[next]?.effective === left) next++;
    } else {
      taken.push(next);
      sum += coin.effective;
      next++;
    }
  }
  return best?.taken.flatMap((index) => coins[index]?.candidate ?? []);
}

/** Random order until the sum leaves change worth having; the smallest coin goes when there are too many. */
function singleRandomDraw<C extends Candidate>(search: Search<C>, random: Random): C[] | undefined {
  const drawn: Coin<C>[] = [];
  let sum = 0;
  for (const coin of shuffled(search.coins, random)) {
    drawn.push(coin);
    sum += coin.effective;
    if (drawn.length > search.target.maxInputs) {
      const smallest = drawn.reduce((low, one) => (one.effective < low.effective ? one : low));
      drawn.splice(drawn.indexOf(smallest), 1);
      sum -= smallest.effective;
    }
    if (sum >= search.neededWithChange) return drawn.map(({ candidate }) => candidate);
  }
  return undefined;
}

/** The smallest coin that is enough alone, and the random subset of smaller coins that ends closest above the target. */
function knapsack<C extends Candidate>(search: Search<C>, random: Random): C[][] {
  const goal = search.neededWithChange;
  const larger = search.coins.filter(({ effective }) => effective >= goal).at(-1);
  const smaller = search.coins.filter(({ effective }) => effective < goal);
  const total = smaller.reduce((sum, { effective }) => sum + effective, 0);
  const alone = larger === undefined ? [] : [[larger.candidate]];
  if (total < goal) return alone;
  let best: readonly Coin<C>[] = smaller;
  let bestSum = total;
  for (let round = 0; round < KNAPSACK_ROUNDS && bestSum > goal; round++) {
    const subset: Coin<C>[] = [];
    let sum = 0;
    const bits = random.bytes(Math.ceil(smaller.length / 8));
    const order = [
      ...smaller.filter((_, index) => ((bits[index >> 3] ?? 0) >> (index & 7)) & 1),
      ...smaller.filter((_, index) => !(((bits[index >> 3] ?? 0) >> (index & 7)) & 1)),
    ];
    for (const coin of order) {
      subset.push(coin);
      sum += coin.effective;
      if (sum < goal) continue;
      if (sum < bestSum) {
        best = [...subset];
        bestSum = sum;
      }
      // Leave the coin that reached the goal and try whether a smaller one does.
      subset.pop();
      sum -= coin.effective;
    }
  }
  return [...alone, best.map(({ candidate }) => candidate)];
}

function largestFirst<C extends Candidate>(search: Search<C>): C[] | undefined {
  const chosen: C[] = [];
  let sum = 0;
  for (const { candidate, effective } of search.coins) {
    chosen.push(candidate);
    sum += effective;
    if (sum >= search.needed) return chosen;
  }
  return undefined;
}

function cheapest<C extends Candidate>(selections: readonly (Selection<C> | undefined)[]): Selection<C> | undefined {
  let best: Selection<C> | undefined;
  for (const selection of selections) {
    if (selection === undefined) continue;
    const better =
      best === undefined ||
      selection.wasteSat < best.wasteSat ||
      // Equal waste: more inputs tidy the wallet for the same money.
      (selection.wasteSat === best.wasteSat && selection.inputs.length > best.inputs.length);
    if (better) best = selection;
  }
  return best;
}

/**
 * Deterministic for the same candidates and the same `random`.
 * Throws `InvalidInput` "insufficient-funds", or "too-many-inputs-needed" when the money is there in too small coins.
 */
export function selectCoins<C extends Candidate>(
  candidates: readonly C[],
  target: SelectionTarget,
  random: Random,
): Selection<C> {
  const search = prepare(candidates, target);
  const exact = branchAndBound(search);
  const drawn = singleRandomDraw(search, random);
  const best = cheapest<C>([
    exact && settle(exact, target, "branch-and-bound"),
    drawn && settle(drawn, target, "single-random-draw"),
    ...knapsack(search, random).map((packed) => settle(packed, target, "knapsack")),
  ]);
  if (best !== undefined) return best;
  const largest = largestFirst(search);
  const last = largest && settle(largest, target, "largest-first");
  if (last !== undefined) return last;
  const facts = { neededSat: BigInt(search.needed), availableSat: sumSat(candidates), coins: candidates.length };
  if (largest === undefined) throw new InvalidInput("insufficient-funds", "not enough confirmed and free coins", facts);
  throw new InvalidInput("too-many-inputs-needed", `more than ${target.maxInputs} inputs would be needed`, facts);
}
