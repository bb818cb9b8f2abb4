import { type Refusal, refusal } from "./refusal.js";

/**
 * The life of one payment's transaction: a pure `transition(state, event)`. Every state is a plain record that
 * survives a round trip through storage, so a coordinator that takes over knows where to go on (`resume`).
 *
 *     created ─▶ voting ─▶ approved ─▶ signing ─▶ signed ─▶ broadcasting ─▶ broadcast ─▶ confirmed
 *        │         │ ▲________│ ▲_________│         ▲__________│              │
 *        │         │     certificate   attempt      ▲      not accepted       │
 *        │         │       expired      failed      └─────── dropped ─────────┘
 *        ▼         ▼
 *     failed    rejected, timed-out
 */

/** Where a payment stands. The last four never change again. */
export const PHASES = [
  "created",
  "voting",
  "approved",
  "signing",
  "signed",
  "broadcasting",
  "broadcast",
  "confirmed",
  "rejected",
  "timed-out",
  "failed",
] as const;

export type Phase = (typeof PHASES)[number];

export const FINAL_PHASES: ReadonlySet<Phase> = new Set<Phase>(["confirmed", "rejected", "timed-out", "failed"]);

/** Signing attempts after the first, and likewise attempts to broadcast. */
export const RETRIES_MAX = 3;

export interface Failure {
  readonly code: string;
  readonly message: string;
  /** Node ids that are to blame with proof. */
  readonly culprits: readonly string[];
}

export interface TransactionState {
  readonly phase: Phase;
  /** Transaction id as shown to people, hex; empty until proposed. */
  readonly txid: string;
  /** The proposal's PSBT; empty until proposed. */
  readonly psbt: Uint8Array;
  readonly feeSat: bigint;
  /** Ballots and certificate of the latest vote are void after this; 0 until proposed. */
  readonly votesExpireAtMs: number;
  /** The signed transaction; empty until signed. */
  readonly signedTransaction: Uint8Array;
  readonly signingRetries: number;
  readonly broadcastRetries: number;
  readonly confirmedHeight: number;
  readonly failure: Failure | undefined;
  readonly changedAtMs: number;
}

export type TransactionEvent =
  | {
      readonly type: "proposed";
      readonly txid: string;
      readonly psbt: Uint8Array;
      readonly feeSat: bigint;
      readonly votesExpireAtMs: number;
    }
  | { readonly type: "approved" }
  | { readonly type: "rejected"; readonly failure: Failure }
  | { readonly type: "votes-missing"; readonly failure: Failure }
  | { readonly type: "certificate-expired" }
  | { readonly type: "signing-started" }
  | { readonly type: "attempt-failed"; readonly failure: Failure }
  | { readonly type: "signed"; readonly signedTransaction: Uint8Array }
  | { readonly type: "broadcast-started" }
  | { readonly type: "not-accepted"; readonly failure: Failure }
  | { readonly type: "accepted" }
  | { readonly type: "dropped" }
  | { readonly type: "confirmed"; readonly height: number }
  | { readonly type: "deadline-passed"; readonly failure: Failure }
  | { readonly type: "abandoned"; readonly failure: Failure };

export type TransitionRefusalCode = "event-illegal" | "payment-final" | "signed-cannot-be-abandoned";

export type Transition =
  | { readonly legal: true; readonly state: TransactionState }
  | { readonly legal: false; readonly refusal: Refusal<TransitionRefusalCode> };

export function createdState(nowMs: number): TransactionState {
  return {
    phase: "created",
    txid: "",
    psbt: new Uint8Array(0),
    feeSat: 0n,
    votesExpireAtMs: 0,
    signedTransaction: new Uint8Array(0),
    signingRetries: 0,
    broadcastRetries: 0,
    confirmedHeight: 0,
    failure: undefined,
    changedAtMs: nowMs,
  };
}

type Change = Partial<TransactionState> & { readonly phase: Phase };

function fromApproved(event: TransactionEvent, state: TransactionState): Change | undefined {
  if (event.type === "signing-started") return { phase: "signing" };
  // The vote is opened again for the same transaction: what was checked has not changed, only time has passed.
  if (event.type === "certificate-expired") return { ...state, phase: "created", votesExpireAtMs: 0 };
  return undefined;
}

function fromSigning(event: TransactionEvent, state: TransactionState): Change | undefined {
  if (event.type === "signed") return { phase: "signed", signedTransaction: event.signedTransaction };
  if (event.type !== "attempt-failed") return undefined;
  if (state.signingRetries >= RETRIES_MAX) return { phase: "failed", failure: event.failure };
  return { phase: "approved", signingRetries: state.signingRetries + 1 };
}

