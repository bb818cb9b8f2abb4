/** Transactions that wait for a block, in an order in which parents come before their children. */
import type { Transaction } from "bitcoinjs-lib";
import { type Coin, CoinSet, outpoint, ScriptHistory } from "./coins.js";
import { isUnspendable } from "./policy.js";

/** A transaction with what it spends. */
export interface SpendingTransaction {
  readonly txid: string;
  readonly transaction: Transaction;
  readonly raw: Uint8Array;
  /** What the inputs spend, in their order; empty for a coinbase. */
  readonly spent: readonly Coin[];
  readonly feeSat: bigint;
  readonly vsizeVb: number;
}

/** Scripts that a transaction pays and spends from. */
export function scriptsOf(entry: SpendingTransaction): Uint8Array[] {
  return [...entry.transaction.outs.map(({ script }) => script), ...entry.spent.map((coin) => coin.scriptPubKey)];
}

/** A waiting transaction. */
export interface MempoolEntry extends SpendingTransaction {
  readonly enteredS: number;
}

export class Mempool {
  readonly #entries = new Map<string, MempoolEntry>();
  readonly #spenders = new Map<string, string>();
  /** Outputs of waiting transactions, those that a waiting transaction spends included. */
  readonly coins = new CoinSet();
  readonly history = new ScriptHistory();

  get size(): number {
    return this.#entries.size;
  }

  entries(): Iterable<MempoolEntry> {
    return this.#entries.values();
  }

  get(txid: string): MempoolEntry | undefined {
    return this.#entries.get(txid);
  }

  /** The waiting transaction that spends an output. */
  spender(key: string): string | undefined {
    return this.#spenders.get(key);
  }

  add(entry: MempoolEntry): void {
    this.#entries.set(entry.txid, entry);
    this.history.add(entry.txid, scriptsOf(entry));
    for (const coin of entry.spent) this.#spenders.set(outpoint(coin.txid, coin.vout), entry.txid);
    for (const [vout, { script, value }] of entry.transaction.outs.entries()) {
      if (isUnspendable(script)) continue;
      this.coins.add({
        txid: entry.txid,
        vout,
        valueSat: value,
        scriptPubKey: script,
        confirmedHeight: 0,
        coinbase: false,
      });
    }
  }

  /** Replaces what a waiting transaction is known to spend, keeping its place in the order. */
  refresh(txid: string, spent: readonly Coin[]): void {
    const entry = this.#entries.get(txid);
    if (entry !== undefined) this.#entries.set(txid, { ...entry, spent });
  }

  remove(txid: string): MempoolEntry | undefined {
    const entry = this.#entries.get(txid);
    if (entry === undefined) return undefined;
    this.#entries.delete(txid);
    this.history.remove(txid, scriptsOf(entry));
    for (const coin of entry.spent) this.#spenders.delete(outpoint(coin.txid, coin.vout));
    for (const vout of entry.transaction.outs.keys()) this.coins.remove(outpoint(txid, vout));
    return entry;
  }

  /** Waiting transactions that a set of coins comes from, directly or through others. */
  ancestors(spent: readonly Coin[]): ReadonlySet<string> {
    const found = new Set<string>();
    const pending = spent.map((coin) => coin.txid);
    for (let txid = pending.pop(); txid !== undefined; txid = pending.pop()) {
      const entry = this.#entries.get(txid);
      if (entry === undefined || found.has(txid)) continue;
      found.add(txid);
      pending.push(...entry.spent.map((coin) => coin.txid));
    }
    return found;
  }

  /** The given waiting transactions and all that spend from them, directly or through others. */
  withDescendants(txids: Iterable<string>): ReadonlySet<string> {
    const found = new Set<string>();
    const pending = [...txids];
    for (let txid = pending.pop(); txid !== undefined; txid = pending.pop()) {
      const entry = this.#entries.get(txid);
      if (entry === undefined || found.has(txid)) continue;
      found.add(txid);
      for (const vout of entry.transaction.outs.keys()) {
        const child = this.#spenders.get(outpoint(txid, vout));
        if (child !== undefined) pending.push(child);
      }
    }
    return found;
  }
}
