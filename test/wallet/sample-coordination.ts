import type { Coordination, Lease } from "../../src/wallet/coordination.js";

/** One process's memory as the coordinators' shared store. `expire` plays a coordinator that vanished. */
export class SampleCoordination implements Coordination {
  readonly values = new Map<string, Uint8Array>();
  readonly #locks = new Map<string, { readonly fencing: bigint; readonly abort: AbortController }>();
  readonly #counters = new Map<string, bigint>();
  #fencing = 0n;

  async tryLock(name: string): Promise<Lease | undefined> {
    if (this.#locks.has(name)) return undefined;
    this.#fencing += 1n;
    const entry = { fencing: this.#fencing, abort: new AbortController() };
    this.#locks.set(name, entry);
    const isHolder = () => this.#locks.get(name) === entry;
    return {
      fencing: entry.fencing,
      get held() {
        return isHolder();
      },
      lost: entry.abort.signal,
      release: async () => {
        if (isHolder()) this.#locks.delete(name);
      },
    };
  }

  get lockNames(): readonly string[] {
    return [...this.#locks.keys()];
  }

  expire(prefix: string): void {
    for (const [name, { abort }] of this.#locks) {
      if (!name.startsWith(prefix)) continue;
      this.#locks.delete(name);
      abort.abort();
    }
  }

  async campaign(): Promise<Lease> {
    const lease = await this.tryLock("election");
    if (lease === undefined) throw new Error("one candidate only");
    return lease;
  }
  async leader(): Promise<string | undefined> {
    return undefined;
  }
  async add(counter: string, amount: bigint): Promise<bigint> {
    const value = (this.#counters.get(counter) ?? 0n) + amount;
    this.#counters.set(counter, value);
    return value;
  }
  async get(key: string): Promise<Uint8Array | undefined> {
    return this.values.get(key);
  }
  async put(key: string, value: Uint8Array): Promise<boolean> {
    this.values.set(key, value);
    return true;
  }
  async delete(key: string): Promise<void> {
    this.values.delete(key);
  }
  async list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>> {
    return new Map([...this.values].filter(([key]) => key.startsWith(prefix)));
  }
  async close(): Promise<void> {}
}
