const MAX_SOURCES = 4_096;

interface Bucket {
  tokens: number;
  refilledMs: number;
}

/**
 * How many datagrams of strangers, or lines about them, may cost us work. A token bucket a source, in a bounded table (the source that was quiet
 * longest is forgotten first), and one for everybody together.
 */
export class PacketBudget {
  readonly #perSource: number;
  readonly #total: Bucket;
  readonly #perSecond: number;
  readonly #sources = new Map<string, Bucket>();

  constructor(options: { perSourcePerSecond: number; perSecond: number; nowMs: number }) {
    this.#perSource = options.perSourcePerSecond;
    this.#perSecond = options.perSecond;
    this.#total = { tokens: options.perSecond, refilledMs: options.nowMs };
  }

  /** Takes one packet from the budget of `source` (an address without port); false when it must be dropped. */
  take(source: string, nowMs: number): boolean {
    let bucket = this.#sources.get(source);
    if (bucket === undefined) {
      bucket = { tokens: this.#perSource, refilledMs: nowMs };
      if (this.#sources.size >= MAX_SOURCES) {
        const [oldest] = this.#sources.keys();
        if (oldest !== undefined) this.#sources.delete(oldest);
      }
    } else {
      this.#sources.delete(source);
    }
    this.#sources.set(source, bucket);
    return spend(bucket, this.#perSource, nowMs) && spend(this.#total, this.#perSecond, nowMs);
  }
}

function spend(bucket: Bucket, perSecond: number, nowMs: number): boolean {
  const earned = ((nowMs - bucket.refilledMs) * perSecond) / 1_000;
  bucket.tokens = Math.min(perSecond, bucket.tokens + Math.max(0, earned));
  bucket.refilledMs = nowMs;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}
