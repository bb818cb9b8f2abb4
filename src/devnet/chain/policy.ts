/**
 * What a transaction must satisfy apart from its scripts: the context-free consensus rules and Bitcoin Core's
 * standardness policy, with Core's reject reasons. Stricter than Core in one point: bare multisig is not standard here.
 */
import { Transaction } from "bitcoinjs-lib";

export const COIN_SAT = 100_000_000n;
export const MAX_MONEY_SAT = 21_000_000n * COIN_SAT;
export const COINBASE_MATURITY_BLOCKS = 100;
export const MAX_STANDARD_WEIGHT = 400_000;
export const MIN_STANDARD_NONWITNESS_BYTES = 65;
export const MAX_OP_RETURN_SCRIPT_BYTES = 83;
export const MAX_STANDARD_SCRIPT_SIG_BYTES = 1_650;
export const MAX_STANDARD_P2WSH_SCRIPT_BYTES = 3_600;
export const MAX_STANDARD_P2WSH_STACK_ITEMS = 100;
export const MAX_STANDARD_P2WSH_ITEM_BYTES = 80;
export const MIN_RELAY_FEE_RATE_SAT_PER_KVB = 1_000n;
export const DUST_RELAY_FEE_RATE_SAT_PER_KVB = 3_000n;
/** Unconfirmed ancestors and descendants of a waiting transaction, itself included. */
export const MAX_MEMPOOL_CHAIN = 25;

const WITNESS_SCALE = 4;
const OP_RETURN = 0x6a;

/** Output types in Esplora's words. */
export type OutputType =
  | "empty"
  | "op_return"
  | "p2pk"
  | "p2pkh"
  | "p2sh"
  | "v0_p2wpkh"
  | "v0_p2wsh"
  | "v1_p2tr"
  | "witness_unknown"
  | "unknown";

/** Length and version of a witness program, or undefined when the script is none. */
function witnessProgram(script: Uint8Array): { version: number; length: number } | undefined {
  const [opcode, length] = script;
  if (opcode === undefined || length === undefined || script.length < 4 || script.length > 42) return undefined;
  if (length !== script.length - 2 || length < 2 || length > 40) return undefined;
  if (opcode === 0) return { version: 0, length };
  return opcode >= 0x51 && opcode <= 0x60 ? { version: opcode - 0x50, length } : undefined;
}

/** True when the bytes are data pushes only (opcodes up to OP_16) and every push is complete. */
export function isPushOnly(script: Uint8Array): boolean {
  return pushCount(script) !== undefined;
}

/** Number of pushes, or undefined when something else than a complete push is found. */
export function pushCount(script: Uint8Array): number | undefined {
  const view = new DataView(script.buffer, script.byteOffset, script.byteLength);
  let count = 0;
  for (let offset = 0; offset < script.length; count++) {
    const opcode = script[offset++] ?? 0;
    if (opcode > 0x60) return undefined;
    let length = opcode < 0x4c ? opcode : 0;
    if (opcode >= 0x4c && opcode <= 0x4e) {
      const width = 1 << (opcode - 0x4c);
      if (offset + width > script.length) return undefined;
      length =
        width === 1 ? view.getUint8(offset) : width === 2 ? view.getUint16(offset, true) : view.getUint32(offset, true);
      offset += width;
    }
    offset += length;
    if (offset > script.length) return undefined;
  }
  return count;
}

/** Classifies a scriptPubKey by its template. */
export function outputType(script: Uint8Array): OutputType {
  if (script.length === 0) return "empty";
  if (script[0] === OP_RETURN) return "op_return";
  const program = witnessProgram(script);
  if (program?.version === 0 && program.length === 20) return "v0_p2wpkh";
  if (program?.version === 0 && program.length === 32) return "v0_p2wsh";
  if (program?.version === 1 && program.length === 32) return "v1_p2tr";
  if (program !== undefined && program.version > 0) return "witness_unknown";
  const hex = Buffer.from(script).toString("hex");
  if (/^76a914[0-9a-f]{40}88ac$/.test(hex)) return "p2pkh";
  if (/^a914[0-9a-f]{40}87$/.test(hex)) return "p2sh";
  if (/^(21[0-9a-f]{66}|41[0-9a-f]{130})ac$/.test(hex)) return "p2pk";
  return "unknown";
}

/** True for outputs that nobody can ever spend; they never enter the UTXO set. */
export const isUnspendable = (script: Uint8Array): boolean => script[0] === OP_RETURN || script.length > 10_000;

