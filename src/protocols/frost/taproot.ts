/**
 * From the group key to the Taproot output key: BIP32 tweak first, then the BIP86 tweak (key path only, empty root),
 * then the even y coordinate of BIP340. All are additive or a sign, so each party applies them to its own share.
 */

import { schnorr } from "@noble/curves/secp256k1.js";
import { Point, q, Scalar, scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import type { PartyId } from "../../session/party.js";
import type { PublicKeyPackage } from "../key-share.js";
import { xOnly } from "./ciphersuite.js";

/** How a share becomes a share of the output key: x_i' = ±(±(x_i + τ) + t). */
interface Tweak {
  /** τ: sum of the BIP32 tweaks of the derivation path. */
  readonly bip32: Scalar;
  /** g^τ. */
  readonly bip32Point: Point;
  /** Whether the derived key has odd y, so that everything is negated before the Taproot tweak. */
  readonly negatedBefore: boolean;
  /** t: BIP341 tweak of the derived key. */
  readonly taproot: Scalar;
  /** g^t. */
  readonly taprootPoint: Point;
  /** Whether the tweaked key has odd y, so that everything is negated after the Taproot tweak. */
  readonly negatedAfter: boolean;
}

/** A derived Taproot key. Public, all of it. */
export interface OutputKey {
  /** x-only output key, 32 bytes: the witness program. */
  readonly xOnly: Uint8Array;
  /** Q with even y, as BIP340 reads the x-only key. */
  readonly Q: Point;
  readonly tweak: Tweak;
}

/**
 * @param bip32Tweak τ in [0, q); 0 for the group key itself
 * @source BIP32 (public derivation), BIP341 (taproot_tweak_pubkey), BIP86 (empty root)
 */
export function outputKey({ groupKey }: Pick<PublicKeyPackage, "groupKey">, bip32Tweak: Scalar): OutputKey {
  const tauG = Point.base.timesPublic(bip32Tweak);
  const derived = groupKey.plus(tauG); // X' = X g^τ
  if (derived.isIdentity) throw new Bug("a derived key is the identity");
  const negatedBefore = !derived.hasEvenY;
  const internal = negatedBefore ? derived.negate() : derived;
  const hash = BigInt(`0x${Buffer.from(schnorr.utils.taggedHash("TapTweak", xOnly(internal))).toString("hex")}`);
  if (hash >= q) throw new Bug("a TapTweak is not a scalar"); // BIP341: fail, never reduce
  const t = scalar(hash);
  const tG = Point.base.timesPublic(t);
  const tweaked = internal.plus(tG); // ±X' g^t
  if (tweaked.isIdentity) throw new Bug("an output key is the identity");
  const negatedAfter = !tweaked.hasEvenY;
  return {
    xOnly: xOnly(tweaked),
    Q: negatedAfter ? tweaked.negate() : tweaked,
    tweak: {
      bip32: bip32Tweak,
      bip32Point: tauG,
      negatedBefore,
      taproot: t,
      taprootPoint: tG,
      negatedAfter,
    },
  };
}

/** The party's share of the output key whose y is even; secret. */
export function outputShare(secretShare: Scalar, { tweak }: OutputKey): Scalar {
  const child = Scalar.plus(secretShare, tweak.bip32);
  const share = Scalar.plus(tweak.negatedBefore ? Scalar.negate(child) : child, tweak.taproot);
  return tweak.negatedAfter ? Scalar.negate(share) : share;
}

/** The public counterpart of a party's output share; undefined for a party that holds none. */
export function outputVerifyingShare(
  { publicShares }: PublicKeyPackage,
  party: PartyId,
  { tweak }: OutputKey,
): Point | undefined {
  const child = publicShares.get(party)?.plus(tweak.bip32Point);
  if (child === undefined) return undefined;
  const share = (tweak.negatedBefore ? child.negate() : child).plus(tweak.taprootPoint);
  return tweak.negatedAfter ? share.negate() : share;
}

/** Output keys that one key object remembers; as many as a session has messages. */
const MAX_REMEMBERED = 256;
const remembered = new WeakMap<PublicKeyPackage, Map<Scalar, OutputKey>>();

/** `outputKey`, computed once per key object and tweak while both are in use. Public data only. */
export function rememberedOutputKey(key: PublicKeyPackage, bip32Tweak: Scalar): OutputKey {
  let keys = remembered.get(key);
  if (keys === undefined) {
    keys = new Map();
    remembered.set(key, keys);
  }
  const known = keys.get(bip32Tweak);
  if (known !== undefined) return known;
  const made = outputKey(key, bip32Tweak);
  if (keys.size >= MAX_REMEMBERED) keys.clear();
  keys.set(bip32Tweak, made);
  return made;
}
