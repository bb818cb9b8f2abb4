// From 3 of 5 to every topology that was promised: with moduli of full size, some minutes.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { WalletView } from "../../src/wallet/wallet-application.js";
import { assertUnrelated, changed, funded, HeldChanges, order, pays, sharesOf } from "./ordering.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

/** One presignature for each signing set of three of five, so that payments need nobody who is making shares. */
const POOL = testPools({ cggmp24: { target: 10, minimum: 10, batch: 2, presignTimeoutMs: 60_000 } });
const named = (...indices: number[]): string[] => indices.map((index) => `node-${index}`);
const FIVE = named(1, 2, 3, 4, 5);

describe("a SegWit wallet of five nodes, three of which sign, pays before, during and after", () => {
  const changes = new HeldChanges();
  let firm: PayingFirm;
  before(async () => {
    firm = await PayingFirm.start({ pool: POOL, nodes: 7, observe: changes.observe });
  });
  after(async () => {
    await firm?.close();
  });

  async function madeWallet(name: string): Promise<WalletView> {
    const wallet = await firm.application.createWallet({ name, scheme: "cggmp24", threshold: 3, parties: FIVE });
    await funded(firm, wallet.walletId);
    for (let available = 0, wait = 0; available < 10; wait++) {
      assert.ok(wait < 600, `only ${available} presignatures`);
      await new Promise((resolve) => setTimeout(resolve, 300));
      ({ available } = await firm.application.poolStatus(wallet.walletId));
    }
    return wallet;
  }

  for (const { name, terms } of [
    { name: "a refresh", terms: {} },
    { name: "a reshare to the same five, in another order", terms: { threshold: 3, parties: named(5, 3, 1, 2, 4) } },
    { name: "a reshare to two of three, one of them new", terms: { threshold: 2, parties: named(6, 2, 4) } },
    { name: "a reshare to four of seven", terms: { threshold: 4, parties: named(1, 2, 3, 4, 5, 6, 7) } },
  ]) {
    it(name, async () => {
      const startedMs = performance.now();
      const wallet = await madeWallet(name);
      const { walletId } = wallet;
      await pays(firm, walletId);
      const old = await sharesOf(firm, wallet);
      await changes.paysMeanwhile(firm, walletId, order(wallet, terms), 3);
      const done = await changed(firm, walletId, 300_000);
      assert.equal(done.state, "switched", JSON.stringify(done));
      const renewed = await firm.application.getWallet(walletId);
      const { threshold = 3, parties = FIVE } = terms;
      assert.deepEqual([renewed.epoch, renewed.threshold, renewed.parties], [1, threshold, parties]);
      assert.deepEqual(renewed.groupKey, wallet.groupKey);
      assertUnrelated(old, await sharesOf(firm, renewed));
      for (const { nodeId } of firm.cluster.roster.nodes) {
        const held = await firm.cluster.stolenFrom(nodeId, walletId);
        const expected = parties.includes(nodeId) ? 1 : undefined;
        assert.deepEqual([held.wallet?.epoch, held.prepared.length], [expected, 0], `${nodeId} has nothing else left`);
      }
      await pays(firm, walletId);
      console.log(`# ${name}: ${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
    });
  }
});
