import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  type ApprovalCertificate,
  ApprovalCertificateSchema,
  type Ballot,
  Verdict,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import {
  assembleCertificate,
  type CertificateExpectation,
  type CertificateRefusalCode,
  REPLAY_WINDOW_MS,
  verifyCertificate,
} from "../../src/consensus/approval-certificate.js";
import { type BallotContent, REASONS_MAX, signBallot, verifyBallot } from "../../src/consensus/ballot.js";
import { type ProposalFacts, proposalDigest } from "../../src/consensus/proposal.js";
import { approvalsNeeded, rejectionsNeeded, toleratedFaults } from "../../src/consensus/quorum.js";
import { castBallot, expireTally, openTally, type Tally } from "../../src/consensus/vote-tally.js";
import { rosterOf, type SampleNode, sampleNode, sampleNodes, verifySample } from "./electorate.js";

const NOW_MS = 1_800_000_000_000;
const nodes = sampleNodes(5);
const DIGEST = new Uint8Array(32).fill(7);

function content(voter: string, changes: Partial<BallotContent> = {}): BallotContent {
  return {
    walletId: "wallet-1",
    proposalDigest: DIGEST,
    policyVersion: 4n,
    expiresAtMs: BigInt(NOW_MS + 30_000),
    verdict: Verdict.APPROVE,
    reasons: [],
    voter,
    ...changes,
  };
}

const vote = (node: SampleNode, changes: Partial<BallotContent> = {}): Ballot =>
  signBallot(content(node.nodeId, changes), node.sign);
const votes = (count: number, changes: Partial<BallotContent> = {}): Ballot[] =>
  nodes.slice(0, count).map((node) => vote(node, changes));

const EXPECTED: CertificateExpectation = {
  walletId: "wallet-1",
  proposalDigest: DIGEST,
  policyVersion: 4n,
  expiresAtMs: BigInt(NOW_MS + 30_000),
  threshold: 3,
  roster: rosterOf(nodes),
  banned: new Set(),
  nowMs: NOW_MS,
  ownNodeId: "node-1",
};

function codeOf(
  ballots: readonly Ballot[] | ApprovalCertificate,
  changes: Partial<CertificateExpectation> = {},
): CertificateRefusalCode | "valid" {
  const certificate = "ballots" in ballots ? ballots : create(ApprovalCertificateSchema, { ballots: [...ballots] });
  const verdict = verifyCertificate(certificate, { ...EXPECTED, ...changes }, verifySample);
  return verdict.valid ? "valid" : verdict.refusal.code;
}

function first(ballots: readonly Ballot[]): Ballot {
  const [ballot] = ballots;
  assert.ok(ballot);
  return ballot;
}

describe("quorum", () => {
  it("is max(t, 2f+1) approvals, and rejection when approval is out of reach", () => {
    const cases: [number, number, number, number, number][] = [
      // n, t, f, approvals, rejections
      [2, 2, 0, 2, 1],
      [3, 2, 0, 2, 2],
      [4, 2, 1, 3, 2],
      [5, 3, 1, 3, 3],
      [7, 3, 2, 5, 3],
      [7, 6, 2, 6, 2],
      [10, 7, 3, 7, 4],
    ];
    for (const [parties, threshold, faults, approvals, rejections] of cases) {
      assert.equal(toleratedFaults(parties), faults);
      assert.equal(approvalsNeeded({ parties, threshold }), approvals);
      assert.equal(rejectionsNeeded({ parties, threshold }), rejections);
    }
  });
});

