import { describe, it } from "node:test";
import { live, liveAtRandom } from "./lifecycle.js";

describe("a key lives through refresh and reshare, and signs in each epoch", () => {
  for (const [from, to] of [
    [
      { threshold: 2, n: 2 },
      { threshold: 2, n: 3 },
    ],
    [
      { threshold: 2, n: 3 },
      { threshold: 3, n: 5 },
    ],
    [
      { threshold: 3, n: 5 },
      { threshold: 2, n: 2 },
    ],
  ] as const) {
    it(`${from.threshold}-of-${from.n}, then ${to.threshold}-of-${to.n}`, () => {
      live(from, to, `${from.threshold} of ${from.n}`);
    });
  }
  // More of the same, and larger: npm run test:long -- lifecycle
  for (const seed of [0, 1]) it(`seed ${seed}`, () => liveAtRandom(seed, 3));
});
