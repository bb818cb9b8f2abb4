import { mkdir } from "node:fs/promises";
import { ClassicLevel } from "classic-level";
import { Bug, Unavailable } from "../crypto/fault.js";
import { full, type LastingValues } from "./memory-coordination.js";

const DEFAULT_MAX_KEYS = 1_000_000;

/** Of one kind each; the byte after the prefixes bounds their ranges. */
const [VALUE, COUNTER, FENCING] = ["v/", "c/", "fencing"];

/**
 * What a lone coordinator must not forget, in an embedded LevelDB: wallets, payments, bans and address counters. Every
 * write is synced before it counts, so a counter that was answered is never answered again, whatever kills the process.
 * Nothing in it is secret, and nodes trust none of it. The space that uses it writes one after the other.
 */
export class DiskValues implements LastingValues {
  readonly fencing: bigint;
  readonly #database: ClassicLevel<Uint8Array, Uint8Array>;
  readonly #counters: Map<string, bigint>;
  readonly #maxKeys: number;
  #size: number;

  private constructor(
    database: ClassicLevel<Uint8Array, Uint8Array>,
    found: { fencing: bigint; counters: Map<string, bigint>; size: number },
    maxKeys: number,
  ) {
    this.#database = database;
    this.fencing = found.fencing;
    this.#counters = found.counters;
    this.#size = found.size;
    this.#maxKeys = maxKeys;
  }

  /** @throws Unavailable `coordination-unreadable` when the folder cannot be opened, for example as a process holds it */
  static async open(options: { readonly folder: string; readonly maxKeys?: number }): Promise<DiskValues> {
    const { folder, maxKeys = DEFAULT_MAX_KEYS } = options;
    const encodings = { keyEncoding: "view", valueEncoding: "view" } as const;
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const database = new ClassicLevel<Uint8Array, Uint8Array>(folder, encodings);
      await database.open();
      const counters = new Map<string, bigint>();
      for await (const [key, value] of database.iterator(rangeOf(COUNTER))) {
        counters.set(text(key).slice(COUNTER.length), BigInt(text(value)));
      }
      let size = 0;
      for await (const _ of database.keys(rangeOf(VALUE))) size += 1;
      const stored = await database.get(utf8(FENCING));
      const fencing = stored === undefined ? 0n : BigInt(text(stored));
      return new DiskValues(database, { fencing, counters, size }, maxKeys);
    } catch (cause) {
      throw new Unavailable("coordination-unreadable", "the coordination folder cannot be opened", { folder }, cause);
    }
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    return await this.#database.get(utf8(VALUE + key));
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    const place = utf8(VALUE + key);
    const known = (await this.#database.get(place)) !== undefined;
    if (!known && this.#size >= this.#maxKeys) throw full(this.#maxKeys);
    await this.#written(() => this.#database.put(place, value, { sync: true }));
    if (!known) this.#size += 1;
  }

  async delete(key: string): Promise<void> {
    const place = utf8(VALUE + key);
    if ((await this.#database.get(place)) === undefined) return;
    await this.#written(() => this.#database.del(place, { sync: true }));
    this.#size -= 1;
  }

  async list(prefix: string): Promise<ReadonlyMap<string, Uint8Array>> {
    const found = await this.#database.iterator(rangeOf(VALUE + prefix)).all();
    return new Map(found.map(([key, value]) => [text(key).slice(VALUE.length), value]));
  }

  async add(counter: string, amount: bigint): Promise<bigint> {
    const before = this.#counters.get(counter);
    if (before === undefined && this.#counters.size >= this.#maxKeys) throw full(this.#maxKeys);
    const sum = (before ?? 0n) + amount;
    if (amount === 0n) return sum;
    await this.#written(() => this.#database.put(utf8(COUNTER + counter), utf8(String(sum)), { sync: true }));
    this.#counters.set(counter, sum);
    return sum;
  }

  async reserveFencing(upTo: bigint): Promise<void> {
    await this.#written(() => this.#database.put(utf8(FENCING), utf8(String(upTo)), { sync: true }));
  }

  async close(): Promise<void> {
    await this.#database.close();
  }

  async #written(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (cause) {
      throw new Unavailable("coordination-unwritten", "the coordination folder took no write", {}, cause);
    }
  }
}

const utf8 = (words: string): Uint8Array => new TextEncoder().encode(words);
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** All keys that begin with the prefix: no byte of UTF-8 is 0xff, so its last byte has a successor. */
function rangeOf(prefix: string): { gte: Uint8Array; lt: Uint8Array } {
  const gte = utf8(prefix);
  const last = gte.at(-1);
  if (last === undefined) throw new Bug("a range has a prefix");
  const lt = Uint8Array.from(gte);
  lt[lt.length - 1] = last + 1;
  return { gte, lt };
}
