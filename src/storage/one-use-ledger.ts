import { inspect } from "node:util";
import { create } from "@bufbuild/protobuf";
import {
  type LedgerClaim,
  LedgerClaimSchema,
  type LedgerHead,
  type LedgerRow,
} from "../../gen/mpcwallet/storage/v1/ledger_pb.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import { type LedgerDisk, LevelDisk } from "./ledger-disk.js";
import {
  checkItem,
  facts,
  type ItemFacts,
  type ItemFilter,
  invalid,
  type LiveItem,
  liveItem,
  matches,
  type OneUseItem,
  unknownItem,
} from "./ledger-item.js";
import { type Change, LedgerJournal } from "./ledger-journal.js";
import { isBeyond, type LedgerPosition } from "./ledger-position.js";
import {
  available,
  claimedState,
  FINGERPRINT_BYTES,
  GONE,
  LIVE,
  nameOf,
  type RowState,
  rowKey,
  toggle,
} from "./ledger-row.js";
import { SecretBytes } from "./secret-bytes.js";

export type { ItemFacts, ItemFilter, ItemKind, OneUseItem } from "./ledger-item.js";
export type { LedgerPosition } from "./ledger-position.js";

const MAX_PUT = 1_000;
const MAX_LIVE_ITEMS = 10_000;
/** Rows of one batch when many change at once. */
const CHUNK = 500;

export interface LedgerCounts {
  readonly available: number;
  readonly inUse: number;
  /** The tombstones of all wallets and kinds that are still remembered. */
  readonly used: bigint;
  readonly failed: bigint;
  readonly expired: bigint;
}

export interface LedgerOptions {
  readonly folder: string;
  /** 32 bytes, from the key store. The ledger keeps sub-keys only. */
  readonly key: SecretBytes;
  /** Items that may be available at once, 10,000 at most. */
  readonly maxLiveItems?: number;
}

/**
 * Secrets that may be used once: presignatures and FROST nonces. Using one twice gives the key away, so `take` puts a
 * tombstone in the secret's place, durably, before it returns the secret; a crash in between loses the item, which is
 * the harmless side. All doubts end the same way: a row that does not open, a batch whose write failed, a ledger whose
 * rows do not fit its head become tombstones.
 *
 * A ledger cannot know by itself whether it is a copy of earlier days, put back from a backup. So what waited in it when
 * it was opened is withheld until others were asked: `confirm` when nobody remembers it further on, `outlive` otherwise.
 *
 * Erasure is what the medium allows: superseded rows leave LevelDB's files at the next compaction (soon, and at `prune`
 * and `close`); blocks of a deleted file may outlive it, sealed.
 */
export class OneUseLedger {
  readonly #journal: LedgerJournal;
  readonly #clock: Clock;
  readonly #maxLiveItems: number;
  /** Available items, oldest first. An item that is being taken is not here any more. */
  readonly #live = new Map<string, LiveItem>();
  /** Tail of the calls that must not overlap: put, burnAll, confirm, outlive, fail, prune. */
  #exclusive: Promise<unknown> = Promise.resolve();
  #burns = 0;
  #closed = false;
  #damage: { readonly burned: number; readonly quarantined: number } | undefined;

  private constructor(journal: LedgerJournal, options: { maxLiveItems: number }, clock: Clock) {
    this.#journal = journal;
    this.#maxLiveItems = options.maxLiveItems;
    this.#clock = clock;
  }

