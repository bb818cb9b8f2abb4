import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { after, describe, it } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { ConnectError, createClient } from "@connectrpc/connect";
import { ControlService, SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { Unavailable } from "../../src/crypto/fault.js";
import { DEFAULT_LIMITS, type NetworkLimits } from "../../src/network/network-limits.js";
import { CONNECTION_ID_BYTES } from "../../src/network/packet-header.js";
import type { PeerMesh } from "../../src/network/peer-mesh.js";
import { CLOSE, type QuicConnection } from "../../src/network/quic-connection.js";
import { QuicEndpoint } from "../../src/network/quic-endpoint.js";
import { RpcServer } from "../../src/network/rpc-server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { TestAuthority, testVerifier } from "./test-certificates.js";
import { closeAll, control, eventually, pingRoutes, startNode, statusOf, type TestNode } from "./test-mesh.js";

after(closeAll);

/** A peer whose connections are in the test's hand: it answers calls, and ends a connection when told to. */
class Victim {
  readonly connections: QuicConnection[] = [];
  /** For each call, on which of the connections, by the order in which they became active, it came. */
  readonly servedOn: number[] = [];
  #endpoint: QuicEndpoint | undefined;
  readonly #authority: TestAuthority;
  #delayMs = 0;

  constructor(authority: TestAuthority) {
    this.#authority = authority;
  }

  get port(): number {
    return this.#endpoint?.port ?? 0;
  }

  /** @param delayMs how long each answer takes, so that calls are under way at any time */
  async start(delayMs: number, port = 0): Promise<void> {
    this.#delayMs = delayMs;
    const limits: NetworkLimits = DEFAULT_LIMITS;
    const server = new RpcServer({
      limits,
      clock: systemClock,
      log: () => {},
      setup: (router) => {
        router.service(ControlService, {
          ping: async ({ payload }) => {
            await wait(this.#delayMs, undefined, { ref: false });
            return { payload, timeMs: 1n };
          },
        });
        router.service(SessionService, {
          presign: async () => {
            await wait(60_000, undefined, { ref: false });
            return {};
          },
        });
      },
    });
    this.#endpoint = await QuicEndpoint.start(
      {
        nodeId: "node-b",
        listen: { host: "127.0.0.1", port },
        credentials: await this.#authority.issue("node-b"),
        limits,
      },
      {
        clock: systemClock,
        random: systemRandom,
        verifier: testVerifier(this.#authority.rootDer),
        events: {
          active: (connection) => this.connections.push(connection),
          stream: (stream, connection) => {
            this.servedOn.push(this.connections.indexOf(connection));
            server.serve(stream, connection);
          },
          silent: () => {},
          heard: () => {},
          closed: () => {},
        },
      },
    );
  }

  live(): QuicConnection[] {
    return this.connections.filter(({ phase }) => phase === "active");
  }

  async close(): Promise<void> {
    await this.#endpoint?.close(CLOSE.done, "the test is over");
  }
}

async function startWithVictim(limits: Partial<NetworkLimits>, delayMs = 5) {
  const authority = await TestAuthority.create("standby");
  const victim = new Victim(authority);
  await victim.start(delayMs);
  const peers = [{ nodeId: "node-b", host: "127.0.0.1", port: victim.port, dial: "us" as const }];
  const node = await startNode({ nodeId: "node-a", authority, peers, limits });
  await node.mesh.ready(["node-b"], 10_000);
  return { node, victim };
}

const standsBy = (node: TestNode) => statusOf(node, "node-b").standby;
/** A redial that a test would notice if calls waited for it. */
const REDIAL_MS = 5_000;
const SLOW_REDIAL = { redialDelaysMs: [REDIAL_MS] };

/** Calls without a pause, `width` at a time, until stopped. */
function load(mesh: PeerMesh, width: number) {
  const client = createClient(ControlService, mesh.transport("node-b"));
  const failures: unknown[] = [];
  let [calls, longestMs, over] = [0, 0, false];
  const caller = async (): Promise<void> => {
    while (!over) {
      const startedMs = performance.now();
      try {
        await client.ping({ payload: new Uint8Array(100) }, { timeoutMs: 30_000 });
        calls += 1;
      } catch (error) {
        failures.push(error);
      }
      longestMs = Math.max(longestMs, performance.now() - startedMs);
    }
  };
  const running = Array.from({ length: width }, caller);
  return {
    calls: () => calls,
    async stop() {
      over = true;
      await Promise.all(running);
      return { calls, failures, longestMs };
    },
  };
}

describe("a connection that stands by", () => {
  it("takes over under load when the active one is killed: no idempotent call fails or waits for a redial", async () => {
    const { node, victim } = await startWithVictim({ standby: true, ...SLOW_REDIAL });
    assert.ok(await eventually(() => standsBy(node), 10_000));
    const running = load(node.mesh, 20);
    const newest = () => victim.live().at(-1);
    const isLoaded = () => running.calls() > 200 && (newest()?.openStreams ?? 0) > 0;
    assert.ok(await eventually(isLoaded, 20_000), "calls are under way on it");
    newest()?.close(CLOSE.protocol, "killed by the test");
    const before = running.calls();
    assert.ok(await eventually(() => running.calls() > before + 200, 20_000));
    assert.equal(statusOf(node, "node-b").state, "active");
    const { failures, longestMs } = await running.stop();
    assert.deepEqual(failures, []);
    assert.ok(longestMs < REDIAL_MS * 0.75, `a call took ${Math.round(longestMs)} ms`);
    assert.equal(node.events.filter(({ event }) => event === "peer-failover").length, 1);
    assert.equal(node.events.filter(({ facts }) => facts["state"] === "dead").length, 0);
    await Promise.all([node.mesh.close(), victim.close()]);
  });

  it("is replaced when it dies or is used up, and again after the next death", async () => {
    const { node, victim } = await startWithVictim({ standby: true, redialDelaysMs: [50] });
    for (let round = 0; round < 3; round += 1) {
      assert.ok(await eventually(() => standsBy(node) && victim.live().length === 2, 10_000), `round ${round}`);
      victim.live()[round % 2]?.close(CLOSE.protocol, "killed by the test");
      await control(node, "node-b").ping({}, { timeoutMs: 10_000 });
    }
    await Promise.all([node.mesh.close(), victim.close()]);
  });

  it("does not repeat a call that nobody says may be repeated", async () => {
    const { node, victim } = await startWithVictim({ standby: true, ...SLOW_REDIAL });
    assert.ok(await eventually(() => standsBy(node), 10_000));
    const client = createClient(SessionService, node.mesh.transport("node-b"));
    const served = victim.servedOn.length;
    const call = client.presign({ walletId: "w" }, { timeoutMs: 30_000 });
    call.catch(() => {});
    assert.ok(await eventually(() => victim.servedOn.length > served, 10_000));
    const after = victim.servedOn.length;
    victim.live().at(-1)?.close(CLOSE.protocol, "killed by the test");
    await assert.rejects(call, (error) => error instanceof ConnectError && error.cause instanceof Unavailable);
    // The health check over the other connection is the one call that may follow.
    assert.ok(victim.servedOn.length <= after + 1);
    await Promise.all([node.mesh.close(), victim.close()]);
  });

  it("does not hold up what must fail: with both connections gone, pending calls fail at once", async () => {
    const { node, victim } = await startWithVictim({ standby: true, ...SLOW_REDIAL }, 60_000);
    assert.ok(await eventually(() => standsBy(node), 10_000));
    const startedMs = performance.now();
    const call = control(node, "node-b").ping({}, { timeoutMs: 30_000 });
    call.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (const connection of victim.live()) connection.close(CLOSE.protocol, "killed by the test");
    await assert.rejects(call, (error) => error instanceof ConnectError && error.cause instanceof Unavailable);
    assert.ok(performance.now() - startedMs < 20_000);
    assert.equal(statusOf(node, "node-b").state, "dead");
    await Promise.all([node.mesh.close(), victim.close()]);
  });

  it("takes over from a connection that has fallen silent", async () => {
    const authority = await TestAuthority.create("silent");
    const peer = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }], router: pingRoutes });
    const wire = await connectionWire(peer.mesh.port);
    const limits = { standby: true, idleTimeoutMs: 2_000, keepAliveIntervalMs: 300, ...SLOW_REDIAL };
    const peers = [{ nodeId: "node-b", host: "127.0.0.1", port: wire.port, dial: "us" as const }];
    const node = await startNode({ nodeId: "node-a", authority, peers, limits });
    await node.mesh.ready(["node-b"], 10_000);
    assert.ok(await eventually(() => standsBy(node) && wire.connections() === 2, 10_000));
    const running = load(node.mesh, 5);
    assert.ok(await eventually(() => running.calls() > 50, 20_000));
    wire.silenceNewest();
    const before = running.calls();
    assert.ok(await eventually(() => running.calls() > before + 50, 20_000));
    const { failures } = await running.stop();
    assert.deepEqual(failures, []);
    assert.ok(node.events.some(({ event }) => event === "peer-failover"));
    await Promise.all([node.mesh.close(), peer.mesh.close()]);
    wire.close();
  });
});

