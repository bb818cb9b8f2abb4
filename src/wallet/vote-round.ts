import { type Ballot, type PaymentProposal, Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import type { VerifySignature } from "../consensus/signature.js";
import { approvals, type Cast, castBallot, expireTally, openTally, type Tally } from "../consensus/vote-tally.js";
import type { Clock } from "../crypto/ambient.js";
import type { RecordedBallot } from "./payment-record.js";
import type { PeerVoting } from "./peer-voting.js";

/**
 * One vote on one proposal: every party is asked at once. The outcome is known as soon as it is certain; ballots that
 * come later are still collected, because each of them is one more node that may sign.
 */

export interface VoteRoundFacts {
  readonly proposal: PaymentProposal;
  readonly proposalDigest: Uint8Array;
  readonly walletId: string;
  readonly threshold: number;
  readonly roster: ReadonlyMap<string, Uint8Array>;
  readonly banned: ReadonlySet<string>;
  readonly timeoutMs: number;
}

export interface VoteRoundDependencies {
  readonly voting: PeerVoting;
  readonly verify: VerifySignature;
  readonly clock: Clock;
  /** Every answer, also a late one, an invalid one and none at all. */
  readonly onAnswer: (answer: VoteAnswer) => void;
}

export interface VoteAnswer {
  readonly nodeId: string;
  readonly startedAtMs: number;
  readonly durationMs: number;
  /** Undefined when the node did not answer with a ballot. */
  readonly ballot: Ballot | undefined;
  readonly cast: Cast | { readonly type: "none"; readonly error: unknown };
}

export class VoteRound {
  readonly #facts: VoteRoundFacts;
  readonly #parts: VoteRoundDependencies;
  readonly #abort = new AbortController();
  readonly #recorded: RecordedBallot[] = [];
  readonly #decided: Promise<Tally["outcome"]>;
  #settle: (outcome: Tally["outcome"]) => void = () => undefined;
  #tally: Tally;
  #unanswered = 0;

  constructor(facts: VoteRoundFacts, dependencies: VoteRoundDependencies) {
    this.#facts = facts;
    this.#parts = dependencies;
    this.#tally = openTally({
      walletId: facts.walletId,
      proposalDigest: facts.proposalDigest,
      policyVersion: facts.proposal.policyVersion,
      expiresAtMs: facts.proposal.expiresAtMs,
      threshold: facts.threshold,
      roster: facts.roster,
      banned: facts.banned,
      openedAtMs: dependencies.clock.nowMs(),
      timeoutMs: facts.timeoutMs,
    });
    this.#decided = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  /** Approving ballots so far, late ones included. */
  get approvals(): readonly Ballot[] {
    return approvals(this.#tally);
  }

  /** Valid ballots in the order in which they came. */
  get recorded(): readonly RecordedBallot[] {
    return [...this.#recorded];
  }

  /** Asks everyone. Resolves with the outcome; "timed-out" also when all have answered and it is still open. */
  async run(): Promise<Tally["outcome"]> {
    const voters = [...this.#facts.roster.keys()].filter((nodeId) => !this.#facts.banned.has(nodeId));
    this.#unanswered = voters.length;
    const cancel = this.#parts.clock.after(this.#facts.timeoutMs, () => this.#expire());
    for (const nodeId of voters) void this.#ask(nodeId);
    if (voters.length === 0) this.#expire();
    try {
      return await this.#decided;
    } finally {
      cancel();
    }
  }

  /** Stops waiting for late ballots. */
  close(): void {
    this.#abort.abort();
    this.#settle("timed-out");
  }

  #expire(): void {
    this.#tally = expireTally({ ...this.#tally, timeoutMs: 0 }, this.#parts.clock.nowMs());
    this.#settle(this.#tally.outcome);
  }

  async #ask(nodeId: string): Promise<void> {
    const { clock, voting } = this.#parts;
    const startedAtMs = clock.nowMs();
    const startedMonotonicMs = clock.monotonicMs();
    let ballot: Ballot | undefined;
    let error: unknown;
    try {
      ballot = await voting.vote(nodeId, this.#facts.proposal, this.#abort.signal);
    } catch (thrown) {
      error = thrown;
    }
    if (this.#abort.signal.aborted) return;
    const durationMs = clock.monotonicMs() - startedMonotonicMs;
    const cast = ballot === undefined ? { type: "none" as const, error } : this.#cast(nodeId, ballot, durationMs);
    this.#unanswered -= 1;
    this.#parts.onAnswer({ nodeId, startedAtMs, durationMs, ballot, cast });
    if (this.#tally.outcome !== "pending") this.#settle(this.#tally.outcome);
    else if (this.#unanswered === 0) this.#expire();
  }

  /** A node casts only its own ballot: one in another's name is treated as forged, whoever signed it. */
  #cast(nodeId: string, ballot: Ballot, durationMs: number): Cast {
    if (ballot.voter !== nodeId) return { type: "refused", code: "forged-ballot" };
    const nowMs = this.#parts.clock.nowMs();
    const { tally, cast } = castBallot(this.#tally, ballot, nowMs, this.#parts.verify);
    this.#tally = tally;
    if (cast.type === "counted") this.#recorded.push({ ballot, receivedAtMs: nowMs, durationMs });
    return cast;
  }
}

/** Why nodes rejected, most frequent first, for people. */
export function rejectionReasons(ballots: readonly RecordedBallot[]): readonly string[] {
  const counts = new Map<string, number>();
  for (const { ballot } of ballots) {
    if (ballot.verdict !== Verdict.REJECT) continue;
    for (const reason of ballot.reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  }
  return [...counts].sort(([, a], [, b]) => b - a).map(([reason]) => reason);
}
