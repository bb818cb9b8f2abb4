import { inspect } from "node:util";
import { create } from "@bufbuild/protobuf";
import { type LedgerHead, LedgerHeadSchema, type LedgerRow } from "../../gen/mpcwallet/storage/v1/ledger_pb.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import { type LedgerDisk, LevelDisk, type RowChange } from "./ledger-disk.js";
import {
  available,
  claimedState,
  FINGERPRINT_BYTES,
  GONE,
  HEAD_KEY,
  LIVE,
  nameOf,
  RowSealer,
  type RowState,
  rowKey,
  toggle,
  tombstone,
} from "./ledger-row.js";
import { SecretBytes } from "./secret-bytes.js";

const LINEAGE_BYTES = 16;
const MAX_NAME_BYTES = 128;
const MAX_SECRET_BYTES = 1024 * 1024;
const MAX_PUT = 1_000;
const MAX_SIGNERS = 100;
const MAX_LIVE_ITEMS = 10_000;
/** Rows of one batch when many change at once. */
const CHUNK = 500;
/** LevelDB keeps what was overwritten until files are merged; this many tombstones ask for that. */
const TOMBSTONES_PER_COMPACTION = 128;

export type ItemKind = "presignature" | "frost-nonce";

/** An item without its secret. */
export interface ItemFacts {
  readonly kind: ItemKind;
  /** The same at every signer, 1 to 128 bytes. */
  readonly id: string;
  readonly walletId: string;
  /** Epoch of the wallet's key. */
  readonly walletEpoch: number;
  /** Node ids; the item serves exactly this set. */
  readonly signers: readonly string[];
  readonly createdAtMs: number;
}

export interface OneUseItem extends ItemFacts {
  /** 1 byte to 1 MiB. */
  readonly secret: SecretBytes;
}

/** Fields that are left out match everything. */
export interface ItemFilter {
  readonly kind?: ItemKind;
  readonly id?: string;
  readonly walletId?: string;
  readonly walletEpoch?: number;
  /** In any order. */
  readonly signers?: readonly string[];
}

export interface LedgerCounts {
  readonly available: number;
  readonly inUse: number;
  /** The tombstones of all wallets and kinds that are still remembered. */
  readonly used: bigint;
  readonly failed: bigint;
  readonly expired: bigint;
}

/** Where a ledger stands; only ever grows within a lineage. */
export interface LedgerPosition {
  /** Hex; a new ledger has a new one. */
  readonly lineage: string;
  /** Number of times it was opened. */
  readonly epoch: bigint;
  /** Number of batches written. */
  readonly sequence: bigint;
}

export interface LedgerOptions {
  readonly folder: string;
  /** 32 bytes, from the key store. The ledger keeps sub-keys only. */
  readonly key: SecretBytes;
  /** Items that may be available at once, 10,000 at most. */
  readonly maxLiveItems?: number;
}

interface LiveItem extends ItemFacts {
  readonly name: string;
  holder: string | undefined;
}

/** A change of one item as the bookkeeping sees it. */
interface Change {
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
 * Secrets that may be used once: presignatures and FROST nonces. Using one twice gives the key away, so `take` puts a
 * tombstone in the secret's place, durably, before it returns the secret; a crash in between loses the item, which is
 * the harmless side. All doubts end the same way: a row that does not open, a batch whose write failed, a ledger whose
 * rows do not fit its head become tombstones.
 *
 * Erasure is what the medium allows: superseded rows leave LevelDB's files at the next compaction (soon, and at `prune`
 * and `close`); blocks of a deleted file may outlive it, sealed.
 */
export class OneUseLedger {
  readonly #disk: LedgerDisk;
  readonly #clock: Clock;
  readonly #sealer: RowSealer;
  readonly #headSealer: RowSealer;
  readonly #maxLiveItems: number;
  readonly #head: LedgerHead;
  /** Available items, oldest first. An item that is being taken is not here any more. */
  readonly #live = new Map<string, LiveItem>();
  readonly #waiting: Commit[] = [];
  /** Changes whose batch failed: perhaps on disk, perhaps not. They go again in front of the next batch. */
  readonly #unsettled = new Map<string, Change>();
  #needsReopen = false;
  #writing: Promise<void> | undefined;
  /** Tail of the calls that must not overlap: put, burnAll, fail, prune. */
  #exclusive: Promise<unknown> = Promise.resolve();
  #burns = 0;
  #tombstonesSinceCompaction = 0;
  #compacting: Promise<void> | undefined;
  #closed = false;
  #damage: { readonly burned: number; readonly quarantined: number } | undefined;