/** Smallest standard value of an output: what spending it costs at the dust relay rate. 0 for OP_RETURN. */
export function dustThresholdSat(script: Uint8Array): bigint {
  if (isUnspendable(script)) return 0n;
  const outputBytes = 8 + (script.length < 253 ? 1 : 3) + script.length;
  // Core's GetDustThreshold: outpoint 36, sequence 4, length 1, and a signature and key that a witness discounts.
  const inputBytes = witnessProgram(script) === undefined ? 148 : 32 + 4 + 1 + Math.floor(107 / WITNESS_SCALE) + 4;
  return (BigInt(outputBytes + inputBytes) * DUST_RELAY_FEE_RATE_SAT_PER_KVB) / 1_000n;
}

/** Least fee that the mempool takes, rounded up to a whole satoshi. */
export const minRelayFeeSat = (vsizeVb: number): bigint =>
  (BigInt(vsizeVb) * MIN_RELAY_FEE_RATE_SAT_PER_KVB + 999n) / 1_000n;

/** Decodes a transaction in its one canonical serialisation; undefined for anything else. Never throws. */
export function decodeTransaction(raw: Uint8Array): Transaction | undefined {
  if (raw.length > MAX_STANDARD_WEIGHT * WITNESS_SCALE) return undefined;
  try {
    const transaction = Transaction.fromBuffer(raw);
    return Buffer.from(raw).equals(transaction.toBuffer()) ? transaction : undefined;
  } catch {
    return undefined;
  }
}

/** Consensus rules that need no chain (Core's CheckTransaction). Returns the reject reason. */
export function structureFault(transaction: Transaction): string | undefined {
  if (transaction.ins.length === 0) return "bad-txns-vin-empty";
  if (transaction.outs.length === 0) return "bad-txns-vout-empty";
  if (transaction.byteLength(false) * WITNESS_SCALE > 4_000_000) return "bad-txns-oversize";
  let totalSat = 0n;
  for (const { value } of transaction.outs) {
    if (value < 0n) return "bad-txns-vout-negative";
    if (value > MAX_MONEY_SAT) return "bad-txns-vout-toolarge";
    totalSat += value;
    if (totalSat > MAX_MONEY_SAT) return "bad-txns-txouttotal-toolarge";
  }
  const outpoints = new Set(transaction.ins.map(({ hash, index }) => `${Buffer.from(hash).toString("hex")}:${index}`));
  if (outpoints.size !== transaction.ins.length) return "bad-txns-inputs-duplicate";
  if (transaction.isCoinbase()) return "coinbase";
  const isNull = transaction.ins.some(({ hash, index }) => index === 0xffffffff && hash.every((byte) => byte === 0));
  return isNull ? "bad-txns-prevout-null" : undefined;
}

/** Relay policy that needs no chain (Core's IsStandardTx). Returns the reject reason. */
export function standardnessFault(transaction: Transaction): string | undefined {
  if (transaction.version < 1 || transaction.version > 3) return "version";
  if (transaction.weight() > MAX_STANDARD_WEIGHT) return "tx-size";
  if (transaction.byteLength(false) < MIN_STANDARD_NONWITNESS_BYTES) return "tx-size-small";
  for (const { script } of transaction.ins) {
    if (script.length > MAX_STANDARD_SCRIPT_SIG_BYTES) return "scriptsig-size";
    if (!isPushOnly(script)) return "scriptsig-not-pushonly";
  }
  let opReturns = 0;
  for (const { script, value } of transaction.outs) {
    const type = outputType(script);
    if (type === "op_return") {
      if (script.length > MAX_OP_RETURN_SCRIPT_BYTES || !isPushOnly(script.subarray(1))) return "scriptpubkey";
      if (++opReturns > 1) return "multi-op-return";
    } else if (type === "unknown" || type === "empty") {
      return "scriptpubkey";
    } else if (value < dustThresholdSat(script)) {
      return "dust";
    }
  }
  return undefined;
}

/** Relay policy on one input and the output that it spends (Core's AreInputsStandard, IsWitnessStandard). */
export function inputFault(input: Transaction["ins"][number], scriptPubKey: Uint8Array): string | undefined {
  const type = outputType(scriptPubKey);
  if (type === "unknown" || type === "witness_unknown") return "bad-txns-nonstandard-inputs";
  // Stands in for CLEANSTACK, which the interpreter cannot check: exactly a signature and a key.
  if (type === "p2pkh" && pushCount(input.script) !== 2) return "bad-txns-nonstandard-inputs";
  if (type === "v0_p2wsh") {
    const items = input.witness.slice(0, -1);
    const script = input.witness.at(-1);
    if (
      (script !== undefined && script.length > MAX_STANDARD_P2WSH_SCRIPT_BYTES) ||
      items.length > MAX_STANDARD_P2WSH_STACK_ITEMS ||
      items.some((item) => item.length > MAX_STANDARD_P2WSH_ITEM_BYTES)
    ) {
      return "bad-witness-nonstandard";
    }
  }
  const annexed = type === "v1_p2tr" && input.witness.length >= 2 && input.witness.at(-1)?.[0] === 0x50;
  return annexed ? "bad-witness-nonstandard" : undefined;
}
