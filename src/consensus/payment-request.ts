import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type PaymentRequest as PaymentRequestMessage,
  PaymentRequestSchema,
  type SignedPaymentRequest,
  SignedPaymentRequestSchema,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { digest } from "./digest.js";
import { type Refusal, refusal } from "./refusal.js";
import { SIGNATURE_BYTES, type SignMessage, type VerifySignature } from "./signature.js";
import { wholeMs } from "./unix-time.js";

/**
 * What a client wants paid, signed by a payment authority. It is the only source of truth about recipients and
 * amounts: nodes compare every transaction with it, so a coordinator can neither alter nor invent a payment.
 */

export const REQUEST_MAX_BYTES = 16_384;
export const RECIPIENTS_MAX = 20;
export const METADATA_MAX_BYTES = 4096;
export const ADDRESS_MAX_LENGTH = 100;
export const WALLET_ID_MAX_LENGTH = 64;
export const AUTHORITY_MAX_LENGTH = 64;
/** No more satoshi than this will ever exist. */
export const MONEY_MAX_SAT = 2_100_000_000_000_000n;
/** 100,000 sat/vB; the policy's own bound is far lower. */
export const FEE_RATE_MAX_SAT_PER_KVB = 100_000_000n;

const DOMAIN = "mpc-wallet/payment-request/v1";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const PRINTABLE = /^[\x21-\x7e]+$/;

declare const verified: unique symbol;

export interface RequestedOutput {
  readonly address: string;
  readonly amountSat: bigint;
}

/** A request whose signature, bounds and time window were verified; only `verifyPaymentRequest` makes one. */
export interface VerifiedPaymentRequest {
  readonly [verified]: true;
  readonly requestId: string;
  readonly walletId: string;
  readonly recipients: readonly RequestedOutput[];
  readonly maxFeeRateSatPerKvb: bigint;
  readonly metadataJson: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  readonly authority: string;
  /** What the authority signed, 32 bytes; names the request in every proposal. */
  readonly digest: Uint8Array;
}

export type RequestRefusalCode =
  | "request-malformed"
  | "request-too-large"
  | "authority-unknown"
  | "request-forged"
  | "request-id-invalid"
  | "wallet-id-invalid"
  | "recipients-missing"
  | "too-many-recipients"
  | "address-malformed"
  | "amount-out-of-range"
  | "max-fee-rate-out-of-range"
  | "metadata-too-large"
  | "metadata-not-json"
  | "window-invalid"
  | "window-too-long"
  | "request-from-future"
  | "request-expired";

export type RequestVerdict =
  | { readonly valid: true; readonly request: VerifiedPaymentRequest }
  | { readonly valid: false; readonly refusal: Refusal<RequestRefusalCode> };

export interface RequestRules {
  /** Name of each payment authority and its Ed25519 public key. */
  readonly authorities: ReadonlyMap<string, Uint8Array>;
  readonly nowMs: number;
  /** Longest time between creation and expiry. */
  readonly maxWindowMs: number;
  /** How far a client's clock may run ahead of ours. */
  readonly clockSkewMs: number;
}

/** What an authority signs: `digest(DOMAIN, [text authority, bytes request])`, see digest.ts. */
export function requestDigest(signed: { readonly authority: string; readonly request: Uint8Array }): Uint8Array {
  return digest(DOMAIN, [{ text: signed.authority }, { bytes: signed.request }]);
}

/** For clients: serializes and signs a request. Checks nothing; the nodes do. */
export function signPaymentRequest(
  request: Omit<PaymentRequestMessage, "$typeName" | "$unknown" | "recipients"> & {
    readonly recipients: readonly RequestedOutput[];
  },
  signer: { readonly authority: string; readonly sign: SignMessage },
): SignedPaymentRequest {
  const message = create(PaymentRequestSchema, {
    ...request,
    recipients: request.recipients.map(({ address, amountSat }) => ({ address, amountSat })),
  });
  const bytes = toBinary(PaymentRequestSchema, message);
  return create(SignedPaymentRequestSchema, {
    request: bytes,
    authority: signer.authority,
    signature: signer.sign(requestDigest({ authority: signer.authority, request: bytes })),
  });
}

/** Parses the outer message; total. */
export function parseSignedPaymentRequest(bytes: Uint8Array): SignedPaymentRequest | undefined {
  if (bytes.length > REQUEST_MAX_BYTES + 1024) return undefined;
  try {
    const message = fromBinary(SignedPaymentRequestSchema, bytes);
    return message.$unknown === undefined ? message : undefined;
  } catch {
    return undefined;
  }
}

/** Parses the inner message. A field that this version does not know could change the meaning: refused. */
function parseRequest(bytes: Uint8Array): PaymentRequestMessage | undefined {
  try {
    const message = fromBinary(PaymentRequestSchema, bytes);
    const unknown = message.$unknown !== undefined || message.recipients.some((one) => one.$unknown !== undefined);
    return unknown ? undefined : message;
  } catch {
    return undefined;
  }
}

