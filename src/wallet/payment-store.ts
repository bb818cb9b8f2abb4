import { FINAL_PHASES } from "../consensus/transaction-state.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { Coordination, Lease } from "./coordination.js";
import { decodePaymentRecord, encodePaymentRecord, type PaymentRecord } from "./payment-record.js";

/** Where payments are kept between coordinators. */
export interface PaymentStore {
  /** Durable when resolved. Rejects with `Unavailable` "not-leading" when this coordinator may no longer write. */
  put(record: PaymentRecord): Promise<void>;
  get(paymentId: string): Promise<PaymentRecord | undefined>;
  /** Newest first by creation, older than the payment `before` when that is given. */
  list(query: {
    readonly walletId: string;
    readonly limit: number;
    readonly before: string;
  }): Promise<readonly PaymentRecord[]>;
  /** Payments in a phase that is not final, oldest first: what a new leader resumes. */
  unfinished(): Promise<readonly PaymentRecord[]>;
}

function newestFirst(records: Iterable<PaymentRecord>): PaymentRecord[] {
  return [...records].sort((a, b) => b.createdAtMs - a.createdAtMs || (a.paymentId < b.paymentId ? 1 : -1));
}

function unknownCursor(): InvalidInput {
  return new InvalidInput("cursor-unknown", "no such payment in this wallet's history");
}

/** Throws `InvalidInput` "cursor-unknown". */
function page(records: readonly PaymentRecord[], query: { limit: number; before: string }): PaymentRecord[] {
  if (query.before === "") return records.slice(0, query.limit);
  const place = records.findIndex(({ paymentId }) => paymentId === query.before);
  if (place < 0) throw unknownCursor();
  return records.slice(place + 1, place + 1 + query.limit);
}

const isOpen = (record: PaymentRecord): boolean => !FINAL_PHASES.has(record.state.phase);

/** In the process's memory: for tests, and for a single coordinator that may forget. */
export class MemoryPaymentStore implements PaymentStore {
  readonly #records = new Map<string, Uint8Array>();

  #all(): PaymentRecord[] {
    return newestFirst([...this.#records.values()].map(decodePaymentRecord));
  }

  async put(record: PaymentRecord): Promise<void> {
    this.#records.set(record.paymentId, encodePaymentRecord(record));
  }

  async get(paymentId: string): Promise<PaymentRecord | undefined> {
    const bytes = this.#records.get(paymentId);
    return bytes === undefined ? undefined : decodePaymentRecord(bytes);
  }

  async list(query: { walletId: string; limit: number; before: string }): Promise<readonly PaymentRecord[]> {
    return page(
      this.#all().filter(({ walletId }) => walletId === query.walletId),
      query,
    );
  }

  async unfinished(): Promise<readonly PaymentRecord[]> {
    return this.#all().filter(isOpen).reverse();
  }
}

const PAYMENTS = "/payments/";
const OPEN = "/open-payments/";
const HISTORY = "/payment-history/";

/** Finished payments that one coordinator keeps in the shared store; older ones are in the audit trail. */
export const KEPT_MAX = 20_000;

/**
 * In the coordinators' shared store (etcd, or memory in an embedded set-up): `/payments/{id}` holds the record,
 * `/open-payments/{id}` marks the unfinished ones, `/payment-history/{wallet}/{time}/{id}` orders them.
 */
export class CoordinatedPaymentStore implements PaymentStore {
  readonly #coordination: Coordination;
  readonly #lease: () => Lease | undefined;
  readonly #keptMax: number;
  /** Finished here, oldest first. */
  readonly #finished: PaymentRecord[] = [];

  /** With a lease, writes are refused once another coordinator leads. */
  constructor(
    dependencies: { readonly coordination: Coordination; readonly lease?: () => Lease | undefined },
    options: { readonly keptMax: number } = { keptMax: KEPT_MAX },
  ) {
    this.#coordination = dependencies.coordination;
    this.#lease = dependencies.lease ?? (() => undefined);
    this.#keptMax = options.keptMax;
  }

  async #write(key: string, value: Uint8Array): Promise<void> {
    const lease = this.#lease();
    if (await this.#coordination.put(key, value, lease === undefined ? {} : { lease })) return;
    throw new Unavailable("not-leading", "another coordinator leads now");
  }

  async put(record: PaymentRecord): Promise<void> {
    const { paymentId } = record;
    // The marks come before the record and go after it, so that no crash hides an unfinished payment.
    if (record.revision <= 1n) {
      const empty = new Uint8Array(0);
      await Promise.all([this.#write(OPEN + paymentId, empty), this.#write(historyKey(record), empty)]);
    }
    await this.#write(PAYMENTS + paymentId, encodePaymentRecord(record));
    if (isOpen(record)) return;
    await this.#coordination.delete(OPEN + paymentId);
    this.#finished.push(record);
    const oldest = this.#finished.length > this.#keptMax ? this.#finished.shift() : undefined;
    if (oldest === undefined) return;
    const keys = [historyKey(oldest), PAYMENTS + oldest.paymentId];
    await Promise.all(keys.map((key) => this.#coordination.delete(key)));
  }

  async get(paymentId: string): Promise<PaymentRecord | undefined> {
    const bytes = await this.#coordination.get(PAYMENTS + paymentId);
    return bytes === undefined ? undefined : decodePaymentRecord(bytes);
  }

  async list(query: { walletId: string; limit: number; before: string }): Promise<readonly PaymentRecord[]> {
    const keys = [...(await this.#coordination.list(`${HISTORY}${query.walletId}/`)).keys()].sort().reverse();
    const ids = keys.map((key) => key.slice(key.lastIndexOf("/") + 1));
    const from = query.before === "" ? 0 : ids.indexOf(query.before) + 1;
    if (query.before !== "" && from === 0) throw unknownCursor();
    const records = await Promise.all(ids.slice(from, from + query.limit).map((paymentId) => this.get(paymentId)));
    return records.flatMap((record) => record ?? []);
  }

  async unfinished(): Promise<readonly PaymentRecord[]> {
    const marks = await this.#coordination.list(OPEN);
    const records: PaymentRecord[] = [];
    for (const key of marks.keys()) {
      const record = await this.get(key.slice(OPEN.length));
      if (record !== undefined && isOpen(record)) records.push(record);
    }
    return newestFirst(records).reverse();
  }
}

function historyKey({ walletId, createdAtMs, paymentId }: PaymentRecord): string {
  return `${HISTORY}${walletId}/${Math.floor(createdAtMs).toString().padStart(16, "0")}/${paymentId}`;
}
