import type { Clock } from "../crypto/ambient.js";
import { type Account, type KeyPath, pathText } from "./account.js";
import type { ChainSource } from "./chain-source.js";
import { CHAIN_QUERIES_MAX, mapLimited } from "./chain-view.js";
import { outpointName } from "./proposed-transaction.js";
import type { OwnOutput } from "./transaction-builder.js";

/**
 * The unspent outputs of a wallet. A full scan asks about every address up to the next index and a gap beyond it; a
 * quick one only about addresses that hold money and the newest ones. Answers are remembered for a moment, so that
 * a payment does not have to wait for a scan.
 */

export interface UtxoIndexOptions {
  /** Unused addresses beyond the highest used index that are scanned too; BIP44 says 20. */
  readonly gapLimit: number;
  /** A quick scan is good for this long. */
  readonly maxAgeMs: number;
  /** A full scan is due after this long. */
  readonly fullScanEveryMs: number;
}

export interface UtxoIndexDependencies {
  readonly chain: ChainSource;
  readonly clock: Clock;
  /** The next unused index of a branch. */
  readonly nextIndex: (walletId: string, change: boolean) => Promise<number>;
}

export interface WalletSnapshot {
  readonly tipHeight: number;
  readonly outputs: readonly OwnOutput[];
}

interface WalletEntry {
  /** By path text: what each script holds. */
  readonly scripts: Map<string, { readonly path: KeyPath; readonly outputs: readonly OwnOutput[] }>;
  /** "txid:vout" that a broadcast transaction spends, until the chain source agrees. */
  readonly spent: Set<string>;
  tipHeight: number;
  scannedAtMs: number;
  fullScanAtMs: number;
  running: Promise<void> | undefined;
}

const NEVER = Number.NEGATIVE_INFINITY;

export class UtxoIndex {
  readonly #options: UtxoIndexOptions;
  readonly #parts: UtxoIndexDependencies;
  readonly #wallets = new Map<string, WalletEntry>();

  constructor(options: UtxoIndexOptions, dependencies: UtxoIndexDependencies) {
    this.#options = options;
    this.#parts = dependencies;
  }

  /** What the wallet holds, not older than `maxAgeMs`; with `fresh`, asked now. Rejects with `Unavailable`. */
  async snapshot(account: Account, options: { readonly fresh?: boolean } = {}): Promise<WalletSnapshot> {
    const entry = this.#entry(account.walletId);
    const ageMs = this.#parts.clock.monotonicMs() - entry.scannedAtMs;
    if (options.fresh === true || ageMs > this.#options.maxAgeMs) await this.#scan(account, entry);
    const outputs = [...entry.scripts.values()].flatMap((script) => script.outputs);
    return {
      tipHeight: entry.tipHeight,
      outputs: outputs.filter((output) => !entry.spent.has(outpointName(output))),
    };
  }

  /** A transaction that spends these was broadcast: they are gone before the chain source says so. */
  markSpent(walletId: string, outpoints: readonly string[]): void {
    const { spent } = this.#entry(walletId);
    for (const outpoint of outpoints) spent.add(outpoint);
  }

  #entry(walletId: string): WalletEntry {
    const known = this.#wallets.get(walletId);
    if (known !== undefined) return known;
    const entry: WalletEntry = {
      scripts: new Map(),
      spent: new Set(),
      tipHeight: 0,
      scannedAtMs: NEVER,
      fullScanAtMs: NEVER,
      running: undefined,
    };
    this.#wallets.set(walletId, entry);
    return entry;
  }

  /** Callers that come while a scan runs share it. */
  #scan(account: Account, entry: WalletEntry): Promise<void> {
    entry.running ??= this.#runScan(account, entry).finally(() => {
      entry.running = undefined;
    });
    return entry.running;
  }

  async #runScan(account: Account, entry: WalletEntry): Promise<void> {
    const { chain, clock } = this.#parts;
    const startedAtMs = clock.monotonicMs();
    const full = startedAtMs - entry.fullScanAtMs >= this.#options.fullScanEveryMs;
    const paths = await this.#paths(account.walletId, entry, full);
    const [tipHeight, found] = await Promise.all([
      chain.tipHeight(),
      mapLimited(paths, CHAIN_QUERIES_MAX, async (path) => ({
        path,
        outputs: await chain.unspentOutputs(account.derive(path).scriptPubKey),
      })),
    ]);
    for (const { path, outputs } of found) {
      if (outputs.length === 0) entry.scripts.delete(pathText(path));
      else {
        const own = outputs.map(({ txid, vout, valueSat, confirmedHeight }) => {
          return { txid, vout, valueSat, confirmedHeight, path };
        });
        entry.scripts.set(pathText(path), { path, outputs: own });
      }
    }
    // A mark is needed only while the chain source still lists the output.
    const listed = new Set([...entry.scripts.values()].flatMap(({ outputs }) => outputs.map(outpointName)));
    for (const outpoint of entry.spent) if (!listed.has(outpoint)) entry.spent.delete(outpoint);
    entry.tipHeight = tipHeight;
    entry.scannedAtMs = startedAtMs;
    if (full) entry.fullScanAtMs = startedAtMs;
  }

  async #paths(walletId: string, entry: WalletEntry, full: boolean): Promise<KeyPath[]> {
    const paths = new Map<string, KeyPath>();
    for (const { path } of full ? [] : entry.scripts.values()) paths.set(pathText(path), path);
    for (const change of [false, true]) {
      const next = await this.#parts.nextIndex(walletId, change);
      const first = full ? 0 : Math.max(0, next - this.#options.gapLimit);
      for (let index = first; index < next + this.#options.gapLimit; index++) {
        paths.set(pathText({ change, index }), { change, index });
      }
    }
    return [...paths.values()];
  }
}
