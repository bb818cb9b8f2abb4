import { secp256k1 } from "@noble/curves/secp256k1.js";
import { RawTx, Transaction as SecondTransaction, SigHash } from "@scure/btc-signer";
import * as libsecp256k1 from "tiny-secp256k1";
import { Bug, InvalidInput } from "../crypto/fault.js";
import type { ProposedTransaction } from "./proposed-transaction.js";
import { compactSizeBytes, transactionWeight } from "./transaction-size.js";

/**
 * Puts signatures into a transaction. Every signature is verified here over a sighash that a second, independent
 * library computed (@scure/btc-signer; nodes compute theirs through bitcoinjs-lib), under the key that the spent
 * output itself commits to, by libsecp256k1, as the network does: what leaves is what it will accept.
 */

export interface FinalTransaction {
  readonly txid: string;
  readonly bytes: Uint8Array;
  readonly weight: number;
  readonly virtualSizeVb: number;
}

export interface InputKey {
  /** SEC1 compressed, 33 bytes; part of a P2WPKH witness, unused for Taproot. */
  readonly publicKey: Uint8Array;
}

const SCHNORR_BYTES = 64;
const DER_MAX_BYTES = 72;

/** The sighash of one input as the second library computes it. */
function secondSighash(second: SecondTransaction, proposed: ProposedTransaction, index: number): Uint8Array {
  const input = proposed.inputs[index];
  if (input === undefined) throw new Bug("input out of range");
  const script = input.claimedScript;
  if (script[0] === 0x51) {
    const scripts = proposed.inputs.map(({ claimedScript }) => claimedScript);
    const amounts = proposed.inputs.map(({ claimedValueSat }) => claimedValueSat);
    return second.preimageWitnessV1(index, scripts, SigHash.DEFAULT, amounts);
  }
  const scriptCode = Uint8Array.from([0x76, 0xa9, 0x14, ...script.subarray(2, 22), 0x88, 0xac]);
  return second.preimageWitnessV0(index, scriptCode, SigHash.ALL, input.claimedValueSat);
}

function verifySchnorr(signature: Uint8Array, message: Uint8Array, outputKey: Uint8Array): boolean {
  try {
    return signature.length === SCHNORR_BYTES && libsecp256k1.verifySchnorr(message, outputKey, signature);
  } catch {
    return false;
  }
}

/** ECDSA over a sighash: strict DER with low s and the byte for SIGHASH_ALL, as relay policy demands. Total. */
export function verifyEcdsa(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length > DER_MAX_BYTES || signature.at(-1) !== SigHash.ALL) return false;
  try {
    // The library takes no DER: noble reads it strictly.
    const compact = secp256k1.Signature.fromBytes(signature.subarray(0, -1), "der").toBytes("compact");
    return libsecp256k1.verify(message, publicKey, compact, true);
  } catch {
    return false;
  }
}

function witnessOf(
  input: {
    readonly index: number;
    readonly script: Uint8Array;
    readonly signature: Uint8Array;
    readonly key: InputKey;
  },
  message: Uint8Array,
): Uint8Array[] {
  const taproot = input.script[0] === 0x51;
  const holds = taproot
    ? verifySchnorr(input.signature, message, input.script.subarray(2))
    : verifyEcdsa(input.signature, message, input.key.publicKey);
  if (!holds) throw new InvalidInput("signature-invalid", "a signature does not hold", { input: input.index });
  return taproot ? [input.signature] : [input.signature, input.key.publicKey];
}

/**
 * @param proposed decoded from the proposal and left as it is; amounts are claims. A false one cannot get past the
 *   nodes, and would fail here.
 * @param signatures one for each input in input order: BIP340 64 bytes, or DER with the sighash byte
 * @param keys of the inputs, in input order
 *
 * Throws `InvalidInput` "signature-count-differs" or "signature-invalid" with the number of the input.
 */
export function finalizeTransaction(
  proposed: ProposedTransaction,
  signatures: readonly Uint8Array[],
  keys: readonly InputKey[],
): FinalTransaction {
  const count = proposed.inputs.length;
  if (signatures.length !== count || keys.length !== count) {
    throw new InvalidInput("signature-count-differs", "one signature for each input", { inputs: count });
  }
  const transaction = proposed.transaction.clone();
  const second = SecondTransaction.fromRaw(transaction.toBuffer(), { allowUnknownOutputs: true });
  for (const [index, { claimedScript: script }] of proposed.inputs.entries()) {
    const [signature, key] = [signatures[index], keys[index]];
    if (signature === undefined || key === undefined) throw new Bug("counts were compared");
    const message = secondSighash(second, proposed, index);
    transaction.setWitness(index, witnessOf({ index, script, signature, key }, message));
  }
  return extract(transaction, proposed);
}

function extract(transaction: ProposedTransaction["transaction"], proposed: ProposedTransaction): FinalTransaction {
  const bytes = transaction.toBuffer();
  const weight = transaction.weight();
  const estimate = transactionWeight({
    inputTypes: proposed.inputs.map(({ claimedScript }) => (claimedScript[0] === 0x51 ? "p2tr" : "p2wpkh")),
    outputScriptBytes: proposed.outputs.map(({ script }) => script.length),
  });
  // A larger transaction than estimated would pay a lower fee rate than was voted on.
  if (weight > estimate) throw new Bug("the transaction is larger than estimated", { weight, estimate });
  const read = RawTx.decode(bytes);
  if (read.inputs.length !== proposed.inputs.length || compactSizeBytes(read.outputs.length) > 3) {
    throw new Bug("the second library reads another transaction");
  }
  if (transaction.getId() !== proposed.txid) throw new Bug("signatures changed the transaction id");
  return { txid: proposed.txid, bytes, weight, virtualSizeVb: Math.ceil(weight / 4) };
}
