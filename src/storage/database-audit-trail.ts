import { sql, type Transaction } from "kysely";
import type { Clock } from "../crypto/ambient.js";
import { Bug, InvalidInput } from "../crypto/fault.js";
import type { AuditEntry, AuditEvent, AuditTrail } from "../wallet/audit-trail.js";
import { type AuditDatabase, databaseUnavailable } from "./audit-database.js";
import { auditHash, follows, GENESIS_HASH } from "./audit-hash.js";
import { AuditQueue, type AuditQueueOptions } from "./audit-queue.js";
import type { AuditTables } from "./audit-schema.js";
import { canonicalJson } from "./canonical-json.js";

const MAX_KIND_BYTES = 64;
const MAX_NAME_BYTES = 256;
const MAX_PAYLOAD_BYTES = 64 * 1024;
const MAX_READ = 1_000;
const VERIFY_PAGE = 1_000;

/** An event whose payload is JSON already and whose time is fixed. */
interface StampedEvent extends AuditEvent {
  readonly timeMs: number;
}

interface Link {
  readonly sequence: bigint;
  readonly hash: Uint8Array;
}

/**
 * The audit trail in a database: a hash chain whose head is one locked row, so that entries of several coordinators
 * form one chain. Attempts after a lost connection first look whether the earlier one was committed: no entry is
 * written twice.
 */
export class DatabaseAuditTrail implements AuditTrail {
  readonly #database: AuditDatabase;
  readonly #clock: Clock;
  readonly #queue: AuditQueue<StampedEvent>;
  /** Where earlier attempts at the batch under way would have ended. */
  #attempted: { readonly rows: readonly StampedEvent[]; readonly ends: Link[] } | undefined;

  constructor(options: AuditQueueOptions, dependencies: { readonly database: AuditDatabase; readonly clock: Clock }) {
    this.#database = dependencies.database;
    this.#clock = dependencies.clock;
    this.#queue = new AuditQueue(options, { write: (rows) => this.#write(rows), clock: dependencies.clock });
  }

  /**
   * Events of one call become neighbours in the trail, all or none.
   *
   * @throws InvalidInput "audit-event" (a field too long), "json-unrepresentable"
   * @throws Unavailable "audit-queue-full", "audit-closed" (not accepted), "audit-delayed" (kept; written later)
   */
  async append(events: readonly AuditEvent[]): Promise<void> {
    if (events.length > 0) await this.#queue.append(this.#stamp(events));
  }

  /** Like `append` for what nobody waits for: written with 100 entries or after 5 seconds. */
  enqueue(events: readonly AuditEvent[]): void {
    if (events.length > 0) this.#queue.enqueue(this.#stamp(events));
  }

  /** Entries that are accepted and not yet durable. */
  get queuedEntries(): number {
    return this.#queue.queuedRows;
  }

