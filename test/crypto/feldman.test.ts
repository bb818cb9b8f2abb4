import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { lagrangeCoefficient, Point, Scalar, scalar } from "../../src/crypto/curve.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import {
  commit,
  isCommitment,
  randomPolynomial,
  share,
  shareCommitment,
  verifyShare,
} from "../../src/crypto/feldman.js";
import { seededRandom } from "../fixtures/parties.js";

const random = seededRandom("feldman");
const refusal = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

describe("feldman", () => {
  it("any t of n shares verify and recombine; fewer do not", () => {
    for (const threshold of [1, 2, 3, 5]) {
      const polynomial = randomPolynomial(threshold, random);
      const commitment = commit(polynomial);
      assert.ok(isCommitment(commitment, { threshold }));
      const indices = [1, 4, 9, 65535, 3].slice(0, threshold);
      for (const index of indices) {
        assert.ok(verifyShare(commitment, index, share(polynomial, index)));
        assert.ok(shareCommitment(commitment, index).equals(Point.base.times(share(polynomial, index))));
        assert.ok(!verifyShare(commitment, index, Scalar.plus(share(polynomial, index), Scalar.one)));
      }
      const combine = (set: readonly number[]) =>
        Scalar.sum(set.map((i) => Scalar.times(lagrangeCoefficient(i, set), share(polynomial, i))));
      assert.equal(combine(indices), polynomial.coefficients[0]);
      if (threshold > 1) assert.notEqual(combine(indices.slice(1)), polynomial.coefficients[0]);
    }
  });

  it("refuses another number of coefficients (a raised or lowered threshold) and identities", () => {
    const commitment = commit(randomPolynomial(3, random));
    const [first = Point.base, ...rest] = commitment;
    assert.ok(isCommitment(commitment, { threshold: 3 }));
    assert.ok(!isCommitment(commitment, { threshold: 2 }));
    assert.ok(!isCommitment(commitment, { threshold: 4 }));
    assert.ok(!isCommitment([...commitment, Point.base], { threshold: 3 }));
    assert.ok(!isCommitment([...commitment, Point.identity], { threshold: 3 }));
    assert.ok(!isCommitment([], { threshold: 3 }));
    assert.ok(!isCommitment([Point.identity, ...rest], { threshold: 3 }));
    assert.ok(!isCommitment([first, Point.identity, first], { threshold: 3 }));
  });

  it("shares zero for a refresh, and only then has an identity as constant term", () => {
    const commitment = commit(randomPolynomial(3, random, Scalar.zero));
    assert.ok(isCommitment(commitment, { threshold: 3, zeroConstant: true }));
    assert.ok(!isCommitment(commitment, { threshold: 3 }));
    assert.ok(!isCommitment(commit(randomPolynomial(3, random)), { threshold: 3, zeroConstant: true }));
  });

  it("shares a given secret", () => {
    const polynomial = randomPolynomial(2, random, scalar(42n));
    assert.ok(commit(polynomial)[0]?.equals(Point.base.times(scalar(42n))));
  });

  it("refuses index 0 and thresholds below 1", () => {
    const polynomial = randomPolynomial(2, random);
    assert.throws(() => share(polynomial, 0), refusal("index-range"));
    assert.throws(() => verifyShare(commit(polynomial), 0, Scalar.one), refusal("index-range"));
    for (const threshold of [0, -1, 1.5]) {
      assert.throws(() => randomPolynomial(threshold, random), refusal("threshold-range"));
    }
  });
});
