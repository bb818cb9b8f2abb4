import { create } from "@bufbuild/protobuf";
import { type LedgerHead, LedgerHeadSchema, type LedgerRow } from "../../gen/mpcwallet/storage/v1/ledger_pb.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import type { LedgerDisk, RowChange } from "./ledger-disk.js";
import { type LiveItem, liveItem } from "./ledger-item.js";
import {
  FINGERPRINT_BYTES,
  GONE,
  HEAD_KEY,
  LIVE,
  RowSealer,
  type RowState,
  rowKey,
  toggle,
  tombstone,
} from "./ledger-row.js";
import type { SecretBytes } from "./secret-bytes.js";

const LINEAGE_BYTES = 16;
/** LevelDB keeps what was overwritten until files are merged; this many tombstones ask for that. */
const TOMBSTONES_PER_COMPACTION = 128;

/** A change of one item as the bookkeeping sees it. */
export interface Change {
  readonly name: string;
  readonly from: RowState | undefined;
  readonly to: RowState | undefined;
  readonly value: Uint8Array | undefined;
}

interface Commit {
  readonly changes: readonly Change[];
  readonly resolve: () => void;
  readonly reject: (fault: Unavailable) => void;
}

/**
 * The ledger's rows on disk: sealed, counted and fingerprinted in a head row that every batch rewrites, written in
 * groups. A batch that failed may be on disk or not; its changes go again in front of the next one, puts as tombstones.
 */
export class LedgerJournal {
  readonly head: LedgerHead;
  readonly #disk: LedgerDisk;
  readonly #sealer: RowSealer;
  readonly #headSealer: RowSealer;
  readonly #clock: Clock;
  readonly #waiting: Commit[] = [];
  /** Changes whose batch failed: perhaps on disk, perhaps not. */
  readonly #unsettled = new Map<string, Change>();
  #needsReopen = false;
  #writing: Promise<void> | undefined;
  #durableSequence: bigint;
  #tombstonesSinceCompaction = 0;
  #compacting: Promise<void> | undefined;
  #closing = false;

  private constructor(
    parts: { disk: LedgerDisk; head: LedgerHead; sealer: RowSealer; headSealer: RowSealer },
    clock: Clock,
  ) {
    this.#disk = parts.disk;
    this.head = parts.head;
    this.#sealer = parts.sealer;
    this.#headSealer = parts.headSealer;
    this.#clock = clock;
    this.#durableSequence = parts.head.sequence;
  }

  /** Reads the head, or makes one for an empty disk. @throws InvalidInput "ledger-head-corrupted" */
  static async open(
    disk: LedgerDisk,
    key: SecretBytes,
    { clock, random }: { readonly clock: Clock; readonly random: Random },
  ): Promise<LedgerJournal> {
    const headSealer = RowSealer.forHead(key, random);
    const head = await readHead(disk, { headSealer, random });
    const sealer = RowSealer.forRows(key, head.lineage, random);
    return new LedgerJournal({ disk, head, sealer, headSealer }, clock);
  }

  /** Number of the last batch that is on the medium. */
  get durableSequence(): bigint {
    return this.#durableSequence;
  }

  scan(prefix: string): AsyncIterable<readonly [string, Uint8Array]> {
    return this.#disk.scan(prefix);
  }