describe("connections that are replaced", () => {
  it("after their time: calls go on, the old ones close when their calls are over", async () => {
    const { node, victim } = await startWithVictim({ standby: false, connectionMaxAgeMs: 800 }, 10);
    const running = load(node.mesh, 5);
    assert.ok(await eventually(() => victim.connections.length >= 4, 30_000));
    const { failures, calls } = await running.stop();
    assert.deepEqual(failures, []);
    assert.ok(calls > 50);
    assert.ok(await eventually(() => victim.connections.slice(0, 2).every(({ phase }) => phase === "closed"), 20_000));
    await Promise.all([node.mesh.close(), victim.close()]);
  });

  it("of a former life of the peer are over at once, those of this life stay", async () => {
    const authority = await TestAuthority.create("lives");
    const a = await startNode({ nodeId: "node-a", authority, peers: [{ nodeId: "node-b", dial: "them" }] });
    const peers = [{ nodeId: "node-a", host: "127.0.0.1", port: a.mesh.port, dial: "us" as const }];
    const limits = { standby: true };
    const first = await startNode({ nodeId: "node-b", authority, peers, limits });
    assert.ok(await eventually(() => statusOf(a, "node-b").standby, 10_000));
    const made = statusOf(a, "node-b").connections;
    // A second process under the same name: the first one is taken for dead.
    const second = await startNode({ nodeId: "node-b", authority, peers, limits });
    await second.mesh.ready(["node-a"], 10_000);
    assert.ok(await eventually(() => statusOf(a, "node-b").connections > made, 10_000));
    const superseded = () => first.events.filter(({ facts }) => facts["why"] === "superseded by a newer connection");
    assert.ok(await eventually(() => superseded().length >= 2, 10_000));
    await first.mesh.close();
    await Promise.all([a.mesh.close(), second.mesh.close()]);
  });
});

/** A wire that can swallow the packets of one connection of those that share it, told apart by their ids. */
async function connectionWire(toPort: number) {
  const [near, far] = [createSocket("udp4").unref(), createSocket("udp4").unref()];
  let back = 0;
  /** Destination ids of the server's side in the order of appearance. */
  const seen: string[] = [];
  const silenced = new Set<string>();
  near.on("message", (datagram, { port }) => {
    back = port;
    const isShort = ((datagram[0] ?? 0) & 0x80) === 0;
    const id = datagram.subarray(1, 1 + CONNECTION_ID_BYTES).toString("latin1");
    if (isShort && !seen.includes(id)) seen.push(id);
    if (!isShort || !silenced.has(id)) far.send(datagram, toPort, "127.0.0.1");
  });
  far.on("message", (datagram) => near.send(datagram, back, "127.0.0.1"));
  await Promise.all([near, far].map((socket) => new Promise<void>((done) => socket.bind(0, "127.0.0.1", done))));
  return {
    port: near.address().port,
    connections: () => seen.length,
    /** The newest connection is the one that calls use. */
    silenceNewest: () => silenced.add(seen.at(-1) ?? ""),
    close: () => [near, far].map((socket) => socket.close()),
  };
}
