import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { PointSchema, ScalarSchema } from "../../gen/mpcwallet/crypto/v1/elements_pb.js";
import type { Random } from "../../src/crypto/ambient.js";
import { checkIndices, lagrangeCoefficient, Point, q, Scalar, scalar } from "../../src/crypto/curve.js";
import { Bug, InvalidInput } from "../../src/crypto/fault.js";

const random: Random = { bytes: (length) => randomBytes(length) };
const g = Point.base;
const p = 2n ** 256n - 2n ** 32n - 977n;

/** Textbook affine arithmetic of y² = x³ + 7 in BigInt: independent of both libraries. */
const inverse = (a: bigint): bigint => {
  let [result, base, exponent] = [1n, ((a % p) + p) % p, p - 2n];
  for (; exponent > 0n; exponent >>= 1n, base = (base * base) % p) if (exponent & 1n) result = (result * base) % p;
  return result;
};
type Affine = readonly [bigint, bigint] | undefined;
const add = (a: Affine, b: Affine): Affine => {
  if (a === undefined) return b;
  if (b === undefined) return a;
  if (a[0] === b[0] && (a[1] + b[1]) % p === 0n) return undefined;
  const slope = a[0] === b[0] ? 3n * a[0] * a[0] * inverse(2n * a[1]) : (b[1] - a[1]) * inverse(b[0] - a[0]);
  const x = (((slope * slope - a[0] - b[0]) % p) + p) % p;
  return [x, (((slope * (a[0] - x) - a[1]) % p) + p) % p];
};
const G: Affine = [
  0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
  0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
];
const power = (point: Affine, k: bigint): Affine => {
  let total: Affine;
  let doubled = point;
  for (let rest = k; rest > 0n; rest >>= 1n, doubled = add(doubled, doubled))
    if (rest & 1n) total = add(total, doubled);
  return total;
};
const encoded = (point: Affine): string =>
  point === undefined ? "identity" : (point[1] & 1n ? "03" : "02") + point[0].toString(16).padStart(64, "0");
const hex = (point: Point): string => (point.isIdentity ? "identity" : Buffer.from(point.toBytes()).toString("hex"));

const refusal = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

