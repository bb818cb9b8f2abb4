import { type Psbt, Psbt as PsbtCodec, Transaction } from "bitcoinjs-lib";
import { MONEY_MAX_SAT } from "../consensus/payment-request.js";
import { proposalDigest } from "../consensus/proposal.js";
import type { KeyPath } from "./account.js";

/**
 * A proposal's PSBT, decoded and nothing more: what the coordinator claims. The node's own check compares every claim
 * with what it knows itself (payment-check.ts).
 */

export const PSBT_MAX_BYTES = 131_072;
/** Inputs, and outputs; more could not be checked in reasonable time. One-byte counts. */
export const PARTS_MAX = 252;

/** A key's place and fingerprint as a PSBT names it. */
export interface ClaimedDerivation {
  readonly masterFingerprint: Uint8Array;
  readonly path: KeyPath;
}

export interface ProposedInput {
  /** As shown to people, hex. */
  readonly txid: string;
  readonly vout: number;
  readonly sequence: number;
  readonly claimedScript: Uint8Array;
  readonly claimedValueSat: bigint;
  readonly claimedDerivation: ClaimedDerivation | undefined;
}

export interface ProposedOutput {
  readonly script: Uint8Array;
  readonly valueSat: bigint;
  readonly claimedDerivation: ClaimedDerivation | undefined;
}

export interface ProposedTransaction {
  readonly transaction: Transaction;
  readonly txid: string;
  readonly inputs: readonly ProposedInput[];
  readonly outputs: readonly ProposedOutput[];
}

export const outpointName = ({ txid, vout }: { readonly txid: string; readonly vout: number }): string =>
  `${txid}:${vout}`;

function parsePath(path: string): KeyPath | undefined {
  const parts = /^m\/([01])\/(0|[1-9][0-9]{0,9})$/.exec(path);
  return parts === null ? undefined : { change: parts[1] === "1", index: Number(parts[2]) };
}

interface DerivationFields {
  readonly bip32Derivation?: readonly { masterFingerprint: Uint8Array; path: string }[];
  readonly tapBip32Derivation?: readonly { masterFingerprint: Uint8Array; path: string }[];
}

/** Exactly one derivation, two unhardened steps; anything else counts as none. */
function claimedDerivation(fields: DerivationFields): ClaimedDerivation | undefined {
  const claims = [...(fields.bip32Derivation ?? []), ...(fields.tapBip32Derivation ?? [])];
  const [claim] = claims;
  if (claim === undefined || claims.length !== 1) return undefined;
  const path = parsePath(claim.path);
  return path === undefined ? undefined : { masterFingerprint: claim.masterFingerprint, path };
}

/** A PSBT for signing carries no signature, no script of its own and no other sighash type than the default. */
function isUntouched(input: Psbt["data"]["inputs"][number]): boolean {
  return (
    (input.sighashType === undefined || input.sighashType === Transaction.SIGHASH_DEFAULT) &&
    input.partialSig === undefined &&
    input.tapKeySig === undefined &&
    input.tapScriptSig === undefined &&
    input.tapLeafScript === undefined &&
    input.tapMerkleRoot === undefined &&
    input.redeemScript === undefined &&
    input.witnessScript === undefined &&
    input.finalScriptSig === undefined &&
    input.finalScriptWitness === undefined
  );
}

/** Total: undefined for bytes that are no PSBT of this wallet's kind. Does not verify any claim. */
export function decodeProposedTransaction(psbtBytes: Uint8Array): ProposedTransaction | undefined {
  if (psbtBytes.length > PSBT_MAX_BYTES) return undefined;
  try {
    const psbt = PsbtCodec.fromBuffer(psbtBytes);
    const transaction = Transaction.fromBuffer(psbt.data.getTransaction());
    const { ins, outs } = transaction;
    if (ins.length === 0 || ins.length > PARTS_MAX || outs.length === 0 || outs.length > PARTS_MAX) return undefined;
    const inputs: ProposedInput[] = [];
    for (const [index, { hash, index: vout, sequence }] of ins.entries()) {
      const fields = psbt.data.inputs[index];
      if (fields?.witnessUtxo === undefined || !isUntouched(fields)) return undefined;
      inputs.push({
        txid: Buffer.from(hash).reverse().toString("hex"),
        vout,
        sequence,
        claimedScript: fields.witnessUtxo.script,
        claimedValueSat: BigInt(fields.witnessUtxo.value),
        claimedDerivation: claimedDerivation(fields),
      });
    }
    const outputs = outs.map(({ script, value }, index) => ({
      script,
      valueSat: BigInt(value),
      claimedDerivation: claimedDerivation(psbt.data.outputs[index] ?? {}),
    }));
    const money = [...inputs.map(({ claimedValueSat }) => claimedValueSat), ...outputs.map(({ valueSat }) => valueSat)];
    if (money.some((sat) => sat < 0n || sat > MONEY_MAX_SAT)) return undefined;
    return { transaction, txid: transaction.getId(), inputs, outputs };
  } catch {
    return undefined;
  }
}

/** Outputs that the inputs spend, in input order: own knowledge when signing, claims when only naming a proposal. */
export interface SpentOutput {
  readonly script: Uint8Array;
  readonly valueSat: bigint;
}

const SIGHASH_ALL = Transaction.SIGHASH_ALL;

/** The digest that the signature of each input is over: BIP341 with SIGHASH_DEFAULT, or BIP143 with SIGHASH_ALL. */
export function sighashBytes(transaction: Transaction, spent: readonly SpentOutput[]): readonly Uint8Array[] {
  const scripts = spent.map(({ script }) => script);
  const values = spent.map(({ valueSat }) => valueSat);
  return spent.map(({ script, valueSat }, index) => {
    if (script[0] === 0x51) {
      return transaction.hashForWitnessV1(index, scripts, values, Transaction.SIGHASH_DEFAULT);
    }
    // BIP143: the script code of P2WPKH is the P2PKH script of the same hash.
    const scriptCode = Uint8Array.from([0x76, 0xa9, 0x14, ...script.subarray(2, 22), 0x88, 0xac]);
    return transaction.hashForWitnessV0(index, scriptCode, valueSat, SIGHASH_ALL);
  });
}

/**
 * The digest that ballots on this proposal are over, computed from the proposal's claims. A coordinator names its
 * proposal with it, and a node its rejection. An approving node finds the same only if every claim was true.
 */
export function claimedProposalDigest(
  proposed: ProposedTransaction,
  facts: {
    readonly walletId: string;
    readonly requestDigest: Uint8Array;
    readonly policyVersion: bigint;
    readonly expiresAtMs: bigint;
  },
): Uint8Array {
  const spent = proposed.inputs.map(({ claimedScript, claimedValueSat }) => ({
    script: claimedScript,
    valueSat: claimedValueSat,
  }));
  return proposalDigest({
    ...facts,
    unsignedTransaction: proposed.transaction.toBuffer(),
    sighashes: sighashBytes(proposed.transaction, spent),
  });
}
