// Our gRPC over QUIC against connect-node over HTTP/2, both with mutual TLS and the server in its own process, in one run.
// Then a soak with bursts above the stream limit. `npm run bench -- rpc [--json] [--short]`.
import { type ChildProcess, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { type Client, type ConnectRouter, createClient, type Transport } from "@connectrpc/connect";
import { ControlService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { TestAuthority } from "../network/test-certificates.js";
import {
  CLIENT,
  type Credentials,
  http2Transport,
  rootOf,
  SERVER,
  startHttp2Server,
  startMesh,
} from "./quic/protocols.js";

type Kind = "quic" | "http2";
const KINDS: readonly Kind[] = ["quic", "http2"];
const SIZES_BYTES = [200, 1_024, 65_536];
const CONCURRENCIES = [1, 50];
const SHORT = process.argv.includes("--short");
const ROUNDS = SHORT ? 1 : 4;
const ROUND_MS = 1_000;
const SOAK_CALLS = SHORT ? 10_000 : 100_000;
const BURST_CALLS = 1_000;
const CALL_TIMEOUT_MS = 30_000;

interface Setup extends Credentials {
  kind: Kind;
}

interface Row {
  kind: Kind;
  sizeBytes: number;
  concurrency: number;
  calls: number;
  p50Ms: number;
  p99Ms: number;
  callsPerSecond: number;
  cpuUsPerCall: number;
}

function routes(router: ConnectRouter): void {
  router.service(ControlService, { ping: ({ payload }) => ({ payload, timeMs: 1n }) });
}

// ---- the server's process

async function serve(setup: Setup): Promise<void> {
  let port: number;
  if (setup.kind === "quic") {
    const peer = { nodeId: CLIENT, host: "127.0.0.1" };
    port = (await startMesh(SERVER, { ...setup, peer, routes })).port;
  } else {
    port = await startHttp2Server({ ...setup, routes, host: "127.0.0.1", port: 0 });
  }
  process.on("message", () => process.send?.({ cpu: process.cpuUsage(), rss: process.memoryUsage().rss }));
  process.send?.({ port });
}

// ---- the measuring process

class Peer {
  readonly child: ChildProcess;
  readonly client: Client<typeof ControlService>;
  readonly close: () => Promise<void>;

  private constructor(child: ChildProcess, transport: Transport, close: () => Promise<void>) {
    this.child = child;
    this.client = createClient(ControlService, transport);
    this.close = close;
  }

  static async start(kind: Kind, authority: TestAuthority): Promise<Peer> {
    const rootDerBase64 = rootOf(authority.rootDer);
    const child = fork(fileURLToPath(import.meta.url), ["--serve"], { execArgv: [] });
    const ready = answer<{ port: number }>(child);
    child.send({ kind, credentials: await authority.issue(SERVER), rootDerBase64 } satisfies Setup);
    const { port } = await ready;
    const own = { credentials: await authority.issue(CLIENT), rootDerBase64 };
    const to = { host: "127.0.0.1", port };
    if (kind === "quic") {
      const mesh = await startMesh(CLIENT, { ...own, peer: { nodeId: SERVER, ...to }, routes });
      await mesh.ready([SERVER], 10_000);
      return new Peer(child, mesh.transport(SERVER), () => mesh.close());
    }
    const { transport, close } = http2Transport({ ...own, ...to });
    return new Peer(child, transport, close);
  }

  async usage(): Promise<{ cpuUs: number; rss: number }> {
    const reply = answer<{ cpu: NodeJS.CpuUsage; rss: number }>(this.child);
    this.child.send({});
    const { cpu, rss } = await reply;
    const own = process.cpuUsage();
    return { cpuUs: cpu.user + cpu.system + own.user + own.system, rss };
  }
}

function answer<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const lost = () => reject(new Error("the server process ended"));
    child.once("disconnect", lost);
    child.once("message", (message) => {
      child.off("disconnect", lost);
      resolve(message as T);
    });
  });
}

async function load(peer: Peer, options: { sizeBytes: number; concurrency: number; ms: number }): Promise<number[]> {
  const payload = randomBytes(options.sizeBytes);
  const latencies: number[] = [];
  const endMs = performance.now() + options.ms;
  const caller = async () => {
    while (performance.now() < endMs) {
      const startMs = performance.now();
      await peer.client.ping({ payload }, { timeoutMs: CALL_TIMEOUT_MS });
      latencies.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: options.concurrency }, caller));
  return latencies;
}

