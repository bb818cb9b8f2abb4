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

/** Throws `InvalidInput` "cursor-unknown". */
function page(records: readonly PaymentRecord[], query: { limit: number; before: string }): PaymentRecord[] {
  if (query.before === "") return records.slice(0, query.limit);
  const place = records.findIndex(({ paymentId }) => paymentId === query.before);
  if (place < 0) throw new InvalidInput("cursor-unknown", "no such payment in this wallet's history");
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

/**
 * In the coordinators' shared store (etcd, or memory in an embedded set-up): `/payments/{id}` holds the record and
 * `/open-payments/{id}` marks the unfinished ones. Histories are read whole, which is fine for thousands of payments;
 * a bigger firm lists from the audit database.
 */
export class CoordinatedPaymentStore implements PaymentStore {
  readonly #coordination: Coordination;
  readonly #lease: () => Lease | undefined;

  /** With a lease, writes are refused once another coordinator leads. */
  constructor(dependencies: { readonly coordination: Coordination; readonly lease?: () => Lease | undefined }) {
    this.#coordination = dependencies.coordination;
    this.#lease = dependencies.lease ?? (() => undefined);
  }

  async #write(key: string, value: Uint8Array): Promise<void> {
    const lease = this.#lease();
    if (await this.#coordination.put(key, value, lease === undefined ? {} : { lease })) return;
    throw new Unavailable("not-leading", "another coordinator leads now");
  }

  async put(record: PaymentRecord): Promise<void> {
    const { paymentId } = record;
    // The mark comes before the record and goes after it, so that no crash hides an unfinished payment.
    if (isOpen(record) && record.revision <= 1n) await this.#write(OPEN + paymentId, new Uint8Array(0));
    await this.#write(PAYMENTS + paymentId, encodePaymentRecord(record));
    if (!isOpen(record)) await this.#coordination.delete(OPEN + paymentId);
  }

  async get(paymentId: string): Promise<PaymentRecord | undefined> {
    const bytes = await this.#coordination.get(PAYMENTS + paymentId);
    return bytes === undefined ? undefined : decodePaymentRecord(bytes);
  }

  async list(query: { walletId: string; limit: number; before: string }): Promise<readonly PaymentRecord[]> {
    const stored = await this.#coordination.list(PAYMENTS);
    const records = [...stored.values()].map(decodePaymentRecord);
    return page(newestFirst(records.filter(({ walletId }) => walletId === query.walletId)), query);
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
