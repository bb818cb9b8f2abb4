import type { VerifiedPaymentRequest } from "../consensus/payment-request.js";
import { checkPolicy, type PaymentPolicy, type PolicyReason, type Spent } from "../consensus/policy.js";
import { proposalDigest } from "../consensus/proposal.js";
import { equalBytes } from "../crypto/bytes.js";
import { Bug } from "../crypto/fault.js";
import type { Account, DerivedKey } from "./account.js";
import { addressScript, scriptType } from "./address.js";
import type { ChainView, SeenOutput } from "./chain-view.js";
import { isOpReturn, marksRequest, readMarkScript } from "./op-return.js";
import {
  type ClaimedDerivation,
  decodeProposedTransaction,
  outpointName,
  type ProposedInput,
  type ProposedOutput,
  type ProposedTransaction,
  sighashBytes,
} from "./proposed-transaction.js";
import { SEQUENCE_REPLACEABLE, TRANSACTION_VERSION } from "./transaction-builder.js";
import { transactionWeight, virtualBytes } from "./transaction-size.js";

/**
 * A node's own check of a proposed payment: the first third of the invariant that a coordinator is trusted for
 * liveness only. The node decodes the transaction itself, derives every own script itself, takes amounts from its own
 * view of the chain, compares outputs with what the client signed, and computes every sighash itself.
 *
 * Only what passed becomes a `CheckedPayment` with `Sighash`es, and nothing else makes one: code that signs takes a
 * `Sighash`, so a bare 32-byte digest cannot be signed.
 */

export type CheckReason =
  | "psbt-malformed"
  | "wallet-differs"
  | "version-unexpected"
  | "locktime-unexpected"
  | "sequence-unexpected"
  | "input-repeated"
  | "input-derivation-missing"
  | "input-not-own"
  | "input-script-differs"
  | "input-spent-or-unknown"
  | "input-amount-differs"
  | "recipient-missing"
  | "output-unexpected"
  | "change-not-own"
  | "change-repeated"
  | "change-index-beyond-gap"
  | "op-return-repeated"
  | "op-return-malformed"
  | "op-return-of-other-request"
  | "op-return-carries-money"
  | "fee-negative"
  | PolicyReason;

/** All of it is the node's own knowledge but `psbt`. */
export interface CheckFacts {
  readonly account: Account;
  readonly request: VerifiedPaymentRequest;
  readonly psbt: Uint8Array;
  readonly view: ChainView;
  readonly policy: PaymentPolicy;
  /** Of the proposal; becomes part of what is voted on. */
  readonly expiresAtMs: bigint;
  /** What this node approved in the last day, without this request. */
  readonly spent: Spent;
  /** Highest change index that the wallet may use now, so that a scan with the gap limit finds it again. */
  readonly changeIndexMax: number;
}

export type CheckVerdict =
  | { readonly approved: true; readonly payment: CheckedPayment }
  | { readonly approved: false; readonly reasons: readonly CheckReason[] };

/** Held by this module alone: without it the two classes below cannot be constructed, not even through a prototype. */
const ISSUER = Symbol("payment-check");

/** The digest that one input's signature is over. Only this module makes one, from a payment that it checked. */
class Sighash {
  readonly #bytes: Uint8Array;
  readonly inputIndex: number;
  /** Key to sign with; its tweak is added to the shares. */
  readonly key: DerivedKey;

  constructor(issuer: typeof ISSUER, facts: { bytes: Uint8Array; inputIndex: number; key: DerivedKey }) {
    if (issuer !== ISSUER) throw new Bug("only a checked payment has sighashes");
    this.#bytes = Uint8Array.from(facts.bytes);
    this.inputIndex = facts.inputIndex;
    this.key = facts.key;
  }

  /** A copy of the 32 bytes. */
  get bytes(): Uint8Array {
    return this.#bytes.slice();
  }

