import { createPrivateKey, createPublicKey, KeyObject, sign, verify } from "node:crypto";
import { InvalidInput } from "./fault.js";

/**
 * Ed25519 over raw 32-byte keys, the primitive below every message identity.
 *
 * Verification is stricter than RFC 8032 asks. OpenSSL 3 already refuses S >= L, but it accepts (measured, 3.0.19)
 * keys of small order, y >= p, and x = 0 with the sign bit set: under the first, one fixed signature verifies for every
 * message, so that "this party signed that" would prove nothing; under the others one key has several names. Such keys,
 * and an R of small order, are refused here before OpenSSL is asked. What stays is the cofactorless equation, which
 * all our verifiers share; a batch verifier must not be mixed in.
 * @source RFC 8032 sections 5.1.3 and 5.1.7; "Taming the many EdDSAs" (2020), sections 3 and 5
 */

export const ED25519_SEED_BYTES = 32;
export const ED25519_PUBLIC_KEY_BYTES = 32;
export const ED25519_SIGNATURE_BYTES = 64;

/** DER around a raw key never varies (RFC 8410), so importing one is a concatenation. */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/** y of the eight points of order 1, 2, 4 and 8, little-endian; the sign bit of x is masked before comparing. */
const SMALL_ORDER_Y = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]);

/** Imports cost as much as a verification (65 µs); a roster's keys stay here. Public keys only. */
const MAX_CACHED_KEYS = 256;
const cachedKeys = new Map<string, KeyObject>();

/**
 * Makes the private key object of a seed.
 * @param seed 32 secret bytes
 * @returns a key for `signEd25519`; it prints as an opaque object
 * @throws InvalidInput `ed25519-seed-length`
 */
export function ed25519PrivateKey(seed: Uint8Array): KeyObject {
  if (seed.length !== ED25519_SEED_BYTES) {
    throw new InvalidInput("ed25519-seed-length", "an Ed25519 seed has 32 bytes", { lengthBytes: seed.length });
  }
  const der = Buffer.concat([PKCS8_PREFIX, seed]);
  try {
    return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  } finally {
    der.fill(0);
  }
}

/**
 * Derives the public key.
 * @param secret 32-byte seed, or the key object made from it
 * @returns 32 bytes
 * @throws InvalidInput when the secret is not an Ed25519 one
 */
export function ed25519PublicKey(secret: Uint8Array | KeyObject): Uint8Array {
  const spki = createPublicKey(privateKeyOf(secret)).export({ type: "spki", format: "der" });
  return new Uint8Array(spki.subarray(SPKI_PREFIX.length));
}

/**
 * Signs bytes. The bytes must carry their own domain (what they are, which session): a raw signature does not.
 * @param secret 32-byte seed, or the key object made from it (faster)
 * @returns 64 bytes, the same for the same input
 * @throws InvalidInput when the secret is not an Ed25519 one
 */
export function signEd25519(secret: Uint8Array | KeyObject, bytes: Uint8Array): Uint8Array {
  return new Uint8Array(sign(null, bytes, privateKeyOf(secret)));
}

/**
 * Says whether the key signed the bytes. Total: whatever the lengths and the bytes, it answers and never throws.
 * @param publicKey 32 bytes; @param signature 64 bytes R || S
 * @returns true only for a canonical key outside the small subgroup, a canonical S and a matching equation
 */
export function verifyEd25519(publicKey: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== ED25519_PUBLIC_KEY_BYTES || signature.length !== ED25519_SIGNATURE_BYTES) return false;
  if (!isEd25519PublicKey(publicKey) || isSmallOrderOrNotCanonical(signature.subarray(0, 32))) return false;
  try {
    return verify(null, bytes, publicKeyObject(publicKey), signature);
  } catch {
    return false;
  }
}

/** Says whether 32 bytes can be a peer's key: canonical and not of small order. Being on the curve shows on use. */
export function isEd25519PublicKey(publicKey: Uint8Array): boolean {
  return publicKey.length === ED25519_PUBLIC_KEY_BYTES && !isSmallOrderOrNotCanonical(publicKey);
}

function privateKeyOf(secret: Uint8Array | KeyObject): KeyObject {
  if (!(secret instanceof KeyObject)) return ed25519PrivateKey(secret);
  if (secret.type !== "private" || secret.asymmetricKeyType !== "ed25519") {
    throw new InvalidInput("not-an-ed25519-key", "an Ed25519 private key is needed", {
      keyType: secret.asymmetricKeyType ?? secret.type,
    });
  }
  return secret;
}

function publicKeyObject(publicKey: Uint8Array): KeyObject {
  const name = Buffer.from(publicKey).toString("hex");
  const cached = cachedKeys.get(name);
  if (cached !== undefined) return cached;
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, publicKey]), format: "der", type: "spki" });
  const oldest = cachedKeys.size >= MAX_CACHED_KEYS ? cachedKeys.keys().next().value : undefined;
  if (oldest !== undefined) cachedKeys.delete(oldest);
  cachedKeys.set(name, key);
  return key;
}

/** Point encodings: y in 255 bits little-endian, then the sign of x. Public inputs only: variable time. */
function isSmallOrderOrNotCanonical(encoded: Uint8Array): boolean {
  const y = Buffer.from(encoded);
  y[31] = (y[31] ?? 0) & 0x7f;
  // p = 2^255 - 19 is ed ff … ff 7f: only encodings with all middle bytes set can reach it.
  const reachesP = (y[0] ?? 0) >= 0xed && y[31] === 0x7f && y.subarray(1, 31).every((byte) => byte === 0xff);
  return reachesP || SMALL_ORDER_Y.has(y.toString("hex"));
}
