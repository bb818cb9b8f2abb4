import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type SignedWalletChange,
  SignedWalletChangeSchema,
  WalletChangeKind,
  type WalletChangeRequest as WalletChangeRequestMessage,
  WalletChangeRequestSchema,
} from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { DIGEST_BYTES } from "./ballot.js";
import { digest } from "./digest.js";
import { AUTHORITY_MAX_LENGTH, type RequestRules, WALLET_ID_MAX_LENGTH } from "./payment-request.js";
import { type Refusal, refusal } from "./refusal.js";
import { SIGNATURE_BYTES, type SignMessage, type VerifySignature } from "./signature.js";
import { wholeMs } from "./unix-time.js";

/**
 * An order to change the shares of a wallet's key, signed by a payment authority as payments are. Threshold and
 * parties of the new epoch come from here only, so a coordinator can neither lower the one nor choose the others.
 */

export const CHANGE_REQUEST_MAX_BYTES = 8_192;
export const CHANGE_PARTIES_MAX = 20;
/** Tries of one order; a node refuses further ones, so that a coordinator cannot fill its disk. */
export const ATTEMPTS_MAX = 8;
/** BIP32: indices beyond are hardened. */
const CHANGE_COUNT_MAX = 0x7fffffff;

const DOMAIN = "mpc-wallet/wallet-change-request/v1";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const PRINTABLE = /^[\x21-\x7e]+$/;

export type ChangeKind = "refresh" | "reshare";

/** What an order says. */
export interface WalletChangeOrder {
  readonly requestId: string;
  readonly walletId: string;
  readonly kind: ChangeKind;
  /** Epoch that is replaced, and the digest of its public key package, 32 bytes. */
  readonly baseEpoch: number;
  readonly baseKeyDigest: Uint8Array;
  /** Signers needed afterwards, 2 to the number of parties. */
  readonly threshold: number;
  /** Node ids that hold a share afterwards, in party order. */
  readonly parties: readonly string[];
  /** Change addresses in use. */
  readonly changeCount: number;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  /** Whether it takes the place of an unfinished order, one of whose parties is gone for good. */
  readonly supersedes: boolean;
}

declare const verified: unique symbol;

/** An order whose signature and bounds were verified; only `verifyWalletChange` makes one. */
export interface VerifiedWalletChange extends WalletChangeOrder {
  readonly [verified]: true;
  readonly authority: string;
  /** What the authority signed, 32 bytes. */
  readonly digest: Uint8Array;
  readonly signed: SignedWalletChange;
}

export type ChangeRefusalCode =
  | "change-malformed"
  | "change-too-large"
  | "authority-unknown"
  | "change-forged"
  | "change-id-invalid"
  | "wallet-id-invalid"
  | "change-base-invalid"
  | "threshold-out-of-range"
  | "parties-out-of-range"
  | "change-count-out-of-range"
  | "change-window-invalid"
  | "change-window-too-long"
  | "change-from-future"
  | "change-expired";

export type ChangeVerdict =
  | { readonly valid: true; readonly change: VerifiedWalletChange }
  | { readonly valid: false; readonly refusal: Refusal<ChangeRefusalCode> };

const KINDS: Readonly<Record<ChangeKind, WalletChangeKind>> = {
  refresh: WalletChangeKind.REFRESH,
  reshare: WalletChangeKind.RESHARE,
};

/** What an authority signs: `digest(DOMAIN, [text authority, bytes request])`, see digest.ts. */
export function changeDigest(signed: { readonly authority: string; readonly request: Uint8Array }): Uint8Array {
  return digest(DOMAIN, [{ text: signed.authority }, { bytes: signed.request }]);
}

/** For operators: serializes and signs an order. Checks nothing; the nodes do. */
export function signWalletChange(
  order: WalletChangeOrder,
  signer: { readonly authority: string; readonly sign: SignMessage },
): SignedWalletChange {
  const request = toBinary(
    WalletChangeRequestSchema,
    create(WalletChangeRequestSchema, {
      ...order,
      kind: KINDS[order.kind],
      parties: [...order.parties],
      createdAtMs: wholeMs(order.createdAtMs),
      expiresAtMs: wholeMs(order.expiresAtMs),
    }),
  );
  const { authority } = signer;
  return create(SignedWalletChangeSchema, {
    request,
    authority,
    signature: signer.sign(changeDigest({ authority, request })),
  });
}

/** Parses the outer message; total. */
export function parseSignedWalletChange(bytes: Uint8Array): SignedWalletChange | undefined {
  if (bytes.length > CHANGE_REQUEST_MAX_BYTES + 1024) return undefined;
  try {
    const message = fromBinary(SignedWalletChangeSchema, bytes);
    return message.$unknown === undefined ? message : undefined;
  } catch {
    return undefined;
  }
}

export function encodeSignedWalletChange(signed: SignedWalletChange): Uint8Array {
  return toBinary(SignedWalletChangeSchema, signed);
}

/** A field that this version does not know could change the meaning: refused. */
function parseRequest(bytes: Uint8Array): WalletChangeRequestMessage | undefined {
  try {
    const message = fromBinary(WalletChangeRequestSchema, bytes);
    return message.$unknown === undefined ? message : undefined;
  } catch {
    return undefined;
  }
}

function orderOf(message: WalletChangeRequestMessage): WalletChangeOrder {
  return {
    requestId: message.requestId,
    walletId: message.walletId,
    kind: message.kind === WalletChangeKind.REFRESH ? "refresh" : "reshare",
    baseEpoch: message.baseEpoch,
    baseKeyDigest: message.baseKeyDigest,
    threshold: message.threshold,
    parties: message.parties,
    changeCount: message.changeCount,
    createdAtMs: Number(message.createdAtMs),
    expiresAtMs: Number(message.expiresAtMs),
    supersedes: message.supersedes,
  };
}

