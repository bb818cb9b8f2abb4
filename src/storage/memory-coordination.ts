import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { Coordination, Lease } from "../wallet/coordination.js";
import { checkKey, checkTtl, checkValue, HeldLease } from "./held-lease.js";

const MAX_KEYS = 100_000;
const MAX_CANDIDATES = 1_000;

interface Grant {
  readonly fencing: bigint;
  readonly owner: MemoryCoordination;
  readonly candidate: string;
  readonly ttlMs: number;
  expiresAtMs: number;
}

interface Waiter {
  readonly resume: () => void;
}

/** Values that outlive their writer, and counters: in memory here, on disk in disk-coordination.ts. */
export interface LastingValues {
  get(key: string): Promise<Uint8Array | undefined>;
  /** @throws Unavailable `coordination-full` */
  put(key: string, value: Uint8Array): Promise<void>;
  delete(key: string): Promise<void>;
  /** In the order of their keys. */
  list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>>;
  /** @throws Unavailable `coordination-full` */
  add(counter: string, amount: bigint): Promise<bigint>;
  /** Fencing numbers above the one returned were never granted, whatever happened to an earlier process. */
  readonly fencing: bigint;
  /** Resolves when no later process will grant a number up to this one again. */
  reserveFencing(upTo: bigint): Promise<void>;
}

/** Keys in order, so that a prefix is found without looking at all of them. */
export class MemoryValues implements LastingValues {
  readonly fencing = 0n;
  readonly #values = new Map<string, Uint8Array>();
  readonly #counters = new Map<string, bigint>();
  readonly #sorted: string[] = [];

