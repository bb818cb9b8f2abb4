import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Transaction as SecondTransaction } from "@scure/btc-signer";
import { Psbt } from "bitcoinjs-lib";
import fc from "fast-check";
import { requireAddressScript, scriptAddress, scriptType } from "../../src/wallet/address.js";
import { encodeMark } from "../../src/wallet/op-return.js";
import { decodeProposedTransaction, PARTS_MAX } from "../../src/wallet/proposed-transaction.js";
import { buildTransaction, type TransactionOrder } from "../../src/wallet/transaction-builder.js";
import { OUTSIDE, OUTSIDE_TAPROOT, verifiedRequest } from "./sample-payment.js";
import { sampleAccount, sampleCoins, seededRandom } from "./sample-wallet.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const ORDER: TransactionOrder = {
  account: sampleAccount(),
  recipients: [{ address: OUTSIDE, amountSat: 150_000n }],
  mark: undefined,
  coins: sampleCoins([100_000n, 120_000n, 90_000n]),
  feeRateSatPerKvb: 2_000n,
  longTermFeeRateSatPerKvb: 10_000n,
  maxInputs: 50,
  changeIndex: 4,
  tipHeight: 200,
};
const build = (changes: Partial<TransactionOrder> = {}, seed = "x") =>
  buildTransaction({ ...ORDER, ...changes }, seededRandom(seed));

