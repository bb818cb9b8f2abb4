import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { tuplehash256xof } from "@noble/hashes/sha3-addons.js";
import fc from "fast-check";
import { Point, q, Scalar, scalar } from "../../src/crypto/curve.js";
import {
  below,
  bitsChallenge,
  hashTuple,
  type Item,
  residuesChallenge,
  scalarChallenge,
  signedChallenge,
  stream,
} from "../../src/crypto/transcript.js";

const hex = (items: readonly Item[], domain = "test") => Buffer.from(hashTuple(domain, items)).toString("hex");
const bytes = (...values: number[]) => Uint8Array.from(values);

describe("transcript", () => {
  it("ambiguous tuples of different shapes, types and boundaries never collide", () => {
    const g = Point.base;
    const tuples: readonly (readonly Item[])[] = [
      [],
      [""],
      [[]],
      [[[]]],
      [[], []],
      ["a$", "b"],
      ["a", "$b"],
      ["a$b"],
      ["a", "$", "b"],
      [["a", "$"], "b"],
      ["a", ["$", "b"]],
      [["a", "$", "b"]],
      [bytes()],
      [bytes(0)],
      [bytes(0, 0)],
      [bytes(1)],
      [bytes(0, 1)],
      [bytes(0), bytes(1)],
      [0n],
      [1n],
      [-1n],
      [256n],
      [-256n],
      [{ scalar: scalar(0n) }],
      [{ scalar: scalar(1n) }],
      [bytes(...Buffer.from(`${"00".repeat(31)}01`, "hex"))],
      ["1"],
      ["0"],
      ["\u0000"],
      [g],
      [g.toBytes()],
      [Point.identity],
      [[g]],
    ];
    assert.equal(new Set(tuples.map((items) => hex(items))).size, tuples.length);
  });

  it("generated tuples collide only when they are the same tuple", () => {
    const small = fc.oneof(
      fc.string({ maxLength: 3, unit: fc.constantFrom("a", "$", "\u0000", "\u0001") }),
      fc.bigInt({ min: -300n, max: 300n }),
      fc.array(fc.constantFrom(0, 1, 36, 97), { maxLength: 3 }).map((values) => bytes(...values)),
      fc.bigInt({ min: 0n, max: 3n }).map((value) => ({ scalar: scalar(value) })),
    );
    const nested: fc.Arbitrary<Item> = fc.oneof(
      small,
      fc.array(fc.oneof(small, fc.array(small, { maxLength: 2 })), { maxLength: 3 }),
    );
    const shape = (item: Item): unknown => {
      if (item instanceof Uint8Array) return `b${Buffer.from(item).toString("hex")}`;
      if (typeof item === "bigint") return `i${item}`;
      if (typeof item === "string") return `t${item}`;
      if (Array.isArray(item)) return item.map(shape);
      return `s${(item as { scalar: bigint }).scalar}`;
    };
    const seen = new Map<string, string>();
    fc.assert(
      fc.property(fc.array(nested, { maxLength: 4 }), (items) => {
        const digest = hex(items);
        const described = JSON.stringify(items.map(shape));
        assert.equal(seen.get(digest) ?? described, described);
        seen.set(digest, described);
      }),
      { numRuns: 3000 },
    );
    assert.ok(seen.size > 1000);
  });

  it("domains separate", () => {
    assert.notEqual(hex(["a"], "x"), hex(["a"], "y"));
    assert.notEqual(hex(["a"], "xa"), hex([], "xa"));
  });

  it("is TupleHashXOF256 of SP 800-185 over type byte and payload", () => {
    const expected = tuplehash256xof([Buffer.from("01000102", "hex"), Buffer.from("0461", "hex")], {
      dkLen: 32,
      personalization: Buffer.from("mpc-wallet/1/test"),
    });
    assert.equal(hex([bytes(0, 1, 2), "a"]), Buffer.from(expected).toString("hex"));
    assert.equal(hex([]), "76c921ba864457c3cd7d8c6e465da1c8a2296aa87f0f30d351b27e3a1621bb24");
  });

  it("a stream read in pieces is the stream read at once", () => {
    const whole = stream("test", ["a"]).bytes(300);
    const source = stream("test", ["a"]);
    const pieces = Buffer.concat([source.bytes(1), source.bytes(135), source.bytes(164)]);
    assert.deepEqual(pieces, Buffer.from(whole));
  });

  it("challenges lie in their ranges and reach both halves", () => {
    let negative = 0;
    for (let index = 0; index < 400; index++) {
      const e = signedChallenge("test", [index]);
      assert.ok(-q <= e && e <= q);
      if (e < 0n) negative++;
      assert.ok(scalarChallenge("test", [index]) < q);
    }
    assert.ok(negative > 140 && negative < 260, `${negative} of 400 are negative`);
    const tiny = new Set(Array.from({ length: 200 }, (_, index) => signedChallenge("test", [index], 1n)));
    assert.deepEqual([...tiny].sort(), [-1n, 0n, 1n]);
  });

  it("bounded draws are uniform over the whole interval", () => {
    const counts = [0, 0, 0, 0, 0];
    const source = stream("test", ["uniform"]);
    for (let index = 0; index < 5000; index++) {
      const value = Number(below(source, 5n));
      counts[value] = (counts[value] ?? 0) + 1;
    }
    for (const count of counts) assert.ok(count > 850 && count < 1150, `${counts}`);
    assert.equal(below(source, 1n), 0n);
    assert.throws(() => below(source, 0n));
  });

  it("bits and residues have their exact count", () => {
    for (const count of [1, 7, 8, 127, 128, 256]) {
      assert.equal(bitsChallenge("test", ["bits"], count).length, count);
    }
    const ones = bitsChallenge("test", ["bits"], 256).filter((bit) => bit).length;
    assert.ok(ones > 90 && ones < 166);
    const residues = residuesChallenge("test", [], { count: 128, bound: 1n << 2047n });
    assert.equal(new Set(residues).size, 128);
  });

  it("is the beginning of the stream, whatever was hashed in between", () => {
    for (let index = 0; index < 60; index++) {
      const domain = `test/${index % 7}`;
      const items: Item[] = [index, new Uint8Array(5 * index).fill(index), ["list", BigInt(index) ** 20n]];
      const hash = hashTuple(domain, items);
      hashTuple("test/other", [hash, hash, hash, hash, hash]);
      assert.deepEqual(hashTuple(domain, items), hash);
      assert.deepEqual(hash, stream(domain, items).bytes(32));
    }
  });

  it("refuses to hash what has no exact encoding", () => {
    assert.throws(() => hashTuple("test", [0.5]));
    assert.throws(() => hashTuple("test", [2 ** 53]));
    assert.throws(() => hashTuple("test", ["\ud800"]));
    assert.equal(hex([7]), hex([7n]));
    assert.notEqual(hex([Scalar.one]), hex([{ scalar: Scalar.one }]));
  });
});
