import { create } from "@bufbuild/protobuf";
import { sizeDelimitedEncode } from "@bufbuild/protobuf/wire";
import { UInt32ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createAsyncIterable } from "@connectrpc/connect/protocol";
import { SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import {
  EndSchema,
  type Field,
  FieldSchema,
  FrameSchema,
  HeadSchema,
} from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { FrameReader } from "../../src/network/frame-codec.js";
import { DEFAULT_LIMITS } from "../../src/network/network-limits.js";
import { QuicStream, type StreamLoss } from "../../src/network/quic-stream.js";
import { percentile, smallCalls } from "./bulk-service.js";
import { HostilePeer } from "./hostile-peer.js";
import { EXCHANGE, wholePing } from "./hostile-requests.js";
import { Dice, mutate } from "./network-fuzz.js";
import { TestAuthority, testVerifier } from "./test-certificates.js";
import { control, pingRoutes, startNode, statusOf } from "./test-mesh.js";
import { PRODUCE } from "./test-service.js";

/** What a run found. */
export interface StreamFuzzSummary {
  readonly streams: number;
  /** How the node ended them: "status N" of gRPC, "http N", a reset's code, or "nothing", an end without an answer. */
  readonly ends: Readonly<Record<string, number>>;
  /** Cancelled by the attacker in the middle. */
  readonly cancelled: number;
  /** Conversations that the node let stand, as it should, until the attacker left. */
  readonly leftOpen: number;
  /** Calls of an honest peer meanwhile: none may fail. */
  readonly calls: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly aloneP50Ms: number;
  readonly aloneP99Ms: number;
  readonly rssGrowthMb: number;
}

/** More than the node needs to give up a request that does not end, under the limits below. */
const LEAVE_MS = 4_000;
const LIMITS = { headMs: 500, transferMs: 1_000 };
const CONCURRENT = 60;
/** What an attacker reads of one answer; a changed count asks for gigabytes. */
const READ_BYTES = 2 ** 20;
/** Reads the frames of any answer. */
const WIDE = { frameBytes: 2 ** 24, headBytes: 2 ** 24, headFields: 10_000 };

/**
 * Varies the frames of recorded calls, their heads and trailers field by field too, and sends them as real streams of an
 * authenticated peer to the RPC server of a live node; honest calls run beside it.
 *
 * @throws when a call of the honest peer fails, when a stream does not end, when the hostile peer's connection ends or its
 * streams are not given back
 */
export async function fuzzStreams(options: {
  readonly seed: number;
  readonly start: number;
  readonly count: number;
  readonly limitMs: number;
}): Promise<StreamFuzzSummary> {
  const authority = await TestAuthority.create("stream-fuzz");
  const b = await startNode({
    nodeId: "node-b",
    authority,
    peers: [{ nodeId: "node-a" }, { nodeId: "node-h", dial: "them" }],
    limits: LIMITS,
    router: (router) => {
      pingRoutes(router);
      router.service(SessionService, {
        async *exchange(requests) {
          for await (const { frame } of requests) yield frame === undefined ? {} : { frame };
        },
      });
      router.rpc(PRODUCE, async function* ({ value }) {
        for (let index = 0; index < value; index++) yield { value: new Uint8Array(10_000) };
      });
    },
  });
  const to = { nodeId: "node-b", host: "127.0.0.1", port: b.mesh.port };
  const a = await startNode({ nodeId: "node-a", authority, peers: [to] });
  await a.mesh.ready(["node-b"], 20_000);
  const recorded = await record(a);
  const transport = a.mesh.transport("node-b");
  const alone = await smallCalls(transport, 300);
  const hostile = await HostilePeer.connect({
    nodeId: "node-h",
    credentials: await authority.issue("node-h"),
    verifier: testVerifier(authority.rootDer),
    to,
  });
  globalThis.gc?.();
  const rssBefore = process.memoryUsage().rss;
  const latencies: number[] = [];
  let flooding = true;
  const caller = (async () => {
    while (flooding) latencies.push(...(await smallCalls(transport, 1)));
  })();
  const ends: Record<string, number> = {};
  const tally = { streams: 0, cancelled: 0, leftOpen: 0, ends };
  const endMs = performance.now() + options.limitMs;
  let next = options.start;
  const attacker = async () => {
    while (next < options.start + options.count && performance.now() < endMs) {
      const dice = new Dice(Math.imul(options.seed, 0x9e3779b1) ^ Math.imul(next, 0x85ebca6b));
      next += 1;
      const end = await attempt(hostile, varied(recorded, dice), dice);
      tally.streams += 1;
      if (end === "cancelled") tally.cancelled += 1;
      else if (end === "left") tally.leftOpen += 1;
      else ends[end] = (ends[end] ?? 0) + 1;
      // The log of a test node keeps everything.
      b.events.length = 0;
    }
  };
  try {
    await Promise.all(Array.from({ length: CONCURRENT }, attacker));
  } finally {
    flooding = false;
  }
  await caller;
  await stillServes(hostile);
  if (statusOf(a, "node-b").connections !== 1) throw new Error("the honest peer's connection was lost");
  globalThis.gc?.();
  const rssGrowthMb = (process.memoryUsage().rss - rssBefore) / 2 ** 20;
  await hostile.close();
  await Promise.all([a, b].map(({ mesh }) => mesh.close()));
  return {
    ...tally,
    calls: latencies.length,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    aloneP50Ms: percentile(alone, 0.5),
    aloneP99Ms: percentile(alone, 0.99),
    rssGrowthMb,
  };
}

/** What calls of every kind wrote, by stream and frame: requests, and the answers to them. */
async function record(a: Awaited<ReturnType<typeof startNode>>): Promise<readonly Buffer[][]> {
  // A first ping of the mesh's own may be half written when the connection is reported.
  await control(a, "node-b").ping({});
  const streams = new Map<QuicStream, Buffer[]>();
  const { write } = QuicStream.prototype;
  QuicStream.prototype.write = function (bytes) {
    const frames = streams.get(this);
    if (frames === undefined) streams.set(this, [Buffer.from(bytes)]);
    else frames.push(Buffer.from(bytes));
    return write.call(this, bytes);
  };
  try {
    for (const size of [0, 10, 3_000, 20_000]) {
      const options = { headers: { "x-some": "thing" }, timeoutMs: 20_000 };
      await control(a, "node-b").ping({ payload: new Uint8Array(size) }, options);
    }
    const session = createClient(SessionService, a.mesh.transport("node-b", "signing"));
    const envelopes = [10, 2_000, 10].map((size) => ({
      frame: { kind: { case: "envelope" as const, value: new Uint8Array(size) } },
    }));
    for await (const _ of session.exchange(createAsyncIterable(envelopes), { timeoutMs: 20_000 }));
    const input = createAsyncIterable([create(UInt32ValueSchema, { value: 3 })]);
    const { message } = await a.mesh
      .transport("node-b", "presign")
      .stream(PRODUCE, undefined, 20_000, undefined, input);
    for await (const _ of message);
  } finally {
    QuicStream.prototype.write = write;
  }
  return [...streams.values()];
}

/** The frames of one recorded call, with something wrong. */
function varied(recorded: readonly Buffer[][], dice: Dice): Buffer {
  const pick = () => recorded[dice.below(recorded.length)] ?? [];
  const frames = [...pick()];
  const at = dice.below(frames.length);
  switch (dice.below(9)) {
    case 0:
      frames[at] = mutate([frames[at] ?? Buffer.alloc(1)], dice);
      break;
    case 1:
      for (const [index, frame] of frames.entries()) if (dice.below(2) === 0) frames[index] = mutate([frame], dice);
      break;
    case 2:
      frames.splice(at, 1);
      break;
    case 3:
      frames.splice(at, 0, frames[at] ?? Buffer.alloc(0));
      break;
    case 4:
      frames.splice(at, 0, ...pick());
      break;
    case 5:
    case 6:
      frames[0] = variedHead(frames[0] ?? Buffer.alloc(0), dice);
      break;
    case 7:
      frames[frames.length - 1] = strangeEnd(dice);
      break;
    default: {
      const whole = Buffer.concat(frames);
      return whole.subarray(0, dice.below(whole.length + 1));
    }
  }
  return Buffer.concat(frames);
}

/** A head that decodes, with a path or fields that nobody sends. */
function variedHead(frame: Buffer, dice: Dice): Buffer {
  const kind = new FrameReader(WIDE).push(frame)[0];
  if (kind?.case !== "head") return mutate([frame], dice);
  const { path } = kind.value;
  const kept = kind.value.fields.filter(() => dice.below(6) > 0);
  const paths = [path, path, path.slice(0, dice.below(path.length + 1)), `${path}/`, "", "/", path.toLowerCase()];
  const chosen = dice.below(8) === 0 ? dice.bytes(dice.below(60)).toString("latin1") : paths[dice.below(paths.length)];
  const status = dice.below(4) === 0 ? dice.below(700) : 0;
  const value = create(HeadSchema, { path: chosen ?? "", status, fields: [...kept, ...strangeFields(dice)] });
  return Buffer.from(sizeDelimitedEncode(FrameSchema, create(FrameSchema, { kind: { case: "head", value } })));
}

function strangeEnd(dice: Dice): Buffer {
  const value = create(EndSchema, { trailers: strangeFields(dice) });
  return Buffer.from(sizeDelimitedEncode(FrameSchema, create(FrameSchema, { kind: { case: "end", value } })));
}

const STRANGE: readonly (readonly [string, readonly string[]])[] = [
  ["content-type", ["", "text/plain", "application/grpc", "application/grpc+json", "application/json", "\u00ff"]],
  ["grpc-timeout", ["", "0n", "1n", "99999999H", "-1S", "1", "9".repeat(300), "1S1S"]],
  ["grpc-encoding", ["gzip", "br", "identity", "\u00e9"]],
  ["grpc-accept-encoding", ["gzip", ",,,,"]],
  ["grpc-status", ["0", "16", "99", "-1", "x"]],
  ["grpc-message", ["%", "%zz", "%00".repeat(1_000)]],
  ["grpc-status-details-bin", ["AA==", "!", "A".repeat(2_000)]],
  ["x-traffic-class", ["control", "signing", "dkg", "presign", "root", ""]],
  ["te", ["", "gzip"]],
  ["x-many", Array.from({ length: 5 }, (_, index) => "v".repeat(index * 3_500))],
  // What HTTP does not allow.
  ["", ["v"]],
  ["X Y", ["v"]],
  ["x-line", ["a\r\nb: c", "\u0000", "\u2028"]],
  ["__proto__", ["v"]],
];

function strangeFields(dice: Dice): Field[] {
  return Array.from({ length: 1 + dice.below(3) }, () => {
    const [name, values] = STRANGE[dice.below(STRANGE.length)] ?? ["te", [""]];
    return create(FieldSchema, { name, value: values[dice.below(values.length)] ?? "" });
  });
}

/** Sends bytes on a stream of its own and ends it in one of the ways in which a peer can. */
async function attempt(hostile: HostilePeer, bytes: Buffer, dice: Dice): Promise<string> {
  const stream = await hostile.connection.openStream("control");
  const received: Buffer[] = [];
  let length = 0;
  const over = new Promise<string>((resolve) => {
    stream.consumer = {
      received: (part) => {
        received.push(Buffer.from(part));
        length += part.length;
        if (length < READ_BYTES) return;
        stream.reset(Code.Canceled);
        resolve("cancelled");
      },
      ended: () => resolve(answerOf(Buffer.concat(received))),
      failed: (loss: StreamLoss) => {
        if (loss.kind === "lost") resolve("lost");
        else resolve(`reset ${Code[loss.code] ?? loss.code}`);
      },
    };
  });
  const way = dice.below(5);
  // Large pieces, and small ones that come one after the other.
  const pieces = dice.below(4) === 0 ? 1 + dice.below(6) : 1;
  const pieceBytes = Math.max(1, Math.ceil(bytes.length / pieces));
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    if (at > 0) await new Promise((resolve) => setImmediate(resolve));
    const isLast = at + pieceBytes >= bytes.length;
    if (isLast && way >= 2) stream.end(bytes.subarray(at));
    else stream.write(bytes.subarray(at, at + pieceBytes));
  }
  if (way === 0 || bytes.length === 0) {
    await new Promise((resolve) => setImmediate(resolve));
    const isOver = !stream.receiving;
    stream.reset(dice.below(20));
    return isOver ? await over : "cancelled";
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve("late"), LEAVE_MS);
  });
  const end = await Promise.race([over, late]);
  clearTimeout(timer);
  if (end === "lost") throw new Error("the hostile peer's connection ended");
  // The node is through with the stream; a peer that never ends its own direction keeps only itself from new streams.
  stream.reset(Code.Canceled);
  if (end !== "late") return end;
  // Without its end a conversation may go on as long as it likes; everything else has been ended by now.
  if (way !== 1 || pathOf(bytes) !== EXCHANGE)
    throw new Error(`a stream did not end: ${bytes.subarray(0, 200).toString("hex")}`);
  return "left";
}

