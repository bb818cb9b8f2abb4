/** The confirmed part of the chain: blocks, the coins that they leave, and what is needed to undo the last one. */
import { Block } from "bitcoinjs-lib";
import { Bug, InvalidInput } from "../../crypto/fault.js";
import { GENESIS_HASH, genesisBlock, REGTEST_BITS, subsidySat } from "./block.js";
import { type Coin, CoinSet, outpoint, ScriptHistory } from "./coins.js";
import { type SpendingTransaction, scriptsOf } from "./mempool.js";
import { COINBASE_MATURITY_BLOCKS, decodeTransaction, isUnspendable } from "./policy.js";

/** A transaction in a block. */
export interface ConfirmedTransaction extends SpendingTransaction {
  readonly height: number;
}

/** A connected block. */
export interface ConnectedBlock {
  readonly hash: string;
  readonly height: number;
  readonly block: Block;
  readonly transactions: readonly ConfirmedTransaction[];
  readonly sizeBytes: number;
  readonly weight: number;
  /** Median time of this block and its ten predecessors (BIP 113). */
  readonly medianTimeS: number;
}

/** Transaction id as shown to people of an input's previous transaction. */
export const shownTxid = (hash: Uint8Array): string => Buffer.from(hash).reverse().toString("hex");

export class Ledger {
  readonly #blocks: ConnectedBlock[] = [];
  readonly #byHash = new Map<string, ConnectedBlock>();
  readonly #transactions = new Map<string, ConfirmedTransaction>();
  readonly #spenders = new Map<string, string>();
  readonly coins = new CoinSet();
  readonly history = new ScriptHistory();

  constructor() {
    const block = genesisBlock();
    const sizeBytes = block.byteLength();
    const genesis = { block, hash: GENESIS_HASH, height: 0, transactions: [], sizeBytes, weight: block.weight() };
    this.#push({ ...genesis, medianTimeS: block.timestamp });
  }