  private constructor(
    parts: { disk: LedgerDisk; head: LedgerHead; sealer: RowSealer; headSealer: RowSealer; maxLiveItems: number },
    clock: Clock,
  ) {
    this.#disk = parts.disk;
    this.#head = parts.head;
    this.#sealer = parts.sealer;
    this.#headSealer = parts.headSealer;
    this.#maxLiveItems = parts.maxLiveItems;
    this.#clock = clock;
  }

  /**
   * Opens the ledger, or makes an empty one, and bumps its epoch. Rows are checked against the head: after a lost write
   * everything that was available is burned, see `damage`.
   *
   * @throws Unavailable "ledger-locked", "ledger-unreadable", "ledger-write-failed"
   * @throws InvalidInput "ledger-head-corrupted": wrong key, or the head is damaged or missing; nothing can be trusted,
   *   the folder must be removed
   */
  static async open(
    options: LedgerOptions,
    dependencies: { readonly clock: Clock; readonly random: Random; readonly disk?: LedgerDisk },
  ): Promise<OneUseLedger> {
    const { folder, key, maxLiveItems = MAX_LIVE_ITEMS } = options;
    const { clock, random } = dependencies;
    if (!Number.isInteger(maxLiveItems) || maxLiveItems < 1 || maxLiveItems > MAX_LIVE_ITEMS) {
      throw new InvalidInput("ledger-limit", "a ledger holds 1 to 10,000 live items", { maxLiveItems });
    }
    const disk = dependencies.disk ?? (await LevelDisk.open(folder));
    try {
      const headSealer = RowSealer.forHead(key, random);
      const head = await readHead(disk, { headSealer, random });
      const sealer = RowSealer.forRows(key, head.lineage, random);
      const ledger = new OneUseLedger({ disk, head, sealer, headSealer, maxLiveItems }, clock);
      await ledger.#load();
      return ledger;
    } catch (cause) {
      await disk.close().catch(() => undefined);
      if (cause instanceof InvalidInput || cause instanceof Unavailable) throw cause;
      throw new Unavailable("ledger-unreadable", "the ledger cannot be read", { folder }, cause);
    }
  }

  /** Set when rows were missing or did not open at `open`; what was available then has been burned. */
  get damage(): { readonly burned: number; readonly quarantined: number } | undefined {
    return this.#damage;
  }

  /** Grows by one with each open. */
  epoch(): bigint {
    return this.#head.epoch;
  }

  /** To be remembered elsewhere (peers, coordination) and compared with `isBehind` after the next open. */
  position(): LedgerPosition {
    const { lineage, epoch, sequence } = this.#head;
    return { lineage: Buffer.from(lineage).toString("hex"), epoch, sequence };
  }

  /**
   * Whether somebody remembers this ledger further on than it is: an old copy was restored, and items that look
   * available here may have been used. Then `burnAll({}, "restored")`. Ask right after `open`.
   */
  isBehind(remembered: LedgerPosition): boolean {
    const own = this.position();
    if (own.lineage !== remembered.lineage) return false; // another ledger: nothing of it is here
    return own.epoch <= remembered.epoch || own.sequence <= remembered.sequence;
  }

