import { createHash } from "node:crypto";
import { Transaction } from "bitcoinjs-lib";
import { InvalidInput } from "../../src/crypto/fault.js";
import type {
  ChainSource,
  FoundOutput,
  Outpoint,
  TransactionStatus,
  UnspentOutput,
} from "../../src/wallet/chain-source.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** A chain in memory: outputs by script, transactions that spend them, blocks on demand. Validates double spends only. */
export class SampleChain implements ChainSource {
  readonly outputs = new Map<string, UnspentOutput>();
  readonly transactions = new Map<string, { readonly bytes: Uint8Array; height: number }>();
  height = 200;
  feeRate = 2_000;
  queries = 0;
  /** Rejects the next broadcasts with this. */
  broadcastError: Error | undefined;

  fund(scriptPubKey: Uint8Array, valueSat: bigint, confirmedHeight = 100): UnspentOutput {
    const txid = createHash("sha256").update(`funding ${this.outputs.size}`).digest("hex");
    const output = { txid, vout: 0, valueSat, scriptPubKey, confirmedHeight };
    this.outputs.set(`${txid}:0`, output);
    return output;
  }

  mine(): void {
    this.height += 1;
    for (const transaction of this.transactions.values())
      if (transaction.height === 0) transaction.height = this.height;
    for (const [name, output] of this.outputs) {
      if (output.confirmedHeight === 0) this.outputs.set(name, { ...output, confirmedHeight: this.height });
    }
  }

  async tipHeight(): Promise<number> {
    return this.height;
  }
  async unspentOutputs(scriptPubKey: Uint8Array): Promise<readonly UnspentOutput[]> {
    this.queries += 1;
    return [...this.outputs.values()].filter((output) => hex(output.scriptPubKey) === hex(scriptPubKey));
  }
  async findUnspent(outpoints: readonly Outpoint[]): Promise<readonly (FoundOutput | undefined)[]> {
    this.queries += 1;
    return outpoints.map(({ txid, vout }) => this.outputs.get(`${txid}:${vout}`));
  }
  async transactionStatus(txid: string): Promise<TransactionStatus> {
    const found = this.transactions.get(txid);
    return { known: found !== undefined, confirmedHeight: found?.height ?? 0, blockHash: "" };
  }
  async transaction(txid: string): Promise<Uint8Array | undefined> {
    return this.transactions.get(txid)?.bytes;
  }
  async feeRateSatPerKvb(): Promise<number> {
    return this.feeRate;
  }
  async broadcast(bytes: Uint8Array): Promise<string> {
    if (this.broadcastError !== undefined) throw this.broadcastError;
    const transaction = Transaction.fromBuffer(bytes);
    const txid = transaction.getId();
    if (this.transactions.has(txid)) return txid;
    const spent = transaction.ins.map(({ hash, index }) => `${Buffer.from(hash).reverse().toString("hex")}:${index}`);
    if (spent.some((name) => !this.outputs.has(name))) throw new InvalidInput("inputs-missing", "already spent");
    for (const name of spent) this.outputs.delete(name);
    for (const [vout, { script, value }] of transaction.outs.entries()) {
      const output = { txid, vout, valueSat: value, scriptPubKey: script, confirmedHeight: 0 };
      this.outputs.set(`${txid}:${vout}`, output);
    }
    this.transactions.set(txid, { bytes, height: 0 });
    return txid;
  }
}