describe("transaction builder", () => {
  it("makes a PSBT that a second library reads, with derivations for inputs and change", () => {
    for (const scheme of ["frost", "cggmp24"] as const) {
      const account = sampleAccount(scheme);
      const built = build({ account });
      const read = SecondTransaction.fromPSBT(built.psbt);
      assert.equal(read.inputsLength, built.inputs.length);
      assert.equal(read.fee, built.feeSat);
      const fingerprint = Buffer.from(account.fingerprint).readUInt32BE(0);
      for (let index = 0; index < read.inputsLength; index++) {
        const input = read.getInput(index);
        const coin = built.inputs[index];
        assert.ok(coin && input.witnessUtxo);
        assert.equal(input.witnessUtxo.amount, coin.valueSat);
        assert.equal(input.sequence, 0xfffffffd);
        const key = account.derive(coin.path);
        const path = [0, coin.path.index];
        if (scheme === "frost") {
          assert.equal(
            hex(input.tapInternalKey ?? new Uint8Array()),
            hex(key.taproot?.internalKey ?? new Uint8Array()),
          );
          assert.deepEqual(input.tapBip32Derivation?.[0]?.[1].der, { fingerprint, path });
        } else {
          assert.deepEqual(input.bip32Derivation?.[0]?.[1], { fingerprint, path });
        }
      }
      const changeKey = account.derive({ change: true, index: 4 });
      const outputs = Array.from({ length: read.outputsLength }, (_, index) => read.getOutput(index));
      const change = outputs.find(({ script }) => hex(script ?? new Uint8Array()) === hex(changeKey.scriptPubKey));
      assert.equal(change?.amount, built.changeSat);
      const der = scheme === "frost" ? change?.tapBip32Derivation?.[0]?.[1].der : change?.bip32Derivation?.[0]?.[1];
      assert.deepEqual(der, { fingerprint, path: [1, 4] });
    }
  });

  it("is valid from the next block on, one time in ten up to a hundred blocks earlier", () => {
    const locktimes = Array.from(
      { length: 300 },
      (_, seed) => Psbt.fromBuffer(build({}, `lock ${seed}`).psbt).locktime,
    );
    const early = locktimes.filter((locktime) => locktime !== 200);
    assert.ok(early.length > 5 && early.length < 80, String(early.length));
    assert.ok(locktimes.every((locktime) => locktime <= 200 && locktime > 100));
    assert.equal(Psbt.fromBuffer(build({ tipHeight: 0 }).psbt).locktime, 0);
  });

  it("puts inputs and outputs in random order, the same for the same seed", () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 40; seed++) {
      const proposed = decodeProposedTransaction(build({}, `order ${seed}`).psbt);
      assert.ok(proposed);
      orders.add(String(proposed.outputs.findIndex(({ valueSat }) => valueSat === 150_000n)));
    }
    assert.equal(orders.size, 2);
    assert.deepEqual(build({}, "same"), build({}, "same"));
  });

  it("carries the mark in an output without money", () => {
    const mark = encodeMark(verifiedRequest({ metadataJson: '{"n":1}' }));
    const proposed = decodeProposedTransaction(build({ mark }).psbt);
    const output = proposed?.outputs.find(({ script }) => script[0] === 0x6a);
    assert.equal(output?.valueSat, 0n);
  });

  it("gives change that would be dust to the fee", () => {
    const built = build({ coins: sampleCoins([150_500n]) });
    assert.equal(built.changeSat, 0n);
    assert.equal(built.feeSat, 500n);
  });

  it("refuses what cannot be paid, each with its own code", () => {
    const pay = (amountSat: bigint, address = OUTSIDE) => ({ recipients: [{ address, amountSat }] });
    const mainnet = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";
    const cases: [string, Partial<TransactionOrder>][] = [
      ["recipients-missing", { recipients: [] }],
      ["amount-zero", pay(0n)],
      ["amount-negative", pay(-1n)],
      ["amount-below-dust", pay(293n)],
      ["amount-below-dust", pay(329n, OUTSIDE_TAPROOT)],
      ["insufficient-funds", pay(310_000n)],
      ["insufficient-funds", { coins: [] }],
      ["too-many-inputs-needed", { ...pay(300_000n), maxInputs: 2 }],
      ["address-other-network", pay(10_000n, mainnet)],
      ["address-other-network", pay(10_000n, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx")],
      ["address-invalid", pay(10_000n, "")],
      ["address-invalid", pay(10_000n, `${OUTSIDE}x`)],
      ["address-invalid", pay(10_000n, OUTSIDE.toUpperCase().toLowerCase().replace("1", "l"))],
      ["address-invalid", pay(10_000n, "bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs")],
    ];
    for (const [code, changes] of cases) assert.throws(() => build(changes), { code, kind: "invalid-input" });
    build(pay(294n));
    build(pay(330n, OUTSIDE_TAPROOT));
  });

  it("money is conserved whatever is paid", () => {
    fc.assert(
      fc.property(
        fc.array(fc.bigInt({ min: 1_000n, max: 500_000n }), { minLength: 1, maxLength: 20 }),
        fc.array(fc.bigInt({ min: 546n, max: 60_000n }), { minLength: 1, maxLength: 5 }),
        fc.bigInt({ min: 1_000n, max: 60_000n }),
        fc.string(),
        (values, amounts, feeRateSatPerKvb, seed) => {
          const recipients = amounts.map((amountSat) => ({ address: OUTSIDE, amountSat }));
          let built: ReturnType<typeof build>;
          try {
            built = build({ coins: sampleCoins(values), recipients, feeRateSatPerKvb }, seed);
          } catch (error) {
            assert.equal((error as { code?: string }).code, "insufficient-funds");
            return;
          }
          const proposed = decodeProposedTransaction(built.psbt);
          assert.ok(proposed);
          const inSat = proposed.inputs.reduce((sum, { claimedValueSat }) => sum + claimedValueSat, 0n);
          const outSat = proposed.outputs.reduce((sum, { valueSat }) => sum + valueSat, 0n);
          assert.equal(inSat - outSat, built.feeSat);
          assert.ok(built.feeSat * 1_000n >= feeRateSatPerKvb * BigInt(built.virtualSizeVb));
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("proposed transaction", () => {
  it("is read up to 252 inputs and not beyond", () => {
    const many = (count: number) => sampleCoins(Array.from({ length: count }, () => 1_000n));
    const order = { ...ORDER, feeRateSatPerKvb: 1_000n, maxInputs: 400 };
    const pay = (count: number) => ({
      recipients: [{ address: OUTSIDE, amountSat: (BigInt(count) * 9_425n) / 10n - 500n }],
    });
    const most = build({ ...order, ...pay(PARTS_MAX), coins: many(PARTS_MAX) });
    assert.equal(decodeProposedTransaction(most.psbt)?.inputs.length, PARTS_MAX);
    const over = build({ ...order, ...pay(PARTS_MAX + 1), coins: many(PARTS_MAX + 1) });
    assert.equal(decodeProposedTransaction(over.psbt), undefined);
  });
});

describe("address", () => {
  it("knows the five types and their scripts", () => {
    const vectors: [string, string, string][] = [
      ["p2pkh", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac"],
      ["p2sh", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "a9144e9f39ca4688ff102128ea4ccda34105324305b087"],
      ["p2wpkh", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "0014751e76e8199196d454941c45d1b3a323f1433bd6"],
      [
        "p2wsh",
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
      ],
      [
        "p2tr",
        "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
        "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
      ],
    ];
    for (const [type, address, script] of vectors) {
      const decoded = requireAddressScript(address, "testnet");
      assert.equal(hex(decoded), script);
      assert.equal(scriptType(decoded), type);
      assert.equal(scriptAddress(decoded, "testnet"), address);
    }
    assert.equal(scriptType(new Uint8Array(0)), undefined);
    assert.equal(scriptAddress(Uint8Array.of(0x6a), "testnet"), undefined);
  });
});