describe("ballot", () => {
  it("every field is signed", () => {
    const node = nodes[0] ?? sampleNode("x");
    const ballot = vote(node, { verdict: Verdict.REJECT, reasons: ["fee-too-high"] });
    assert.ok(verifyBallot(ballot, node.publicKey, verifySample));
    const changes: Partial<Ballot>[] = [
      { walletId: "wallet-2" },
      { proposalDigest: new Uint8Array(32) },
      { policyVersion: 5n },
      { expiresAtMs: 1n },
      { verdict: Verdict.APPROVE },
      { reasons: [] },
      { reasons: ["fee-too-high", ""] },
      { reasons: ["fee-too-hig", "h"] },
      { voter: "node-2" },
      { signature: new Uint8Array(64) },
      { signature: new Uint8Array(0) },
      { proposalDigest: new Uint8Array(31) },
      { verdict: Verdict.UNSPECIFIED },
      { voter: "" },
    ];
    for (const change of changes) assert.ok(!verifyBallot({ ...ballot, ...change }, node.publicKey, verifySample));
    assert.ok(!verifyBallot(ballot, sampleNode("node-2").publicKey, verifySample));
  });

  it("carries at most 32 reasons", () => {
    const node = nodes[0] ?? sampleNode("x");
    const reasons = Array.from({ length: REASONS_MAX + 5 }, (_, index) => `reason-${index}`);
    assert.equal(vote(node, { verdict: Verdict.REJECT, reasons }).reasons.length, REASONS_MAX);
  });
});

