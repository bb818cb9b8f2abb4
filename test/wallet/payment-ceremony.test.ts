import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { Transaction as SecondTransaction } from "@scure/btc-signer";
import { DEFAULT_POLICY } from "../../src/consensus/policy.js";
import { InvalidInput, PeerFault, PeerSilent, Unavailable } from "../../src/crypto/fault.js";
import type { PaymentView } from "../../src/wallet/wallet-application.js";
import { encodeWallet } from "../../src/wallet/wallet-registry.js";
import { proofAgainst, SampleFirm } from "./sample-firm.js";
import { OUTSIDE } from "./sample-payment.js";

const never = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted"))));

async function final(firm: SampleFirm, paymentId: string): Promise<PaymentView> {
  let last: PaymentView | undefined;
  for await (const view of firm.service.watchPayment(paymentId)) last = view;
  assert.ok(last);
  return last;
}

describe("payment ceremony, 3 of 5", () => {
  it("pays from request to confirmation, for both schemes", async () => {
    for (const scheme of ["frost", "cggmp24"] as const) {
      const firm = await new SampleFirm({ scheme }).open();
      const sent = await firm.service.sendPaymentAndWait(firm.request({ metadataJson: '{"order":7}' }));
      assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
      firm.chain.mine();
      const view = await final(firm, sent.paymentId);
      assert.equal(view.phase, "confirmed");
      assert.equal(view.confirmedHeight, 201);
      assert.ok(view.rawTransaction);
      const read = SecondTransaction.fromRaw(view.rawTransaction, { allowUnknownOutputs: true });
      assert.equal(read.id, view.txid);
      const steps = new Set(view.timeline.map(({ step }) => step));
      for (const step of ["build", "vote", "sign", "finalize", "broadcast", "confirm"])
        assert.ok(steps.has(step), step);
      const votes = await firm.service.votes(sent.paymentId);
      assert.equal(votes.outcome, "approved");
      assert.equal(votes.ballots.filter(({ verdict }) => verdict === "approve").length >= 3, true);
      await firm.service.close();
      assert.deepEqual(firm.coordination.lockNames, []);
      assert.deepEqual(firm.errors, []);
      const kinds = firm.trail.events.map(({ kind }) => kind);
      for (const kind of [
        "wallet-created",
        "payment-proposed",
        "ballot",
        "certificate",
        "payment-signed",
        "payment-confirmed",
      ]) {
        assert.ok(kinds.includes(kind), kind);
      }
    }
  });

  it("is rejected when n-t+1 nodes reject, with their reasons, and frees the coins", async () => {
    const firm = await new SampleFirm({ policy: { ...DEFAULT_POLICY, maxPaymentSat: 100_000n } }).open();
    const view = await firm.service.sendPaymentAndWait(firm.request());
    assert.equal(view.phase, "rejected");
    assert.match(view.failure?.message ?? "", /amount-above-limit/);
    await final(firm, view.paymentId);
    await firm.service.close();
    assert.equal((await firm.service.balance(firm.walletId)).reservedSat, 0n);
    const votes = await firm.service.votes(view.paymentId);
    assert.equal(votes.outcome, "rejected");
  });

  it("works with two silent nodes, and times out with three", async () => {
    const firm = await new SampleFirm().open();
    for (const nodeId of ["node-1", "node-2"]) firm.behaviour.set(nodeId, { vote: (_, __, signal) => never(signal) });
    const paid = await firm.service.sendPaymentAndWait(firm.request());
    assert.equal(paid.phase, "broadcast", JSON.stringify(paid.failure));
    firm.behaviour.set("node-3", { vote: (_, __, signal) => never(signal) });
    firm.chain.mine();
    const missed = await firm.service.sendPaymentAndWait(firm.request({ requestId: randomUUID() }));
    assert.equal(missed.phase, "timed-out");
    assert.equal(missed.failure?.code, "votes-missing");
    await firm.service.close();
  });

  it("a forged ballot and a ballot in another's name do not count", async () => {
    const firm = await new SampleFirm().open();
    firm.behaviour.set("node-1", {
      vote: async (_, honest) => ({ ...(await honest()), signature: new Uint8Array(64) }),
    });
    firm.behaviour.set("node-2", {
      vote: async (proposal) => firm.guards.get("node-3")?.vote(proposal) ?? Promise.reject(),
    });
    const paid = await firm.service.sendPaymentAndWait(firm.request());
    assert.equal(paid.phase, "broadcast");
    const votes = await firm.service.votes(paid.paymentId);
    const approving = votes.ballots.filter(({ verdict }) => verdict === "approve").map(({ voter }) => voter);
    assert.deepEqual(approving.sort(), ["node-3", "node-4", "node-5"]);
    assert.ok(firm.observations.some(({ type, nodeId }) => type === "invalid-signature" && nodeId === "node-1"));
    await firm.service.close();
  });

  it("a silent signer: another set signs, and silence is no strike", async () => {
    const firm = await new SampleFirm().open();
    for (const { nodeId } of firm.nodes.slice(1)) {
      firm.behaviour.set(nodeId, {
        sign: async (order, honest) => {
          if (order.signers.includes(1)) throw new PeerSilent("peer-silent", "no message", ["node-1"]);
          return honest();
        },
      });
    }
    firm.behaviour.set("node-1", { sign: (_, __, signal) => never(signal) });
    const paid = await firm.service.sendPaymentAndWait(firm.request());
    assert.equal(paid.phase, "broadcast", JSON.stringify(paid.failure));
    assert.ok(paid.retries >= 1);
    const blamed = firm.observations.filter(({ type }) => type !== "timeout");
    assert.deepEqual(blamed, []);
    await firm.service.close();
  });

  it("a proven culprit is excluded and observed; an accusation without proof excludes nobody", async () => {
    const firm = await new SampleFirm().open();
    for (const { nodeId } of firm.nodes) {
      firm.behaviour.set(nodeId, {
        sign: async (order, honest) => {
          if (!order.signers.includes(2)) return honest();
          const blame = { culprits: ["node-2"], evidence: [proofAgainst("node-2")] };
          throw new PeerFault("bad-share", "a share does not hold", blame);
        },
      });
    }
    const paid = await firm.service.sendPaymentAndWait(firm.request());
    assert.equal(paid.phase, "broadcast", JSON.stringify(paid.failure));
    const proven = firm.observations.filter(({ type }) => type === "session-evidence");
    for (const { nodeId } of proven) assert.equal(nodeId, "node-2");
    await firm.service.close();
  });

  it("a lying accuser cannot stop a payment, whoever it is and however fast it votes", async () => {
    for (const liar of ["node-1", "node-3", "node-5"]) {
      const firm = await new SampleFirm().open();
      const liarIndex = firm.nodes.findIndex(({ nodeId }) => nodeId === liar) + 1;
      for (const { nodeId } of firm.nodes) {
        firm.behaviour.set(nodeId, {
          vote: async (_, honest) => {
            // The liar is always among the first choice.
            if (nodeId !== liar) await new Promise((resolve) => setTimeout(resolve, 5));
            return honest();
          },
          sign: async (order, honest, signal) => {
            if (!order.signers.includes(liarIndex)) return honest();
            // Honest signers of a set with the liar never finish; it accuses both of them.
            if (nodeId !== liar) return never(signal);
            const culprits = order.signers.filter((index) => index !== liarIndex).map((index) => `node-${index}`);
            throw new PeerFault("bad-share", "a lie", { culprits, evidence: [] });
          },
        });
      }
      const paid = await firm.service.sendPaymentAndWait(firm.request());
      assert.equal(paid.phase, "broadcast", `${liar}: ${JSON.stringify(paid.failure)}`);
      assert.ok(!firm.observations.some(({ type }) => type === "session-evidence"));
      await firm.service.close();
    }
  });

  it("wrong signatures from a signer never leave, and three retries are all", async () => {
    const firm = await new SampleFirm().open();
    for (const { nodeId } of firm.nodes) {
      firm.behaviour.set(nodeId, { sign: async () => ({ signatures: [new Uint8Array(64).fill(1)], evidence: [] }) });
    }
    const view = await firm.service.sendPaymentAndWait(firm.request());
    assert.equal(view.phase, "failed");
    assert.equal(view.failure?.code, "signing-failed");
    assert.equal(view.retries, 3);
    assert.equal(firm.chain.transactions.size, 0);
    await firm.service.close();
  });

  it("two payments at once never choose the same coins", async () => {
    const firm = await new SampleFirm().open([200_000n, 200_000n, 200_000n, 200_000n]);
    const ids = Array.from({ length: 4 }, () => randomUUID());
    const sent = await Promise.all(
      ids.map((requestId) => firm.service.sendPaymentAndWait(firm.request({ requestId }))),
    );
    assert.deepEqual(
      sent.map(({ phase }) => phase),
      ["broadcast", "broadcast", "broadcast", "broadcast"],
      JSON.stringify(sent.map(({ failure }) => failure)),
    );
    assert.equal(new Set(sent.map(({ txid }) => txid)).size, 4);
    await firm.service.close();
  });

  it("a request is paid once: repeated bytes give the same payment, another request under its id is refused", async () => {
    const firm = await new SampleFirm().open();
    const bytes = firm.request();
    const [first, again] = await Promise.all([firm.service.sendPayment(bytes), firm.service.sendPayment(bytes)]);
    assert.equal(first.paymentId, again.paymentId);
    const other = firm.request({ recipients: [{ address: OUTSIDE, amountSat: 1_000n }] });
    await assert.rejects(firm.service.sendPayment(other), { code: "request-id-reused" });
    await firm.service.sendPaymentAndWait(bytes);
    await assert.rejects(firm.service.sendPayment(other), { code: "request-id-reused" });
    assert.equal(firm.chain.transactions.size, 1);
    await firm.service.close();
  });

  it("a coordinator that builds a second transaction for a paid request gets no votes", async () => {
    const firm = await new SampleFirm().open([200_000n, 200_000n]);
    const bytes = firm.request();
    await firm.service.sendPaymentAndWait(bytes);
    await firm.service.close();
    // The coordinator forgets, on purpose, and tries again with the other coin.
    firm.coordination.values.clear();
    const again = firm.newService("liar");
    const view = firm.account();
    firm.coordination.values.set(
      `/wallets/${firm.walletId}`,
      encodeWallet({
        walletId: firm.walletId,
        name: "treasury",
        scheme: "frost",
        network: "regtest",
        threshold: 3,
        parties: firm.nodes.map(({ nodeId }) => nodeId),
        groupKey: view.groupKey,
        chainCode: view.chainCode,
        epoch: 0,
        keyDigest: new Uint8Array(32),
        createdAtMs: 1,
      }),
    );
    const second = await again.sendPaymentAndWait(bytes);
    assert.equal(second.phase, "rejected");
    assert.match(second.failure?.message ?? "", /request-already-approved/);
    await again.close();
  });

  it("fails with the builder's own codes", async () => {
    const firm = await new SampleFirm().open();
    const cases: [string, Parameters<SampleFirm["request"]>[0]][] = [
      ["insufficient-funds", { recipients: [{ address: OUTSIDE, amountSat: 10_000_000n }] }],
      ["amount-below-dust", { recipients: [{ address: OUTSIDE, amountSat: 100n }] }],
      ["address-invalid", { recipients: [{ address: "bcrt1qnonsense", amountSat: 10_000n }] }],
      [
        "address-other-network",
        {
          recipients: [
            { address: "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr", amountSat: 10_000n },
          ],
        },
      ],
      ["max-fee-rate-below-policy", { maxFeeRateSatPerKvb: 999n }],
    ];
    for (const [code, changes] of cases) {
      const view = await firm.service.sendPaymentAndWait(firm.request({ requestId: randomUUID(), ...changes }));
      assert.equal(view.phase, "failed");
      assert.equal(view.failure?.code, code);
    }
    await firm.service.close();
  });

  it("refuses hostile and late requests before anything is recorded", async () => {
    const firm = await new SampleFirm().open();
    const codes: [string, Uint8Array][] = [
      ["request-malformed", new Uint8Array(100).fill(255)],
      ["request-expired", firm.request({ expiresAtMs: BigInt(Date.now() - 1) })],
      ["wallet-unknown", firm.request({ walletId: "nobody" })],
    ];
    for (const [code, bytes] of codes) await assert.rejects(firm.service.sendPayment(bytes), { code });
    await assert.rejects(firm.service.payment(randomUUID()), { code: "payment-unknown" });
    await firm.service.close();
  });

  it("another coordinator resumes at every stage of a crash", async () => {
    const stages = ["voting", "signing", "signed"] as const;
    for (const stage of stages) {
      const firm = await new SampleFirm({ seed: stage }).open();
      let hang = true;
      for (const { nodeId } of firm.nodes) {
        firm.behaviour.set(nodeId, {
          vote: (_, honest, signal) => (hang && stage === "voting" ? never(signal) : honest()),
          sign: (_, honest, signal) => (hang && stage === "signing" ? never(signal) : honest()),
        });
      }
      if (stage === "signed") firm.chain.broadcastError = new Unavailable("chain-silent", "no answer");
      const { paymentId } = await firm.service.sendPayment(firm.request());
      for (;;) {
        const { phase } = await firm.service.payment(paymentId);
        if (phase === stage || (stage === "signed" && phase === "broadcasting")) break;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await firm.service.close();
      hang = false;
      firm.chain.broadcastError = undefined;
      firm.coordination.expire("/locks/");
      firm.service = firm.newService(`after ${stage}`);
      assert.equal(await firm.service.resume(), 1);
      let view = await firm.service.payment(paymentId);
      for await (view of firm.service.watchPayment(paymentId)) if (view.phase === "broadcast") break;
      assert.equal(view.phase, "broadcast", `${stage}: ${JSON.stringify(view.failure)}`);
      assert.equal(firm.chain.transactions.size, 1);
      await firm.service.close();
      assert.deepEqual(firm.errors, []);
    }
  });

  it("lets go when its lock is lost", async () => {
    const firm = await new SampleFirm().open();
    for (const { nodeId } of firm.nodes) firm.behaviour.set(nodeId, { vote: (_, __, signal) => never(signal) });
    const { paymentId } = await firm.service.sendPayment(firm.request());
    while ((await firm.service.payment(paymentId)).phase !== "voting") await new Promise((r) => setTimeout(r, 1));
    firm.coordination.expire("/locks/payments/");
    await firm.service.close();
    const stored = await firm.service.payment(paymentId);
    assert.equal(stored.phase, "voting");
  });

  it("a refused broadcast is retried, then the payment failed and says what that means", async () => {
    const firm = await new SampleFirm().open();
    firm.chain.broadcastError = new InvalidInput("min-relay-fee", "too low");
    const view = await firm.service.sendPaymentAndWait(firm.request());
    assert.equal(view.phase, "failed");
    assert.equal(view.failure?.code, "min-relay-fee");
    assert.match(view.failure?.message ?? "", /valid until one of its inputs is spent/);
    assert.ok(view.rawTransaction);
    await firm.service.close();
  });

  it("a certificate with the votes of others does not make a node sign what it rejected", async () => {
    const firm = await new SampleFirm({ threshold: 3 }).open();
    const guard = firm.guards.get("node-1");
    assert.ok(guard);
    let refused: unknown;
    firm.behaviour.set("node-1", { vote: async () => Promise.reject(new Unavailable("busy", "not now")) });
    firm.behaviour.set("node-2", {
      sign: async (order, honest) => {
        refused = await guard.authorize(order.proposal, order.certificate).catch((error: unknown) => error);
        return honest();
      },
    });
    firm.behaviour.set("node-5", { vote: async () => Promise.reject(new Unavailable("busy", "not now")) });
    await firm.service.sendPaymentAndWait(firm.request());
    assert.ok(refused instanceof InvalidInput);
    assert.equal(refused.code, "own-ballot-missing");
    await firm.service.close();
  });
});
