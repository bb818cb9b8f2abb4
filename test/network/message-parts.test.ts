import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { BytesValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { createAsyncIterable } from "@connectrpc/connect/protocol";
import { ByteQueue } from "../../src/network/byte-queue.js";
import { encodeMessage, FrameReader } from "../../src/network/frame-codec.js";
import { MessageAssembler } from "../../src/network/message-assembler.js";
import { MessageReader } from "../../src/network/message-reader.js";
import { DEFAULT_LIMITS } from "../../src/network/network-limits.js";
import { Pieces } from "../../src/network/pieces.js";
import { grpcMessage } from "./hostile-requests.js";
import { Dice } from "./network-fuzz.js";

const bytesOf = (length: number, seed = 1) => new Dice(seed).bytes(length);

/** Cuts bytes into pieces of lengths that `next` gives. */
function cut(bytes: Buffer, next: () => number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + next();
    pieces.push(bytes.subarray(at, end));
    at = end;
  }
  return pieces;
}

describe("pieces", () => {
  it("come out as they went in, however they are cut and taken", () => {
    const whole = bytesOf(200_000);
    for (let seed = 0; seed < 40; seed++) {
      const dice = new Dice(seed);
      const lengths = [1, 3, 700, 2_047, 2_048, 2_049, 30_000];
      const pieces = new Pieces();
      const out: Uint8Array[] = [];
      for (const piece of cut(whole, () => lengths[dice.below(lengths.length)] ?? 1)) {
        pieces.add(piece);
        if (dice.below(5) === 0) out.push(pieces.shift() ?? Buffer.alloc(0));
        if (dice.below(50) === 0) out.push(...pieces.takeAll());
        if (dice.below(50) === 0) out.push(pieces.takeJoined());
      }
      const taken = out.reduce((sum, { length }) => sum + length, 0);
      assert.equal(pieces.bytes, whole.length - taken, `seed ${seed}`);
      for (let piece = pieces.shift(); piece !== undefined; piece = pieces.shift()) out.push(piece);
      assert.equal(pieces.bytes, 0);
      assert.ok(Buffer.concat(out).equals(whole), `seed ${seed}`);
    }
  });

  it("a hundred thousand of one byte are a handful, and large ones are not copied", () => {
    const pieces = new Pieces();
    const whole = bytesOf(100_000);
    for (const piece of cut(whole, () => 1)) pieces.add(piece);
    const joined = pieces.takeAll();
    assert.ok(joined.length <= 10, `${joined.length} pieces`);
    assert.ok(Buffer.concat(joined).equals(whole));
    const large = bytesOf(2_048);
    const lone = bytesOf(5);
    for (const piece of [large, lone]) pieces.add(piece);
    assert.equal(pieces.shift(), large);
    assert.equal(pieces.shift(), lone);
  });

  it("what was given away is not written into any more", () => {
    const pieces = new Pieces();
    for (const byte of [1, 2, 3]) pieces.add(Buffer.from([byte]));
    const first = pieces.shift();
    for (const byte of [4, 5, 6, 7]) pieces.add(Buffer.from([byte]));
    assert.deepEqual([...(first ?? [])], [1, 2, 3]);
    assert.deepEqual([...pieces.takeJoined()], [4, 5, 6, 7]);
  });
});

describe("a byte queue of small pieces", () => {
  it("hands them over together", async () => {
    const queue = new ByteQueue(2 ** 20, { full: () => {}, drained: () => {}, abandoned: () => {} });
    const whole = bytesOf(50_000);
    for (const piece of cut(whole, () => 1)) queue.push(piece);
    queue.end();
    const read: Uint8Array[] = [];
    for await (const piece of queue) read.push(piece);
    assert.ok(read.length <= 5, `${read.length} pieces`);
    assert.ok(Buffer.concat(read).equals(whole));
  });

  it("tells when all of it is taken, and is empty then", async () => {
    let emptied = 0;
    const queue = new ByteQueue(100, {
      ...{ full: () => {}, drained: () => {}, abandoned: () => {} },
      emptied: () => (emptied += 1),
    });
    assert.ok(queue.isEmpty);
    for (let index = 0; index < 2; index++) queue.push(new Uint8Array(5_000));
    await queue.next();
    assert.deepEqual([queue.isEmpty, emptied], [false, 0]);
    await queue.next();
    assert.deepEqual([queue.isEmpty, emptied], [true, 1]);
  });
});

