import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type DigestItem, digest } from "../../src/consensus/digest.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const of = (...items: DigestItem[]): string => hex(digest("test/v1", items));
const text = (value: string): DigestItem => ({ text: value });
const bytes = (...values: number[]): DigestItem => ({ bytes: Uint8Array.from(values) });

describe("digest", () => {
  it("is SHA-256 over tagged, length-prefixed items, so that any language can compute it", () => {
    const encoded = Buffer.concat([
      Buffer.from("t\0\0\0\x07test/v1", "latin1"),
      Buffer.from("t\0\0\0\x01a", "latin1"),
      Buffer.from("b\0\0\0\x02\x01\x02", "latin1"),
      Buffer.from("u\0\0\0\x08\0\0\0\0\0\0\x01\0", "latin1"),
      Buffer.from("l\0\0\0\x01t\0\0\0\0", "latin1"),
    ]);
    const expected = createHash("sha256").update(encoded).digest("hex");
    assert.equal(of(text("a"), bytes(1, 2), { uint: 256n }, { list: [text("")] }), expected);
  });

  it("separates what plain concatenation would confuse", () => {
    const distinct = [
      of(text("a$"), text("b")),
      of(text("a"), text("$b")),
      of(text("a$b")),
      of(text("a$b"), text("")),
      of(text(""), text("a$b")),
      of({ list: [text("a$"), text("b")] }),
      of({ list: [text("a$")] }, text("b")),
      of({ list: [{ list: [text("a$")] }, text("b")] }),
      of(bytes(0x61)),
      of(text("a")),
      of(bytes(0, 0x61)),
      of(bytes(0, 0, 0, 0, 0, 0, 0, 1)),
      of({ uint: 1 }),
      of(),
      of({ list: [] }),
      hex(digest("test/v2", [])),
    ];
    assert.equal(new Set(distinct).size, distinct.length);
  });

  it("different lists of items have different digests", () => {
    const { item } = fc.letrec<{ item: DigestItem }>((tie) => ({
      item: fc.oneof(
        { maxDepth: 3 },
        fc.string({ maxLength: 3 }).map(text),
        fc.uint8Array({ maxLength: 3 }).map((value) => ({ bytes: value })),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((uint) => ({ uint })),
        fc.array(tie("item"), { maxLength: 3 }).map((list) => ({ list })),
      ),
    }));
    const key = (value: unknown): string =>
      JSON.stringify(value, (_, inner: unknown) =>
        inner instanceof Uint8Array ? `b${hex(inner)}` : typeof inner === "bigint" ? `u${inner}` : inner,
      );
    fc.assert(
      fc.property(fc.array(item, { maxLength: 4 }), fc.array(item, { maxLength: 4 }), (a, b) => {
        assert.equal(of(...a) === of(...b), key(a) === key(b));
      }),
      { numRuns: 500 },
    );
  });

  it("refuses integers that do not fit", () => {
    for (const uint of [-1n, 2n ** 64n]) assert.throws(() => of({ uint }), { kind: "bug" });
  });
});