async function measure(peers: Record<Kind, Peer>): Promise<Row[]> {
  const rows: Row[] = [];
  for (const sizeBytes of SIZES_BYTES) {
    for (const concurrency of CONCURRENCIES) {
      const seen = Object.fromEntries(KINDS.map((kind) => [kind, { latencies: [] as number[], cpuUs: 0, ms: 0 }]));
      // The two take turns, so that a noisy neighbour hits both.
      for (let round = 0; round < ROUNDS; round++) {
        for (const kind of KINDS) {
          const entry = seen[kind];
          if (entry === undefined) continue;
          await load(peers[kind], { sizeBytes, concurrency, ms: ROUND_MS / 5 });
          const before = await peers[kind].usage();
          const startMs = performance.now();
          entry.latencies.push(...(await load(peers[kind], { sizeBytes, concurrency, ms: ROUND_MS })));
          entry.ms += performance.now() - startMs;
          entry.cpuUs += (await peers[kind].usage()).cpuUs - before.cpuUs;
        }
      }
      for (const kind of KINDS) {
        const { latencies, cpuUs, ms } = seen[kind] ?? { latencies: [], cpuUs: 0, ms: 1 };
        latencies.sort((a, b) => a - b);
        const at = (fraction: number) => latencies[Math.floor(latencies.length * fraction)] ?? Number.NaN;
        rows.push({
          kind,
          sizeBytes,
          concurrency,
          calls: latencies.length,
          p50Ms: at(0.5),
          p99Ms: at(0.99),
          callsPerSecond: (latencies.length / ms) * 1_000,
          cpuUsPerCall: cpuUs / latencies.length,
        });
      }
    }
  }
  return rows;
}

async function soak(peer: Peer) {
  const payload = new Uint8Array(200);
  const burst = () =>
    Promise.allSettled(
      Array.from({ length: BURST_CALLS }, () => peer.client.ping({ payload }, { timeoutMs: CALL_TIMEOUT_MS })),
    );
  for (let warm = 0; warm < 10; warm++) await burst();
  globalThis.gc?.();
  const before = { client: process.memoryUsage().rss, server: (await peer.usage()).rss };
  const startMs = performance.now();
  let failed = 0;
  for (let calls = 0; calls < SOAK_CALLS; calls += BURST_CALLS) {
    failed += (await burst()).filter(({ status }) => status === "rejected").length;
  }
  globalThis.gc?.();
  const after = { client: process.memoryUsage().rss, server: (await peer.usage()).rss };
  return {
    calls: SOAK_CALLS,
    burst: BURST_CALLS,
    failed,
    seconds: (performance.now() - startMs) / 1_000,
    before,
    after,
  };
}

function print(rows: Row[], soaked: Awaited<ReturnType<typeof soak>>): void {
  console.log("bytes  conc  over    p50 ms   p99 ms   calls/s   CPU us/call (both ends)");
  for (const row of rows) {
    console.log(
      `${String(row.sizeBytes).padStart(5)}  ${String(row.concurrency).padStart(4)}  ${row.kind.padEnd(6)} ` +
        `${row.p50Ms.toFixed(3).padStart(7)}  ${row.p99Ms.toFixed(3).padStart(7)}  ` +
        `${row.callsPerSecond.toFixed(0).padStart(8)}   ${row.cpuUsPerCall.toFixed(0).padStart(6)}`,
    );
  }
  for (const goal of goals(rows)) console.log(`${goal.met ? "met    " : "NOT MET"}  ${goal.text}`);
  const mb = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MB`;
  const { calls, burst, failed, seconds, before, after } = soaked;
  console.log(`soak: ${calls} calls in bursts of ${burst}, ${failed} failed or hung, ${seconds.toFixed(1)} s`);
  console.log(
    `RSS: client ${mb(before.client)} -> ${mb(after.client)}, server ${mb(before.server)} -> ${mb(after.server)}`,
  );
}

function goals(rows: Row[]): { text: string; met: boolean }[] {
  const find = (kind: Kind, sizeBytes: number, concurrency: number) =>
    rows.find((row) => row.kind === kind && row.sizeBytes === sizeBytes && row.concurrency === concurrency);
  const ratio = (pick: (row: Row) => number, sizeBytes: number, concurrency: number) => {
    const [quic, http2] = [find("quic", sizeBytes, concurrency), find("http2", sizeBytes, concurrency)];
    return quic === undefined || http2 === undefined ? Number.NaN : pick(quic) / pick(http2);
  };
  const latency = [200, 1_024].map((sizeBytes) => {
    const value = ratio((row) => row.p50Ms, sizeBytes, 1);
    return { text: `p50 at ${sizeBytes} B is ${value.toFixed(2)}x of HTTP/2 (goal 1.3x)`, met: value <= 1.3 };
  });
  const throughput = ratio((row) => row.callsPerSecond, 200, 50);
  return [
    ...latency,
    { text: `throughput at 200 B is ${throughput.toFixed(2)}x of HTTP/2 (goal 1x)`, met: throughput >= 1 },
  ];
}

async function main(): Promise<void> {
  const authority = await TestAuthority.create("bench");
  const peers = { quic: await Peer.start("quic", authority), http2: await Peer.start("http2", authority) };
  for (const kind of KINDS) await load(peers[kind], { sizeBytes: 200, concurrency: 50, ms: 2_000 });
  const rows = await measure(peers);
  const soaked = await soak(peers.quic);
  if (process.argv.includes("--json")) console.log(JSON.stringify({ rows, goals: goals(rows), soak: soaked }, null, 2));
  else print(rows, soaked);
  for (const kind of KINDS) {
    await peers[kind].close();
    peers[kind].child.kill();
  }
}

if (process.argv.includes("--serve")) process.once("message", (setup) => void serve(setup as Setup));
else await main();