describe("message assembler", () => {
  const messages = [0, 1, 5, 300, 0, 70_000, 16].map((length) => {
    const message = grpcMessage(length);
    bytesOf(length).copy(message, 5);
    return message;
  });

  it("hands on whole messages only, however the body is cut", () => {
    const body = Buffer.concat(messages);
    const ends = new Set<number>([0]);
    let end = 0;
    for (const { length } of messages) {
      end += length;
      ends.add(end);
    }
    for (let seed = 0; seed < 60; seed++) {
      const dice = new Dice(seed);
      const most = [1, 7, 500, 40_000, 100_000][seed % 5] ?? 1;
      // Smaller parts of one message are refused.
      const least = most < 40_000 ? 1_024 : 1;
      const assembler = new MessageAssembler(100_000);
      const out: Uint8Array[] = [];
      let arrived = 0;
      let passed = 0;
      for (const piece of cut(body, () => least + dice.below(most))) {
        arrived += piece.length;
        for (const part of assembler.push(piece)) {
          out.push(part);
          passed += part.length;
        }
        assert.ok(ends.has(passed), `seed ${seed}: ${passed} is no end of a message`);
        assert.equal(assembler.heldBytes, arrived - passed);
        // All that is whole has passed.
        assert.ok([...ends].every((at) => at > arrived || at <= passed));
      }
      assert.ok(Buffer.concat(out).equals(body), `seed ${seed}`);
      assert.deepEqual(assembler.rest(), []);
    }
  });

  it("gives the rest of a message that never became whole", () => {
    const assembler = new MessageAssembler(1_000);
    assert.deepEqual(assembler.push(grpcMessage(10).subarray(0, 8)), []);
    assert.equal(assembler.heldBytes, 8);
    assert.equal(Buffer.concat(assembler.rest()).length, 8);
    assert.equal(assembler.heldBytes, 0);
  });

  it("refuses a message in more than 64 small parts; parts of 1 KB are not small, the last one may be", () => {
    const body = grpcMessage(200_000);
    const inParts = (partBytes: number, parts: number) => {
      const assembler = new MessageAssembler(200_000);
      for (let part = 0; part < parts; part++) assembler.push(body.subarray(part * partBytes, (part + 1) * partBytes));
    };
    inParts(1_024, 196);
    inParts(1_023, 64);
    for (const partBytes of [1, 1_023]) {
      assert.throws(
        () => inParts(partBytes, 65),
        (error) => error instanceof ConnectError && error.code === Code.ResourceExhausted,
      );
    }
    // Each of these ends a message.
    const assembler = new MessageAssembler(100);
    for (let message = 0; message < 200; message++) assert.equal(assembler.push(grpcMessage(3)).length, 1);
  });

  it("shows the reader at once what claims more than the limit, and holds nothing of it", () => {
    for (const [claimed, passes] of [
      [1_000, 0],
      [1_001, 5],
      [0xffff_ffff, 5],
    ] as const) {
      const assembler = new MessageAssembler(1_000);
      const out = assembler.push(grpcMessage(0, claimed));
      assert.equal(Buffer.concat(out).length, passes, `${claimed}`);
      assert.equal(assembler.heldBytes, 5 - passes);
      if (passes > 0) assert.equal(Buffer.concat(assembler.push(Buffer.alloc(50))).length, 50);
    }
  });
});

