import { mkdir } from "node:fs/promises";
import { ClassicLevel } from "classic-level";
import { Unavailable } from "../crypto/fault.js";

/** One change of a batch; without a value the row is deleted. */
export interface RowChange {
  readonly key: string;
  readonly value: Uint8Array | undefined;
}

/** The few things that the ledger needs of a disk. Every call may reject with anything; the ledger types it. */
export interface LedgerDisk {
  get(key: string): Promise<Uint8Array | undefined>;
  /** All rows whose key starts with `prefix`, in key order, as of the call. */
  scan(prefix: string): AsyncIterable<readonly [string, Uint8Array]>;
  /** All or none, on the medium when it resolves. */
  write(changes: readonly RowChange[]): Promise<void>;
  /** Drops superseded and deleted rows whose key starts with `prefix` from the files. */
  compact(prefix: string): Promise<void>;
  /** After a failed write: closes and opens again, so that no write follows a torn one in the same log file. */
  reopen(): Promise<void>;
  close(): Promise<void>;
}

/** LevelDB with synced writes. It takes a kernel lock on its folder, which ends with the process. */
export class LevelDisk implements LedgerDisk {
  readonly #folder: string;
  #level: ClassicLevel<string, Uint8Array>;

  private constructor(folder: string, level: ClassicLevel<string, Uint8Array>) {
    this.#folder = folder;
    this.#level = level;
  }

  /** @throws Unavailable "ledger-locked", "ledger-unreadable" */
  static async open(folder: string): Promise<LevelDisk> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return new LevelDisk(folder, await openLevel(folder));
  }

  /** In this thread: a row is in memory or in the system's cache, and a turn of the thread pool costs more than it. */
  async get(key: string): Promise<Uint8Array | undefined> {
    return this.#level.getSync(key);
  }

  async *scan(prefix: string): AsyncIterable<readonly [string, Uint8Array]> {
    yield* this.#level.iterator({ gte: prefix, lt: `${prefix}\uffff` });
  }

  async write(changes: readonly RowChange[]): Promise<void> {
    await this.#level.batch(
      changes.map(({ key, value }) =>
        value === undefined ? { type: "del" as const, key } : { type: "put" as const, key, value },
      ),
      { sync: true },
    );
  }

  /**
   * LevelDB merges files of two levels, and never rewrites a file that is alone. So the rows are first brought into a
   * file, and then two empty rows around them make a second one that overlaps it.
   */
  async compact(prefix: string): Promise<void> {
    const [before, after] = [prefix.slice(0, -1), `${prefix.slice(0, -1)}${following(prefix)}`];
    await this.#level.compactRange(before, after);
    await this.#level.batch([before, after].map((key) => ({ type: "put", key, value: new Uint8Array(0) })));
    await this.#level.compactRange(before, after);
  }

  async reopen(): Promise<void> {
    await this.#level.close();
    this.#level = await openLevel(this.#folder);
  }

  async close(): Promise<void> {
    await this.#level.close();
  }
}

/** The character after the last one of `prefix`: appended in its place it sorts behind every key with the prefix. */
function following(prefix: string): string {
  return String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

async function openLevel(folder: string): Promise<ClassicLevel<string, Uint8Array>> {
  // No compression: sealed rows do not compress.
  const level = new ClassicLevel<string, Uint8Array>(folder, { valueEncoding: "view", compression: false });
  try {
    await level.open();
    return level;
  } catch (cause) {
    const inner: unknown = cause instanceof Error ? cause.cause : undefined;
    const locked = inner instanceof Error && "code" in inner && inner.code === "LEVEL_LOCKED";
    throw locked
      ? new Unavailable("ledger-locked", "another process uses this ledger", { folder }, cause)
      : new Unavailable("ledger-unreadable", "the ledger cannot be opened", { folder }, cause);
  }
}
