/**
 * From the group key to the Taproot output key: BIP32 tweak first, then the BIP86 tweak (key path only, empty root).
 * Both are additive, so each party applies them to its own share.
 */

import type { FrostPublic, FrostSecret } from "@noble/curves/abstract/frost.js";
import { schnorr, schnorr_FROST } from "@noble/curves/secp256k1.js";
import { Point, q, Scalar, scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import type { PartyId } from "../../session/party.js";
import type { PublicKeyPackage } from "../key-share.js";

/** FROST identifier of a party. */
export const identifierOf = (party: PartyId): string => schnorr_FROST.Identifier.fromNumber(party);

/** How a share becomes a share of the output key: x_i' = sign · (x_i + τ) + t. */
interface Tweak {
  /** τ: sum of the BIP32 tweaks of the derivation path. */
  readonly bip32: Scalar;
  /** Whether the derived key has odd y, so that everything is negated before the Taproot tweak. */
  readonly negated: boolean;
  /** t: BIP341 tweak of the derived key. */
  readonly taproot: Scalar;
}

/** A derived Taproot key as noble-curves signs with it. */
export interface OutputKey {
  /** x-only output key, 32 bytes: the witness program. */
  readonly xOnly: Uint8Array;
  readonly frost: FrostPublic;
  readonly tweak: Tweak;
}

/**
 * @param bip32Tweak τ in [0, q); 0 for the group key itself
 * @source BIP32 (public derivation), BIP341 (taproot_tweak_pubkey), BIP86 (empty root)
 */
export function outputKey(key: PublicKeyPackage, bip32Tweak: Scalar): OutputKey {
  const tauG = Point.base.timesPublic(bip32Tweak);
  const derived = key.groupKey.plus(tauG); // X' = X g^τ
  if (derived.isIdentity) throw new Bug("a derived key is the identity");
  const negated = !derived.hasEvenY;
  const internal = negated ? derived.negate() : derived;
  const hash = BigInt(
    `0x${Buffer.from(schnorr.utils.taggedHash("TapTweak", internal.toBytes().subarray(1))).toString("hex")}`,
  );
  if (hash >= q) throw new Bug("a TapTweak is not a scalar"); // BIP341: fail, never reduce
  const t = scalar(hash);
  const tG = Point.base.timesPublic(t);
  const Q = internal.plus(tG); // Q = ±X' + t G
  const verifyingShares: { [identifier: string]: Uint8Array } = {};
  for (const [party, X_j] of key.publicShares) {
    const child = X_j.plus(tauG);
    verifyingShares[identifierOf(party)] = (negated ? child.negate() : child).plus(tG).toBytes();
  }
  return {
    xOnly: Q.toBytes().subarray(1),
    frost: {
      signers: { min: key.threshold, max: key.publicShares.size },
      commitments: [Q.toBytes()],
      verifyingShares,
    } as FrostPublic,
    tweak: { bip32: bip32Tweak, negated, taproot: t },
  };
}

/** The party's share of the output key. */
export function outputShare(self: PartyId, secretShare: Scalar, { tweak }: OutputKey): FrostSecret {
  const child = Scalar.plus(secretShare, tweak.bip32);
  const share = Scalar.plus(tweak.negated ? Scalar.negate(child) : child, tweak.taproot);
  return { identifier: identifierOf(self), signingShare: Scalar.toBytes(share) } as FrostSecret;
}
