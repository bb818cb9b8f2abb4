import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { WalletView } from "../../src/wallet/wallet-application.js";
import { assertUnrelated, changed, funded, HeldChanges, order, pays, sharesOf } from "./ordering.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

const POOL = testPools({ cggmp24: { target: 3, minimum: 3, batch: 1, presignTimeoutMs: 60_000 } });

/** Larger groups: npm run test:long -- segwit-wallet-change */
describe("a coordinator has shares changed: SegWit", () => {
  const changes = new HeldChanges();
  let firm: PayingFirm;
  let wallet: WalletView;
  before(async () => {
    firm = await PayingFirm.start({ pool: POOL, nodes: 4, observe: changes.observe });
    const parties = ["node-1", "node-2", "node-3"];
    wallet = await firm.application.createWallet({ name: "s", scheme: "cggmp24", threshold: 2, parties });
    await funded(firm, wallet.walletId);
  });
  after(async () => {
    await firm?.close();
  });

  it("refresh and reshare: the pool of the old epoch is burned, a new one is filled, payments go on", async () => {
    const { walletId } = wallet;
    await pays(firm, walletId);
    const first = await sharesOf(firm, wallet);
    await changes.paysMeanwhile(firm, walletId, order(wallet), 1);
    assert.equal((await changed(firm, walletId)).state, "switched");
    await pays(firm, walletId);
    const renewed = await firm.application.getWallet(walletId);
    assert.deepEqual([renewed.epoch, renewed.groupKey], [1, wallet.groupKey]);
    const second = await sharesOf(firm, renewed);
    assertUnrelated(first, second);

    const parties = ["node-4", "node-1", "node-3"];
    await firm.application.changeWallet(order(renewed, { threshold: 2, parties }));
    assert.equal((await changed(firm, walletId)).state, "switched");
    await pays(firm, walletId);
    const reshared = await firm.application.getWallet(walletId);
    assert.deepEqual(reshared.parties, parties);
    assertUnrelated(second, await sharesOf(firm, reshared));
  });
});
