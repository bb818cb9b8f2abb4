// Every call in four ways: our client and Connect's gRPC transport, each against our server and Connect's gRPC handlers.
// What the caller learns is the same.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createClient,
  createConnectRouter,
  type Transport,
} from "@connectrpc/connect";
import { createAsyncIterable, type UniversalServerRequest } from "@connectrpc/connect/protocol";
import { createTransport } from "@connectrpc/connect/protocol-grpc";
import { ControlService, SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Frame } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { encodeData, encodeEnd, encodeHead, FrameReader, headersOf } from "../../src/network/frame-codec.js";
import { DEFAULT_LIMITS } from "../../src/network/network-limits.js";
import type { QuicConnection } from "../../src/network/quic-connection.js";
import type { QuicStream, StreamConsumer } from "../../src/network/quic-stream.js";
import { quicTransport } from "../../src/network/rpc-client.js";
import { RpcServer } from "../../src/network/rpc-server.js";
import { systemClock } from "../../src/node/ambient.js";
import { PRODUCE } from "./test-service.js";

const limits = { ...DEFAULT_LIMITS, streamBytes: 1_000_000 };

/** One end of a stream without a network: what is written is there as a whole when the writer has ended. */
class LoopStream {
  consumer: StreamConsumer | undefined;
  receivedBytes = 0;
  sending = true;
  readonly closed = false;
  resetCode: number | undefined;
  readonly #pieces: Uint8Array[] = [];
  #ended: (bytes: Buffer) => void = () => {};
  readonly written = new Promise<Buffer>((resolve) => {
    this.#ended = resolve;
  });

  get quic(): QuicStream {
    return this as unknown as QuicStream;
  }

  write(bytes: Uint8Array): boolean {
    if (this.sending) this.#pieces.push(bytes);
    return true;
  }

  end(bytes: Uint8Array): void {
    this.write(bytes);
    this.sending = false;
    this.#ended(Buffer.concat(this.#pieces));
  }

  deliver(bytes: Uint8Array): void {
    this.receivedBytes += bytes.length;
    this.consumer?.received(bytes);
    this.consumer?.ended();
  }

  reset(code: number): void {
    this.resetCode = code;
    this.end(encodeEnd());
  }

  async drained(): Promise<void> {}
  pause(): void {}
  resume(): void {}
  stopReceiving(): void {}
  stopSending(): void {}
}

interface Direction {
  readonly path: string;
  readonly status: number;
  readonly header: Headers;
  readonly body: Uint8Array;
  readonly trailer: Headers;
}

function directionOf(bytes: Uint8Array): Direction {
  const frames: readonly Frame["kind"][] = new FrameReader(limits).push(bytes);
  const [head] = frames;
  const end = frames.at(-1);
  assert.ok(head?.case === "head" && end?.case === "end");
  const body = Buffer.concat(frames.flatMap((frame) => (frame.case === "data" ? [frame.value] : [])));
  const { path, status, fields } = head.value;
  return { path, status, header: headersOf(fields), body, trailer: headersOf(end.value.trailers) };
}

const framesOf = (head: Parameters<typeof encodeHead>[0], body: Uint8Array, trailer?: Headers): Buffer =>
  Buffer.concat([
    encodeHead(head),
    ...(body.length === 0 ? [] : encodeData(body, limits.frameBytes)),
    encodeEnd(trailer),
  ]);

async function joined(body: AsyncIterable<Uint8Array> | Iterable<Uint8Array> | null | undefined): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of body ?? []) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** Bytes of a request in, bytes of its answer out. */
type Server = (request: Uint8Array) => Promise<Uint8Array>;

function ourServer(setup: (router: ConnectRouter) => void): Server {
  const server = new RpcServer({ setup, limits, clock: systemClock, log: () => {} });
  const connection = { peerNodeId: "node-a", peerChain: [], setRank: () => {} } as unknown as QuicConnection;
  return async (request) => {
    const stream = new LoopStream();
    server.serve(stream.quic, connection);
    stream.deliver(request);
    return await stream.written;
  };
}

function connectServer(setup: (router: ConnectRouter) => void): Server {
  const router = createConnectRouter({ connect: false, grpcWeb: false });
  setup(router);
  return async (bytes) => {
    const { path, header, body } = directionOf(bytes);
    const handler = router.handlers.find(({ requestPath }) => requestPath === path);
    const signal = new AbortController().signal;
    const request = { httpVersion: "2.0", method: "POST", url: `https://peer${path}`, header, signal };
    const answer =
      handler === undefined
        ? { status: 404 }
        : await handler({ ...request, body: createAsyncIterable([body]) } satisfies UniversalServerRequest);
    const whole = await joined("body" in answer ? (answer.body as AsyncIterable<Uint8Array>) : undefined);
    const trailer = "trailer" in answer ? answer.trailer : undefined;
    const answerHeader = ("header" in answer ? answer.header : undefined) ?? new Headers();
    return framesOf({ status: answer.status, header: answerHeader }, whole, trailer);
  };
}

