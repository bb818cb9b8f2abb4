import type { AddressType } from "../consensus/policy.js";

/**
 * Sizes of a transaction before it is signed, in weight units (BIP141: four to a virtual byte). Exact for Taproot key
 * path spends; for P2WPKH the largest possible, at most two weight units an input too large, because the length of a
 * DER signature is known only when it exists.
 */

export type InputType = "p2tr" | "p2wpkh";

// Outpoint 36, empty scriptSig 1, sequence 4.
const INPUT_BASE_BYTES = 41;
// Witness: count of items, then each item with its length.
const WITNESS_BYTES: Readonly<Record<InputType, number>> = {
  p2tr: 1 + 1 + 64,
  // Low-s DER signature of at most 71 bytes with its sighash byte, and the public key.
  p2wpkh: 1 + 1 + 72 + 1 + 33,
};

export const SCRIPT_BYTES: Readonly<Record<AddressType, number>> = {
  p2pkh: 25,
  p2sh: 23,
  p2wpkh: 22,
  p2wsh: 34,
  p2tr: 34,
};

export function compactSizeBytes(value: number): number {
  if (value < 0xfd) return 1;
  return value <= 0xffff ? 3 : 5;
}

export function inputWeight(type: InputType): number {
  return 4 * INPUT_BASE_BYTES + WITNESS_BYTES[type];
}

/** An output with a script of this many bytes. */
export function outputWeight(scriptBytes: number): number {
  return 4 * (8 + compactSizeBytes(scriptBytes) + scriptBytes);
}

/** Version, counts, locktime, marker and flag; every input is a witness input. */
export function overheadWeight(counts: { readonly inputs: number; readonly outputs: number }): number {
  return 4 * (4 + compactSizeBytes(counts.inputs) + compactSizeBytes(counts.outputs) + 4) + 2;
}

export function transactionWeight(shape: {
  readonly inputTypes: readonly InputType[];
  readonly outputScriptBytes: readonly number[];
}): number {
  const inputs = shape.inputTypes.reduce((sum, type) => sum + inputWeight(type), 0);
  const outputs = shape.outputScriptBytes.reduce((sum, bytes) => sum + outputWeight(bytes), 0);
  const counts = { inputs: shape.inputTypes.length, outputs: shape.outputScriptBytes.length };
  return overheadWeight(counts) + inputs + outputs;
}

export function virtualBytes(weight: number): number {
  return Math.ceil(weight / 4);
}

/** Smallest fee in whole satoshi that reaches the rate for a transaction of this weight. */
export function feeSat(weight: number, feeRateSatPerKvb: bigint): bigint {
  return (BigInt(virtualBytes(weight)) * feeRateSatPerKvb + 999n) / 1000n;
}
