/** sendrawtransaction's verdict, which Esplora's broadcast passes on word by word. */
import { type Chain, type RejectCode, refusalText } from "./chain.js";
import { decodeTransaction } from "./policy.js";

/** Bitcoin Core's default limit for sendrawtransaction: 0.10 BTC/kvB. */
export const MAX_FEE_RATE_SAT_PER_KVB = 10_000_000n;

export type Submission = { readonly txid: string } | { readonly code: RejectCode; readonly message: string };

const WORDS: Readonly<Record<string, string>> = {
  "txn-already-known": "Transaction outputs already in utxo set",
  "max-fee-exceeded": "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
};

/** Hands a transaction to the chain; one that already waits is a success, as in Bitcoin Core. */
export function submit(chain: Chain, raw: Uint8Array, maxFeeRateSatPerKvb = MAX_FEE_RATE_SAT_PER_KVB): Submission {
  const verdict = chain.accept(raw, { maxFeeRateSatPerKvb });
  if (verdict.accepted) return { txid: verdict.entry.txid };
  const waiting = verdict.reason === "txn-already-in-mempool" ? decodeTransaction(raw)?.getId() : undefined;
  if (waiting !== undefined) return { txid: waiting };
  return { code: verdict.code, message: WORDS[verdict.reason] ?? refusalText(verdict) };
}
