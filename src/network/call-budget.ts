interface Bucket {
  tokens: number;
  refilledMs: number;
}

/**
 * How often each peer may make a costly call: a token bucket for each name. Names come from verified certificates, so
 * the roster bounds the table.
 */
export class CallBudget {
  readonly #burst: number;
  readonly #refillMs: number;
  readonly #buckets = new Map<string, Bucket>();

  /** @param options.burst calls at once, at least 1; one more for every `refillMs` milliseconds */
  constructor(options: { readonly burst: number; readonly refillMs: number }) {
    this.#burst = options.burst;
    this.#refillMs = options.refillMs;
  }

  /** Takes one call from the peer's budget; false when there is none left. `nowMs` is monotonic. */
  take(peer: string, nowMs: number): boolean {
    const bucket = this.#buckets.get(peer) ?? { tokens: this.#burst, refilledMs: nowMs };
    bucket.tokens = Math.min(this.#burst, bucket.tokens + Math.max(0, nowMs - bucket.refilledMs) / this.#refillMs);
    bucket.refilledMs = nowMs;
    this.#buckets.set(peer, bucket);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }
}
