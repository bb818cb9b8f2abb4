import { type Ballot, Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { verifyBallot } from "./ballot.js";
import { approvalsNeeded, rejectionsNeeded } from "./quorum.js";
import type { VerifySignature } from "./signature.js";
import { wholeMs } from "./unix-time.js";

/** Counting the ballots of one proposal, as a coordinator does. A pure state: every call returns a new tally. */

export const VOTE_TIMEOUT_MS = 30_000;

export interface Tally {
  readonly walletId: string;
  readonly proposalDigest: Uint8Array;
  readonly policyVersion: bigint;
  readonly expiresAtMs: bigint;
  readonly threshold: number;
  readonly roster: ReadonlyMap<string, Uint8Array>;
  readonly banned: ReadonlySet<string>;
  readonly openedAtMs: number;
  readonly timeoutMs: number;
  /** First valid ballot of each voter. Late ballots are recorded after the outcome, too: they widen the choice of signers. */
  readonly ballots: ReadonlyMap<string, Ballot>;
  readonly outcome: TallyOutcome;
}

export type TallyOutcome = "pending" | "approved" | "rejected" | "timed-out";

/** What became of one ballot. "double-vote" carries both ballots: they are the proof. */
export type Cast =
  | { readonly type: "counted" }
  | { readonly type: "repeated" }
  | { readonly type: "double-vote"; readonly voter: string; readonly first: Ballot; readonly second: Ballot }
  | { readonly type: "refused"; readonly code: CastRefusalCode };

export type CastRefusalCode =
  | "unknown-voter"
  | "banned-voter"
  | "other-wallet"
  | "other-proposal"
  | "other-policy"
  | "other-expiry"
  | "expired"
  | "forged-ballot";

export function openTally(
  facts: Omit<Tally, "ballots" | "outcome" | "timeoutMs"> & { readonly timeoutMs?: number },
): Tally {
  return { ...facts, timeoutMs: facts.timeoutMs ?? VOTE_TIMEOUT_MS, ballots: new Map(), outcome: "pending" };
}

function refusalOf(tally: Tally, ballot: Ballot, nowMs: number, verify: VerifySignature): CastRefusalCode | undefined {
  const key = tally.roster.get(ballot.voter);
  if (key === undefined) return "unknown-voter";
  if (tally.banned.has(ballot.voter)) return "banned-voter";
  if (ballot.walletId !== tally.walletId) return "other-wallet";
  if (!equalBytes(ballot.proposalDigest, tally.proposalDigest)) return "other-proposal";
  if (ballot.policyVersion !== tally.policyVersion) return "other-policy";
  if (ballot.expiresAtMs !== tally.expiresAtMs) return "other-expiry";
  if (ballot.expiresAtMs <= wholeMs(nowMs)) return "expired";
  return verifyBallot(ballot, key, verify) ? undefined : "forged-ballot";
}

function decide(tally: Tally): TallyOutcome {
  const verdicts = [...tally.ballots.values()].map((ballot) => ballot.verdict);
  const approvals = verdicts.filter((verdict) => verdict === Verdict.APPROVE).length;
  const electorate = { parties: tally.roster.size, threshold: tally.threshold };
  if (approvals >= approvalsNeeded(electorate)) return "approved";
  if (verdicts.length - approvals >= rejectionsNeeded(electorate)) return "rejected";
  return "pending";
}

/** Counts one ballot. An outcome, once reached, stays. Total. */
export function castBallot(
  tally: Tally,
  ballot: Ballot,
  nowMs: number,
  verify: VerifySignature,
): { readonly tally: Tally; readonly cast: Cast } {
  const code = refusalOf(tally, ballot, nowMs, verify);
  if (code !== undefined) return { tally, cast: { type: "refused", code } };
  const first = tally.ballots.get(ballot.voter);
  if (first !== undefined) {
    if (first.verdict === ballot.verdict) return { tally, cast: { type: "repeated" } };
    return { tally, cast: { type: "double-vote", voter: ballot.voter, first, second: ballot } };
  }
  const counted = { ...tally, ballots: new Map(tally.ballots).set(ballot.voter, ballot) };
  const outcome = tally.outcome === "pending" ? decide(counted) : tally.outcome;
  return { tally: { ...counted, outcome }, cast: { type: "counted" } };
}

/** Call when time has passed; closes a pending tally after its timeout. */
export function expireTally(tally: Tally, nowMs: number): Tally {
  const over = nowMs - tally.openedAtMs >= tally.timeoutMs || tally.expiresAtMs <= wholeMs(nowMs);
  return tally.outcome === "pending" && over ? { ...tally, outcome: "timed-out" } : tally;
}

export function approvals(tally: Tally): readonly Ballot[] {
  return [...tally.ballots.values()].filter((ballot) => ballot.verdict === Verdict.APPROVE);
}