function fromBroadcasting(event: TransactionEvent, state: TransactionState): Change | undefined {
  if (event.type === "accepted") return { phase: "broadcast" };
  if (event.type !== "not-accepted") return undefined;
  if (state.broadcastRetries >= RETRIES_MAX) return { phase: "failed", failure: event.failure };
  return { phase: "signed", broadcastRetries: state.broadcastRetries + 1 };
}

function fromVoting(event: TransactionEvent): Change | undefined {
  if (event.type === "approved") return { phase: "approved" };
  if (event.type === "rejected") return { phase: "rejected", failure: event.failure };
  if (event.type === "votes-missing") return { phase: "timed-out", failure: event.failure };
  return undefined;
}

function fromCreated(event: TransactionEvent): Change | undefined {
  if (event.type !== "proposed") return undefined;
  const { txid, psbt, feeSat, votesExpireAtMs } = event;
  return { phase: "voting", txid, psbt, feeSat, votesExpireAtMs };
}

/** A signed transaction may be in anybody's hands: from then on the payment only ends as confirmed or as refused. */
const SIGNED: ReadonlySet<Phase> = new Set<Phase>(["signed", "broadcasting", "broadcast"]);

function change(state: TransactionState, event: TransactionEvent): Change | undefined {
  if (event.type === "deadline-passed") return { phase: "timed-out", failure: event.failure };
  if (event.type === "abandoned") return { phase: "failed", failure: event.failure };
  switch (state.phase) {
    case "created":
      return fromCreated(event);
    case "voting":
      return fromVoting(event);
    case "approved":
      return fromApproved(event, state);
    case "signing":
      return fromSigning(event, state);
    case "signed":
      return event.type === "broadcast-started" ? { phase: "broadcasting" } : undefined;
    case "broadcasting":
      return fromBroadcasting(event, state);
    case "broadcast":
      if (event.type === "confirmed") return { phase: "confirmed", confirmedHeight: event.height };
      return event.type === "dropped" ? { phase: "signed" } : undefined;
    case "confirmed":
    case "rejected":
    case "timed-out":
    case "failed":
      return undefined;
  }
}

/** Total: an event that does not fit is refused and the state stays. */
export function transition(state: TransactionState, event: TransactionEvent, nowMs: number): Transition {
  const facts = { phase: state.phase, event: event.type };
  if (FINAL_PHASES.has(state.phase)) {
    return { legal: false, refusal: refusal("payment-final", `a payment stays ${state.phase}`, facts) };
  }
  const ends = event.type === "deadline-passed" || event.type === "abandoned";
  if (ends && SIGNED.has(state.phase)) {
    const why = refusal("signed-cannot-be-abandoned", "a signed transaction can no longer be called back", facts);
    return { legal: false, refusal: why };
  }
  const changes = change(state, event);
  if (changes === undefined) {
    return {
      legal: false,
      refusal: refusal("event-illegal", `${event.type} does not fit in phase ${state.phase}`, facts),
    };
  }
  return { legal: true, state: { ...state, ...changes, changedAtMs: nowMs } };
}

/** What a coordinator does with a payment that it finds after a crash or a change of leader. */
export type Resumption =
  /** Nothing was promised yet: choose inputs and build. */
  | "build"
  /** Propose the same transaction again: nodes answer a known proposal as before, and may sign a conflicting one never. */
  | "vote"
  /** The transaction is signed: hand it to the chain; broadcasting twice does no harm. */
  | "broadcast"
  | "track"
  | "nothing";

/**
 * Where each state resumes. Ballots in memory are gone after a crash, and a signing session never resumes, so
 * everything between proposal and signature starts again with a vote on the same transaction.
 */
export function resume(state: TransactionState): Resumption {
  switch (state.phase) {
    case "created":
      return state.psbt.length === 0 ? "build" : "vote";
    case "voting":
    case "approved":
    case "signing":
      return "vote";
    case "signed":
    case "broadcasting":
      return "broadcast";
    case "broadcast":
      return "track";
    case "confirmed":
    case "rejected":
    case "timed-out":
    case "failed":
      return "nothing";
  }
}

/** The state from which `resume` goes on: a vote or a signing session that was under way has to be opened again. */
export function recovered(state: TransactionState): TransactionState {
  switch (resume(state)) {
    case "vote":
      return { ...state, phase: "created", votesExpireAtMs: 0 };
    case "broadcast":
      return { ...state, phase: "signed" };
    case "build":
    case "track":
    case "nothing":
      return state;
  }
}
