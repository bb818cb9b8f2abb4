import type { Ballot } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { type Refusal, refusal } from "./refusal.js";

/**
 * What one node remembers about its own votes, as a pure state that the node persists before a ballot leaves it.
 *
 * Two promises hang on it. A node gives one answer to one proposal, so two ballots of opposite verdict prove a fault.
 * And a request is paid at most once: a node approves a second transaction for a request only if it spends an input
 * of every transaction that it approved before, so that at most one of them can ever confirm.
 */
export interface VoteLedger {
  /** By request id. */
  readonly approvals: ReadonlyMap<string, ApprovedRequest>;
  /** By proposal digest, hex. */
  readonly ballots: ReadonlyMap<string, Ballot>;
}

export interface ApprovedRequest {
  readonly walletId: string;
  readonly amountSat: bigint;
  readonly approvedAtMs: number;
  /** The request is void after this; the entry may go when both this and a day have passed. */
  readonly expiresAtMs: number;
  readonly transactions: readonly ApprovedTransaction[];
}

export interface ApprovedTransaction {
  readonly txid: string;
  /** "txid:vout" of every input. */
  readonly outpoints: readonly string[];
}

export const DAY_MS = 86_400_000;
/** Transactions approved for one request. */
export const TRANSACTIONS_PER_REQUEST_MAX = 16;
/** Entries of either map; a full ledger approves nothing new until entries expire. */
export const LEDGER_MAX_ENTRIES = 200_000;

export type LedgerRefusalCode = "request-already-approved" | "too-many-transactions" | "ledger-full";

export const EMPTY_LEDGER: VoteLedger = { approvals: new Map(), ballots: new Map() };

/** The ballot that this node has cast on the proposal, to be given again unchanged. */
export function castBefore(ledger: VoteLedger, proposalDigestHex: string): Ballot | undefined {
  return ledger.ballots.get(proposalDigestHex);
}

/** Why this node must not approve the transaction for the request; undefined when it may. */
export function refuseApproval(
  ledger: VoteLedger,
  requestId: string,
  transaction: ApprovedTransaction,
): Refusal<LedgerRefusalCode> | undefined {
  const earlier = ledger.approvals.get(requestId);
  if (earlier === undefined) {
    const full = ledger.approvals.size >= LEDGER_MAX_ENTRIES || ledger.ballots.size >= LEDGER_MAX_ENTRIES;
    return full ? refusal("ledger-full", "too many approvals of one day") : undefined;
  }
  if (earlier.transactions.some(({ txid }) => txid === transaction.txid)) return undefined;
  const spends = new Set(transaction.outpoints);
  const free = earlier.transactions.find(({ outpoints }) => !outpoints.some((outpoint) => spends.has(outpoint)));
  if (free !== undefined) {
    const message = "another transaction for this request was approved and both could confirm";
    return refusal("request-already-approved", message, { requestId, approvedTxid: free.txid });
  }
  if (earlier.transactions.length >= TRANSACTIONS_PER_REQUEST_MAX) {
    return refusal("too-many-transactions", "too many transactions were approved for this request", { requestId });
  }
  return undefined;
}

/** Remembers a rejection; call before the ballot leaves. */
export function recordBallot(ledger: VoteLedger, ballot: Ballot): VoteLedger {
  const key = Buffer.from(ballot.proposalDigest).toString("hex");
  if (ledger.ballots.size >= LEDGER_MAX_ENTRIES) return ledger;
  return { ...ledger, ballots: new Map(ledger.ballots).set(key, ballot) };
}

/** Remembers an approval that `refuseApproval` allows; persist the result before the ballot leaves. */
export function recordApproval(
  ledger: VoteLedger,
  approval: Omit<ApprovedRequest, "transactions"> & {
    readonly requestId: string;
    readonly transaction: ApprovedTransaction;
    readonly ballot: Ballot;
  },
): VoteLedger {
  const { requestId, transaction, ballot, ...facts } = approval;
  const earlier = ledger.approvals.get(requestId);
  const known = earlier?.transactions ?? [];
  const transactions = known.some(({ txid }) => txid === transaction.txid) ? known : [...known, transaction];
  const entry = earlier === undefined ? { ...facts, transactions } : { ...earlier, transactions };
  return { ...recordBallot(ledger, ballot), approvals: new Map(ledger.approvals).set(requestId, entry) };
}

/** Approved in the 24 hours before `nowMs` from this wallet, without the request itself: input of the policy. */
export function spentInADay(
  ledger: VoteLedger,
  query: { readonly walletId: string; readonly withoutRequestId: string; readonly nowMs: number },
): { readonly amountSat: bigint; readonly payments: number } {
  let amountSat = 0n;
  let payments = 0;
  for (const [requestId, entry] of ledger.approvals) {
    const counts = entry.walletId === query.walletId && requestId !== query.withoutRequestId;
    if (!counts || entry.approvedAtMs <= query.nowMs - DAY_MS) continue;
    amountSat += entry.amountSat;
    payments += 1;
  }
  return { amountSat, payments };
}

/** Forgets what can no longer matter: void ballots, and approvals that are both expired and older than a day. */
export function prune(ledger: VoteLedger, nowMs: number): VoteLedger {
  const approvals = [...ledger.approvals].filter(
    ([, entry]) => entry.expiresAtMs > nowMs || entry.approvedAtMs > nowMs - DAY_MS,
  );
  const ballots = [...ledger.ballots].filter(([, ballot]) => ballot.expiresAtMs > BigInt(nowMs));
  return { approvals: new Map(approvals), ballots: new Map(ballots) };
}
