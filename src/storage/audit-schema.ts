import type { ColumnType, Generated, Kysely, Migration, MigrationProvider } from "kysely";
import * as auditTrail from "../../migrations/0001-audit-trail.js";
import * as paymentRecords from "../../migrations/0002-payment-records.js";

/** int8: a string from pg, a number or bigint from PGlite. */
type Int8 = ColumnType<string | number | bigint, string | bigint, string | bigint>;
type Json = ColumnType<unknown, string, string>;
type Bytes = ColumnType<Uint8Array, Uint8Array, Uint8Array>;
type Time = ColumnType<Date, Date, Date>;

export type TransactionStatus =
  | "created"
  | "voting"
  | "approved"
  | "signing"
  | "signed"
  | "broadcasting"
  | "broadcast"
  | "confirmed"
  | "rejected"
  | "timed_out"
  | "failed";

export type VotingOutcome = "open" | "approved" | "rejected" | "timed_out";

export interface AuditTables {
  transactions: {
    request_id: string;
    wallet_id: string;
    status: TransactionStatus;
    txid: string | null;
    unsigned_transaction: Bytes | null;
    signed_transaction: Bytes | null;
    op_return: Bytes | null;
    amount_sat: Int8 | null;
    fee_sat: Int8 | null;
    details: Json;
    created_at: Time;
    updated_at: Time;
    record: Bytes;
    revision: Int8;
  };
  voting_rounds: {
    round_id: string;
    request_id: string;
    wallet_id: string;
    txid: string | null;
    proposal_digest: Bytes;
    threshold: number;
    votes: Json;
    outcome: VotingOutcome;
    started_at: Time;
    ended_at: Time | null;
  };
  byzantine_violations: {
    id: Generated<Int8>;
    node_id: string;
    kind: string;
    session_id: string;
    evidence: Json;
    evidence_digest: Bytes;
    banned: boolean;
    detected_at: Time;
  };
  presignature_usage: {
    presignature_id: string;
    wallet_id: string;
    wallet_epoch: number;
    request_id: string;
    txid: string | null;
    signers: Json;
    outcome: "used" | "failed";
    used_at: Time;
  };
  audit_log: {
    sequence: Int8;
    time_ms: Int8;
    kind: string;
    wallet_id: string;
    subject: string;
    payload: Json;
    previous_hash: Bytes;
    hash: Bytes;
  };
  audit_head: { id: number; sequence: Int8; hash: Bytes };
  leader_fence: { id: number; fencing: Int8 };
}

/** The migrations in order. A list, not a folder scan: what runs against the database is what was compiled. */
export const MIGRATIONS: Readonly<Record<string, Migration>> = {
  "0001-audit-trail": auditTrail,
  "0002-payment-records": paymentRecords,
};

export const migrationProvider: MigrationProvider = {
  getMigrations: async () => ({ ...MIGRATIONS }),
};

export type AuditKysely = Kysely<AuditTables>;