  static is(value: unknown): value is Sighash {
    return typeof value === "object" && value !== null && #bytes in value;
  }
}

interface CheckedFacts {
  readonly walletId: string;
  readonly requestId: string;
  readonly txid: string;
  readonly proposalDigest: Uint8Array;
  readonly sighashes: readonly Sighash[];
  /** "txid:vout" of every input. */
  readonly outpoints: readonly string[];
  readonly amountSat: bigint;
  readonly feeSat: bigint;
  /** -1 without change. */
  readonly changeIndex: number;
  readonly virtualSizeVb: number;
  readonly unsignedTransaction: Uint8Array;
}

/** A payment that this node checked and may approve and sign. Frozen; only `checkPayment` makes one. */
class CheckedPayment {
  readonly #facts: CheckedFacts;

  constructor(issuer: typeof ISSUER, facts: CheckedFacts) {
    if (issuer !== ISSUER) throw new Bug("only a check makes a checked payment");
    this.#facts = facts;
  }

  static is(value: unknown): value is CheckedPayment {
    return typeof value === "object" && value !== null && #facts in value;
  }

  get walletId(): string {
    return this.#facts.walletId;
  }
  get requestId(): string {
    return this.#facts.requestId;
  }
  /** As shown to people, hex; the signatures do not change it. */
  get txid(): string {
    return this.#facts.txid;
  }
  /** What ballots are over, 32 bytes. */
  get proposalDigest(): Uint8Array {
    return this.#facts.proposalDigest.slice();
  }
  /** One for each input, in input order. */
  get sighashes(): readonly Sighash[] {
    return [...this.#facts.sighashes];
  }
  get outpoints(): readonly string[] {
    return [...this.#facts.outpoints];
  }
  get amountSat(): bigint {
    return this.#facts.amountSat;
  }
  get feeSat(): bigint {
    return this.#facts.feeSat;
  }
  get changeIndex(): number {
    return this.#facts.changeIndex;
  }
  get virtualSizeVb(): number {
    return this.#facts.virtualSizeVb;
  }
  get unsignedTransaction(): Uint8Array {
    return this.#facts.unsignedTransaction.slice();
  }
}

export type { CheckedPayment, Sighash };

/** True only for what this module made; a cast does not help. */
export const isSighash = (value: unknown): value is Sighash => Sighash.is(value);
export const isCheckedPayment = (value: unknown): value is CheckedPayment => CheckedPayment.is(value);

/** One input as the node knows it. */
interface KnownInput {
  readonly key: DerivedKey;
  readonly seen: SeenOutput;
}

/** The key at the claimed place, when the claim is about this wallet's root. */
function claimedKey(account: Account, claim: ClaimedDerivation): DerivedKey | undefined {
  if (claim.path.index > 0x7fffffff || !equalBytes(claim.masterFingerprint, account.fingerprint)) return undefined;
  return account.derive(claim.path);
}

function checkInput(input: ProposedInput, facts: CheckFacts, reasons: Set<CheckReason>): KnownInput | undefined {
  if (input.sequence !== SEQUENCE_REPLACEABLE) reasons.add("sequence-unexpected");
  if (input.claimedDerivation === undefined) {
    reasons.add("input-derivation-missing");
    return undefined;
  }
  const key = claimedKey(facts.account, input.claimedDerivation);
  if (key === undefined) {
    reasons.add("input-not-own");
    return undefined;
  }
  if (!equalBytes(key.scriptPubKey, input.claimedScript)) reasons.add("input-script-differs");
  const seen = facts.view.outputs.get(outpointName(input));
  if (seen === undefined) {
    reasons.add("input-spent-or-unknown");
    return undefined;
  }
  if (!equalBytes(seen.scriptPubKey, key.scriptPubKey)) {
    reasons.add("input-not-own");
    return undefined;
  }
  if (seen.valueSat !== input.claimedValueSat) reasons.add("input-amount-differs");
  return { key, seen };
}

function checkInputs(proposed: ProposedTransaction, facts: CheckFacts, reasons: Set<CheckReason>): KnownInput[] {
  const names = new Set(proposed.inputs.map(outpointName));
  if (names.size !== proposed.inputs.length) reasons.add("input-repeated");
  return proposed.inputs.flatMap((input) => checkInput(input, facts, reasons) ?? []);
}

function checkForm(proposed: ProposedTransaction, facts: CheckFacts, reasons: Set<CheckReason>): void {
  const { version, locktime } = proposed.transaction;
  if (version !== TRANSACTION_VERSION) reasons.add("version-unexpected");
  // Chain sources may differ by a block; a locktime further ahead would let the coordinator hold a signed payment back.
  if (locktime > facts.view.tipHeight + 1) reasons.add("locktime-unexpected");
}

interface SortedOutputs {
  readonly change: { readonly output: ProposedOutput; readonly key: DerivedKey } | undefined;
  readonly hasOpReturn: boolean;
}

function checkMark(output: ProposedOutput, facts: CheckFacts, reasons: Set<CheckReason>): void {
  const mark = readMarkScript(output.script);
  if (output.valueSat !== 0n) reasons.add("op-return-carries-money");
  if (mark === undefined) reasons.add("op-return-malformed");
  else if (!marksRequest(mark, facts.request)) reasons.add("op-return-of-other-request");
}

function checkChange(output: ProposedOutput, facts: CheckFacts, reasons: Set<CheckReason>): DerivedKey | undefined {
  if (output.claimedDerivation === undefined) {
    reasons.add("output-unexpected");
    return undefined;
  }
  const { path } = output.claimedDerivation;
  const key = claimedKey(facts.account, output.claimedDerivation);
  if (!path.change || key === undefined || !equalBytes(key.scriptPubKey, output.script)) {
    reasons.add("change-not-own");
    return undefined;
  }
  if (path.index > facts.changeIndexMax) reasons.add("change-index-beyond-gap");
  return key;
}

/** Every recipient exactly once, at most one OP_RETURN, at most one change output, and nothing else. */
function checkOutputs(proposed: ProposedTransaction, facts: CheckFacts, reasons: Set<CheckReason>): SortedOutputs {
  const wanted = facts.request.recipients.map(({ address, amountSat }) => ({
    script: addressScript(address, facts.account.network),
    amountSat,
  }));
  let change: SortedOutputs["change"];
  let marks = 0;
  for (const output of proposed.outputs) {
    const place = wanted.findIndex(
      ({ script, amountSat }) =>
        script !== undefined && amountSat === output.valueSat && equalBytes(script, output.script),
    );
    if (place >= 0) {
      wanted.splice(place, 1);
    } else if (isOpReturn(output.script)) {
      marks += 1;
      checkMark(output, facts, reasons);
    } else {
      const key = checkChange(output, facts, reasons);
      if (key !== undefined && change !== undefined) reasons.add("change-repeated");
      if (key !== undefined) change = { output, key };
    }
  }
  if (wanted.length > 0) reasons.add("recipient-missing");
  if (marks > 1) reasons.add("op-return-repeated");
  return { change, hasOpReturn: marks > 0 };
}

function policyReasons(
  proposed: ProposedTransaction,
  parts: {
    readonly facts: CheckFacts;
    readonly known: readonly KnownInput[];
    readonly outputs: SortedOutputs;
    readonly feeSat: bigint;
  },
): readonly PolicyReason[] {
  const { facts, known, outputs, feeSat } = parts;
  const { account, request, view } = facts;
  const weight = transactionWeight({
    inputTypes: known.map(() => account.scriptType),
    outputScriptBytes: proposed.outputs.map(({ script }) => script.length),
  });
  const payment = {
    recipients: request.recipients.map(({ address, amountSat }) => {
      const script = addressScript(address, account.network);
      return { address, amountSat, addressType: script === undefined ? undefined : scriptType(script) };
    }),
    change:
      outputs.change === undefined
        ? undefined
        : { addressType: account.scriptType, amountSat: outputs.change.output.valueSat },
    hasOpReturn: outputs.hasOpReturn,
    hasMetadata: request.metadataJson !== "",
    feeSat,
    virtualSizeVb: virtualBytes(weight),
    requestedMaxFeeRateSatPerKvb: request.maxFeeRateSatPerKvb,
    inputs: known.map(({ seen }) => ({
      confirmations: seen.confirmedHeight === 0 ? 0 : view.tipHeight - seen.confirmedHeight + 1,
    })),
  };
  return checkPolicy(facts.policy, payment, facts.spent);
}

function approve(
  proposed: ProposedTransaction,
  parts: {
    readonly facts: CheckFacts;
    readonly known: readonly KnownInput[];
    readonly outputs: SortedOutputs;
    readonly feeSat: bigint;
  },
): CheckedPayment {
  const { facts, known, outputs, feeSat } = parts;
  const spentOutputs = known.map(({ seen }) => ({ script: seen.scriptPubKey, valueSat: seen.valueSat }));
  const digests = sighashBytes(proposed.transaction, spentOutputs);
  const sighashes = known.flatMap(({ key }, index) => {
    const bytes = digests[index];
    return bytes === undefined ? [] : [new Sighash(ISSUER, { bytes, inputIndex: index, key })];
  });
  if (sighashes.length !== proposed.inputs.length) throw new Bug("an input without a sighash was approved");
  const unsignedTransaction = proposed.transaction.toBuffer();
  const weight = transactionWeight({
    inputTypes: known.map(() => facts.account.scriptType),
    outputScriptBytes: proposed.outputs.map(({ script }) => script.length),
  });
  return new CheckedPayment(ISSUER, {
    walletId: facts.account.walletId,
    requestId: facts.request.requestId,
    txid: proposed.txid,
    proposalDigest: proposalDigest({
      walletId: facts.account.walletId,
      requestDigest: facts.request.digest,
      unsignedTransaction,
      sighashes: digests,
      policyVersion: facts.policy.version,
      expiresAtMs: facts.expiresAtMs,
    }),
    sighashes,
    outpoints: proposed.inputs.map(outpointName),
    amountSat: facts.request.recipients.reduce((sum, { amountSat }) => sum + amountSat, 0n),
    feeSat,
    changeIndex: outputs.change?.key.path.index ?? -1,
    virtualSizeVb: virtualBytes(weight),
    unsignedTransaction,
  });
}

/**
 * The verdict on one proposal: a `CheckedPayment`, or every reason that was found. Total for any PSBT bytes.
 * The policy is judged only when all inputs are known, because fee and confirmations mean nothing before.
 */
export function checkPayment(facts: CheckFacts): CheckVerdict {
  const proposed = decodeProposedTransaction(facts.psbt);
  if (proposed === undefined) return { approved: false, reasons: ["psbt-malformed"] };
  const reasons = new Set<CheckReason>();
  if (facts.request.walletId !== facts.account.walletId) reasons.add("wallet-differs");
  checkForm(proposed, facts, reasons);
  const known = checkInputs(proposed, facts, reasons);
  const outputs = checkOutputs(proposed, facts, reasons);
  const spentSat = known.reduce((sum, { seen }) => sum + seen.valueSat, 0n);
  const feeSat = spentSat - proposed.outputs.reduce((sum, { valueSat }) => sum + valueSat, 0n);
  const parts = { facts, known, outputs, feeSat };
  if (known.length === proposed.inputs.length) {
    if (feeSat < 0n) reasons.add("fee-negative");
    else for (const reason of policyReasons(proposed, parts)) reasons.add(reason);
  }
  if (reasons.size > 0) return { approved: false, reasons: [...reasons] };
  return { approved: true, payment: approve(proposed, parts) };
}
