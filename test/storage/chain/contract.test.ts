import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ChainServer } from "../../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../../src/node/ambient.js";
import { DEFAULT_HTTP_BOUNDS } from "../../../src/storage/chain/bounded-http.js";
import { CheckedChainSource, DEFAULT_CHECKED_OPTIONS } from "../../../src/storage/chain/checked.js";
import { CoreRpcChainSource } from "../../../src/storage/chain/core-rpc.js";
import { EsploraChainSource } from "../../../src/storage/chain/esplora.js";
import type { ChainSource } from "../../../src/wallet/chain-source.js";
import { RPC, runningChain } from "../../devnet/chain/running-chain.js";
import { coinOf, KeyWallet, scureSpend, scureWallets } from "../../devnet/chain/spends.js";

const dependencies = { clock: systemClock, random: systemRandom };
const esplora = ({ esploraUrl }: ChainServer) => new EsploraChainSource({ url: esploraUrl }, dependencies);
const core = ({ rpcUrl }: ChainServer) => new CoreRpcChainSource({ url: rpcUrl, ...RPC }, dependencies);

const sources: Readonly<Record<string, (server: ChainServer) => ChainSource>> = {
  Esplora: esplora,
  "Bitcoin Core RPC": core,
  "Esplora checked by Core": (server) =>
    new CheckedChainSource(DEFAULT_CHECKED_OPTIONS, {
      clock: systemClock,
      primary: esplora(server),
      secondary: core(server),
    }),
  "Core in place of a dead Esplora": (server) =>
    new CheckedChainSource(DEFAULT_CHECKED_OPTIONS, {
      clock: systemClock,
      primary: new EsploraChainSource(
        {
          url: "http://127.0.0.1:9",
          bounds: { ...DEFAULT_HTTP_BOUNDS, attempts: 2, backoffMs: 1, maxAnswerBytes: 1_000 },
        },
        dependencies,
      ),
      secondary: core(server),
    }),
};

const elsewhere = new KeyWallet("elsewhere");
const UNKNOWN = "ab".repeat(32);

