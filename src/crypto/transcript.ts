/**
 * The one hash of the project: TupleHashXOF256 (NIST SP 800-185) over typed, length-prefixed items under a domain.
 *
 * The encoding is injective: an item is one type byte and its payload, TupleHash prefixes each item with its length,
 * and a list prefixes each of its members again. So no two different tuples, of different types or boundaries, are
 * the same hash input ("a$", "b" is not "a", "$b"). @source TSSHOCK (Verichains 2023) for what ambiguity costs.
 */
import { tuplehash256xof } from "@noble/hashes/sha3-addons.js";
import { Point, q, type Scalar } from "./curve.js";
import { Bug } from "./fault.js";

/** A scalar, told apart from an integer of the same value. */
export interface ScalarItem {
  readonly scalar: Scalar;
}

/** What can be hashed: bytes, integer (signed; a number must be a safe integer), text, point, scalar, list of items. */
export type Item = Uint8Array | bigint | number | string | Point | ScalarItem | readonly Item[];

const NAMESPACE = "mpc-wallet/1/";

/** First byte of each encoded item. Never renumbered: hashes are stored and signed. */
const TYPE = { bytes: 1, nonNegative: 2, negative: 3, text: 4, point: 5, identity: 6, scalar: 7, list: 8 } as const;

function encodeInteger(value: bigint): Uint8Array {
  const magnitude = value < 0n ? -value : value;
  const hex = magnitude === 0n ? "" : magnitude.toString(16);
  return tagged(
    value < 0n ? TYPE.negative : TYPE.nonNegative,
    Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex"),
  );
}

/** Lone surrogates have no UTF-8 and would all become U+FFFD. */
function encodeText(value: string): Uint8Array {
  const utf8 = Buffer.from(value, "utf8");
  if (utf8.toString("utf8") !== value) throw new Bug("only well-formed text is hashed");
  return tagged(TYPE.text, utf8);
}

function tagged(type: number, ...payload: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat([Uint8Array.of(type), ...payload]);
}

function lengthPrefix(length: number): Uint8Array {
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32BE(length);
  return prefix;
}

/** Injective encoding of one item. */
function encode(item: Item): Uint8Array {
  if (item instanceof Uint8Array) return tagged(TYPE.bytes, item);
  if (typeof item === "bigint") return encodeInteger(item);
  if (typeof item === "number") {
    if (!Number.isSafeInteger(item)) throw new Bug("only safe integers are hashed", { item });
    return encodeInteger(BigInt(item));
  }
  if (typeof item === "string") return encodeText(item);
  if (item instanceof Point) return item.isIdentity ? tagged(TYPE.identity) : tagged(TYPE.point, item.toBytes());
  if ("scalar" in item) return tagged(TYPE.scalar, Buffer.from(item.scalar.toString(16).padStart(64, "0"), "hex"));
  const members = item.map(encode);
  return tagged(TYPE.list, ...members.flatMap((member) => [lengthPrefix(member.length), member]));
}

/** An endless stream of bytes that is a function of (domain, items) only. */
export interface Stream {
  bytes(length: number): Uint8Array;
}

/** Opens the stream of a typed tuple. `domain` is a fixed name of the purpose, such as "proof/aff-g". */
export function stream(domain: string, items: readonly Item[]): Stream {
  const hash = open(domain);
  for (const item of items) hash.update(encode(item));
  return { bytes: (length) => hash.xof(length) };
}

/** What absorbing a domain leaves; domains are fixed names, so there are few. */
const absorbedDomains = new Map<string, ReturnType<typeof tuplehash256xof.create>>();
/** Where one hash after the other is computed: half of a short hash is the absorbing of its domain, and making a state. */
let scratch: ReturnType<typeof tuplehash256xof.create> | undefined;

/** The 32-byte hash of a typed tuple. */
export function hashTuple(domain: string, items: readonly Item[]): Uint8Array {
  let absorbed = absorbedDomains.get(domain);
  if (absorbed === undefined) {
    absorbed = open(domain);
    absorbedDomains.set(domain, absorbed);
  }
  const encoded = items.map(encode);
  scratch = absorbed._cloneInto(scratch);
  for (const item of encoded) scratch.update(item);
  return scratch.xof(32);
}

const open = (domain: string) => tuplehash256xof.create({ personalization: Buffer.from(NAMESPACE + domain, "utf8") });

/** Uniform in [0, bound), by rejection: never reduced, never truncated. */
export function below(source: Stream, bound: bigint): bigint {
  if (bound <= 0n) throw new Bug("a bound is positive");
  const bits = bound.toString(2).length;
  const excess = BigInt(8 * Math.ceil(bits / 8) - bits);
  for (;;) {
    const bytes = source.bytes(Math.ceil(bits / 8));
    const value = BigInt(`0x${Buffer.from(bytes).toString("hex")}`) >> excess;
    if (value < bound) return value;
  }
}

/** A challenge in ±bound, both ends included. */
export function signedChallenge(domain: string, items: readonly Item[], bound: bigint = q): bigint {
  return below(stream(domain, items), 2n * bound + 1n) - bound;
}

/** A challenge in [0, q). */
export function scalarChallenge(domain: string, items: readonly Item[]): Scalar {
  return below(stream(domain, items), q) as Scalar;
}

/** `count` binary challenges. */
export function bitsChallenge(domain: string, items: readonly Item[], count: number): readonly boolean[] {
  const bytes = stream(domain, items).bytes(Math.ceil(count / 8));
  return Array.from({ length: count }, (_, index) => (((bytes[index >> 3] ?? 0) >> (index & 7)) & 1) === 1);
}

/** `count` challenges, each uniform in [0, bound). */
export function residuesChallenge(
  domain: string,
  items: readonly Item[],
  { count, bound }: { readonly count: number; readonly bound: bigint },
): readonly bigint[] {
  const source = stream(domain, items);
  return Array.from({ length: count }, () => below(source, bound));
}
