import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import { script as scripts, Transaction } from "bitcoinjs-lib";
import { InvalidInput } from "../../../src/crypto/fault.js";
import { GENESIS_HASH } from "../../../src/devnet/chain/block.js";
import { Chain, refusalText } from "../../../src/devnet/chain/chain.js";
import type { Coin } from "../../../src/devnet/chain/coins.js";
import { Faucet } from "../../../src/devnet/chain/faucet.js";
import { FileJournal } from "../../../src/devnet/chain/journal.js";
import { scriptFailure } from "../../../src/devnet/chain/script-check.js";
import { systemClock } from "../../../src/node/ambient.js";
import { coinOf, freshChain, fund, KeyWallet, scureSpend, scureWallets, secretKey, taprootScript } from "./spends.js";

const NO_LIMIT = { maxFeeRateSatPerKvb: 0n };
const elsewhere = new KeyWallet("elsewhere").scriptPubKey;

/** Reject reason as sendrawtransaction prints it; "" when the transaction is taken. */
function reasonOf(chain: Chain, transaction: Transaction | Uint8Array): string {
  const raw = transaction instanceof Transaction ? transaction.toBuffer() : transaction;
  const verdict = chain.judge(raw, NO_LIMIT);
  return verdict.accepted ? "" : refusalText(verdict);
}

const opReturn = (dataBytes: number): Uint8Array => scripts.compile([0x6a, new Uint8Array(dataBytes).fill(0x4d)]);