  async get(key: string): Promise<Uint8Array | undefined> {
    return this.#values.get(key);
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    if (!this.#values.has(key)) {
      if (this.#values.size >= MAX_KEYS) throw full(MAX_KEYS);
      this.#sorted.splice(this.#place(key), 0, key);
    }
    this.#values.set(key, value);
  }

  async delete(key: string): Promise<void> {
    if (this.#values.delete(key)) this.#sorted.splice(this.#place(key), 1);
  }

  async list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>> {
    const found = new Map<string, Uint8Array>();
    for (let at = this.#place(prefix); at < this.#sorted.length; at++) {
      const key = this.#sorted[at] ?? "";
      const value = this.#values.get(key);
      if (value === undefined || !key.startsWith(prefix)) break;
      found.set(key, value);
    }
    return found;
  }

  async add(counter: string, amount: bigint): Promise<bigint> {
    if (this.#counters.size >= MAX_KEYS && !this.#counters.has(counter)) throw full(MAX_KEYS);
    const sum = (this.#counters.get(counter) ?? 0n) + amount;
    this.#counters.set(counter, sum);
    return sum;
  }

  async reserveFencing(): Promise<void> {}

  /** First place whose key is not below. */
  #place(key: string): number {
    let [low, high] = [0, this.#sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#sorted[middle] ?? "") < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** A value that disappears by itself. */
interface Passing {
  readonly value: Uint8Array;
  readonly expiresAtMs: number;
}

/** Fencing numbers that are reserved at once, so that a grant seldom waits for a disk. */
const FENCING_BLOCK = 1_000n;

/**
 * What etcd is to several coordinators, in one process: the embedded default, and the reference that the etcd adapter
 * is tested against. Each coordinator has its own connection. Locks, leadership and values with a TTL end with the
 * process; everything else lasts as long as the values that the space is made of.
 */
export class MemorySpace {
  readonly clock: Clock;
  readonly #values: LastingValues;
  readonly #passing = new Map<string, Passing>();
  readonly #grants = new Map<string, Grant>();
  readonly #waiters = new Map<string, Set<Waiter>>();
  #revision: bigint;
  #reserved: bigint;
  #turns: Promise<unknown> = Promise.resolve();

  constructor(clock: Clock, values: LastingValues = new MemoryValues()) {
    this.clock = clock;
    this.#values = values;
    this.#revision = values.fencing;
    this.#reserved = values.fencing;
  }

  connect(): MemoryCoordination {
    return new MemoryCoordination(this);
  }

  /** The grant that holds `name` now; an expired one is nobody's. */
  holder(name: string): Grant | undefined {
    const grant = this.#grants.get(name);
    if (grant !== undefined && grant.expiresAtMs <= this.clock.monotonicMs()) {
      this.end(name, grant.fencing);
      return undefined;
    }
    return grant;
  }

  async grant(
    name: string,
    claim: { owner: MemoryCoordination; candidate: string; ttlMs: number },
  ): Promise<Grant | undefined> {
    if (this.holder(name) !== undefined) return undefined;
    while (this.#revision >= this.#reserved) {
      const upTo = this.#reserved + FENCING_BLOCK;
      await this.#inTurn(async () => {
        if (this.#reserved >= upTo) return;
        await this.#values.reserveFencing(upTo);
        this.#reserved = upTo;
      });
    }
    // From here to the grant nothing waits, so that of many claims one wins.
    if (this.holder(name) !== undefined) return undefined;
    if (this.#grants.size >= MAX_KEYS) throw new Unavailable("coordination-full", "too many locks are held");
    this.#revision += 1n;
    const grant: Grant = {
      ...claim,
      fencing: this.#revision,
      expiresAtMs: this.clock.monotonicMs() + claim.ttlMs,
    };
    this.#grants.set(name, grant);
    return grant;
  }

  end(name: string, fencing: bigint): void {
    if (this.#grants.get(name)?.fencing !== fencing) return;
    this.#grants.delete(name);
    for (const waiter of this.#waiters.get(name) ?? []) waiter.resume();
  }

  endAllOf(owner: MemoryCoordination): void {
    for (const [name, grant] of this.#grants) if (grant.owner === owner) this.end(name, grant.fencing);
  }

  /** Resolves when `name` may be free, or when the signal aborts. */
  async freed(name: string, signal: AbortSignal): Promise<void> {
    const holder = this.holder(name);
    if (holder === undefined) return;
    const waiters = this.#waiters.get(name) ?? new Set<Waiter>();
    if (waiters.size >= MAX_CANDIDATES) throw new Unavailable("coordination-full", "too many candidates wait");
    this.#waiters.set(name, waiters);
    const leftMs = holder.expiresAtMs - this.clock.monotonicMs();
    await new Promise<void>((resolve) => {
      const waiter = { resume: () => finish() };
      const finish = () => {
        cancel();
        signal.removeEventListener("abort", finish);
        waiters.delete(waiter);
        if (waiters.size === 0) this.#waiters.delete(name);
        resolve();
      };
      const cancel = this.clock.after(Math.max(0, leftMs), finish);
      waiters.add(waiter);
      signal.addEventListener("abort", finish, { once: true });
    });
  }

  async read(key: string): Promise<Uint8Array | undefined> {
    return this.#alive(key) ?? (await this.#values.get(key));
  }

  /** Writes when `allowed` still says so at its turn. */
  write(key: string, value: Uint8Array, terms: { ttlMs: number | undefined; allowed: () => boolean }) {
    return this.#inTurn(async () => {
      if (!terms.allowed()) return false;
      if (terms.ttlMs === undefined) {
        await this.#values.put(key, value);
        this.#passing.delete(key);
        return true;
      }
      if (this.#passing.size >= MAX_KEYS && !this.#passing.has(key)) this.#sweep();
      if (this.#passing.size >= MAX_KEYS && !this.#passing.has(key)) throw full(MAX_KEYS);
      this.#passing.set(key, { value, expiresAtMs: this.clock.monotonicMs() + terms.ttlMs });
      await this.#values.delete(key);
      return true;
    });
  }

  remove(key: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#values.delete(key);
      this.#passing.delete(key);
    });
  }

  async listed(prefix: string): Promise<ReadonlyMap<string, Uint8Array>> {
    this.#sweep();
    const passing = [...this.#passing].filter(([key]) => key.startsWith(prefix));
    const lasting = await this.#values.list(prefix);
    if (passing.length === 0) return lasting;
    const all = new Map([...lasting, ...passing.map(([key, { value }]): [string, Uint8Array] => [key, value])]);
    return new Map([...all].sort(([one], [other]) => (one < other ? -1 : 1)));
  }

  count(counter: string, amount: bigint): Promise<bigint> {
    return this.#inTurn(() => this.#values.add(counter, amount));
  }

  #alive(key: string): Uint8Array | undefined {
    const entry = this.#passing.get(key);
    if (entry === undefined || entry.expiresAtMs > this.clock.monotonicMs()) return entry?.value;
    this.#passing.delete(key);
    return undefined;
  }

  #sweep(): void {
    for (const key of [...this.#passing.keys()]) this.#alive(key);
  }

  /** One write after the other: a disk may finish two of them in any order. */
  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const turn = this.#turns.then(task);
    this.#turns = turn.catch(() => undefined);
    return turn;
  }
}

/** One coordinator's connection to a memory space. */
export class MemoryCoordination implements Coordination {
  readonly #space: MemorySpace;
  /** Lock or election of each lease that this connection was granted. */
  readonly #names = new WeakMap<Lease, string>();
  readonly #leases = new Set<HeldLease>();
  readonly #closed = new AbortController();

  constructor(space: MemorySpace) {
    this.#space = space;
  }

  async tryLock(name: string, ttlMs: number): Promise<Lease | undefined> {
    this.#assertOpen();
    checkKey(name);
    checkTtl(ttlMs);
    return this.#claim(`lock/${name}`, { candidate: "", ttlMs });
  }

  async campaign(election: string, candidate: string, options: { ttlMs: number; signal: AbortSignal }): Promise<Lease> {
    checkKey(election);
    checkTtl(options.ttlMs);
    const name = `election/${election}`;
    const signal = AbortSignal.any([options.signal, this.#closed.signal]);
    for (;;) {
      signal.throwIfAborted();
      const lease = await this.#claim(name, { candidate, ttlMs: options.ttlMs });
      if (lease !== undefined) {
        if (!signal.aborted) return lease;
        await lease.release();
        signal.throwIfAborted();
      }
      await this.#space.freed(name, signal);
    }
  }

  async leader(election: string): Promise<string | undefined> {
    this.#assertOpen();
    checkKey(election);
    return this.#space.holder(`election/${election}`)?.candidate;
  }

  async add(counter: string, amount: bigint): Promise<bigint> {
    this.#assertOpen();
    checkKey(counter);
    return this.#space.count(counter, amount);
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#assertOpen();
    checkKey(key);
    const value = await this.#space.read(key);
    return value === undefined ? undefined : Uint8Array.from(value);
  }

  async put(key: string, value: Uint8Array, options: { ttlMs?: number; lease?: Lease } = {}): Promise<boolean> {
    this.#assertOpen();
    checkKey(key);
    checkValue(value);
    const { ttlMs, lease } = options;
    if (ttlMs !== undefined) checkTtl(ttlMs);
    const allowed = (): boolean => lease === undefined || this.#isNewest(lease);
    if (!allowed()) return false;
    return await this.#space.write(key, Uint8Array.from(value), { ttlMs, allowed });
  }

  async delete(key: string): Promise<void> {
    this.#assertOpen();
    checkKey(key);
    await this.#space.remove(key);
  }

  async list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>> {
    this.#assertOpen();
    const found = await this.#space.listed(prefix);
    return new Map([...found].map(([key, value]) => [key, Uint8Array.from(value)]));
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new Unavailable("coordination-closed", "the connection to coordination is closed"));
    for (const lease of this.#leases) lease.lose("connection closed");
    this.#space.endAllOf(this);
  }

  async #claim(name: string, claim: { candidate: string; ttlMs: number }): Promise<HeldLease | undefined> {
    const space = this.#space;
    const { clock } = space;
    const askedAtMs = clock.monotonicMs();
    const grant = await space.grant(name, { ...claim, owner: this });
    if (grant === undefined) return undefined;
    if (this.#closed.signal.aborted) {
      space.end(name, grant.fencing);
      this.#assertOpen();
    }
    const lease = new HeldLease(
      {
        fencing: grant.fencing,
        async renew() {
          if (space.holder(name) !== grant) return false;
          grant.expiresAtMs = clock.monotonicMs() + grant.ttlMs;
          return true;
        },
        async release() {
          space.end(name, grant.fencing);
        },
      },
      { ttlMs: claim.ttlMs, askedAtMs },
      clock,
    );
    this.#names.set(lease, name);
    for (const known of this.#leases) if (!known.held) this.#leases.delete(known);
    this.#leases.add(lease);
    return lease;
  }

  #isNewest(lease: Lease): boolean {
    const name = this.#names.get(lease);
    if (name === undefined) throw new InvalidInput("lease-foreign", "the lease was granted by another connection");
    return lease.held && this.#space.holder(name)?.fencing === lease.fencing;
  }

  #assertOpen(): void {
    this.#closed.signal.throwIfAborted();
  }
}

/** The caller writes nothing more until something was deleted. */
export function full(limit: number): Unavailable {
  return new Unavailable("coordination-full", "the space holds as many keys as it may", { limit });
}
