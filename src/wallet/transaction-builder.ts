import { Psbt, Transaction } from "bitcoinjs-lib";
import type { RequestedOutput } from "../consensus/payment-request.js";
import { DUST_SAT } from "../consensus/policy.js";
import type { Random } from "../crypto/ambient.js";
import { Bug, InvalidInput } from "../crypto/fault.js";
import type { Account, DerivedKey, KeyPath } from "./account.js";
import { pathText } from "./account.js";
import { requireAddressScript, scriptType } from "./address.js";
import { type Algorithm, selectCoins } from "./coin-selection.js";
import { networkParameters } from "./network.js";
import { markScript } from "./op-return.js";
import { randomBelow, shuffled } from "./random-choice.js";
import { SCRIPT_BYTES, transactionWeight, virtualBytes } from "./transaction-size.js";

/** Builds the unsigned transaction of a payment as a PSBT (BIP174, with the Taproot fields of BIP371). */

/** One of the wallet's own unspent outputs. */
export interface OwnOutput {
  readonly txid: string;
  readonly vout: number;
  readonly valueSat: bigint;
  readonly path: KeyPath;
  /** 0 while in the mempool. */
  readonly confirmedHeight: number;
}

export interface TransactionOrder {
  readonly account: Account;
  /** At least one. */
  readonly recipients: readonly RequestedOutput[];
  /** The 80 bytes of op-return.ts, or undefined. */
  readonly mark: Uint8Array | undefined;
  readonly coins: readonly OwnOutput[];
  readonly feeRateSatPerKvb: bigint;
  readonly longTermFeeRateSatPerKvb: bigint;
  readonly maxInputs: number;
  /** Where change goes; must be on the change branch. */
  readonly changeIndex: number;
  readonly tipHeight: number;
}

export interface BuiltTransaction {
  readonly psbt: Uint8Array;
  /** Final already: SegWit signatures do not change it. */
  readonly txid: string;
  readonly inputs: readonly OwnOutput[];
  readonly feeSat: bigint;
  /** 0 without change. */
  readonly changeSat: bigint;
  /** When signed; exact for Taproot, an upper bound for P2WPKH. */
  readonly weight: number;
  readonly virtualSizeVb: number;
  readonly algorithm: Algorithm;
}

/** BIP125: the payment may be replaced by a higher fee; also lets the locktime count. */
export const SEQUENCE_REPLACEABLE = 0xfffffffd;
export const TRANSACTION_VERSION = 2;
/** How far back the locktime sometimes goes, so that payments delayed for good reasons do not stand out. */
const LOCKTIME_BACK_BLOCKS = 100;

interface PlannedOutput {
  readonly script: Uint8Array;
  readonly valueSat: bigint;
  readonly own: DerivedKey | undefined;
}

function recipientOutputs(order: TransactionOrder): PlannedOutput[] {
  if (order.recipients.length === 0) throw new InvalidInput("recipients-missing", "a payment needs a recipient");
  return order.recipients.map(({ address, amountSat }, index) => {
    const facts = { index, amountSat };
    if (amountSat < 0n) throw new InvalidInput("amount-negative", "an amount cannot be negative", facts);
    if (amountSat === 0n) throw new InvalidInput("amount-zero", "an amount cannot be zero", facts);
    const script = requireAddressScript(address, order.account.network);
    const type = scriptType(script);
    const dustSat = type === undefined ? 0n : DUST_SAT[type];
    if (amountSat < dustSat) {
      throw new InvalidInput("amount-below-dust", "the network does not relay so small an output", {
        ...facts,
        dustSat,
      });
    }
    return { script, valueSat: amountSat, own: undefined };
  });
}

/**
 * Anti-fee-sniping: valid only in the next block, so that a miner gains nothing by mining the last one again. One
 * time in ten up to a hundred blocks earlier, as Bitcoin Core and others do.
 */
function locktimeFor(tipHeight: number, random: Random): number {
  const back = randomBelow(random, 10) === 0 ? randomBelow(random, LOCKTIME_BACK_BLOCKS) : 0;
  return Math.max(0, tipHeight - back);
}

