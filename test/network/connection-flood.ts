import { randomBytes } from "node:crypto";
import { createSocket, type Socket } from "node:dgram";
import { readdirSync } from "node:fs";
import { loadQuicBinding, type NativeConnection } from "../../src/network/quic-binding.js";
import { percentile, smallCalls } from "./bulk-service.js";
import { TestAuthority } from "./test-certificates.js";
import { startNode } from "./test-mesh.js";

const ADDRESSES = 40;
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Clients without a certificate at 40 addresses that prove their address, begin a handshake, and fall silent. */
class SilentCrowd {
  readonly #port: number;
  readonly #sockets: Socket[] = [];
  readonly #waiting = new Map<string, { native: NativeConnection; socket: Socket }>();
  /** Attempts that were given a token and came back with it. */
  proved = 0;

  constructor(port: number) {
    this.#port = port;
  }

  async start(): Promise<void> {
    for (let index = 1; index <= ADDRESSES; index++) {
      const socket = createSocket("udp4").unref();
      await new Promise<void>((resolve) => socket.bind(0, `127.0.1.${index}`, resolve));
      socket.on("message", (datagram) => this.#answer(datagram));
      this.#sockets.push(socket);
    }
  }

  async attempt(index: number): Promise<void> {
    const binding = await loadQuicBinding();
    const socket = this.#sockets[index % ADDRESSES];
    if (socket === undefined) throw new Error("not started");
    const config = binding.Config.withBoringSslCtx(false, true);
    config.setApplicationProtos(["mpc-wallet/1"]);
    const id = randomBytes(16);
    const { address, port } = socket.address();
    const remote = { host: "127.0.0.1", port: this.#port };
    const native = binding.Connection.connect(null, id, { host: address, port }, remote, config);
    if (this.#waiting.size > 2_000) this.#waiting.clear();
    this.#waiting.set(id.toString("hex"), { native, socket });
    this.#send(native, socket);
  }

  close(): void {
    for (const socket of this.#sockets) socket.close();
  }

  #answer(datagram: Buffer): void {
    const id = datagram.subarray(6, 6 + (datagram[5] ?? 0)).toString("hex");
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#waiting.delete(id);
    const { address, port } = waiting.socket.address();
    waiting.native.recv(datagram, { from: { host: "127.0.0.1", port: this.#port }, to: { host: address, port } });
    this.proved += 1;
    this.#send(waiting.native, waiting.socket);
  }

  #send(native: NativeConnection, socket: Socket): void {
    const buffer = Buffer.alloc(1_350);
    const packet = native.send(buffer);
    if (packet !== null) socket.send(buffer.subarray(0, packet[0]), this.#port, "127.0.0.1");
  }
}

/** What a flood of connection attempts did. Memory is of attacker and victim together, which share a process. */
export interface FloodSummary {
  readonly attempts: number;
  readonly proved: number;
  readonly lines: number;
  readonly calls: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** From the start of a new peer to its first connection, in the middle of the flood. */
  readonly joinedMs: number;
  readonly rssGrowthMb: number;
  readonly fileDescriptors: { readonly before: number; readonly after: number };
}

export const openFiles = () => readdirSync("/proc/self/fd").length;

/** @throws when a call of a connected peer fails, or a new peer cannot connect during the flood */
export async function floodConnections(count: number): Promise<FloodSummary> {
  const authority = await TestAuthority.create("flood");
  const b = await startNode({
    nodeId: "node-b",
    authority,
    peers: [{ nodeId: "node-a" }, { nodeId: "node-c", dial: "them" }],
  });
  const to = { nodeId: "node-b", host: "127.0.0.1", port: b.mesh.port };
  const a = await startNode({ nodeId: "node-a", authority, peers: [to] });
  await a.mesh.ready(["node-b"], 20_000);
  const before = openFiles();
  const crowd = new SilentCrowd(b.mesh.port);
  await crowd.start();
  const linesBefore = b.events.length;
  const rssBefore = process.memoryUsage().rss;
  const latencies: number[] = [];
  let flooding = true;
  const caller = (async () => {
    while (flooding) latencies.push(...(await smallCalls(a.mesh.transport("node-b"), 1)));
  })();
  let joined: Promise<number> | undefined;
  const join = async () => {
    const startMs = performance.now();
    const c = await startNode({ nodeId: "node-c", authority, peers: [{ ...to, dial: "us" }] });
    await c.mesh.ready(["node-b"], 60_000);
    const tookMs = performance.now() - startMs;
    await c.mesh.close();
    return tookMs;
  };
  for (let attempt = 0; attempt < count; attempt++) {
    if (attempt === Math.floor(count / 4)) joined = join();
    await crowd.attempt(attempt);
    if (attempt % 10 === 9) await turn();
  }
  const joinedMs = (await joined) ?? Number.NaN;
  flooding = false;
  await caller;
  const { proved } = crowd;
  crowd.close();
  globalThis.gc?.();
  const rssGrowthMb = (process.memoryUsage().rss - rssBefore) / 2 ** 20;
  const lines = b.events.length - linesBefore;
  await turn();
  const after = openFiles();
  await Promise.all([a.mesh.close(), b.mesh.close()]);
  return {
    attempts: count,
    proved,
    lines,
    calls: latencies.length,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    joinedMs,
    rssGrowthMb,
    fileDescriptors: { before, after },
  };
}
