import { sql, type Transaction } from "kysely";
import { Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { readPaymentRequest } from "../consensus/payment-request.js";
import type { Phase } from "../consensus/transaction-state.js";
import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { Lease } from "../wallet/coordination.js";
import { decodePaymentRecord, encodePaymentRecord, type PaymentRecord } from "../wallet/payment-record.js";
import type { PaymentStore } from "../wallet/payment-store.js";
import { decodeProposedTransaction } from "../wallet/proposed-transaction.js";
import type { AuditDatabase } from "./audit-database.js";
import type { AuditTables, TransactionStatus, VotingOutcome } from "./audit-schema.js";
import { canonicalJson } from "./canonical-json.js";
import { withRetries } from "./database-call.js";

const MAX_PAGE = 1_000;
const MAX_UNFINISHED = 10_000;
const OP_RETURN = 0x6a;
const FINAL: readonly TransactionStatus[] = ["confirmed", "rejected", "timed_out", "failed"];

/**
 * Payments in the audit database: the record that the wallet layer wrote, and beside it what people ask for (status,
 * transactions, OP_RETURN, votes), all in one transaction.
 *
 * With a lease every write is fenced: the database remembers the newest leader that wrote and refuses an earlier one,
 * even one that still believes in its lease.
 */
export class DatabasePaymentStore implements PaymentStore {
  readonly #database: AuditDatabase;
  readonly #clock: Clock;
  readonly #lease: (() => Lease | undefined) | undefined;
  /** Fencing number that the database knows of already. */
  #announced = 0n;

  /** @param dependencies.lease the leader's lease; answering undefined then means "not leading". Without it, no fence */
  constructor(dependencies: {
    readonly database: AuditDatabase;
    readonly clock: Clock;
    readonly lease?: () => Lease | undefined;
  }) {
    this.#database = dependencies.database;
    this.#clock = dependencies.clock;
    this.#lease = dependencies.lease;
  }

  /**
   * An older revision never replaces a newer one.
   *
   * @throws Unavailable "not-leading", "database-unavailable"
   */
  async put(record: PaymentRecord): Promise<void> {
    const fencing = await this.#fencing();
    const encoded = encodePaymentRecord(record);
    await withRetries(this.#clock, async () => {
      await this.#database.kysely.transaction().execute(async (transaction) => {
        // Shared lock: a new leader announces itself only when no earlier one is in the middle of a write.
        const fence = await sql`select 1 from leader_fence where id = 1 and fencing <= ${String(fencing)}::numeric
          for share`.execute(transaction);
        if (fencing > 0n && fence.rows.length === 0) throw notLeading();
        const isNewer = await writeTransaction(transaction, { record, encoded });
        if (isNewer && record.proposalDigest.length > 0) await writeVotingRound(transaction, record);
      });
    });
  }

  async get(paymentId: string): Promise<PaymentRecord | undefined> {
    const row = await withRetries(this.#clock, () =>
      this.#database.kysely
        .selectFrom("transactions")
        .select("record")
        .where("request_id", "=", paymentId)
        .executeTakeFirst(),
    );
    return row === undefined ? undefined : recordOf(row);
  }

  /** @throws InvalidInput "cursor-unknown", "page-limit" (1 to 1000) */
  async list(query: { readonly walletId: string; readonly limit: number; readonly before: string }) {
    const { walletId, limit, before } = query;
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE) {
      throw new InvalidInput("page-limit", "a page has 1 to 1000 payments", { limit });
    }
    const rows = await withRetries(this.#clock, async () => {
      const { kysely } = this.#database;
      let page = kysely.selectFrom("transactions").select("record").where("wallet_id", "=", walletId);
      if (before !== "") {
        const cursor = await kysely
          .selectFrom("transactions")
          .select(["request_id", "created_at"])
          .where("request_id", "=", before)
          .where("wallet_id", "=", walletId)
          .executeTakeFirst();
        if (cursor === undefined) throw new InvalidInput("cursor-unknown", "no such payment in this wallet's history");
        page = page.where(sql<boolean>`(created_at, request_id) < (${cursor.created_at}, ${cursor.request_id})`);
      }
      return await page.orderBy("created_at", "desc").orderBy("request_id", "desc").limit(limit).execute();
    });
    return rows.map(recordOf);
  }

  /** The oldest 10,000. */
  async unfinished(): Promise<readonly PaymentRecord[]> {
    const rows = await withRetries(this.#clock, () =>
      this.#database.kysely
        .selectFrom("transactions")
        .select("record")
        .where("status", "not in", FINAL)
        .orderBy("created_at")
        .orderBy("request_id")
        .limit(MAX_UNFINISHED)
        .execute(),
    );
    return rows.map(recordOf);
  }

  /** The fencing number to write with, made known to the database before the first write under it; 0 without a lease. */
  async #fencing(): Promise<bigint> {
    if (this.#lease === undefined) return 0n;
    const lease = this.#lease();
    if (lease === undefined || !lease.held) throw notLeading();
    if (lease.fencing > this.#announced) {
      await withRetries(this.#clock, () =>
        sql`update leader_fence set fencing = ${String(lease.fencing)}::numeric
          where id = 1 and fencing < ${String(lease.fencing)}::numeric`.execute(this.#database.kysely),
      );
      this.#announced = lease.fencing;
    }
    return lease.fencing;
  }
}