/** What a request says, unverified: for showing it. Undefined when it does not decode. Total. */
export function readPaymentRequest(signed: SignedPaymentRequest):
  | {
      readonly requestId: string;
      readonly walletId: string;
      readonly recipients: readonly RequestedOutput[];
      readonly metadataJson: string;
    }
  | undefined {
  const message = parseRequest(signed.request);
  if (message === undefined) return undefined;
  const recipients = message.recipients.map(({ address, amountSat }) => ({ address, amountSat }));
  return {
    requestId: message.requestId,
    walletId: message.walletId,
    recipients,
    metadataJson: message.metadataJson,
  };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function checkRecipients(message: PaymentRequestMessage): Refusal<RequestRefusalCode> | undefined {
  const { recipients } = message;
  if (recipients.length === 0) return refusal("recipients-missing", "a payment needs a recipient");
  if (recipients.length > RECIPIENTS_MAX) {
    const facts = { recipients: recipients.length, maximum: RECIPIENTS_MAX };
    return refusal("too-many-recipients", `at most ${RECIPIENTS_MAX} recipients`, facts);
  }
  let totalSat = 0n;
  for (const [index, { address, amountSat }] of recipients.entries()) {
    if (address.length > ADDRESS_MAX_LENGTH || !PRINTABLE.test(address)) {
      return refusal("address-malformed", "an address is printable ASCII without spaces", { index });
    }
    if (amountSat <= 0n || amountSat > MONEY_MAX_SAT) {
      return refusal("amount-out-of-range", "an amount is 1 satoshi to 21 million bitcoin", { index, amountSat });
    }
    totalSat += amountSat;
  }
  if (totalSat > MONEY_MAX_SAT) return refusal("amount-out-of-range", "more than 21 million bitcoin", { totalSat });
  return undefined;
}

function checkContent(message: PaymentRequestMessage): Refusal<RequestRefusalCode> | undefined {
  if (!UUID.test(message.requestId)) return refusal("request-id-invalid", "the request id is a lower-case UUID");
  if (message.walletId.length > WALLET_ID_MAX_LENGTH || !PRINTABLE.test(message.walletId)) {
    return refusal("wallet-id-invalid", `the wallet id is 1 to ${WALLET_ID_MAX_LENGTH} printable characters`);
  }
  const recipients = checkRecipients(message);
  if (recipients !== undefined) return recipients;
  const rate = message.maxFeeRateSatPerKvb;
  if (rate <= 0n || rate > FEE_RATE_MAX_SAT_PER_KVB) {
    return refusal("max-fee-rate-out-of-range", "the highest fee rate must be positive and sane", { rate });
  }
  if (Buffer.byteLength(message.metadataJson, "utf8") > METADATA_MAX_BYTES) {
    return refusal("metadata-too-large", `metadata is at most ${METADATA_MAX_BYTES} bytes`);
  }
  if (message.metadataJson !== "" && !isJson(message.metadataJson)) {
    return refusal("metadata-not-json", "metadata must be JSON");
  }
  return undefined;
}

function checkWindow(message: PaymentRequestMessage, rules: RequestRules): Refusal<RequestRefusalCode> | undefined {
  const { createdAtMs, expiresAtMs } = message;
  const facts = { createdAtMs, expiresAtMs, nowMs: rules.nowMs };
  if (createdAtMs >= expiresAtMs || expiresAtMs > BigInt(Number.MAX_SAFE_INTEGER)) {
    return refusal("window-invalid", "a request expires after its creation", facts);
  }
  if (expiresAtMs - createdAtMs > BigInt(rules.maxWindowMs)) {
    return refusal("window-too-long", `a request lives at most ${rules.maxWindowMs} ms`, facts);
  }
  if (createdAtMs > wholeMs(rules.nowMs + rules.clockSkewMs)) {
    return refusal("request-from-future", "the request was created in the future", facts);
  }
  if (expiresAtMs <= wholeMs(rules.nowMs)) return refusal("request-expired", "the request has expired", facts);
  return undefined;
}

/**
 * Verifies a request as a node received it: signature first, then content, then time.
 * Total: hostile bytes get a refusal, never an exception.
 */
export function verifyPaymentRequest(
  signed: SignedPaymentRequest,
  rules: RequestRules,
  verify: VerifySignature,
): RequestVerdict {
  const refuse = (why: Refusal<RequestRefusalCode>): RequestVerdict => ({ valid: false, refusal: why });
  if (signed.request.length > REQUEST_MAX_BYTES) {
    return refuse(refusal("request-too-large", `a request is at most ${REQUEST_MAX_BYTES} bytes`));
  }
  const key = signed.authority.length > AUTHORITY_MAX_LENGTH ? undefined : rules.authorities.get(signed.authority);
  if (key === undefined) return refuse(refusal("authority-unknown", "no such payment authority is configured"));
  const requestHash = requestDigest(signed);
  if (signed.signature.length !== SIGNATURE_BYTES || !verify(key, requestHash, signed.signature)) {
    return refuse(refusal("request-forged", "the payment authority did not sign this request"));
  }
  const message = parseRequest(signed.request);
  if (message === undefined) return refuse(refusal("request-malformed", "the request does not decode"));
  const fault = checkContent(message) ?? checkWindow(message, rules);
  if (fault !== undefined) return refuse(fault);
  const content: Omit<VerifiedPaymentRequest, typeof verified> = {
    requestId: message.requestId,
    walletId: message.walletId,
    recipients: message.recipients.map(({ address, amountSat }) => ({ address, amountSat })),
    maxFeeRateSatPerKvb: message.maxFeeRateSatPerKvb,
    metadataJson: message.metadataJson,
    createdAtMs: Number(message.createdAtMs),
    expiresAtMs: Number(message.expiresAtMs),
    authority: signed.authority,
    digest: requestHash,
  };
  return { valid: true, request: content as VerifiedPaymentRequest };
}
