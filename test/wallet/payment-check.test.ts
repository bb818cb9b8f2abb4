import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RawTx, Transaction as SecondTransaction, SigHash } from "@scure/btc-signer";
import { Psbt, Transaction } from "bitcoinjs-lib";
import fc from "fast-check";
import { DEFAULT_POLICY } from "../../src/consensus/policy.js";
import { addressScript } from "../../src/wallet/address.js";
import { encodeMark, markScript } from "../../src/wallet/op-return.js";
import {
  type CheckedPayment,
  type CheckFacts,
  type CheckReason,
  checkPayment,
  isCheckedPayment,
  isSighash,
  type Sighash,
} from "../../src/wallet/payment-check.js";
import {
  claimedProposalDigest,
  decodeProposedTransaction,
  sighashBytes,
} from "../../src/wallet/proposed-transaction.js";
import { BIP341_SPENDING } from "./bip341-vectors.js";
import { NOW_MS, OUTSIDE, OUTSIDE_TAPROOT, samplePayment, verifiedRequest, viewOf } from "./sample-payment.js";
import { sampleAccount, sampleCoins } from "./sample-wallet.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function approved(facts: CheckFacts): CheckedPayment {
  const verdict = checkPayment(facts);
  assert.ok(verdict.approved, verdict.approved ? "" : verdict.reasons.join());
  return verdict.payment;
}

function refuses(facts: CheckFacts, ...expected: CheckReason[]): void {
  const verdict = checkPayment(facts);
  assert.deepEqual(verdict.approved ? [] : [...verdict.reasons].sort(), [...expected].sort());
}

/** The PSBT with its transaction and maps rebuilt after a change, as a hostile coordinator would. */
function tampered(psbt: Uint8Array, change: (parts: TamperedParts) => void): Uint8Array {
  const original = Psbt.fromBuffer(psbt);
  const transaction = Transaction.fromBuffer(original.data.getTransaction());
  const parts: TamperedParts = {
    version: transaction.version,
    locktime: transaction.locktime,
    inputs: transaction.ins.map(({ hash, index, sequence }, place) => ({
      ...original.data.inputs[place],
      hash,
      index,
      sequence,
    })),
    outputs: transaction.outs.map(({ script, value }, place) => ({
      ...original.data.outputs[place],
      script,
      value,
    })),
  };
  change(parts);
  const result = new Psbt();
  result.setVersion(parts.version).setLocktime(parts.locktime);
  for (const input of parts.inputs) result.addInput(input);
  for (const output of parts.outputs) result.addOutput(output);
  return result.toBuffer();
}

type InputFields = Parameters<Psbt["addInput"]>[0];
interface TamperedParts {
  version: number;
  locktime: number;
  inputs: InputFields[];
  outputs: Extract<Parameters<Psbt["addOutput"]>[0], { script: Uint8Array }>[];
}

const recipientScript = addressScript(OUTSIDE, "regtest");

function outputOf(parts: TamperedParts, recipient: boolean) {
  const found = parts.outputs.find(
    ({ script }) => (hex(script) === hex(recipientScript ?? new Uint8Array())) === recipient,
  );
  assert.ok(found);
  return found;
}

