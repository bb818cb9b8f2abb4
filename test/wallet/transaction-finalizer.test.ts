import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { Transaction as SecondTransaction } from "@scure/btc-signer";
import fc from "fast-check";
import { checkPayment } from "../../src/wallet/payment-check.js";
import { decodeProposedTransaction } from "../../src/wallet/proposed-transaction.js";
import { finalizeTransaction, type InputKey } from "../../src/wallet/transaction-finalizer.js";
import { samplePayment } from "./sample-payment.js";
import { sampleAccount, sampleCoins, signWithSecret } from "./sample-wallet.js";

function signed(sample: ReturnType<typeof samplePayment>) {
  const verdict = checkPayment(sample.facts);
  assert.ok(verdict.approved, verdict.approved ? "" : verdict.reasons.join());
  const { sighashes } = verdict.payment;
  return { signatures: sighashes.map(signWithSecret), keys: sighashes.map(({ key }) => key) };
}

function finalize(psbt: Uint8Array, signatures: readonly Uint8Array[], keys: readonly InputKey[]) {
  const proposed = decodeProposedTransaction(psbt);
  assert.ok(proposed !== undefined);
  const before = proposed.transaction.toHex();
  try {
    return finalizeTransaction(proposed, signatures, keys);
  } finally {
    assert.equal(proposed.transaction.toHex(), before, "the proposal is left as it is");
  }
}

describe("finalizer", () => {
  it("refuses a high s, another sighash byte and trailing bytes of an ECDSA signature", () => {
    const sample = samplePayment({ account: sampleAccount("cggmp24"), coins: sampleCoins([400_000n]) });
    const { signatures, keys } = signed(sample);
    const [good] = signatures;
    assert.ok(good);
    const { r, s } = secp256k1.Signature.fromBytes(good.slice(0, -1), "der");
    const high = new secp256k1.Signature(r, secp256k1.Point.CURVE().n - s).toBytes("der");
    const bad = [
      Uint8Array.from([...high, 0x01]),
      Uint8Array.from([...good.slice(0, -1), 0x81]),
      Uint8Array.from([...good.slice(0, -1), 0x00, 0x01]),
      good.slice(0, -1),
    ];
    for (const signature of bad) {
      assert.throws(() => finalize(sample.built.psbt, [signature], keys), { code: "signature-invalid" });
    }
    finalize(sample.built.psbt, [good], keys);
  });

  it("signed transactions are no larger than estimated, and Taproot ones exactly as large", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("frost" as const, "cggmp24" as const),
        fc.array(fc.bigInt({ min: 60_000n, max: 400_000n }), { minLength: 1, maxLength: 12 }),
        fc.constantFrom("", '{"a":1}'),
        fc.string(),
        (scheme, values, metadataJson, seed) => {
          const coins = sampleCoins([...values, 300_000n]);
          const sample = samplePayment({ account: sampleAccount(scheme), coins, request: { metadataJson }, seed });
          const { signatures, keys } = signed(sample);
          const final = finalize(sample.built.psbt, signatures, keys);
          const read = SecondTransaction.fromRaw(final.bytes, { allowUnknownOutputs: true });
          assert.equal(read.id, sample.built.txid);
          assert.equal(read.weight, final.weight);
          const slack = scheme === "frost" ? 0 : 3 * sample.built.inputs.length;
          assert.ok(final.weight <= sample.built.weight && sample.built.weight - final.weight <= slack);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("refuses a wrong, a missing and a swapped signature, and names the input", () => {
    for (const scheme of ["frost", "cggmp24"] as const) {
      const coins = sampleCoins([80_000n, 90_000n]);
      const sample = samplePayment({ account: sampleAccount(scheme), coins });
      const { signatures, keys } = signed(sample);
      assert.equal(signatures.length, 2);
      const { psbt } = sample.built;
      const broken = signatures.map((bytes, index) =>
        index === 1 ? bytes.map((byte, i) => (i === 40 ? byte ^ 1 : byte)) : bytes,
      );
      assert.throws(() => finalize(psbt, broken, keys), { code: "signature-invalid", facts: { input: 1 } });
      assert.throws(() => finalize(psbt, [...signatures].reverse(), keys), { code: "signature-invalid" });
      assert.throws(() => finalize(psbt, signatures.slice(1), keys), { code: "signature-count-differs" });
      assert.throws(() => finalize(psbt, [new Uint8Array(0), ...signatures.slice(1)], keys), {
        code: "signature-invalid",
      });
    }
  });
});
