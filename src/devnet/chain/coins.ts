/** Outputs, by outpoint and by script. */
import { createHash } from "node:crypto";
import type { SpentOutput } from "./script-check.js";

/** An output that exists. */
export interface Coin extends SpentOutput {
  readonly txid: string;
  readonly vout: number;
  /** 0 while in the mempool. */
  readonly confirmedHeight: number;
  readonly coinbase: boolean;
}

/** Key of an output: `txid:vout`. */
export const outpoint = (txid: string, vout: number): string => `${txid}:${vout}`;

/** Esplora's script hash: SHA-256 of the scriptPubKey, hex, not reversed (Electrum reverses it). */
export const scriptHash = (scriptPubKey: Uint8Array): string => createHash("sha256").update(scriptPubKey).digest("hex");

/** A set of coins that finds the coins of one script without a scan. */
export class CoinSet {
  readonly #byOutpoint = new Map<string, Coin>();
  readonly #byScript = new Map<string, Map<string, Coin>>();

  get(key: string): Coin | undefined {
    return this.#byOutpoint.get(key);
  }

  /** The coins of a script in the order in which they came. */
  *ofScript(hash: string): Iterable<Coin> {
    yield* this.#byScript.get(hash)?.values() ?? [];
  }

  add(coin: Coin): void {
    const key = outpoint(coin.txid, coin.vout);
    const hash = scriptHash(coin.scriptPubKey);
    const ofScript = this.#byScript.get(hash) ?? new Map<string, Coin>();
    this.#byScript.set(hash, ofScript.set(key, coin));
    this.#byOutpoint.set(key, coin);
  }

  /** Returns the coin that was removed, if there was one. */
  remove(key: string): Coin | undefined {
    const coin = this.#byOutpoint.get(key);
    if (coin === undefined) return undefined;
    this.#byOutpoint.delete(key);
    const hash = scriptHash(coin.scriptPubKey);
    const ofScript = this.#byScript.get(hash);
    ofScript?.delete(key);
    if (ofScript?.size === 0) this.#byScript.delete(hash);
    return coin;
  }
}

/** Which transactions touch a script, by paying it or by spending from it. */
export class ScriptHistory {
  readonly #txids = new Map<string, Set<string>>();

  ofScript(hash: string): ReadonlySet<string> {
    return this.#txids.get(hash) ?? new Set();
  }

  add(txid: string, scripts: Iterable<Uint8Array>): void {
    for (const script of scripts) {
      const hash = scriptHash(script);
      const txids = this.#txids.get(hash) ?? new Set<string>();
      this.#txids.set(hash, txids.add(txid));
    }
  }

  remove(txid: string, scripts: Iterable<Uint8Array>): void {
    for (const script of scripts) {
      const hash = scriptHash(script);
      const txids = this.#txids.get(hash);
      txids?.delete(txid);
      if (txids?.size === 0) this.#txids.delete(hash);
    }
  }
}
