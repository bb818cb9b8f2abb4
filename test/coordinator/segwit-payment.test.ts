import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Transaction } from "bitcoinjs-lib";
import type { PreparationView, WalletView } from "../../src/wallet/wallet-application.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

const OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

describe("a SegWit wallet of five nodes pays over QUIC", () => {
  let firm: PayingFirm;
  let wallet: WalletView;

  before(async () => {
    // One presignature for each of the ten signing sets.
    firm = await PayingFirm.start({
      pool: testPools({ cggmp24: { target: 10, minimum: 10, batch: 2, presignTimeoutMs: 60_000 } }),
    });
  });
  after(async () => {
    await firm?.close();
  });

  it("creates a wallet: key, then auxiliary info among all nodes", async () => {
    const startedMs = performance.now();
    const seen: PreparationView[] = [];
    const watch = setInterval(() => {
      void firm.application.health().then(({ preparations }) => seen.push(...preparations));
    }, 100);
    try {
      wallet = await firm.application.createWallet({ name: "segwit", scheme: "cggmp24", threshold: 3, parties: [] });
    } finally {
      clearInterval(watch);
    }
    console.log(`# wallet ${(performance.now() - startedMs).toFixed(0)} ms`);
    assert.equal(wallet.parties.length, 5);
    assert.ok(seen.every(({ name, walletId }) => name === "segwit" && walletId === wallet.walletId));
    const proving = seen.filter(({ phase }) => phase === "auxiliary-info").flatMap(({ nodes }) => nodes);
    for (const nodeId of wallet.parties) {
      const steps = proving.filter((node) => node.nodeId === nodeId && node.of === 4).map(({ done }) => done);
      assert.ok(
        steps.some((step) => step >= 1),
        `${nodeId} was seen at steps ${steps.join()}`,
      );
      assert.deepEqual(steps, steps.toSorted(), "steps only rise");
    }
    assert.deepEqual((await firm.application.health()).preparations, []);
  });

  it("fills the pool", async () => {
    const startedMs = performance.now();
    let available = 0;
    while (available < 10) {
      assert.ok(performance.now() - startedMs < 120_000, `only ${available} presignatures`);
      await new Promise((resolve) => setTimeout(resolve, 500));
      ({ available } = await firm.application.poolStatus(wallet.walletId));
    }
    console.log(`# ${available} presignatures ${(performance.now() - startedMs).toFixed(0)} ms`);
  });

  it("pays a payment that the chain's interpreter accepts, with one presignature", async () => {
    const { address, scriptPubKey } = await firm.application.newAddress(wallet.walletId);
    assert.match(address, /^bcrt1q/);
    firm.server.faucet.pay(scriptPubKey, 10_000_000n);
    await firm.mine(1);
    const sent = await firm.application.sendPaymentAndWait(
      firm.request({ walletId: wallet.walletId, address: OUTSIDE, amountSat: 1_000_000n }),
    );
    assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
    await firm.mine(1);
    const final = await firm.finalState(sent.paymentId);
    assert.equal(final.phase, "confirmed");
    for (const { step, nodeId, durationMs } of final.timeline)
      console.log(`# ${step} ${nodeId} ${durationMs.toFixed(1)} ms`);
    const witness = Transaction.fromBuffer(final.rawTransaction ?? new Uint8Array()).ins[0]?.witness ?? [];
    assert.equal(witness.length, 2);
    assert.equal(witness[0]?.at(-1), Transaction.SIGHASH_ALL);
    const pool = await firm.application.poolStatus(wallet.walletId);
    assert.equal(pool.inUse, 0);
  });

  it("pays with two nodes down, from the set of the other three", async () => {
    await firm.cluster.stopNode("node-2");
    await firm.cluster.stopNode("node-5");
    const sent = await firm.application.sendPaymentAndWait(
      firm.request({ walletId: wallet.walletId, address: OUTSIDE, amountSat: 500_000n }),
    );
    assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
    await firm.mine(1);
    assert.equal((await firm.finalState(sent.paymentId)).phase, "confirmed");
    for (const { step, nodeId, durationMs } of sent.timeline)
      if (nodeId === "") console.log(`# ${step} ${durationMs.toFixed(1)} ms`);
  });
});