/** What every chain source does, on a chain that judges. */
for (const [name, open] of Object.entries(sources)) {
  describe(`chain source contract: ${name}`, () => {
    const server = runningChain();

    it("follows an output from the mempool through its block to its spend", async () => {
      const source = open(server());
      const { chain, faucet } = server();
      const wallet = new KeyWallet("contract");
      assert.deepEqual(await source.unspentOutputs(wallet.scriptPubKey), []);
      const txid = faucet.pay(wallet.scriptPubKey, 123_456n);
      const expected = { txid, vout: 0, valueSat: 123_456n, confirmedHeight: 0 };
      const simple = async () =>
        (await source.unspentOutputs(wallet.scriptPubKey)).map(({ scriptPubKey, ...rest }) => {
          assert.deepEqual(Buffer.from(scriptPubKey), Buffer.from(wallet.scriptPubKey));
          return rest;
        });
      assert.deepEqual(await simple(), [expected]);
      assert.deepEqual(await source.transactionStatus(txid), { known: true, confirmedHeight: 0, blockHash: "" });
      const [blockHash = ""] = chain.mine(1, faucet.scriptPubKey);
      const confirmedHeight = chain.tip.height;
      assert.equal(await source.tipHeight(), confirmedHeight);
      assert.deepEqual(await simple(), [{ ...expected, confirmedHeight }]);
      assert.deepEqual(await source.transactionStatus(txid), { known: true, confirmedHeight, blockHash });
      const [found, missing] = await source.findUnspent([
        { txid, vout: 0 },
        { txid, vout: 40 },
        { txid: UNKNOWN, vout: 0 },
      ]);
      assert.deepEqual(
        { ...found, scriptPubKey: Buffer.from(found?.scriptPubKey ?? []) },
        { valueSat: 123_456n, scriptPubKey: Buffer.from(wallet.scriptPubKey), confirmedHeight },
      );
      assert.equal(missing, undefined);

      const coin = coinOf(chain, txid, wallet.scriptPubKey);
      const spend = wallet.spend([coin], [{ script: elsewhere.scriptPubKey, amountSat: 123_000n }]);
      assert.equal(await source.broadcast(spend.toBuffer()), spend.getId());
      assert.deepEqual(await simple(), []);
      assert.deepEqual(await source.findUnspent([coin]), [undefined]);
      assert.deepEqual(await source.transaction(spend.getId()), new Uint8Array(spend.toBuffer()));
    });

    it("takes a transaction again, while it waits, when it is confirmed, and when its outputs are spent", async () => {
      const source = open(server());
      const { chain, faucet } = server();
      const wallet = new KeyWallet("again");
      const coin = coinOf(chain, faucet.pay(wallet.scriptPubKey, 50_000n), wallet.scriptPubKey);
      const spend = wallet.spend([coin], [{ script: wallet.scriptPubKey, amountSat: 49_000n }]);
      const txid = await source.broadcast(spend.toBuffer());
      assert.equal(await source.broadcast(spend.toBuffer()), txid);
      chain.mine(1, faucet.scriptPubKey);
      assert.equal(await source.broadcast(spend.toBuffer()), txid);
      const next = wallet.spend(
        [coinOf(chain, txid, wallet.scriptPubKey)],
        [{ script: elsewhere.scriptPubKey, amountSat: 48_000n }],
      );
      await source.broadcast(next.toBuffer());
      chain.mine(1, faucet.scriptPubKey);
      assert.equal(await source.broadcast(spend.toBuffer()), txid);
    });

    it("broadcasts P2WSH and Taproot spends that another library signed", async () => {
      const source = open(server());
      const { chain, faucet } = server();
      for (const wallet of scureWallets(`contract ${name}`)) {
        const coin = coinOf(chain, faucet.pay(wallet.scriptPubKey, 50_000n), wallet.scriptPubKey);
        await source.broadcast(scureSpend(wallet, [coin], [{ script: elsewhere.scriptPubKey, amountSat: 49_000n }]));
      }
    });

    it("names the reason of a refusal as InvalidInput", async () => {
      const source = open(server());
      const { chain, faucet } = server();
      const wallet = new KeyWallet("refused");
      const coin = coinOf(chain, faucet.pay(wallet.scriptPubKey, 50_000n), wallet.scriptPubKey);
      const free = wallet.spend([coin], [{ script: elsewhere.scriptPubKey, amountSat: 50_000n }]);
      await assert.rejects(source.broadcast(free.toBuffer()), (fault: unknown) => {
        const { kind, code, facts } = fault as { kind: string; code: string; facts: Record<string, unknown> };
        assert.deepEqual([kind, code], ["invalid-input", "transaction-refused"]);
        assert.deepEqual([facts["reason"], facts["rpcCode"]], ["min relay fee not met, 0 < 110", -26]);
        return true;
      });
      const missing = wallet.spend([{ ...coin, vout: 5 }], [{ script: elsewhere.scriptPubKey, amountSat: 49_000n }]);
      await assert.rejects(source.broadcast(missing.toBuffer()), { code: "transaction-refused" });
      await assert.rejects(source.broadcast(new Uint8Array(10)), { kind: "invalid-input", code: "bad-transaction" });
    });

    it("knows nothing of an unknown transaction", async () => {
      const source = open(server());
      assert.deepEqual(await source.transactionStatus(UNKNOWN), { known: false, confirmedHeight: 0, blockHash: "" });
      assert.equal(await source.transaction(UNKNOWN), undefined);
    });

    it("takes a confirmation back after a reorganisation", async () => {
      const source = open(server());
      const { chain, faucet } = server();
      const wallet = new KeyWallet("reorganised");
      const txid = faucet.pay(wallet.scriptPubKey, 30_000n);
      chain.mine(1, faucet.scriptPubKey);
      assert.notEqual((await source.transactionStatus(txid)).confirmedHeight, 0);
      chain.invalidateTip();
      assert.deepEqual(await source.transactionStatus(txid), { known: true, confirmedHeight: 0, blockHash: "" });
      assert.deepEqual(
        (await source.unspentOutputs(wallet.scriptPubKey)).map(({ confirmedHeight }) => confirmedHeight),
        [0],
      );
    });

    it("finds all of 150 outputs", async () => {
      const { chain, faucet } = server();
      const [wallet, many] = [new KeyWallet("splitter"), new KeyWallet("many")];
      const coin = coinOf(chain, faucet.pay(wallet.scriptPubKey, 1_000_000n), wallet.scriptPubKey);
      const payouts = Array.from({ length: 150 }, (_, index) => ({
        script: many.scriptPubKey,
        amountSat: 1_000n + BigInt(index),
      }));
      const source = open(server());
      await source.broadcast(wallet.spend([coin], payouts).toBuffer());
      chain.mine(1, faucet.scriptPubKey);
      const outputs = await source.unspentOutputs(many.scriptPubKey);
      const values = outputs.map(({ valueSat }) => valueSat).sort((a, b) => Number(a - b));
      assert.deepEqual(
        values,
        payouts.map(({ amountSat }) => amountSat),
      );
    });

    it("estimates a fee rate", async () => {
      const source = open(server());
      assert.equal(await source.feeRateSatPerKvb(1), 2_345);
      assert.equal(await source.feeRateSatPerKvb(1_008), 2_345);
    });

    it("refuses input that cannot be", async () => {
      const source = open(server());
      for (const txid of ["", "AB".repeat(32), `${UNKNOWN}/hex`, "ab".repeat(31)]) {
        await assert.rejects(source.transactionStatus(txid), { kind: "invalid-input", code: "bad-txid" });
        await assert.rejects(source.transaction(txid), { kind: "invalid-input", code: "bad-txid" });
      }
      for (const target of [0, 1.5, 1_009, Number.NaN]) {
        await assert.rejects(source.feeRateSatPerKvb(target), { kind: "invalid-input", code: "bad-target" });
      }
      for (const length of [0, 10_001]) {
        const script = new Uint8Array(length);
        await assert.rejects(source.unspentOutputs(script), { kind: "invalid-input", code: "bad-script" });
      }
    });
  });
}

