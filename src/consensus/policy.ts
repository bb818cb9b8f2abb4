import { MONEY_MAX_SAT } from "./payment-request.js";

/**
 * The payment policy: what a node approves, whoever asks. Versioned, because ballots are cast under a version; each
 * node is configured with its own copy and checks every payment itself.
 */

export type AddressType = "p2pkh" | "p2sh" | "p2wpkh" | "p2wsh" | "p2tr";

export interface PaymentPolicy {
  readonly version: bigint;
  /** Sum of a payment's recipients. */
  readonly maxPaymentSat: bigint;
  /** Rolling 24 hours, this payment included; undefined for no limit. */
  readonly maxDailySat: bigint | undefined;
  /** Number of payments in rolling 24 hours, this one included; undefined for no limit. */
  readonly maxDailyPayments: number | undefined;
  readonly minFeeRateSatPerKvb: bigint;
  readonly maxFeeRateSatPerKvb: bigint;
  readonly maxFeeSat: bigint;
  /**
   * Fee in thousandths of the amount paid. A small payment may pay `feeShareFloorSat` whatever its share is, because
   * the fee of a transaction does not shrink with its amount.
   */
  readonly maxFeeSharePermille: number;
  readonly feeShareFloorSat: bigint;
  readonly addressTypes: ReadonlySet<AddressType>;
  /** Only these addresses are paid; undefined for any. */
  readonly allowList: ReadonlySet<string> | undefined;
  readonly maxInputs: number;
  /** Recipients, change and OP_RETURN together. */
  readonly maxOutputs: number;
  /** "with-metadata": present exactly when the request has metadata. */
  readonly opReturn: OpReturnRule;
  /** Confirmations that an input needs; 0 allows unconfirmed ones. */
  readonly minConfirmations: number;
}

export type OpReturnRule = "never" | "with-metadata" | "always";

export const DEFAULT_POLICY: PaymentPolicy = {
  version: 1n,
  maxPaymentSat: MONEY_MAX_SAT,
  maxDailySat: undefined,
  maxDailyPayments: undefined,
  minFeeRateSatPerKvb: 1_000n,
  maxFeeRateSatPerKvb: 1_000_000n,
  maxFeeSat: 10_000_000n,
  maxFeeSharePermille: 100,
  feeShareFloorSat: 20_000n,
  addressTypes: new Set<AddressType>(["p2pkh", "p2sh", "p2wpkh", "p2wsh", "p2tr"]),
  allowList: undefined,
  maxInputs: 100,
  maxOutputs: 22,
  opReturn: "with-metadata",
  minConfirmations: 1,
};

/** Bitcoin Core's default relay policy: 3 sat/vB for output and later spend, by output type. */
export const DUST_SAT: Readonly<Record<AddressType, bigint>> = {
  p2pkh: 546n,
  p2sh: 540n,
  p2wpkh: 294n,
  p2wsh: 330n,
  p2tr: 330n,
};

/** Largest entry of the table, and the size of a Taproot output: what change may at most cost without being worth it. */
export const DUST_MAX_SAT = 546n;
export const CHANGE_OUTPUT_MAX_VB = 43n;

export type PolicyReason =
  | "amount-above-limit"
  | "daily-amount-above-limit"
  | "daily-payments-above-limit"
  | "fee-rate-too-low"
  | "fee-rate-too-high"
  | "fee-rate-above-request"
  | "fee-too-high"
  | "fee-share-too-high"
  | "address-type-forbidden"
  | "address-not-allowed"
  | "output-below-dust"
  | "change-below-dust"
  | "too-many-inputs"
  | "too-many-outputs"
  | "op-return-forbidden"
  | "op-return-missing"
  | "input-unconfirmed";

/** A payment as the checking node decoded it; money that it computed itself. */
export interface PaymentFacts {
  readonly recipients: readonly {
    readonly address: string;
    readonly addressType: AddressType | undefined;
    readonly amountSat: bigint;
  }[];
  /** Undefined without change. */
  readonly change: { readonly addressType: AddressType; readonly amountSat: bigint } | undefined;
  readonly hasOpReturn: boolean;
  readonly hasMetadata: boolean;
  readonly feeSat: bigint;
  /** Size when signed; the estimate is exact for Taproot and at most one byte an input too large for P2WPKH. */
  readonly virtualSizeVb: number;
  readonly requestedMaxFeeRateSatPerKvb: bigint;
  readonly inputs: readonly { readonly confirmations: number }[];
}

