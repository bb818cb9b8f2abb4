import { equals } from "@bufbuild/protobuf";
import {
  type LedgerBurn,
  type LedgerStatement,
  LedgerStatementSchema,
} from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";
import type { LedgerPosition, OneUseLedger } from "../storage/one-use-ledger.js";
import { BoundedCalls } from "../wallet/bounded-calls.js";
import { isStatementOf, positionOf, signStatement } from "./ledger-statement.js";
import type { Logger } from "./log.js";

/** A node's questions to the members that remember its ledger. */
export interface WitnessCalls {
  announce(
    member: string,
    announcement: { readonly statement: LedgerStatement; readonly burn?: Omit<LedgerBurn, "$typeName"> },
    signal: AbortSignal,
  ): Promise<LedgerStatement | undefined>;
  recall(member: string, signal: AbortSignal): Promise<LedgerStatement | undefined>;
}

export interface LedgerWitnessOptions {
  readonly nodeId: string;
  /** Own Ed25519 key, 32 bytes. */
  readonly identityKey: Uint8Array;
  readonly members: readonly { readonly nodeId: string; readonly role: "node" | "coordinator" }[];
  /** How long a node that was started waits for its witnesses before it burns what it has. */
  readonly confirmationMs: number;
  /** How long a member has for one answer. */
  readonly answerTimeoutMs: number;
}

export interface LedgerWitnessDependencies {
  readonly ledger: OneUseLedger;
  readonly calls: WitnessCalls;
  readonly sign: (message: Uint8Array) => Uint8Array;
  /** The wallets that this node has a share of. */
  readonly wallet: (
    walletId: string,
  ) => { readonly parties: readonly string[]; readonly threshold: number } | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** A passage from the take of an item to the share that is made of it. */
export interface LedgerPassage {
  /** The item is taken: all members are told soon that this ledger is past it. */
  tell(): void;
  /** @throws Unavailable "ledger-behind": the ledger turned out to be an old copy; the item must not be used */
  requireNewest(): Promise<void>;
}

export type BurnReason = "ledger-behind" | "ledger-unconfirmed" | "ledger-damaged";

/** One member, as far as it has been told. */
interface Listener {
  readonly nodeId: string;
  told: LedgerPosition | undefined;
  /** How far it is to be told. */
  wanted: bigint;
  isTelling: boolean;
  /** Cancels the next telling, when one is due later. */
  cancelLater: (() => void) | undefined;
  /** The burning that it was told of. */
  knowsBurn: LedgerBurnFacts | undefined;
}

type LedgerBurnFacts = Omit<LedgerBurn, "$typeName">;

const FIRST_RETRY_MS = 500;
/** Members are told of many takes at once. */
const UNHURRIED_MS = 1_000;
/** While a confirmation is waited for. */
const EARLY_RETRY_MS = 1_000;
const LAST_RETRY_MS = 15_000;

/**
 * Whether the other members that answered are enough: of every wallet one more than can be lying or were restored, too,
 * namely n-t+1 of its other n-1 parties. They meet the t-1 that signed together with this node the last time, and if
 * those keep silent about it, one of the others is among them.
 */
export function haveEnough(
  wallets: readonly { readonly parties: readonly string[]; readonly threshold: number }[],
  self: string,
  answered: ReadonlySet<string>,
): boolean {
  return wallets.every(({ parties, threshold }) => {
    const others = parties.filter((party) => party !== self && answered.has(party));
    return others.length >= parties.length - threshold + 1;
  });
}

/**
 * Keeps the other members informed of how far this node's ledger is, and asks them when it is opened. A ledger that
 * somebody remembers further on is a copy from before: everything in it is burned, before anything of it is used.
 */
export class LedgerWitness {
  readonly #options: LedgerWitnessOptions;
  readonly #parts: LedgerWitnessDependencies;
  readonly #listeners: ReadonlyMap<string, Listener>;
  readonly #answered = new Set<string>();
  readonly #stop = new AbortController();
  readonly #calls: BoundedCalls;
  /** Grows when the pool is about to be burned: what was taken before it is not used any more. */
  #generation = 0;
  #burn: LedgerBurnFacts | undefined;
  #isOverdue = false;
  /** Tail of the judgements about the ledger. */
  #judging: Promise<void> = Promise.resolve();
  #statement: LedgerStatement | undefined;