/** The path of the call that bytes begin. */
function pathOf(bytes: Buffer): string | undefined {
  const reader = new FrameReader(WIDE);
  for (let at = 0; at < bytes.length; at++) {
    const [frame] = reader.push(bytes.subarray(at, at + 1));
    if (frame !== undefined) return frame.case === "head" ? frame.value.path : undefined;
  }
  return undefined;
}

function answerOf(bytes: Buffer): string {
  if (bytes.length === 0) return "nothing";
  const frames = new FrameReader(WIDE).push(bytes);
  const [head] = frames;
  const end = frames.at(-1);
  if (head?.case !== "head" || end?.case !== "end") throw new Error("an answer without a head or an end");
  if (head.value.status !== 200) return `http ${head.value.status}`;
  const status = end.value.trailers.find(({ name }) => name === "grpc-status")?.value;
  return `status ${Code[Number(status)] ?? status}`;
}

/** More calls than a connection allows at once: every stream of before was given back. */
async function stillServes(hostile: HostilePeer): Promise<void> {
  const bytes = wholePing(10);
  const calls = Array.from({ length: DEFAULT_LIMITS.streams + 20 }, async () => {
    const { stream, received, over } = await hostile.open();
    stream.end(bytes);
    await over;
    return answerOf(Buffer.concat(received));
  });
  const ends = new Set(await Promise.all(calls));
  if (ends.size !== 1 || !ends.has("status 0")) throw new Error(`after the run: ${[...ends].join(", ")}`);
}
