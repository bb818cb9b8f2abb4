import assert from "node:assert/strict";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { after, describe, it } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { DEFAULT_LIMITS } from "../../src/network/network-limits.js";
import { systemClock } from "../../src/node/ambient.js";
import { killAll, NEVER, NodeProcess, pingUntil, REMAINING } from "./node-process.js";
import { TestAuthority } from "./test-certificates.js";
import { closeAll, control, eventually, startNode, statusOf, type TestNode } from "./test-mesh.js";
import { issueNow, trustVerifier } from "./test-trust.js";
import { UdpProxy } from "./udp-proxy.js";

after(async () => {
  killAll();
  await closeAll();
});

const words = (text: string) => ({ payload: new Uint8Array(Buffer.from(text)) });
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** "node-b" in a process between "node-a", which dials it, and "node-c", which it dials; both here. */
async function startBetween() {
  const authority = await TestAuthority.create("between");
  const c = await startNode({ nodeId: "node-c", authority, peers: [{ nodeId: "node-b" }] });
  const peers = [{ nodeId: "node-a" }, { nodeId: "node-c", host: "127.0.0.1", port: c.mesh.port }];
  const credentials = await authority.issue("node-b");
  const start = (port?: number) =>
    NodeProcess.start({ nodeId: "node-b", authority, peers, credentials, ...(port === undefined ? {} : { port }) });
  const b = await start();
  const a = await startNode({
    nodeId: "node-a",
    authority,
    peers: [{ nodeId: "node-b", host: "127.0.0.1", port: b.port }],
  });
  await Promise.all([a.mesh.ready(["node-b"], 10_000), c.mesh.ready(["node-b"], 10_000)]);
  return { a, b, c, start, close: () => Promise.all([a.mesh.close(), c.mesh.close(), b.kill()]) };
}

/** Repeats idempotent calls until stopped; what failed for good is kept. */
class Caller {
  answered = 0;
  repeated = 0;
  readonly failed: string[] = [];
  readonly #done: Promise<unknown>;
  #stopped = false;

  constructor(nodes: readonly (readonly [TestNode, string])[]) {
    this.#done = Promise.all(nodes.map(([node, peer]) => this.#run(node, peer)));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #run(node: TestNode, peer: string): Promise<void> {
    while (!this.#stopped) {
      try {
        this.repeated += await pingUntil(node.mesh, peer, performance.now() + 30_000);
        this.answered += 1;
      } catch (error) {
        this.failed.push(String(error));
      }
      await pause(2);
    }
  }
}

describe("a process that falls silent", () => {
  it("pings and silence add up to less than 3 s", () => {
    assert.ok(DEFAULT_LIMITS.keepAliveIntervalMs + DEFAULT_LIMITS.silenceMs <= 2_900);
  });

  it("killed: whoever dials it and whom it dials know within 3 s, and pending calls fail when it is known dead", async () => {
    const { a, b, c, close } = await startBetween();
    const pending = [a, c].map((node) =>
      control(node, "node-b")
        .ping(words(NEVER), { timeoutMs: 60_000 })
        .catch((error: unknown) => error),
    );
    let settled = 0;
    for (const each of pending) void each.then(() => (settled += 1));
    await pause(300);
    // What this test's own process is late by is not the transport's.
    const lag = monitorEventLoopDelay({ resolution: 10 });
    lag.enable();
    await b.kill();
    const killedMs = performance.now();
    const aware = async (node: TestNode) => {
      assert.ok(await eventually(() => statusOf(node, "node-b").state !== "active", 20_000));
      return performance.now() - killedMs;
    };
    const knownMs = Math.max(...(await Promise.all([aware(a), aware(c)])));
    const allowedMs = 3_000 + lag.max / 1e6;
    assert.ok(knownMs <= allowedMs, `known after ${knownMs.toFixed(0)} ms of ${allowedMs.toFixed(0)}`);
    assert.equal(settled, 0, "a silent peer may be busy: calls wait");
    const dead = (node: TestNode) => statusOf(node, "node-b").lastFault?.code === "connection-timed-out";
    for (const node of [a, c]) assert.ok(await eventually(() => dead(node), 20_000));
    for (const error of await Promise.all(pending)) {
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.Unavailable);
    }
    await close();
  });

  it("stopped and continued: it is degraded meanwhile, no call is lost, the connections stay", async () => {
    const { a, b, c, close } = await startBetween();
    b.process.kill("SIGSTOP");
    const calls = [a, c].flatMap((node) =>
      Array.from({ length: 20 }, () => control(node, "node-b").ping(words("stopped"), { timeoutMs: 30_000 })),
    );
    for (const node of [a, c]) assert.ok(await eventually(() => statusOf(node, "node-b").state === "degraded", 20_000));
    b.process.kill("SIGCONT");
    for (const { payload } of await Promise.all(calls)) assert.equal(Buffer.from(payload).toString(), "stopped");
    for (const node of [a, c]) {
      assert.ok(await eventually(() => statusOf(node, "node-b").state === "active"));
      assert.equal(statusOf(node, "node-b").connections, 1);
    }
    await close();
  });
});

