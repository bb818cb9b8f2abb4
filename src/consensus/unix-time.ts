/** Clocks may answer fractions of a millisecond; what is signed, sent and stored has whole ones. */
export function wholeMs(timeMs: number): bigint {
  return BigInt(Math.floor(timeMs));
}
