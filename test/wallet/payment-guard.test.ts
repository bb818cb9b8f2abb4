import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import {
  type Ballot,
  BallotSchema,
  type PaymentProposal,
  PaymentProposalSchema,
  Verdict,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { assembleCertificate, REPLAY_WINDOW_MS } from "../../src/consensus/approval-certificate.js";
import { DEFAULT_POLICY } from "../../src/consensus/policy.js";
import { MemoryVoteStore, type VoteRecord } from "../../src/consensus/vote-ledger.js";
import { Unavailable } from "../../src/crypto/fault.js";
import { isCheckedPayment } from "../../src/wallet/payment-check.js";
import type { PaymentGuard } from "../../src/wallet/payment-guard.js";
import { buildTransaction } from "../../src/wallet/transaction-builder.js";
import { SampleFirm } from "./sample-firm.js";
import { OUTSIDE, type RequestChanges, signedRequest } from "./sample-payment.js";
import { seededRandom } from "./sample-wallet.js";

interface ProposalChanges {
  readonly request?: RequestChanges;
  readonly proposal?: Partial<PaymentProposal>;
  /** Which of the wallet's coins may be spent. */
  readonly coins?: readonly number[];
}

class Proposals {
  readonly firm: SampleFirm;
  constructor(firm: SampleFirm) {
    this.firm = firm;
  }

  static async open(options: ConstructorParameters<typeof SampleFirm>[0] = {}): Promise<Proposals> {
    return new Proposals(await new SampleFirm(options).open([200_000n, 210_000n, 220_000n]));
  }

  make({ request: changes = {}, proposal = {}, coins = [0, 1, 2] }: ProposalChanges = {}): PaymentProposal {
    const nowMs = Date.now();
    const recipients = changes.recipients ?? [{ address: OUTSIDE, amountSat: 150_000n }];
    const request = signedRequest({
      walletId: this.firm.walletId,
      createdAtMs: BigInt(nowMs - 100),
      expiresAtMs: BigInt(nowMs + 600_000),
      ...changes,
      recipients,
    });
    const account = this.firm.account();
    const own = [...this.firm.chain.outputs.values()].map((output, index) => ({
      ...output,
      path: { change: false, index },
    }));
    const built = buildTransaction(
      {
        account,
        recipients,
        mark: undefined,
        coins: own.filter((_, index) => coins.includes(index)),
        feeRateSatPerKvb: 2_000n,
        longTermFeeRateSatPerKvb: 10_000n,
        maxInputs: 10,
        changeIndex: 0,
        tipHeight: 200,
      },
      seededRandom("guard"),
    );
    return create(PaymentProposalSchema, {
      request,
      psbt: built.psbt,
      policyVersion: 1n,
      expiresAtMs: BigInt(nowMs + 30_000),
      ...proposal,
    });
  }

  guard(index = 0): PaymentGuard {
    const guard = this.firm.guards.get(`node-${index + 1}`);
    assert.ok(guard);
    return guard;
  }

  votes(proposal: PaymentProposal, count = 3): Promise<Ballot[]> {
    return Promise.all(Array.from({ length: count }, (_, index) => this.guard(index).vote(proposal)));
  }
}

describe("payment guard", () => {
  it("approves, and hands the payment out only for a certificate with its own vote", async () => {
    const proposals = await Proposals.open();
    const proposal = proposals.make();
    const ballots = await proposals.votes(proposal);
    assert.ok(ballots.every(({ verdict }) => verdict === Verdict.APPROVE));
    const certificate = assembleCertificate(ballots);
    assert.ok(isCheckedPayment(await proposals.guard().authorize(proposal, certificate)));
    await assert.rejects(proposals.guard(3).authorize(proposal, certificate), { code: "own-ballot-missing" });
    const few = assembleCertificate(ballots.slice(0, 2));
    await assert.rejects(proposals.guard().authorize(proposal, few), { code: "too-few-ballots" });
    proposals.firm.banned.add("node-3");
    await assert.rejects(proposals.guard().authorize(proposal, certificate), { code: "banned-voter" });
  });

  it("a certificate does not fit a proposal that was changed after the vote", async () => {
    const proposals = await Proposals.open();
    const request = { requestId: randomUUID() };
    const voted = proposals.make({ request });
    const certificate = assembleCertificate(await proposals.votes(voted));
    const { request: signed } = voted;
    assert.ok(signed);
    const changed = [
      create(PaymentProposalSchema, { ...voted, psbt: proposals.make({ request, coins: [2] }).psbt }),
      create(PaymentProposalSchema, { ...voted, expiresAtMs: voted.expiresAtMs + 1n }),
    ];
    for (const proposal of changed) {
      await assert.rejects(proposals.guard().authorize(proposal, certificate), { code: "other-proposal" });
    }
    const richer = [{ address: OUTSIDE, amountSat: 160_000n }];
    const other = proposals.make({ request: { ...request, recipients: richer } });
    const mixed = create(PaymentProposalSchema, { ...voted, psbt: other.psbt });
    await assert.rejects(proposals.guard().authorize(mixed, certificate), { code: "payment-not-approved" });
    // What was remembered at the vote counts for exactly those bytes.
    const forged = create(PaymentProposalSchema, { ...voted, request: { ...signed, signature: new Uint8Array(64) } });
    await assert.rejects(proposals.guard().authorize(forged, certificate), { code: "request-forged" });
    assert.ok(isCheckedPayment(await proposals.guard().authorize(voted, certificate)));
  });

  it("verifies every ballot that is not the very one that it cast itself", async () => {
    const proposals = await Proposals.open();
    const proposal = proposals.make();
    const ballots = await proposals.votes(proposal);
    const own = ballots[0]?.signature ?? new Uint8Array();
    const forged = Uint8Array.from(own, (byte, index) => (index === 63 ? byte ^ 1 : byte));
    for (const signature of [own, forged, new Uint8Array(64)]) {
      for (const [voter, ballot] of ballots.entries()) {
        if (voter === 0 && signature === own) continue;
        const changed = ballots.with(voter, create(BallotSchema, { ...ballot, signature }));
        await assert.rejects(proposals.guard().authorize(proposal, assembleCertificate(changed)), {
          code: "forged-ballot",
        });
      }
    }
    assert.ok(isCheckedPayment(await proposals.guard().authorize(proposal, assembleCertificate(ballots))));
  });

  it("gives the same ballot again, also when asked twice at once", async () => {
    const proposals = await Proposals.open();
    const proposal = proposals.make();
    const [first, second] = await Promise.all([proposals.guard().vote(proposal), proposals.guard().vote(proposal)]);
    assert.deepEqual(first, second);
    proposals.firm.policy = { ...DEFAULT_POLICY, maxPaymentSat: 1n };
    assert.deepEqual(await proposals.guard().vote(proposal), first);
  });

  it("two transactions for one request: the second is approved only when both cannot confirm", async () => {
    const proposals = await Proposals.open();
    const request = { requestId: randomUUID() };
    const guard = proposals.guard();
    assert.equal((await guard.vote(proposals.make({ request, coins: [0] }))).verdict, Verdict.APPROVE);
    const disjoint = await guard.vote(proposals.make({ request, coins: [1] }));
    assert.equal(disjoint.verdict, Verdict.REJECT);
    assert.deepEqual(disjoint.reasons, ["request-already-approved"]);
    const again = proposals.make({ request, coins: [0], proposal: { expiresAtMs: BigInt(Date.now() + 40_000) } });
    assert.equal((await guard.vote(again)).verdict, Verdict.APPROVE);
  });

  it("two transactions for one request at the same moment: one is approved", async () => {
    const proposals = await Proposals.open();
    const request = { requestId: randomUUID() };
    const both = [0, 1].map((coin) => proposals.guard().vote(proposals.make({ request, coins: [coin] })));
    const verdicts = (await Promise.all(both)).map(({ verdict }) => verdict).sort();
    assert.deepEqual(verdicts, [Verdict.APPROVE, Verdict.REJECT]);
  });

  it("daily limits hold for votes that overlap", async () => {
    const proposals = await Proposals.open({ policy: { ...DEFAULT_POLICY, maxDailySat: 300_000n } });
    const asked = [0, 1, 2].map((coin) =>
      proposals.guard().vote(proposals.make({ request: { requestId: randomUUID() }, coins: [coin] })),
    );
    const ballots = await Promise.all(asked);
    const rejected = ballots.filter(({ verdict }) => verdict === Verdict.REJECT);
    assert.deepEqual(
      rejected.map(({ reasons }) => reasons),
      [["daily-amount-above-limit"]],
    );
  });

  it("rejects proposals out of their time and under another policy", async () => {
    const proposals = await Proposals.open();
    const nowMs = Date.now();
    const cases: [string, Partial<PaymentProposal>][] = [
      ["proposal-expired", { expiresAtMs: BigInt(nowMs - 1) }],
      ["proposal-expiry-too-far", { expiresAtMs: BigInt(nowMs + REPLAY_WINDOW_MS + 1_000) }],
      ["policy-version-differs", { policyVersion: 2n }],
    ];
    for (const [reason, proposal] of cases) {
      const ballot = await proposals.guard().vote(proposals.make({ proposal }));
      assert.deepEqual([...ballot.reasons], [reason]);
    }
  });

  it("has nothing to vote on for forged requests, rubbish and strangers' wallets", async () => {
    const proposals = await Proposals.open();
    const good = proposals.make();
    assert.ok(good.request);
    const forged = { ...good.request, signature: new Uint8Array(64) };
    const cases: [string, PaymentProposal][] = [
      ["request-forged", { ...good, request: forged }],
      ["psbt-malformed", { ...good, psbt: new Uint8Array(9) }],
      ["wallet-unknown", proposals.make({ request: { walletId: "other" } })],
      ["request-malformed", create(PaymentProposalSchema, { psbt: good.psbt })],
    ];
    for (const [code, proposal] of cases) await assert.rejects(proposals.guard().vote(proposal), { code });
  });

  it("a vote that is not durable does not leave", async () => {
    const proposals = await Proposals.open();
    class FullDisk extends MemoryVoteStore {
      override async record(_: VoteRecord): Promise<void> {
        throw new Unavailable("vote-not-recorded", "disk full");
      }
    }
    const [node] = proposals.firm.nodes;
    assert.ok(node);
    const guard = proposals.firm.guard(node, new FullDisk());
    await assert.rejects(guard.vote(proposals.make()), { code: "vote-not-recorded" });
  });

  it("after a restart: checks again and signs with its durable vote; without it, it does not", async () => {
    const proposals = await Proposals.open();
    const { firm } = proposals;
    const [node] = firm.nodes;
    assert.ok(node);
    const votes = new MemoryVoteStore();
    firm.guards.set(node.nodeId, firm.guard(node, votes));
    const proposal = proposals.make();
    const certificate = assembleCertificate(await proposals.votes(proposal));
    const restarted = firm.guard(node, votes);
    assert.ok(isCheckedPayment(await restarted.authorize(proposal, certificate)));
    const restored = firm.guard(node, new MemoryVoteStore());
    await assert.rejects(restored.authorize(proposal, certificate), { code: "not-approved-here" });
    firm.chain.outputs.clear();
    await assert.rejects(firm.guard(node, votes).authorize(proposal, certificate), { code: "payment-not-approved" });
  });

  it("does not sign after the policy has changed", async () => {
    const proposals = await Proposals.open();
    const proposal = proposals.make();
    const certificate = assembleCertificate(await proposals.votes(proposal));
    proposals.firm.policy = { ...DEFAULT_POLICY, version: 2n };
    await assert.rejects(proposals.guard().authorize(proposal, certificate), { code: "policy-version-differs" });
  });
});
