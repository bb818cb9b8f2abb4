import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { signerCover } from "../../src/wallet/signer-cover.js";

function* failures(parties: number, down: number, from = 1): Generator<readonly number[]> {
  if (down === 0) yield [];
  else
    for (let first = from; first <= parties; first++)
      for (const rest of failures(parties, down - 1, first + 1)) yield [first, ...rest];
}

describe("signer cover", () => {
  for (const [parties, threshold, setsMax, mayBeDown] of [
    [2, 2, 64, 0],
    [3, 2, 64, 1],
    [5, 3, 64, 2],
    [5, 3, 9, 1],
    [7, 4, 64, 3],
    [9, 5, 64, 2],
    [20, 11, 64, 2],
  ] as const) {
    it(`${threshold}-of-${parties}, at most ${setsMax} sets: at least any ${mayBeDown} may be down`, () => {
      const cover = signerCover({ parties, threshold, setsMax });
      assert.ok(cover.mayBeDown >= mayBeDown, `${cover.mayBeDown}`);
      assert.ok(cover.sets.length <= setsMax);
      for (const set of cover.sets) {
        assert.equal(set.length, threshold);
        assert.ok(set.every((party, place) => party <= parties && party > (set[place - 1] ?? 0)));
      }
      for (const failed of failures(parties, cover.mayBeDown))
        assert.ok(
          cover.sets.some((set) => !failed.some((party) => set.includes(party))),
          `${failed} down`,
        );
    });
  }
});
