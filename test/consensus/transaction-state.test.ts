import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  createdState,
  FINAL_PHASES,
  PHASES,
  type Phase,
  RETRIES_MAX,
  recovered,
  resume,
  type TransactionEvent,
  type TransactionState,
  transition,
} from "../../src/consensus/transaction-state.js";

const failure = { code: "x", message: "x", culprits: [] };
const psbt = Uint8Array.of(1);
const EVENTS: readonly TransactionEvent[] = [
  { type: "proposed", txid: "aa", psbt, feeSat: 7n, votesExpireAtMs: 99 },
  { type: "approved" },
  { type: "rejected", failure },
  { type: "votes-missing", failure },
  { type: "certificate-expired" },
  { type: "signing-started" },
  { type: "attempt-failed", failure },
  { type: "signed", signedTransaction: Uint8Array.of(2) },
  { type: "broadcast-started" },
  { type: "not-accepted", failure },
  { type: "accepted" },
  { type: "dropped" },
  { type: "confirmed", height: 5 },
  { type: "deadline-passed", failure },
  { type: "abandoned", failure },
];
type EventType = TransactionEvent["type"];

/** The whole machine as a table: what is not here is refused. */
const LEGAL: Readonly<Record<Phase, Partial<Record<EventType, Phase>>>> = {
  created: { proposed: "voting", "deadline-passed": "timed-out", abandoned: "failed" },
  voting: {
    approved: "approved",
    rejected: "rejected",
    "votes-missing": "timed-out",
    "deadline-passed": "timed-out",
    abandoned: "failed",
  },
  approved: {
    "signing-started": "signing",
    "certificate-expired": "created",
    "deadline-passed": "timed-out",
    abandoned: "failed",
  },
  signing: { signed: "signed", "attempt-failed": "approved", "deadline-passed": "timed-out", abandoned: "failed" },
  signed: { "broadcast-started": "broadcasting" },
  broadcasting: { accepted: "broadcast", "not-accepted": "signed" },
  broadcast: { confirmed: "confirmed", dropped: "signed" },
  confirmed: {},
  rejected: {},
  "timed-out": {},
  failed: {},
};

const inPhase = (phase: Phase): TransactionState => ({ ...createdState(1), phase });

function after(events: readonly TransactionEvent[]): TransactionState {
  return events.reduce((state, event) => {
    const result = transition(state, event, 2);
    assert.ok(result.legal, `${event.type} in ${state.phase}`);
    return result.state;
  }, createdState(1));
}

describe("transaction state", () => {
  it("every pair of phase and event does what the table says", () => {
    for (const phase of PHASES) {
      for (const event of EVENTS) {
        const result = transition(inPhase(phase), event, 2);
        const expected = LEGAL[phase][event.type];
        assert.equal(result.legal ? result.state.phase : undefined, expected, `${event.type} in ${phase}`);
        if (result.legal) assert.equal(result.state.changedAtMs, 2);
        else if (FINAL_PHASES.has(phase)) assert.equal(result.refusal.code, "payment-final");
      }
    }
  });

  it("a signed transaction cannot be called back", () => {
    for (const phase of ["signed", "broadcasting", "broadcast"] as const) {
      for (const type of ["deadline-passed", "abandoned"] as const) {
        const result = transition(inPhase(phase), { type, failure }, 2);
        assert.ok(!result.legal && result.refusal.code === "signed-cannot-be-abandoned");
      }
    }
  });

  it("keeps what events bring", () => {
    const state = after([
      { type: "proposed", txid: "aa", psbt, feeSat: 7n, votesExpireAtMs: 99 },
      { type: "approved" },
      { type: "signing-started" },
      { type: "signed", signedTransaction: Uint8Array.of(2) },
      { type: "broadcast-started" },
      { type: "accepted" },
      { type: "confirmed", height: 5 },
    ]);
    assert.deepEqual(state, {
      phase: "confirmed",
      txid: "aa",
      psbt,
      feeSat: 7n,
      votesExpireAtMs: 99,
      signedTransaction: Uint8Array.of(2),
      signingRetries: 0,
      broadcastRetries: 0,
      confirmedHeight: 5,
      failure: undefined,
      changedAtMs: 2,
    });
  });

  it("three retries of signing and of broadcasting, then it fails", () => {
    for (const [phase, event, retry] of [
      ["signing", "attempt-failed", "signing-started"],
      ["broadcasting", "not-accepted", "broadcast-started"],
    ] as const) {
      let state = inPhase(phase);
      for (let attempt = 0; attempt <= RETRIES_MAX; attempt++) {
        const failed = transition(state, { type: event, failure }, 2);
        assert.ok(failed.legal);
        if (attempt === RETRIES_MAX) {
          assert.equal(failed.state.phase, "failed");
          assert.deepEqual(failed.state.failure, failure);
          break;
        }
        const again = transition(failed.state, { type: retry }, 2);
        assert.ok(again.legal);
        state = again.state;
      }
    }
  });

  it("resumes where it must after a crash", () => {
    const built = { psbt, txid: "aa" };
    const expected: Record<Phase, string> = {
      created: "build",
      voting: "vote",
      approved: "vote",
      signing: "vote",
      signed: "broadcast",
      broadcasting: "broadcast",
      broadcast: "track",
      confirmed: "nothing",
      rejected: "nothing",
      "timed-out": "nothing",
      failed: "nothing",
    };
    for (const phase of PHASES) assert.equal(resume({ ...inPhase(phase) }), expected[phase]);
    assert.equal(resume({ ...inPhase("created"), ...built }), "vote");
    for (const phase of ["voting", "approved", "signing"] as const) {
      const state = recovered({ ...inPhase(phase), ...built, votesExpireAtMs: 5 });
      assert.equal(state.phase, "created");
      assert.equal(state.votesExpireAtMs, 0);
      assert.deepEqual(state.psbt, psbt);
    }
    assert.equal(recovered(inPhase("broadcasting")).phase, "signed");
  });

  it("any sequence of events keeps the invariants", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...EVENTS), { maxLength: 60 }), (events) => {
        let state = createdState(0);
        for (const event of events) {
          const result = transition(state, event, 1);
          if (!result.legal) continue;
          assert.ok(!FINAL_PHASES.has(state.phase));
          state = result.state;
          assert.ok(state.signingRetries <= RETRIES_MAX && state.broadcastRetries <= RETRIES_MAX);
          const signed = ["signed", "broadcasting", "broadcast", "confirmed"].includes(state.phase);
          if (signed) assert.ok(state.signedTransaction.length > 0);
          assert.equal(state.failure !== undefined, ["rejected", "timed-out", "failed"].includes(state.phase));
        }
      }),
      { numRuns: 500 },
    );
  });
});
