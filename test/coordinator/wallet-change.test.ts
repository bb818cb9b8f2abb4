import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { toBinary } from "@bufbuild/protobuf";
import { SignedWalletChangeSchema } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { signWalletChange, type WalletChangeOrder } from "../../src/consensus/wallet-change.js";
import { signEd25519 } from "../../src/crypto/ed25519.js";
import type { WalletChangeView, WalletView } from "../../src/wallet/wallet-application.js";
import { TEST_AUTHORITY } from "../node/cluster.js";
import { PayingFirm } from "./paying-firm.js";

const OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const NO_POOL = { target: 0, minimum: 0, batch: 1, checkIntervalMs: 60_000, presignTimeoutMs: 60_000 };
const POOL = { target: 3, minimum: 1, batch: 1, checkIntervalMs: 60_000, presignTimeoutMs: 60_000 };

/** What an operator's command sends. */
function order(wallet: WalletView, change: Partial<WalletChangeOrder> = {}): Uint8Array {
  const { walletId, threshold, parties, epoch: baseEpoch, keyDigest: baseKeyDigest } = wallet;
  const kind = change.parties === undefined ? "refresh" : "reshare";
  const now = Date.now();
  const signed = signWalletChange(
    {
      requestId: randomUUID(),
      walletId,
      kind,
      baseEpoch,
      baseKeyDigest,
      threshold,
      parties,
      changeCount: 0,
      createdAtMs: now,
      expiresAtMs: now + 600_000,
      ...change,
    },
    { authority: TEST_AUTHORITY.name, sign: (message) => signEd25519(TEST_AUTHORITY.seed, message) },
  );
  return toBinary(SignedWalletChangeSchema, signed);
}

async function changed(firm: PayingFirm, walletId: string, timeoutMs = 120_000): Promise<WalletChangeView> {
  const endMs = Date.now() + timeoutMs;
  for (;;) {
    const { change } = await firm.application.walletChange(walletId);
    assert.ok(change !== undefined);
    if (change.state !== "running" && change.owing.length === 0) return change;
    assert.ok(Date.now() < endMs, `still ${JSON.stringify(change)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function pays(firm: PayingFirm, walletId: string, amountSat = 200_000n): Promise<void> {
  const sent = await firm.application.sendPaymentAndWait(firm.request({ walletId, address: OUTSIDE, amountSat }));
  assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
  await firm.mine(1);
  assert.equal((await firm.finalState(sent.paymentId)).phase, "confirmed");
}

async function funded(firm: PayingFirm, walletId: string): Promise<string> {
  const { address, scriptPubKey } = await firm.application.newAddress(walletId);
  for (let coin = 0; coin < 6; coin++) firm.server.faucet.pay(scriptPubKey, 1_000_000n);
  await firm.mine(1);
  return address;
}

describe("a coordinator has shares changed: Taproot", () => {
  let firm: PayingFirm;
  let wallet: WalletView;
  before(async () => {
    firm = await PayingFirm.start({ pool: NO_POOL, nodes: 7 });
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
    const kinds = (await firm.trail()).map(({ kind }) => kind);
    for (const kind of ["wallet-change-ordered", "wallet-switched"]) assert.ok(kinds.includes(kind), kind);
    assert.deepEqual((await firm.verifiedTrail()).problems, []);
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

describe("a coordinator has shares changed: SegWit", () => {
  let firm: PayingFirm;
  let wallet: WalletView;
  before(async () => {
    firm = await PayingFirm.start({ pool: POOL, nodes: 4 });
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
    await firm.application.changeWallet(order(wallet));
    assert.equal((await changed(firm, walletId)).state, "switched");
    await pays(firm, walletId);
    const renewed = await firm.application.getWallet(walletId);
    assert.deepEqual([renewed.epoch, renewed.groupKey], [1, wallet.groupKey]);

    const parties = ["node-4", "node-1", "node-3"];
    await firm.application.changeWallet(order(renewed, { threshold: 3, parties }));
    assert.equal((await changed(firm, walletId)).state, "switched");
    await pays(firm, walletId);
    assert.deepEqual((await firm.application.getWallet(walletId)).parties, parties);
  });
});
