/** The trail that anyone with the public keys can verify. Adapters: PostgreSQL and PGlite (storage/). */

/** One entry. The trail numbers, chains and stamps it; the payload is JSON without secrets. */
export interface AuditEvent {
  /** For example "wallet-created", "payment-created", "ballot", "payment-approved", "payment-broadcast". */
  readonly kind: string;
  /** Wallet the entry is about; empty for the system. */
  readonly walletId: string;
  /** Request id, txid or node id the entry is about. */
  readonly subject: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** One entry as stored. `hash` = SHA-256 over the previous entry's hash and the canonical entry. */
export interface AuditEntry extends AuditEvent {
  readonly sequence: bigint;
  readonly timeMs: number;
  readonly previousHash: Uint8Array;
  readonly hash: Uint8Array;
}

export interface AuditTrail {
  /** Queues in order; written in batches. Resolves when the entries are durable. */
  append(events: readonly AuditEvent[]): Promise<void>;
  /** Entries from `fromSequence` in order, at most `limit`. */
  read(options: { fromSequence: bigint; limit: number; subject?: string }): Promise<readonly AuditEntry[]>;
  /** Recomputes the hash chain; returns the number of entries, or the first sequence that does not fit. */
  verify(): Promise<{ entries: bigint; firstBroken: bigint | undefined }>;
}
