/**
 * The devnet's own chain: one process, no peers, regtest rules. It judges every spend as a Bitcoin Core node of the 28.x
 * line would judge what a wallet sends it, and mines when it is told to. It is NO CONSENSUS NODE: rules that a
 * single-signer wallet never meets (sigop limits, package relay, version-3 topology) are not here.
 */
import type { Transaction } from "bitcoinjs-lib";
import type { Clock } from "../../crypto/ambient.js";
import { InvalidInput } from "../../crypto/fault.js";
import { BLOCK_WEIGHT_RESERVE, MAX_BLOCK_WEIGHT, mineBlock } from "./block.js";
import { type Coin, outpoint } from "./coins.js";
import type { ChainJournal } from "./journal.js";
import { type ConnectedBlock, decodeBlock, Ledger, shownTxid } from "./ledger.js";
import { Mempool, type MempoolEntry, type SpendingTransaction } from "./mempool.js";
import {
  COINBASE_MATURITY_BLOCKS,
  decodeTransaction,
  inputFault,
  MAX_MEMPOOL_CHAIN,
  minRelayFeeSat,
  standardnessFault,
  structureFault,
} from "./policy.js";
import { scriptFailure } from "./script-check.js";

/** Bitcoin Core's RPC error codes for a transaction that is not taken. */
export type RejectCode = -22 | -25 | -26 | -27;

/** Verdict on a transaction; `reason` is Bitcoin Core's reject reason, `detail` what it adds in parentheses or numbers. */
export type Acceptance =
  | { readonly accepted: true; readonly entry: SpendingTransaction }
  | { readonly accepted: false; readonly reason: string; readonly detail: string; readonly code: RejectCode };

type Refusal = Extract<Acceptance, { accepted: false }>;

const refusal = (reason: string, detail = "", code: RejectCode = -26): Refusal => ({
  accepted: false,
  reason,
  detail,
  code,
});

/** Reject reason and detail as Bitcoin Core's sendrawtransaction prints them. */
export const refusalText = ({ reason, detail }: Refusal): string =>
  detail === "" ? reason : detail.startsWith("(") ? `${reason} ${detail}` : `${reason}, ${detail}`;

export interface ChainOptions {
  /** Blocks mined by one request, at most. */
  readonly maxBlocksPerRequest: number;
  /** Transactions that may wait at one time. */
  readonly maxMempoolTransactions: number;
  /** Fee rate that the chain reports for every target; there is no fee market here. */
  readonly feeRateSatPerKvb: number;
}

export interface ChainDependencies {
  readonly clock: Clock;
  /** Where blocks and transactions are written, and from where they are read at the start. */
  readonly journal?: ChainJournal;
}

const LOCKTIME_THRESHOLD = 500_000_000;
const SEQUENCE_FINAL = 0xffffffff;
const SEQUENCE_DISABLE = 0x80000000;
const SEQUENCE_TYPE_TIME = 0x00400000;
const SEQUENCE_MASK = 0xffff;
const SEQUENCE_TIME_SHIFT = 9;
const MAX_REPLACED = 100;

export class Chain {
  readonly options: ChainOptions;
  readonly #clock: Clock;
  readonly #journal: ChainJournal | undefined;
  readonly #ledger = new Ledger();
  readonly #mempool = new Mempool();
  #extraNonce = 0;

  /** @throws InvalidInput "bad-block" when the journal holds a block that does not connect */
  constructor(options: ChainOptions, dependencies: ChainDependencies) {
    this.options = options;
    this.#clock = dependencies.clock;
    for (const record of dependencies.journal?.records() ?? []) {
      if ("block" in record) this.#connect(decodeBlock(record.block));
      else if ("transaction" in record) this.#admit(record.transaction);
      else this.#disconnect();
    }
    this.#journal = dependencies.journal;
  }

  get tip(): ConnectedBlock {
    return this.#ledger.tip;
  }

  get ledger(): Pick<Ledger, "byHash" | "byHeight" | "transaction" | "history"> {
    return this.#ledger;
  }

  get mempool(): Pick<Mempool, "size" | "get" | "entries" | "history" | "ancestors" | "withDescendants"> {
    return this.#mempool;
  }

  /** A confirmed or waiting transaction. */
  transaction(txid: string): SpendingTransaction | undefined {
    return this.#mempool.get(txid) ?? this.#ledger.transaction(txid);
  }

