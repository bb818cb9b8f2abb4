/** Where a ledger stands. Within a lineage both numbers only grow. */
export interface LedgerPosition {
  /** 16 bytes in hex; a new ledger has a new one. */
  readonly lineage: string;
  /** Number of times it was opened. */
  readonly epoch: bigint;
  /** Number of batches written. */
  readonly sequence: bigint;
}

type Place = Pick<LedgerPosition, "epoch" | "sequence">;

/** Not later than `own` in either number. */
const isWithin = (place: Place, own: Place): boolean => place.epoch <= own.epoch && place.sequence <= own.sequence;

/**
 * Whether `remembered` is something that a ledger which stands at `own` cannot account for: a later place, or a place
 * of another ledger that it has not outlived.
 */
export function isBeyond(
  remembered: LedgerPosition,
  own: LedgerPosition,
  outlived: Place = { epoch: -1n, sequence: -1n },
): boolean {
  if (remembered.lineage === own.lineage && isWithin(remembered, own)) return false;
  return !isWithin(remembered, outlived);
}

/**
 * Whether a witness that remembers `known` may remember `next` in its place: something later of the same ledger, or of a
 * new one that has gone beyond the old one.
 */
export function mayFollow(next: LedgerPosition, known: LedgerPosition): boolean {
  if (next.lineage === known.lineage) return isWithin(known, next);
  return next.epoch > known.epoch && next.sequence > known.sequence;
}