describe("curve", () => {
  it("secret and public multiplication agree with textbook arithmetic", () => {
    const edges = [0n, 1n, 2n, 3n, q - 1n, q - 2n, 1n << 255n, (1n << 128n) - 1n].map(scalar);
    for (const k of [...edges, ...Array.from({ length: 12 }, () => Scalar.random(random))]) {
      const expected = encoded(power(G, k));
      assert.equal(hex(g.times(k)), expected);
      assert.equal(hex(g.timesPublic(k)), expected);
      const h = g.timesPublic(scalar(7n));
      const expectedH = encoded(power(power(G, 7n), k));
      assert.equal(hex(h.times(k)), expectedH);
      assert.equal(hex(h.timesPublic(k)), expectedH);
    }
  });

  it("addition covers doubling, inverses and the identity", () => {
    const P = g.times(scalar(5n));
    assert.equal(hex(P.plus(P)), encoded(power(G, 10n)));
    assert.ok(P.minus(P).isIdentity);
    assert.ok(P.plus(Point.identity).equals(P));
    assert.ok(Point.identity.plus(P).equals(P));
    assert.ok(Point.identity.negate().isIdentity);
    assert.ok(Point.identity.times(Scalar.one).isIdentity);
    assert.ok(!P.equals(Point.identity) && Point.identity.equals(Point.identity));
    assert.ok(Point.sum([P, P, P.negate()]).equals(P));
    const sum = Point.productOfPowers([
      [P, scalar(3n)],
      [g, scalar(-15n)],
    ]);
    assert.ok(sum.isIdentity);
  });

  it("a restored point is the point, before and after it was computed with", () => {
    for (let round = 0; round < 20; round++) {
      const point = g.times(Scalar.randomNonZero(random));
      const bytes = point.toBytes();
      const restored = Point.restore(bytes);
      bytes.fill(0); // it keeps a copy
      assert.equal(restored.isIdentity, false);
      assert.deepEqual(restored.toBytes(), point.toBytes());
      assert.ok(restored.equals(point) && point.equals(restored));
      assert.equal(restored.x, point.x);
      assert.equal(restored.hasEvenY, point.hasEvenY);
      assert.deepEqual(restored.toBytes(), point.toBytes());
      const k = Scalar.random(random);
      assert.ok(Point.restore(point.toBytes()).timesPublic(k).equals(point.times(k)));
      assert.ok(point.plus(Point.restore(point.negate().toBytes())).isIdentity);
    }
  });

  it("points round-trip in canonical form only", () => {
    for (let k = 1n; k < 40n; k++) {
      const point = g.timesPublic(scalar(k));
      assert.ok(Point.parse(point.toBytes()).equals(point));
      assert.ok(Point.fromProto(point.toProto()).equals(point));
      assert.equal(point.hasEvenY, point.toBytes()[0] === 2);
    }
    const offCurve = Buffer.from(`02${"0".repeat(63)}5`, "hex");
    const beyondField = Buffer.from(`02${p.toString(16)}`, "hex");
    assert.throws(() => Point.restore(new Uint8Array(32)), Bug);
    assert.throws(() => Point.parse(offCurve), refusal("point-off-curve"));
    assert.throws(() => Point.parse(beyondField), refusal("point-off-curve"));
    assert.throws(() => Point.parse(new Uint8Array(33)), refusal("point-encoding"));
    assert.throws(() => Point.parse(Uint8Array.of(0)), refusal("point-length"));
    assert.throws(() => Point.parse(new Uint8Array(0)), refusal("point-length"));
    assert.throws(() => Point.parse(new Uint8Array(10_000_000)), refusal("point-length"));
    assert.throws(() => Point.parse(new Uint8Array(65).fill(4)), refusal("point-length"));
    assert.throws(() => Point.fromProto(undefined), refusal("point-absent"));
    assert.throws(() => Point.fromProto(create(PointSchema, {})), refusal("point-length"));
    assert.throws(() => Point.identity.toBytes(), Bug);
    assert.throws(() => Point.identity.x, Bug);
  });

  it("scalars round-trip in canonical form only", () => {
    for (const k of [0n, 1n, q - 1n].map(scalar)) {
      assert.equal(Scalar.parse(Scalar.toBytes(k)), k);
      assert.equal(Scalar.fromProto(Scalar.toProto(k)), k);
    }
    assert.throws(() => Scalar.parse(Buffer.from(q.toString(16), "hex")), refusal("scalar-not-canonical"));
    assert.throws(() => Scalar.parse(new Uint8Array(31)), refusal("scalar-length"));
    assert.throws(() => Scalar.parse(new Uint8Array(33)), refusal("scalar-length"));
    assert.throws(() => Scalar.parse(new Uint8Array(10_000_000)), refusal("scalar-length"));
    assert.throws(() => Scalar.fromProto(undefined), refusal("scalar-absent"));
    assert.throws(() => Scalar.fromProto(create(ScalarSchema, {})), refusal("scalar-length"));
    assert.equal(scalar(-1n), q - 1n);
    assert.throws(() => Scalar.invert(Scalar.zero), refusal("scalar-zero"));
    assert.throws(() => Scalar.invertPublic(Scalar.zero), refusal("scalar-zero"));
    for (let index = 0; index < 50; index++) {
      const a = Scalar.randomNonZero(random);
      assert.equal(Scalar.times(a, Scalar.invert(a)), 1n);
      assert.equal(Scalar.invertPublic(a), Scalar.invert(a));
    }
  });

  it("random scalars are drawn by rejection, not reduction", () => {
    const draws = [Buffer.alloc(32, 0xff), Buffer.from(q.toString(16), "hex"), Buffer.alloc(32), Buffer.alloc(32, 1)];
    const scripted: Random = { bytes: () => draws.shift() ?? assert.fail("drew too often") };
    assert.equal(Scalar.randomNonZero(scripted), BigInt(`0x${"01".repeat(32)}`));
    assert.equal(draws.length, 0);
  });

  it("Lagrange coefficients interpolate any t of n, and refuse hostile sets", () => {
    const f = [11n, 22n, 33n];
    const at = (x: bigint) => scalar((f[0] ?? 0n) + (f[1] ?? 0n) * x + (f[2] ?? 0n) * x * x);
    for (const set of [
      [1, 2, 3],
      [5, 1, 3],
      [65535, 2, 40000],
    ]) {
      const secret = Scalar.sum(set.map((i) => Scalar.times(lagrangeCoefficient(i, set), at(BigInt(i)))));
      assert.equal(secret, 11n);
    }
    assert.throws(() => lagrangeCoefficient(1, [1, 0]), refusal("index-range"));
    assert.throws(() => lagrangeCoefficient(1, [1, 2, 2]), refusal("index-duplicate"));
    assert.throws(() => lagrangeCoefficient(1, [1, 1.5]), refusal("index-range"));
    assert.throws(() => lagrangeCoefficient(4, [1, 2]), refusal("index-absent"));
    assert.throws(() => checkIndices([-1]), refusal("index-range"));
    assert.throws(() => checkIndices([65536]), refusal("index-range"));
  });
});
