// Fig. 9 and section 4.3.1 with all 256 repetitions, end to end: whoever lied is named, and a judge in a fresh process agrees.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { askJudge } from "../../misbehaviour/scene.js";
import type { Lies, Loose } from "./dishonesty.js";

process.env["CGGMP24_REPETITIONS"] = "all";
const { caught, otherPoint, otherScalar } = await import("./dishonesty.js");
const { otherProduct, run } = await import("./presign-liars.js");
assert.equal(run.pub.aux.profile.binaryRepetitions, 256);

const cases: readonly [string, string, () => Readonly<Record<number, Lies>>][] = [
  ["a wrong δ", "failed-nonce/decryption", () => ({ 3: { share: (m: Loose) => otherScalar(m.productShare) } })],
  ["a wrong S", "failed-chi/decryption", () => ({ 3: { share: (m: Loose) => otherPoint(m.key) } })],
  ["a wrong product of the mask", "failed-nonce/product", () => ({ 2: {}, 3: otherProduct("mask", "product", [2]) })],
  ["a wrong product of the key", "failed-chi/product", () => ({ 2: {}, 3: otherProduct("key", "product", [2]) })],
];

describe(`with 256 repetitions at ${run.pub.aux.profile.name}`, () => {
  for (const [name, check, liars] of cases) {
    it(`names who sent ${name}`, () => {
      const { context, evidence } = caught(run, { liars: liars(), culprits: [3], check });
      const forged = evidence.map((one) => ({ ...one, accused: 1, accuser: 2 }));
      const verdicts = askJudge(run.protocol.name, context, [...evidence, ...forged]);
      assert.deepEqual(verdicts, [...evidence.map(() => true), ...forged.map(() => false)]);
    });
  }
});
