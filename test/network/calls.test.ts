import assert from "node:assert/strict";
import { setMaxListeners } from "node:events";
import { after, before, describe, it } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { StringValueSchema, UInt32ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter, createClient, type HandlerContext } from "@connectrpc/connect";
import { createAsyncIterable } from "@connectrpc/connect/protocol";
import {
  ConsensusService,
  ControlService,
  type ExchangeRequest,
  type ExchangeResponseSchema,
  SessionService,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { Unavailable } from "../../src/crypto/fault.js";
import { peerNodeId } from "../../src/network/call-context.js";
import { MAX_DATAGRAM_BYTES } from "../../src/network/datagram-size.js";
import { memoryTransport } from "../../src/network/memory-transport.js";
import type { NetworkLimits } from "../../src/network/network-limits.js";
import { TestAuthority } from "./test-certificates.js";
import {
  closeAll,
  control,
  eventually,
  type Pair,
  pingRoutes,
  startNode,
  startPair,
  type TestNode,
} from "./test-mesh.js";
import { PRODUCE } from "./test-service.js";
import { UdpProxy } from "./udp-proxy.js";

interface Seen {
  running: number;
  mostRunning: number;
  produced: number;
  aborted: number;
  callers: string[];
}

function codeIs(code: Code) {
  return (error: unknown) => {
    assert.ok(error instanceof ConnectError, String(error));
    assert.equal(Code[error.code], Code[code], error.message);
    return true;
  };
}

/** Handlers whose behaviour the payload chooses. */
function routes(seen: Seen): (router: ConnectRouter) => void {
  const untilAborted = (context: HandlerContext) =>
    new Promise<never>((_, reject) => {
      context.signal.addEventListener("abort", () => {
        seen.aborted += 1;
        reject(context.signal.reason);
      });
    });
  return (router) => {
    router.service(ControlService, {
      async ping({ payload }, context) {
        seen.callers.push(context.values.get(peerNodeId));
        seen.running += 1;
        seen.mostRunning = Math.max(seen.mostRunning, seen.running);
        try {
          const word = Buffer.from(payload.subarray(0, 16)).toString();
          if (word === "wait") await untilAborted(context);
          if (word === "fail" || word === "fail-big") {
            const detail = { desc: StringValueSchema, value: { value: "x".repeat(word === "fail" ? 10 : 20_000) } };
            throw new ConnectError("no such wallet", Code.NotFound, { "wallet-id": "w1" }, [detail]);
          }
          if (word === "wordy")
            throw new ConnectError("m".repeat(40_000), Code.NotFound, { "x-a": "v".repeat(20_000) });
          if (word === "crash") throw new TypeError("secret in a message");
          return { payload, timeMs: 1n };
        } finally {
          seen.running -= 1;
        }
      },
    });
    router.service(SessionService, {
      async *exchange(
        requests: AsyncIterable<ExchangeRequest>,
      ): AsyncGenerator<MessageInitShape<typeof ExchangeResponseSchema>> {
        for await (const { frame } of requests) if (frame !== undefined) yield { frame };
      },
    });
    router.rpc(PRODUCE, async function* ({ value }, context) {
      try {
        for (let index = 0; index < value; index++) {
          seen.produced += 1;
          yield { value: new Uint8Array(16_384).fill(index) };
          if (index % 32 === 31) await new Promise((resolve) => setImmediate(resolve));
        }
        if (value === 3) await untilAborted(context);
      } finally {
        if (context.signal.aborted) seen.aborted += 1;
      }
    });
  };
}

const words = (text: string) => ({ payload: new Uint8Array(Buffer.from(text)) });

function produce(node: TestNode, count: number, options: { signal?: AbortSignal } = {}) {
  const input = createAsyncIterable([create(UInt32ValueSchema, { value: count })]);
  return node.mesh.transport("node-b").stream(PRODUCE, options.signal, 10_000, undefined, input);
}

after(closeAll);

describe("calls over QUIC", () => {
  let pair: Pair;
  let seen: Seen;

  before(async () => {
    seen = { running: 0, mostRunning: 0, produced: 0, aborted: 0, callers: [] };
    pair = await startPair({ router: routes(seen) });
  });

  after(() => pair.close());

  it("unary calls in both directions on one connection carry the verified caller", async () => {
    seen.callers = [];
    const there = await control(pair.a, "node-b").ping(words("hello"), { timeoutMs: 5_000 });
    const back = await control(pair.b, "node-a").ping(words("there"), { timeoutMs: 5_000 });
    assert.equal(Buffer.from(there.payload).toString(), "hello");
    assert.equal(Buffer.from(back.payload).toString(), "there");
    assert.deepEqual(seen.callers.slice(-2), ["node-a", "node-b"]);
    assert.equal(pair.a.mesh.status()[0]?.connections, 1);
    assert.equal(pair.b.mesh.status()[0]?.connections, 1);
  });

  it("a server stream delivers every message in order", async () => {
    const { message } = await produce(pair.a, 100);
    let count = 0;
    for await (const { value } of message) {
      assert.equal(value.length, 16_384);
      assert.equal(value[0], count);
      count += 1;
    }
    assert.equal(count, 100);
  });

  it("bidirectional streams answer message by message, in both directions at once", async () => {
    const talk = async (node: TestNode, peer: string) => {
      const session = createClient(SessionService, node.mesh.transport(peer, "dkg"));
      const answered: number[] = [];
      let wake: (() => void) | undefined;
      async function* requests() {
        for (let index = 0; index < 20; index++) {
          yield { frame: { kind: { case: "envelope" as const, value: new Uint8Array([index]) } } };
          // The next one only after the answer: neither direction waits for the other's end.
          if (answered.length <= index) await new Promise<void>((resolve) => (wake = resolve));
        }
      }
      for await (const { frame } of session.exchange(requests(), { timeoutMs: 10_000 })) {
        if (frame?.kind.case === "envelope") answered.push(frame.kind.value[0] ?? -1);
        wake?.();
      }
      return answered;
    };
    const both = await Promise.all([talk(pair.a, "node-b"), talk(pair.b, "node-a")]);
    const expected = Array.from({ length: 20 }, (_, index) => index);
    assert.deepEqual(both, [expected, expected]);
  });

  it("messages of 64 KB and of 8 MB arrive whole", async () => {
    for (const sizeBytes of [65_536, 8_000_000]) {
      const payload = new Uint8Array(sizeBytes).fill(7);
      payload[sizeBytes - 1] = 9;
      const answer = await control(pair.a, "node-b").ping({ payload }, { timeoutMs: 20_000 });
      assert.ok(Buffer.from(answer.payload).equals(payload), `${sizeBytes} bytes`);
    }
  });

  it("errors carry code, message, metadata and details", async () => {
    await assert.rejects(control(pair.a, "node-b").ping(words("fail"), { timeoutMs: 5_000 }), (error) => {
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.NotFound);
      assert.equal(error.rawMessage, "no such wallet");
      assert.equal(error.metadata.get("wallet-id"), "w1");
      assert.equal(error.findDetails(StringValueSchema)[0]?.value, "xxxxxxxxxx");
      return true;
    });
  });

  it("error details larger than an end frame are dropped, not the error", async () => {
    await assert.rejects(control(pair.a, "node-b").ping(words("fail-big"), { timeoutMs: 5_000 }), (error) => {
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.NotFound);
      assert.equal(error.findDetails(StringValueSchema).length, 0);
      return true;
    });
  });

  it("an error text larger than an end frame is shortened", async () => {
    await assert.rejects(control(pair.a, "node-b").ping(words("wordy"), { timeoutMs: 5_000 }), (error) => {
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.NotFound);
      assert.match(error.rawMessage, /^m{1024}$/);
      return true;
    });
  });

  it("an exception in a handler is Internal and its text stays at home", async () => {
    await assert.rejects(control(pair.a, "node-b").ping(words("crash"), { timeoutMs: 5_000 }), (error) => {
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.Internal);
      assert.doesNotMatch(error.message, /secret/);
      return true;
    });
  });

  it("a method that nobody registered is Unimplemented", async () => {
    const consensus = createClient(ConsensusService, pair.a.mesh.transport("node-b"));
    await assert.rejects(consensus.notify({}, { timeoutMs: 5_000 }), codeIs(Code.Unimplemented));
  });

  it("a deadline ends the call on both sides", async () => {
    const abortedBefore = seen.aborted;
    const startMs = performance.now();
    await assert.rejects(
      control(pair.a, "node-b").ping(words("wait"), { timeoutMs: 200 }),
      codeIs(Code.DeadlineExceeded),
    );
    assert.ok(performance.now() - startMs < 2_000);
    assert.ok(await eventually(() => seen.aborted > abortedBefore));
  });

  it("an abort ends the call on both sides", async () => {
    const abortedBefore = seen.aborted;
    const stop = new AbortController();
    const call = control(pair.a, "node-b").ping(words("wait"), { signal: stop.signal, timeoutMs: 10_000 });
    setTimeout(() => stop.abort(), 100);
    await assert.rejects(call, codeIs(Code.Canceled));
    assert.ok(await eventually(() => seen.aborted > abortedBefore));
  });

  it("a signal cancels a quiet server stream", async () => {
    const abortedBefore = seen.aborted;
    const stop = new AbortController();
    const { message } = await produce(pair.a, 3, { signal: stop.signal });
    setTimeout(() => stop.abort(), 200);
    await assert.rejects(async () => {
      for await (const { value } of message) assert.equal(value.length, 16_384);
    }, codeIs(Code.Canceled));
    assert.ok(await eventually(() => seen.aborted > abortedBefore, 2_000));
  });

  it("a reader that does not read stops the writer", async () => {
    seen.produced = 0;
    const { message } = await produce(pair.a, 600);
    const reader = message[Symbol.asyncIterator]();
    await reader.next();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const producedBytes = seen.produced * 16_384;
    assert.ok(producedBytes < 4_000_000, `${producedBytes} bytes were produced for a reader that took 16 KB`);
    let count = 1;
    while ((await reader.next()).done !== true) count += 1;
    assert.equal(count, 600);
  });

  it("1,000 calls at once wait for streams: all are answered, never more than the class allows", async () => {
    seen.mostRunning = 0;
    const client = control(pair.a, "node-b");
    const calls = Array.from({ length: 1_000 }, (_, index) =>
      client.ping(words(`call ${index}`), { timeoutMs: 20_000 }),
    );
    const answers = await Promise.all(calls);
    assert.deepEqual(
      answers.map(({ payload }) => Buffer.from(payload).toString()),
      answers.map((_, index) => `call ${index}`),
    );
    assert.ok(seen.mostRunning <= 40, `${seen.mostRunning} ran at once`);
  });

  it("a class that is full does not hold up another class", async () => {
    const stop = new AbortController();
    setMaxListeners(100, stop.signal);
    const presign = createClient(ControlService, pair.a.mesh.transport("node-b", "presign"));
    const stuck = Array.from({ length: 20 }, () =>
      presign.ping(words("wait"), { signal: stop.signal, timeoutMs: 20_000 }).catch((error: unknown) => error),
    );
    assert.ok(await eventually(() => seen.running === 10), `${seen.running} presign calls run`);
    const startMs = performance.now();
    await control(pair.a, "node-b").ping(words("vote"), { timeoutMs: 5_000 });
    assert.ok(performance.now() - startMs < 1_000);
    stop.abort();
    for (const error of await Promise.all(stuck)) assert.ok(codeIs(Code.Canceled)(error));
    assert.ok(await eventually(() => seen.running === 0));
  });

  it("a call that waits for a stream is over when its signal says so", async () => {
    const stop = new AbortController();
    setMaxListeners(100, stop.signal);
    const presign = createClient(ControlService, pair.a.mesh.transport("node-b", "presign"));
    const stuck = Array.from({ length: 10 }, () =>
      presign.ping(words("wait"), { signal: stop.signal, timeoutMs: 20_000 }).catch((error: unknown) => error),
    );
    assert.ok(await eventually(() => seen.running === 10), `${seen.running} presign calls run`);
    const startMs = performance.now();
    await assert.rejects(presign.ping(words("late"), { timeoutMs: 200 }), codeIs(Code.DeadlineExceeded));
    const left = new AbortController();
    const call = presign.ping(words("left"), { signal: left.signal });
    setTimeout(() => left.abort(), 100);
    await assert.rejects(call, codeIs(Code.Canceled));
    await assert.rejects(presign.ping(words("never"), { signal: AbortSignal.abort() }), codeIs(Code.Canceled));
    assert.ok(performance.now() - startMs < 2_000);
    stop.abort();
    await Promise.all(stuck);
    assert.ok(await eventually(() => seen.running === 0));
    assert.equal(Buffer.from((await presign.ping(words("next"), { timeoutMs: 5_000 })).payload).toString(), "next");
  });

  it("every stream is given back", async () => {
    await new Promise((resolve) => setTimeout(resolve, 100));
    for (let round = 0; round < 300; round++) await control(pair.a, "node-b").ping(words("x"), { timeoutMs: 5_000 });
    assert.equal(seen.running, 0);
  });
});

