import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { inflateRawSync } from "node:zlib";
import fc from "fast-check";
import {
  decodeMark,
  encodeMark,
  markScript,
  marksRequest,
  needsKeeping,
  OP_RETURN_BYTES,
  OP_RETURN_SCRIPT_BYTES,
  readMarkScript,
} from "../../src/wallet/op-return.js";

const REQUEST = {
  requestId: "0b1e8d0a-6f0d-4f6e-9d1c-3b5d2a1c4e7f",
  createdAtMs: 1_800_000_000_123,
  metadataJson: '{"a":1}',
};

describe("OP_RETURN mark", () => {
  it("has the fields of the blueprint at their places", () => {
    const mark = Buffer.from(encodeMark(REQUEST));
    assert.equal(mark.length, OP_RETURN_BYTES);
    assert.equal(mark.toString("ascii", 0, 4), "MPCW");
    assert.equal(mark.readUInt32BE(4), 1);
    assert.equal(mark.readBigUInt64BE(8), 1_800_000_000_123n);
    assert.equal(mark.toString("ascii", 16, 48), "0b1e8d0a6f0d4f6e9d1c3b5d2a1c4e7f");
    assert.equal(inflateRawSync(mark.subarray(49, 49 + (mark[48] ?? 0))).toString(), '{"a":1}');
  });

  it("holds short JSON itself and the SHA-256 of longer JSON", () => {
    const short = decodeMark(encodeMark(REQUEST));
    assert.deepEqual(short?.metadata, { form: "json", json: '{"a":1}' });
    assert.ok(!needsKeeping(REQUEST.metadataJson));
    const metadataJson = JSON.stringify({ purpose: "invoice 2026/117, Müller & Co, delivery of the 3rd" });
    const long = decodeMark(encodeMark({ ...REQUEST, metadataJson }));
    assert.ok(needsKeeping(metadataJson));
    assert.ok(long?.metadata.form === "sha256");
    assert.deepEqual(Buffer.from(long.metadata.sha256), createHash("sha256").update(metadataJson).digest());
  });

  it("survives encoding, and marks its own request only", () => {
    fc.assert(
      fc.property(
        fc.uuid(),
        fc.nat({ max: 2 ** 48 }),
        fc.json({ maxDepth: 2 }),
        fc.uuid(),
        (requestId, createdAtMs, metadataJson, otherId) => {
          const request = { requestId, createdAtMs, metadataJson };
          const mark = readMarkScript(markScript(encodeMark(request)));
          assert.ok(mark);
          assert.ok(marksRequest(mark, request));
          assert.equal(marksRequest(mark, { ...request, requestId: otherId }), requestId === otherId);
          assert.ok(!marksRequest(mark, { ...request, createdAtMs: createdAtMs + 1 }));
          assert.ok(!marksRequest(mark, { ...request, metadataJson: `${metadataJson} ` }));
        },
      ),
      { numRuns: 300 },
    );
  });

  it("decoding is total and strict", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 90 }), (bytes) => {
        assert.equal(decodeMark(bytes), undefined);
      }),
      { numRuns: 300 },
    );
    const good = encodeMark(REQUEST);
    fc.assert(
      fc.property(fc.nat({ max: 79 }), fc.integer({ min: 1, max: 255 }), (place, flip) => {
        const mark = decodeMark(good.map((byte, index) => (index === place ? byte ^ flip : byte)));
        // DEFLATE leaves bits of its last byte unused: there another byte may say the same JSON, and nothing else may.
        const sameJson = mark?.metadata.form === "json" && mark.metadata.json === REQUEST.metadataJson && place >= 49;
        if (mark !== undefined && !sameJson) assert.ok(!marksRequest(mark, REQUEST));
      }),
      { numRuns: 500 },
    );
    for (const bytes of [good.slice(1), Uint8Array.from([...good, 0])]) assert.equal(decodeMark(bytes), undefined);
    const version3 = Uint8Array.from(good);
    version3[7] = 3;
    assert.equal(decodeMark(version3), undefined);
    const padded = Uint8Array.from(good);
    padded[79] = 1;
    assert.equal(decodeMark(padded), undefined);
  });

  it("a script of another form is no mark", () => {
    const script = markScript(encodeMark(REQUEST));
    assert.equal(script.length, OP_RETURN_SCRIPT_BYTES);
    assert.deepEqual([...script.slice(0, 3)], [0x6a, 0x4c, 80]);
    for (const other of [script.slice(1), script.map((byte, index) => (index === 2 ? 79 : byte)), new Uint8Array(83)]) {
      assert.equal(readMarkScript(other), undefined);
    }
  });
});
