import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { SessionRunner } from "../../src/node/session-pool.js";
import type { WalletView } from "../../src/wallet/wallet-application.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

const OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/** Signing jobs of all nodes, and how many of their inputs came with nonces made ahead. */
const signed: { readonly inputs: number; readonly prepared: number }[] = [];

const recorded = (sessions: SessionRunner): SessionRunner => ({
  run(job, seat, wire) {
    if (job.kind === "frost-sign") {
      signed.push({
        inputs: job.items.length,
        prepared: job.items.filter(({ nonces }) => nonces !== undefined).length,
      });
    }
    return sessions.run(job, seat, wire);
  },
  close: () => sessions.close(),
});

describe("a Taproot wallet of five nodes with a pool of nonces, over QUIC", () => {
  let firm: PayingFirm;
  let wallet: WalletView;
  const available = async (): Promise<number> => (await firm.application.poolStatus(wallet.walletId)).available;
  const pay = async (amountSat: bigint): Promise<void> => {
    signed.length = 0;
    const sent = await firm.application.sendPaymentAndWait(
      firm.request({ walletId: wallet.walletId, address: OUTSIDE, amountSat }),
    );
    assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
    await firm.mine(1);
    assert.equal((await firm.finalState(sent.paymentId)).phase, "confirmed");
  };

  before(async () => {
    firm = await PayingFirm.start({
      pool: {
        ...testPools({ frost: { target: 20, minimum: 20, batch: 5, presignTimeoutMs: 60_000 } }),
        checkIntervalMs: 1_000,
      },
      observe: (_, sessions) => recorded(sessions),
    });
    wallet = await firm.application.createWallet({ name: "taproot", scheme: "frost", threshold: 3, parties: [] });
    for (let coin = 0; coin < 3; coin++) {
      const { scriptPubKey } = await firm.application.newAddress(wallet.walletId);
      firm.server.faucet.pay(scriptPubKey, 1_000_000n);
    }
    await firm.mine(1);
  });
  after(async () => {
    await firm?.close();
  });

  it("fills the pool when the wallet is made", async () => {
    const untilMs = performance.now() + 60_000;
    while ((await available()) < 20) {
      assert.ok(performance.now() < untilMs, "the pool is not filled");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });

  it("pays with two inputs, nonces made ahead for each, and fills the pool again", async () => {
    await pay(1_500_000n);
    assert.equal(signed.length, 3);
    for (const job of signed) assert.deepEqual(job, { inputs: 2, prepared: 2 });
    const untilMs = performance.now() + 60_000;
    while ((await available()) < 20) {
      assert.ok(performance.now() < untilMs, "the pool is not filled again");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const { inUse, failed } = await firm.application.poolStatus(wallet.walletId);
    assert.deepEqual({ inUse, failed }, { inUse: 0, failed: 0 });
  });
});
