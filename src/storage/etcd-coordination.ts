import { Etcd3, type Lease as EtcdLease, EtcdLeaseInvalidError, type IOptions } from "etcd3";
import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { Coordination, Lease } from "../wallet/coordination.js";
import { checkKey, checkTtl, checkValue, HeldLease } from "./held-lease.js";

const DEADLINE_MS = 1_500;
const POLL_MS = 250;
const MAX_ATTEMPTS = 3;
const MAX_CAS_ATTEMPTS = 200;
const MAX_LISTED = 10_000;

export interface EtcdOptions {
  /** For example `http://127.0.0.1:2379`, or `https://…` with `credentials`. */
  readonly hosts: readonly string[];
  /** All keys start with it; "/mpc-wallet/" by default. */
  readonly prefix?: string;
  /** PEM. */
  readonly credentials?: {
    readonly rootCertificate: Buffer;
    readonly privateKey?: Buffer;
    readonly certChain?: Buffer;
  };
  readonly auth?: { readonly username: string; readonly password: string };
}

/** What makes a lease known to the connection that granted it: the key it stands for and the client's own lease. */
interface Claim {
  readonly key: string;
  readonly lease: EtcdLease;
}

/**
 * Coordination in etcd 3.4 or later. Locks and elections are one key each, created with a lease in one transaction; the
 * fencing number is the revision that created the key. Every call has a deadline of 1.5 seconds; what may be asked
 * twice without harm is asked up to three times, of another host if there is one. The library's own retries and circuit
 * breakers are off: they would repeat additions and sit out a failover.
 *
 * Run servers with `--grpc-keepalive-min-time=1s`: otherwise they close connections that check for life as often as
 * these do, and every now and then one has to be opened again.
 */
export class EtcdCoordination implements Coordination {
  readonly #client: Etcd3;
  readonly #clock: Clock;
  readonly #prefix: string;
  readonly #claims = new WeakMap<Lease, Claim>();
  readonly #leases = new Set<HeldLease>();
  /** Last addition to each counter: this connection does not compete with itself. */
  readonly #additions = new Map<string, Promise<unknown>>();
  readonly #closed = new AbortController();