describe("approval certificate, 3 of 5", () => {
  it("holds with three to five approvals of distinct parties, in any order", () => {
    for (const count of [3, 4, 5]) assert.equal(codeOf(votes(count)), "valid");
    assert.equal(codeOf(votes(3).reverse()), "valid");
    assert.equal(
      codeOf(assembleCertificate([...votes(3), vote(sampleNode("node-4"), { verdict: Verdict.REJECT })])),
      "valid",
    );
  });

  it("needs no more ballots than the signers' and enough for the quorum", () => {
    const voters = (enough: { signers: readonly string[]; needed: number }, count = 5): readonly string[] => {
      const certificate = assembleCertificate(votes(count).reverse(), enough);
      if (count === 5) assert.equal(codeOf(certificate), "valid");
      return certificate.ballots.map(({ voter }) => voter);
    };
    const [a, b, c, d, e] = votes(5).map(({ voter }) => voter);
    assert.ok(a !== undefined && b !== undefined && c !== undefined && d !== undefined && e !== undefined);
    assert.deepEqual(voters({ signers: [a, c, e], needed: 3 }), [a, c, e]);
    assert.deepEqual(voters({ signers: [a, b], needed: 3 }), [a, b, e]);
    assert.deepEqual(voters({ signers: [a, b, c], needed: 4 }), [a, b, c, e]);
    assert.deepEqual(voters({ signers: [a, b, c], needed: 3 }, 2), [a, b], "what is missing stays missing");
  });

  it("t-1 votes are too few, and so is t when 2f+1 is more", () => {
    assert.equal(codeOf(votes(2)), "too-few-ballots");
    assert.equal(codeOf([]), "too-few-ballots");
    const seven = sampleNodes(7);
    const roster = rosterOf(seven);
    const four = seven.slice(0, 4).map((node) => vote(node));
    assert.equal(codeOf(four, { roster }), "too-few-ballots");
    assert.equal(codeOf([...four, vote(seven[4] ?? sampleNode("x"))], { roster }), "valid");
  });

  it("a voter counts once", () => {
    const [a, b] = votes(2);
    assert.ok(a && b);
    assert.equal(codeOf([a, b, b]), "duplicate-voter");
    assert.equal(codeOf(Array.from({ length: 11 }, () => a)), "too-many-ballots");
  });

  it("a forged ballot spoils it, also as an additional one", () => {
    const forged = { ...vote(sampleNode("node-4")), signature: first(votes(1)).signature };
    assert.equal(codeOf([...votes(3), forged]), "forged-ballot");
    const borrowed = { ...first(votes(1)), voter: "node-5" };
    assert.equal(codeOf([...votes(2), borrowed]), "forged-ballot");
  });

  it("expires, and cannot be made to last", () => {
    const ballots = votes(3);
    assert.equal(codeOf(ballots, { nowMs: NOW_MS + 29_999 }), "valid");
    assert.equal(codeOf(ballots, { nowMs: NOW_MS + 30_000 }), "expired");
    const expiresAtMs = BigInt(NOW_MS + REPLAY_WINDOW_MS);
    assert.equal(codeOf(votes(3, { expiresAtMs }), { expiresAtMs }), "valid");
    const far = expiresAtMs + 1n;
    assert.equal(codeOf(votes(3, { expiresAtMs: far }), { expiresAtMs: far }), "expiry-too-far");
    assert.equal(codeOf(votes(3, { expiresAtMs: far })), "other-expiry");
  });

  it("is for one wallet, one transaction and one version of the policy", () => {
    assert.equal(codeOf(votes(3, { walletId: "wallet-2" })), "other-wallet");
    assert.equal(codeOf(votes(3, { proposalDigest: new Uint8Array(32) })), "other-proposal");
    assert.equal(codeOf(votes(3, { policyVersion: 3n })), "other-policy");
  });

  it("only unbanned parties of the wallet vote", () => {
    assert.equal(codeOf([...votes(3), vote(sampleNode("stranger"))]), "unknown-voter");
    assert.equal(codeOf(votes(3), { banned: new Set(["node-2"]) }), "banned-voter");
  });

  it("a rejection is no approval", () => {
    assert.equal(codeOf([...votes(3), vote(sampleNode("node-4"), { verdict: Verdict.REJECT })]), "not-an-approval");
  });

  it("a signer's own ballot must be in it; an auditor needs none", () => {
    assert.equal(codeOf(votes(3), { ownNodeId: "node-4" }), "own-ballot-missing");
    const { ownNodeId: _, ...auditor } = EXPECTED;
    const certificate = create(ApprovalCertificateSchema, { ballots: votes(3) });
    assert.ok(verifyCertificate(certificate, auditor, verifySample).valid);
  });

  it("a malformed ballot is refused before its signature is looked at", () => {
    const bad = { ...first(votes(1)), reasons: ["x".repeat(65)] };
    assert.equal(codeOf([bad]), "malformed-ballot");
  });

  it("whatever of the proposal changes after the vote, the certificate no longer fits", () => {
    const facts: ProposalFacts = {
      walletId: "wallet-1",
      requestDigest: new Uint8Array(32).fill(1),
      unsignedTransaction: new Uint8Array(100).fill(2),
      sighashes: [new Uint8Array(32).fill(3), new Uint8Array(32).fill(4)],
      policyVersion: 4n,
      expiresAtMs: EXPECTED.expiresAtMs,
    };
    const ballots = votes(3, { proposalDigest: proposalDigest(facts) });
    assert.equal(codeOf(ballots, { proposalDigest: proposalDigest(facts) }), "valid");
    const changed: ProposalFacts[] = [
      { ...facts, walletId: "wallet-2" },
      { ...facts, requestDigest: new Uint8Array(32).fill(9) },
      { ...facts, unsignedTransaction: new Uint8Array(100).fill(9) },
      { ...facts, sighashes: [...facts.sighashes].reverse() },
      { ...facts, sighashes: facts.sighashes.slice(1) },
      { ...facts, policyVersion: 5n },
      { ...facts, expiresAtMs: facts.expiresAtMs + 1n },
    ];
    for (const other of changed) {
      assert.equal(codeOf(ballots, { proposalDigest: proposalDigest(other) }), "other-proposal");
    }
  });

  it("any single mutation of a minimal certificate is refused", () => {
    const keys = [
      "walletId",
      "proposalDigest",
      "policyVersion",
      "expiresAtMs",
      "verdict",
      "voter",
      "signature",
    ] as const;
    fc.assert(
      fc.property(fc.nat({ max: 2 }), fc.constantFrom(...keys), fc.nat({ max: 31 }), (place, key, byte) => {
        const ballots = votes(3);
        const ballot = ballots[place];
        assert.ok(ballot);
        const value = ballot[key];
        const mutate = () => {
          if (value instanceof Uint8Array) return value.map((one, index) => (index === byte ? one ^ 4 : one));
          if (typeof value === "string") return `${value}x`;
          return typeof value === "bigint" ? value + 1n : Verdict.REJECT;
        };
        ballots[place] = { ...ballot, [key]: mutate() } as Ballot;
        assert.notEqual(codeOf(ballots), "valid");
      }),
      { numRuns: 200 },
    );
  });
});