function ourClient(server: Server): Transport {
  return quicTransport({
    trafficClass: "control",
    limits,
    open: async () => {
      const stream = new LoopStream();
      void stream.written.then(server).then((answer) => stream.deliver(answer));
      return stream.quic;
    },
  });
}

function connectClient(server: Server): Transport {
  return createTransport({
    baseUrl: "https://peer",
    useBinaryFormat: true,
    interceptors: [],
    acceptCompression: [],
    sendCompression: null,
    compressMinBytes: 0,
    readMaxBytes: limits.streamBytes,
    writeMaxBytes: limits.streamBytes,
    httpClient: async ({ url, header, body }) => {
      const path = url.slice("https://peer".length);
      const answer = directionOf(await server(framesOf({ path, header }, await joined(body))));
      return { ...answer, body: createAsyncIterable(answer.body.length === 0 ? [] : [answer.body]) };
    },
  });
}

function routes(router: ConnectRouter): void {
  router.service(ControlService, {
    ping({ payload }, context) {
      const word = Buffer.from(payload.subarray(0, 16)).toString();
      if (word === "headers") {
        context.responseHeader.set("x-head", context.requestHeader.get("x-mine") ?? "none");
        context.responseTrailer.set("x-trail", String((context.timeoutMs() ?? 0) > 59_000));
      }
      if (word === "fail") {
        const detail = { desc: StringValueSchema, value: { value: "détail" } };
        throw new ConnectError("no such wallet: 100 %", Code.NotFound, { "wallet-id": "w1" }, [detail]);
      }
      if (word === "crash") throw new TypeError("secret");
      if (word === "huge") return { payload: new Uint8Array(400_000).fill(7), timeMs: 1n };
      return { payload, timeMs: 1n };
    },
  });
  router.service(SessionService, {
    async *exchange(requests) {
      for await (const { frame } of requests) {
        if (frame?.kind.case === "envelope" && frame.kind.value.length === 13)
          throw new ConnectError("unlucky", Code.Aborted);
        if (frame !== undefined) yield { frame };
      }
    },
  });
  router.rpc(PRODUCE, async function* ({ value }) {
    for (let index = 0; index < value; index++) yield { value: new Uint8Array(50_000).fill(index) };
    if (value === 4) throw new ConnectError("four", Code.DataLoss);
  });
}

const ping = async (transport: Transport, word: string): Promise<unknown> => {
  const seen: unknown[] = [];
  const answer = await createClient(ControlService, transport).ping(
    { payload: Buffer.from(word) },
    {
      headers: { "x-mine": "yes" },
      timeoutMs: 60_000,
      onHeader: (header) => seen.push(header.get("x-head")),
      onTrailer: (trailer) => seen.push(trailer.get("x-trail"), trailer.get("grpc-status")),
    },
  );
  return { payload: Buffer.from(answer.payload).toString("hex"), timeMs: answer.timeMs, seen };
};

const exchange = async (transport: Transport, sizes: readonly number[]): Promise<unknown> => {
  const frames = sizes.map((size) => ({
    frame: { kind: { case: "envelope" as const, value: new Uint8Array(size).fill(size) } },
  }));
  const read: unknown[] = [];
  try {
    for await (const { frame } of createClient(SessionService, transport).exchange(createAsyncIterable(frames))) {
      read.push(frame?.kind.case === "envelope" ? Buffer.from(frame.kind.value).toString("hex") : frame);
    }
  } catch (error) {
    read.push(toldBy(error));
  }
  return read;
};

const produce = async (transport: Transport, value: number): Promise<unknown> => {
  const read: unknown[] = [];
  try {
    const { message } = await transport.stream(
      PRODUCE,
      undefined,
      undefined,
      undefined,
      createAsyncIterable([{ value }]),
    );
    for await (const { value: bytes } of message) read.push(Buffer.from(bytes).toString("hex"));
  } catch (error) {
    read.push(toldBy(error));
  }
  return read;
};

function toldBy(error: unknown): unknown {
  assert.ok(error instanceof ConnectError, String(error));
  const { code, rawMessage } = error;
  const details = error.findDetails(StringValueSchema).map(({ value }) => value);
  return { code: Code[code], rawMessage, details, walletId: error.metadata.get("wallet-id") };
}