/** What the node approved in the last 24 hours, without this payment. */
export interface Spent {
  readonly amountSat: bigint;
  readonly payments: number;
}

export function wantsOpReturn(rule: OpReturnRule, metadataJson: string): boolean {
  return rule === "always" || (rule === "with-metadata" && metadataJson !== "");
}

function* feeReasons(policy: PaymentPolicy, facts: PaymentFacts, paidSat: bigint): Generator<PolicyReason> {
  const size = BigInt(facts.virtualSizeVb);
  const scaledFee = facts.feeSat * 1000n;
  if (scaledFee < policy.minFeeRateSatPerKvb * size) yield "fee-rate-too-low";
  // A fee is whole satoshi: the smallest fee that reaches a rate may exceed the rate by less than one satoshi.
  const exceeds = (rate: bigint) => scaledFee > rate * size + 999n;
  if (exceeds(policy.maxFeeRateSatPerKvb)) yield "fee-rate-too-high";
  // Change that is not worth an output goes to the fee: less than dust and the output's own cost, and no more.
  const requested = facts.requestedMaxFeeRateSatPerKvb;
  const dropped = facts.change === undefined ? DUST_MAX_SAT * 1000n + requested * CHANGE_OUTPUT_MAX_VB : 0n;
  if (scaledFee > requested * size + 999n + dropped) yield "fee-rate-above-request";
  if (facts.feeSat > policy.maxFeeSat) yield "fee-too-high";
  const share = facts.feeSat * 1000n > paidSat * BigInt(policy.maxFeeSharePermille);
  if (share && facts.feeSat > policy.feeShareFloorSat) yield "fee-share-too-high";
}

function* outputReasons(policy: PaymentPolicy, facts: PaymentFacts): Generator<PolicyReason> {
  for (const { address, addressType, amountSat } of facts.recipients) {
    if (addressType === undefined || !policy.addressTypes.has(addressType)) yield "address-type-forbidden";
    else if (amountSat < DUST_SAT[addressType]) yield "output-below-dust";
    if (policy.allowList !== undefined && !policy.allowList.has(address)) yield "address-not-allowed";
  }
  if (facts.change !== undefined && facts.change.amountSat < DUST_SAT[facts.change.addressType]) {
    yield "change-below-dust";
  }
  const outputs = facts.recipients.length + (facts.change === undefined ? 0 : 1) + (facts.hasOpReturn ? 1 : 0);
  if (outputs > policy.maxOutputs) yield "too-many-outputs";
  const wanted = policy.opReturn === "always" || (policy.opReturn === "with-metadata" && facts.hasMetadata);
  if (facts.hasOpReturn && !wanted) yield "op-return-forbidden";
  if (!facts.hasOpReturn && wanted) yield "op-return-missing";
}

function* reasons(policy: PaymentPolicy, facts: PaymentFacts, spent: Spent): Generator<PolicyReason> {
  const paidSat = facts.recipients.reduce((sum, { amountSat }) => sum + amountSat, 0n);
  if (paidSat > policy.maxPaymentSat) yield "amount-above-limit";
  if (policy.maxDailySat !== undefined && spent.amountSat + paidSat > policy.maxDailySat) {
    yield "daily-amount-above-limit";
  }
  if (policy.maxDailyPayments !== undefined && spent.payments + 1 > policy.maxDailyPayments) {
    yield "daily-payments-above-limit";
  }
  yield* feeReasons(policy, facts, paidSat);
  yield* outputReasons(policy, facts);
  if (facts.inputs.length > policy.maxInputs) yield "too-many-inputs";
  if (facts.inputs.some(({ confirmations }) => confirmations < policy.minConfirmations)) yield "input-unconfirmed";
}

/** @returns every reason against the payment, each once; empty when the policy allows it */
export function checkPolicy(policy: PaymentPolicy, facts: PaymentFacts, spent: Spent): readonly PolicyReason[] {
  return [...new Set(reasons(policy, facts, spent))];
}
