import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { sizeDelimitedDecodeStream, sizeDelimitedEncode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import { createAsyncIterable } from "@connectrpc/connect/protocol";
import { type Frame, FrameSchema } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { ByteQueue } from "../../src/network/byte-queue.js";
import { datagramBytes } from "../../src/network/datagram-size.js";
import { encodeData, encodeEnd, encodeHead, FrameReader } from "../../src/network/frame-codec.js";
import { DEFAULT_LIMITS } from "../../src/network/network-limits.js";
import { PacketBudget } from "../../src/network/packet-budget.js";
import { parsePacketHeader } from "../../src/network/packet-header.js";
import { RetryTokens } from "../../src/network/retry-token.js";
import { SampleWindow } from "../../src/network/sample-window.js";
import { streamUrgency, TRAFFIC_CLASSES, trafficRank } from "../../src/network/traffic-class.js";

/** Bytes that are the same in every run. */
function seededBytes(seed: string, length: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(length / 32) }, (_, index) =>
    createHash("sha256").update(`${seed} ${index}`).digest(),
  );
  return Buffer.concat(blocks).subarray(0, length);
}

function initial(token: Buffer): Buffer {
  const dcid = Buffer.alloc(16, 1);
  const scid = Buffer.alloc(8, 2);
  const length = Buffer.from([0x40 | (token.length >> 8), token.length & 0xff]);
  const ids = [Buffer.from([dcid.length]), dcid, Buffer.from([scid.length]), scid];
  return Buffer.concat([Buffer.from([0xc3, 0, 0, 0, 1]), ...ids, length, token, Buffer.alloc(40)]);
}

describe("datagram size", () => {
  it("only a loopback address gets datagrams that a network may not carry", () => {
    const sizeFor = (address: string) => datagramBytes(address, DEFAULT_LIMITS);
    for (const address of ["127.0.0.1", "127.8.4.2", "::1", "::ffff:127.0.0.1"]) assert.equal(sizeFor(address), 16_383);
    for (const address of [
      "10.0.0.1",
      "128.0.0.1",
      "0.0.0.0",
      "::",
      "fd00::1",
      "fe80::1%eth0",
      "::ffff:10.0.0.1",
      "",
    ]) {
      assert.equal(sizeFor(address), 1_350, address);
    }
  });
});

describe("packet header", () => {
  it("an Initial shows version, ids and token", () => {
    const header = parsePacketHeader(initial(Buffer.from("token")));
    assert.ok(header?.kind === "initial");
    assert.equal(header.version, 1);
    assert.deepEqual([header.dcid.length, header.scid.length, header.token.toString()], [16, 8, "token"]);
  });

  it("every truncation and 200,000 seeded random datagrams get an answer, never an exception", () => {
    const whole = initial(Buffer.alloc(64, 3));
    for (let cut = 0; cut < whole.length; cut++) parsePacketHeader(whole.subarray(0, cut));
    const noise = seededBytes("header", 40_000);
    let parsed = 0;
    for (let index = 0; index < 200_000; index++) {
      const at = (index * 6_151) % 39_000;
      const header = parsePacketHeader(noise.subarray(at, at + (index % 90)));
      if (header === undefined) continue;
      parsed += 1;
      assert.ok(header.dcid.length <= 20);
    }
    assert.ok(parsed > 10_000, `${parsed} were headers`);
  });

  it("a 0-RTT header has no token, a token over its limit is no header", () => {
    const zeroRtt = initial(Buffer.alloc(0));
    zeroRtt[0] = 0xd3;
    const header = parsePacketHeader(zeroRtt);
    assert.ok(header?.kind === "other-long");
    assert.equal(header.token.length, 0);
    assert.ok(parsePacketHeader(initial(Buffer.alloc(256))) !== undefined);
    assert.equal(parsePacketHeader(initial(Buffer.alloc(257))), undefined);
  });
});

