// What key shares open together, by interpolation alone: how tests look at shares of one epoch and of two.
import { lagrangeCoefficient, Point, Scalar } from "../../src/crypto/curve.js";
import type { KeyShare } from "../../src/protocols/key-share.js";

/** g^{Σ λ_i x_i}: the key, when these are t or more shares of one polynomial of degree t-1. */
export function opened(shares: readonly KeyShare[]): Point {
  const ids = shares.map(({ self }) => self);
  const terms = shares.map((share) => Scalar.times(lagrangeCoefficient(share.self, ids), share.secretShare));
  return Point.base.times(Scalar.sum(terms));
}

export function* subsets<T>(items: readonly T[], size: number): Generator<T[]> {
  if (size === 0) return yield [];
  for (let first = 0; first + size <= items.length; first++) {
    for (const rest of subsets(items.slice(first + 1), size - 1)) yield [items[first] as T, ...rest];
  }
}

/**
 * Every way to take shares of two epochs together, each index once and at least one share of each epoch: t old ones with
 * t-1 new ones among them. Without their fellows they lie on no common polynomial, whatever is tried with them.
 */
export function* mixtures(old: readonly KeyShare[], fresh: readonly KeyShare[]): Generator<readonly KeyShare[]> {
  const indices = [...new Set([...old, ...fresh].map(({ self }) => self))];
  const choices = indices.map((index) => [old, fresh].map((epoch) => epoch.find(({ self }) => self === index)));
  function* from(place: number, chosen: readonly KeyShare[]): Generator<readonly KeyShare[]> {
    const choice = choices[place];
    if (choice === undefined) {
      const isMixed = chosen.some((share) => old.includes(share)) && chosen.some((share) => fresh.includes(share));
      if (isMixed) yield chosen;
      return;
    }
    yield* from(place + 1, chosen);
    for (const share of choice) if (share !== undefined) yield* from(place + 1, [...chosen, share]);
  }
  yield* from(0, []);
}