  constructor(options: LedgerWitnessOptions, dependencies: LedgerWitnessDependencies) {
    this.#options = options;
    this.#parts = dependencies;
    const { clock } = dependencies;
    this.#calls = new BoundedCalls({ timeoutMs: options.answerTimeoutMs }, { clock, stop: this.#stop.signal });
    const others = options.members.filter(({ nodeId }) => nodeId !== options.nodeId);
    this.#listeners = new Map(
      others.map(({ nodeId }) => [
        nodeId,
        {
          nodeId,
          told: undefined,
          wanted: -1n,
          isTelling: false,
          cancelLater: undefined,
          knowsBurn: undefined,
        },
      ]),
    );
  }

  /** What this node burned itself since it was started. */
  get burn(): LedgerBurnFacts | undefined {
    return this.#burn;
  }

  /** Asks all members; returns at once. */
  start(): void {
    const { ledger, clock, log } = this.#parts;
    if (ledger.damage !== undefined && ledger.damage.burned > 0) this.#note("ledger-damaged", ledger.damage.burned);
    if (!ledger.isConfirmed)
      log.info({ event: "ledger-unconfirmed" }, "asking peers whether this ledger is the newest");
    for (const { nodeId } of this.#listeners.values()) void this.#ask(nodeId);
    const cancel = clock.after(this.#options.confirmationMs, () => {
      this.#isOverdue = true;
      this.#judge(async () => undefined);
    });
    this.#stop.signal.addEventListener("abort", cancel, { once: true });
    this.#judge(async () => undefined);
  }

  async close(): Promise<void> {
    this.#stop.abort(new Unavailable("shutting-down", "this node shuts down"));
    await this.#judging;
  }

  /** To be called before an item is taken, so that nothing that is learned of the ledger in between is missed. */
  attend(): LedgerPassage {
    const generation = this.#generation;
    return {
      tell: () => this.#tellAll(this.#parts.ledger.position().sequence),
      requireNewest: async () => {
        await this.#judging;
        if (generation !== this.#generation) {
          throw new Unavailable("ledger-behind", "this node's ledger is an old copy; its pool was burned");
        }
      },
    };
  }