describe("devnet chain: spends that other libraries sign", () => {
  const devnet = freshChain();
  const { chain, faucet } = devnet;

  for (const wallet of scureWallets("spend")) {
    it(`${wallet.name}: faucet, spend and confirmation; every flipped witness byte is refused`, () => {
      const coin = fund(devnet, wallet.scriptPubKey, 100_000n);
      const raw = scureSpend(wallet, [coin], [{ script: elsewhere, amountSat: 98_000n }]);
      assert.equal(reasonOf(chain, raw), "");
      const signed = Transaction.fromBuffer(raw);
      const witness = signed.ins[0]?.witness ?? [];
      assert.ok(witness.length > 0);
      for (const [item, bytes] of witness.entries()) {
        for (const offset of bytes.keys()) {
          const flipped = signed.clone();
          const changed = Uint8Array.from(bytes);
          changed[offset] = (changed[offset] ?? 0) ^ (1 << (offset % 8));
          const items = witness.map((other, index) => (index === item ? changed : other));
          flipped.setWitness(0, items);
          assert.notEqual(reasonOf(chain, flipped), "", `item ${item}, byte ${offset}`);
        }
      }
      const verdict = chain.accept(raw, NO_LIMIT);
      assert.ok(verdict.accepted);
      assert.equal(chain.blockOf(verdict.entry.txid), undefined);
      const [hash] = chain.mine(1, faucet.scriptPubKey);
      assert.equal(chain.blockOf(verdict.entry.txid)?.hash, hash);
      assert.equal(chain.tip.block.checkTxRoots(), true);
      assert.equal(chain.tip.block.checkProofOfWork(), true);
    });
  }

  for (const kind of ["p2wpkh", "p2pkh"] as const) {
    it(`${kind} signed over bitcoinjs-lib's signature hash is accepted; a changed output is not`, () => {
      const wallet = new KeyWallet(`bitcoinjs ${kind}`, kind);
      const coin = fund(devnet, wallet.scriptPubKey, 50_000n);
      const spend = wallet.spend([coin], [{ script: elsewhere, amountSat: 49_000n }]);
      assert.equal(reasonOf(chain, spend), "");
      const changed = spend.clone();
      changed.outs[0] = { script: elsewhere, value: 48_999n };
      assert.match(reasonOf(chain, changed), /^mandatory-script-verify-flag-failed \(Signature must be zero/);
      const withoutWitness = spend.clone();
      withoutWitness.setWitness(0, []);
      withoutWitness.setInputScript(0, new Uint8Array());
      assert.match(reasonOf(chain, withoutWitness), /mandatory-script-verify|nonstandard-inputs/);
    });
  }

  it("a P2PKH spend with a spare push is not standard", () => {
    const wallet = new KeyWallet("spare push", "p2pkh");
    const coin = fund(devnet, wallet.scriptPubKey, 50_000n);
    const spend = wallet.spend([coin], [{ script: elsewhere, amountSat: 49_000n }]);
    spend.setInputScript(0, Uint8Array.from([0x51, ...(spend.ins[0]?.script ?? [])]));
    assert.equal(reasonOf(chain, spend), "bad-txns-nonstandard-inputs");
  });

  it("a high S and an undefined hash type are refused although the signature is right", () => {
    const wallet = new KeyWallet("high s");
    const coin = fund(devnet, wallet.scriptPubKey, 50_000n);
    const spend = wallet.spend([coin], [{ script: elsewhere, amountSat: 49_000n }]);
    const [signature = new Uint8Array(), key = new Uint8Array()] = spend.ins[0]?.witness ?? [];
    const { signature: compact } = scripts.signature.decode(signature);
    const { r, s } = secp256k1.Signature.fromBytes(compact);
    const high = new secp256k1.Signature(r, secp256k1.Point.Fn.ORDER - s);
    spend.setWitness(0, [Uint8Array.from([...high.toBytes("der"), 1]), key]);
    assert.match(reasonOf(chain, spend), /S value is unnecessarily high/);

    const scriptCode = Uint8Array.from([0x76, 0xa9, 0x14, ...wallet.scriptPubKey.slice(2), 0x88, 0xac]);
    const odd = spend.clone();
    const sighash = odd.hashForWitnessV0(0, scriptCode, coin.valueSat, 0x04);
    const signed = wallet.signHash(sighash);
    odd.setWitness(0, [Uint8Array.from([...signed, 0x04]), key]);
    assert.match(reasonOf(chain, odd), /hash type/);
  });

  it("320 Taproot keys, those with a leading zero byte among them, are all accepted", () => {
    let leadingZeros = 0;
    for (let index = 0; index < 320; index++) {
      const secret = new Uint8Array(32);
      // Keys 153 and 246 give an x that begins with a zero byte; Taproot's tweak is left out, so that x stays.
      new DataView(secret.buffer).setUint32(28, index + 1);
      const publicKey = schnorr.getPublicKey(secret);
      if (publicKey[0] === 0) leadingZeros++;
      const scriptPubKey = Uint8Array.from([0x51, 0x20, ...publicKey]);
      const spend = new Transaction();
      spend.version = 2;
      spend.addInput(new Uint8Array(32).fill(index % 251), index, 0xfffffffd);
      spend.addOutput(elsewhere, 1_000n);
      const sighash = spend.hashForWitnessV1(0, [scriptPubKey], [2_000n], Transaction.SIGHASH_DEFAULT);
      spend.setWitness(0, [schnorr.sign(sighash, secret)]);
      const failure = scriptFailure(spend.toBuffer(), [{ valueSat: 2_000n, scriptPubKey }]);
      assert.equal(failure, undefined, `key ${index + 1}`);
    }
    assert.equal(leadingZeros, 2);
  });

  it("script paths are accepted for internal keys with a leading zero byte", () => {
    for (const number of [153, 246]) {
      const secret = new Uint8Array(32);
      new DataView(secret.buffer).setUint32(28, number);
      const wallet = taprootScript("zero", [secretKey("leaf")], schnorr.getPublicKey(secret));
      const coin = fund(devnet, wallet.scriptPubKey, 10_000n);
      const raw = scureSpend(wallet, [coin], [{ script: elsewhere, amountSat: 9_000n }]);
      assert.equal(Transaction.fromBuffer(raw).ins[0]?.witness.length, 3);
      assert.equal(reasonOf(chain, raw), "");
    }
  });

  it("every hash type of random transactions with four inputs verifies as bitcoinjs-lib computes it", () => {
    const secret = new Uint8Array(32).fill(3);
    const scriptPubKey = Uint8Array.from([0x51, 0x20, ...schnorr.getPublicKey(secret)]);
    for (const hashType of [0x00, 0x01, 0x02, 0x03, 0x81, 0x82, 0x83]) {
      for (let round = 0; round < 4; round++) {
        const spend = new Transaction();
        spend.version = 1 + (round % 3);
        spend.locktime = round * 7;
        const values = [1_000n, 20_000n + BigInt(round), 300_000n, 2_100_000_000_000_000n];
        for (const index of values.keys())
          spend.addInput(new Uint8Array(32).fill(index + round), index * 9, 0xfffffff0 + index);
        for (let index = 0; index < 4 + round; index++) spend.addOutput(opReturn(index * 20), BigInt(index * 1_000));
        const spent = values.map((valueSat) => ({ valueSat, scriptPubKey }));
        const previous = values.map(() => scriptPubKey);
        for (const index of values.keys()) {
          const sighash = spend.hashForWitnessV1(index, previous, values, hashType);
          const signature = schnorr.sign(sighash, secret);
          spend.setWitness(index, [hashType === 0 ? signature : Uint8Array.from([...signature, hashType])]);
        }
        assert.equal(scriptFailure(spend.toBuffer(), spent), undefined, `hash type ${hashType}`);
        const annexed = spend.clone();
        annexed.setWitness(0, [...(annexed.ins[0]?.witness ?? []), Uint8Array.from([0x50, 1])]);
        assert.notEqual(scriptFailure(annexed.toBuffer(), spent), undefined);
      }
    }
  });
});

describe("devnet chain: rules", () => {
  const devnet = freshChain();
  const { chain, faucet } = devnet;
  const wallet = new KeyWallet("rules");
  const funded = (amountSat = 1_000_000n): Coin => fund(devnet, wallet.scriptPubKey, amountSat);
  const coin = funded();
  const pay = (amountSat: bigint, script = elsewhere) => ({ script, amountSat });

  const refusals: readonly (readonly [string, string, () => Transaction | Uint8Array])[] = [
    ["garbage", "TX decode failed. Make sure the tx has at least one input.", () => new Uint8Array([1, 2, 3])],
    ["no output", "bad-txns-vout-empty", () => wallet.spend([coin], [])],
    ["the same input twice", "bad-txns-inputs-duplicate", () => wallet.spend([coin, coin], [pay(1_500_000n)])],
    [
      "more than it spends",
      "bad-txns-in-belowout, value in < value out",
      () => wallet.spend([coin], [pay(1_000_001n)]),
    ],
    ["more money than exists", "bad-txns-vout-toolarge", () => wallet.spend([coin], [pay(2_100_000_000_000_001n)])],
    [
      "more money than exists in two outputs",
      "bad-txns-txouttotal-toolarge",
      () => wallet.spend([coin], [pay(2_100_000_000_000_000n), pay(1n)]),
    ],
    ["a negative output", "bad-txns-vout-negative", () => wallet.spend([coin], [pay(-1n)])],
    ["no fee", "min relay fee not met, 0 < 110", () => wallet.spend([coin], [pay(1_000_000n)])],
    ["one satoshi too little fee", "min relay fee not met, 109 < 110", () => wallet.spend([coin], [pay(999_891n)])],
    ["dust", "dust", () => wallet.spend([coin], [pay(900_000n), pay(293n)])],
    [
      "dust to P2TR",
      "dust",
      () => wallet.spend([coin], [pay(329n, Uint8Array.from([0x51, 0x20, ...Buffer.alloc(32, 7)]))]),
    ],
    [
      "an OP_RETURN script of 84 bytes",
      "scriptpubkey",
      () => wallet.spend([coin], [pay(900_000n), pay(0n, opReturn(81))]),
    ],
    [
      "an OP_RETURN with a broken push",
      "scriptpubkey",
      () => wallet.spend([coin], [pay(900_000n), pay(0n, Uint8Array.from([0x6a, 5, 1]))]),
    ],
    [
      "two OP_RETURN outputs",
      "multi-op-return",
      () => wallet.spend([coin], [pay(900_000n), pay(0n, opReturn(8)), pay(0n, opReturn(8))]),
    ],
    [
      "bare multisig",
      "scriptpubkey",
      () => wallet.spend([coin], [pay(900_000n, Uint8Array.from([0x51, 0x21, 2, ...Buffer.alloc(32, 7), 0x51, 0xae]))]),
    ],
    ["version 4", "version", () => wallet.spend([coin], [pay(900_000n)], { version: 4 })],
    ["version 0", "version", () => wallet.spend([coin], [pay(900_000n)], { version: 0 })],
    [
      "a lock time in the future",
      "non-final",
      () => wallet.spend([coin], [pay(900_000n)], { locktime: chain.tip.height + 1 }),
    ],
    [
      "a lock time in seconds in the future",
      "non-final",
      () => wallet.spend([coin], [pay(900_000n)], { locktime: 4_000_000_000 }),
    ],
    [
      "a relative lock of 100 blocks",
      "non-BIP68-final",
      () => wallet.spend([coin], [pay(900_000n)], { sequence: 100 }),
    ],
    [
      "a relative lock of 512 seconds",
      "non-BIP68-final",
      () => wallet.spend([coin], [pay(900_000n)], { sequence: 0x400001 }),
    ],
    [
      "an output that never was",
      "bad-txns-inputs-missingorspent",
      () => wallet.spend([{ ...coin, vout: 77 }], [pay(900_000n)]),
    ],
    [
      "more than 400,000 weight units",
      "tx-size",
      () =>
        wallet.spend(
          [coin],
          Array.from({ length: 3_300 }, () => pay(300n)),
        ),
    ],
  ];
  for (const [what, reason, build] of refusals) {
    it(`${what} is refused: ${reason}`, () => assert.equal(reasonOf(chain, build()), reason));
  }

  it("limits themselves are allowed: least fee, dust threshold, 83 bytes of OP_RETURN script, versions 1 to 3, lock times of now", () => {
    const builds = [
      wallet.spend([coin], [pay(999_890n)]),
      wallet.spend([coin], [pay(900_000n), pay(294n)]),
      wallet.spend([coin], [pay(900_000n), pay(0n, opReturn(80))]),
      ...[1, 2, 3].map((version) => wallet.spend([coin], [pay(900_000n)], { version })),
      wallet.spend([coin], [pay(900_000n)], { locktime: chain.tip.height }),
      wallet.spend([coin], [pay(900_000n)], { locktime: chain.tip.medianTimeS - 1 }),
      wallet.spend([coin], [pay(900_000n)], { locktime: 4_000_000_000, sequence: 0xffffffff }),
      wallet.spend([coin], [pay(900_000n)], { sequence: chain.tip.height + 1 - coin.confirmedHeight }),
      wallet.spend([coin], [pay(900_000n)], { version: 1, sequence: 100 }),
    ];
    for (const [index, build] of builds.entries()) assert.equal(reasonOf(chain, build), "", `build ${index}`);
  });

  it("a coinbase is spent at depth 100 and not before", () => {
    const owner = new KeyWallet("miner");
    chain.mine(1, owner.scriptPubKey);
    const txid = chain.tip.transactions[0]?.txid ?? "";
    const coinbase = coinOf(chain, txid, owner.scriptPubKey);
    const spend = owner.spend([coinbase], [pay(coinbase.valueSat - 1_000n)]);
    assert.match(reasonOf(chain, spend), /^bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 1$/);
    chain.mine(98, faucet.scriptPubKey);
    assert.match(reasonOf(chain, spend), /depth 99$/);
    chain.mine(1, faucet.scriptPubKey);
    assert.equal(reasonOf(chain, spend), "");
  });

  it("a double spend is refused, in the mempool without more fee and in the chain always", () => {
    const own = funded();
    const first = wallet.spend([own], [pay(990_000n)]);
    assert.ok(chain.accept(first.toBuffer(), NO_LIMIT).accepted);
    assert.equal(reasonOf(chain, first), "txn-already-in-mempool");
    assert.match(reasonOf(chain, wallet.spend([own], [pay(989_999n)])), /^insufficient fee/);
    assert.match(reasonOf(chain, wallet.spend([own], [pay(990_001n)])), /^insufficient fee/);
    chain.mine(1, faucet.scriptPubKey);
    assert.equal(reasonOf(chain, first), "txn-already-known");
    assert.equal(reasonOf(chain, wallet.spend([own], [pay(900_000n)])), "bad-txns-inputs-missingorspent");
  });

  it("a replacement that pays more evicts what it replaces and all that follows it", () => {
    const own = funded();
    const first = wallet.spend([own], [pay(990_000n, wallet.scriptPubKey)]);
    const parent = chain.accept(first.toBuffer(), NO_LIMIT);
    assert.ok(parent.accepted);
    const child = wallet.spend([coinOf(chain, parent.entry.txid, wallet.scriptPubKey)], [pay(980_000n)]);
    assert.ok(chain.accept(child.toBuffer(), NO_LIMIT).accepted);
    assert.match(reasonOf(chain, wallet.spend([own], [pay(985_000n)])), /not enough additional fees/);
    const better = chain.accept(wallet.spend([own], [pay(970_000n)]).toBuffer(), NO_LIMIT);
    assert.ok(better.accepted);
    assert.deepEqual(
      [...chain.mempool.entries()].map(({ txid }) => txid),
      [better.entry.txid],
    );
    chain.mine(1, faucet.scriptPubKey);
  });

  it("25 unconfirmed transactions in a row are allowed, the 26th is not", () => {
    let last = funded();
    for (let count = 1; count <= 25; count++) {
      const spend = wallet.spend([last], [pay(last.valueSat - 200n, wallet.scriptPubKey)]);
      const verdict = chain.accept(spend.toBuffer(), NO_LIMIT);
      assert.ok(verdict.accepted, `transaction ${count}`);
      last = coinOf(chain, verdict.entry.txid, wallet.scriptPubKey);
    }
    const tooLong = wallet.spend([last], [pay(last.valueSat - 200n, wallet.scriptPubKey)]);
    assert.match(reasonOf(chain, tooLong), /^too-long-mempool-chain/);
    chain.mine(1, faucet.scriptPubKey);
    assert.equal(chain.mempool.size, 0);
    assert.equal(reasonOf(chain, tooLong), "");
  });

  it("a waiting transaction has at most 24 descendants, and a replacement evicts at most 100 transactions", () => {
    const parents = Array.from({ length: 5 }, () => funded());
    for (const [number, parent] of parents.entries()) {
      const payouts = Array.from({ length: 25 }, () => pay(10_000n, wallet.scriptPubKey));
      const fan = chain.accept(wallet.spend([parent], payouts).toBuffer(), NO_LIMIT);
      assert.ok(fan.accepted);
      const children = fan.entry.transaction.outs.map(({ value }, vout) => {
        const coin = { ...parent, txid: fan.entry.txid, vout, valueSat: value };
        return wallet.spend([coin], [pay(9_000n)]);
      });
      // 20, 20, 20, 20 and 24 children: 4 * 21 + 25 = 109 transactions
      for (const child of children.slice(0, number < 4 ? 20 : 24))
        assert.ok(chain.accept(child.toBuffer(), NO_LIMIT).accepted);
      const last = children[24];
      assert.ok(last);
      const verdict = reasonOf(chain, last);
      if (number < 4) assert.equal(verdict, "");
      else assert.match(verdict, /^too-long-mempool-chain, too many descendants/);
    }
    assert.equal(reasonOf(chain, wallet.spend(parents, [pay(1_000n)])), "too many potential replacements");
    assert.equal(reasonOf(chain, wallet.spend(parents.slice(0, 4), [pay(1_000n)])), "");
    chain.mine(1, faucet.scriptPubKey);
  });

  it("a full mempool takes nothing until a block is mined", () => {
    const small = freshChain(20, 2);
    const pays = [1, 2, 3].map((number) => () => small.faucet.pay(elsewhere, BigInt(number) * 10_000n));
    pays[0]?.();
    pays[1]?.();
    assert.throws(() => pays[2]?.(), /mempool full/);
    small.chain.mine(1, small.faucet.scriptPubKey);
    pays[2]?.();
  });

  it("a fee rate above the caller's limit is refused", () => {
    const raw = wallet.spend([funded()], [pay(500_000n)]).toBuffer();
    const verdict = chain.judge(raw, { maxFeeRateSatPerKvb: 1_000_000n });
    assert.equal(verdict.accepted ? "" : verdict.reason, "max-fee-exceeded");
  });

  it("a flipped bit anywhere in a transaction never gives another accepted transaction, and never throws", () => {
    const raw = wallet.spend([funded()], [pay(990_000n)]).toBuffer();
    for (let bit = 0; bit < raw.length * 8; bit += 3) {
      const flipped = Uint8Array.from(raw);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.notEqual(reasonOf(chain, flipped), "", `bit ${bit}`);
    }
    for (let length = 0; length < raw.length; length++) assert.notEqual(reasonOf(chain, raw.subarray(0, length)), "");
  });
});

describe("devnet chain: blocks", () => {
  it("begins with regtest's genesis block and pays each height's subsidy", () => {
    const { chain, faucet } = freshChain(1);
    assert.equal(chain.ledger.byHeight(0)?.hash, GENESIS_HASH);
    chain.mine(60, faucet.scriptPubKey);
    assert.equal(chain.ledger.byHeight(149)?.transactions[0]?.transaction.outs[0]?.value, 5_000_000_000n);
    assert.equal(chain.ledger.byHeight(150)?.transactions[0]?.transaction.outs[0]?.value, 2_500_000_000n);
    assert.throws(() => chain.mine(1_001, faucet.scriptPubKey), InvalidInput);
    assert.throws(() => chain.mine(0, faucet.scriptPubKey), InvalidInput);
  });

  it("an invalidated tip gives its transactions back, and another block confirms them", () => {
    const devnet = freshChain();
    const { chain, faucet } = devnet;
    const wallet = new KeyWallet("reorg");
    const coin = fund(devnet, wallet.scriptPubKey, 100_000n);
    const spend = chain.accept(wallet.spend([coin], [{ script: elsewhere, amountSat: 90_000n }]).toBuffer(), NO_LIMIT);
    assert.ok(spend.accepted);
    const [confirmedIn] = chain.mine(1, faucet.scriptPubKey);
    assert.equal(chain.invalidateTip(), confirmedIn);
    assert.equal(chain.blockOf(spend.entry.txid), undefined);
    assert.notEqual(chain.mempool.get(spend.entry.txid), undefined);
    assert.equal(chain.coin(`${coin.txid}:${coin.vout}`, { withMempool: false })?.valueSat, 100_000n);
    assert.equal(chain.coin(`${coin.txid}:${coin.vout}`, { withMempool: true }), undefined);
    chain.invalidateTip();
    assert.equal(chain.mempool.size, 2);
    const [other] = chain.mine(1, faucet.scriptPubKey);
    assert.notEqual(other, confirmedIn);
    assert.equal(chain.blockOf(spend.entry.txid)?.hash, other);
    assert.equal(chain.mempool.size, 0);
  });

  it("is the same after a restart from its file, with mempool and reorganisation; a torn last line is cut off", () => {
    const folder = mkdtempSync(join(tmpdir(), "devnet-chain-"));
    try {
      const path = join(folder, "chain.jsonl");
      const open = () =>
        new Chain(
          { maxBlocksPerRequest: 1_000, maxMempoolTransactions: 10, feeRateSatPerKvb: 2_000 },
          { clock: { ...systemClock, nowMs: () => 1_800_000_000_000 }, journal: new FileJournal(path) },
        );
      const chain = open();
      const faucet = new Faucet(chain);
      chain.mine(110, faucet.scriptPubKey);
      faucet.pay(elsewhere, 50_000n);
      chain.mine(2, faucet.scriptPubKey);
      chain.invalidateTip();
      const waiting = faucet.pay(elsewhere, 60_000n);
      writeFileSync(path, '{"block":"00', { flag: "a" });
      const again = open();
      assert.equal(again.tip.hash, chain.tip.hash);
      assert.notEqual(again.mempool.get(waiting), undefined);
      again.mine(1, faucet.scriptPubKey);
      assert.equal(open().tip.hash, again.tip.hash);
      const lines = readFileSync(path, "utf8").split("\n");
      writeFileSync(path, [lines[0], "{}", ...lines.slice(1)].join("\n"));
      assert.throws(open, { code: "chain-file-damaged" });
      writeFileSync(path, lines.slice(1).join("\n"));
      assert.throws(open, { code: "bad-block" });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
