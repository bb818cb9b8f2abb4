import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type Candidate, type SelectionTarget, selectCoins } from "../../src/wallet/coin-selection.js";
import { feeSat, inputWeight, outputWeight, transactionWeight } from "../../src/wallet/transaction-size.js";
import { seededRandom } from "./sample-wallet.js";

const target = (changes: Partial<SelectionTarget> = {}): SelectionTarget => ({
  targetSat: 100_000n,
  outputScriptBytes: [22],
  changeScriptBytes: 34,
  changeInputType: "p2tr",
  dustSat: 330n,
  feeRateSatPerKvb: 5_000n,
  longTermFeeRateSatPerKvb: 10_000n,
  maxInputs: 100,
  ...changes,
});
const coins = (...values: (bigint | number)[]): Candidate[] =>
  values.map((value) => ({ valueSat: BigInt(value), inputType: "p2tr" as const }));
const sum = (candidates: readonly Candidate[]): bigint =>
  candidates.reduce((total, { valueSat }) => total + valueSat, 0n);

function weight(inputs: readonly Candidate[], wanted: SelectionTarget, change: boolean): number {
  return transactionWeight({
    inputTypes: inputs.map(({ inputType }) => inputType),
    outputScriptBytes: change ? [...wanted.outputScriptBytes, wanted.changeScriptBytes] : wanted.outputScriptBytes,
  });
}

