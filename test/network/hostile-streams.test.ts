import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { sizeDelimitedEncode } from "@bufbuild/protobuf/wire";
import { Code } from "@connectrpc/connect";
import { FieldSchema } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { encodeEnd } from "../../src/network/frame-codec.js";
import { bulkRoutes } from "./bulk-service.js";
import { HostilePeer, type RawStream } from "./hostile-peer.js";
import {
  BOMBS,
  dataFrames,
  field,
  hugeClaim,
  pingBody,
  requestHead,
  singleBytes,
  wholePing,
} from "./hostile-requests.js";
import { TestAuthority, testVerifier } from "./test-certificates.js";
import { closeAll, control, eventually, startNode, statusOf, type TestNode } from "./test-mesh.js";

/** Fewer than the 100 that are allowed: quiche gives credit for streams that are over in batches. */
const STREAMS = 45;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

after(closeAll);

describe("a peer with a good certificate that means harm", () => {
  let authority: TestAuthority;
  let victim: TestNode;
  let honest: TestNode;
  let hostile: HostilePeer;

  before(async () => {
    authority = await TestAuthority.create("hostile");
    victim = await startNode({
      nodeId: "node-b",
      authority,
      peers: [{ nodeId: "node-a" }, { nodeId: "node-h", dial: "them" }],
      router: bulkRoutes,
      limits: { headMs: 1_000, transferMs: 1_500 },
    });
    const to = { nodeId: "node-b", host: "127.0.0.1", port: victim.mesh.port };
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
    await Promise.all([honest.mesh.close(), victim.mesh.close()]);
  });

  const openAll = (count = STREAMS) => Promise.all(Array.from({ length: count }, () => hostile.open()));
  const honestCalls = async () => {
    for (let call = 0; call < 20; call++) {
      const payload = new Uint8Array(200);
      await control(honest, "node-b").ping({ payload }, { timeoutMs: 20_000 });
    }
  };

  /** More calls than a connection allows at once, as soon as there is room for each; true when all are answered. */
  async function serves(count: number): Promise<boolean> {
    const body = wholePing(10);
    const calls = Array.from({ length: count }, async () => {
      const { stream, received, over } = await hostile.open();
      stream.end(body);
      await over;
      return Buffer.concat(received).includes("grpc-status");
    });
    return (await Promise.all(calls)).every((answered) => answered);
  }

  /** All streams were reset with this code, an honest peer's calls pass meanwhile, and all their places are free again. */
  async function cutOff(streams: readonly RawStream[], code: Code): Promise<void> {
    await honestCalls();
    await Promise.all(streams.map(({ over }) => over));
    for (const { resetCode } of streams) assert.equal(Code[resetCode ?? -1], Code[code]);
    assert.ok(await serves(120));
    assert.equal(statusOf(honest, "node-b").connections, 1);
  }

  it("45 heads a byte at a time: each is given its time and no more", async () => {
    const streams = await openAll();
    const bytes = requestHead();
    let sent = 0;
    const trickle = setInterval(() => {
      for (const { stream } of streams) stream.write(bytes.subarray(sent % 20, (sent % 20) + 1));
      sent += 1;
      if (sent > 15) clearInterval(trickle);
    }, 100);
    await cutOff(streams, Code.DeadlineExceeded);
    clearInterval(trickle);
  });

  it("45 streams of which nothing but one byte comes: the same", async () => {
    const streams = await openAll();
    for (const { stream } of streams) stream.write(Buffer.from([0x7f]));
    await cutOff(streams, Code.DeadlineExceeded);
  });

  it("20 requests of 1 MB that stop before their last byte: the same, and their memory is given back", async () => {
    const streams = await openAll(20);
    const before = process.memoryUsage().rss;
    const body = dataFrames(pingBody(1_000_000));
    for (const { stream } of streams) {
      stream.write(requestHead());
      stream.write(body.subarray(0, body.length - 1));
    }
    await cutOff(streams, Code.DeadlineExceeded);
    const grown = (process.memoryUsage().rss - before) / 2 ** 20;
    assert.ok(grown < 150, `memory grew by ${grown.toFixed(0)} MB`);
  });

  it("8 answers of 1.9 MB that nobody reads: the same", async () => {
    const streams = await openAll(8);
    for (const { stream } of streams) {
      stream.pause();
      stream.end(wholePing(1_900_000));
    }
    await honestCalls();
    assert.ok(await eventually(() => streams.every(({ stream }) => !stream.sending), 30_000));
    // Nobody reads, so nobody sees the reset before reading again.
    await pause(4_000);
    for (const { stream } of streams) stream.resume();
    await cutOff(streams, Code.DeadlineExceeded);
  });

  it("requests whose end comes without the end of their streams are answered, and harm nobody", async () => {
    const streams = await openAll();
    for (const { stream } of streams) stream.write(wholePing(10));
    await honestCalls();
    await Promise.all(streams.map(({ over }) => over));
    for (const { stream, received } of streams) {
      assert.ok(Buffer.concat(received).includes("grpc-status"));
      stream.reset(0);
    }
    await honestCalls();
    assert.ok(await serves(120));
  });

  for (const [name, make] of BOMBS) {
    it(`${name}, 20 times: refused while it arrives`, async () => {
      const streams = await openAll(20);
      const bytes = make();
      for (const { stream } of streams) stream.write(bytes);
      await cutOff(streams, Code.ResourceExhausted);
    });
  }

  it("a gRPC message that claims 4 GB is refused at its prefix", async () => {
    const streams = await openAll(20);
    for (const { stream } of streams) stream.end(hugeClaim());
    await Promise.all(streams.map(({ over }) => over));
    const status = Buffer.from(sizeDelimitedEncode(FieldSchema, field("grpc-status", String(Code.ResourceExhausted))));
    for (const { received } of streams) assert.ok(Buffer.concat(received).includes(status));
    await honestCalls();
  });

  it("time limits beyond what a timer takes are the longest one", async () => {
    const warnings: string[] = [];
    const note = ({ name }: Error) => void warnings.push(name);
    process.on("warning", note);
    for (const timeout of ["99999999H", "597H", "35792M", "99999999S", "2147483S"]) {
      const [one] = await openAll(1);
      one?.stream.end(Buffer.concat([requestHead({ "grpc-timeout": timeout }), dataFrames(pingBody(10)), encodeEnd()]));
      await one?.over;
      const status = Buffer.from(sizeDelimitedEncode(FieldSchema, field("grpc-status", "0")));
      assert.ok(Buffer.concat(one?.received ?? []).includes(status), timeout);
    }
    await pause(10);
    process.off("warning", note);
    assert.deepEqual(warnings, []);
  });

  it("messages in 200,000 frames of one byte, 20 times: refused after the first few; 64 such frames pass", async () => {
    const streams = await openAll(20);
    const bytes = Buffer.concat([requestHead(), singleBytes(pingBody(200_000)), encodeEnd()]);
    for (const { stream } of streams) stream.end(bytes);
    await cutOff(streams, Code.ResourceExhausted);
    // A prefix, a tag, a length of three bytes and the payload: the frame that ends the message is no fragment.
    for (const [payloadBytes, passes] of [
      [56, true],
      [57, false],
    ] as const) {
      const [one] = await openAll(1);
      one?.stream.end(Buffer.concat([requestHead(), singleBytes(pingBody(payloadBytes)), encodeEnd()]));
      await one?.over;
      assert.equal(one?.resetCode, passes ? undefined : Code.ResourceExhausted, `${payloadBytes}`);
      assert.equal(Buffer.concat(one?.received ?? []).includes("grpc-status"), passes);
    }
  });

  it("300 streams at once: some are served, the rest wait for their turn", async () => {
    const served = serves(300);
    await honestCalls();
    assert.ok(await served);
  });
});
