import type { Clock, Random } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";
import { BoundedCalls } from "./bounded-calls.js";
import type { Coordination } from "./coordination.js";
import type { PeerPresigning } from "./peer-presigning.js";
import type { PoolMonitor } from "./service-health.js";
import { type SignerCover, signerCover } from "./signer-cover.js";
import type { PoolStatusView, Scheme } from "./wallet-application.js";

/**
 * The presignatures of SegWit wallets and the nonces of Taproot wallets, as the leading coordinator counts them: which
 * wait at all nodes of their set, and when to have more made. What is kept here is a list of names. The promise that
 * each signs once is the nodes' own: whatever this list says, a node refuses a second use.
 */

export interface PresignaturePoolOptions {
  readonly sizes: Readonly<Record<Scheme, PoolSize>>;
  readonly checkIntervalMs: number;
  readonly lockTtlMs: number;
  /** For a question about what waits. */
  readonly callTimeoutMs: number;
}

/** The pools of one scheme's wallets. */
export interface PoolSize {
  /** Presignatures of one wallet over all its signing sets; with 0 none are made ahead. */
  readonly target: number;
  /** More are made when a signing set has less than its part of this. */
  readonly minimum: number;
  /** Most that one call has made. */
  readonly batch: number;
  /** For one presignature of a batch. */
  readonly presignTimeoutMs: number;
}

export interface PooledWallet {
  readonly walletId: string;
  readonly scheme: Scheme;
  readonly threshold: number;
  /** Party order. */
  readonly parties: readonly string[];
}

export interface PresignaturePoolDependencies {
  readonly presigning: PeerPresigning;
  readonly coordination: Coordination;
  readonly clock: Clock;
  readonly random: Random;
  readonly wallets: () => Promise<readonly PooledWallet[]>;
  /** Whether this coordinator leads; only the leader has presignatures made. */
  readonly leads: () => boolean;
  readonly onError: (error: unknown, facts: { readonly walletId: string; readonly signers: readonly number[] }) => void;
}

/** What a payment needs of the pool. */
export interface PresignatureSupply {
  /**
   * A signing set of willing nodes with one presignature for each input, handed out once. When none waits, a SegWit
   * wallet's are made now; a Taproot wallet gets the preferred signers alone, who draw nonces in the session.
   *
   * @throws Unavailable `presignatures-missing`, and what presigning throws
   */
  reserve(order: SupplyOrder, signal: AbortSignal): Promise<ReservedPresignatures>;
  /** What became of a reservation. */
  settle(reserved: ReservedPresignatures, outcome: "used" | "failed"): void;
}

export interface SupplyOrder {
  readonly wallet: PooledWallet;
  readonly count: number;
  /** Node ids that may sign, the preferred first; may grow while votes come in. */
  readonly willing: () => readonly string[];
}

export interface ReservedPresignatures {
  readonly walletId: string;
  /** Party indices, ascending. */
  readonly signers: readonly number[];
  /** 32 bytes each, one for each input; none for a Taproot wallet whose signers draw nonces in the session. */
  readonly ids: readonly Uint8Array[];
}

interface Inventory {
  readonly cover: SignerCover;
  /** By signing set: ids in hex that wait at all its nodes and were not handed out. */
  waiting: Map<string, string[]>;
  /** Parties that answered the last question. */
  answering: ReadonlySet<number>;
  readonly retryAtMs: Map<string, number>;
  /** Handed out to payments under way here. After a restart none are: what was not used waits at the nodes. */
  inUse: number;
}

const SETS_MAX = 64;
/** Ids handed out that are remembered, so that a node that did not use one does not bring it back. */
const REMEMBERED_MAX = 100_000;
/** Votes of further nodes may bring a set that has presignatures. */
const BALLOT_PATIENCE_MS = 500;
const BALLOT_POLL_MS = 50;
/** A set whose presigning failed is left alone for a while; nonces cost little to try again. */
const RETRY_MS: Readonly<Record<Scheme, number>> = { cggmp24: 60_000, frost: 5_000 };
const FAILED = "/pools/failed/";

const SCHEMES: readonly Scheme[] = ["frost", "cggmp24"];