describe("retry token", () => {
  const tokens = new RetryTokens(Buffer.alloc(32, 5));
  const claim = { source: "10.0.0.1:4433", originalDcid: Buffer.alloc(16, 6) };
  const dcid = tokens.connectionId(claim);
  const token = tokens.mint(claim, 50_000);

  it("comes back as the original connection id, for ten seconds", () => {
    for (const nowMs of [50_000, 60_000]) {
      assert.deepEqual(tokens.redeem(token, { source: claim.source, dcid, nowMs }), claim.originalDcid);
    }
    for (const nowMs of [49_999, 60_001]) {
      assert.equal(tokens.redeem(token, { source: claim.source, dcid, nowMs }), undefined);
    }
  });

  it("is worth nothing from another source, for another id, under another key, or with any bit changed", () => {
    const nowMs = 50_001;
    assert.equal(tokens.redeem(token, { source: "10.0.0.2:4433", dcid, nowMs }), undefined);
    assert.equal(tokens.redeem(token, { source: claim.source, dcid: Buffer.alloc(16), nowMs }), undefined);
    const others = new RetryTokens(Buffer.alloc(32, 7));
    assert.equal(others.redeem(token, { source: claim.source, dcid, nowMs }), undefined);
    for (let bit = 0; bit < token.length * 8; bit++) {
      const damaged = Buffer.from(token);
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.equal(tokens.redeem(damaged, { source: claim.source, dcid, nowMs }), undefined, `bit ${bit}`);
    }
    for (let cut = 0; cut < token.length; cut++) {
      assert.equal(tokens.redeem(token.subarray(0, cut), { source: claim.source, dcid, nowMs }), undefined);
    }
  });
});

describe("packet budget", () => {
  it("is spent per source and refilled by time", () => {
    const budget = new PacketBudget({ perSourcePerSecond: 10, perSecond: 1_000, nowMs: 0 });
    const taken = (source: string, nowMs: number) =>
      Array.from({ length: 20 }, () => budget.take(source, nowMs)).filter(Boolean).length;
    assert.equal(taken("a", 0), 10);
    assert.equal(taken("b", 0), 10);
    assert.equal(taken("a", 0), 0);
    assert.equal(taken("a", 500), 5);
  });

  it("is limited for everybody together, and a hundred thousand sources do not grow it", () => {
    const budget = new PacketBudget({ perSourcePerSecond: 10, perSecond: 100, nowMs: 0 });
    let taken = 0;
    for (let source = 0; source < 100_000; source++) if (budget.take(`source ${source}`, 0)) taken += 1;
    assert.equal(taken, 100);
  });
});

const limits = DEFAULT_LIMITS;

function framesOf(wire: Uint8Array, chunkBytes: number): Frame["kind"][] {
  const reader = new FrameReader(limits);
  const frames: Frame["kind"][] = [];
  // As the driver does it: what was pushed is overwritten by what comes next.
  const scratch = Buffer.alloc(Math.min(chunkBytes, wire.length));
  for (let at = 0; at < wire.length; at += chunkBytes) {
    const chunk = wire.subarray(at, at + chunkBytes);
    scratch.set(chunk);
    frames.push(...reader.push(scratch.subarray(0, chunk.length)));
    scratch.fill(0xff);
  }
  return frames;
}

function refuses(code: Code, action: () => unknown): void {
  assert.throws(action, (error) => error instanceof ConnectError && error.code === code);
}