const CASES: readonly { readonly name: string; readonly call: (transport: Transport) => Promise<unknown> }[] = [
  ...["", "hello", "headers", "fail", "crash", "huge", "x".repeat(300_000)].map((word) => ({
    name: `ping ${word.slice(0, 10)}`,
    call: (transport: Transport) => ping(transport, word).catch(toldBy),
  })),
  { name: "status, which nobody serves", call: (t) => createClient(ControlService, t).getStatus({}).catch(toldBy) },
  ...[[], [1, 2, 3], [0, 200_000, 0], [1, 13, 2]].map((sizes) => ({
    name: `exchange ${sizes.join()}`,
    call: (transport: Transport) => exchange(transport, sizes),
  })),
  ...[0, 1, 3, 4].map((value) => ({
    name: `produce ${value}`,
    call: (transport: Transport) => produce(transport, value),
  })),
];

describe("gRPC over streams, beside Connect's", () => {
  const [ours, theirs] = [ourServer(routes), connectServer(routes)];
  for (const { name, call } of CASES) {
    it(name, async () => {
      const expected = await call(connectClient(theirs));
      assert.deepEqual(await call(connectClient(ours)), expected, "their client, our server");
      assert.deepEqual(await call(ourClient(theirs)), expected, "our client, their server");
      assert.deepEqual(await call(ourClient(ours)), expected, "our client, our server");
    });
  }

  const path = "/mpcwallet.peer.v1.ControlService/Ping";
  const grpc = { "content-type": "application/grpc+proto" };
  for (const [name, header] of Object.entries({
    "of another type": { "content-type": "application/json" },
    "of no type": {},
    "that is compressed": { ...grpc, "grpc-encoding": "gzip" },
    "that says it is not compressed": { ...grpc, "grpc-encoding": "identity" },
    "with a timeout that is none": { ...grpc, "grpc-timeout": "soon" },
    "of the short type": { "content-type": "application/grpc" },
  })) {
    it(`a request ${name}`, async () => {
      const request = framesOf({ path, header: new Headers(header) }, Buffer.alloc(5));
      const outcome = ({ status, trailer }: Direction) => [status, trailer.get("grpc-status")];
      const [answer, expected] = await Promise.all([ours(request), theirs(request)]);
      assert.deepEqual(outcome(directionOf(answer)), outcome(directionOf(expected)));
    });
  }

  it("a request in JSON, which peers do not speak, is refused", async () => {
    const header = new Headers({ "content-type": "application/grpc+json" });
    assert.equal(directionOf(await ours(framesOf({ path, header }, Buffer.alloc(5)))).status, 415);
  });

  const body = Buffer.alloc(5);
  for (const [name, { status = 200, header = grpc, trailer = {}, message = body }] of Object.entries<{
    readonly status?: number;
    readonly header?: Readonly<Record<string, string>>;
    readonly trailer?: Readonly<Record<string, string>>;
    readonly message?: Buffer;
  }>({
    "with a status of HTTP": { status: 503 },
    "of another type": { header: { "content-type": "text/plain" } },
    "whose head is an error": {
      header: { ...grpc, "grpc-status": "5", "grpc-message": "gone%20away" },
      message: Buffer.alloc(0),
    },
    "whose head is an error, with a message": {
      header: { ...grpc, "grpc-status": "5" },
      trailer: { "grpc-status": "0" },
    },
    "that is compressed": { header: { ...grpc, "grpc-encoding": "gzip" } },
    "without a status": {},
    "with a status that is none": { trailer: { "grpc-status": "99" } },
    "with an error after the message": { trailer: { "grpc-status": "7", "grpc-message": "no" } },
    "without a message": { trailer: { "grpc-status": "0" }, message: Buffer.alloc(0) },
    "with two messages": { trailer: { "grpc-status": "0" }, message: Buffer.alloc(10) },
    "that is well": { trailer: { "grpc-status": "0" } },
  })) {
    it(`an answer ${name}`, async () => {
      const answer = framesOf({ status, header: new Headers(header) }, message, new Headers(trailer));
      const call = (transport: Transport) => createClient(ControlService, transport).ping({}).catch(toldBy);
      const codeOf = (outcome: unknown) => (outcome as { readonly code?: string }).code;
      const [mine, expected] = [
        await call(ourClient(async () => answer)),
        await call(connectClient(async () => answer)),
      ];
      assert.equal(codeOf(mine), codeOf(expected));
    });
  }

  it("a method that the server does not know", async () => {
    const [ourEmpty, theirEmpty] = [ourServer(() => {}), connectServer(() => {})];
    const call = (transport: Transport) => ping(transport, "x").catch(toldBy);
    const expected = await call(connectClient(theirEmpty));
    assert.deepEqual(await call(connectClient(ourEmpty)), expected);
    assert.deepEqual(await call(ourClient(theirEmpty)), expected);
  });
});
