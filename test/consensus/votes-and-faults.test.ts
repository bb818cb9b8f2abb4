import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Ballot, Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { signBallot } from "../../src/consensus/ballot.js";
import {
  type DetectorState,
  EVIDENCE_MAX_BYTES,
  newDetector,
  type Observation,
  observe,
  provesDoubleVote,
  VIOLATIONS_MAX,
} from "../../src/consensus/byzantine-detector.js";
import {
  type ApprovedRequest,
  DAY_MS,
  isForgettable,
  MemoryVoteStore,
  refuseApproval,
  TRANSACTIONS_PER_REQUEST_MAX,
  withApproval,
} from "../../src/consensus/vote-ledger.js";
import { rosterOf, sampleNode, sampleNodes, verifySample } from "./electorate.js";

const NOW_MS = 1_800_000_000_000;
const nodes = sampleNodes(4);

function ballotOf(nodeId: string, verdict: Verdict.APPROVE | Verdict.REJECT, digest = 1): Ballot {
  return signBallot(
    {
      walletId: "w",
      proposalDigest: new Uint8Array(32).fill(digest),
      policyVersion: 1n,
      expiresAtMs: BigInt(NOW_MS + 1_000),
      verdict,
      reasons: verdict === Verdict.REJECT ? ["no"] : [],
      voter: nodeId,
    },
    sampleNode(nodeId).sign,
  );
}

const FIRST: Omit<ApprovedRequest, "transactions"> = {
  requestId: "r",
  walletId: "w",
  amountSat: 10n,
  approvedAtMs: NOW_MS,
  expiresAtMs: NOW_MS + 1_000,
  changeIndex: 2,
};
const tx = (txid: string, ...outpoints: string[]) => ({ txid, outpoints });

describe("vote ledger", () => {
  it("a second transaction for a request must conflict with every earlier one", () => {
    let entry: ApprovedRequest | undefined;
    assert.equal(refuseApproval(entry, tx("a", "1", "2")), undefined);
    entry = withApproval(entry, FIRST, tx("a", "1", "2"));
    assert.equal(refuseApproval(entry, tx("b", "3"))?.code, "request-already-approved");
    assert.equal(refuseApproval(entry, tx("a", "1", "2")), undefined);
    assert.equal(refuseApproval(entry, tx("b", "2", "3")), undefined);
    entry = withApproval(entry, { ...FIRST, changeIndex: 5 }, tx("b", "2", "3"));
    assert.equal(entry.changeIndex, 5);
    // Conflicts with b but not with a: a and c could both confirm.
    assert.equal(refuseApproval(entry, tx("c", "3", "4"))?.code, "request-already-approved");
    assert.equal(refuseApproval(entry, tx("c", "2")), undefined);
  });

  it("the same transaction again changes nothing, and there are at most 16", () => {
    let entry = withApproval(undefined, FIRST, tx("a", "1"));
    assert.equal(withApproval(entry, FIRST, tx("a", "1")), entry);
    for (let index = 1; index < TRANSACTIONS_PER_REQUEST_MAX; index++) {
      assert.equal(refuseApproval(entry, tx(`t${index}`, "1")), undefined);
      entry = withApproval(entry, FIRST, tx(`t${index}`, "1"));
    }
    assert.equal(refuseApproval(entry, tx("one-more", "1"))?.code, "too-many-transactions");
  });

  it("forgets a request only when it is void and a day old", () => {
    const entry = withApproval(undefined, FIRST, tx("a", "1"));
    assert.ok(!isForgettable(entry, NOW_MS + DAY_MS - 1));
    assert.ok(isForgettable(entry, NOW_MS + DAY_MS));
    assert.ok(!isForgettable({ ...entry, expiresAtMs: NOW_MS + 2 * DAY_MS }, NOW_MS + DAY_MS));
  });

  it("memory store: remembers ballots, counts a day, prunes, and keeps the highest change index", async () => {
    const store = new MemoryVoteStore();
    const ballot = ballotOf("node-1", Verdict.APPROVE);
    const approved = withApproval(undefined, FIRST, tx("a", "1"));
    await store.record({ ballot, approved });
    await store.record({ ballot: ballotOf("node-1", Verdict.REJECT, 2), approved: undefined });
    assert.equal(await store.ballot(ballot.proposalDigest), ballot);
    assert.deepEqual(await store.approvedRequest("r"), approved);
    const query = { walletId: "w", sinceMs: NOW_MS - DAY_MS, withoutRequestId: "other" };
    assert.deepEqual(await store.spentSince(query), { amountSat: 10n, payments: 1 });
    assert.deepEqual(await store.spentSince({ ...query, withoutRequestId: "r" }), { amountSat: 0n, payments: 0 });
    assert.deepEqual(await store.spentSince({ ...query, walletId: "v" }), { amountSat: 0n, payments: 0 });
    assert.deepEqual(await store.spentSince({ ...query, sinceMs: NOW_MS }), { amountSat: 0n, payments: 0 });
    await store.prune(NOW_MS + DAY_MS);
    assert.equal(await store.ballot(ballot.proposalDigest), undefined);
    assert.equal(await store.approvedRequest("r"), undefined);
    assert.equal(await store.highestChangeIndex("w"), 2);
    assert.equal(await store.highestChangeIndex("v"), -1);
  });
});