  /** @throws Unavailable "ledger-read-failed", "ledger-write-failed" (what failed before could not be settled first) */
  async get(key: string): Promise<Uint8Array | undefined> {
    if (this.#needsReopen) await this.commit([]);
    try {
      return await this.#disk.get(key);
    } catch (cause) {
      throw new Unavailable("ledger-read-failed", "the ledger could not be read", {}, cause);
    }
  }

  /** Whether it is not known what of this item is on disk. */
  isUnsettled(name: string): boolean {
    return this.#unsettled.has(name);
  }

  seal(key: string, row: LedgerRow): Uint8Array {
    return this.#sealer.seal(key, row);
  }

  /** Undefined when the row does not open. */
  unseal(key: string, value: Uint8Array): LedgerRow | undefined {
    try {
      return this.#sealer.open(key, value);
    } catch {
      return undefined;
    }
  }

  /** The change that puts a tombstone in an available item's place. */
  end(item: LiveItem, state: Exclude<RowState, "available">, reason: string): Change {
    const row = { ...item, signers: [...item.signers], createdAtMs: BigInt(item.createdAtMs) };
    const end = tombstone(row, { state, atMs: this.#clock.nowMs(), reason });
    const value = this.seal(rowKey(item.name, false), end);
    return { name: item.name, from: "available", to: state, value };
  }

  /** Resolves when the changes are on the medium. Calls that come while a batch is being written share the next one. */
  commit(changes: readonly Change[]): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#waiting.push({ changes, resolve, reject });
      this.#writing ??= this.#writeAll();
    });
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const commits = this.#waiting.splice(0);
      const changes = commits.flatMap((commit) => commit.changes);
      for (const { name, from, to } of changes) this.#account(name, from, to);
      try {
        await this.#write(changes);
        for (const { resolve } of commits) resolve();
      } catch (cause) {
        this.#keepUnsettled(changes);
        const fault = new Unavailable("ledger-write-failed", "the ledger could not be written", {}, cause);
        for (const { reject } of commits) reject(fault);
      }
    }
    // In the same step as the look at what waits: who commits again as soon as its commit is over starts the next one.
    this.#writing = undefined;
  }

  async #write(changes: readonly Change[]): Promise<void> {
    if (this.#needsReopen) {
      await this.#disk.reopen();
      this.#needsReopen = false;
    }
    this.head.sequence += 1n;
    const rows = [...this.#unsettled.values(), ...changes].flatMap(rowChanges);
    rows.push({ key: HEAD_KEY, value: this.#headSealer.sealHead(this.head) });
    const { sequence } = this.head;
    await this.#disk.write(rows);
    this.#durableSequence = sequence;
    this.#unsettled.clear();
    this.#tombstonesSinceCompaction += changes.filter(({ to }) => to !== "available").length;
    if (this.#tombstonesSinceCompaction >= TOMBSTONES_PER_COMPACTION && !this.#closing) void this.compact();
  }

  /** What may or may not be on disk must never be available: a put that failed turns into a tombstone. */
  #keepUnsettled(changes: readonly Change[]): void {
    this.#needsReopen = true;
    for (const change of changes) {
      if (change.to !== "available" || change.value === undefined) {
        this.#unsettled.set(change.name, change);
        continue;
      }
      const row = this.unseal(rowKey(change.name, true), change.value);
      if (row === undefined) throw new Bug("a row that was just sealed does not open");
      row.secret.fill(0);
      this.#account(change.name, "available", "failed");
      this.#unsettled.set(change.name, this.end(liveItem(row), "failed", "write failed"));
    }
  }

  #account(name: string, from: RowState | undefined, to: RowState | undefined): void {
    const head = this.head;
    if (from !== undefined) {
      toggle(head.fingerprint, name, from);
      head[from] -= 1n;
    }
    if (to !== undefined) {
      toggle(head.fingerprint, name, to);
      head[to] += 1n;
    }
  }

  /** Errors are left for the next write to meet. */
  async compact(): Promise<void> {
    this.#tombstonesSinceCompaction = 0;
    this.#compacting ??= this.#disk
      .compact(LIVE)
      .catch(() => undefined)
      .finally(() => {
        this.#compacting = undefined;
      });
    await this.#compacting;
  }

  /** Waits for writes under way and closes the files. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.#writing;
    if (this.#unsettled.size > 0) await this.commit([]).catch(() => undefined);
    await this.compact();
    await this.#disk.close();
    this.#sealer.erase();
    this.#headSealer.erase();
  }
}

function rowChanges({ name, to, value }: Change): RowChange[] {
  if (to === "available") return [{ key: rowKey(name, true), value }];
  return [
    { key: rowKey(name, false), value },
    { key: rowKey(name, true), value: undefined },
  ];
}

async function readHead(
  disk: LedgerDisk,
  { headSealer, random }: { readonly headSealer: RowSealer; readonly random: Random },
): Promise<LedgerHead> {
  const value = await disk.get(HEAD_KEY);
  if (value === undefined) {
    for (const prefix of [LIVE, GONE]) for await (const _ of disk.scan(prefix)) throw headCorrupted("missing");
    return create(LedgerHeadSchema, {
      lineage: random.bytes(LINEAGE_BYTES),
      fingerprint: new Uint8Array(FINGERPRINT_BYTES),
    });
  }
  try {
    const head = headSealer.openHead(value);
    return create(LedgerHeadSchema, { ...head, lineage: Uint8Array.from(head.lineage) });
  } catch (cause) {
    throw headCorrupted("unreadable", cause);
  }
}

function headCorrupted(part: string, cause?: unknown): InvalidInput {
  return new InvalidInput(
    "ledger-head-corrupted",
    "the ledger's head does not open with this key; remove the folder, its items are lost",
    { part },
    cause,
  );
}