  #push(connected: ConnectedBlock): void {
    this.#blocks.push(connected);
    this.#byHash.set(connected.hash, connected);
  }

  get tip(): ConnectedBlock {
    const tip = this.#blocks.at(-1);
    if (tip === undefined) throw new Bug("a chain has a genesis block");
    return tip;
  }

  byHash(hash: string): ConnectedBlock | undefined {
    return this.#byHash.get(hash);
  }

  byHeight(height: number): ConnectedBlock | undefined {
    return this.#blocks[height];
  }

  transaction(txid: string): ConfirmedTransaction | undefined {
    return this.#transactions.get(txid);
  }

  /** The confirmed transaction that spends an output. */
  spender(key: string): string | undefined {
    return this.#spenders.get(key);
  }

  /**
   * Connects a block: proof of work, link, roots, every input unspent and mature, the coinbase's reward. Scripts are not
   * judged here: the transactions of a block were in the mempool, or they come from this process's own journal.
   *
   * @throws InvalidInput "bad-block" when a rule is broken; nothing has changed then
   */
  connect(block: Block): ConnectedBlock {
    const height = this.tip.height + 1;
    const refuse = (rule: string): never => {
      throw new InvalidInput("bad-block", `block at height ${height}: ${rule}`, { height, rule });
    };
    if (block.bits !== REGTEST_BITS || !block.checkProofOfWork()) refuse("high-hash");
    if (block.prevHash === undefined || shownTxid(block.prevHash) !== this.tip.hash) refuse("prev-blk-not-found");
    if (block.timestamp <= this.tip.medianTimeS) refuse("time-too-old");
    if (block.transactions?.[0]?.isCoinbase() !== true) refuse("bad-cb-missing");
    if (!block.checkTxRoots()) refuse("bad-txnmrklroot");

    const created = new Map<string, Coin>();
    const spentHere = new Set<string>();
    const spend = (key: string): Coin => {
      const coin = created.get(key) ?? this.coins.get(key);
      if (coin === undefined || spentHere.has(key)) return refuse("bad-txns-inputs-missingorspent");
      if (coin.coinbase && height - coin.confirmedHeight < COINBASE_MATURITY_BLOCKS) {
        return refuse("bad-txns-premature-spend-of-coinbase");
      }
      spentHere.add(key);
      return coin;
    };
    const transactions = (block.transactions ?? []).map((transaction, index): ConfirmedTransaction => {
      const txid = transaction.getId();
      const coinbase = index === 0;
      const spent = coinbase
        ? []
        : transaction.ins.map(({ hash, index: vout }) => spend(outpoint(shownTxid(hash), vout)));
      for (const [vout, { script, value }] of transaction.outs.entries()) {
        const coin = { txid, vout, valueSat: value, scriptPubKey: script, confirmedHeight: height, coinbase };
        if (!isUnspendable(script)) created.set(outpoint(txid, vout), coin);
      }
      const outSat = transaction.outs.reduce((sum, { value }) => sum + value, 0n);
      const feeSat = coinbase ? 0n : spent.reduce((sum, coin) => sum + coin.valueSat, -outSat);
      if (feeSat < 0n) refuse("bad-txns-in-belowout");
      return {
        txid,
        transaction,
        raw: transaction.toBuffer(),
        spent,
        feeSat,
        vsizeVb: transaction.virtualSize(),
        height,
      };
    });
    const rewardSat = block.transactions?.[0]?.outs.reduce((sum, { value }) => sum + value, 0n) ?? 0n;
    const feesSat = transactions.reduce((sum, { feeSat }) => sum + feeSat, 0n);
    if (rewardSat > subsidySat(height) + feesSat) refuse("bad-cb-amount");

    for (const [key, coin] of created) if (!spentHere.has(key)) this.coins.add(coin);
    for (const key of spentHere) this.coins.remove(key);
    for (const entry of transactions) this.#index(entry);
    const times = [...this.#blocks.slice(-10).map((earlier) => earlier.block.timestamp), block.timestamp];
    const medianTimeS = times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? block.timestamp;
    const sizes = { sizeBytes: block.byteLength(), weight: block.weight() };
    const connected = { hash: block.getId(), height, block, transactions, ...sizes, medianTimeS };
    this.#push(connected);
    return connected;
  }

  #index(entry: ConfirmedTransaction): void {
    this.#transactions.set(entry.txid, entry);
    for (const coin of entry.spent) this.#spenders.set(outpoint(coin.txid, coin.vout), entry.txid);
    this.history.add(entry.txid, scriptsOf(entry));
  }

  /** Takes the last block off; its coins and those that it spent are as before it. Genesis stays. */
  disconnectTip(): ConnectedBlock {
    const tip = this.tip;
    if (tip.height === 0) throw new InvalidInput("genesis-stays", "the genesis block cannot be invalidated");
    this.#blocks.pop();
    this.#byHash.delete(tip.hash);
    for (const entry of tip.transactions.toReversed()) {
      this.#transactions.delete(entry.txid);
      this.history.remove(entry.txid, scriptsOf(entry));
      for (const vout of entry.transaction.outs.keys()) this.coins.remove(outpoint(entry.txid, vout));
      for (const coin of entry.spent) {
        const key = outpoint(coin.txid, coin.vout);
        this.#spenders.delete(key);
        if (this.#transactions.has(coin.txid)) this.coins.add(coin);
      }
    }
    return tip;
  }
}

/** Reads a serialised block. @throws InvalidInput "bad-block" */
export function decodeBlock(raw: Uint8Array): Block {
  try {
    const block = Block.fromBuffer(raw);
    if (block.transactions?.every((transaction) => decodeTransaction(transaction.toBuffer()) !== undefined))
      return block;
  } catch {
    // reported below
  }
  throw new InvalidInput("bad-block", "block does not decode", { rule: "undecodable", bytes: raw.length });
}
