// Head-of-line blocking: small calls on a connection that also carries a large stream which is stalled, or read slowly. Both
// ends in their own processes; the two states of a row take turns, so that a noisy neighbour hits both.
// `npm run bench -- hol [--json] [--short]`.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Transport } from "@connectrpc/connect";
import type { TrafficClass } from "../../src/network/traffic-class.js";
import {
  type Bulk,
  bulkRoutes,
  percentile,
  slowDownload,
  smallCalls,
  stalledDownload,
  stalledUpload,
} from "../network/bulk-service.js";
import { TestAuthority } from "../network/test-certificates.js";
import { CLIENT, type Credentials, rootOf, SERVER, startMesh } from "./quic/protocols.js";

const SHORT = process.argv.includes("--short");
const ROUNDS = SHORT ? 4 : 10;
const CALLS = SHORT ? 200 : 300;
const GOAL_RATIO = 2;

async function serve(setup: Credentials): Promise<void> {
  const peer = { nodeId: CLIENT, host: "127.0.0.1" };
  process.send?.({ port: (await startMesh(SERVER, { ...setup, peer, routes: bulkRoutes })).port });
}

interface Row {
  bulk: string;
  alone: { p50Ms: number; p99Ms: number };
  beside: { p50Ms: number; p99Ms: number };
  p99Ratio: number;
}

async function measure(options: {
  bulk: string;
  start: (transport: Transport) => Promise<Bulk>;
  bulkTransport: Transport;
  calls: Transport;
}): Promise<Row> {
  const alone: number[] = [];
  const beside: number[] = [];
  await smallCalls(options.calls, CALLS);
  for (let round = 0; round < ROUNDS; round++) {
    alone.push(...(await smallCalls(options.calls, CALLS)));
    const bulk = await options.start(options.bulkTransport);
    await new Promise((resolve) => setTimeout(resolve, 50));
    beside.push(...(await smallCalls(options.calls, CALLS)));
    await bulk.stop();
  }
  const of = (samples: number[]) => ({ p50Ms: percentile(samples, 0.5), p99Ms: percentile(samples, 0.99) });
  const [a, b] = [of(alone), of(beside)];
  return { bulk: options.bulk, alone: a, beside: b, p99Ratio: b.p99Ms / a.p99Ms };
}

async function main(): Promise<void> {
  const authority = await TestAuthority.create("hol");
  const rootDerBase64 = rootOf(authority.rootDer);
  const child = fork(fileURLToPath(import.meta.url), ["--serve"], { execArgv: [] });
  const ready = new Promise<{ port: number }>((resolve) =>
    child.once("message", (message) => resolve(message as never)),
  );
  child.send({ credentials: await authority.issue(SERVER), rootDerBase64 } satisfies Credentials);
  const { port } = await ready;
  const own = { credentials: await authority.issue(CLIENT), rootDerBase64 };
  const peer = { nodeId: SERVER, host: "127.0.0.1", port };
  const mesh = await startMesh(CLIENT, { ...own, peer, routes: bulkRoutes });
  await mesh.ready([SERVER], 10_000);
  const calls = mesh.transport(SERVER);
  const rows: Row[] = [];
  const kinds = [
    ["8 MB from the peer, not read", stalledDownload],
    ["8 MB to the peer, not read", stalledUpload],
    ["8 MB from the peer, read at 6.4 MB/s", slowDownload],
  ] as const;
  for (const trafficClass of ["control", "presign"] satisfies TrafficClass[]) {
    for (const [name, start] of kinds) {
      const bulkTransport = mesh.transport(SERVER, trafficClass);
      rows.push(await measure({ bulk: `${name}, class ${trafficClass}`, start, bulkTransport, calls }));
    }
  }
  if (process.argv.includes("--json")) console.log(JSON.stringify(rows, null, 2));
  else {
    console.log(
      `200-byte calls one after the other, ${ROUNDS * CALLS} alone and ${ROUNDS * CALLS} beside the stream, p50/p99 ms`,
    );
    for (const { bulk, alone, beside, p99Ratio } of rows) {
      const pair = ({ p50Ms, p99Ms }: Row["alone"]) => `${p50Ms.toFixed(2)}/${p99Ms.toFixed(2)}`.padStart(11);
      const met = p99Ratio <= GOAL_RATIO ? "met    " : "NOT MET";
      console.log(
        `${met} ${bulk.padEnd(52)} ${pair(alone)} ${pair(beside)}   p99 ${p99Ratio.toFixed(2)}x (goal ${GOAL_RATIO}x)`,
      );
    }
  }
  await mesh.close();
  child.kill();
}

if (process.argv.includes("--serve")) process.once("message", (setup) => void serve(setup as Credentials));
else await main();