describe("a node's own check", () => {
  it("approves what the client signed and counts amount, fee and change itself", () => {
    for (const scheme of ["frost", "cggmp24"] as const) {
      const { facts, built } = samplePayment({ account: sampleAccount(scheme) });
      const payment = approved(facts);
      assert.equal(payment.txid, built.txid);
      assert.equal(payment.feeSat, built.feeSat);
      assert.equal(payment.amountSat, 150_000n);
      assert.equal(payment.changeIndex, built.changeSat > 0n ? 3 : -1);
      assert.equal(payment.sighashes.length, built.inputs.length);
      assert.ok(payment.sighashes.every(isSighash) && isCheckedPayment(payment));
    }
  });

  it("computes the sighashes that scure-btc-signer computes", () => {
    for (const scheme of ["frost", "cggmp24"] as const) {
      const account = sampleAccount(scheme);
      const { facts } = samplePayment({ account });
      const payment = approved(facts);
      const proposed = decodeProposedTransaction(facts.psbt);
      assert.ok(proposed);
      const second = SecondTransaction.fromRaw(payment.unsignedTransaction, { allowUnknownOutputs: true });
      const scripts = proposed.inputs.map(({ claimedScript }) => claimedScript);
      const amounts = proposed.inputs.map(({ claimedValueSat }) => claimedValueSat);
      for (const [index, sighash] of payment.sighashes.entries()) {
        const script = scripts[index] ?? new Uint8Array();
        const code = Uint8Array.from([0x76, 0xa9, 0x14, ...script.slice(2), 0x88, 0xac]);
        const expected =
          scheme === "frost"
            ? second.preimageWitnessV1(index, scripts, SigHash.DEFAULT, amounts)
            : second.preimageWitnessV0(index, code, SigHash.ALL, amounts[index] ?? 0n);
        assert.equal(hex(sighash.bytes), hex(expected));
      }
    }
  });

  it("BIP341 wallet test vector: the digest under SIGHASH_DEFAULT", () => {
    const transaction = Transaction.fromHex(BIP341_SPENDING.rawUnsignedTx);
    const spent = BIP341_SPENDING.utxosSpent.map(([script, valueSat]) => ({
      script: new Uint8Array(Buffer.from(script, "hex")),
      valueSat,
    }));
    const digest = sighashBytes(transaction, spent)[BIP341_SPENDING.defaultInput];
    assert.equal(hex(digest ?? new Uint8Array()), BIP341_SPENDING.sigHash);
  });

  it("gives approver and coordinator the same proposal digest", () => {
    const { facts } = samplePayment();
    const proposed = decodeProposedTransaction(facts.psbt);
    assert.ok(proposed);
    const claimed = claimedProposalDigest(proposed, {
      walletId: "wallet-1",
      requestDigest: facts.request.digest,
      policyVersion: facts.policy.version,
      expiresAtMs: facts.expiresAtMs,
    });
    assert.equal(hex(claimed), hex(approved(facts).proposalDigest));
  });

  it("another recipient, amount, change, fee or expiry is another digest", () => {
    const base = samplePayment();
    const others = [
      samplePayment({ request: { recipients: [{ address: OUTSIDE_TAPROOT, amountSat: 150_000n }] } }),
      samplePayment({ request: { recipients: [{ address: OUTSIDE, amountSat: 150_001n }] } }),
      samplePayment({ feeRateSatPerKvb: 2_100n }),
      { facts: { ...base.facts, expiresAtMs: base.facts.expiresAtMs + 1n } },
      { facts: { ...base.facts, policy: { ...DEFAULT_POLICY, version: 2n } } },
    ];
    const digests = [base, ...others].map(({ facts }) => hex(approved(facts).proposalDigest));
    assert.equal(new Set(digests).size, digests.length);
  });

  it("a bare digest, a cast or a copy is no Sighash", () => {
    const [real] = approved(samplePayment().facts).sighashes;
    assert.ok(real);
    const forged = { bytes: real.bytes, inputIndex: 0, key: real.key } as unknown as Sighash;
    const borrowed = Object.create(Object.getPrototypeOf(real) as object) as Sighash;
    for (const value of [real.bytes, forged, borrowed, { ...real }, null, undefined]) assert.ok(!isSighash(value));
    const Constructor = Object.getPrototypeOf(real).constructor as new (...args: unknown[]) => Sighash;
    assert.throws(() => new Constructor(Symbol("payment-check"), real), { kind: "bug" });
    assert.ok(!isCheckedPayment({ sighashes: [real] }));
    real.bytes.fill(0);
    assert.notEqual(hex(real.bytes), "00".repeat(32));
  });

  describe("refuses what a hostile coordinator may try", () => {
    const base = samplePayment();
    const change = (edit: (parts: TamperedParts) => void): CheckFacts => ({
      ...base.facts,
      psbt: tampered(base.facts.psbt, edit),
    });

    it("another recipient", () => {
      const facts = change((parts) => {
        outputOf(parts, true).script = addressScript(OUTSIDE_TAPROOT, "regtest") ?? new Uint8Array();
      });
      refuses(facts, "recipient-missing", "output-unexpected");
    });

    it("a smaller amount", () => {
      const facts = change((parts) => {
        outputOf(parts, true).value -= 1n;
      });
      refuses(facts, "recipient-missing", "output-unexpected");
    });

    it("change to somebody else, with the wallet's derivation claimed for it", () => {
      const facts = change((parts) => {
        const output = outputOf(parts, false);
        delete output.tapInternalKey;
        output.script = addressScript(OUTSIDE_TAPROOT, "regtest") ?? new Uint8Array();
      });
      refuses(facts, "change-not-own");
    });

    it("change on the receiving branch", () => {
      const facts = change((parts) => {
        const output = outputOf(parts, false);
        delete output.tapInternalKey;
        output.script = base.account.derive({ change: false, index: 3 }).scriptPubKey;
        output.tapBip32Derivation = output.tapBip32Derivation?.map((one) => ({ ...one, path: "m/0/3" })) ?? [];
      });
      refuses(facts, "change-not-own");
    });

    it("change at an index that no scan would find", () => {
      refuses({ ...base.facts, changeIndexMax: 2 }, "change-index-beyond-gap");
    });

    it("a second change output", () => {
      const facts = change((parts) => {
        const output = outputOf(parts, false);
        output.value -= 10_000n;
        parts.outputs.push({ ...output, value: 10_000n });
      });
      refuses(facts, "change-repeated");
    });

    it("an additional output", () => {
      const facts = change((parts) => {
        outputOf(parts, false).value -= 5_000n;
        parts.outputs.push({ script: addressScript(OUTSIDE_TAPROOT, "regtest") ?? new Uint8Array(), value: 5_000n });
      });
      refuses(facts, "output-unexpected");
    });

    it("change turned into fee", () => {
      const facts = change((parts) => {
        outputOf(parts, false).value = 1_000n;
      });
      refuses(facts, "fee-rate-above-request", "fee-share-too-high");
    });

    it("a payment that takes more than it spends", () => {
      const facts = change((parts) => {
        outputOf(parts, false).value += 1_000_000n;
      });
      refuses(facts, "fee-negative");
    });

    it("a lie about an input's amount", () => {
      const facts = change((parts) => {
        const [input] = parts.inputs;
        assert.ok(input?.witnessUtxo);
        input.witnessUtxo = { ...input.witnessUtxo, value: input.witnessUtxo.value + 1n };
      });
      refuses(facts, "input-amount-differs");
    });

    it("an input that the node's own chain view does not have", () => {
      refuses({ ...base.facts, view: viewOf(base.account, []) }, "input-spent-or-unknown");
    });

    it("an input whose script in the node's own view is another", () => {
      const other = sampleAccount("cggmp24");
      refuses({ ...base.facts, view: viewOf(other, base.coins) }, "input-not-own");
    });

    it("an input that claims another script, another root or no place at all", () => {
      const script = change((parts) => {
        const [input] = parts.inputs;
        assert.ok(input?.witnessUtxo);
        input.witnessUtxo = { ...input.witnessUtxo, script: recipientScript ?? new Uint8Array() };
      });
      const verdict = checkPayment(script);
      assert.ok(!verdict.approved && verdict.reasons.some((reason) => /input-script-differs|psbt/.test(reason)));
      const root = change((parts) => {
        const [input] = parts.inputs;
        const [claim] = input?.tapBip32Derivation ?? [];
        assert.ok(input && claim);
        input.tapBip32Derivation = [{ ...claim, masterFingerprint: Uint8Array.of(1, 2, 3, 4) }];
      });
      refuses(root, "input-not-own");
      const nowhere = change((parts) => {
        const [input] = parts.inputs;
        assert.ok(input);
        delete input.tapBip32Derivation;
      });
      refuses(nowhere, "input-derivation-missing");
      const deep = change((parts) => {
        const [input] = parts.inputs;
        const [claim] = input?.tapBip32Derivation ?? [];
        assert.ok(input && claim);
        input.tapBip32Derivation = [{ ...claim, path: "m/0/0/0" }];
      });
      refuses(deep, "input-derivation-missing");
    });

    it("another sighash type, a signature or a script in the PSBT", () => {
      for (const sighashType of [
        Transaction.SIGHASH_NONE,
        Transaction.SIGHASH_ALL | 0x80,
        Transaction.SIGHASH_SINGLE,
      ]) {
        const facts = change((parts) => {
          const [input] = parts.inputs;
          assert.ok(input);
          input.sighashType = sighashType;
        });
        refuses(facts, "psbt-malformed");
      }
      const signed = Psbt.fromBuffer(base.facts.psbt);
      signed.updateInput(0, { tapKeySig: new Uint8Array(64).fill(1) });
      refuses({ ...base.facts, psbt: signed.toBuffer() }, "psbt-malformed");
    });

    it("another version, a locktime far ahead or a time, a final sequence", () => {
      refuses(
        change((parts) => {
          parts.version = 1;
        }),
        "version-unexpected",
      );
      for (const locktime of [202, 499_999_999, 500_000_000, 0xffffffff]) {
        refuses(
          change((parts) => {
            parts.locktime = locktime;
          }),
          "locktime-unexpected",
        );
      }
      refuses(
        change((parts) => {
          for (const input of parts.inputs) input.sequence = 0xffffffff;
        }),
        "sequence-unexpected",
      );
      approved(
        change((parts) => {
          parts.locktime = 201;
        }),
      );
    });

    it("another wallet's request", () => {
      const request = verifiedRequest({ walletId: "wallet-2" });
      refuses({ ...base.facts, request }, "wallet-differs");
    });

    it("unconfirmed inputs, when the policy wants confirmations", () => {
      const coins = sampleCoins([100_000n, 120_000n, 90_000n], 0);
      refuses(samplePayment({ coins }).facts, "input-unconfirmed");
      const policy = { ...DEFAULT_POLICY, minConfirmations: 0 };
      approved(samplePayment({ coins, policy }).facts);
    });

    it("reports every reason at once", () => {
      const facts = change((parts) => {
        parts.version = 1;
        parts.locktime = 500;
        outputOf(parts, true).value -= 1n;
      });
      refuses(facts, "version-unexpected", "locktime-unexpected", "recipient-missing", "output-unexpected");
    });
  });

  describe("OP_RETURN", () => {
    const metadataJson = '{"invoice":"2026-117"}';
    const withMark = samplePayment({ request: { metadataJson } });
    const remark = (script: Uint8Array, value = 0n): CheckFacts => ({
      ...withMark.facts,
      psbt: tampered(withMark.facts.psbt, (parts) => {
        const mark = parts.outputs.find((output) => output.script[0] === 0x6a);
        assert.ok(mark);
        mark.script = script;
        mark.value = value;
      }),
    });

    it("names the request, its creation and its metadata", () => {
      approved(withMark.facts);
      const other = { requestId: withMark.request.requestId, createdAtMs: withMark.request.createdAtMs, metadataJson };
      approved(remark(markScript(encodeMark(other))));
      for (const wrong of [
        { ...other, requestId: "0b1e8d0a-6f0d-4f6e-9d1c-3b5d2a1c4e70" },
        { ...other, createdAtMs: NOW_MS },
        { ...other, metadataJson: '{"invoice":"2026-118"}' },
        { ...other, metadataJson: JSON.stringify({ long: "x7".repeat(300).split("").reverse().join(",") }) },
      ]) {
        refuses(remark(markScript(encodeMark(wrong))), "op-return-of-other-request");
      }
    });

    it("refuses another form, money in it, two of them, one too many and one missing", () => {
      refuses(remark(Uint8Array.of(0x6a, 4, 1, 2, 3, 4)), "op-return-malformed");
      const mark = markScript(encodeMark(withMark.request));
      refuses(remark(mark, 1n), "op-return-carries-money");
      const twice = tampered(withMark.facts.psbt, (parts) => {
        parts.outputs.push({ script: mark, value: 0n });
      });
      const verdict = checkPayment({ ...withMark.facts, psbt: twice });
      assert.ok(!verdict.approved && verdict.reasons.includes("op-return-repeated"));
      refuses({ ...withMark.facts, policy: { ...DEFAULT_POLICY, opReturn: "never" } }, "op-return-forbidden");
      const bare = samplePayment();
      refuses({ ...bare.facts, policy: { ...DEFAULT_POLICY, opReturn: "always" } }, "op-return-missing");
    });
  });

  it("is total: random bytes and mutated PSBTs get a verdict", () => {
    const { facts } = samplePayment();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (psbt) => {
        refuses({ ...facts, psbt }, "psbt-malformed");
      }),
      { numRuns: 200 },
    );
    fc.assert(
      fc.property(fc.nat({ max: facts.psbt.length - 1 }), fc.integer({ min: 1, max: 255 }), (place, flip) => {
        const psbt = Uint8Array.from(facts.psbt);
        psbt[place] = (psbt[place] ?? 0) ^ flip;
        const verdict = checkPayment({ ...facts, psbt });
        // A change of what is not signed over (an unused PSBT field) may pass, and then it is the same payment.
        if (verdict.approved) {
          const raw = RawTx.decode(verdict.payment.unsignedTransaction);
          assert.ok(raw.outputs.some(({ amount }) => amount === 150_000n));
        }
      }),
      { numRuns: 400 },
    );
    refuses({ ...facts, psbt: new Uint8Array(10_000_000) }, "psbt-malformed");
  });
});
