import assert from "node:assert/strict";
import type { SignedPaymentRequest } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import {
  type RequestedOutput,
  type RequestRules,
  signPaymentRequest,
  type VerifiedPaymentRequest,
  verifyPaymentRequest,
} from "../../src/consensus/payment-request.js";
import { DEFAULT_POLICY, type PaymentPolicy } from "../../src/consensus/policy.js";
import type { Account } from "../../src/wallet/account.js";
import type { ChainView } from "../../src/wallet/chain-view.js";
import { encodeMark } from "../../src/wallet/op-return.js";
import type { CheckFacts } from "../../src/wallet/payment-check.js";
import { outpointName } from "../../src/wallet/proposed-transaction.js";
import { type BuiltTransaction, buildTransaction, type OwnOutput } from "../../src/wallet/transaction-builder.js";
import { sampleNode, verifySample } from "../consensus/electorate.js";
import { sampleAccount, sampleCoins, seededRandom } from "./sample-wallet.js";

/** One payment from request to proposal, with everything a node needs to check it. */

export const NOW_MS = 1_800_000_000_000;
export const TIP_HEIGHT = 200;
export const REQUEST_ID = "0b1e8d0a-6f0d-4f6e-9d1c-3b5d2a1c4e7f";
export const AUTHORITY = sampleNode("authority");
export const RULES: RequestRules = {
  authorities: new Map([["treasury", AUTHORITY.publicKey]]),
  nowMs: NOW_MS,
  maxWindowMs: 3_600_000,
  clockSkewMs: 5_000,
};
/** A P2WPKH and a P2TR address of regtest that are not the wallet's. */
export const OUTSIDE = sampleAccount("cggmp24", "regtest", "elsewhere").derive({ change: false, index: 1_000 }).address;
export const OUTSIDE_TAPROOT = sampleAccount("frost", "regtest", "elsewhere").derive({
  change: false,
  index: 1_001,
}).address;

export interface RequestChanges {
  readonly requestId?: string;
  readonly walletId?: string;
  readonly recipients?: readonly RequestedOutput[];
  readonly maxFeeRateSatPerKvb?: bigint;
  readonly metadataJson?: string;
  readonly createdAtMs?: bigint;
  readonly expiresAtMs?: bigint;
}

export function signedRequest(changes: RequestChanges = {}, authority = "treasury"): SignedPaymentRequest {
  return signPaymentRequest(
    {
      requestId: REQUEST_ID,
      walletId: "wallet-1",
      recipients: [{ address: OUTSIDE, amountSat: 150_000n }],
      maxFeeRateSatPerKvb: 10_000n,
      metadataJson: "",
      createdAtMs: BigInt(NOW_MS - 1_000),
      expiresAtMs: BigInt(NOW_MS + 600_000),
      ...changes,
    },
    { authority, sign: AUTHORITY.sign },
  );
}

export function verifiedRequest(changes: RequestChanges = {}): VerifiedPaymentRequest {
  const verdict = verifyPaymentRequest(signedRequest(changes), RULES, verifySample);
  assert.ok(verdict.valid, verdict.valid ? "" : verdict.refusal.code);
  return verdict.request;
}

/** What a node sees when all the coins are unspent. */
export function viewOf(account: Account, coins: readonly OwnOutput[], tipHeight = TIP_HEIGHT): ChainView {
  const outputs = coins.map((coin): [string, ChainView["outputs"] extends ReadonlyMap<string, infer V> ? V : never] => [
    outpointName(coin),
    {
      valueSat: coin.valueSat,
      scriptPubKey: account.derive(coin.path).scriptPubKey,
      confirmedHeight: coin.confirmedHeight,
    },
  ]);
  return { tipHeight, outputs: new Map(outputs) };
}

export interface SamplePayment {
  readonly account: Account;
  readonly coins: readonly OwnOutput[];
  readonly request: VerifiedPaymentRequest;
  readonly built: BuiltTransaction;
  readonly facts: CheckFacts;
}

export function samplePayment(
  options: {
    readonly account?: Account;
    readonly request?: RequestChanges;
    readonly coins?: readonly OwnOutput[];
    readonly policy?: PaymentPolicy;
    readonly seed?: string;
    readonly feeRateSatPerKvb?: bigint;
  } = {},
): SamplePayment {
  const account = options.account ?? sampleAccount();
  const coins = options.coins ?? sampleCoins([100_000n, 120_000n, 90_000n]);
  const request = verifiedRequest(options.request);
  const built = buildTransaction(
    {
      account,
      recipients: request.recipients,
      mark: request.metadataJson === "" ? undefined : encodeMark(request),
      coins,
      feeRateSatPerKvb: options.feeRateSatPerKvb ?? 2_000n,
      longTermFeeRateSatPerKvb: 10_000n,
      maxInputs: 50,
      changeIndex: 3,
      tipHeight: TIP_HEIGHT,
    },
    seededRandom(options.seed ?? "payment"),
  );
  const facts: CheckFacts = {
    account,
    request,
    psbt: built.psbt,
    view: viewOf(account, coins),
    policy: options.policy ?? DEFAULT_POLICY,
    expiresAtMs: BigInt(NOW_MS + 30_000),
    spent: { amountSat: 0n, payments: 0 },
    changeIndexMax: 20,
  };
  return { account, coins, request, built, facts };
}
