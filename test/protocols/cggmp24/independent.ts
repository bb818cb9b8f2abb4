// What independent libraries say: derived keys by @scure/bip32, signatures by libsecp256k1 and OpenSSL.
import assert from "node:assert/strict";
import { createHash, createHmac, createPublicKey, verify as verifyWithOpenSsl } from "node:crypto";
import { HDKey } from "@scure/bip32";
import * as tinysecp from "tiny-secp256k1";
import { q, type Scalar, scalar } from "../../../src/crypto/curve.js";
import type { EcdsaSignature } from "../../../src/protocols/cggmp24/sign.js";
import type { PublicKeyPackage } from "../../../src/protocols/key-share.js";
import type { Message } from "./ceremony.js";

export const digestOf = (text: string): Message["digest"] => ({
  bytes: new Uint8Array(createHash("sha256").update(text).digest()),
});

/** The child key by @scure/bip32, and the sum of tweaks by HMAC alone. */
export function derive(
  { key }: { readonly key: PublicKeyPackage },
  path: readonly number[],
): { readonly child: Uint8Array; readonly tweak: Scalar } {
  let node = new HDKey({ publicKey: key.groupKey.toBytes(), chainCode: key.chainCode });
  let tweak = 0n;
  for (const index of path) {
    const number = Buffer.alloc(4);
    number.writeUInt32BE(index);
    const mac = createHmac("sha512", node.chainCode ?? "")
      .update(node.publicKey ?? "")
      .update(number)
      .digest();
    tweak += BigInt(`0x${mac.subarray(0, 32).toString("hex")}`);
    node = node.deriveChild(index);
  }
  return { child: node.publicKey ?? new Uint8Array(), tweak: scalar(tweak) };
}

/** libsecp256k1 and OpenSSL both accept the signature of sha256(text), and s is low. */
export function assertValid(signature: EcdsaSignature | undefined, text: string, publicKey: Uint8Array): void {
  assert.ok(signature !== undefined);
  assert.ok(signature.s <= q >> 1n);
  assert.ok(tinysecp.verify(digestOf(text).bytes, publicKey, signature.toCompact(), true), "libsecp256k1 accepts it");
  const [, x, y] =
    /^04(.{64})(.{64})$/.exec(Buffer.from(tinysecp.pointCompress(publicKey, false)).toString("hex")) ?? [];
  const coordinate = (hex: string | undefined) => Buffer.from(hex ?? "", "hex").toString("base64url");
  const jwk = { kty: "EC", crv: "secp256k1", x: coordinate(x), y: coordinate(y) };
  const openSslKey = createPublicKey({ key: jwk, format: "jwk" });
  assert.ok(verifyWithOpenSsl("sha256", Buffer.from(text), openSslKey, signature.toDer()), "OpenSSL accepts it");
}