  /**
   * Stores new items, all or none.
   *
   * @throws InvalidInput "item-invalid", "item-known" (the id was here before, in whatever state), "item-epoch-over"
   *   (the wallet's items of that epoch were burned), "ledger-full"
   * @throws Unavailable "ledger-write-failed": none of them is available, nor will be once the disk is written again
   */
  async put(items: readonly OneUseItem[]): Promise<void> {
    if (items.length > MAX_PUT) throw invalid("items", { limit: MAX_PUT });
    for (const item of items) checkItem(item);
    await this.#alone(async () => {
      if (this.#live.size + items.length > this.#maxLiveItems) {
        throw new InvalidInput("ledger-full", "the ledger holds as many items as it may", {
          limit: this.#maxLiveItems,
        });
      }
      const names = new Set<string>();
      for (const item of items) {
        const name = nameOf(item);
        if (item.walletEpoch < (this.#floor(item.walletId) ?? 0)) {
          throw new InvalidInput("item-epoch-over", "the wallet's items of this epoch were burned", {
            walletId: item.walletId,
            walletEpoch: item.walletEpoch,
          });
        }
        if (names.has(name) || (await this.#known(name))) {
          throw new InvalidInput("item-known", "an item with this id was here before", {
            kind: item.kind,
            id: item.id,
          });
        }
        names.add(name);
      }
      const changes = items.map((item): Change => {
        const row = available({ ...item, secret: item.secret.reveal() });
        const name = nameOf(item);
        return { name, from: undefined, to: "available", value: this.#sealer.seal(rowKey(name, true), row) };
      });
      await this.#commit(changes);
      for (const item of items) this.#addLive(item);
    });
  }

  /**
   * Sets an available item aside for `holder` and tells which it is, without its secret. In memory only: nothing secret
   * has left the ledger, so after a crash the item is available again.
   */
  reserve(filter: ItemFilter, holder: string): ItemFacts | undefined {
    this.#assertOpen();
    const item = this.#find(filter, undefined);
    if (item === undefined) return undefined;
    item.holder = holder;
    return facts(item);
  }

  /** Makes a reserved item available again; without effect when `holder` does not hold it. */
  release(item: Pick<ItemFacts, "kind" | "id">, holder: string): void {
    const found = this.#live.get(nameOf(item));
    if (found?.holder === holder) found.holder = undefined;
  }

  /**
   * Takes the oldest item that fits and is available, or is set aside for `holder`. When the promise resolves, the
   * tombstone is on disk and the secret is nowhere but in the result. One winner among concurrent calls.
   *
   * @throws Unavailable "ledger-write-failed" (the item is burned), "ledger-read-failed" (nothing has changed),
   *   "ledger-row-corrupted" (the row is now a tombstone; another item may be fine)
   */
  async take(filter: ItemFilter, holder?: string): Promise<OneUseItem | undefined> {
    this.#assertOpen();
    const item = this.#find(filter, holder);
    if (item === undefined) return undefined;
    this.#live.delete(item.name); // before the first await: from here on nobody else can find it
    const row = await this.#read(item);
    if (row === undefined) {
      await this.#commit([this.#end(item, "failed", "corrupted")]);
      throw new Unavailable("ledger-row-corrupted", "the item's row does not open and was put out of use", {
        kind: item.kind,
        id: item.id,
      });
    }
    const secret = SecretBytes.copyOf(row.secret);
    row.secret.fill(0);
    try {
      await this.#commit([this.#end(item, "used", "taken")]);
    } catch (cause) {
      secret.erase();
      throw cause;
    }
    return { ...facts(item), secret };
  }

  /** Records that what took the item came to nothing. @throws InvalidInput "item-unknown" unless the item was taken */
  async fail(item: Pick<ItemFacts, "kind" | "id">, reason: string): Promise<void> {
    const name = nameOf(item);
    const key = rowKey(name, false);
    await this.#alone(async () => {
      const value = await this.#get(key);
      if (value === undefined || claimedState(value) !== "used" || this.#unsettled.has(name)) {
        throw new InvalidInput("item-unknown", "no such item was taken", { kind: item.kind, id: item.id });
      }
      const row = this.#sealer.open(key, value);
      const end = tombstone(row, { state: "failed", atMs: this.#clock.nowMs(), reason: reason.slice(0, 200) });
      await this.#commit([{ name, from: "used", to: "failed", value: this.#sealer.seal(key, end) }]);
    });
  }

  /**
   * Burns every available item in scope. With `belowEpoch` (and a wallet), items of older epochs are refused from now
   * on, as after a refresh of the shares; their tombstones may then be forgotten by `prune`.
   *
   * @returns how many were burned
   * @throws Unavailable "ledger-write-failed"; none of them is available any more all the same
   */
  async burnAll(scope: { readonly walletId?: string; readonly belowEpoch?: number }, reason: string): Promise<number> {
    const { walletId, belowEpoch } = scope;
    if (belowEpoch !== undefined && walletId === undefined) throw invalid("walletId", {});
    return await this.#alone(async () => {
      const floor = walletId === undefined ? undefined : this.#floor(walletId);
      if (walletId !== undefined && belowEpoch !== undefined && belowEpoch > (floor ?? 0)) {
        this.#head.epochFloors[walletId] = belowEpoch;
      }
      this.#burns++;
      const doomed = [...this.#live.values()].filter(
        (item) =>
          (walletId === undefined || item.walletId === walletId) &&
          (belowEpoch === undefined || item.walletEpoch < belowEpoch),
      );
      await this.#endAll(doomed, { state: "failed", reason: `burned: ${reason}`.slice(0, 200) });
      if (doomed.length === 0 && belowEpoch !== undefined) await this.#commit([]); // the floor itself
      return doomed.length;
    });
  }

  /** @param scope limits `available` and `inUse` only */
  counts(scope: Pick<ItemFilter, "kind" | "walletId"> = {}): LedgerCounts {
    let [free, inUse] = [0, 0];
    for (const item of this.#live.values()) {
      if (!matches(item, scope)) continue;
      if (item.holder === undefined) free++;
      else inUse++;
    }
    const { used, failed, expired } = this.#head;
    return { available: free, inUse, used, failed, expired };
  }

  /** Every item that is available or set aside, oldest first, without its secret. */
  items(filter: ItemFilter = {}): readonly ItemFacts[] {
    return [...this.#live.values()].filter((item) => matches(item, filter)).map(facts);
  }

  /**
   * Expires available items older than `olderThanMs`, forgets tombstones of burned epochs, compacts the files.
   *
   * @throws Unavailable "ledger-write-failed"
   */
  async prune(olderThanMs: number): Promise<{ readonly expired: number; readonly forgotten: number }> {
    return await this.#alone(async () => {
      const before = this.#clock.nowMs() - olderThanMs;
      const old = [...this.#live.values()].filter((item) => item.holder === undefined && item.createdAtMs < before);
      await this.#endAll(old, { state: "expired", reason: "expired" });
      const forgotten = await this.#forget();
      await this.#compact();
      return { expired: old.length, forgotten };
    });
  }

  /** Waits for writes under way and closes the files. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#exclusive.catch(() => undefined);
    await this.#writing;
    if (this.#unsettled.size > 0) await this.#commit([]).catch(() => undefined);
    await this.#compact();
    await this.#disk.close();
    this.#sealer.erase();
    this.#headSealer.erase();
  }

  toJSON(): string {
    return "[one-use ledger]";
  }

  [inspect.custom](): string {
    return "[one-use ledger]";
  }

  /** Reads every row, compares them with the head, bumps the epoch. */
  async #load(): Promise<void> {
    const fingerprint = new Uint8Array(FINGERPRINT_BYTES);
    const counts = { available: 0n, used: 0n, failed: 0n, expired: 0n };
    const found: LiveItem[] = [];
    const unreadable: Change[] = [];
    for await (const [key, value] of this.#disk.scan(GONE)) {
      const state = claimedState(value);
      if (state === undefined || state === "available") continue; // then the fingerprint does not fit
      toggle(fingerprint, key.slice(GONE.length), state);
      counts[state] += 1n;
    }
    for await (const [key, value] of this.#disk.scan(LIVE)) {
      const name = key.slice(LIVE.length);
      toggle(fingerprint, name, "available");
      counts.available += 1n;
      const row = this.#tryOpen(key, value);
      if (row === undefined) unreadable.push(this.#end(unknownItem(name), "failed", "corrupted"));
      else found.push(liveItem(row));
      row?.secret.fill(0);
    }
    const head = this.#head;
    const fits = Buffer.compare(fingerprint, head.fingerprint) === 0;
    Object.assign(head, counts, { fingerprint, epoch: head.epoch + 1n });
    found.sort((left, right) => left.createdAtMs - right.createdAtMs || (left.id < right.id ? -1 : 1));
    const kept = fits ? found.slice(0, this.#maxLiveItems) : [];
    const surplus = found.slice(kept.length);
    await this.#commit([
      ...unreadable,
      ...surplus.map((item) => this.#end(item, "failed", fits ? "burned: limit" : "burned: writes were lost")),
    ]);
    for (const item of kept) this.#live.set(item.name, item);
    if (!fits || unreadable.length > 0) {
      this.#damage = { burned: surplus.length, quarantined: unreadable.length };
    }
  }

  #tryOpen(key: string, value: Uint8Array): LedgerRow | undefined {
    try {
      return this.#sealer.open(key, value);
    } catch {
      return undefined;
    }
  }

  /** Undefined when the row does not open. When the disk does not answer, nothing has changed: the item stays. */
  async #read(item: LiveItem): Promise<LedgerRow | undefined> {
    const key = rowKey(item.name, true);
    const burns = this.#burns;
    try {
      const value = await this.#get(key);
      return value === undefined ? undefined : this.#tryOpen(key, value);
    } catch (cause) {
      if (burns === this.#burns) this.#live.set(item.name, item);
      else await this.#commit([this.#end(item, "failed", "burned")]); // the burning did not see it
      throw cause;
    }
  }

  async #get(key: string): Promise<Uint8Array | undefined> {
    if (this.#needsReopen) await this.#commit([]);
    try {
      return await this.#disk.get(key);
    } catch (cause) {
      throw new Unavailable("ledger-read-failed", "the ledger could not be read", {}, cause);
    }
  }

  async #known(name: string): Promise<boolean> {
    if (this.#unsettled.has(name)) return true;
    for (const isAvailable of [true, false]) {
      if ((await this.#get(rowKey(name, isAvailable))) !== undefined) return true;
    }
    return false;
  }

  #find(filter: ItemFilter, holder: string | undefined): LiveItem | undefined {
    let free: LiveItem | undefined;
    for (const item of this.#live.values()) {
      if (!matches(item, filter)) continue;
      if (holder !== undefined && item.holder === holder) return item; // what was set aside comes first
      if (item.holder === undefined) free ??= item;
      if (holder === undefined && free !== undefined) return free;
    }
    return free;
  }

  #addLive(item: ItemFacts): void {
    const name = nameOf(item);
    this.#live.set(name, { ...facts(item), name, holder: undefined });
  }

  #floor(walletId: string): number | undefined {
    const floors = this.#head.epochFloors;
    return Object.hasOwn(floors, walletId) ? floors[walletId] : undefined;
  }

  #end(item: LiveItem, state: Exclude<RowState, "available">, reason: string): Change {
    const row = { ...item, signers: [...item.signers], createdAtMs: BigInt(item.createdAtMs) };
    const end = tombstone(row, { state, atMs: this.#clock.nowMs(), reason });
    const value = this.#sealer.seal(rowKey(item.name, false), end);
    return { name: item.name, from: "available", to: state, value };
  }

  async #endAll(
    items: readonly LiveItem[],
    end: { readonly state: Exclude<RowState, "available">; readonly reason: string },
  ): Promise<void> {
    for (const item of items) this.#live.delete(item.name);
    for (let start = 0; start < items.length; start += CHUNK) {
      await this.#commit(items.slice(start, start + CHUNK).map((item) => this.#end(item, end.state, end.reason)));
    }
  }

  async #forget(): Promise<number> {
    let forgotten = 0;
    let changes: Change[] = [];
    for await (const [key, value] of this.#disk.scan(GONE)) {
      const state = claimedState(value);
      const name = key.slice(GONE.length);
      if (state === undefined || this.#unsettled.has(name)) continue;
      const row = this.#tryOpen(key, value);
      if (row === undefined || row.walletEpoch >= (this.#floor(row.walletId) ?? 0)) continue;
      changes.push({ name, from: state, to: undefined, value: undefined });
      forgotten++;
      if (changes.length === CHUNK) {
        await this.#commit(changes);
        changes = [];
      }
    }
    if (changes.length > 0) await this.#commit(changes);
    return forgotten;
  }

  #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#assertOpen();
    const result = this.#exclusive.then(work);
    this.#exclusive = result.catch(() => undefined);
    return result;
  }

  /** Resolves when the changes are on the medium. Calls that come while a batch is being written share the next one. */
  #commit(changes: readonly Change[]): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#waiting.push({ changes, resolve, reject });
      this.#writing ??= this.#writeAll().finally(() => {
        this.#writing = undefined;
      });
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
  }

  async #write(changes: readonly Change[]): Promise<void> {
    if (this.#needsReopen) {
      await this.#disk.reopen();
      this.#needsReopen = false;
    }
    this.#head.sequence += 1n;
    const rows = [...this.#unsettled.values(), ...changes].flatMap(rowChanges);
    rows.push({ key: HEAD_KEY, value: this.#headSealer.sealHead(this.#head) });
    await this.#disk.write(rows);
    this.#unsettled.clear();
    this.#tombstonesSinceCompaction += changes.filter(({ to }) => to !== "available").length;
    if (this.#tombstonesSinceCompaction >= TOMBSTONES_PER_COMPACTION && !this.#closed) void this.#compact();
  }

  /** What may or may not be on disk must never be available: a put that failed turns into a tombstone. */
  #keepUnsettled(changes: readonly Change[]): void {
    this.#needsReopen = true;
    for (const change of changes) {
      if (change.to !== "available" || change.value === undefined) {
        this.#unsettled.set(change.name, change);
        continue;
      }
      const row = this.#tryOpen(rowKey(change.name, true), change.value);
      if (row === undefined) throw new Bug("a row that was just sealed does not open");
      row.secret.fill(0);
      this.#account(change.name, "available", "failed");
      this.#unsettled.set(change.name, this.#end(liveItem(row), "failed", "write failed"));
    }
  }

  #account(name: string, from: RowState | undefined, to: RowState | undefined): void {
    const head = this.#head;
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
  async #compact(): Promise<void> {
    this.#tombstonesSinceCompaction = 0;
    this.#compacting ??= this.#disk
      .compact(LIVE)
      .catch(() => undefined)
      .finally(() => {
        this.#compacting = undefined;
      });
    await this.#compacting;
  }

  #assertOpen(): void {
    if (this.#closed) throw new Unavailable("ledger-closed", "the ledger is closed");
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

function matches(item: LiveItem, filter: ItemFilter): boolean {
  return (
    (filter.kind === undefined || filter.kind === item.kind) &&
    (filter.id === undefined || filter.id === item.id) &&
    (filter.walletId === undefined || filter.walletId === item.walletId) &&
    (filter.walletEpoch === undefined || filter.walletEpoch === item.walletEpoch) &&
    (filter.signers === undefined || sameSet(filter.signers, item.signers))
  );
}

function sameSet(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((name) => right.includes(name));
}

function facts(item: ItemFacts): ItemFacts {
  const { kind, id, walletId, walletEpoch, signers, createdAtMs } = item;
  return { kind, id, walletId, walletEpoch, signers, createdAtMs };
}

function liveItem(row: LedgerRow): LiveItem {
  return {
    name: nameOf(row),
    kind: row.kind === "frost-nonce" ? "frost-nonce" : "presignature",
    id: row.id,
    walletId: row.walletId,
    walletEpoch: row.walletEpoch,
    signers: row.signers,
    createdAtMs: Number(row.createdAtMs),
    holder: undefined,
  };
}

/** Facts of a row that does not open: its key tells kind and id, and the tombstone needs no more. */
function unknownItem(name: string): LiveItem {
  const [kind = "", ...id] = name.split("/");
  return {
    name,
    kind: kind === "frost-nonce" ? "frost-nonce" : "presignature",
    id: id.join("/"),
    walletId: "",
    walletEpoch: 0,
    signers: [],
    createdAtMs: 0,
    holder: undefined,
  };
}

function checkItem(item: OneUseItem): void {
  const name = (text: string) =>
    text.length > 0 && Buffer.byteLength(text) <= MAX_NAME_BYTES && /^[A-Za-z0-9][\w.:@/-]*$/.test(text);
  const { signers } = item;
  const problems: readonly [string, boolean][] = [
    ["kind", item.kind === "presignature" || item.kind === "frost-nonce"],
    ["id", name(item.id)],
    ["walletId", name(item.walletId)],
    ["walletEpoch", Number.isInteger(item.walletEpoch) && item.walletEpoch >= 0 && item.walletEpoch <= 0xffffffff],
    ["signers", signers.length >= 1 && signers.length <= MAX_SIGNERS && signers.every(name)],
    ["signers", new Set(signers).size === signers.length],
    ["createdAtMs", Number.isSafeInteger(item.createdAtMs) && item.createdAtMs >= 0],
    ["secret", item.secret.length >= 1 && item.secret.length <= MAX_SECRET_BYTES],
  ];
  const wrong = problems.find(([, fine]) => !fine);
  if (wrong !== undefined) throw invalid(wrong[0], { id: item.id.slice(0, MAX_NAME_BYTES) });
}

function invalid(field: string, facts: Readonly<Record<string, string | number>>): InvalidInput {
  return new InvalidInput("item-invalid", "a field of the item is out of range", { field, ...facts });
}
