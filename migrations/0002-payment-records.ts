import { type Kysely, sql } from "kysely";

/** What a coordinator needs to go on with another one's payments. */
export async function up(database: Kysely<unknown>): Promise<void> {
  for (const statement of STATEMENTS) await sql.raw(statement).execute(database);
}

const STATEMENTS: readonly string[] = [
  // The whole record as the wallet layer encodes it; the other columns are for people and queries.
  "alter table transactions add column record bytea not null, add column revision bigint not null",
  "create index transactions_history on transactions (wallet_id, created_at desc, request_id desc)",
  "drop index transactions_wallet",

  // Fencing number of the newest leader that wrote: an earlier one is refused from then on.
  `create table leader_fence (
     id smallint primary key check (id = 1),
     fencing numeric not null
   )`,
  "insert into leader_fence values (1, 0)",
  `create trigger never_deleted before delete or truncate on leader_fence
     for each statement execute function refuse_change()`,
  `create function refuse_older_fencing() returns trigger language plpgsql as $$
   begin
     if new.fencing < old.fencing then
       raise exception 'fencing numbers only grow' using errcode = 'insufficient_privilege';
     end if;
     return new;
   end $$`,
  `create trigger forward_only before update on leader_fence
     for each row execute function refuse_older_fencing()`,
];
