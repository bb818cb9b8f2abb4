import type { Account, KeyPath } from "./account.js";
import { pathText } from "./account.js";
import type { ChainSource } from "./chain-source.js";
import { outpointName, type ProposedTransaction } from "./proposed-transaction.js";

/** What one party has seen of the chain itself, as far as it bears on one transaction. */
export interface ChainView {
  readonly tipHeight: number;
  /** Unspent outputs by "txid:vout"; an output that is not here is spent, unknown, or not the wallet's. */
  readonly outputs: ReadonlyMap<string, SeenOutput>;
}

export interface SeenOutput {
  readonly valueSat: bigint;
  readonly scriptPubKey: Uint8Array;
  /** 0 while in the mempool. */
  readonly confirmedHeight: number;
}

/** Questions to the chain source at once. */
export const CHAIN_QUERIES_MAX = 8;

/** Runs the task over all items, at most `limit` at a time; results in the order of the items. */
export async function mapLimited<T, R>(
  items: readonly T[],
  limit: number,
  task: (item: T) => Promise<R>,
): Promise<R[]> {
  const results = new Map<number, R>();
  const queue = items.entries();
  const work = async (): Promise<void> => {
    for (const [index, item] of queue) results.set(index, await task(item));
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, work));
  return items.flatMap((_, index) => (results.has(index) ? [results.get(index) as R] : []));
}

/**
 * Asks the node's own chain source about every script that the proposal claims to spend. Scripts are derived here:
 * a claimed path only says where to look. Rejects with `Unavailable` when the source does not answer.
 */
export async function fetchChainView(
  proposed: ProposedTransaction,
  account: Account,
  chain: ChainSource,
): Promise<ChainView> {
  const paths = new Map<string, KeyPath>();
  for (const { claimedDerivation } of proposed.inputs) {
    if (claimedDerivation === undefined || claimedDerivation.path.index > 0x7fffffff) continue;
    paths.set(pathText(claimedDerivation.path), claimedDerivation.path);
  }
  const [tipHeight, found] = await Promise.all([
    chain.tipHeight(),
    mapLimited([...paths.values()], CHAIN_QUERIES_MAX, (path) =>
      chain.unspentOutputs(account.derive(path).scriptPubKey),
    ),
  ]);
  const outputs = found.flat().map((output): [string, SeenOutput] => [outpointName(output), output]);
  return { tipHeight, outputs: new Map(outputs) };
}
