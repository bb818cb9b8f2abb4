/** Locks, leadership, counters and watched values between coordinators. Adapters: etcd and memory (storage/). */

/** A held lock. `fencing` grows with every grant, so a late writer can be told from the holder. */
export interface Lease {
  readonly fencing: bigint;
  /** False once the holder must stop by its own clock, which is before the lease can expire at the server. */
  readonly held: boolean;
  /** Aborted when the lease is lost. */
  readonly lost: AbortSignal;
  release(): Promise<void>;
}

export interface Coordination {
  /** One winner; undefined for everyone else. The lease renews itself until released. */
  tryLock(name: string, ttlMs: number): Promise<Lease | undefined>;
  /** Waits until this candidate leads; rejects with the signal's reason when aborted. */
  campaign(election: string, candidate: string, options: { ttlMs: number; signal: AbortSignal }): Promise<Lease>;
  leader(election: string): Promise<string | undefined>;
  /** Atomic addition by compare-and-swap; returns the new value. */
  add(counter: string, amount: bigint): Promise<bigint>;
  get(key: string): Promise<Uint8Array | undefined>;
  /** With `lease`, refused (returns false) unless that lease is still the newest grant of its lock. */
  put(key: string, value: Uint8Array, options?: { ttlMs?: number; lease?: Lease }): Promise<boolean>;
  delete(key: string): Promise<void>;
  list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>>;
  close(): Promise<void>;
}
