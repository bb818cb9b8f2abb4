import { mkdir } from "node:fs/promises";
import { ClassicLevel } from "classic-level";
import type { Clock } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";
import { MemorySpace, type SpaceContent, type SpaceJournal } from "./memory-coordination.js";

const VALUE = "value/";
const COUNTER = "counter/";
const REVISION = "revision";
/** Fencing numbers of one run; the next run starts above them without writing at each grant. */
const REVISIONS_PER_RUN = 1n << 40n;

type Change =
  | { readonly type: "put"; readonly key: string; readonly value: Uint8Array }
  | { readonly type: "del"; readonly key: string };

interface Waiting {
  readonly change: Change;
  readonly resolve: () => void;
  readonly reject: (fault: Unavailable) => void;
}

/**
 * Coordination for a single coordinator without etcd that remembers wallets, indices and payments across restarts: a
 * `MemorySpace` whose lasting values and counters are also in LevelDB. Fencing numbers go on growing; locks, leases and
 * values with a TTL end with the process, as they should when it is the only one.
 */
export class JournaledSpace {
  readonly space: MemorySpace;
  readonly #journal: LevelJournal;

  private constructor(space: MemorySpace, journal: LevelJournal) {
    this.space = space;
    this.#journal = journal;
  }

  /** @throws Unavailable "coordination-locked", "coordination-unreadable" */
  static async open(
    options: { readonly folder: string },
    dependencies: { readonly clock: Clock },
  ): Promise<JournaledSpace> {
    const { journal, content } = await LevelJournal.open(options.folder);
    return new JournaledSpace(new MemorySpace(dependencies.clock, { journal, content }), journal);
  }

  /** Close the connections first. */
  async close(): Promise<void> {
    await this.#journal.close();
  }
}

class LevelJournal implements SpaceJournal {
  readonly #level: ClassicLevel<string, Uint8Array>;
  readonly #waiting: Waiting[] = [];
  #writing: Promise<void> | undefined;

  private constructor(level: ClassicLevel<string, Uint8Array>) {
    this.#level = level;
  }

  static async open(folder: string): Promise<{ journal: LevelJournal; content: SpaceContent }> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const level = new ClassicLevel<string, Uint8Array>(folder, { valueEncoding: "view" });
    try {
      await level.open();
      const values = new Map<string, Uint8Array>();
      const counters = new Map<string, bigint>();
      for await (const [key, value] of level.iterator({ gte: COUNTER, lt: `${COUNTER}\uffff` })) {
        counters.set(key.slice(COUNTER.length), BigInt(text(value)));
      }
      for await (const [key, value] of level.iterator({ gte: VALUE, lt: `${VALUE}\uffff` })) {
        values.set(key.slice(VALUE.length), Uint8Array.from(value));
      }
      const stored = await level.get(REVISION);
      const revision = stored === undefined ? 0n : BigInt(text(stored));
      await level.put(REVISION, bytes(String(revision + REVISIONS_PER_RUN)), { sync: true });
      return { journal: new LevelJournal(level), content: { values, counters, revision } };
    } catch (cause) {
      await level.close().catch(() => undefined);
      const inner: unknown = cause instanceof Error ? cause.cause : undefined;
      const locked = inner instanceof Error && "code" in inner && inner.code === "LEVEL_LOCKED";
      throw locked
        ? new Unavailable("coordination-locked", "another process uses this folder", { folder }, cause)
        : new Unavailable("coordination-unreadable", "the coordination folder cannot be read", { folder }, cause);
    }
  }

  saveValue(key: string, value: Uint8Array | undefined): Promise<void> {
    const row = `${VALUE}${key}`;
    return this.#save(value === undefined ? { type: "del", key: row } : { type: "put", key: row, value });
  }

  saveCounter(counter: string, sum: bigint): Promise<void> {
    return this.#save({ type: "put", key: `${COUNTER}${counter}`, value: bytes(String(sum)) });
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#level.close();
  }

  /** Changes that come while a batch is written share the next one; batches keep the order. */
  #save(change: Change): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#waiting.push({ change, resolve, reject });
      this.#writing ??= this.#writeAll().finally(() => {
        this.#writing = undefined;
      });
    });
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0);
      try {
        await this.#level.batch(
          batch.map(({ change }) => change),
          { sync: true },
        );
        for (const { resolve } of batch) resolve();
      } catch (cause) {
        const fault = new Unavailable("coordination-unwritten", "the change could not be written", {}, cause);
        for (const { reject } of batch) reject(fault);
      }
    }
  }
}

const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
const text = (value: Uint8Array): string => new TextDecoder().decode(value);
