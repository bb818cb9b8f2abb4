import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  checkPolicy,
  DEFAULT_POLICY,
  type PaymentFacts,
  type PaymentPolicy,
  type PolicyReason,
  wantsOpReturn,
} from "../../src/consensus/policy.js";

const FACTS: PaymentFacts = {
  recipients: [{ address: "alice", addressType: "p2wpkh", amountSat: 1_000_000n }],
  change: { addressType: "p2tr", amountSat: 50_000n },
  hasOpReturn: false,
  hasMetadata: false,
  feeSat: 400n,
  virtualSizeVb: 200,
  requestedMaxFeeRateSatPerKvb: 50_000n,
  inputs: [{ confirmations: 1 }, { confirmations: 6 }],
};
const NONE = { amountSat: 0n, payments: 0 };

function reasons(
  facts: Partial<PaymentFacts>,
  policy: Partial<PaymentPolicy> = {},
  spent = NONE,
): readonly PolicyReason[] {
  return checkPolicy({ ...DEFAULT_POLICY, ...policy }, { ...FACTS, ...facts }, spent);
}

describe("payment policy", () => {
  it("allows an ordinary payment", () => {
    assert.deepEqual(reasons({}), []);
  });

  it("limits one payment", () => {
    assert.deepEqual(reasons({}, { maxPaymentSat: 1_000_000n }), []);
    assert.deepEqual(reasons({}, { maxPaymentSat: 999_999n }), ["amount-above-limit"]);
  });

  it("limits a day by amount and by number", () => {
    const spent = { amountSat: 4_000_000n, payments: 9 };
    assert.deepEqual(reasons({}, { maxDailySat: 5_000_000n, maxDailyPayments: 10 }, spent), []);
    assert.deepEqual(reasons({}, { maxDailySat: 4_999_999n }, spent), ["daily-amount-above-limit"]);
    assert.deepEqual(reasons({}, { maxDailyPayments: 9 }, spent), ["daily-payments-above-limit"]);
  });

  it("bounds the fee rate below and above, to the satoshi", () => {
    const policy = { minFeeRateSatPerKvb: 2_000n, maxFeeRateSatPerKvb: 2_000n };
    assert.deepEqual(reasons({ feeSat: 400n }, policy), []);
    assert.deepEqual(reasons({ feeSat: 399n }, policy), ["fee-rate-too-low"]);
    assert.deepEqual(reasons({ feeSat: 401n }, policy), ["fee-rate-too-high"]);
    // 201 vB at 1,001 sat/kvB need 201.2, that is 202 satoshi: rounding up is not overpaying.
    const odd = { minFeeRateSatPerKvb: 1_001n, maxFeeRateSatPerKvb: 1_001n };
    assert.deepEqual(reasons({ feeSat: 202n, virtualSizeVb: 201 }, odd), []);
  });

  it("keeps to the client's fee rate; without change a little more, for change that was not worth an output", () => {
    const requestedMaxFeeRateSatPerKvb = 2_000n;
    assert.deepEqual(reasons({ requestedMaxFeeRateSatPerKvb, feeSat: 400n }), []);
    assert.deepEqual(reasons({ requestedMaxFeeRateSatPerKvb, feeSat: 401n }), ["fee-rate-above-request"]);
    const change = undefined;
    assert.deepEqual(reasons({ requestedMaxFeeRateSatPerKvb, change, feeSat: 400n + 546n + 86n }), []);
    assert.deepEqual(reasons({ requestedMaxFeeRateSatPerKvb, change, feeSat: 400n + 546n + 87n }), [
      "fee-rate-above-request",
    ]);
  });

  it("bounds the fee itself and its share of the payment", () => {
    assert.deepEqual(reasons({}, { maxFeeSat: 399n }), ["fee-too-high"]);
    const policy = { maxFeeSharePermille: 1, feeShareFloorSat: 100n };
    assert.deepEqual(reasons({ recipients: [{ ...first(), amountSat: 400_000n }] }, policy), []);
    assert.deepEqual(reasons({ recipients: [{ ...first(), amountSat: 399_999n }] }, policy), ["fee-share-too-high"]);
    const small = { ...policy, feeShareFloorSat: 400n };
    assert.deepEqual(reasons({ recipients: [{ ...first(), amountSat: 1_000n }] }, small), []);
  });

  function first() {
    return { address: "alice", addressType: "p2wpkh" as const };
  }

  it("allows only listed address types and addresses", () => {
    assert.deepEqual(reasons({}, { addressTypes: new Set(["p2tr"]) }), ["address-type-forbidden"]);
    assert.deepEqual(reasons({ recipients: [{ address: "?", addressType: undefined, amountSat: 9_000_000n }] }), [
      "address-type-forbidden",
    ]);
    assert.deepEqual(reasons({}, { allowList: new Set(["alice"]) }), []);
    assert.deepEqual(reasons({}, { allowList: new Set(["bob"]) }), ["address-not-allowed"]);
    assert.deepEqual(reasons({}, { allowList: new Set() }), ["address-not-allowed"]);
  });

  it("makes no dust", () => {
    for (const [addressType, dust] of [
      ["p2wpkh", 294n],
      ["p2tr", 330n],
      ["p2pkh", 546n],
    ] as const) {
      const recipients = (amountSat: bigint) => [{ address: "alice", addressType, amountSat }];
      assert.deepEqual(reasons({ recipients: recipients(dust) }), []);
      assert.deepEqual(reasons({ recipients: recipients(dust - 1n) }), ["output-below-dust"]);
    }
    assert.deepEqual(reasons({ change: { addressType: "p2tr", amountSat: 330n } }), []);
    assert.deepEqual(reasons({ change: { addressType: "p2tr", amountSat: 329n } }), ["change-below-dust"]);
  });

  it("bounds inputs, outputs and confirmations", () => {
    assert.deepEqual(reasons({}, { maxInputs: 2, maxOutputs: 2 }), []);
    assert.deepEqual(reasons({}, { maxInputs: 1 }), ["too-many-inputs"]);
    assert.deepEqual(reasons({}, { maxOutputs: 1 }), ["too-many-outputs"]);
    assert.deepEqual(reasons({}, { minConfirmations: 2 }), ["input-unconfirmed"]);
  });

  it("has three rules for OP_RETURN", () => {
    const mark = { hasOpReturn: true, hasMetadata: true };
    assert.deepEqual(reasons(mark), []);
    assert.deepEqual(reasons({ hasOpReturn: true }), ["op-return-forbidden"]);
    assert.deepEqual(reasons({ hasMetadata: true }), ["op-return-missing"]);
    assert.deepEqual(reasons(mark, { opReturn: "never" }), ["op-return-forbidden"]);
    assert.deepEqual(reasons({}, { opReturn: "always" }), ["op-return-missing"]);
    assert.ok(wantsOpReturn("always", "") && wantsOpReturn("with-metadata", "{}"));
    assert.ok(!wantsOpReturn("with-metadata", "") && !wantsOpReturn("never", "{}"));
  });

  it("gives all reasons at once, each once", () => {
    const recipients = [1, 2].map(() => ({ address: "bob", addressType: "p2pkh" as const, amountSat: 1n }));
    const policy = { allowList: new Set<string>(), addressTypes: new Set<never>(), maxInputs: 0, maxPaymentSat: 1n };
    assert.deepEqual([...reasons({ recipients }, policy)].sort(), [
      "address-not-allowed",
      "address-type-forbidden",
      "amount-above-limit",
      "too-many-inputs",
    ]);
  });
});
