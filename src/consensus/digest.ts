import { createHash } from "node:crypto";
import { Bug } from "../crypto/fault.js";

/**
 * The one hash of this layer: SHA-256 over a domain and a list of typed, length-prefixed items, so that no two
 * different lists share an encoding. A client in another language needs only this page:
 *
 *     digest(domain, items) = SHA-256( item(text domain) ‖ item(items[0]) ‖ … )
 *     item(x)               = tag (1 byte) ‖ length (4 bytes, big-endian) ‖ body
 *
 * Tags and bodies: "b" bytes; "t" UTF-8 text; "u" unsigned integer, 8 bytes big-endian; "l" list, whose body is the
 * concatenation of its items and whose length counts items.
 */
export type DigestItem =
  | { readonly bytes: Uint8Array }
  | { readonly text: string }
  | { readonly uint: bigint | number }
  | { readonly list: readonly DigestItem[] };

/** Largest body of one item; nothing that is hashed here comes near it. */
export const ITEM_MAX_BYTES = 1 << 24;

function header(tag: string, length: number): Uint8Array {
  if (length > ITEM_MAX_BYTES) throw new Bug("digest item too long", { length });
  const head = Buffer.alloc(5);
  head.write(tag, 0, "ascii");
  head.writeUInt32BE(length, 1);
  return head;
}

function unsigned(value: bigint | number): Uint8Array {
  const integer = BigInt(value);
  if (integer < 0n || integer >= 1n << 64n) throw new Bug("digest integer out of range");
  const body = Buffer.alloc(8);
  body.writeBigUInt64BE(integer);
  return body;
}

function* encoding(item: DigestItem): Generator<Uint8Array> {
  if ("bytes" in item) {
    yield header("b", item.bytes.length);
    yield item.bytes;
  } else if ("text" in item) {
    const body = Buffer.from(item.text, "utf8");
    yield header("t", body.length);
    yield body;
  } else if ("uint" in item) {
    yield header("u", 8);
    yield unsigned(item.uint);
  } else {
    yield header("l", item.list.length);
    for (const member of item.list) yield* encoding(member);
  }
}

/**
 * @param domain what is hashed and its version, for example "mpc-wallet/ballot/v1"
 * @returns 32 bytes
 */
export function digest(domain: string, items: readonly DigestItem[]): Uint8Array {
  const hash = createHash("sha256");
  for (const part of encoding({ text: domain })) hash.update(part);
  for (const item of items) for (const part of encoding(item)) hash.update(part);
  return new Uint8Array(hash.digest());
}