describe("byzantine detector", () => {
  const start = (): DetectorState => newDetector(rosterOf(nodes));
  const see = (state: DetectorState, observation: Observation) => observe(state, observation, NOW_MS, verifySample);
  const double = (nodeId: string): Observation => ({
    type: "double-vote",
    nodeId,
    first: ballotOf(nodeId, Verdict.APPROVE),
    second: ballotOf(nodeId, Verdict.REJECT),
  });

  it("a double vote is proof: ban, with both ballots as evidence that anyone can check", () => {
    const { state, decisions } = see(start(), double("node-2"));
    assert.deepEqual(
      decisions.map(({ type }) => type),
      ["record", "ban"],
    );
    assert.ok(state.banned.has("node-2"));
    const [violation] = state.violations.get("node-2") ?? [];
    assert.equal(violation?.evidence.length, 2);
    assert.ok(violation.proven);
    const again = see(state, double("node-2"));
    assert.deepEqual(
      again.decisions.map(({ type }) => type),
      ["record"],
    );
  });

  it("what is no double vote accuses nobody", () => {
    const [approve, reject] = [ballotOf("node-2", Verdict.APPROVE), ballotOf("node-2", Verdict.REJECT)];
    const pairs: [Ballot, Ballot][] = [
      [approve, approve],
      [approve, ballotOf("node-2", Verdict.REJECT, 9)],
      [approve, ballotOf("node-3", Verdict.REJECT)],
      [approve, { ...reject, signature: approve.signature }],
      [
        { ...approve, voter: "node-3" },
        { ...reject, voter: "node-3" },
      ],
      [approve, { ...reject, walletId: "other" }],
    ];
    for (const [first, second] of pairs) {
      const { state, decisions } = see(start(), { type: "double-vote", nodeId: first.voter, first, second });
      assert.equal(decisions.length, 0);
      assert.equal(state.violations.size, 0);
    }
    assert.equal(see(start(), { ...double("node-2"), nodeId: "node-3" } as Observation).decisions.length, 0);
    assert.ok(!provesDoubleVote({ first: approve, second: reject }, sampleNode("node-3").publicKey, verifySample));
  });

  it("session evidence bans only when the judge upheld it", () => {
    const evidence = { type: "session-evidence", nodeId: "node-1", evidence: Uint8Array.of(1) } as const;
    const upheld = see(start(), { ...evidence, check: "equivocation", upheld: true });
    assert.equal(upheld.state.violations.get("node-1")?.[0]?.kind, "equivocation");
    assert.ok(upheld.state.banned.has("node-1"));
    const dismissed = see(start(), { ...evidence, check: "share", upheld: false });
    assert.equal(dismissed.state.violations.get("node-1")?.[0]?.kind, "protocol-fault");
    assert.equal(dismissed.state.banned.size, 0);
    const huge = { ...evidence, evidence: new Uint8Array(EVIDENCE_MAX_BYTES + 1), check: "share", upheld: true };
    assert.equal(see(start(), huge).state.banned.size, 0);
    const atLimit = { ...huge, evidence: new Uint8Array(EVIDENCE_MAX_BYTES) };
    assert.equal(see(start(), atLimit).state.banned.size, 1);
  });

  it("bad signatures and rubbish are recorded and never ban, however many", () => {
    let state = start();
    for (let count = 0; count < 2 * VIOLATIONS_MAX; count++) {
      for (const type of ["invalid-signature", "malformed-message"] as const) {
        const result = see(state, { type, nodeId: "node-1", detail: "x".repeat(10_000) });
        assert.deepEqual(
          result.decisions.map((decision) => decision.type),
          ["record"],
        );
        ({ state } = result);
      }
    }
    assert.equal(state.banned.size, 0);
    const kept = state.violations.get("node-1") ?? [];
    assert.equal(kept.length, VIOLATIONS_MAX);
    assert.ok(kept.every(({ detail }) => detail.length <= 200));
  });

  it("silence is counted and nothing else, a thousand times", () => {
    let state = start();
    for (let count = 0; count < 1_000; count++) {
      const result = see(state, { type: "timeout", nodeId: "node-1", detail: "vote" });
      assert.deepEqual(
        result.decisions.map(({ type }) => type),
        ["note-silence"],
      );
      ({ state } = result);
    }
    assert.equal(state.silences.get("node-1"), 1_000);
    assert.equal(state.violations.size, 0);
    assert.equal(state.banned.size, 0);
  });

  it("a stranger cannot fill the books", () => {
    for (const type of ["timeout", "malformed-message", "invalid-signature"] as const) {
      assert.deepEqual(see(start(), { type, nodeId: "stranger", detail: "" }), { state: start(), decisions: [] });
    }
    const stranger = see(start(), double("stranger"));
    assert.equal(stranger.decisions.length, 0);
  });

  it("says so when more nodes are banned than the firm tolerates", () => {
    const one = see(start(), double("node-1"));
    const [, first] = one.decisions;
    assert.ok(first?.type === "ban" && !first.beyondTolerance);
    const [, second] = see(one.state, double("node-2")).decisions;
    assert.ok(second?.type === "ban" && second.beyondTolerance);
  });
});
