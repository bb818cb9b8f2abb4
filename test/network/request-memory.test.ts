import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";
import { type ExchangeRequest, SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { RequestMemory } from "../../src/network/request-memory.js";
import { HostilePeer, type RawStream } from "./hostile-peer.js";
import { EXCHANGE, halfRequest, PING, wholePing } from "./hostile-requests.js";
import { killAll, NodeProcess } from "./node-process.js";
import { TestAuthority, testVerifier } from "./test-certificates.js";
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

const LIMIT_BYTES = 16 * 2 ** 20;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

after(async () => {
  killAll();
  await closeAll();
});

describe("a peer that leaves its requests unfinished", () => {
  let victim: NodeProcess;
  let honest: TestNode;
  let hostile: HostilePeer;

  before(async () => {
    const authority = await TestAuthority.create("memory");
    victim = await NodeProcess.start({
      nodeId: "node-b",
      authority,
      peers: [{ nodeId: "node-a" }, { nodeId: "node-h", dial: "them" }],
      // Nothing here is cut off for being late.
      limits: { requestBytesPerPeer: LIMIT_BYTES, transferMs: 300_000 },
    });
    const to = { nodeId: "node-b", host: "127.0.0.1", port: victim.port };
    honest = await startNode({ nodeId: "node-a", authority, peers: [to] });
    await honest.mesh.ready(["node-b"], 10_000);
    hostile = await HostilePeer.connect({
      nodeId: "node-h",
      credentials: await authority.issue("node-h"),
      verifier: testVerifier(authority.rootDer),
      to,
    });
  });

  after(async () => {
    await hostile.close();
    await honest.mesh.close();
    await victim.kill();
  });

  const refused = (streams: readonly RawStream[]) =>
    streams.filter(({ resetCode }) => resetCode === Code.ResourceExhausted).length;

  async function openAll(peer: HostilePeer, count: number, bytes: Buffer, way: "write" | "end" = "write") {
    const streams = await Promise.all(Array.from({ length: count }, () => peer.open()));
    for (const { stream } of streams) stream[way](bytes);
    return streams;
  }

  /** Until so many are refused; the honest peer calls all the time. */
  async function untilRefused(streams: readonly RawStream[], count: number): Promise<void> {
    const endMs = performance.now() + 60_000;
    while (refused(streams) < count && performance.now() < endMs) {
      await control(honest, "node-b").ping({ payload: new Uint8Array(200) }, { timeoutMs: 20_000 });
    }
    assert.ok(refused(streams) >= count, `${refused(streams)} of ${streams.length} are refused`);
  }

  /** Almost all that it may, at once, which only passes when nothing else is charged. */
  async function usesItsAllowance(): Promise<boolean> {
    const calls = await openAll(hostile, 8, wholePing(1_900_000), "end");
    await Promise.all(calls.map(({ over }) => over));
    return calls.every(
      ({ received, resetCode }) => resetCode === undefined && Buffer.concat(received).includes("grpc-status"),
    );
  }

  /** Cancels streams; what they held is free as soon as the node has heard of it. */
  async function cancel(streams: readonly RawStream[]): Promise<void> {
    for (const { stream } of streams) stream.reset(0);
    const endMs = performance.now() + 10_000;
    while (!(await usesItsAllowance())) assert.ok(performance.now() < endMs, "what was cancelled is still charged");
  }

  it("90 of 4 MB: what fits is kept, the rest is ResourceExhausted at once, and the process stays small", async () => {
    const before = await victim.memory();
    const fits = Math.floor(LIMIT_BYTES / 4_000_000);
    const streams = await openAll(hostile, 90, halfRequest(4_000_000));
    let most = before;
    let watching = true;
    const watch = (async () => {
      for (; watching; await pause(50)) most = Math.max(most, await victim.memory());
    })();
    await untilRefused(streams, 90 - fits);
    watching = false;
    await watch;
    const grownMb = (most - before) / 2 ** 20;
    assert.ok(grownMb < 150, `memory grew by ${grownMb.toFixed(0)} MB`);
    await cancel(streams);
  });

  it("the same in conversations, which are given no time limit", async () => {
    const streams = await openAll(hostile, 60, halfRequest(1_000_000, EXCHANGE));
    await untilRefused(streams, 60 - Math.floor(LIMIT_BYTES / 1_000_000));
    await cancel(streams);
  });

  it("both connections of a peer count together", async () => {
    const second = await hostile.another();
    const half = halfRequest(3_000_000, PING);
    const streams = [...(await openAll(hostile, 4, half)), ...(await openAll(second, 4, half))];
    await untilRefused(streams, 8 - Math.floor(LIMIT_BYTES / 3_000_000));
    await cancel(streams);
  });

  it("calls that are answered count no more, whether or not the peer ends their streams", async () => {
    const streams = await openAll(hostile, 8, wholePing(1_900_000));
    await Promise.all(streams.map(({ over }) => over));
    assert.ok(await usesItsAllowance());
    await cancel(streams);
  });

  it("what was given back is there again, however often", async () => {
    for (let round = 0; round < 5; round++) assert.ok(await usesItsAllowance(), `round ${round}`);
  });
});

describe("what counts as unanswered", () => {
  let pair: Pair;

  // The smallest allowance is one call of 1 MB.
  before(async () => {
    pair = await startPair({
      limits: { streamBytes: 2 ** 20, requestBytesPerPeer: 1 },
      router: (router) => {
        pingRoutes(router);
        router.service(SessionService, {
          async *exchange(requests: AsyncIterable<ExchangeRequest>) {
            for await (const { frame } of requests) yield frame === undefined ? {} : { frame };
          },
        });
      },
    });
  });
  after(() => pair.close());

  const ping = (bytes: number) =>
    control(pair.a, "node-b").ping({ payload: new Uint8Array(bytes) }, { timeoutMs: 20_000 });

  it("a call until it is answered", async () => {
    for (let call = 0; call < 5; call++) assert.equal((await ping(900_000)).payload.length, 900_000);
    const together = await Promise.allSettled(Array.from({ length: 6 }, () => ping(900_000)));
    const failures = together.filter((each) => each.status === "rejected");
    assert.ok(failures.length > 0, "six are more than one");
    for (const { reason } of failures) {
      assert.ok(reason instanceof ConnectError);
      assert.equal(Code[reason.code], "ResourceExhausted");
    }
    assert.ok(await eventually(() => pair.b.events.some(({ event }) => event === "peer-requests-too-large")));
    assert.equal((await ping(900_000)).payload.length, 900_000);
  });

  it("messages of a conversation until they are read: four of 0.5 MB each stand beside each other", async () => {
    const session = createClient(SessionService, pair.a.mesh.transport("node-b"));
    const envelope = new Uint8Array(16_384).fill(7);
    const talk = async () => {
      const requests = createWritableIterable<{
        frame: { kind: { case: "envelope"; value: Uint8Array<ArrayBuffer> } };
      }>();
      const answers = session.exchange(requests, { timeoutMs: 60_000 })[Symbol.asyncIterator]();
      for (let message = 0; message < 32; message++) {
        const written = requests.write({ frame: { kind: { case: "envelope", value: envelope } } });
        const { value } = await answers.next();
        assert.deepEqual(value?.frame?.kind.value, envelope);
        await written;
      }
      return async () => {
        requests.close();
        assert.equal((await answers.next()).done, true);
      };
    };
    const ends = await Promise.all(Array.from({ length: 4 }, talk));
    for (const end of ends) await end();
  });
});

describe("request memory", () => {
  it("is counted for each peer, and a refusal takes nothing", () => {
    const refusals: string[] = [];
    const memory = new RequestMemory(100, (peer) => refusals.push(peer));
    assert.ok(memory.take("a", 60));
    assert.ok(memory.take("a", 40));
    assert.equal(memory.take("a", 1), false);
    assert.equal(memory.heldBy("a"), 100);
    assert.ok(memory.take("b", 100));
    memory.giveBack("a", 60);
    assert.ok(memory.take("a", 60));
    assert.equal(memory.take("b", 101), false);
    memory.giveBack("b", 100);
    assert.equal(memory.heldBy("b"), 0);
    memory.giveBack("b", 5);
    assert.equal(memory.heldBy("b"), 0);
  });

  it("tells once for each time that a peer comes to its limit", () => {
    const refusals: string[] = [];
    const memory = new RequestMemory(100, (peer) => refusals.push(peer));
    memory.take("a", 100);
    for (let again = 0; again < 10; again++) memory.take("a", 1);
    assert.deepEqual(refusals, ["a"]);
    // A little given back and taken again is the same time.
    memory.giveBack("a", 10);
    memory.take("a", 10);
    memory.take("a", 1);
    assert.deepEqual(refusals, ["a"]);
    memory.giveBack("a", 60);
    memory.take("a", 60);
    memory.take("a", 1);
    assert.deepEqual(refusals, ["a", "a"]);
  });
});
