import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SignerChoice } from "../../src/wallet/signer-choice.js";

const APPROVERS = ["a", "b", "c", "d", "e"];

describe("signer choice", () => {
  it("takes the fastest, then whoever has the fewest setbacks", () => {
    const choice = new SignerChoice();
    assert.deepEqual(choice.choose(APPROVERS, 3), ["a", "b", "c"]);
    choice.setBack("a");
    choice.setBack("b");
    choice.setBack("b");
    assert.deepEqual(choice.choose(APPROVERS, 3), ["c", "d", "e"]);
    assert.deepEqual(choice.choose(APPROVERS, 4), ["c", "d", "e", "a"]);
    assert.deepEqual(choice.culprits, []);
  });

  it("never takes a proven culprit, and says when too few are left", () => {
    const choice = new SignerChoice();
    for (const culprit of ["a", "c"]) choice.exclude(culprit);
    assert.deepEqual(choice.choose(APPROVERS, 3), ["b", "d", "e"]);
    assert.equal(choice.choose(APPROVERS, 4), undefined);
    assert.deepEqual(choice.culprits, ["a", "c"]);
  });

  it("one liar of five is out of the choice after at most two attempts, whatever it says", () => {
    for (const liar of APPROVERS) {
      for (const accuses of [0, 1, 2]) {
        const choice = new SignerChoice();
        // The liar votes first.
        const order = [liar, ...APPROVERS.filter((name) => name !== liar)];
        let attempts = 0;
        for (;;) {
          const set = choice.choose(order, 3);
          assert.ok(set);
          if (!set.includes(liar)) break;
          attempts += 1;
          choice.setBack(liar);
          for (const accused of set.filter((name) => name !== liar).slice(0, accuses)) choice.setBack(accused);
        }
        assert.ok(attempts <= 2);
      }
    }
  });
});