describe("an address that changes", () => {
  it("a NAT that forgets its mapping: calls move to a new connection, none fails for good", async () => {
    const authority = await TestAuthority.create("rebind");
    const b = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }] });
    const proxy = await UdpProxy.start(b.mesh.port);
    const peers = [{ nodeId: "node-b", host: "127.0.0.1", port: proxy.port }];
    const a = await startNode({ nodeId: "node-a", authority, peers });
    await a.mesh.ready(["node-b"], 10_000);
    const caller = new Caller([
      [a, "node-b"],
      [b, "node-a"],
    ]);
    for (let move = 1; move <= 2; move++) {
      await pause(200);
      // Another port, and another address.
      await proxy.rebind(`127.0.0.${move}`);
      assert.ok(await eventually(() => statusOf(a, "node-b").connections === 1 + move, 20_000));
      const { answered } = caller;
      assert.ok(await eventually(() => caller.answered >= answered + 20, 20_000), "both directions work again");
    }
    await caller.stop();
    assert.deepEqual(caller.failed, []);
    assert.equal(statusOf(b, "node-a").remote, `127.0.0.2:${proxy.outsidePort}`);
    await Promise.all([a.mesh.close(), b.mesh.close()]);
    proxy.close();
  });

  it("a node that comes back at another port: who dials is told, who is dialled need not be", async () => {
    const { a, b, c, start, close } = await startBetween();
    const caller = new Caller([
      [a, "node-b"],
      [c, "node-b"],
    ]);
    await pause(200);
    await b.kill();
    const again = await start();
    assert.notEqual(again.port, b.port);
    a.mesh.removePeer("node-b");
    a.mesh.addPeer({ nodeId: "node-b", host: "127.0.0.1", port: again.port });
    await Promise.all([a.mesh.ready(["node-b"], 20_000), c.mesh.ready(["node-b"], 20_000)]);
    const { answered } = caller;
    assert.ok(await eventually(() => caller.answered >= answered + 20, 20_000));
    await caller.stop();
    assert.deepEqual(caller.failed, []);
    await again.kill();
    await close();
  });
});

describe("clocks that differ", () => {
  /** "node-a" here dials "node-b", whose clock is elsewhere; both judge by what was issued a moment ago by our clock. */
  async function startSkewed(skewMs: number) {
    const { trust, credentialsOf } = await issueNow(["node-a", "node-b"]);
    const peersOfB = [{ nodeId: "node-a" }];
    const credentials = credentialsOf("node-b");
    const b = await NodeProcess.start({ nodeId: "node-b", trust, credentials, peers: peersOfB, skewMs });
    const a = await startNode({
      nodeId: "node-a",
      credentials: credentialsOf("node-a"),
      verifier: trustVerifier(trust, systemClock),
      peers: [{ nodeId: "node-b", host: "127.0.0.1", port: b.port }],
    });
    return { a, b };
  }

  for (const skewMs of [60_000, -60_000]) {
    it(`by ${skewMs} ms: certificates are accepted, deadlines are what is left and not a time of day`, async () => {
      const { a, b } = await startSkewed(skewMs);
      await a.mesh.ready(["node-b"], 10_000);
      const answer = await control(a, "node-b").ping(words(REMAINING), { timeoutMs: 20_000 });
      const apartMs = Number(answer.timeMs) - Date.now();
      assert.ok(Math.abs(apartMs - skewMs) < 20_000, `the clocks are ${apartMs} ms apart`);
      const remainingMs = Number(Buffer.from(answer.payload).toString());
      assert.ok(remainingMs > 0 && remainingMs <= 20_000, `${remainingMs} ms were left`);
      const short = control(a, "node-b").ping(words(NEVER), { timeoutMs: 300 });
      await assert.rejects(short, (error) => error instanceof ConnectError && error.code === Code.DeadlineExceeded);
      assert.ok(await eventually(() => statusOf(a, "node-b").state === "active"));
      await a.mesh.close();
      await b.kill();
    });
  }

  it("by a quarter of a year: the certificate has expired for the one that is ahead", async () => {
    const { a, b } = await startSkewed(91 * 86_400_000);
    const why = () => statusOf(a, "node-b").lastFault?.message ?? "";
    assert.ok(await eventually(() => why() !== "", 20_000));
    assert.match(why(), /certificate refused: expired/);
    assert.equal(statusOf(a, "node-b").connections, 0);
    await a.mesh.close();
    await b.kill();
  });
});
