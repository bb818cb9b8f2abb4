/**
 * secp256k1: points and scalars as every protocol above uses them.
 *
 * The group is written multiplicatively in the paper (`g^x`); in code `g.times(x)` is `g^x` and `P.plus(Q)` is `P·Q`.
 * A point keeps its affine coordinates (65 bytes, uncompressed), which costs no inversion to serialize and is what
 * libsecp256k1 reads.
 *
 * Two ways to multiply, measured on the 2-core machine:
 * - `times` for secret scalars: the generator by libsecp256k1's making of public keys (0.11 ms, noble-curves 0.40), other points
 *   by noble-curves' constant-time `multiply` (2.4 ms);
 * - `timesPublic`, `productOfPowers`: libsecp256k1 in WebAssembly, variable time, public inputs only (0.2 ms).
 */
import { create } from "@bufbuild/protobuf";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import * as libsecp256k1 from "tiny-secp256k1";
import type { Point as PointMessage, Scalar as ScalarMessage } from "../../gen/mpcwallet/crypto/v1/elements_pb.js";
import { PointSchema, ScalarSchema } from "../../gen/mpcwallet/crypto/v1/elements_pb.js";
import type { Random } from "./ambient.js";
import { Bug, InvalidInput } from "./fault.js";

const Curve = secp256k1.Point;

/** Order of the group. */
export const q = Curve.Fn.ORDER;

declare const scalarBrand: unique symbol;
/** An integer in [0, q). */
export type Scalar = bigint & { readonly [scalarBrand]: true };

const POINT_BYTES = 33;
const SCALAR_BYTES = 32;

const asHex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");

function toBytes32(value: bigint): Uint8Array {
  if (value < 0n || value >= q) throw new Bug("a scalar lies in [0, q)");
  return new Uint8Array(Buffer.from(value.toString(16).padStart(64, "0"), "hex"));
}

/** Reduces any integer modulo q. */
export function scalar(value: bigint): Scalar {
  const rest = value % q;
  return (rest < 0n ? rest + q : rest) as Scalar;
}

/** Arithmetic in F_q; nothing here is constant time beyond what BigInt is. */
export const Scalar = {
  zero: 0n as Scalar,
  one: 1n as Scalar,
  plus: (a: Scalar, b: Scalar): Scalar => scalar(a + b),
  minus: (a: Scalar, b: Scalar): Scalar => scalar(a - b),
  times: (a: Scalar, b: Scalar): Scalar => scalar(a * b),
  negate: (a: Scalar): Scalar => scalar(-a),
  sum: (terms: Iterable<Scalar>): Scalar => {
    let total = 0n;
    for (const term of terms) total += term;
    return scalar(total);
  },

  /** a^-1 by Fermat's little theorem, whose steps depend on q only. Refuses 0. */
  invert(a: Scalar): Scalar {
    if (a === 0n) throw new InvalidInput("scalar-zero", "zero has no inverse");
    return Curve.Fn.pow(a, q - 2n) as Scalar;
  },

  /** a^-1 by Euclid, four times as fast. Variable time, public inputs only. Refuses 0. */
  invertPublic(a: Scalar): Scalar {
    if (a === 0n) throw new InvalidInput("scalar-zero", "zero has no inverse");
    return Curve.Fn.inv(a) as Scalar;
  },

  /** Uniform in [0, q), by rejection. */
  random(random: Random): Scalar {
    for (;;) {
      const bytes = random.bytes(SCALAR_BYTES);
      const value = BigInt(`0x${asHex(bytes)}`);
      bytes.fill(0);
      if (value < q) return value as Scalar;
    }
  },

  /** Uniform in [1, q), by rejection. */
  randomNonZero(random: Random): Scalar {
    for (;;) {
      const value = Scalar.random(random);
      if (value !== 0n) return value;
    }
  },

  /** 32 bytes, big-endian, canonical; refuses other lengths and values of q or more (InvalidInput). */
  parse(bytes: Uint8Array): Scalar {
    if (bytes.length !== SCALAR_BYTES) {
      throw new InvalidInput("scalar-length", "a scalar has 32 bytes", { length: bytes.length });
    }
    const value = BigInt(`0x${asHex(bytes)}`);
    if (value >= q) throw new InvalidInput("scalar-not-canonical", "a scalar is less than the group order");
    return value as Scalar;
  },

  toBytes: (a: Scalar): Uint8Array => toBytes32(a),
  toProto: (a: Scalar): ScalarMessage => create(ScalarSchema, { be32: toBytes32(a) }),
  /** Refuses an absent message like a malformed one (InvalidInput). */
  fromProto(message: ScalarMessage | undefined): Scalar {
    if (message === undefined) throw new InvalidInput("scalar-absent", "a scalar is missing");
    return Scalar.parse(message.be32);
  },
} as const;

