import { createHash } from "node:crypto";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import type { Random } from "../../src/crypto/ambient.js";
import { Account, type DerivedKey } from "../../src/wallet/account.js";
import type { Sighash } from "../../src/wallet/payment-check.js";
import type { OwnOutput } from "../../src/wallet/transaction-builder.js";
import type { NetworkName, Scheme } from "../../src/wallet/wallet-application.js";

/** A wallet whose group secret the test knows, so that it can sign alone what t nodes would sign together. */

const ORDER = secp256k1.Point.CURVE().n;
export const GROUP_SECRET = BigInt(`0x${"7a".repeat(32)}`);
export const CHAIN_CODE = new Uint8Array(32).fill(0xc5);

export const bigintOf = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
export const scalarBytes = (value: bigint): Uint8Array =>
  new Uint8Array(Buffer.from((((value % ORDER) + ORDER) % ORDER).toString(16).padStart(64, "0"), "hex"));

export function sampleAccount(
  scheme: Scheme = "frost",
  network: NetworkName = "regtest",
  walletId = "wallet-1",
): Account {
  const groupKey = secp256k1.getPublicKey(scalarBytes(GROUP_SECRET), true);
  return new Account({ walletId, scheme, network, groupKey, chainCode: CHAIN_CODE });
}

/** Deterministic bytes from a seed: SHA-256 in counter mode. */
export function seededRandom(seed: string | number): Random {
  let counter = 0;
  let pool = Buffer.alloc(0);
  return {
    bytes(length) {
      while (pool.length < length) {
        pool = Buffer.concat([pool, createHash("sha256").update(`${seed}/${counter++}`).digest()]);
      }
      const bytes = pool.subarray(0, length);
      pool = pool.subarray(length);
      return Uint8Array.from(bytes);
    },
  };
}

/** The derived secret: group secret + BIP32 tweak, and for Taproot negated for even y and tweaked once more. */
export function derivedSecret(key: DerivedKey): Uint8Array {
  const child = (GROUP_SECRET + bigintOf(key.tweak)) % ORDER;
  if (key.taproot === undefined) return scalarBytes(child);
  const even = key.taproot.internalKeyIsOdd ? ORDER - child : child;
  return scalarBytes(even + bigintOf(key.taproot.tapTweak));
}

export function signWithSecret(sighash: Sighash): Uint8Array {
  const secret = derivedSecret(sighash.key);
  if (sighash.key.taproot !== undefined) return schnorr.sign(sighash.bytes, secret);
  const der = secp256k1.sign(sighash.bytes, secret, { prehash: false, format: "der", lowS: true });
  return Uint8Array.from([...der, 0x01]);
}

/** `count` confirmed coins at the first receiving addresses. */
export function sampleCoins(values: readonly bigint[], confirmedHeight = 100): OwnOutput[] {
  return values.map((valueSat, index) => ({
    txid: createHash("sha256").update(`coin ${index}`).digest("hex"),
    vout: index,
    valueSat,
    path: { change: false, index },
    confirmedHeight,
  }));
}
