import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { Coordination, Lease } from "../wallet/coordination.js";
import { checkKey, checkTtl, checkValue, HeldLease } from "./held-lease.js";
import { OrderedMap } from "./ordered-map.js";

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

interface Entry {
  readonly value: Uint8Array;
  readonly expiresAtMs: number;
}

/** Where a space keeps what must outlive the process. Each call resolves when the change is durable, in call order. */
export interface SpaceJournal {
  saveValue(key: string, value: Uint8Array | undefined): Promise<void>;
  saveCounter(counter: string, sum: bigint): Promise<void>;
  close(): Promise<void>;
}

/** What a journal had when it was opened. */
export interface SpaceContent {
  readonly values: ReadonlyMap<string, Uint8Array>;
  readonly counters: ReadonlyMap<string, bigint>;
  /** Above every fencing number that was ever granted. */
  readonly revision: bigint;
}

/**
 * What etcd is to several coordinators, in the memory of one process: the embedded default, and the reference that the
 * etcd adapter is tested against. Each coordinator has its own connection. Without a journal everything ends with the
 * process; with one (`JournaledSpace`) only leases and values with a TTL do.
 */
export class MemorySpace {
  readonly clock: Clock;
  readonly journal: SpaceJournal | undefined;
  readonly entries = new OrderedMap<Entry>();
  readonly counters = new Map<string, bigint>();
  readonly #grants = new Map<string, Grant>();
  readonly #waiters = new Map<string, Set<Waiter>>();
  #revision = 0n;

  constructor(clock: Clock, restored?: { readonly journal: SpaceJournal; readonly content: SpaceContent }) {
    this.clock = clock;
    this.journal = restored?.journal;
    for (const [key, value] of restored?.content.values ?? []) {
      this.entries.set(key, { value, expiresAtMs: Number.POSITIVE_INFINITY });
    }
    for (const [counter, sum] of restored?.content.counters ?? []) this.counters.set(counter, sum);
    this.#revision = restored?.content.revision ?? 0n;
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

  grant(name: string, claim: { owner: MemoryCoordination; candidate: string; ttlMs: number }): Grant | undefined {
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
    const waiters = this.#waiters.get(name) ?? new Set<Waiter>();
    if (waiters.size >= MAX_CANDIDATES) throw new Unavailable("coordination-full", "too many candidates wait");
    this.#waiters.set(name, waiters);
    const leftMs = (this.holder(name)?.expiresAtMs ?? 0) - this.clock.monotonicMs();
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

  read(key: string): Uint8Array | undefined {
    const entry = this.entries.get(key);
    if (entry === undefined || entry.expiresAtMs > this.clock.monotonicMs()) return entry?.value;
    this.entries.delete(key);
    return undefined;
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
      const lease = this.#claim(name, { candidate, ttlMs: options.ttlMs });
      if (lease !== undefined) return lease;
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
    const { counters } = this.#space;
    if (counters.size >= MAX_KEYS && !counters.has(counter)) throw full();
    const sum = (counters.get(counter) ?? 0n) + amount;
    counters.set(counter, sum);
    if (amount !== 0n) await this.#space.journal?.saveCounter(counter, sum);
    return sum;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#assertOpen();
    checkKey(key);
    const value = this.#space.read(key);
    return value === undefined ? undefined : Uint8Array.from(value);
  }

  async put(key: string, value: Uint8Array, options: { ttlMs?: number; lease?: Lease } = {}): Promise<boolean> {
    this.#assertOpen();
    checkKey(key);
    checkValue(value);
    const { ttlMs, lease } = options;
    if (ttlMs !== undefined) checkTtl(ttlMs);
    if (lease !== undefined && !this.#isNewest(lease)) return false;
    const { entries, clock } = this.#space;
    if (entries.size >= MAX_KEYS && !entries.has(key)) throw full();
    const expiresAtMs = ttlMs === undefined ? Number.POSITIVE_INFINITY : clock.monotonicMs() + ttlMs;
    const copy = Uint8Array.from(value);
    entries.set(key, { value: copy, expiresAtMs });
    // A value with a TTL takes the place of a durable one there too.
    await this.#space.journal?.saveValue(key, ttlMs === undefined ? copy : undefined);
    return true;
  }

  async delete(key: string): Promise<void> {
    this.#assertOpen();
    checkKey(key);
    this.#space.entries.delete(key);
    await this.#space.journal?.saveValue(key, undefined);
  }

  async list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>> {
    this.#assertOpen();
    const found = new Map<string, Uint8Array>();
    for (const key of this.#space.entries.withPrefix(prefix)) {
      const value = this.#space.read(key);
      if (value !== undefined) found.set(key, Uint8Array.from(value));
    }
    return found;
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new Unavailable("coordination-closed", "the connection to coordination is closed"));
    for (const lease of this.#leases) lease.lose("connection closed");
    this.#space.endAllOf(this);
  }

  #claim(name: string, claim: { candidate: string; ttlMs: number }): HeldLease | undefined {
    const space = this.#space;
    const { clock } = space;
    const askedAtMs = clock.monotonicMs();
    const grant = space.grant(name, { ...claim, owner: this });
    if (grant === undefined) return undefined;
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

function full(): Unavailable {
  return new Unavailable("coordination-full", "the space holds as many keys as it may", { limit: MAX_KEYS });
}