/** An element of the group. The identity arises only from arithmetic: it neither parses nor serializes. */
export class Point {
  /** Uncompressed SEC1 encoding; undefined is the identity, or a point that was restored and not computed with yet. */
  #uncompressed: Uint8Array | undefined;
  /** SEC1 compressed, of a restored point until it is computed with. */
  #restored: Uint8Array | undefined;

  private constructor(sec1: Uint8Array | undefined) {
    this.#uncompressed = sec1;
  }

  get #sec1(): Uint8Array | undefined {
    if (this.#restored !== undefined) {
      this.#uncompressed = libsecp256k1.pointCompress(this.#restored, false);
      this.#restored = undefined;
    }
    return this.#uncompressed;
  }

  static readonly identity = new Point(undefined);
  /** The generator g. */
  static readonly base = new Point(Curve.BASE.toBytes(false));

  /** 33 bytes, SEC1 compressed, on the curve, not the identity (InvalidInput otherwise). Public inputs only. */
  static parse(bytes: Uint8Array): Point {
    if (bytes.length !== POINT_BYTES) {
      throw new InvalidInput("point-length", "a point has 33 bytes", { length: bytes.length });
    }
    if (bytes[0] !== 2 && bytes[0] !== 3) {
      throw new InvalidInput("point-encoding", "a point starts with 02 or 03", { prefix: bytes[0] ?? 0 });
    }
    if (!libsecp256k1.isPoint(bytes)) throw new InvalidInput("point-off-curve", "no such point on secp256k1");
    return new Point(libsecp256k1.pointCompress(bytes, false));
  }

  /**
   * The point of bytes that `toBytes` made and that an authenticated seal has kept since: neither checked nor, before it
   * is computed with, decompressed. Nothing else may come here: libsecp256k1 in WebAssembly is not meant to go on after
   * it was given bytes that are no point.
   */
  static restore(bytes: Uint8Array): Point {
    if (bytes.length !== POINT_BYTES) throw new Bug("a sealed point has 33 bytes");
    const point = new Point(undefined);
    point.#restored = Uint8Array.from(bytes);
    return point;
  }

  /** Refuses an absent message like a malformed one (InvalidInput). */
  static fromProto(message: PointMessage | undefined): Point {
    if (message === undefined) throw new InvalidInput("point-absent", "a point is missing");
    return Point.parse(message.sec1);
  }

  static #fromNoble(point: InstanceType<typeof Curve>): Point {
    return point.is0() ? Point.identity : new Point(point.toBytes(false));
  }

  get isIdentity(): boolean {
    return this.#restored === undefined && this.#uncompressed === undefined;
  }

  /** 33 bytes, SEC1 compressed. The identity has none: whoever serializes it has missed a check. */
  toBytes(): Uint8Array {
    if (this.#restored !== undefined) return this.#restored.slice();
    const sec1 = this.#sec1;
    if (sec1 === undefined) throw new Bug("the identity is never serialized");
    const bytes = sec1.slice(0, POINT_BYTES);
    bytes[0] = 2 + ((sec1[64] ?? 0) & 1);
    return bytes;
  }

  toProto(): PointMessage {
    return create(PointSchema, { sec1: this.toBytes() });
  }

  /** The affine x coordinate, an integer below the field's prime; r of ECDSA is this modulo q. */
  get x(): bigint {
    if (this.#sec1 === undefined) throw new Bug("the identity has no coordinates");
    return BigInt(`0x${asHex(this.#sec1.subarray(1, POINT_BYTES))}`);
  }

  get hasEvenY(): boolean {
    if (this.#sec1 === undefined) throw new Bug("the identity has no coordinates");
    return ((this.#sec1[64] ?? 0) & 1) === 0;
  }

  equals(other: Point): boolean {
    if (this.#sec1 === undefined || other.#sec1 === undefined) return this.#sec1 === other.#sec1;
    return Buffer.compare(this.#sec1, other.#sec1) === 0;
  }

  plus(other: Point): Point {
    if (this.#sec1 === undefined) return other;
    if (other.#sec1 === undefined) return this;
    const sum = libsecp256k1.pointAdd(this.#sec1, other.#sec1, false);
    return sum === null ? Point.identity : new Point(sum);
  }

  negate(): Point {
    return this.#sec1 === undefined ? this : Point.#fromNoble(Curve.fromBytes(this.#sec1).negate());
  }

  minus(other: Point): Point {
    return this.plus(other.negate());
  }

  /** P^k for a secret k, in constant time as far as PAPER.md says. */
  times(k: Scalar): Point {
    if (this.#sec1 === undefined || k === 0n) return Point.identity;
    if (this === Point.base) return Point.#publicKey(k);
    return Point.#fromNoble(Curve.fromBytes(this.#sec1).multiply(k));
  }

  /** g^k as libsecp256k1 makes public keys: every table entry is read, whatever k is. */
  static #publicKey(k: Scalar): Point {
    const bytes = toBytes32(k);
    try {
      const product = libsecp256k1.pointFromScalar(bytes, false);
      if (product === null) throw new Bug("a point of prime order has no vanishing multiple");
      return new Point(product);
    } finally {
      bytes.fill(0);
    }
  }

  /** P^k. Variable time, public inputs only. */
  timesPublic(k: Scalar): Point {
    if (this.#sec1 === undefined || k === 0n) return Point.identity;
    if (this === Point.base) return Point.#publicKey(k);
    const product = libsecp256k1.pointMultiply(this.#sec1, toBytes32(k), false);
    if (product === null) throw new Bug("a point of prime order has no vanishing multiple");
    return new Point(product);
  }

  static sum(points: Iterable<Point>): Point {
    let total = Point.identity;
    for (const point of points) total = total.plus(point);
    return total;
  }

  /** Π P_i^{k_i}. Variable time, public inputs only. */
  static productOfPowers(terms: Iterable<readonly [Point, Scalar]>): Point {
    let total = Point.identity;
    for (const [point, k] of terms) total = total.plus(point.timesPublic(k));
    return total;
  }
}

/**
 * λ_i(S): what share i is multiplied by when the set S interpolates at 0.
 * Refuses indices that are 0 modulo q or not distinct, and an i outside S (InvalidInput). Public inputs only.
 */
export function lagrangeCoefficient(index: number, indices: readonly number[]): Scalar {
  checkIndices(indices);
  if (!indices.includes(index)) throw new InvalidInput("index-absent", "the party is not in the set", { index });
  let numerator = 1n;
  let denominator = 1n;
  for (const j of indices) {
    if (j === index) continue;
    numerator *= BigInt(j); //         λ_i = Π_{j≠i} j / (j - i)
    denominator *= BigInt(j - index);
  }
  return Scalar.times(scalar(numerator), Scalar.invertPublic(scalar(denominator)));
}

/** Party indices are distinct integers from 1 to 65535 (InvalidInput otherwise). */
export function checkIndices(indices: readonly number[]): void {
  for (const index of indices) {
    if (!Number.isInteger(index) || index < 1 || index > 65535) {
      throw new InvalidInput("index-range", "a party index is from 1 to 65535", { index });
    }
  }
  if (new Set(indices).size !== indices.length) {
    throw new InvalidInput("index-duplicate", "party indices are distinct", { indices });
  }
}
