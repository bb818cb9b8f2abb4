import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PHASES } from "../../src/consensus/transaction-state.js";
import { decodePaymentRecord, encodePaymentRecord, newPaymentRecord } from "../../src/wallet/payment-record.js";
import { CoordinatedPaymentStore, MemoryPaymentStore } from "../../src/wallet/payment-store.js";
import { decodeWallet, encodeWallet } from "../../src/wallet/wallet-registry.js";
import { SampleCoordination } from "./sample-coordination.js";
import { SampleFirm } from "./sample-firm.js";
import { OUTSIDE, signedRequest, verifiedRequest } from "./sample-payment.js";
import { sampleAccount } from "./sample-wallet.js";

describe("wallet service", () => {
  it("creates wallets, and refuses bad ones by code", async () => {
    const firm = await new SampleFirm().open();
    const wallet = { name: "second", scheme: "frost", threshold: 2, parties: ["node-1", "node-2"] } as const;
    const view = await firm.service.createWallet(wallet);
    assert.deepEqual(view.parties, wallet.parties);
    assert.deepEqual(await firm.service.getWallet(view.walletId), view);
    assert.equal((await firm.service.listWallets()).length, 2);
    const cases: [string, object][] = [
      ["wallet-exists", {}],
      ["name-invalid", { name: "" }],
      ["name-invalid", { name: "x".repeat(65) }],
      ["name-invalid", { name: " x" }],
      ["threshold-out-of-range", { threshold: 1 }],
      ["threshold-out-of-range", { threshold: 3 }],
      ["threshold-out-of-range", { threshold: 2.5 }],
      ["parties-out-of-range", { parties: ["node-1"] }],
      ["parties-out-of-range", { parties: ["node-1", "node-1"] }],
      ["party-unknown", { parties: ["node-1", "stranger"] }],
    ];
    for (const [code, changes] of cases) {
      await assert.rejects(firm.service.createWallet({ ...wallet, ...changes }), { code });
    }
    await assert.rejects(firm.service.getWallet("nobody"), { code: "wallet-unknown" });
    assert.deepEqual(firm.coordination.lockNames, []);
  });

  it("refuses a key that the nodes do not agree on", async () => {
    const firm = new SampleFirm();
    let count = 0;
    const { groupKey, chainCode } = sampleAccount();
    const service = firm.newService("split", {
      keyGeneration: {
        generate: async () => {
          const keyDigest = new Uint8Array(32).fill(count++);
          return { groupKey, chainCode, keyDigest, publicKeyPackage: new Uint8Array(0) };
        },
      },
    });
    const wallet = { name: "w", scheme: "frost", threshold: 3, parties: [] } as const;
    await assert.rejects(service.createWallet(wallet), { code: "key-disagreement" });
    assert.deepEqual(await service.listWallets(), []);
  });

  it("gives every address once and counts what they hold", async () => {
    const firm = await new SampleFirm().open([100_000n]);
    const addresses = await Promise.all(Array.from({ length: 10 }, () => firm.service.newAddress(firm.walletId)));
    assert.equal(new Set(addresses.map(({ address }) => address)).size, 10);
    assert.deepEqual(
      addresses.map(({ index }) => index).sort((a, b) => a - b),
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    );
    firm.chain.fund(addresses[3]?.scriptPubKey ?? new Uint8Array(), 7_000n, 0);
    // Beyond the last address that was given out, and within the gap.
    firm.chain.fund(firm.account().derive({ change: false, index: 25 }).scriptPubKey, 1_000n);
    // Beyond the gap nobody looks.
    firm.chain.fund(firm.account().derive({ change: false, index: 500 }).scriptPubKey, 1_000_000n);
    const balance = await firm.service.balance(firm.walletId);
    assert.equal(balance.confirmedSat, 101_000n);
    assert.equal(balance.unconfirmedSat, 7_000n);
    const utxos = await firm.service.utxos(firm.walletId);
    assert.equal(utxos.length, 3);
    const fresh = utxos.find(({ valueSat }) => valueSat === 7_000n);
    assert.deepEqual([fresh?.confirmations, fresh?.path], [0, `0/${addresses[3]?.index}`]);
  });

  it("finds change, spends it once confirmed, and never before", async () => {
    const firm = await new SampleFirm().open([200_000n]);
    const pay = (amountSat: bigint) =>
      firm.service.sendPaymentAndWait(
        firm.request({ requestId: randomUUID(), recipients: [{ address: OUTSIDE, amountSat }] }),
      );
    assert.equal((await pay(50_000n)).phase, "broadcast");
    assert.equal((await pay(50_000n)).failure?.code, "insufficient-funds");
    firm.chain.mine();
    assert.equal((await pay(50_000n)).phase, "broadcast");
    await firm.service.close();
  });

  it("pages through the history, newest first", async () => {
    const firm = await new SampleFirm().open([200_000n]);
    const ids: string[] = [];
    for (let count = 0; count < 5; count++) {
      const requestId = randomUUID();
      ids.unshift(requestId);
      await firm.service.sendPaymentAndWait(
        firm.request({ requestId, recipients: [{ address: OUTSIDE, amountSat: 900_000n }] }),
      );
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const seen: string[] = [];
    let before = "";
    do {
      const page = await firm.service.payments({ walletId: firm.walletId, limit: 2, before });
      seen.push(...page.payments.map(({ paymentId }) => paymentId));
      before = page.next;
    } while (before !== "");
    assert.deepEqual(seen, ids);
    for (const limit of [0, 101, 1.5]) {
      const query = { walletId: firm.walletId, limit, before: "" };
      await assert.rejects(firm.service.payments(query), { code: "limit-out-of-range" });
    }
    const lost = { walletId: firm.walletId, limit: 1, before: "nowhere" };
    await assert.rejects(firm.service.payments(lost), { code: "cursor-unknown" });
    await firm.service.close();
  });

  it("a watcher sees the payment move and ends; an aborted one ends at once", async () => {
    const firm = await new SampleFirm().open();
    const { paymentId } = await firm.service.sendPayment(firm.request());
    const phases: string[] = [];
    for await (const { phase } of firm.service.watchPayment(paymentId)) {
      if (phases.at(-1) !== phase) phases.push(phase);
      if (phase === "broadcast") firm.chain.mine();
    }
    assert.equal(phases.at(-1), "confirmed");
    const order = phases.map((phase) => (PHASES as readonly string[]).indexOf(phase));
    assert.deepEqual(
      order,
      [...order].sort((a, b) => a - b),
    );
    const abort = new AbortController();
    const second = await firm.service.sendPayment(firm.request({ requestId: randomUUID() }));
    setTimeout(() => abort.abort(), 10);
    for await (const _ of firm.service.watchPayment(second.paymentId, abort.signal));
    await firm.service.close();
  });

  it("runs as many payments, and has as many watchers, as it may", async () => {
    const firm = await new SampleFirm().open();
    const service = firm.newService("small", {}, { paymentsMax: 2, watchersMax: 1 });
    const send = () => service.sendPayment(firm.request({ requestId: randomUUID() }));
    const first = await send();
    await send();
    await assert.rejects(send(), { code: "too-many-payments" });
    const watcher = service.watchPayment(first.paymentId);
    await watcher.next();
    await assert.rejects(service.watchPayment(first.paymentId).next(), { code: "too-many-watchers" });
    await watcher.return(undefined);
    await service.watchPayment(first.paymentId).next();
    await service.close();
  });

  it("tells the leader and a wallet's supply", async () => {
    const firm = await new SampleFirm().open();
    assert.equal((await firm.service.health()).leader, "coordinator-1");
    assert.equal((await firm.service.poolStatus(firm.walletId)).available, 1);
    await assert.rejects(firm.service.poolStatus("nobody"), { code: "wallet-unknown" });
  });

  it("health: nodes may be missing up to the quorum, other parts may not", async () => {
    const firm = new SampleFirm();
    const probe = (name: string, works: boolean) => ({
      name,
      probe: async () => (works ? "ok" : Promise.reject(new Error("down"))),
    });
    const probes = (up: number, chain: boolean) => [
      probe("chain", chain),
      ...firm.nodes.map(({ nodeId }, index) => probe(`node:${nodeId}`, index < up)),
    ];
    const healthy = async (up: number, chain: boolean) =>
      (await firm.newService(`${up}`, { probes: probes(up, chain) }).health()).healthy;
    assert.deepEqual([await healthy(5, true), await healthy(3, true)], [true, true]);
    assert.deepEqual([await healthy(2, true), await healthy(5, false)], [false, false]);
  });
});

describe("stored forms", () => {
  it("payments survive their stored form in every phase", () => {
    const record = newPaymentRecord(signedRequest(), verifiedRequest(), 5);
    fc.assert(
      fc.property(
        fc.constantFrom(...PHASES),
        fc.bigInt({ min: 0n, max: 2n ** 50n }),
        fc.uint8Array({ maxLength: 50 }),
        fc.nat(),
        fc.boolean(),
        (phase, feeSat, bytes, number, failed) => {
          const state = {
            phase,
            txid: "ab",
            psbt: bytes,
            feeSat,
            votesExpireAtMs: number,
            signedTransaction: bytes,
            signingRetries: 2,
            broadcastRetries: 3,
            confirmedHeight: number,
            failure: failed ? { code: "c", message: "m", culprits: ["node-1"] } : undefined,
            changedAtMs: number,
          };
          const timeline = [{ step: "vote", nodeId: "n", startedAtMs: number, durationMs: 1.5, outcome: "ok" }];
          const full = { ...record, state, timeline, revision: feeSat, proposalDigest: bytes, approvalsNeeded: 3 };
          assert.deepEqual(decodePaymentRecord(encodePaymentRecord(full)), full);
        },
      ),
      { numRuns: 100 },
    );
  });

  it("wallets survive their stored form", () => {
    const { groupKey, chainCode } = sampleAccount();
    const view = {
      walletId: "w",
      name: "n",
      scheme: "cggmp24",
      network: "signet",
      threshold: 2,
      parties: ["a", "b"],
      groupKey,
      chainCode,
      epoch: 3,
      keyDigest: new Uint8Array(32).fill(4),
      createdAtMs: 7,
    } as const;
    assert.deepEqual(decodeWallet(encodeWallet(view)), view);
  });

  it("both payment stores list, resume and forget alike", async () => {
    const coordinated = new CoordinatedPaymentStore({ coordination: new SampleCoordination() }, { keptMax: 2 });
    for (const store of [new MemoryPaymentStore(), coordinated]) {
      const ids = Array.from({ length: 4 }, () => randomUUID());
      const records = ids.map((requestId, index) => ({
        ...newPaymentRecord(signedRequest({ requestId }), verifiedRequest({ requestId }), 100 + index),
        revision: 1n,
      }));
      for (const record of records) await store.put(record);
      assert.deepEqual(
        (await store.unfinished()).map(({ paymentId }) => paymentId),
        ids,
      );
      const page = await store.list({ walletId: "wallet-1", limit: 2, before: ids[3] ?? "" });
      assert.deepEqual(
        page.map(({ paymentId }) => paymentId),
        [ids[2], ids[1]],
      );
      for (const record of records.slice(0, 3)) {
        await store.put({ ...record, revision: 2n, state: { ...record.state, phase: "confirmed" } });
      }
      assert.equal((await store.unfinished()).length, 1);
      const kept = await store.list({ walletId: "wallet-1", limit: 10, before: "" });
      assert.equal(kept.length, store === coordinated ? 3 : 4);
      assert.deepEqual(await store.list({ walletId: "other", limit: 10, before: "" }), []);
    }
  });
});