/** What an order says, unverified: for showing it, or when it was verified before it was stored. Total. */
export function readWalletChange(
  signed: SignedWalletChange,
): (WalletChangeOrder & { readonly digest: Uint8Array }) | undefined {
  const message = parseRequest(signed.request);
  return message && { ...orderOf(message), digest: changeDigest(signed) };
}

function checkContent(message: WalletChangeRequestMessage): Refusal<ChangeRefusalCode> | undefined {
  const { walletId, threshold, parties } = message;
  if (!UUID.test(message.requestId)) return refusal("change-id-invalid", "the request id is a lower-case UUID");
  if (walletId.length > WALLET_ID_MAX_LENGTH || !PRINTABLE.test(walletId)) {
    return refusal("wallet-id-invalid", `the wallet id is 1 to ${WALLET_ID_MAX_LENGTH} printable characters`);
  }
  if (message.kind !== WalletChangeKind.REFRESH && message.kind !== WalletChangeKind.RESHARE) {
    return refusal("change-malformed", "a change is a refresh or a reshare");
  }
  if (message.baseKeyDigest.length !== DIGEST_BYTES || message.baseEpoch >= 0xffffffff) {
    return refusal("change-base-invalid", "a change names the epoch and the key digest that it replaces");
  }
  if (parties.length < 2 || parties.length > CHANGE_PARTIES_MAX || new Set(parties).size !== parties.length) {
    const why = `2 to ${CHANGE_PARTIES_MAX} different nodes hold a wallet`;
    return refusal("parties-out-of-range", why, { parties: parties.length });
  }
  if (threshold < 2 || threshold > parties.length) {
    return refusal("threshold-out-of-range", "the threshold is 2 to the number of nodes", { threshold });
  }
  if (message.changeCount > CHANGE_COUNT_MAX) {
    return refusal("change-count-out-of-range", "there are not so many change addresses");
  }
  return undefined;
}

function checkWindow(
  { createdAtMs, expiresAtMs }: WalletChangeRequestMessage,
  rules: RequestRules,
): Refusal<ChangeRefusalCode> | undefined {
  const facts = { createdAtMs, expiresAtMs, nowMs: rules.nowMs };
  if (createdAtMs >= expiresAtMs || expiresAtMs > BigInt(Number.MAX_SAFE_INTEGER)) {
    return refusal("change-window-invalid", "an order expires after its creation", facts);
  }
  if (expiresAtMs - createdAtMs > BigInt(rules.maxWindowMs)) {
    return refusal("change-window-too-long", `an order lives at most ${rules.maxWindowMs} ms`, facts);
  }
  if (createdAtMs > wholeMs(rules.nowMs + rules.clockSkewMs)) {
    return refusal("change-from-future", "the order was created in the future", facts);
  }
  return undefined;
}

/**
 * Verifies an order: signature first, then content and window. Its expiry is asked for with `isExpired`, since what all
 * have prepared is finished at any time. Total.
 */
export function verifyWalletChange(
  signed: SignedWalletChange,
  rules: RequestRules,
  verify: VerifySignature,
): ChangeVerdict {
  const refuse = (why: Refusal<ChangeRefusalCode>): ChangeVerdict => ({ valid: false, refusal: why });
  if (signed.request.length > CHANGE_REQUEST_MAX_BYTES) {
    return refuse(refusal("change-too-large", `an order is at most ${CHANGE_REQUEST_MAX_BYTES} bytes`));
  }
  const key = signed.authority.length > AUTHORITY_MAX_LENGTH ? undefined : rules.authorities.get(signed.authority);
  if (key === undefined) return refuse(refusal("authority-unknown", "no such payment authority is configured"));
  const hash = changeDigest(signed);
  if (signed.signature.length !== SIGNATURE_BYTES || !verify(key, hash, signed.signature)) {
    return refuse(refusal("change-forged", "the payment authority did not sign this order"));
  }
  const message = parseRequest(signed.request);
  if (message === undefined) return refuse(refusal("change-malformed", "the order does not decode"));
  const fault = checkContent(message) ?? checkWindow(message, rules);
  if (fault !== undefined) return refuse(fault);
  const content: Omit<VerifiedWalletChange, typeof verified> = {
    ...orderOf(message),
    authority: signed.authority,
    digest: hash,
    signed,
  };
  return { valid: true, change: content as VerifiedWalletChange };
}

export function isExpired({ expiresAtMs }: Pick<WalletChangeOrder, "expiresAtMs">, nowMs: number): boolean {
  return expiresAtMs <= nowMs;
}

/** Where an attempt stands among all attempts upon a wallet: by the order's time, then its digest, then its number. */
export interface AttemptPlace {
  readonly createdAtMs: number;
  readonly requestDigest: Uint8Array;
  readonly attempt: number;
}

export function placeOf(
  { createdAtMs, digest: requestDigest }: Pick<VerifiedWalletChange, "createdAtMs" | "digest">,
  attempt: number,
): AttemptPlace {
  return { createdAtMs, requestDigest, attempt };
}

/** Negative when `a` comes before `b`, 0 for the same attempt. */
export function comparePlaces(a: AttemptPlace, b: AttemptPlace): number {
  if (a.createdAtMs !== b.createdAtMs) return a.createdAtMs - b.createdAtMs;
  const byDigest = Buffer.compare(a.requestDigest, b.requestDigest);
  return byDigest !== 0 ? byDigest : a.attempt - b.attempt;
}
