import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";

/** Rows that are written together or not at all. */
interface Group<Row> {
  readonly rows: readonly Row[];
  /** Set while somebody waits for the group; cleared once told. */
  settle: ((fault: Unavailable | undefined) => void) | undefined;
}

export interface AuditQueueOptions {
  /** Rows of one batch, unless one group alone has more. */
  readonly batchRows?: number;
  /** How long rows that nobody waits for may stay in memory. */
  readonly flushAfterMs?: number;
  /** How long rows that somebody waits for may wait for others; 0 is not at all. */
  readonly gatherMs?: number;
  /** Most rows in memory; further ones are refused. */
  readonly maxQueuedRows?: number;
  /** Delays before the attempts after the first. */
  readonly retryDelaysMs?: readonly number[];
  /** Delay between rounds of attempts while the database is down. */
  readonly pauseMs?: number;
}

/**
 * Turns many small appends into few batches, in order. Whoever waits is written at once, or after `gatherMs`, together with
 * all that came in meanwhile (group commit); what nobody waits for goes with 100 rows or after 5 seconds.
 *
 * While the database is down, rows stay queued in their order up to the bound, and are written when it is back.
 */
export class AuditQueue<Row> {
  readonly #write: (rows: readonly Row[]) => Promise<void>;
  readonly #clock: Clock;
  readonly #batchRows: number;
  readonly #flushAfterMs: number;
  readonly #gatherMs: number;
  readonly #maxQueuedRows: number;
  readonly #retryDelaysMs: readonly number[];
  readonly #pauseMs: number;
  readonly #groups: Group<Row>[] = [];
  /** Groups and rows of the batch under way; kept as they are until written, since an attempt may have gone through. */
  #batch: { readonly groups: number; readonly rows: readonly Row[] } | undefined;
  #queuedRows = 0;
  #pumping: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  #timerDueMs = 0;
  #closed = false;

  /**
   * @param write writes rows durably and in order, all or none; called again with the very same array until it
   *   succeeds, so it must find out by itself whether an earlier attempt went through
   */
  constructor(
    options: AuditQueueOptions,
    dependencies: { readonly write: (rows: readonly Row[]) => Promise<void>; readonly clock: Clock },
  ) {
    this.#write = dependencies.write;
    this.#clock = dependencies.clock;
    this.#batchRows = options.batchRows ?? 100;
    this.#flushAfterMs = options.flushAfterMs ?? 5_000;
    this.#gatherMs = options.gatherMs ?? 0;
    this.#maxQueuedRows = options.maxQueuedRows ?? 10_000;
    this.#retryDelaysMs = options.retryDelaysMs ?? [50, 200, 800];
    this.#pauseMs = options.pauseMs ?? 2_000;
  }

  get queuedRows(): number {
    return this.#queuedRows;
  }

  /**
   * Resolves when the rows are durable.
   *
   * @throws Unavailable "audit-queue-full" or "audit-closed": not accepted, the caller may try again;
   *   "audit-delayed": accepted and kept, written when the database is back, not to be appended again
   */
  append(rows: readonly Row[]): Promise<void> {
    const group: Group<Row> = { rows, settle: undefined };
    this.#accept(group);
    const written = new Promise<void>((resolve, reject) => {
      group.settle = (fault) => (fault === undefined ? resolve() : reject(fault));
    });
    if (this.#isDue) this.#pump();
    else this.#pumpAfter(this.#gatherMs);
    return written;
  }

  /** Queues without waiting. @throws Unavailable "audit-queue-full", "audit-closed" */
  enqueue(rows: readonly Row[]): void {
    this.#accept({ rows, settle: undefined });
    if (this.#queuedRows >= this.#batchRows) this.#pump();
    else this.#pumpAfter(this.#flushAfterMs);
  }

  /** Writes what is queued and stops. @throws Unavailable "audit-unwritten" with the number of rows that are lost */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer?.();
    await this.#pumping;
    this.#pump();
    await this.#pumping;
    this.#cancelTimer?.();
    if (this.#queuedRows > 0) {
      throw new Unavailable("audit-unwritten", "the database was down until the end", { rows: this.#queuedRows });
    }
  }

  #accept(group: Group<Row>): void {
    if (this.#closed) throw new Unavailable("audit-closed", "the audit trail is closed");
    if (group.rows.length > this.#maxQueuedRows) {
      throw new InvalidInput("audit-append-size", "too many rows at once", { limit: this.#maxQueuedRows });
    }
    if (this.#queuedRows + group.rows.length > this.#maxQueuedRows) {
      throw new Unavailable("audit-queue-full", "the audit database does not keep up", { limit: this.#maxQueuedRows });
    }
    this.#groups.push(group);
    this.#queuedRows += group.rows.length;
  }

  /** Whether what is queued is to be written without waiting for more. */
  get #isDue(): boolean {
    return this.#gatherMs === 0 || this.#closed || this.#queuedRows >= this.#batchRows;
  }

  #pumpAfter(delayMs: number): void {
    const dueMs = this.#clock.monotonicMs() + delayMs;
    if (this.#pumping !== undefined || (this.#cancelTimer !== undefined && this.#timerDueMs <= dueMs)) return;
    this.#cancelTimer?.();
    this.#timerDueMs = dueMs;
    this.#cancelTimer = this.#clock.after(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#pumping !== undefined) return;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#pumping = this.#drain().then((drained) => {
      this.#pumping = undefined;
      if (this.#closed) return;
      if (!drained) this.#pumpAfter(this.#pauseMs);
      else if (this.#groups.length > 0) this.#pumpAfter(this.#gatherMs);
    });
  }

  /** True when what was due is written, false when the database did not take a batch. */
  async #drain(): Promise<boolean> {
    for (let isFirst = true; this.#groups.length > 0 && (isFirst || this.#isDue); isFirst = false) {
      this.#batch ??= this.#nextBatch();
      const fault = await this.#attempt(this.#batch.rows);
      if (fault !== undefined) {
        this.#fail(fault);
        return false;
      }
      const written = this.#groups.splice(0, this.#batch.groups);
      this.#batch = undefined;
      for (const { rows, settle } of written) {
        this.#queuedRows -= rows.length;
        settle?.(undefined);
      }
    }
    return true;
  }

  #nextBatch(): { groups: number; rows: Row[] } {
    let count = 0;
    const end = this.#groups.findIndex((group) => {
      count += group.rows.length;
      return count > this.#batchRows;
    });
    const groups = end === -1 ? this.#groups.length : Math.max(1, end);
    return { groups, rows: this.#groups.slice(0, groups).flatMap(({ rows }) => rows) };
  }

  async #attempt(rows: readonly Row[]): Promise<Unavailable | undefined> {
    let last: unknown;
    for (const delayMs of [0, ...this.#retryDelaysMs]) {
      if (delayMs > 0) await new Promise<void>((resolve) => this.#clock.after(delayMs, resolve));
      try {
        await this.#write(rows);
        return undefined;
      } catch (cause) {
        last = cause;
      }
    }
    return new Unavailable(
      "audit-delayed",
      "the audit database does not answer; the entries are kept and written when it does",
      { queuedRows: this.#queuedRows },
      last,
    );
  }

  #fail(fault: Unavailable): void {
    for (const group of this.#groups) {
      group.settle?.(fault);
      group.settle = undefined;
    }
  }
}