  /** The block of a transaction; undefined while it waits or when it is unknown. */
  blockOf(txid: string): ConnectedBlock | undefined {
    const height = this.#ledger.transaction(txid)?.height;
    return height === undefined ? undefined : this.#ledger.byHeight(height);
  }

  /** The confirmed or waiting transaction that spends an output. */
  spender(key: string): string | undefined {
    return this.#mempool.spender(key) ?? this.#ledger.spender(key);
  }

  /** An unspent output. Without the mempool, its spends and its outputs are not seen. */
  coin(key: string, { withMempool }: { withMempool: boolean }): Coin | undefined {
    if (!withMempool) return this.#ledger.coins.get(key);
    if (this.#mempool.spender(key) !== undefined) return undefined;
    return this.#mempool.coins.get(key) ?? this.#ledger.coins.get(key);
  }

  /** Unspent outputs of a script, confirmed ones first. Without the mempool, its spends and its outputs are not seen. */
  unspent(scriptHash: string, { withMempool }: { withMempool: boolean }): Coin[] {
    const confirmed = [...this.#ledger.coins.ofScript(scriptHash)];
    if (!withMempool) return confirmed;
    return [...confirmed, ...this.#mempool.coins.ofScript(scriptHash)].filter(
      (coin) => this.#mempool.spender(outpoint(coin.txid, coin.vout)) === undefined,
    );
  }

  /**
   * Takes a transaction into the mempool when every rule holds.
   *
   * @param raw - serialised transaction
   * @param maxFeeRateSatPerKvb - refuse what pays more; 0 for no limit
   * @returns the verdict; never throws on any input, only when the journal cannot be written
   */
  accept(raw: Uint8Array, { maxFeeRateSatPerKvb }: { maxFeeRateSatPerKvb: bigint }): Acceptance {
    const judged = this.judge(raw, { maxFeeRateSatPerKvb });
    if (!judged.accepted) return judged;
    this.#journal?.append({ transaction: raw }); // persisted before it counts
    this.#enter(judged.entry);
    return judged;
  }

  /** Same verdict as `accept`, and nothing changes. */
  judge(raw: Uint8Array, { maxFeeRateSatPerKvb }: { maxFeeRateSatPerKvb: bigint }): Acceptance {
    const transaction = decodeTransaction(raw);
    if (transaction === undefined) {
      return refusal("TX decode failed. Make sure the tx has at least one input.", "", -22);
    }
    const fault = structureFault(transaction) ?? standardnessFault(transaction);
    if (fault !== undefined) return refusal(fault);
    const txid = transaction.getId();
    if (this.#mempool.get(txid) !== undefined) return refusal("txn-already-in-mempool", "", -27);
    if (this.#ledger.transaction(txid) !== undefined) return refusal("txn-already-known", "", -27);
    if (!this.#isFinal(transaction)) return refusal("non-final");

    const spent: Coin[] = [];
    for (const { hash, index } of transaction.ins) {
      const key = outpoint(shownTxid(hash), index);
      const coin = this.#ledger.coins.get(key) ?? this.#mempool.coins.get(key);
      if (coin === undefined) return refusal("bad-txns-inputs-missingorspent", "", -25);
      spent.push(coin);
    }
    const inSat = spent.reduce((sum, coin) => sum + coin.valueSat, 0n);
    const outSat = transaction.outs.reduce((sum, { value }) => sum + value, 0n);
    const vsizeVb = transaction.virtualSize();
    const entry = { txid, transaction, raw, spent, feeSat: inSat - outSat, vsizeVb };
    return this.#contextFault(entry, maxFeeRateSatPerKvb) ?? { accepted: true, entry };
  }

  #contextFault(entry: SpendingTransaction, maxFeeRateSatPerKvb: bigint): Refusal | undefined {
    const { transaction, spent, feeSat, vsizeVb } = entry;
    const nextHeight = this.tip.height + 1;
    if (!this.#sequenceLocksHold(transaction, spent)) return refusal("non-BIP68-final");
    for (const [index, coin] of spent.entries()) {
      const depth = nextHeight - coin.confirmedHeight;
      if (coin.coinbase && depth < COINBASE_MATURITY_BLOCKS) {
        return refusal("bad-txns-premature-spend-of-coinbase", `tried to spend coinbase at depth ${depth}`);
      }
      const input = transaction.ins[index];
      const fault = input === undefined ? undefined : inputFault(input, coin.scriptPubKey);
      if (fault !== undefined) return refusal(fault);
    }
    if (feeSat < 0n) return refusal("bad-txns-in-belowout", "value in < value out");
    const leastSat = minRelayFeeSat(vsizeVb);
    if (feeSat < leastSat) return refusal("min relay fee not met", `${feeSat} < ${leastSat}`);
    if (maxFeeRateSatPerKvb > 0n && feeSat * 1_000n > maxFeeRateSatPerKvb * BigInt(vsizeVb)) {
      return refusal("max-fee-exceeded", "", -25);
    }
    const replaced = this.#replacementFault(entry);
    if (replaced !== undefined) return replaced;
    const tooLong = this.#mempoolChainFault(spent);
    if (tooLong !== undefined) return tooLong;
    if (this.#mempool.size >= this.options.maxMempoolTransactions) return refusal("mempool full");
    const failure = scriptFailure(entry.raw, spent);
    return failure === undefined
      ? undefined
      : refusal("mandatory-script-verify-flag-failed", `(${failure.rule}), input ${failure.inputIndex}`);
  }

  #mempoolChainFault(spent: readonly Coin[]): Refusal | undefined {
    const ancestors = this.#mempool.ancestors(spent);
    const limit = `[limit: ${MAX_MEMPOOL_CHAIN}]`;
    if (ancestors.size + 1 > MAX_MEMPOOL_CHAIN) {
      return refusal("too-long-mempool-chain", `too many unconfirmed ancestors ${limit}`);
    }
    for (const ancestor of ancestors) {
      if (this.#mempool.withDescendants([ancestor]).size + 1 > MAX_MEMPOOL_CHAIN) {
        return refusal("too-long-mempool-chain", `too many descendants for tx ${ancestor} ${limit}`);
      }
    }
    return undefined;
  }

  /** Waiting transactions that spend one of the same outputs. */
  #conflicts(spent: readonly Coin[]): ReadonlySet<string> {
    const spenders = spent.map((coin) => this.#mempool.spender(outpoint(coin.txid, coin.vout)));
    return new Set(spenders.filter((txid) => txid !== undefined));
  }

  /** Replacement by fee (BIP 125, without its signalling, as Core since 28.0). */
  #replacementFault({ spent, feeSat, vsizeVb }: SpendingTransaction): Refusal | undefined {
    const conflicts = this.#conflicts(spent);
    if (conflicts.size === 0) return undefined;
    const evicted = this.#mempool.withDescendants(conflicts);
    if (evicted.size > MAX_REPLACED) return refusal("too many potential replacements");
    if (spent.some((coin) => evicted.has(coin.txid))) return refusal("bad-txns-spends-conflicting-tx");
    let evictedFeeSat = 0n;
    for (const txid of evicted) {
      const rival = this.#mempool.get(txid);
      if (rival === undefined) continue;
      evictedFeeSat += rival.feeSat;
      if (conflicts.has(txid) && feeSat * BigInt(rival.vsizeVb) <= rival.feeSat * BigInt(vsizeVb)) {
        return refusal("insufficient fee", "rejecting replacement; new feerate is not above the old one");
      }
    }
    return feeSat < evictedFeeSat + minRelayFeeSat(vsizeVb)
      ? refusal("insufficient fee", "rejecting replacement; not enough additional fees to relay")
      : undefined;
  }

  /** BIP 113: a lock time in seconds is compared with the median time of the tip. */
  #isFinal(transaction: Transaction): boolean {
    const { locktime } = transaction;
    const limit = locktime < LOCKTIME_THRESHOLD ? this.tip.height + 1 : this.tip.medianTimeS;
    return locktime < limit || transaction.ins.every(({ sequence }) => sequence === SEQUENCE_FINAL);
  }

  /** BIP 68: relative lock times of version 2 and later. */
  #sequenceLocksHold(transaction: Transaction, spent: readonly Coin[]): boolean {
    if (transaction.version < 2) return true;
    const nextHeight = this.tip.height + 1;
    return transaction.ins.every(({ sequence }, index) => {
      if (sequence >= SEQUENCE_DISABLE) return true;
      const height = spent[index]?.confirmedHeight || nextHeight; // waiting coins confirm in the next block at best
      const lock = sequence & SEQUENCE_MASK;
      if ((sequence & SEQUENCE_TYPE_TIME) === 0) return height + lock <= nextHeight;
      const startS = this.#ledger.byHeight(height - 1)?.medianTimeS ?? this.tip.medianTimeS;
      return startS + (lock << SEQUENCE_TIME_SHIFT) <= this.tip.medianTimeS;
    });
  }

  #admit(raw: Uint8Array): void {
    const judged = this.judge(raw, { maxFeeRateSatPerKvb: 0n });
    if (judged.accepted) this.#enter(judged.entry);
  }

  #enter(entry: SpendingTransaction): void {
    for (const txid of this.#mempool.withDescendants(this.#conflicts(entry.spent))) this.#mempool.remove(txid);
    this.#mempool.add({ ...entry, enteredS: Math.floor(this.#clock.nowMs() / 1_000) });
  }

  /**
   * Mines blocks from the mempool.
   *
   * @param count - number of blocks, 1 to `maxBlocksPerRequest`
   * @param scriptPubKey - receives subsidies and fees
   * @returns the hashes, oldest first
   * @throws InvalidInput "too-many-blocks"
   */
  mine(count: number, scriptPubKey: Uint8Array): string[] {
    const { maxBlocksPerRequest } = this.options;
    if (!Number.isSafeInteger(count) || count < 1 || count > maxBlocksPerRequest) {
      throw new InvalidInput("too-many-blocks", `blocks must be 1 to ${maxBlocksPerRequest}`, { count });
    }
    return Array.from({ length: count }, () => this.#mineOne(scriptPubKey).hash);
  }

  #mineOne(scriptPubKey: Uint8Array): ConnectedBlock {
    const tip = this.tip;
    const chosen = this.#blockTransactions();
    const block = mineBlock({
      height: tip.height + 1,
      previousHash: tip.block.getHash(),
      timestampS: Math.max(tip.medianTimeS + 1, Math.floor(this.#clock.nowMs() / 1_000)),
      transactions: chosen.map(({ transaction }) => transaction),
      feesSat: chosen.reduce((sum, { feeSat }) => sum + feeSat, 0n),
      scriptPubKey,
      extraNonce: this.#extraNonce++,
    });
    this.#journal?.append({ block: block.toBuffer() });
    return this.#connect(block);
  }

  /** First come, first served; what does not fit takes its descendants with it into a later block. */
  #blockTransactions(): MempoolEntry[] {
    const chosen: MempoolEntry[] = [];
    const left = new Set<string>();
    let weight = BLOCK_WEIGHT_RESERVE;
    for (const entry of this.#mempool.entries()) {
      const entryWeight = entry.transaction.weight();
      if (weight + entryWeight > MAX_BLOCK_WEIGHT || entry.spent.some((coin) => left.has(coin.txid))) {
        left.add(entry.txid);
      } else {
        weight += entryWeight;
        chosen.push(entry);
      }
    }
    return chosen;
  }

  #connect(block: ConnectedBlock["block"]): ConnectedBlock {
    const connected = this.#ledger.connect(block);
    for (const { txid } of connected.transactions) this.#mempool.remove(txid);
    this.#refreshMempoolCoins();
    return connected;
  }

  /**
   * Takes the last block off, as a reorganisation does; its transactions wait again. The next block mined is another one.
   *
   * @returns the hash of the block that is no longer part of the chain
   * @throws InvalidInput "genesis-stays"
   */
  invalidateTip(): string {
    if (this.tip.height > 0) this.#journal?.append({ invalidated: this.tip.hash });
    return this.#disconnect();
  }

  #disconnect(): string {
    const removed = this.#ledger.disconnectTip();
    const waiting = [...this.#mempool.entries()];
    for (const { txid } of waiting) this.#mempool.remove(txid);
    // A block's transactions come first: what waits may spend them. What is no longer valid is dropped.
    for (const { raw } of [...removed.transactions.slice(1), ...waiting]) this.#admit(raw);
    return removed.hash;
  }

  /** Waiting transactions hold the coins that they spend; after a block, some of those have a height. */
  #refreshMempoolCoins(): void {
    for (const entry of [...this.#mempool.entries()]) {
      if (entry.spent.every((coin) => coin.confirmedHeight > 0)) continue;
      const spent = entry.spent.map((coin) => this.#ledger.coins.get(outpoint(coin.txid, coin.vout)) ?? coin);
      this.#mempool.refresh(entry.txid, spent);
    }
  }
}