/** The signing set of those who are willing first. */
function preferred({ wallet, willing }: SupplyOrder): readonly number[] {
  const indices = willing().map((nodeId) => wallet.parties.indexOf(nodeId) + 1);
  return indices.slice(0, wallet.threshold).sort((left, right) => left - right);
}

const keyOf = (signers: readonly number[]): string => signers.join();
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

export class PresignaturePool implements PoolMonitor, PresignatureSupply {
  readonly #options: PresignaturePoolOptions;
  readonly #parts: PresignaturePoolDependencies;
  readonly #inventories = new Map<string, Inventory>();
  readonly #handedOut = new Set<string>();
  /** Wallets whose pools fell below the minimum and are not yet at the target. */
  readonly #low = new Set<string>();
  readonly #stop = new AbortController();
  readonly #calls: BoundedCalls;
  #cancelCheck = (): void => {};
  #filling: Promise<void> | undefined;

  constructor(options: PresignaturePoolOptions, dependencies: PresignaturePoolDependencies) {
    this.#options = options;
    this.#parts = dependencies;
    this.#calls = new BoundedCalls(
      { timeoutMs: options.callTimeoutMs },
      { clock: dependencies.clock, stop: this.#stop.signal },
    );
    this.#schedule();
  }

  async close(): Promise<void> {
    this.#stop.abort(new Unavailable("shutting-down", "this coordinator shuts down"));
    this.#cancelCheck();
    await this.#filling;
  }