describe("checked chain source on two chains that differ", () => {
  const [one, other] = [runningChain(), runningChain()];

  it("a confirmed output that the other chain does not have is a disagreement, and so are distant tips", async () => {
    const source = new CheckedChainSource(
      { ...DEFAULT_CHECKED_OPTIONS, pauseMs: 1 },
      { clock: systemClock, primary: esplora(one()), secondary: core(other()) },
    );
    const wallet = new KeyWallet("forked");
    one().faucet.pay(wallet.scriptPubKey, 40_000n);
    assert.deepEqual(await source.unspentOutputs(wallet.scriptPubKey), [], "it waits on one chain only");
    one().chain.mine(1, one().faucet.scriptPubKey);
    const disagreement = { kind: "unavailable", code: "chain-sources-disagree" };
    await assert.rejects(source.unspentOutputs(wallet.scriptPubKey), disagreement);
    await source.tipHeight();
    one().chain.mine(2, one().faucet.scriptPubKey);
    await assert.rejects(source.tipHeight(), disagreement);
  });
});

describe("Core chain source: bounds of its own", () => {
  const server = runningChain();

  it("leaves unconfirmed outputs out when the mempool is larger than its search limit", async () => {
    const wallet = new KeyWallet("limit");
    server().faucet.pay(wallet.scriptPubKey, 40_000n);
    const withLimit = (mempoolSearchLimit: number) =>
      new CoreRpcChainSource({ url: server().rpcUrl, ...RPC, mempoolSearchLimit }, dependencies);
    assert.equal((await withLimit(1).unspentOutputs(wallet.scriptPubKey)).length, 1);
    assert.equal((await withLimit(0).unspentOutputs(wallet.scriptPubKey)).length, 0);
  });

  it("scans one script after the other, and lets 16 wait", async () => {
    const source = core(server());
    const scans = Array.from({ length: 17 }, () => source.unspentOutputs(elsewhere.scriptPubKey));
    const outcomes = await Promise.allSettled(scans);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [...Array<string>(16).fill("fulfilled"), "rejected"],
    );
    assert.deepEqual(await source.unspentOutputs(elsewhere.scriptPubKey), []);
  });
});