describe("frames", () => {
  const head = encodeHead({ path: "/a.B/C", header: new Headers({ "content-type": "application/grpc" }) });
  const payload = seededBytes("frames", 300_000);
  const data = [...encodeData(payload, limits.frameBytes)];
  const end = encodeEnd(new Headers({ "grpc-status": "0" }));
  const wire = Buffer.concat([head, ...data, end]);

  it("are the size-delimited frames of the schema", async () => {
    const short = Buffer.concat([head, ...encodeData(payload.subarray(0, 200), limits.frameBytes), end]);
    const decoded: Frame["kind"][] = [];
    for await (const { kind } of sizeDelimitedDecodeStream(FrameSchema, createAsyncIterable([short])))
      decoded.push(kind);
    assert.deepEqual(
      decoded.map(({ case: name }) => name),
      ["head", "data", "end"],
    );
    const value = payload.subarray(0, 200);
    for (const bytes of [value, payload.subarray(0, 100_000)]) {
      const fast = Buffer.concat([...encodeData(bytes, limits.frameBytes)]);
      const slow = sizeDelimitedEncode(FrameSchema, create(FrameSchema, { kind: { case: "data", value: bytes } }));
      assert.ok(fast.equals(slow), `${bytes.length} bytes`);
    }
  });

  it("come out the same however they are cut", () => {
    for (const chunkBytes of [1, 7, 1_350, 65_536, wire.length]) {
      const frames = framesOf(chunkBytes === 1 ? wire.subarray(0, 2_000) : wire, chunkBytes);
      if (chunkBytes === 1) continue;
      // Large payloads are pieces of their own, so a frame is more than one piece.
      assert.equal(frames.length, 2 + Math.ceil(payload.length / (limits.frameBytes - 16)));
      const bytes = frames.flatMap((kind) => (kind.case === "data" ? [kind.value] : []));
      assert.ok(Buffer.concat(bytes).equals(payload), `${chunkBytes} bytes a chunk`);
    }
  });

  it("small ones come out the same wherever they are cut, prefixes too", () => {
    const pieces = [0, 1, 5, 126, 127, 128, 300].map((length) => payload.subarray(0, length));
    const small = Buffer.concat([head, ...pieces.flatMap((piece) => [...encodeData(piece, limits.frameBytes)]), end]);
    for (let chunkBytes = 1; chunkBytes <= small.length; chunkBytes++) {
      const frames = framesOf(small, chunkBytes);
      assert.deepEqual(
        frames.flatMap((kind) => (kind.case === "data" ? [Buffer.from(kind.value).toString("hex")] : [])),
        pieces.map((piece) => Buffer.from(piece).toString("hex")),
      );
      assert.deepEqual([frames.at(0)?.case, frames.at(-1)?.case], ["head", "end"]);
    }
  });

  it("a claim costs memory only in proportion to what came", () => {
    const [prefix = new Uint8Array(), body = new Uint8Array()] = encodeData(
      payload.subarray(0, 100_000),
      limits.frameBytes,
    );
    const before = process.memoryUsage().arrayBuffers;
    const readers = Array.from({ length: 200 }, () => {
      const each = new FrameReader(limits);
      each.push(head);
      each.push(prefix);
      each.push(body.subarray(0, 1_000));
      return each;
    });
    const grownBytes = process.memoryUsage().arrayBuffers - before;
    assert.equal(readers.length, 200);
    assert.ok(grownBytes < 200 * 4_096, `200 claims of 100,000 bytes cost ${grownBytes} bytes`);
  });

  it("data of every length around a varint boundary survives", () => {
    for (const length of [0, 1, 126, 127, 128, 129, 16_380, 16_383, 16_384, 16_385, 131_055, 131_056, 131_057]) {
      const value = payload.subarray(0, length);
      const frames = framesOf(Buffer.concat([head, ...encodeData(value, limits.frameBytes)]), 1 << 20);
      const bytes = frames.flatMap((kind) => (kind.case === "data" ? [kind.value] : []));
      assert.ok(Buffer.concat(bytes).equals(value), `${length} bytes`);
    }
  });

  it("over their limits are ResourceExhausted before they are collected", () => {
    refuses(Code.ResourceExhausted, () => new FrameReader(limits).push(Buffer.from([0x81, 0x80, 0x01])));
    refuses(Code.ResourceExhausted, () => {
      const reader = new FrameReader(limits);
      reader.push(head);
      reader.push(Buffer.from([0x81, 0x80, 0x08]));
    });
    refuses(Code.ResourceExhausted, () => new FrameReader(limits).push(Buffer.alloc(5, 0xff)));
    const fields = Array.from({ length: limits.headFields + 1 }, (_, index): [string, string] => [`x-${index}`, "v"]);
    refuses(Code.ResourceExhausted, () => framesOf(encodeHead({ header: new Headers(fields) }), 1 << 20));
    assert.equal(framesOf(encodeHead({ header: new Headers(fields.slice(1)) }), 1 << 20).length, 1);
  });

  it("out of order or undecodable are Internal", () => {
    const first = data[0] ?? Buffer.alloc(0);
    refuses(Code.Internal, () => framesOf(encodeEnd(), 100));
    refuses(Code.Internal, () => framesOf(Buffer.concat([head, head]), 1_000));
    refuses(Code.Internal, () => framesOf(Buffer.concat([head, end, end]), 1_000));
    refuses(Code.Internal, () => framesOf(Buffer.concat([head, end, [...encodeData(first, 200)][0] ?? end]), 1_000));
    refuses(Code.Internal, () => framesOf(Buffer.concat([head, Buffer.from([2, 0xff, 0xff])]), 1_000));
  });

  it("20,000 seeded random inputs get frames or a typed error", () => {
    const noise = seededBytes("noise", 70_000);
    for (let index = 0; index < 20_000; index++) {
      const at = (index * 3_571) % 69_000;
      try {
        const reader = new FrameReader(limits);
        if (index % 2 === 0) reader.push(head);
        reader.push(noise.subarray(at, at + (index % 200)));
      } catch (error) {
        assert.ok(error instanceof ConnectError, String(error));
      }
    }
  });

  it("the head's encoding is the golden one", () => {
    assert.equal(
      Buffer.from(head).toString("hex"),
      `2c0a2a0a062f612e422f431a200a0c636f6e74656e742d747970651210${Buffer.from("application/grpc").toString("hex")}`,
    );
    assert.equal(Buffer.from(end).toString("hex"), `141a120a100a0b${Buffer.from("grpc-status").toString("hex")}120130`);
    const round = fromBinary(FrameSchema, toBinary(FrameSchema, fromBinary(FrameSchema, head.subarray(1))));
    assert.equal(round.kind.case, "head");
  });
});