/** What a signer's device, or any PSBT reader, needs to find the key below the group's root. */
function derivationFields(account: Account, key: DerivedKey) {
  const masterFingerprint = account.fingerprint;
  const path = `m/${pathText(key.path)}`;
  if (key.taproot === undefined) {
    return { bip32Derivation: [{ masterFingerprint, path, pubkey: key.publicKey }] };
  }
  const { internalKey } = key.taproot;
  return {
    tapInternalKey: internalKey,
    tapBip32Derivation: [{ masterFingerprint, path, pubkey: internalKey, leafHashes: [] }],
  };
}

function toPsbt(
  order: TransactionOrder,
  parts: {
    readonly inputs: readonly OwnOutput[];
    readonly outputs: readonly PlannedOutput[];
    readonly locktime: number;
  },
): Psbt {
  const psbt = new Psbt({ network: networkParameters(order.account.network) });
  psbt.setVersion(TRANSACTION_VERSION);
  psbt.setLocktime(parts.locktime);
  for (const { txid, vout, valueSat, path } of parts.inputs) {
    const key = order.account.derive(path);
    psbt.addInput({
      hash: txid,
      index: vout,
      sequence: SEQUENCE_REPLACEABLE,
      witnessUtxo: { script: key.scriptPubKey, value: valueSat },
      ...derivationFields(order.account, key),
    });
  }
  for (const { script, valueSat, own } of parts.outputs) {
    psbt.addOutput({ script, value: valueSat, ...(own === undefined ? {} : derivationFields(order.account, own)) });
  }
  return psbt;
}

/** The transaction inside a PSBT, without signatures. */
export function unsignedTransaction(psbt: Psbt): Transaction {
  return Transaction.fromBuffer(psbt.data.getTransaction());
}

/**
 * Chooses coins, makes change and orders inputs and outputs at random. Deterministic for the same `random`.
 *
 * Throws `InvalidInput`: "recipients-missing", "amount-zero", "amount-negative", "amount-below-dust",
 * "address-invalid", "address-other-network", "insufficient-funds", "too-many-inputs-needed".
 */
export function buildTransaction(order: TransactionOrder, random: Random): BuiltTransaction {
  const outputs = recipientOutputs(order);
  if (order.mark !== undefined) outputs.push({ script: markScript(order.mark), valueSat: 0n, own: undefined });
  const { account } = order;
  const inputType = account.scriptType;
  const selection = selectCoins(
    order.coins.map((coin) => ({ ...coin, inputType })),
    {
      targetSat: outputs.reduce((sum, { valueSat }) => sum + valueSat, 0n),
      outputScriptBytes: outputs.map(({ script }) => script.length),
      changeScriptBytes: SCRIPT_BYTES[inputType],
      changeInputType: inputType,
      dustSat: DUST_SAT[inputType],
      feeRateSatPerKvb: order.feeRateSatPerKvb,
      longTermFeeRateSatPerKvb: order.longTermFeeRateSatPerKvb,
      maxInputs: order.maxInputs,
    },
    random,
  );
  if (selection.changeSat > 0n) {
    const own = account.derive({ change: true, index: order.changeIndex });
    outputs.push({ script: own.scriptPubKey, valueSat: selection.changeSat, own });
  }
  const inputs = shuffled(selection.inputs, random);
  const psbt = toPsbt(order, {
    inputs,
    outputs: shuffled(outputs, random),
    locktime: locktimeFor(order.tipHeight, random),
  });
  const weight = transactionWeight({
    inputTypes: inputs.map(() => inputType),
    outputScriptBytes: outputs.map(({ script }) => script.length),
  });
  const spentSat = inputs.reduce((sum, { valueSat }) => sum + valueSat, 0n);
  const paidSat = outputs.reduce((sum, { valueSat }) => sum + valueSat, 0n);
  if (spentSat - paidSat !== selection.feeSat) throw new Bug("the fee is not what was selected");
  return {
    psbt: psbt.toBuffer(),
    txid: unsignedTransaction(psbt).getId(),
    inputs,
    feeSat: selection.feeSat,
    changeSat: selection.changeSat,
    weight,
    virtualSizeVb: virtualBytes(weight),
    algorithm: selection.algorithm,
  };
}
