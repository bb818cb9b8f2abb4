/** Where a ledger stands. Within a lineage both numbers only grow. */
export interface LedgerPosition {
  /** 16 bytes in hex; a new ledger has a new one. */
  readonly lineage: string;
  /** Number of times it was opened. */
  readonly epoch: bigint;
  /** Number of batches written. */
  readonly sequence: bigint;
}

/**
 * Whether `remembered` is something that a ledger which stands at `own` cannot account for: a later place, or a place of
 * another ledger.
 */
export function isBeyond(remembered: LedgerPosition, own: LedgerPosition): boolean {
  if (remembered.lineage !== own.lineage) return true;
  return remembered.epoch > own.epoch || remembered.sequence > own.sequence;
}
