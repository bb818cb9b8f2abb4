/** Shapes that all chain sources share, checked where bytes enter, and the words for answers that break them. */
import { Transaction } from "bitcoinjs-lib";
import { z } from "zod";
import { InvalidInput, Unavailable } from "../../crypto/fault.js";

const MAX_MONEY_SAT = 2_100_000_000_000_000;
const MAX_TRANSACTION_BYTES = 4_000_000;
const MAX_SCRIPT_BYTES = 10_000;

export const txidShape = z.string().regex(/^[0-9a-f]{64}$/);
export const heightShape = z.number().int().min(0).max(0xffffffff);
export const voutShape = z.number().int().min(0).max(0xffffffff);
export const valueSatShape = z.number().int().min(0).max(MAX_MONEY_SAT).transform(BigInt);
export const rawTransactionShape = z
  .string()
  .max(2 * MAX_TRANSACTION_BYTES)
  .regex(/^([0-9a-f]{2})+$/)
  .transform((hex) => new Uint8Array(Buffer.from(hex, "hex")));

/** The source's answer is none that an honest, working source gives. */
export function malformed(source: string, what: string, cause?: unknown): Unavailable {
  return new Unavailable("chain-source-malformed", `${source}: ${what} is malformed`, { source, what }, cause);
}

/** Checks an answer against its shape. @throws Unavailable "chain-source-malformed" */
export function checked<Shape extends z.ZodType>(
  shape: Shape,
  value: unknown,
  { source, what }: { readonly source: string; readonly what: string },
): z.infer<Shape> {
  const parsed = shape.safeParse(value);
  if (!parsed.success) throw malformed(source, what, parsed.error);
  return parsed.data;
}

/** @throws InvalidInput "bad-txid" */
export function requireTxid(txid: string): string {
  if (!/^[0-9a-f]{64}$/.test(txid)) throw new InvalidInput("bad-txid", "a txid is 64 lower-case hex digits");
  return txid;
}

/** @throws InvalidInput "bad-script" */
export function requireScript(scriptPubKey: Uint8Array): Uint8Array {
  if (scriptPubKey.length === 0 || scriptPubKey.length > MAX_SCRIPT_BYTES) {
    throw new InvalidInput("bad-script", `a scriptPubKey has 1 to ${MAX_SCRIPT_BYTES} bytes`);
  }
  return scriptPubKey;
}

/** @throws InvalidInput "bad-target" */
export function requireTarget(targetBlocks: number): number {
  if (!Number.isInteger(targetBlocks) || targetBlocks < 1 || targetBlocks > 1_008) {
    throw new InvalidInput("bad-target", "a confirmation target is 1 to 1008 blocks");
  }
  return targetBlocks;
}

/** Decodes a transaction that we are about to send. @throws InvalidInput "bad-transaction" */
export function requireTransaction(raw: Uint8Array): Transaction {
  const transaction = decode(raw);
  if (transaction === undefined) throw new InvalidInput("bad-transaction", "the transaction does not decode");
  return transaction;
}

/** A transaction that a source sent, which must have the txid that was asked for. @throws Unavailable */
export function authentic(raw: Uint8Array, { source, txid }: { source: string; txid: string }): Transaction {
  const transaction = decode(raw);
  if (transaction?.getId() !== txid) throw malformed(source, "raw transaction");
  return transaction;
}

function decode(raw: Uint8Array): Transaction | undefined {
  if (raw.length > MAX_TRANSACTION_BYTES) return undefined;
  try {
    const transaction = Transaction.fromBuffer(raw);
    return transaction.ins.length === 0 || transaction.outs.length === 0 ? undefined : transaction;
  } catch {
    return undefined;
  }
}

/** Fee rates outside of this range are no estimates: 1 sat/kvB to 0.1 BTC/kvB. */
export const feeRateSatPerKvbShape = z.number().positive().max(10_000_000);

/** The refusal of a transaction in the source's words, cut to a bounded length. */
export function refused(source: string, code: number, reason: string): InvalidInput {
  const words = reason.replace(/[^\x20-\x7e]/g, "?").slice(0, 300);
  return new InvalidInput("transaction-refused", `${source} refuses the transaction: ${words}`, {
    source,
    reason: words,
    rpcCode: code,
  });
}