  async read(options: { fromSequence: bigint; limit: number; subject?: string }): Promise<readonly AuditEntry[]> {
    const { fromSequence, limit, subject } = options;
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_READ) {
      throw new InvalidInput("read-limit", "a page has 1 to 1000 entries", { limit });
    }
    try {
      let query = this.#database.kysely
        .selectFrom("audit_log")
        .selectAll()
        .where("sequence", ">=", String(fromSequence))
        .orderBy("sequence")
        .limit(limit);
      if (subject !== undefined) query = query.where("subject", "=", subject);
      return (await query.execute()).map((row) => ({
        sequence: BigInt(row.sequence),
        timeMs: Number(row.time_ms),
        kind: row.kind,
        walletId: row.wallet_id,
        subject: row.subject,
        payload: row.payload as Readonly<Record<string, unknown>>,
        previousHash: Uint8Array.from(row.previous_hash), // pg answers Buffers
        hash: Uint8Array.from(row.hash),
      }));
    } catch (cause) {
      throw databaseUnavailable(cause);
    }
  }

  /** The newest link. Kept elsewhere, it proves later that the end of the trail was not cut off. */
  async head(): Promise<{ readonly sequence: bigint; readonly hash: Uint8Array }> {
    try {
      const row = await this.#database.kysely.selectFrom("audit_head").selectAll().executeTakeFirst();
      if (row === undefined) throw new Bug("the head row of the audit trail is missing");
      return { sequence: BigInt(row.sequence), hash: row.hash };
    } catch (cause) {
      throw cause instanceof Bug ? cause : databaseUnavailable(cause);
    }
  }

  /** In pages and without a lock: appends go on meanwhile. */
  async verify(): Promise<{ entries: bigint; firstBroken: bigint | undefined }> {
    const head = await this.head();
    let previous: Link = { sequence: 0n, hash: GENESIS_HASH };
    while (previous.sequence < head.sequence) {
      const page = await this.read({ fromSequence: previous.sequence + 1n, limit: VERIFY_PAGE });
      if (page.length === 0) return broken(previous);
      for (const entry of page) {
        if (!follows(entry, previous)) return broken(previous);
        previous = entry;
        if (entry.sequence === head.sequence && Buffer.compare(entry.hash, head.hash) !== 0) {
          return { entries: entry.sequence, firstBroken: entry.sequence };
        }
      }
    }
    const stray = await this.#strayAfterHead();
    return { entries: head.sequence, firstBroken: stray };
  }

  /** Writes what is queued. @throws Unavailable "audit-unwritten" */
  async close(): Promise<void> {
    await this.#queue.close();
  }

  /** One statement, one snapshot: an append that runs at the same time moves both values or neither. */
  async #strayAfterHead(): Promise<bigint | undefined> {
    try {
      const { rows } = await sql<{ stray: string | null }>`
        select min(audit_log.sequence)::text as stray from audit_log, audit_head
        where audit_log.sequence > audit_head.sequence or audit_log.sequence < 1`.execute(this.#database.kysely);
      const stray = rows[0]?.stray ?? null;
      return stray === null ? undefined : BigInt(stray);
    } catch (cause) {
      throw databaseUnavailable(cause);
    }
  }

  #stamp(events: readonly AuditEvent[]): readonly StampedEvent[] {
    const timeMs = this.#clock.nowMs();
    return events.map((event) => {
      const { kind, walletId, subject } = event;
      const payload = canonicalJson(event.payload);
      const fits =
        kind.length > 0 &&
        Buffer.byteLength(kind) <= MAX_KIND_BYTES &&
        Buffer.byteLength(walletId) <= MAX_NAME_BYTES &&
        Buffer.byteLength(subject) <= MAX_NAME_BYTES &&
        Buffer.byteLength(payload) <= MAX_PAYLOAD_BYTES;
      canonicalJson([kind, walletId, subject]); // the same characters are refused as in payloads
      if (!fits) throw new InvalidInput("audit-event", "a field of the audit event is too long", { kind: "" });
      return { kind, walletId, subject, timeMs, payload: JSON.parse(payload) as Record<string, unknown> };
    });
  }

  async #write(rows: readonly StampedEvent[]): Promise<void> {
    if (this.#attempted?.rows !== rows) this.#attempted = { rows, ends: [] };
    const { ends } = this.#attempted;
    await this.#database.kysely.transaction().execute(async (transaction) => {
      const row = await transaction.selectFrom("audit_head").selectAll().forUpdate().executeTakeFirst();
      if (row === undefined) throw new Bug("the head row of the audit trail is missing");
      for (const end of ends) if (await committed(transaction, end)) return;
      const entries = chain(rows, { sequence: BigInt(row.sequence), hash: row.hash });
      const last = entries.at(-1);
      if (last === undefined) return;
      ends.push(last);
      await insert(transaction, entries);
    });
    this.#attempted = undefined;
  }
}

function broken(previous: Link): { entries: bigint; firstBroken: bigint } {
  return { entries: previous.sequence, firstBroken: previous.sequence + 1n };
}

function chain(rows: readonly StampedEvent[], head: Link): AuditEntry[] {
  let previous = head;
  return rows.map((row) => {
    const unhashed = { ...row, sequence: previous.sequence + 1n, previousHash: previous.hash };
    const entry = { ...unhashed, hash: auditHash(unhashed) };
    previous = entry;
    return entry;
  });
}

async function committed(transaction: Transaction<AuditTables>, end: Link): Promise<boolean> {
  const row = await transaction
    .selectFrom("audit_log")
    .select("hash")
    .where("sequence", "=", String(end.sequence))
    .executeTakeFirst();
  return row !== undefined && Buffer.compare(row.hash, end.hash) === 0;
}

/** One statement and one parameter, whatever the number of rows. */
async function insert(transaction: Transaction<AuditTables>, entries: readonly AuditEntry[]): Promise<void> {
  const last = entries[entries.length - 1];
  if (last === undefined) return;
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const json = JSON.stringify(
    entries.map((entry) => ({
      sequence: String(entry.sequence),
      time_ms: entry.timeMs,
      kind: entry.kind,
      wallet_id: entry.walletId,
      subject: entry.subject,
      payload: entry.payload,
      previous_hash: hex(entry.previousHash),
      hash: hex(entry.hash),
    })),
  );
  await sql`
    with written as (
      insert into audit_log (sequence, time_ms, kind, wallet_id, subject, payload, previous_hash, hash)
      select sequence, time_ms, kind, wallet_id, subject, payload, decode(previous_hash, 'hex'), decode(hash, 'hex')
      from jsonb_to_recordset(${json}::jsonb) as entry(sequence bigint, time_ms bigint, kind text, wallet_id text,
        subject text, payload jsonb, previous_hash text, hash text)
      order by sequence
    )
    update audit_head set sequence = ${String(last.sequence)}::bigint, hash = decode(${hex(last.hash)}, 'hex')
    where id = 1`.execute(transaction);
}
