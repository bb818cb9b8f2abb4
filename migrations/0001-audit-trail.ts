import { type Kysely, sql } from "kysely";

/** Everything that the trail of payments needs. Statements are PostgreSQL 15; PGlite runs the same ones. */
export async function up(database: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(database);
}

const STATEMENTS: readonly string[] = [
  `create type transaction_status as enum ('created', 'voting', 'approved', 'signing', 'signed', 'broadcasting',
     'broadcast', 'confirmed', 'rejected', 'timed_out', 'failed')`,
  `create type voting_outcome as enum ('open', 'approved', 'rejected', 'timed_out')`,
  `create type presignature_outcome as enum ('used', 'failed')`,

  `create table transactions (
     request_id text primary key,
     wallet_id text not null,
     status transaction_status not null,
     txid text,
     unsigned_transaction bytea,
     signed_transaction bytea,
     op_return bytea,
     amount_sat bigint,
     fee_sat bigint,
     details jsonb not null default '{}',
     created_at timestamptz not null,
     updated_at timestamptz not null
   )`,
  "create index transactions_wallet on transactions (wallet_id, created_at desc, request_id)",
  "create index transactions_txid on transactions (txid)",
  `create index transactions_open on transactions (status)
     where status not in ('confirmed', 'rejected', 'timed_out', 'failed')`,

  `create table voting_rounds (
     round_id text primary key,
     request_id text not null,
     wallet_id text not null,
     txid text,
     proposal_digest bytea not null,
     threshold integer not null check (threshold > 0),
     votes jsonb not null,
     outcome voting_outcome not null,
     started_at timestamptz not null,
     ended_at timestamptz
   )`,
  "create index voting_rounds_request on voting_rounds (request_id, started_at)",

  `create table byzantine_violations (
     id bigint generated always as identity primary key,
     node_id text not null,
     kind text not null,
     session_id text not null,
     evidence jsonb not null,
     evidence_digest bytea not null unique,
     banned boolean not null,
     detected_at timestamptz not null
   )`,
  "create index byzantine_violations_node on byzantine_violations (node_id, detected_at)",

  `create table presignature_usage (
     presignature_id text primary key,
     wallet_id text not null,
     wallet_epoch integer not null,
     request_id text not null,
     txid text,
     signers jsonb not null,
     outcome presignature_outcome not null,
     used_at timestamptz not null
   )`,
  "create index presignature_usage_request on presignature_usage (request_id)",

  `create table audit_log (
     sequence bigint primary key check (sequence > 0),
     time_ms bigint not null,
     kind text not null,
     wallet_id text not null,
     subject text not null,
     payload jsonb not null,
     previous_hash bytea not null check (length(previous_hash) = 32),
     hash bytea not null check (length(hash) = 32)
   )`,
  "create index audit_log_subject on audit_log (subject, sequence)",

  // One row: whoever appends locks it, so that entries of several coordinators form one chain.
  `create table audit_head (
     id smallint primary key check (id = 1),
     sequence bigint not null,
     hash bytea not null check (length(hash) = 32)
   )`,
  "insert into audit_head values (1, 0, decode(repeat('00', 32), 'hex'))",

  // Statement triggers, so that even a change of no row is refused, and TRUNCATE too.
  `create function refuse_change() returns trigger language plpgsql as $$
   begin
     raise exception '% of % is refused: the table is append-only', tg_op, tg_table_name
       using errcode = 'insufficient_privilege';
   end $$`,
  ...["audit_log", "byzantine_violations", "presignature_usage"].map(
    (table) => `create trigger append_only before update or delete or truncate on ${table}
      for each statement execute function refuse_change()`,
  ),
  ...["transactions", "voting_rounds", "audit_head"].map(
    (table) => `create trigger never_deleted before delete or truncate on ${table}
      for each statement execute function refuse_change()`,
  ),
  `create function refuse_rewind() returns trigger language plpgsql as $$
   begin
     if new.sequence <= old.sequence then
       raise exception 'the head of the audit trail only moves forward' using errcode = 'insufficient_privilege';
     end if;
     return new;
   end $$`,
  `create trigger forward_only before update on audit_head
     for each row execute function refuse_rewind()`,
];