describe("coin selection", () => {
  const arbitrary = fc.record({
    values: fc.array(fc.bigInt({ min: 1n, max: 3_000_000n }), { minLength: 1, maxLength: 60 }),
    targetSat: fc.bigInt({ min: 546n, max: 5_000_000n }),
    feeRateSatPerKvb: fc.bigInt({ min: 1_000n, max: 200_000n }),
    inputType: fc.constantFrom("p2tr" as const, "p2wpkh" as const),
    maxInputs: fc.integer({ min: 1, max: 100 }),
    seed: fc.string(),
  });

  it("never below the target, never negative change, fee exact and within bounds", () => {
    fc.assert(
      fc.property(arbitrary, ({ values, seed, inputType, ...changes }) => {
        const wanted = target({ ...changes, changeInputType: inputType });
        const candidates = values.map((valueSat) => ({ valueSat, inputType }));
        try {
          const chosen = selectCoins(candidates, wanted, seededRandom(seed));
          const total = sum(chosen.inputs);
          assert.equal(total, wanted.targetSat + chosen.changeSat + chosen.feeSat);
          assert.ok(chosen.inputs.length <= wanted.maxInputs);
          assert.equal(new Set(chosen.inputs).size, chosen.inputs.length);
          assert.ok(chosen.inputs.every((input) => candidates.includes(input)));
          const withChange = chosen.changeSat > 0n;
          if (withChange) assert.ok(chosen.changeSat >= wanted.dustSat);
          const least = feeSat(weight(chosen.inputs, wanted, withChange), wanted.feeRateSatPerKvb);
          if (withChange) assert.equal(chosen.feeSat, least);
          else {
            assert.ok(chosen.feeSat >= least);
            // What is not worth an output: its own cost and less than dust.
            const bound = feeSat(weight(chosen.inputs, wanted, true), wanted.feeRateSatPerKvb) + wanted.dustSat;
            assert.ok(chosen.feeSat < bound);
          }
        } catch (error) {
          const code = (error as { code?: string }).code;
          assert.ok(code === "insufficient-funds" || code === "too-many-inputs-needed", String(error));
          const effective = candidates
            .map(
              ({ valueSat }) => valueSat - (BigInt(inputWeight(inputType)) * wanted.feeRateSatPerKvb + 3999n) / 4000n,
            )
            .filter((value) => value > 0n)
            .sort((a, b) => (a < b ? 1 : -1));
          const best = effective.slice(0, wanted.maxInputs).reduce((a, b) => a + b, 0n);
          const rest = (BigInt(weight([], wanted, false)) * wanted.feeRateSatPerKvb + 3999n) / 4000n;
          assert.ok(best <= wanted.targetSat + rest, "the money was there");
        }
      }),
      { numRuns: 600 },
    );
  });

  it("is deterministic for the same source of randomness", () => {
    const candidates = coins(...Array.from({ length: 40 }, (_, index) => 10_000 + index * 777));
    const choose = (seed: string) => selectCoins(candidates, target(), seededRandom(seed));
    assert.deepEqual(choose("a"), choose("a"));
  });

  it("finds the exact match and makes no change", () => {
    const wanted = target({ longTermFeeRateSatPerKvb: 5_000n });
    const pair = coins(60_000, 0n);
    const needed = wanted.targetSat + feeSat(weight(coins(1, 1), wanted, false), wanted.feeRateSatPerKvb);
    const exact = [...coins(60_000n, needed - 60_000n), ...coins(250_000, 90_000, 33_000, 4_000)];
    const chosen = selectCoins(exact, wanted, seededRandom(1));
    assert.equal(chosen.algorithm, "branch-and-bound");
    assert.equal(chosen.changeSat, 0n);
    assert.equal(chosen.inputs.length, pair.length);
  });

  it("gives up an output that would be dust", () => {
    const wanted = target();
    const fee = feeSat(weight(coins(1), wanted, true), wanted.feeRateSatPerKvb);
    const dust = selectCoins(coins(wanted.targetSat + fee + 329n), wanted, seededRandom(1));
    assert.equal(dust.changeSat, 0n);
    const worth = selectCoins(coins(wanted.targetSat + fee + 330n), wanted, seededRandom(1));
    assert.equal(worth.changeSat, 330n);
  });

  it("never spends a coin that costs more than it is worth", () => {
    const wanted = target({ feeRateSatPerKvb: 100_000n });
    const chosen = selectCoins([...coins(5_000, 5_700, 300_000)], wanted, seededRandom(1));
    assert.deepEqual(chosen.inputs, coins(300_000));
  });

  it("says whether money or room is missing, and falls back to the largest coins", () => {
    assert.throws(() => selectCoins(coins(1_000, 2_000), target(), seededRandom(1)), { code: "insufficient-funds" });
    assert.throws(() => selectCoins([], target(), seededRandom(1)), { code: "insufficient-funds" });
    const many = coins(...Array.from({ length: 30 }, () => 5_000));
    assert.throws(() => selectCoins(many, target({ maxInputs: 5 }), seededRandom(1)), {
      code: "too-many-inputs-needed",
    });
    // Only the two largest reach the target within two inputs.
    const tight = [...coins(...Array.from({ length: 40 }, () => 3_000)), ...coins(55_000, 50_000)];
    const chosen = selectCoins(tight, target({ maxInputs: 2 }), seededRandom(1));
    assert.equal(sum(chosen.inputs), 105_000n);
  });

  it("saves small coins when fees are low and avoids them when fees are high", () => {
    const small = coins(...Array.from({ length: 20 }, () => 12_000));
    const one = coins(150_000);
    const low = selectCoins([...small, ...one], target({ feeRateSatPerKvb: 1_000n }), seededRandom(3));
    const high = selectCoins([...small, ...one], target({ feeRateSatPerKvb: 60_000n }), seededRandom(3));
    assert.ok(low.inputs.length > high.inputs.length);
    assert.equal(high.inputs.length, 1);
  });

  it("stays quick with a thousand coins", () => {
    const random = seededRandom("thousand");
    const candidates = coins(
      ...Array.from({ length: 1_000 }, () => 1_000 + (Buffer.from(random.bytes(4)).readUInt32BE(0) % 1_000_000)),
    );
    const startedMs = performance.now();
    selectCoins(candidates, target({ targetSat: 20_000_000n }), random);
    assert.ok(performance.now() - startedMs < 2_000);
  });
});

describe("sizes", () => {
  it("are those of the specification", () => {
    assert.equal(inputWeight("p2tr"), 230);
    assert.equal(inputWeight("p2wpkh"), 272);
    assert.equal(outputWeight(22), 124);
    assert.equal(outputWeight(34), 172);
    assert.equal(transactionWeight({ inputTypes: ["p2tr"], outputScriptBytes: [34] }), 444);
    assert.equal(feeSat(444, 1_000n), 111n);
    assert.equal(feeSat(441, 1_000n), 111n);
  });
});
