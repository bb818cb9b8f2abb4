import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { Unavailable } from "../../src/crypto/fault.js";
import type { NetworkLimits } from "../../src/network/network-limits.js";
import type { PeerAddress } from "../../src/network/peer-link.js";
import { BUSY, blockMs, killAll, LEAVE, NEVER, NodeProcess } from "./node-process.js";
import { TestAuthority } from "./test-certificates.js";
import { closeAll, control, eventually, startNode, statusOf, type TestNode } from "./test-mesh.js";

after(async () => {
  killAll();
  await closeAll();
});

const words = (text: string) => ({ payload: new Uint8Array(Buffer.from(text)) });

function unavailable(error: unknown): boolean {
  assert.ok(error instanceof ConnectError, String(error));
  assert.equal(error.code, Code.Unavailable, error.message);
  assert.ok(error.cause instanceof Unavailable, "our fault is inside");
  return true;
}

/** "node-a" here dials "node-b" in a child process. */
async function startWithChild(limits: Partial<NetworkLimits> = {}) {
  const authority = await TestAuthority.create("processes");
  const credentials = await authority.issue("node-b");
  const options = { nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }], credentials, limits };
  const child = await NodeProcess.start(options);
  const node = await startNode({
    nodeId: "node-a",
    authority,
    limits,
    peers: [{ nodeId: "node-b", host: "127.0.0.1", port: child.port }],
  });
  await node.mesh.ready(["node-b"], 5_000);
  return { node, child, again: () => NodeProcess.start({ ...options, port: child.port }) };
}

async function end(node: TestNode, ...ended: NodeProcess[]): Promise<void> {
  await node.mesh.close();
  await Promise.all(ended.map((child) => child.kill()));
}

describe("a peer in another process", () => {
  it("killed and restarted on its port: pending calls are Unavailable, the next ones work", async () => {
    const { node, child, again } = await startWithChild();
    const pending = Array.from({ length: 5 }, () => control(node, "node-b").ping(words(NEVER), { timeoutMs: 30_000 }));
    const outcomes = Promise.allSettled(pending);
    await new Promise((resolve) => setTimeout(resolve, 100));
    child.process.kill("SIGKILL");
    await child.exited;
    const restartedMs = performance.now();
    const second = await again();
    for (const outcome of await outcomes) {
      assert.ok(outcome.status === "rejected");
      unavailable(outcome.reason);
    }
    // The new life answers the packets of the old one with a stateless reset, so nobody waits for the idle timeout.
    assert.ok(performance.now() - restartedMs < 6_000, "pending calls failed before the idle timeout");
    const answer = await control(node, "node-b").ping(words("back"), { timeoutMs: 10_000 });
    assert.equal(Buffer.from(answer.payload).toString(), "back");
    assert.equal(statusOf(node, "node-b").connections, 2);
    await end(node, second);
  });

  it("killed and gone: pending calls are Unavailable after the idle timeout, waiting ones within their deadline", async () => {
    const limits = { idleTimeoutMs: 1_500, keepAliveIntervalMs: 400, healthIntervalMs: 300, healthTimeoutMs: 300 };
    const { node, child } = await startWithChild(limits);
    const pending = control(node, "node-b").ping(words(NEVER), { timeoutMs: 30_000 });
    const outcome = assert.rejects(pending, unavailable);
    await new Promise((resolve) => setTimeout(resolve, 100));
    child.process.kill("SIGKILL");
    await child.exited;
    assert.ok(await eventually(() => statusOf(node, "node-b").state === "degraded"), "the health check notices first");
    await outcome;
    assert.match(statusOf(node, "node-b").lastFault?.code ?? "", /timed-out/);
    await assert.rejects(control(node, "node-b").ping({}, { timeoutMs: 300 }), (error) => {
      assert.ok(error instanceof ConnectError);
      return [Code.Unavailable, Code.DeadlineExceeded].includes(error.code);
    });
    await end(node);
  });

  it("busy for 4.5 s, either side: the connection lives and the calls are answered", async () => {
    const { node, child } = await startWithChild();
    const client = control(node, "node-b");
    const startMs = performance.now();
    const others = Array.from({ length: 20 }, () => client.ping(words("meanwhile"), { timeoutMs: 20_000 }));
    await client.ping(words(`${BUSY}4500`), { timeoutMs: 20_000 });
    await Promise.all(others);
    assert.ok(performance.now() - startMs >= 4_400, "the other side was busy");
    const mine = Array.from({ length: 20 }, () => client.ping(words("meanwhile"), { timeoutMs: 20_000 }));
    await new Promise((resolve) => setImmediate(resolve));
    blockMs(4_500);
    await Promise.all(mine);
    assert.ok(await eventually(() => statusOf(node, "node-b").state === "active"));
    const { connections, lastFault } = statusOf(node, "node-b");
    assert.deepEqual({ connections, lastFault }, { connections: 1, lastFault: undefined });
    await end(node, child);
  });

  it("close() leaves nothing behind: the process ends by itself", async () => {
    const { node, child } = await startWithChild();
    await control(node, "node-b").ping(words(LEAVE), { timeoutMs: 5_000 });
    const timer = new Promise<string>((resolve) => setTimeout(() => resolve("still running"), 5_000).unref());
    assert.equal(await Promise.race([child.exited, timer]), 0);
    await end(node);
  });

  it("a coordinator that dials is called back on the same connection", async () => {
    const authority = await TestAuthority.create("coordinator");
    const coordinator: PeerAddress = { nodeId: "coordinator-1", dial: "them" };
    const nodes = await Promise.all(
      ["node-1", "node-2"].map((nodeId) => startNode({ nodeId, authority, peers: [coordinator] })),
    );
    const peers = nodes.map(({ mesh }): PeerAddress => {
      return { nodeId: mesh.nodeId, host: "127.0.0.1", port: mesh.port, dial: "us" };
    });
    const hub = await startNode({ nodeId: "coordinator-1", authority, peers });
    await hub.mesh.ready(["node-1", "node-2"], 5_000);
    for (const node of nodes) {
      await node.mesh.ready(["coordinator-1"], 5_000);
      assert.equal((await control(hub, node.mesh.nodeId).ping(words("down"), { timeoutMs: 5_000 })).payload.length, 4);
      assert.equal((await control(node, "coordinator-1").ping(words("up"), { timeoutMs: 5_000 })).payload.length, 2);
      const { connections, dials, state, latencyP50Us, successRatio } = statusOf(node, "coordinator-1");
      assert.deepEqual(
        { connections, dials, state, successRatio },
        { connections: 1, dials: false, state: "active", successRatio: 1 },
      );
      assert.ok(latencyP50Us !== undefined && latencyP50Us > 0);
    }
    await Promise.all([hub, ...nodes].map(({ mesh }) => mesh.close()));
  });
});