/** pg answers Buffers, PGlite arrays; the record's fields are views of it and should not differ. */
function recordOf(row: { readonly record: Uint8Array }): PaymentRecord {
  return decodePaymentRecord(Uint8Array.from(row.record));
}

function notLeading(): Unavailable {
  return new Unavailable("not-leading", "another coordinator leads now");
}

function statusOf(phase: Phase): TransactionStatus {
  return phase === "timed-out" ? "timed_out" : phase;
}

/** False when the stored revision is this one or a newer one. */
async function writeTransaction(
  transaction: Transaction<AuditTables>,
  { record, encoded }: { readonly record: PaymentRecord; readonly encoded: Uint8Array },
): Promise<boolean> {
  const { state } = record;
  const request = readPaymentRequest(record.signedRequest);
  const recipients = request?.recipients ?? [];
  const proposed = state.psbt.length === 0 ? undefined : decodeProposedTransaction(state.psbt);
  const opReturn = proposed?.outputs.find(({ script }) => script[0] === OP_RETURN)?.script;
  const row = {
    status: statusOf(state.phase),
    txid: state.txid === "" ? null : state.txid,
    unsigned_transaction: proposed === undefined ? null : proposed.transaction.toBuffer(),
    signed_transaction: state.signedTransaction.length === 0 ? null : state.signedTransaction,
    op_return: opReturn ?? null,
    amount_sat: String(recipients.reduce((sum, { amountSat }) => sum + amountSat, 0n)),
    fee_sat: state.txid === "" ? null : String(state.feeSat),
    details: canonicalJson({
      recipients,
      metadataJson: request?.metadataJson ?? "",
      failure: state.failure,
      confirmedHeight: state.confirmedHeight,
      signingRetries: state.signingRetries,
      broadcastRetries: state.broadcastRetries,
      timeline: record.timeline,
    }),
    updated_at: new Date(state.changedAtMs),
    record: encoded,
    revision: String(record.revision),
  };
  const written = await transaction
    .insertInto("transactions")
    .values({
      ...row,
      request_id: record.paymentId,
      wallet_id: record.walletId,
      created_at: new Date(record.createdAtMs),
    })
    .onConflict((conflict) =>
      conflict.column("request_id").doUpdateSet(row).where(sql<boolean>`transactions.revision < excluded.revision`),
    )
    .returning("request_id")
    .execute();
  return written.length > 0;
}

/** One row a proposal. Late votes still join the list; the outcome stands once there is one. */
async function writeVotingRound(transaction: Transaction<AuditTables>, record: PaymentRecord): Promise<void> {
  const { state, ballots } = record;
  const outcome = outcomeOf(record);
  const row = {
    txid: state.txid === "" ? null : state.txid,
    votes: canonicalJson(
      ballots.map(({ ballot, receivedAtMs, durationMs }) => ({
        voter: ballot.voter,
        verdict: ballot.verdict === Verdict.APPROVE ? "approve" : "reject",
        reasons: ballot.reasons,
        policyVersion: ballot.policyVersion,
        expiresAtMs: ballot.expiresAtMs,
        signature: ballot.signature,
        receivedAtMs,
        durationMs,
      })),
    ),
    outcome,
    ended_at: outcome === "open" ? null : new Date(state.changedAtMs),
  };
  await transaction
    .insertInto("voting_rounds")
    .values({
      ...row,
      round_id: `${record.paymentId}/${Buffer.from(record.proposalDigest).toString("hex")}`,
      request_id: record.paymentId,
      wallet_id: record.walletId,
      proposal_digest: record.proposalDigest,
      threshold: Math.max(1, record.approvalsNeeded),
      started_at: new Date(state.changedAtMs),
    })
    .onConflict((conflict) =>
      conflict.column("round_id").doUpdateSet({
        ...row,
        outcome: sql`case voting_rounds.outcome when 'open' then excluded.outcome else voting_rounds.outcome end`,
        ended_at: sql`coalesce(voting_rounds.ended_at, excluded.ended_at)`,
      }),
    )
    .execute();
}

function outcomeOf({ state, ballots, approvalsNeeded }: PaymentRecord): VotingOutcome {
  const approvals = ballots.filter(({ ballot }) => ballot.verdict === Verdict.APPROVE).length;
  switch (state.phase) {
    case "created":
    case "voting":
      return "open";
    case "rejected":
      return "rejected";
    case "timed-out":
      return "timed_out";
    case "failed":
      return approvals >= approvalsNeeded ? "approved" : "timed_out";
    default:
      return "approved";
  }
}
