import { createSocket } from "node:dgram";
import { ConnectError } from "@connectrpc/connect";
import { FrameReader } from "../../src/network/frame-codec.js";
import { DEFAULT_LIMITS } from "../../src/network/network-limits.js";
import { parsePacketHeader } from "../../src/network/packet-header.js";
import { QuicStream } from "../../src/network/quic-stream.js";
import { percentile, smallCalls } from "./bulk-service.js";
import { TestAuthority } from "./test-certificates.js";
import { control, startNode, statusOf } from "./test-mesh.js";
import { UdpProxy } from "./udp-proxy.js";

/** Numbers that are the same for the same seed. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** 0 to bound - 1. */
  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % bound;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }
}

/** Something like a recorded piece: with bits flipped, cut, joined with another one, repeated, or made up. */
export function mutate(pieces: readonly Buffer[], dice: Dice): Buffer {
  const pick = () => Buffer.from(pieces[dice.below(pieces.length)] ?? Buffer.alloc(1));
  const piece = pick();
  switch (dice.below(7)) {
    case 0:
    case 1:
      for (let flips = 1 + dice.below(8); flips > 0; flips--) {
        const at = dice.below(piece.length);
        piece[at] = (piece[at] ?? 0) ^ (1 << dice.below(8));
      }
      return piece;
    case 2:
      return piece.subarray(0, dice.below(piece.length + 1));
    case 3: {
      const other = pick();
      return Buffer.concat([piece.subarray(0, dice.below(piece.length + 1)), other.subarray(dice.below(other.length))]);
    }
    case 4:
      // As recorded: a duplicate, out of order.
      return piece;
    case 5: {
      // Only the first bytes stay: a header that is known with a body that is not.
      const kept = Math.min(piece.length, 1 + dice.below(40));
      return Buffer.concat([piece.subarray(0, kept), dice.bytes(dice.below(60))]);
    }
    default:
      return dice.bytes(dice.below(120));
  }
}

/** What a run found. */
export interface FuzzSummary {
  readonly datagrams: number;
  readonly frames: number;
  /** Frames that were read, and refusals with a typed error. */
  readonly framesRead: number;
  readonly framesRefused: number;
  /** Calls of an honest peer during the flood: none may fail. */
  readonly calls: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly aloneP50Ms: number;
  readonly aloneP99Ms: number;
  readonly connections: number;
  readonly rssGrowthMb: number;
  /** Where a later run goes on. */
  readonly next: number;
}

interface FuzzOptions {
  readonly seed: number;
  /** Number of the first case; each case depends only on the seed, its number and what was recorded. */
  readonly start: number;
  readonly count: number;
  readonly limitMs: number;
  readonly progress?: (done: number) => void;
}

/** Datagrams that a turn of the event loop reads; more would only fill the socket before the code under test sees them. */
const BATCH = 40;
/** Half of the cases are datagrams, half are frames. */
const FRAMES_OF = 2;

/**
 * Records datagrams and frames of a live connection and throws variations of them at a node: datagrams at its socket, half of
 * them from the peer's own address, and frames at the reader that both ends of every call use.
 *
 * @throws when a call of the honest peer fails, when something else than a typed error comes out, when a new peer cannot
 * connect afterwards
 */
export async function fuzzNetwork(options: FuzzOptions): Promise<FuzzSummary> {
  const authority = await TestAuthority.create("fuzz");
  // A case costs no answer: the budget for strangers is part of what is tested.
  const b = await startNode({
    nodeId: "node-b",
    authority,
    peers: [{ nodeId: "node-a" }, { nodeId: "node-c", dial: "them" }],
  });
  const proxy = await UdpProxy.start(b.mesh.port);
  const datagrams: Buffer[] = [];
  proxy.onDatagram = (_, datagram) => {
    if (datagrams.length < 2_000) datagrams.push(datagram);
  };
  const frames: Buffer[] = [];
  const { write } = QuicStream.prototype;
  QuicStream.prototype.write = function (bytes) {
    if (frames.length < 500) frames.push(Buffer.from(bytes));
    return write.call(this, bytes);
  };
  const peers = [{ nodeId: "node-b", host: "127.0.0.1", port: proxy.port }];
  const a = await startNode({ nodeId: "node-a", authority, peers });
  await a.mesh.ready(["node-b"], 20_000);
  const transport = a.mesh.transport("node-b");
  for (const size of [0, 10, 3_000, 40_000]) {
    await control(a, "node-b").ping(
      { payload: new Uint8Array(size) },
      { headers: { "x-some": "thing" }, timeoutMs: 20_000 },
    );
  }
  await smallCalls(transport, 50);
  QuicStream.prototype.write = write;
  proxy.onDatagram = undefined;

  const alone = await smallCalls(transport, 300);
  const stranger = createSocket("udp4").unref();
  globalThis.gc?.();
  const rssBefore = process.memoryUsage().rss;
  const endMs = performance.now() + options.limitMs;
  const latencies: number[] = [];
  let flooding = true;
  const caller = (async () => {
    while (flooding) latencies.push(...(await smallCalls(transport, 1)));
  })();
  let next = options.start;
  const tally = { datagrams: 0, frames: 0, read: 0, refused: 0 };
  try {
    for (; next < options.start + options.count && performance.now() < endMs; next++) {
      const dice = new Dice(Math.imul(options.seed, 0x9e3779b1) ^ Math.imul(next, 0x85ebca6b));
      if (next % FRAMES_OF === 0) {
        const datagram = mutate(datagrams, dice);
        parsePacketHeader(datagram);
        if (dice.below(2) === 0) proxy.inject(datagram);
        else stranger.send(datagram, b.mesh.port, "127.0.0.1");
        tally.datagrams += 1;
      } else {
        const verdict = readFrames(frames, dice);
        tally.read += verdict.read;
        tally.refused += verdict.refused;
        tally.frames += 1;
      }
      if (next % BATCH === 0) await new Promise((resolve) => setImmediate(resolve));
      if (next % 50_000 === 0) options.progress?.(next);
    }
  } finally {
    flooding = false;
  }
  await caller;
  const { connections } = statusOf(a, "node-b");
  globalThis.gc?.();
  const rssGrowthMb = (process.memoryUsage().rss - rssBefore) / 2 ** 20;
  // Somebody new still gets in.
  const c = await startNode({
    nodeId: "node-c",
    authority,
    peers: [{ nodeId: "node-b", host: "127.0.0.1", port: b.mesh.port, dial: "us" }],
  });
  await c.mesh.ready(["node-b"], 30_000);
  await smallCalls(c.mesh.transport("node-b"), 5);
  stranger.close();
  await Promise.all([a, b, c].map(({ mesh }) => mesh.close()));
  proxy.close();
  return {
    datagrams: tally.datagrams,
    frames: tally.frames,
    framesRead: tally.read,
    framesRefused: tally.refused,
    calls: latencies.length,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    aloneP50Ms: percentile(alone, 0.5),
    aloneP99Ms: percentile(alone, 0.99),
    connections,
    rssGrowthMb,
    next,
  };
}

/** A head and what follows it, varied, cut at any place. */
function readFrames(frames: readonly Buffer[], dice: Dice): { read: number; refused: number } {
  const reader = new FrameReader(DEFAULT_LIMITS);
  const bytes = Buffer.concat([mutate(frames, dice), mutate(frames, dice)]);
  let read = 0;
  try {
    for (let at = 0; at < bytes.length; ) {
      const end = at + 1 + dice.below(bytes.length);
      read += reader.push(bytes.subarray(at, end)).length;
      at = end;
    }
    return { read, refused: 0 };
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    return { read, refused: 1 };
  }
}