  /** Tells members within a moment that the ledger has come this far. */
  #tellAll(sequence: bigint): void {
    for (const listener of this.#listeners.values()) {
      if (listener.wanted < sequence) listener.wanted = sequence;
      this.#tellLater(listener, { delayMs: UNHURRIED_MS });
    }
  }

  /** One call to a member at a time; what comes up meanwhile goes with the next. */
  async #tell(listener: Listener, retryMs = FIRST_RETRY_MS): Promise<void> {
    if (listener.isTelling) return;
    listener.cancelLater?.();
    listener.cancelLater = undefined;
    listener.isTelling = true;
    try {
      await this.#tellOnce(listener);
      listener.isTelling = false;
      if (!isToldOf(listener, listener.wanted)) this.#tellLater(listener, { delayMs: UNHURRIED_MS });
    } catch (error) {
      listener.isTelling = false;
      this.#parts.log.debug({ event: "ledger-untold", member: listener.nodeId, err: error });
      this.#tellLater(listener, { delayMs: retryMs, retryMs: Math.min(2 * retryMs, LAST_RETRY_MS) });
    }
  }

  #tellLater(listener: Listener, { delayMs, retryMs }: { readonly delayMs: number; readonly retryMs?: number }): void {
    if (listener.isTelling || listener.cancelLater !== undefined || this.#stop.signal.aborted) return;
    listener.cancelLater = this.#parts.clock.after(delayMs, () => {
      listener.cancelLater = undefined;
      if (!this.#stop.signal.aborted) void this.#tell(listener, retryMs);
    });
  }

  async #tellOnce(listener: Listener): Promise<void> {
    const { nodeId } = listener;
    const generation = this.#generation;
    const position = this.#parts.ledger.position();
    const statement = this.#stated(position);
    const burn = listener.knowsBurn === this.#burn ? undefined : this.#burn;
    const furthest = await this.#calls.make((signal) =>
      this.#parts.calls.announce(nodeId, { statement, ...(burn === undefined ? {} : { burn }) }, signal),
    );
    if (furthest === undefined) throw new Unavailable("witness-empty", `${nodeId} remembers nothing`, { nodeId });
    listener.knowsBurn = burn ?? listener.knowsBurn;
    if (!equals(LedgerStatementSchema, furthest, statement)) await this.#learn(nodeId, furthest);
    if (generation !== this.#generation) return; // the ledger went on beyond what the member remembers: it is told next
    if (positionOf(furthest).sequence < position.sequence) {
      throw new Unavailable("witness-forgetful", `${nodeId} does not remember what it was told`, { nodeId });
    }
    listener.told = position;
  }

  /** Asks one member until it has answered: one that comes back after hours may be the only one who knows. */
  async #ask(member: string): Promise<void> {
    const { calls, clock, log } = this.#parts;
    for (let waitMs = FIRST_RETRY_MS; !this.#stop.signal.aborted; waitMs *= 2) {
      try {
        const furthest = await this.#calls.make((signal) => calls.recall(member, signal));
        if (furthest !== undefined) await this.#learn(member, furthest);
        this.#answered.add(member);
        this.#judge(async () => undefined);
        return;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        log.debug({ event: "ledger-unasked", member, err: error });
      }
      const pauseMs = Math.min(waitMs, this.#isOverdue ? LAST_RETRY_MS : EARLY_RETRY_MS);
      await new Promise<void>((resolve) => void clock.after(pauseMs, resolve));
    }
  }

  /** Draws the conclusion from what a member remembers. @throws Unavailable when this node never said it */
  async #learn(member: string, furthest: LedgerStatement): Promise<void> {
    const { nodeId, identityKey } = this.#options;
    if (!isStatementOf(nodeId, identityKey, furthest)) {
      this.#parts.log.warn({ event: "statement-forged", member }, "a peer shows a statement that this node never made");
      throw new Unavailable("statement-forged", `${member} shows a statement that this node never made`, { member });
    }
    const remembered = positionOf(furthest);
    this.#judge(async () => {
      if (this.#parts.ledger.isBehind(remembered)) await this.#outlive(remembered, "ledger-behind", member);
    });
    await this.#judging;
  }

  /** Draws a conclusion, then sees whether the ledger can be confirmed; one after another. */
  #judge(conclude: () => Promise<void>): void {
    const { log, clock } = this.#parts;
    this.#judging = this.#judging
      .then(conclude)
      .then(() => this.#decide())
      .catch((error: unknown) => {
        log.error({ event: "ledger-undecided", err: error }, "the ledger stays unconfirmed");
        if (!this.#stop.signal.aborted) clock.after(LAST_RETRY_MS, () => this.#judge(conclude));
      });
  }

  async #decide(): Promise<void> {
    const { ledger, log, wallet } = this.#parts;
    if (ledger.isConfirmed || this.#stop.signal.aborted) return;
    const walletIds = new Set(ledger.items().map(({ walletId }) => walletId));
    const wallets = [...walletIds].map(wallet).filter((found) => found !== undefined);
    const coordinators = this.#options.members.filter(({ role }) => role === "coordinator");
    // No payment comes but from a coordinator, so its word costs no time; a firm whose coordination is down goes on.
    const hasCoordinator = coordinators.length === 0 || coordinators.some(({ nodeId }) => this.#answered.has(nodeId));
    const isEnough = haveEnough(wallets, this.#options.nodeId, this.#answered);
    if (isEnough && (hasCoordinator || this.#isOverdue)) {
      await ledger.confirm();
      log.info({ event: "ledger-confirmed", by: [...this.#answered] }, "no peer remembers this ledger further on");
    } else if (this.#isOverdue) {
      await this.#outlive(undefined, "ledger-unconfirmed", "");
    }
  }

  async #outlive(remembered: LedgerPosition | undefined, reason: BurnReason, member: string): Promise<void> {
    const { ledger, log } = this.#parts;
    this.#generation++;
    const burned = await ledger.outlive(remembered, reason);
    const facts =
      remembered === undefined
        ? { answered: [...this.#answered] }
        : { member, epoch: remembered.epoch.toString(), sequence: remembered.sequence.toString() };
    log.error(
      { event: "pool-burned", reason, burned, ...facts },
      reason === "ledger-behind"
        ? "this ledger is older than a peer remembers: it was restored or replaced, and its pool is burned"
        : "too few peers could say that this ledger is the newest: its pool is burned",
    );
    this.#note(reason, burned);
    this.#tellAll(ledger.position().sequence);
    for (const listener of this.#listeners.values()) void this.#tell(listener);
  }

  #note(reason: BurnReason, items: number): void {
    this.#burn = { reason, items, atMs: BigInt(Math.floor(this.#parts.clock.nowMs())) };
  }

  #stated(position: LedgerPosition): LedgerStatement {
    const last = this.#statement;
    if (last !== undefined && last.sequence === position.sequence && last.epoch === position.epoch) return last;
    this.#statement = signStatement(this.#options.nodeId, position, this.#parts.sign);
    return this.#statement;
  }
}

function isToldOf({ told }: Listener, sequence: bigint): boolean {
  return told !== undefined && told.sequence >= sequence;
}