describe("vote tally, 3 of 5", () => {
  const open = (): Tally =>
    openTally({
      walletId: "wallet-1",
      proposalDigest: DIGEST,
      policyVersion: 4n,
      expiresAtMs: BigInt(NOW_MS + 40_000),
      threshold: 3,
      roster: rosterOf(nodes),
      banned: new Set(["node-5"]),
      openedAtMs: NOW_MS,
    });
  const ballotOf = (index: number, verdict: Verdict.APPROVE | Verdict.REJECT = Verdict.APPROVE) =>
    vote(nodes[index] ?? sampleNode("x"), { verdict, expiresAtMs: BigInt(NOW_MS + 40_000) });
  const cast = (tally: Tally, ballot: Ballot) => castBallot(tally, ballot, NOW_MS, verifySample);

  it("approves at the third approval and goes on recording", () => {
    let tally = open();
    for (const index of [0, 1]) ({ tally } = cast(tally, ballotOf(index)));
    assert.equal(tally.outcome, "pending");
    ({ tally } = cast(tally, ballotOf(2)));
    assert.equal(tally.outcome, "approved");
    ({ tally } = cast(tally, ballotOf(3, Verdict.REJECT)));
    assert.equal(tally.outcome, "approved");
    assert.equal(tally.ballots.size, 4);
  });

  it("rejects at n-t+1 rejections", () => {
    let tally = open();
    for (const index of [0, 1]) ({ tally } = cast(tally, ballotOf(index, Verdict.REJECT)));
    assert.equal(tally.outcome, "pending");
    ({ tally } = cast(tally, ballotOf(2, Verdict.REJECT)));
    assert.equal(tally.outcome, "rejected");
  });

  it("times out after 30 s, or when the ballots expire", () => {
    assert.equal(expireTally(open(), NOW_MS + 29_999).outcome, "pending");
    assert.equal(expireTally(open(), NOW_MS + 30_000).outcome, "timed-out");
    assert.equal(expireTally({ ...open(), timeoutMs: 90_000 }, NOW_MS + 40_000).outcome, "timed-out");
  });

  it("repeats count once, and two verdicts are a double vote that keeps the first", () => {
    let { tally } = cast(open(), ballotOf(0));
    assert.equal(cast(tally, ballotOf(0)).cast.type, "repeated");
    const { cast: second, tally: after } = cast(tally, ballotOf(0, Verdict.REJECT));
    assert.equal(second.type, "double-vote");
    tally = after;
    assert.equal(tally.ballots.get("node-1")?.verdict, Verdict.APPROVE);
  });

  it("says why a ballot is refused", () => {
    const tally = open();
    const node = nodes[0] ?? sampleNode("x");
    const good = { expiresAtMs: BigInt(NOW_MS + 40_000) };
    const cases: [string, Ballot][] = [
      ["unknown-voter", vote(sampleNode("stranger"), good)],
      ["banned-voter", ballotOf(4)],
      ["other-wallet", vote(node, { ...good, walletId: "w" })],
      ["other-proposal", vote(node, { ...good, proposalDigest: new Uint8Array(32) })],
      ["other-policy", vote(node, { ...good, policyVersion: 9n })],
      ["other-expiry", vote(node, { expiresAtMs: BigInt(NOW_MS + 1) })],
      ["forged-ballot", { ...ballotOf(0), signature: new Uint8Array(64) }],
    ];
    for (const [code, ballot] of cases) assert.deepEqual(cast(tally, ballot).cast, { type: "refused", code });
    const late = castBallot(tally, ballotOf(0), NOW_MS + 40_000, verifySample).cast;
    assert.deepEqual(late, { type: "refused", code: "expired" });
  });
});
