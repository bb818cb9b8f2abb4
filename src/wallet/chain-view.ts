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

/** Inputs that are looked up; a proposal with more has inputs that the node does not know, and is rejected. */
const INPUTS_MAX = 1_000;

/**
 * Asks the node's own chain source about exactly the outputs that the proposal spends, however many others the wallet
 * has. Rejects with `Unavailable` when the source does not answer.
 */
export async function fetchChainView(proposed: ProposedTransaction, chain: ChainSource): Promise<ChainView> {
  const outpoints = proposed.inputs.slice(0, INPUTS_MAX).map(({ txid, vout }) => ({ txid, vout }));
  const [tipHeight, found] = await Promise.all([chain.tipHeight(), chain.findUnspent(outpoints)]);
  const outputs = new Map<string, SeenOutput>();
  for (const [index, outpoint] of outpoints.entries()) {
    const output = found[index];
    if (output !== undefined) outputs.set(outpointName(outpoint), output);
  }
  return { tipHeight, outputs };
}
