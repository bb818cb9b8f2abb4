import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { Lease } from "../wallet/coordination.js";

/** Shortest and longest time a lock outlives its holder. etcd rounds to seconds and grants no less than two. */
export const MIN_TTL_MS = 1_000;
export const MAX_TTL_MS = 3_600_000;

/** What a store must do for a lease; both calls go to whoever grants it. */
export interface LeaseGrant {
  readonly fencing: bigint;
  /** True when extended, false when the lease is gone; rejects when nobody answered. */
  renew(): Promise<boolean>;
  release(): Promise<void>;
}

/**
 * A lease as its holder sees it. The holder believes its own monotonic clock only: each renewal that succeeded is good
 * for five sixths of the TTL counted from before the request was sent, so the holder has stopped before the store can
 * let anyone else in, whatever happens to the network or to timers.
 */
export class HeldLease implements Lease {
  readonly fencing: bigint;
  readonly #grant: LeaseGrant;
  readonly #ttlMs: number;
  readonly #clock: Clock;
  readonly #lost = new AbortController();
  #goodUntilMs: number;
  #cancelRenewal: () => void = () => undefined;
  #cancelExpiry: () => void = () => undefined;
  #ended = false;

  /** @param askedAtMs monotonic time before the request for the grant was sent */
  constructor(grant: LeaseGrant, options: { readonly ttlMs: number; readonly askedAtMs: number }, clock: Clock) {
    this.fencing = grant.fencing;
    this.#grant = grant;
    this.#ttlMs = options.ttlMs;
    this.#clock = clock;
    this.#goodUntilMs = options.askedAtMs + this.#goodForMs;
    this.#watchExpiry();
    this.#renewAfter(this.#ttlMs / 3);
  }

  get held(): boolean {
    return !this.#ended && this.#clock.monotonicMs() < this.#goodUntilMs;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async release(): Promise<void> {
    if (this.#ended) return;
    this.#end();
    await this.#grant.release();
  }

  /** Stops at once, without telling the store: its connection is gone or it said that the lease is. */
  lose(why: string): void {
    if (this.#ended) return;
    this.#end();
    this.#lost.abort(new Unavailable("lease-lost", "the lease is lost", { why, fencing: this.fencing }));
  }

  get #goodForMs(): number {
    return (this.#ttlMs * 5) / 6;
  }

  #end(): void {
    this.#ended = true;
    this.#cancelRenewal();
    this.#cancelExpiry();
  }

  #watchExpiry(): void {
    this.#cancelExpiry();
    const leftMs = this.#goodUntilMs - this.#clock.monotonicMs();
    this.#cancelExpiry = this.#clock.after(Math.max(0, leftMs), () => {
      if (this.#clock.monotonicMs() >= this.#goodUntilMs) this.lose("not renewed in time");
      else if (!this.#ended) this.#watchExpiry(); // timers may fire a little early
    });
  }

  #renewAfter(delayMs: number): void {
    this.#cancelRenewal = this.#clock.after(delayMs, () => void this.#renew());
  }

  async #renew(): Promise<void> {
    if (!this.held) return this.lose("not renewed in time");
    const askedAtMs = this.#clock.monotonicMs();
    try {
      const extended = await this.#grant.renew();
      if (this.#ended) return;
      if (!extended) return this.lose("expired at the store");
      if (!this.held) return this.lose("not renewed in time");
      this.#goodUntilMs = askedAtMs + this.#goodForMs;
      this.#watchExpiry();
      this.#renewAfter(this.#ttlMs / 3);
    } catch {
      if (!this.#ended) this.#renewAfter(this.#ttlMs / 10); // nobody answered: try again until our own clock says stop
    }
  }
}

/** @throws InvalidInput "ttl-range" */
export function checkTtl(ttlMs: number): void {
  if (!Number.isInteger(ttlMs) || ttlMs < MIN_TTL_MS || ttlMs > MAX_TTL_MS) {
    throw new InvalidInput("ttl-range", "a TTL is 1 second to 1 hour", { ttlMs });
  }
}

const MAX_KEY_BYTES = 512;
const MAX_VALUE_BYTES = 512 * 1024;

/** @throws InvalidInput "key-range" */
export function checkKey(key: string): void {
  const size = Buffer.byteLength(key);
  if (size === 0 || size > MAX_KEY_BYTES) {
    throw new InvalidInput("key-range", "a key has 1 to 512 bytes", { size });
  }
}

/** @throws InvalidInput "value-range" */
export function checkValue(value: Uint8Array): void {
  if (value.length > MAX_VALUE_BYTES) {
    throw new InvalidInput("value-range", "a value has at most 512 KiB", { size: value.length });
  }
}
