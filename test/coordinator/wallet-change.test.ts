import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { WalletChangeView, WalletView } from "../../src/wallet/wallet-application.js";
import { changed, funded, OUTSIDE, order, pays } from "./ordering.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

const POOL = testPools({ frost: { target: 20, minimum: 10, batch: 2, presignTimeoutMs: 10_000 } });

describe("a coordinator has shares changed: Taproot", () => {
  let firm: PayingFirm;
  let wallet: WalletView;
  before(async () => {
    firm = await PayingFirm.start({ pool: POOL, nodes: 7 });
    const parties = ["node-1", "node-2", "node-3", "node-4", "node-5"];
    wallet = await firm.application.createWallet({ name: "t", scheme: "frost", threshold: 3, parties });
    await funded(firm, wallet.walletId);
  });
  after(async () => {
    await firm?.close();
  });

  it("refresh: the same key, a new epoch, payments before and after, rows in the trail", async () => {
    const { walletId } = wallet;
    await pays(firm, walletId);
    const bytes = order(wallet);
    const recorded = await firm.application.changeWallet(bytes);
    assert.deepEqual([recorded.kind, recorded.epoch], ["refresh", 1]);
    const done = await changed(firm, walletId);
    assert.deepEqual([done.state, done.attempt], ["switched", 1], JSON.stringify(done));
    const renewed = await firm.application.getWallet(walletId);
    assert.equal(renewed.epoch, 1);
    assert.deepEqual(renewed.groupKey, wallet.groupKey);
    assert.notDeepEqual(renewed.keyDigest, wallet.keyDigest);
    await pays(firm, walletId);
    assert.equal(
      (await firm.application.changeWallet(bytes)).state,
      "switched",
      "the same order again changes nothing",
    );
    await assert.rejects(firm.application.changeWallet(order(wallet)), { code: "change-other-base" });
    const trail = await firm.trail();
    const kinds = trail.map(({ kind }) => kind);
    for (const kind of ["wallet-change-ordered", "wallet-switched"]) assert.ok(kinds.includes(kind), kind);
    assert.deepEqual((await firm.verifiedTrail()).problems, []);
    // A row that names other parties or terms than they have signed is found.
    const row = trail.find(({ kind }) => kind === "wallet-switched");
    for (const forged of [{ threshold: 2 }, { parties: ["node-1", "node-2", "node-3"] }, { certificate: "" }]) {
      const { problems } = await firm.verifiedTrail((entry) =>
        entry.sequence === row?.sequence ? { ...entry, payload: { ...entry.payload, ...forged } } : entry,
      );
      assert.match(problems.join(), /the certificate of its new parties does not hold/);
    }
    wallet = renewed;
  });

  it("payments that run during a reshare to 4 of 7 are signed, by old or new parties", async () => {
    const { walletId } = wallet;
    const parties = Array.from({ length: 7 }, (_, index) => `node-${index + 1}`);
    await firm.application.changeWallet(order(wallet, { threshold: 4, parties }));
    const running = Promise.all(
      [1, 2, 3].map((n) =>
        firm.application.sendPaymentAndWait(
          firm.request({ walletId, address: OUTSIDE, amountSat: 100_000n + BigInt(n) }),
        ),
      ),
    );
    const done = await changed(firm, walletId);
    assert.equal(done.state, "switched", JSON.stringify(done));
    for (const { phase, failure } of await running) assert.equal(phase, "broadcast", JSON.stringify(failure));
    await firm.mine(1);
    await pays(firm, walletId);
    wallet = await firm.application.getWallet(walletId);
    assert.deepEqual([wallet.threshold, wallet.parties], [4, parties]);
  });

  it("waits for a node that is down, says so, and goes on when it is back; payments go on meanwhile", async () => {
    const { walletId } = wallet;
    await firm.cluster.stopNode("node-7");
    await firm.application.changeWallet(order(wallet));
    let waiting: WalletChangeView | undefined;
    while (waiting?.waitingFor.includes("node-7") !== true) {
      ({ change: waiting } = await firm.application.walletChange(walletId));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.equal(waiting.state, "running");
    await pays(firm, walletId);
    await assert.rejects(firm.application.changeWallet(order(wallet)), { code: "change-running" });
    await firm.cluster.startNode("node-7");
    assert.equal((await changed(firm, walletId)).state, "switched");
    wallet = await firm.application.getWallet(walletId);
  });

  it("a node that leaves while it is away erases its share when it comes back", async () => {
    const { walletId } = wallet;
    await firm.cluster.stopNode("node-7");
    await firm.application.changeWallet(order(wallet, { threshold: 2, parties: ["node-5", "node-2", "node-3"] }));
    let last: WalletChangeView | undefined;
    while (last?.state !== "switched") {
      ({ change: last } = await firm.application.walletChange(walletId));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await pays(firm, walletId);
    while (last.owing.join() !== "node-7") {
      ({ change: last = last } = await firm.application.walletChange(walletId));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await firm.cluster.startNode("node-7");
    assert.deepEqual((await changed(firm, walletId)).owing, []);
    assert.deepEqual((await firm.verifiedTrail()).problems, []);
  });
});
