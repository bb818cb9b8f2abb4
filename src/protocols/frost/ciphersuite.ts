/**
 * The hashes of "FROST-secp256k1-SHA256-TR-v1": those of RFC 9591 section 6.5 under this context string, with the
 * challenge of BIP340, so that a signature is a Taproot signature.
 *
 * @source RFC 9591 section 6.5; BIP340; tests compare every step with noble-curves `schnorr_FROST`
 */
import { schnorr, secp256k1_hasher } from "@noble/curves/secp256k1.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { type Point, type Scalar, scalar } from "../../crypto/curve.js";

const CONTEXT = "FROST-secp256k1-SHA256-TR-v1";
const ascii = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "ascii"));
const [RHO, NONCE, MSG, COM] = [
  ascii(`${CONTEXT}rho`),
  ascii(`${CONTEXT}nonce`),
  ascii(`${CONTEXT}msg`),
  ascii(`${CONTEXT}com`),
];

/** hash_to_field of RFC 9380 into [0, q), expand_message_xmd over SHA-256, 48 bytes before the reduction. */
const toScalar = (domain: Uint8Array, input: Uint8Array): Scalar =>
  scalar(secp256k1_hasher.hashToScalar(input, { DST: domain }));

/** H1, for binding factors. */
export const H1 = (input: Uint8Array): Scalar => toScalar(RHO, input);

/** H2 of this ciphersuite: the challenge of BIP340, over x coordinates. Neither point may be the identity. */
export const H2 = (R: Point, Q: Point, message: Uint8Array): Scalar => {
  const hash = schnorr.utils.taggedHash("BIP0340/challenge", xOnly(R), xOnly(Q), message);
  return scalar(BigInt(`0x${Buffer.from(hash).toString("hex")}`));
};

/** H3, for nonces. */
export const H3 = (input: Uint8Array): Scalar => toScalar(NONCE, input);

/** H4, of the message. */
export const H4 = (message: Uint8Array): Uint8Array => sha256(Buffer.concat([MSG, message]));

/** H5, of the encoded commitment list. */
export const H5 = (encoded: Uint8Array): Uint8Array => sha256(Buffer.concat([COM, encoded]));

/** The x coordinate alone, 32 bytes, as BIP340 writes points. */
export const xOnly = (point: Point): Uint8Array => point.toBytes().subarray(1);