describe("deadlines over two hops", () => {
  it("the last hop is aborted by the first hop's deadline", async () => {
    const authority = await TestAuthority.create("hops");
    let abortedAtC = false;
    let timeoutAtC = 0;
    const c = await startNode({
      nodeId: "node-c",
      authority,
      peers: [{ nodeId: "node-b" }],
      router: (router) =>
        router.service(ControlService, {
          ping: (_, context) =>
            new Promise((_resolve, reject) => {
              timeoutAtC = context.timeoutMs() ?? 0;
              context.signal.addEventListener("abort", () => {
                abortedAtC = true;
                reject(context.signal.reason);
              });
            }),
        }),
    });
    let b: TestNode | undefined;
    b = await startNode({
      nodeId: "node-b",
      authority,
      peers: [{ nodeId: "node-a" }, { nodeId: "node-c", host: "127.0.0.1", port: c.mesh.port }],
      router: (router) =>
        router.service(ControlService, {
          async ping(request, context) {
            if (b === undefined) throw new Error("not started");
            const timeoutMs = context.timeoutMs();
            const options = { signal: context.signal, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
            return await createClient(ControlService, b.mesh.transport("node-c")).ping(
              { payload: request.payload },
              options,
            );
          },
        }),
    });
    const a = await startNode({
      nodeId: "node-a",
      authority,
      peers: [{ nodeId: "node-b", host: "127.0.0.1", port: b.mesh.port }],
    });
    await Promise.all([a.mesh.ready(["node-b"], 5_000), b.mesh.ready(["node-c"], 5_000)]);
    await assert.rejects(control(a, "node-b").ping(words("x"), { timeoutMs: 400 }), codeIs(Code.DeadlineExceeded));
    assert.ok(await eventually(() => abortedAtC, 2_000));
    assert.ok(timeoutAtC > 0 && timeoutAtC <= 400, `deadline at the last hop was ${timeoutAtC} ms`);
    await Promise.all([a, b, c].map(({ mesh }) => mesh.close()));
  });
});

describe("limits of calls", () => {
  it("a frame, a head, a field count and a request over their limits are ResourceExhausted", async () => {
    const wide = { frameBytes: 2 ** 20, headBytes: 2 ** 20, headFields: 1_000, streamBytes: 64 * 2 ** 20 };
    const pair = await startPair({ limitsA: wide });
    const client = control(pair.a, "node-b");
    const payload = new Uint8Array(300_000);
    await assert.rejects(client.ping({ payload }, { timeoutMs: 5_000 }), codeIs(Code.ResourceExhausted));
    const headers = { "x-large": "x".repeat(20_000) };
    await assert.rejects(client.ping({}, { headers, timeoutMs: 5_000 }), codeIs(Code.ResourceExhausted));
    const many = Object.fromEntries(Array.from({ length: 70 }, (_, index) => [`x-${index}`, "v"]));
    await assert.rejects(client.ping({}, { headers: many, timeoutMs: 5_000 }), codeIs(Code.ResourceExhausted));
    assert.equal((await client.ping({ payload: new Uint8Array(100) }, { timeoutMs: 5_000 })).payload.length, 100);
    await pair.close();
  });

  it("a request over the stream limit is ResourceExhausted, one at the limit passes", async () => {
    const pair = await startPair({ limits: { streamBytes: 200_000 }, limitsA: { streamBytes: 64 * 2 ** 20 } });
    const client = control(pair.a, "node-b");
    // gRPC and protobuf framing of this message take 9 bytes.
    assert.equal(
      (await client.ping({ payload: new Uint8Array(199_990) }, { timeoutMs: 5_000 })).payload.length,
      199_990,
    );
    await assert.rejects(
      client.ping({ payload: new Uint8Array(200_001) }, { timeoutMs: 5_000 }),
      codeIs(Code.ResourceExhausted),
    );
    await assert.rejects(
      client.ping({ payload: new Uint8Array(2_000_000) }, { timeoutMs: 5_000 }),
      codeIs(Code.ResourceExhausted),
    );
    await pair.close();
  });

  it("calls above the queue are refused at once, with our fault inside", async () => {
    const pair = await startPair({ limitsA: { queuedCalls: 10 } });
    const client = control(pair.a, "node-b");
    const results = await Promise.allSettled(Array.from({ length: 100 }, () => client.ping({}, { timeoutMs: 5_000 })));
    const refused = results.filter((result) => result.status === "rejected");
    assert.ok(refused.length >= 40 && refused.length <= 60, `${refused.length} refused`);
    for (const { reason } of refused) {
      codeIs(Code.Unavailable)(reason);
      assert.ok(reason.cause instanceof Unavailable);
      assert.equal(reason.cause.code, "queue-full");
    }
    await pair.close();
  });

  it("a call to a peer that is not connected waits for it within its deadline", async () => {
    const authority = await TestAuthority.create("late");
    const a = await startNode({ nodeId: "node-a", authority, peers: [{ nodeId: "node-b", dial: "them" }] });
    await assert.rejects(control(a, "node-b").ping({}, { timeoutMs: 150 }), codeIs(Code.DeadlineExceeded));
    await assert.rejects(a.mesh.ready(["node-b"], 100), (error) => {
      assert.ok(error instanceof Unavailable);
      assert.deepEqual(error.facts["missing"], ["node-b"]);
      return true;
    });
    const call = control(a, "node-b").ping(words("late"), { timeoutMs: 5_000 });
    const b = await startNode({
      nodeId: "node-b",
      authority,
      peers: [{ nodeId: "node-a", host: "127.0.0.1", port: a.mesh.port, dial: "us" }],
    });
    assert.equal(Buffer.from((await call).payload).toString(), "late");
    await Promise.all([a.mesh.close(), b.mesh.close()]);
  });

  it("who waits for its peers to be ready waits longer than a call would", async () => {
    const authority = await TestAuthority.create("ready");
    const limits = { connectionWaitMs: 100 };
    const a = await startNode({ nodeId: "node-a", authority, limits, peers: [{ nodeId: "node-b", dial: "them" }] });
    const ready = a.mesh.ready(["node-b"], 10_000);
    await new Promise((resolve) => setTimeout(resolve, 400));
    const b = await startNode({
      nodeId: "node-b",
      authority,
      peers: [{ nodeId: "node-a", host: "127.0.0.1", port: a.mesh.port, dial: "us" }],
    });
    await ready;
    a.mesh.addPeer({ nodeId: "node-c", dial: "them" });
    const waiting = assert.rejects(a.mesh.ready(["node-c"], 10_000), { code: "peers-not-ready" });
    await Promise.all([a.mesh.close(), b.mesh.close()]);
    await waiting; // closing ends the wait
  });

  it("a running call is answered while the node closes, a new one is Unavailable", async () => {
    let release: (() => void) | undefined;
    const pair = await startPair({
      router: (router) =>
        router.service(ControlService, {
          async ping({ payload }) {
            if (payload.length === 1) await new Promise<void>((resolve) => (release = resolve));
            return { payload };
          },
        }),
    });
    const running = control(pair.a, "node-b").ping({ payload: new Uint8Array(1) }, { timeoutMs: 5_000 });
    assert.ok(await eventually(() => release !== undefined));
    const closing = pair.b.mesh.close();
    await assert.rejects(control(pair.a, "node-b").ping({}, { timeoutMs: 2_000 }), codeIs(Code.Unavailable));
    release?.();
    assert.equal((await running).payload.length, 1);
    await closing;
    await pair.close();
  });
});

/** "node-a" calls "node-b" over a lossy wire. */
async function startLossyPair(lossPercent: number, limits: Partial<NetworkLimits>, router = pingRoutes) {
  const authority = await TestAuthority.create("loss");
  const b = await startNode({ nodeId: "node-b", authority, limits, router, peers: [{ nodeId: "node-a" }] });
  const wire = await UdpProxy.start(b.mesh.port);
  wire.lossPercent = lossPercent;
  const peers = [{ nodeId: "node-b", host: "127.0.0.1", port: wire.port }];
  const a = await startNode({ nodeId: "node-a", authority, limits, peers });
  await a.mesh.ready(["node-b"], 30_000);
  const close = async () => {
    await Promise.all([a.mesh.close(), b.mesh.close()]);
    wire.close();
  };
  return { a, wire, close };
}

describe("loss", () => {
  for (const [lossPercent, count] of [
    [5, 300],
    [20, 100],
  ] as const) {
    it(`${lossPercent} % of the packets lost: every call is answered`, async () => {
      // Packets of the size that a network takes, so that a call needs many of them.
      const { a, close } = await startLossyPair(lossPercent, { loopbackDatagramBytes: 1_350 });
      const client = control(a, "node-b");
      const sizes = Array.from({ length: count }, (_, index) => (index % 10 === 0 ? 20_000 : 200));
      const answers = await Promise.all(
        sizes.map((size) => client.ping({ payload: new Uint8Array(size) }, { timeoutMs: 60_000 })),
      );
      assert.deepEqual(
        answers.map(({ payload }) => payload.length),
        sizes,
      );
      assert.equal(a.mesh.status()[0]?.connections, 1);
      assert.ok((a.mesh.status()[0]?.lossRatio ?? 0) > 0);
      await close();
    });
  }
});

describe("datagrams", () => {
  const largestOf = async (limits: Partial<NetworkLimits>) => {
    const { a, wire, close } = await startLossyPair(0, limits);
    let largestBytes = 0;
    wire.onDatagram = (_, datagram) => {
      largestBytes = Math.max(largestBytes, datagram.length);
    };
    const payload = new Uint8Array(200_000).fill(1);
    assert.equal((await control(a, "node-b").ping({ payload }, { timeoutMs: 10_000 })).payload.length, payload.length);
    await close();
    return largestBytes;
  };

  it("are little more than two for a call that takes a millisecond: its answer takes the acknowledgement along", async () => {
    const { a, wire, close } = await startLossyPair(0, { standby: false, keepAliveIntervalMs: 60_000 }, (router) => {
      router.service(ControlService, {
        async ping({ payload }) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          return { payload };
        },
      });
    });
    const client = control(a, "node-b");
    const passed = { there: 0, back: 0 };
    wire.onDatagram = (direction) => {
      passed[direction]++;
    };
    const calls = 100;
    for (let call = 0; call < calls; call++) await client.ping({ payload: new Uint8Array(200) }, { timeoutMs: 5_000 });
    await close();
    // 103 on a quiet machine; 202 when every packet is acknowledged at once.
    assert.ok(passed.there >= calls && passed.back >= calls);
    assert.ok(passed.back < 1.6 * calls, `${passed.back} datagrams for ${calls} answers`);
  });

  it("are large between processes of one machine", async () => {
    const largest = await largestOf({});
    assert.ok(largest > 16_000 && largest <= MAX_DATAGRAM_BYTES, `the largest had ${largest} bytes`);
  });

  it("are never above the limit", async () => {
    const largest = await largestOf({ loopbackDatagramBytes: 1_350 });
    assert.ok(largest > 1_300 && largest <= 1_350, `the largest had ${largest} bytes`);
  });
});

describe("the transport without a network", () => {
  it("runs the same handlers and carries the caller", async () => {
    const seen: Seen = { running: 0, mostRunning: 0, produced: 0, aborted: 0, callers: [] };
    const client = createClient(ControlService, memoryTransport({ from: "node-z", setup: routes(seen) }));
    assert.equal(Buffer.from((await client.ping(words("in memory"))).payload).toString(), "in memory");
    assert.deepEqual(seen.callers, ["node-z"]);
    await assert.rejects(client.ping(words("fail")), codeIs(Code.NotFound));
  });

  it("ping routes answer with what they were given", async () => {
    const client = createClient(ControlService, memoryTransport({ from: "node-z", setup: pingRoutes }));
    assert.equal((await client.ping({ payload: new Uint8Array(3) })).payload.length, 3);
  });
});