  /**
   * Opens the ledger, or makes an empty one, and bumps its epoch. Rows are checked against the head: after a lost write
   * everything that was available is burned, see `damage`. A ledger with items has to be confirmed before it gives any.
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
      const journal = await LedgerJournal.open(disk, key, { clock, random });
      const ledger = new OneUseLedger(journal, { maxLiveItems }, clock);
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

  /** What is on disk for sure. To be remembered by others before anything leaves that depends on it. */
  position(): LedgerPosition {
    const { lineage, epoch } = this.#head;
    return { lineage: Buffer.from(lineage).toString("hex"), epoch, sequence: this.#journal.durableSequence };
  }

  /** Whether items may be taken. A ledger that was empty when it was opened needs no confirmation. */
  get isConfirmed(): boolean {
    return this.#head.claim === undefined;
  }

  /**
   * Whether somebody remembers this ledger further on than it can account for, or another ledger in its place: then an
   * old copy was restored, or a second one is running, and items that look available here may have been used. An
   * unconfirmed ledger is judged by where it stood when it was last confirmed: opening a copy again and again brings it
   * no further.
   */
  isBehind(remembered: LedgerPosition): boolean {
    const { claim, outlived } = this.#head;
    return isBeyond(remembered, { ...this.position(), ...claim }, outlived);
  }

  /** Nobody who was asked remembers the ledger further on: it gives items. @throws Unavailable "ledger-write-failed" */
  async confirm(): Promise<void> {
    await this.#alone(async () => {
      const { claim } = this.#head;
      if (claim === undefined) return;
      delete this.#head.claim;
      await this.#journal.commit([]).catch((error: unknown) => {
        this.#head.claim = claim;
        throw error;
      });
    });
  }

  /**
   * Burns every available item and goes on beyond what is remembered, if anything is, so that nobody mistakes the ledger
   * for its former self again. It is confirmed then: all that it will ever give is new.
   *
   * @returns how many were burned
   * @throws Unavailable "ledger-write-failed"; nothing that was available is, and the ledger is not confirmed
   */
  async outlive(remembered: LedgerPosition | undefined, reason: string): Promise<number> {
    return await this.#alone(async () => {
      const head = this.#head;
      head.claim ??= claimAt(this.position()); // until all of it is done
      const burned = await this.#burn([...this.#live.values()], reason);
      if (remembered !== undefined) {
        if (head.epoch <= remembered.epoch) head.epoch = remembered.epoch + 1n;
        if (head.sequence <= remembered.sequence) head.sequence = remembered.sequence; // and the batch below is the next
        head.outlived = claimAt({
          epoch: later(head.outlived?.epoch, remembered.epoch),
          sequence: later(head.outlived?.sequence, remembered.sequence),
        });
      }
      const { claim } = head;
      delete head.claim;
      await this.#journal.commit([]).catch((error: unknown) => {
        head.claim = claim;
        throw error;
      });
      return burned;
    });
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
        return { name, from: undefined, to: "available", value: this.#journal.seal(rowKey(name, true), row) };
      });
      await this.#journal.commit(changes);
      for (const item of items) this.#addLive(item);
    });
  }

  /**
   * Sets an available item aside for `holder` and tells which it is, without its secret. In memory only: nothing secret
   * has left the ledger, so after a crash the item is available again.
   *
   * @throws Unavailable "ledger-unconfirmed"
   */
  reserve(filter: ItemFilter, holder: string): ItemFacts | undefined {
    this.#assertGiving();
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
   * @throws Unavailable "ledger-unconfirmed", "ledger-write-failed" (the item is burned, or was not touched),
   *   "ledger-read-failed" (nothing has changed), "ledger-row-corrupted" (the row is now a tombstone; another item may
   *   be fine)
   */
  async take(filter: ItemFilter, holder?: string): Promise<OneUseItem | undefined> {
    this.#assertGiving();
    const item = this.#find(filter, holder);
    if (item === undefined) return undefined;
    this.#live.delete(item.name); // before the first await: from here on nobody else can find it
    const row = await this.#read(item);
    if (row === undefined) {
      await this.#journal.commit([this.#journal.end(item, "failed", "corrupted")]);
      throw new Unavailable("ledger-row-corrupted", "the item's row does not open and was put out of use", {
        kind: item.kind,
        id: item.id,
      });
    }
    const secret = SecretBytes.copyOf(row.secret);
    row.secret.fill(0);
    try {
      await this.#journal.commit([this.#journal.end(item, "used", "taken")]);
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
      const value = await this.#journal.get(key);
      if (value === undefined || claimedState(value) !== "used" || this.#journal.isUnsettled(name)) {
        throw new InvalidInput("item-unknown", "no such item was taken", { kind: item.kind, id: item.id });
      }
      const row = this.#journal.unseal(key, value);
      const taken = row === undefined ? unknownItem(name) : liveItem(row);
      await this.#journal.commit([{ ...this.#journal.end(taken, "failed", reason.slice(0, 200)), from: "used" }]);
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
      const doomed = [...this.#live.values()].filter(
        (item) =>
          (walletId === undefined || item.walletId === walletId) &&
          (belowEpoch === undefined || item.walletEpoch < belowEpoch),
      );
      const burned = await this.#burn(doomed, reason);
      if (burned === 0 && belowEpoch !== undefined) await this.#journal.commit([]); // the floor itself
      return burned;
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
    return [...this.#candidates(filter)].filter((item) => matches(item, filter)).map(facts);
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
      await this.#journal.compact();
      return { expired: old.length, forgotten };
    });
  }

  /** Waits for writes under way and closes the files. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#exclusive.catch(() => undefined);
    await this.#journal.close();
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
    for await (const [key, value] of this.#journal.scan(GONE)) {
      const state = claimedState(value);
      if (state === undefined || state === "available") continue; // then the fingerprint does not fit
      toggle(fingerprint, key.slice(GONE.length), state);
      counts[state] += 1n;
    }
    for await (const [key, value] of this.#journal.scan(LIVE)) {
      const name = key.slice(LIVE.length);
      toggle(fingerprint, name, "available");
      counts.available += 1n;
      const row = this.#journal.unseal(key, value);
      if (row === undefined) unreadable.push(this.#journal.end(unknownItem(name), "failed", "corrupted"));
      else found.push(liveItem(row));
      row?.secret.fill(0);
    }
    const head = this.#head;
    const fits = Buffer.compare(fingerprint, head.fingerprint) === 0;
    // Where it stood when the file was written last. An opening that was never confirmed keeps the claim of the one before.
    const claim = head.claim ?? claimAt(head);
    Object.assign(head, counts, { fingerprint, epoch: head.epoch + 1n });
    found.sort((left, right) => left.createdAtMs - right.createdAtMs || (left.id < right.id ? -1 : 1));
    const kept = fits ? found.slice(0, this.#maxLiveItems) : [];
    const surplus = found.slice(kept.length);
    if (kept.length > 0) head.claim = claim;
    else delete head.claim;
    await this.#journal.commit([
      ...unreadable,
      ...surplus.map((item) => this.#journal.end(item, "failed", fits ? "burned: limit" : "burned: writes were lost")),
    ]);
    for (const item of kept) this.#live.set(item.name, item);
    if (!fits || unreadable.length > 0) {
      this.#damage = { burned: surplus.length, quarantined: unreadable.length };
    }
  }

  /** Undefined when the row does not open. When the disk does not answer, nothing has changed: the item stays. */
  async #read(item: LiveItem): Promise<LedgerRow | undefined> {
    const key = rowKey(item.name, true);
    const burns = this.#burns;
    try {
      const value = await this.#journal.get(key);
      return value === undefined ? undefined : this.#journal.unseal(key, value);
    } catch (cause) {
      if (burns === this.#burns) this.#live.set(item.name, item);
      else await this.#journal.commit([this.#journal.end(item, "failed", "burned")]); // the burning did not see it
      throw cause;
    }
  }

  async #known(name: string): Promise<boolean> {
    if (this.#journal.isUnsettled(name)) return true;
    for (const isAvailable of [true, false]) {
      if ((await this.#journal.get(rowKey(name, isAvailable))) !== undefined) return true;
    }
    return false;
  }

  #find(filter: ItemFilter, holder: string | undefined): LiveItem | undefined {
    let free: LiveItem | undefined;
    for (const item of this.#candidates(filter)) {
      if (!matches(item, filter)) continue;
      if (holder !== undefined && item.holder === holder) return item; // what was set aside comes first
      if (item.holder === undefined) free ??= item;
      if (holder === undefined && free !== undefined) return free;
    }
    return free;
  }

  /** The one item that a filter names, otherwise all. */
  #candidates({ kind, id }: ItemFilter): Iterable<LiveItem> {
    if (kind === undefined || id === undefined) return this.#live.values();
    const item = this.#live.get(nameOf({ kind, id }));
    return item === undefined ? [] : [item];
  }

  #addLive(item: ItemFacts): void {
    const name = nameOf(item);
    this.#live.set(name, { ...facts(item), name, holder: undefined });
  }

  get #head(): LedgerHead {
    return this.#journal.head;
  }

  #floor(walletId: string): number | undefined {
    const floors = this.#head.epochFloors;
    return Object.hasOwn(floors, walletId) ? floors[walletId] : undefined;
  }

  async #burn(items: readonly LiveItem[], reason: string): Promise<number> {
    this.#burns++;
    await this.#endAll(items, { state: "failed", reason: `burned: ${reason}`.slice(0, 200) });
    return items.length;
  }

  async #endAll(
    items: readonly LiveItem[],
    end: { readonly state: Exclude<RowState, "available">; readonly reason: string },
  ): Promise<void> {
    for (const item of items) this.#live.delete(item.name);
    for (let start = 0; start < items.length; start += CHUNK) {
      await this.#journal.commit(
        items.slice(start, start + CHUNK).map((item) => this.#journal.end(item, end.state, end.reason)),
      );
    }
  }

  async #forget(): Promise<number> {
    let forgotten = 0;
    let changes: Change[] = [];
    for await (const [key, value] of this.#journal.scan(GONE)) {
      const state = claimedState(value);
      const name = key.slice(GONE.length);
      if (state === undefined || this.#journal.isUnsettled(name)) continue;
      const row = this.#journal.unseal(key, value);
      if (row === undefined || row.walletEpoch >= (this.#floor(row.walletId) ?? 0)) continue;
      changes.push({ name, from: state, to: undefined, value: undefined });
      forgotten++;
      if (changes.length === CHUNK) {
        await this.#journal.commit(changes);
        changes = [];
      }
    }
    if (changes.length > 0) await this.#journal.commit(changes);
    return forgotten;
  }

  #alone<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#assertOpen();
    const result = this.#exclusive.then(work);
    this.#exclusive = result.catch(() => undefined);
    return result;
  }

  /** Between asking and taking nothing may come in between, so every way to an item passes here. */
  #assertGiving(): void {
    this.#assertOpen();
    if (!this.isConfirmed) throw unconfirmed();
  }

  #assertOpen(): void {
    if (this.#closed) throw new Unavailable("ledger-closed", "the ledger is closed");
  }
}

const claimAt = ({ epoch, sequence }: { readonly epoch: bigint; readonly sequence: bigint }): LedgerClaim =>
  create(LedgerClaimSchema, { epoch, sequence });

const later = (left: bigint | undefined, right: bigint): bigint => (left !== undefined && left > right ? left : right);

/** What a caller hears while a ledger is unconfirmed. */
export function unconfirmed(): Unavailable {
  return new Unavailable(
    "ledger-unconfirmed",
    "this node has not yet heard from enough peers that its ledger is the newest; it goes on by itself once it has, or with new presignatures after storage.ledgerConfirmationMs",
  );
}