  constructor(options: EtcdOptions, dependencies: { readonly clock: Clock }) {
    if (options.hosts.length === 0) throw new InvalidInput("etcd-hosts", "at least one etcd host is needed");
    const { clock } = dependencies;
    this.#clock = clock;
    this.#prefix = options.prefix ?? "/mpc-wallet/";
    this.#client = new Etcd3({
      hosts: [...options.hosts],
      ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
      ...(options.auth === undefined ? {} : { auth: options.auth }),
      dialTimeout: DEADLINE_MS,
      defaultCallOptions: (context) => (context.isStream ? {} : deadline(clock)),
      grpcOptions: {
        "grpc.keepalive_time_ms": 1_500,
        "grpc.keepalive_timeout_ms": 1_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 1_000,
      },
      faultHandling: { global: once(), host: () => once() },
    });
  }

  async tryLock(name: string, ttlMs: number): Promise<Lease | undefined> {
    this.#assertOpen();
    checkKey(name);
    checkTtl(ttlMs);
    return await this.#claim(`${this.#prefix}lock/${name}`, { value: "", ttlMs });
  }

  async campaign(election: string, candidate: string, options: { ttlMs: number; signal: AbortSignal }): Promise<Lease> {
    checkKey(election);
    checkTtl(options.ttlMs);
    const key = `${this.#prefix}election/${election}`;
    const signal = AbortSignal.any([options.signal, this.#closed.signal]);
    for (;;) {
      signal.throwIfAborted();
      const lease = await this.#claim(key, { value: candidate, ttlMs: options.ttlMs }).catch((fault: unknown) => {
        if (fault instanceof Unavailable) return undefined; // etcd is away: so is every leader, soon
        throw fault;
      });
      if (lease !== undefined && signal.aborted) await lease.release().catch(() => undefined);
      else if (lease !== undefined) return lease;
      await this.#pause(POLL_MS, signal);
    }
  }

  async leader(election: string): Promise<string | undefined> {
    this.#assertOpen();
    checkKey(election);
    const value = await this.#repeat(() => this.#client.get(`${this.#prefix}election/${election}`).string());
    return value ?? undefined;
  }

  async add(counter: string, amount: bigint): Promise<bigint> {
    this.#assertOpen();
    checkKey(counter);
    const before = this.#additions.get(counter) ?? Promise.resolve();
    const sum = before.then(() => this.#add(`${this.#prefix}counter/${counter}`, amount));
    const settled = sum
      .catch(() => undefined)
      .then(() => {
        if (this.#additions.get(counter) === settled) this.#additions.delete(counter);
      });
    this.#additions.set(counter, settled);
    return await sum;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#assertOpen();
    checkKey(key);
    const value = await this.#repeat(() => this.#client.get(this.#valueKey(key)).buffer());
    return value === null ? undefined : Uint8Array.from(value);
  }

  async put(key: string, value: Uint8Array, options: { ttlMs?: number; lease?: Lease } = {}): Promise<boolean> {
    this.#assertOpen();
    checkKey(key);
    checkValue(value);
    const { ttlMs, lease } = options;
    if (ttlMs !== undefined) checkTtl(ttlMs);
    const claim = lease === undefined ? undefined : this.#claimOf(lease);
    if (lease !== undefined && !lease.held) return false;
    const copy = Buffer.from(value);
    return await this.#repeat(async () => {
      const ttl = ttlMs === undefined ? undefined : await this.#grant(ttlMs);
      const put = this.#client.put(this.#valueKey(key)).value(copy);
      const write = ttl === undefined ? put : put.lease(await ttl.grant());
      if (claim === undefined || lease === undefined) {
        await write.exec();
        return true;
      }
      const fence = this.#client.if(claim.key, "Create", "==", String(lease.fencing));
      const { succeeded } = await fence.then(write).commit();
      if (!succeeded) await ttl?.revoke(deadline(this.#clock)).catch(() => undefined);
      return succeeded;
    });
  }

  async delete(key: string): Promise<void> {
    this.#assertOpen();
    checkKey(key);
    await this.#repeat(() => this.#client.delete().key(this.#valueKey(key)).exec());
  }

  /** At most 10,000 keys. */
  async list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>> {
    this.#assertOpen();
    const start = this.#valueKey(prefix);
    const { kvs } = await this.#repeat(() =>
      this.#client.getAll().prefix(start).limit(MAX_LISTED).sort("Key", "Ascend").exec(),
    );
    const skip = Buffer.byteLength(this.#valueKey(""));
    return new Map(kvs.map(({ key, value }) => [key.subarray(skip).toString(), Uint8Array.from(value)]));
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new Unavailable("coordination-closed", "the connection to coordination is closed"));
    const leases = [...this.#leases];
    for (const lease of leases) lease.lose("connection closed");
    // Others need not wait for the TTL.
    await Promise.all(
      leases.map(async (lease) => {
        await this.#claims
          .get(lease)
          ?.lease.revoke(deadline(this.#clock))
          .catch(() => undefined);
      }),
    );
    this.#client.close();
  }

  /** One winner. Asking again after a lost answer is harmless: a key that hangs on our own lease is ours. */
  async #claim(key: string, options: { value: string; ttlMs: number }): Promise<HeldLease | undefined> {
    const taken = await this.#repeat(() => this.#client.get(key).exec());
    if (taken.kvs.length > 0) return undefined;
    const askedAtMs = this.#clock.monotonicMs();
    const lease = await this.#repeat(() => this.#grant(options.ttlMs));
    try {
      const id = await lease.grant();
      const fencing = await this.#repeat(async () => {
        const { succeeded, header, responses } = await this.#client
          .if(key, "Create", "==", 0)
          .then(this.#client.put(key).value(options.value).lease(id))
          .else(this.#client.get(key))
          .commit();
        if (succeeded) return BigInt(header.revision);
        const holder = responses[0]?.response_range?.kvs[0];
        return holder !== undefined && String(holder.lease) === String(id) ? BigInt(holder.create_revision) : undefined;
      });
      if (fencing !== undefined) return this.#hold({ key, lease }, { fencing, ttlMs: options.ttlMs, askedAtMs });
    } catch (cause) {
      void lease.revoke(deadline(this.#clock)).catch(() => undefined);
      throw cause;
    }
    await lease.revoke(deadline(this.#clock)).catch(() => undefined);
    return undefined;
  }

  #hold(claim: Claim, terms: { fencing: bigint; ttlMs: number; askedAtMs: number }): HeldLease {
    const clock = this.#clock;
    const held = new HeldLease(
      {
        fencing: terms.fencing,
        async renew() {
          try {
            await claim.lease.keepaliveOnce(deadline(clock));
            return true;
          } catch (cause) {
            if (cause instanceof EtcdLeaseInvalidError) return false;
            throw cause;
          }
        },
        async release() {
          await claim.lease.revoke(deadline(clock)).catch((cause: unknown) => {
            throw unavailable(cause); // the lock ends with its TTL
          });
        },
      },
      terms,
      clock,
    );
    for (const known of this.#leases) if (!known.held) this.#leases.delete(known);
    this.#leases.add(held);
    this.#claims.set(held, claim);
    return held;
  }

  /** A lease whose renewal is ours: the library would go on past the TTL. */
  async #grant(ttlMs: number): Promise<EtcdLease> {
    const lease = this.#client.lease(Math.ceil(ttlMs / 1000), { autoKeepAlive: false, ...deadline(this.#clock) });
    lease.on("lost", () => undefined);
    await lease.grant();
    return lease;
  }

  /**
   * Never repeated after a lost answer: it may have been added.
   *
   * @throws Unavailable "coordination-unavailable"; whether the amount was added is then unknown
   */
  async #add(key: string, amount: bigint): Promise<bigint> {
    for (let attempt = 0; attempt < MAX_CAS_ATTEMPTS; attempt++) {
      const { kvs } = await this.#repeat(() => this.#client.get(key).exec());
      const [current] = kvs;
      const sum = BigInt(current?.value.toString() ?? "0") + amount;
      const compare =
        current === undefined
          ? this.#client.if(key, "Create", "==", 0)
          : this.#client.if(key, "Mod", "==", current.mod_revision);
      try {
        const { succeeded } = await compare.then(this.#client.put(key).value(String(sum))).commit();
        if (succeeded) return sum;
      } catch (cause) {
        throw unavailable(cause);
      }
    }
    throw new Unavailable("counter-contended", "the counter changes too often", { attempts: MAX_CAS_ATTEMPTS });
  }

  /** For calls that may be made twice. */
  async #repeat<Result>(call: () => Promise<Result>): Promise<Result> {
    let last: unknown;
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      this.#assertOpen();
      try {
        return await call();
      } catch (cause) {
        last = cause;
      }
      await this.#pause(50, this.#closed.signal);
    }
    throw unavailable(last);
  }

  async #pause(delayMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const finish = () => {
        cancel();
        signal.removeEventListener("abort", finish);
        resolve();
      };
      const cancel = this.#clock.after(delayMs, finish);
      signal.addEventListener("abort", finish, { once: true });
    });
  }

  #claimOf(lease: Lease): Claim {
    const claim = this.#claims.get(lease);
    if (claim === undefined) throw new InvalidInput("lease-foreign", "the lease was granted by another connection");
    return claim;
  }

  #valueKey(key: string): string {
    return `${this.#prefix}value/${key}`;
  }

  #assertOpen(): void {
    this.#closed.signal.throwIfAborted();
  }
}

function deadline(clock: Clock): { readonly deadline: number } {
  return { deadline: clock.nowMs() + DEADLINE_MS };
}

function unavailable(cause: unknown): Unavailable {
  return cause instanceof Unavailable
    ? cause
    : new Unavailable("coordination-unavailable", "etcd does not answer", {}, cause);
}

type Policy = NonNullable<NonNullable<IOptions["faultHandling"]>["global"]>;

/** A policy of the library's resilience package that does nothing: one attempt. */
function once(): Policy {
  const silent = () => ({ dispose: () => undefined });
  return {
    _altReturn: undefined as never,
    onSuccess: silent,
    onFailure: silent,
    execute: async (call, signal = new AbortController().signal) => await call({ signal }),
  };
}