describe("byte queue", () => {
  const events = () => {
    const log: string[] = [];
    const note = (word: string) => () => void log.push(word);
    return { log, events: { full: note("full"), drained: note("drained"), abandoned: note("abandoned") } };
  };

  it("hands over bytes in order, slows the sender down and speeds it up again", async () => {
    const { log, events: told } = events();
    const queue = new ByteQueue(10_000, told);
    const pieces = [0, 1, 2].map((index) => new Uint8Array(5_000).fill(index));
    for (const [index, piece] of pieces.entries()) {
      queue.push(piece);
      assert.deepEqual(log, index < 2 ? [] : ["full"]);
    }
    for (const [index, piece] of pieces.entries()) {
      assert.equal((await queue.next()).value, piece);
      assert.deepEqual(log, index < 1 ? ["full"] : ["full", "drained"]);
    }
    assert.deepEqual(log, ["full", "drained"]);
    const waiting = queue.next();
    queue.push(new Uint8Array([9]));
    assert.equal((await waiting).value?.[0], 9);
    queue.end();
    assert.equal((await queue.next()).done, true);
  });

  it("delivers an error after the bytes before it", async () => {
    const queue = new ByteQueue(100, events().events);
    queue.push(new Uint8Array([1]));
    queue.end(new Error("broken"));
    assert.equal((await queue.next()).value?.[0], 1);
    await assert.rejects(queue.next(), /broken/);
  });

  it("tells when its reader leaves, once and not after the end", async () => {
    const { log, events: told } = events();
    const queue = new ByteQueue(100, told);
    await queue.return();
    await queue.return();
    assert.deepEqual(log, ["abandoned"]);
    const ended = events();
    const other = new ByteQueue(100, ended.events);
    other.end();
    await other.return();
    assert.deepEqual(ended.log, []);
  });
});

describe("small parts", () => {
  it("percentiles are of the last 128 samples", () => {
    const window = new SampleWindow();
    assert.equal(window.percentile(0.5), undefined);
    assert.equal(window.mean(), undefined);
    for (let value = 0; value < 1_000; value++) window.add(value);
    assert.equal(window.percentile(0), 872);
    assert.equal(window.percentile(0.5), 936);
    assert.equal(window.percentile(1), 999);
  });

  it("an invented traffic class is the least urgent", () => {
    assert.equal(trafficRank("root"), TRAFFIC_CLASSES.length - 1);
    assert.deepEqual(
      TRAFFIC_CLASSES.map((_, rank) => streamUrgency(rank)),
      [32, 64, 96, 128],
    );
  });

  it("the classes' calls are the connection's streams", () => {
    const sum = TRAFFIC_CLASSES.reduce((total, name) => total + limits.callsPerClass[name], 0);
    assert.equal(sum, limits.streams);
  });
});