describe("a reader of messages", () => {
  const maxBytes = 10_000;
  const framed = (message: Uint8Array): Buffer => {
    const frames = new FrameReader(DEFAULT_LIMITS);
    frames.push(Buffer.from([2, 10, 0])); // an empty head
    const kinds = frames.push(Buffer.concat([...encodeMessage(message, DEFAULT_LIMITS.frameBytes)]));
    return Buffer.concat(kinds.map((kind) => (kind.case === "data" ? kind.value : Buffer.alloc(0))));
  };
  const message = (bytes: Uint8Array): Buffer =>
    framed(toBinary(BytesValueSchema, create(BytesValueSchema, { value: bytes })));
  const readerOf = (pieces: Uint8Array[], atEnd?: () => void) =>
    new MessageReader(BytesValueSchema, createAsyncIterable(pieces)[Symbol.asyncIterator](), {
      maxBytes,
      ...(atEnd === undefined ? {} : { atEnd }),
    });
  const code = (expected: Code) => (error: unknown) => {
    assert.ok(error instanceof ConnectError, String(error));
    assert.equal(Code[error.code], Code[expected], error.message);
    return true;
  };

  it("gives them as they were written, however their bytes are cut, and copies of nobody's buffer class", async () => {
    const written = [0, 1, 200, 9_000, 0, 4_000].map((length, index) => bytesOf(length, index + 1));
    const whole = Buffer.concat(written.map(message));
    for (let seed = 0; seed < 40; seed++) {
      const dice = new Dice(seed);
      const lengths = [1, 4, 5, 6, 700, 9_003, 30_000];
      let ends = 0;
      const read: string[] = [];
      const reader = readerOf(
        cut(whole, () => lengths[dice.below(lengths.length)] ?? 1),
        () => ends++,
      );
      for await (const { value } of reader) {
        assert.ok(!Buffer.isBuffer(value), "a slice of it is a copy");
        read.push(Buffer.from(value).toString("hex"));
      }
      assert.deepEqual(
        read,
        written.map((bytes) => bytes.toString("hex")),
        `seed ${seed}`,
      );
      assert.equal(ends, 1);
    }
  });

  it("only() is the one message, nothing for none, and a refusal for two", async () => {
    assert.equal((await readerOf([message(Buffer.from("a"))]).only())?.value.length, 1);
    assert.equal(await readerOf([]).only(), undefined);
    await assert.rejects(
      readerOf([message(Buffer.from("a")), message(Buffer.from("b"))]).only(),
      code(Code.Unimplemented),
    );
  });

  it("refuses what is too large before it is whole, compressed, cut off or no such message", async () => {
    const claimed = Buffer.from([0, 0, 0, 0x27, 0x11]); // 10,001
    await assert.rejects(readerOf([claimed]).next(), code(Code.ResourceExhausted));
    await assert.rejects(readerOf([Buffer.from([1, 0, 0, 0, 0])]).next(), code(Code.Internal));
    await assert.rejects(readerOf([message(Buffer.from("abc")).subarray(0, 7)]).next(), code(Code.InvalidArgument));
    await assert.rejects(readerOf([Buffer.from([0, 0])]).next(), code(Code.InvalidArgument));
    await assert.rejects(readerOf([framed(Buffer.from([0xff]))]).next(), code(Code.Internal));
  });

  it("ends as it is told to, and leaves its source when it is left", async () => {
    const end = new ConnectError("the status", Code.NotFound);
    const reader = readerOf([message(Buffer.from("a"))], () => {
      throw end;
    });
    assert.equal((await reader.next()).done, false);
    await assert.rejects(reader.next(), end);
    let isLeft = false;
    const source = {
      next: async () => ({ done: false as const, value: message(Buffer.from("a")) }),
      return: async () => {
        isLeft = true;
        return { done: true as const, value: undefined };
      },
    };
    for await (const _ of new MessageReader(BytesValueSchema, source, { maxBytes })) break;
    assert.ok(isLeft);
  });
});