  /** Looks after all pools now, for example because a wallet is new. */
  wake(): void {
    this.#cancelCheck();
    this.#filling ??= this.#fillAll()
      .catch((error: unknown) => this.#parts.onError(error, { walletId: "", signers: [] }))
      .finally(() => {
        this.#filling = undefined;
        this.#schedule();
      });
  }

  /** The wallet's shares changed: what waited serves nobody, and its signing sets may be others. */
  forget(walletId: string): void {
    this.#inventories.delete(walletId);
    this.#low.delete(walletId);
  }

  async status(walletId: string): Promise<PoolStatusView> {
    const wallet = (await this.#parts.wallets()).find((known) => known.walletId === walletId);
    if (wallet === undefined) return { walletId, available: 0, inUse: 0, failed: 0, target: 0, minimum: 0 };
    const { target, minimum } = this.#options.sizes[wallet.scheme];
    const inventory = await this.#refresh(wallet);
    const available = [...inventory.waiting.values()].reduce((sum, ids) => sum + ids.length, 0);
    const failed = Number(await this.#parts.coordination.add(`${FAILED}${walletId}`, 0n));
    return { walletId, available, inUse: inventory.inUse, failed, target, minimum };
  }

  async reserve(order: SupplyOrder, signal: AbortSignal): Promise<ReservedPresignatures> {
    const { wallet, count } = order;
    const { clock } = this.#parts;
    if (wallet.scheme === "frost") return this.#pick(order) ?? this.#withoutNonces(order);
    const untilMs = clock.monotonicMs() + BALLOT_PATIENCE_MS;
    if (!this.#inventories.has(wallet.walletId)) await this.#refresh(wallet);
    for (let asked = false; ; ) {
      signal.throwIfAborted();
      const found = this.#pick(order);
      if (found !== undefined) return found;
      if (!asked) {
        asked = true;
        await this.#refresh(wallet);
      } else if (clock.monotonicMs() < untilMs) {
        await new Promise<void>((resolve) => void clock.after(BALLOT_POLL_MS, resolve));
      } else break;
    }
    const signers = preferred(order);
    const have = this.#inventory(wallet).waiting.get(keyOf(signers))?.length ?? 0;
    await this.#make(wallet, signers, { count: count - have, signal });
    const made = this.#pick(order);
    if (made !== undefined) return made;
    throw new Unavailable("presignatures-missing", "the nodes made too few presignatures for this payment", {
      walletId: wallet.walletId,
      count,
    });
  }

  settle({ walletId, ids }: ReservedPresignatures, outcome: "used" | "failed"): void {
    const inventory = this.#inventories.get(walletId);
    if (inventory === undefined) return;
    inventory.inUse -= ids.length;
    if (outcome === "used" || ids.length === 0) return;
    // Counted where every coordinator finds it, also after a restart.
    this.#parts.coordination
      .add(`${FAILED}${walletId}`, BigInt(ids.length))
      .catch((error: unknown) => this.#parts.onError(error, { walletId, signers: [] }));
    // Perhaps a node burned its pool: what waits is asked again before anything more is handed out.
    inventory.waiting = new Map();
    this.wake();
  }

  /** What the signers make in the session costs them one more round, a pool that is asked for now costs more. */
  #withoutNonces(order: SupplyOrder): ReservedPresignatures {
    if (this.#options.sizes.frost.target > 0) this.wake();
    return { walletId: order.wallet.walletId, signers: preferred(order), ids: [] };
  }

  /** The set that the willing prefer among those with enough. */
  #pick({ wallet, count, willing }: SupplyOrder): ReservedPresignatures | undefined {
    const inventory = this.#inventory(wallet);
    const rank = new Map(willing().map((nodeId, place) => [wallet.parties.indexOf(nodeId) + 1, place]));
    const [best] = [...inventory.waiting]
      .filter(([, ids]) => ids.length >= count)
      .map(([key, ids]) => ({ ids, signers: key.split(",").map(Number) }))
      .filter(({ signers }) => signers.every((party) => rank.has(party)))
      .map((set) => ({ ...set, cost: set.signers.reduce((sum, party) => sum + (rank.get(party) ?? 0), 0) }))
      .sort((left, right) => left.cost - right.cost);
    if (best === undefined) return undefined;
    const taken = best.ids.splice(0, count);
    for (const id of taken) this.#handOut(id);
    inventory.inUse += taken.length;
    const { minimum } = this.#options.sizes[wallet.scheme];
    if (best.ids.length < Math.ceil(minimum / inventory.cover.sets.length)) this.wake();
    const ids = taken.map((id) => new Uint8Array(Buffer.from(id, "hex")));
    return { walletId: wallet.walletId, signers: best.signers, ids };
  }

  #handOut(id: string): void {
    this.#handedOut.add(id);
    const [oldest] = this.#handedOut;
    if (this.#handedOut.size > REMEMBERED_MAX && oldest !== undefined) this.#handedOut.delete(oldest);
  }

  #inventory({ walletId, parties, threshold }: PooledWallet): Inventory {
    const known = this.#inventories.get(walletId);
    if (known !== undefined) return known;
    const inventory: Inventory = {
      cover: signerCover({ parties: parties.length, threshold, setsMax: SETS_MAX }),
      waiting: new Map(),
      answering: new Set(),
      retryAtMs: new Map(),
      inUse: 0,
    };
    this.#inventories.set(walletId, inventory);
    return inventory;
  }

  /** Asks all nodes. What does not wait at every node of its set serves nobody; nodes that do not answer have nothing. */
  async #refresh(wallet: PooledWallet): Promise<Inventory> {
    const { presigning } = this.#parts;
    const inventory = this.#inventory(wallet);
    const answers = await this.#calls.make((signal) =>
      Promise.allSettled(wallet.parties.map((nodeId) => presigning.waiting(nodeId, wallet.walletId, signal))),
    );
    const seen = new Map<string, { readonly signers: readonly number[]; readonly at: Set<number> }>();
    const answering = new Set<number>();
    for (const [place, answer] of answers.entries()) {
      if (answer.status === "rejected") continue;
      answering.add(place + 1);
      for (const { id, signers } of answer.value) {
        const name = `${hex(id)}/${keyOf(signers)}`;
        const entry = seen.get(name) ?? { signers, at: new Set<number>() };
        seen.set(name, entry);
        entry.at.add(place + 1);
      }
    }
    const waiting = new Map<string, string[]>();
    for (const [name, { signers, at }] of seen) {
      const id = name.slice(0, name.indexOf("/"));
      if (this.#handedOut.has(id) || !signers.every((party) => at.has(party))) continue;
      const key = keyOf(signers);
      waiting.set(key, [...(waiting.get(key) ?? []), id]);
    }
    inventory.waiting = waiting;
    inventory.answering = answering;
    return inventory;
  }

  #schedule(): void {
    if (this.#stop.signal.aborted) return;
    this.#cancelCheck = this.#parts.clock.after(this.#options.checkIntervalMs, () => this.wake());
  }

  /** Fills all pools under the lock; a Taproot pool does not stand behind a SegWit pool, which takes minutes. */
  async #fillAll(): Promise<void> {
    const { coordination, leads } = this.#parts;
    const wanted = SCHEMES.filter((scheme) => this.#options.sizes[scheme].target > 0);
    if (!leads() || wanted.length === 0) return;
    const lock = await coordination.tryLock("/locks/presig-generation", this.#options.lockTtlMs);
    if (lock === undefined) return;
    const signal = AbortSignal.any([this.#stop.signal, lock.lost]);
    try {
      await Promise.all(wanted.map((scheme) => this.#fillScheme(scheme, signal)));
    } finally {
      await lock.release();
    }
  }

  /** One batch of each wallet in turn, until nothing is missing. */
  async #fillScheme(scheme: Scheme, signal: AbortSignal): Promise<void> {
    const { leads, wallets } = this.#parts;
    for (let made = true; made && leads() && !signal.aborted; ) {
      made = false;
      for (const wallet of await wallets()) {
        if (wallet.scheme === scheme && (await this.#fillOne(wallet, signal))) made = true;
      }
    }
  }

  /** One batch for the set that has the fewest; false when none is below its mark. */
  async #fillOne(wallet: PooledWallet, signal: AbortSignal): Promise<boolean> {
    const { clock, onError } = this.#parts;
    const { waiting, answering, cover, retryAtMs } = await this.#refresh(wallet);
    const { target, minimum, batch } = this.#options.sizes[wallet.scheme];
    const share = (amount: number): number => Math.ceil(amount / cover.sets.length);
    const have = (set: readonly number[]): number => waiting.get(keyOf(set))?.length ?? 0;
    const ready = cover.sets.filter(
      (set) => set.every((party) => answering.has(party)) && (retryAtMs.get(keyOf(set)) ?? 0) <= clock.monotonicMs(),
    );
    const isFilling = this.#low.has(wallet.walletId) || ready.some((set) => have(set) < share(minimum));
    const [poorest] = [...ready].sort((left, right) => have(left) - have(right));
    const missing = poorest === undefined ? 0 : share(target) - have(poorest);
    if (poorest === undefined || !isFilling || missing <= 0) {
      this.#low.delete(wallet.walletId);
      return false;
    }
    this.#low.add(wallet.walletId);
    // Every set gets its first one before any gets its second.
    const count = have(poorest) === 0 ? 1 : Math.min(missing, batch);
    try {
      await this.#make(wallet, poorest, { count, signal });
    } catch (error) {
      if (signal.aborted) return false;
      retryAtMs.set(keyOf(poorest), clock.monotonicMs() + RETRY_MS[wallet.scheme]);
      onError(error, { walletId: wallet.walletId, signers: poorest });
    }
    return true;
  }

  async #make(
    wallet: PooledWallet,
    signers: readonly number[],
    { count, signal }: { readonly count: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const { presigning, random } = this.#parts;
    const order = { sessionId: random.bytes(16), walletId: wallet.walletId, signers, count };
    const nodes = signers.map((party) => wallet.parties[party - 1] ?? "");
    const { presignTimeoutMs } = this.#options.sizes[wallet.scheme];
    const answers = await this.#calls.make((own) => {
      const either = AbortSignal.any([signal, own]);
      return Promise.all(nodes.map((nodeId) => presigning.presign(nodeId, order, either)));
    }, count * presignTimeoutMs);
    const lists = answers.map((ids) => new Set(ids.map(hex)));
    const common = [...(lists[0] ?? [])].filter((id) => lists.every((list) => list.has(id)));
    const { waiting } = this.#inventory(wallet);
    const key = keyOf(signers);
    const known = waiting.get(key) ?? [];
    waiting.set(key, [...known, ...common.filter((id) => !known.includes(id) && !this.#handedOut.has(id))]);
  }
}
