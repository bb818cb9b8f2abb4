/**
 * Time and randomness as arguments. Nothing below the composition roots reads a clock or an entropy source by itself,
 * so that a simulation with a seed reproduces a run exactly.
 */

/** Source of cryptographic randomness; `bytes(n)` returns n fresh bytes. */
export interface Random {
  bytes(length: number): Uint8Array;
}

/** Wall clock in Unix milliseconds, monotonic clock in milliseconds, and timers. */
export interface Clock {
  nowMs(): number;
  monotonicMs(): number;
  /** Calls back once after `delayMs`; the returned function cancels. */
  after(delayMs: number, callback: () => void): () => void;
}
