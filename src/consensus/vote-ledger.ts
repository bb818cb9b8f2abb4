import type { Ballot } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { type Refusal, refusal } from "./refusal.js";
import { wholeMs } from "./unix-time.js";

/**
 * What one node remembers about its own votes. Two promises hang on it.
 *
 * A node gives one answer to one proposal, so two ballots of opposite verdict prove a fault. And a request is paid at
 * most once: a node approves a second transaction for a request only if it spends an input of every transaction that
 * it approved before, so that at most one of them can ever confirm.
 *
 * The functions here are pure; `VoteStore` is where a node keeps the entries, durably, before a ballot leaves it.
 */

export interface ApprovedTransaction {
  readonly txid: string;
  /** "txid:vout" of every input. */
  readonly outpoints: readonly string[];
}

/** All that this node approved for one request. */
export interface ApprovedRequest {
  readonly requestId: string;
  readonly walletId: string;
  readonly amountSat: bigint;
  readonly approvedAtMs: number;
  /** The request is void after this. */
  readonly expiresAtMs: number;
  readonly transactions: readonly ApprovedTransaction[];
  /** Highest change index of the transactions; -1 when none has change. */
  readonly changeIndex: number;
}

export const DAY_MS = 86_400_000;
/** Transactions approved for one request. */
export const TRANSACTIONS_PER_REQUEST_MAX = 16;

export type LedgerRefusalCode = "request-already-approved" | "too-many-transactions";

/** Why this node must not approve the transaction for the request; undefined when it may. */
export function refuseApproval(
  earlier: ApprovedRequest | undefined,
  transaction: ApprovedTransaction,
): Refusal<LedgerRefusalCode> | undefined {
  if (earlier === undefined || earlier.transactions.some(({ txid }) => txid === transaction.txid)) return undefined;
  const { requestId, transactions } = earlier;
  const spends = new Set(transaction.outpoints);
  const free = transactions.find(({ outpoints }) => !outpoints.some((outpoint) => spends.has(outpoint)));
  if (free !== undefined) {
    const message = "another transaction for this request was approved and both could confirm";
    return refusal("request-already-approved", message, { requestId, approvedTxid: free.txid });
  }
  if (transactions.length >= TRANSACTIONS_PER_REQUEST_MAX) {
    return refusal("too-many-transactions", "too many transactions were approved for this request", { requestId });
  }
  return undefined;
}

/** The entry with one more approved transaction; call only when `refuseApproval` allows it. */
export function withApproval(
  earlier: ApprovedRequest | undefined,
  approval: Omit<ApprovedRequest, "transactions">,
  transaction: ApprovedTransaction,
): ApprovedRequest {
  if (earlier === undefined) return { ...approval, transactions: [transaction] };
  if (earlier.transactions.some(({ txid }) => txid === transaction.txid)) return earlier;
  const changeIndex = Math.max(earlier.changeIndex, approval.changeIndex);
  return { ...earlier, changeIndex, transactions: [...earlier.transactions, transaction] };
}

/** True when an entry can no longer matter: the request is void and it has left every daily limit. */
export function isForgettable(entry: ApprovedRequest, nowMs: number): boolean {
  return entry.expiresAtMs <= nowMs && entry.approvedAtMs <= nowMs - DAY_MS;
}

/** A vote about to leave: kept as one durable write. `approved` is undefined for a rejection. */
export interface VoteRecord {
  readonly ballot: Ballot;
  readonly approved: ApprovedRequest | undefined;
}

/** A node's own votes. Adapters: the node's embedded store (node/), memory (tests). */
export interface VoteStore {
  /** The unexpired ballot that this node cast on the proposal, to be given again unchanged. */
  ballot(proposalDigest: Uint8Array): Promise<Ballot | undefined>;
  approvedRequest(requestId: string): Promise<ApprovedRequest | undefined>;
  /** Approved from this wallet after `sinceMs`, without the request itself: what daily limits count. */
  spentSince(query: {
    readonly walletId: string;
    readonly sinceMs: number;
    readonly withoutRequestId: string;
  }): Promise<{ readonly amountSat: bigint; readonly payments: number }>;
  /** Highest change index that this node ever approved in the wallet; -1 for none. Survives pruning. */
  highestChangeIndex(walletId: string): Promise<number>;
  /** Resolves when the record is durable. Only then may the ballot leave. */
  record(vote: VoteRecord): Promise<void>;
  /** Drops forgettable entries and void ballots. */
  prune(nowMs: number): Promise<void>;
}

/** A node that was proved to break the rules. */
export interface Ban {
  readonly nodeId: string;
  readonly kind: string;
  readonly detail: string;
  readonly bannedAtMs: number;
  /** What a third party can check. */
  readonly evidence: readonly Uint8Array[];
}

/** Whom this node has banned, at most one record a node. Adapter: beside the votes, in the same store. */
export interface BanStore {
  bans(): Promise<readonly Ban[]>;
  /** Resolves when the ban is durable; an earlier one of the same node stays. */
  ban(ban: Ban): Promise<void>;
  /** For people: takes a ban back, durably; undefined when there is none. */
  lift(nodeId: string): Promise<Ban | undefined>;
}

/** In the process's memory: for tests and simulations. A real node must remember across a crash. */
export class MemoryVoteStore implements VoteStore {
  readonly #ballots = new Map<string, Ballot>();
  readonly #approved = new Map<string, ApprovedRequest>();
  readonly #changeIndex = new Map<string, number>();

  async ballot(proposalDigest: Uint8Array): Promise<Ballot | undefined> {
    return this.#ballots.get(Buffer.from(proposalDigest).toString("hex"));
  }

  async approvedRequest(requestId: string): Promise<ApprovedRequest | undefined> {
    return this.#approved.get(requestId);
  }

  async spentSince(query: { walletId: string; sinceMs: number; withoutRequestId: string }) {
    const counted = [...this.#approved.values()].filter(
      ({ walletId, requestId, approvedAtMs }) =>
        walletId === query.walletId && requestId !== query.withoutRequestId && approvedAtMs > query.sinceMs,
    );
    return { amountSat: counted.reduce((sum, { amountSat }) => sum + amountSat, 0n), payments: counted.length };
  }

  async highestChangeIndex(walletId: string): Promise<number> {
    return this.#changeIndex.get(walletId) ?? -1;
  }

  async record({ ballot, approved }: VoteRecord): Promise<void> {
    this.#ballots.set(Buffer.from(ballot.proposalDigest).toString("hex"), ballot);
    if (approved === undefined) return;
    this.#approved.set(approved.requestId, approved);
    const highest = this.#changeIndex.get(approved.walletId) ?? -1;
    this.#changeIndex.set(approved.walletId, Math.max(highest, approved.changeIndex));
  }

  async prune(nowMs: number): Promise<void> {
    for (const [key, ballot] of this.#ballots) if (ballot.expiresAtMs <= wholeMs(nowMs)) this.#ballots.delete(key);
    for (const [key, entry] of this.#approved) if (isForgettable(entry, nowMs)) this.#approved.delete(key);
  }
}
