import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { WalletView } from "../../src/wallet/wallet-application.js";
import { changed, funded, order, pays } from "./ordering.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

const POOL = testPools({ cggmp24: { target: 2, minimum: 1, batch: 1, presignTimeoutMs: 60_000 } });

describe("a coordinator has shares changed: SegWit", () => {
  let firm: PayingFirm;
  let wallet: WalletView;
  before(async () => {
    firm = await PayingFirm.start({ pool: POOL, nodes: 3 });
    const parties = ["node-1", "node-2"];
    wallet = await firm.application.createWallet({ name: "s", scheme: "cggmp24", threshold: 2, parties });
    await funded(firm, wallet.walletId);
  });
  after(async () => {
    await firm?.close();
  });

  it("refresh and reshare: the pool of the old epoch is burned, a new one is filled, payments go on", async () => {
    const { walletId } = wallet;
    await pays(firm, walletId);
    await firm.application.changeWallet(order(wallet));
    assert.equal((await changed(firm, walletId)).state, "switched");
    await pays(firm, walletId);
    const renewed = await firm.application.getWallet(walletId);
    assert.deepEqual([renewed.epoch, renewed.groupKey], [1, wallet.groupKey]);

    const parties = ["node-3", "node-1"];
    await firm.application.changeWallet(order(renewed, { threshold: 2, parties }));
    assert.equal((await changed(firm, walletId)).state, "switched");
    await pays(firm, walletId);
    assert.deepEqual((await firm.application.getWallet(walletId)).parties, parties);
  });
});
