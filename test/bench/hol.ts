// Head-of-line blocking: small calls on a connection that also carries a large stream which is stalled, or read slowly. Both
// ends in their own processes; the two states of a row take turns, so that a noisy neighbour hits both.
// `npm run bench -- hol [--json] [--short]`.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Transport } from "@connectrpc/connect";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import type { TrafficClass } from "../../src/network/traffic-class.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import {
  type Bulk,
  bulkRoutes,
  percentile,
  slowDownload,
  smallCalls,
  stalledDownload,
  stalledUpload,
} from "../network/bulk-service.js";
import { TestAuthority, testVerifier } from "../network/test-certificates.js";

interface Setup {
  credentials: TransportCredentials;
  rootDer: number[];
}

const SHORT = process.argv.includes("--short");
const ROUNDS = SHORT ? 4 : 10;
const CALLS = SHORT ? 200 : 300;
const GOAL_RATIO = 2;

function meshOf(nodeId: string, peer: { nodeId: string; port?: number }, setup: Setup): Promise<PeerMesh> {
  return PeerMesh.start(
    {
      nodeId,
      listen: { host: "127.0.0.1", port: 0 },
      peers: [{ nodeId: peer.nodeId, host: "127.0.0.1", ...(peer.port === undefined ? {} : { port: peer.port }) }],
      credentials: setup.credentials,
    },
    {
      clock: systemClock,
      random: systemRandom,
      verifier: testVerifier(Uint8Array.from(setup.rootDer)),
      router: bulkRoutes,
      log: () => {},
    },
  );
}

async function serve(setup: Setup): Promise<void> {
  process.send?.({ port: (await meshOf("server", { nodeId: "client" }, setup)).port });
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
  const rootDer = [...authority.rootDer];
  const child = fork(fileURLToPath(import.meta.url), ["--serve"], { execArgv: [] });
  const ready = new Promise<{ port: number }>((resolve) =>
    child.once("message", (message) => resolve(message as never)),
  );
  child.send({ credentials: await authority.issue("server"), rootDer } satisfies Setup);
  const { port } = await ready;
  const credentials = await authority.issue("client");
  const mesh = await meshOf("client", { nodeId: "server", port }, { credentials, rootDer });
  await mesh.ready(["server"], 10_000);
  const calls = mesh.transport("server");
  const rows: Row[] = [];
  const kinds = [
    ["8 MB from the peer, not read", stalledDownload],
    ["8 MB to the peer, not read", stalledUpload],
    ["8 MB from the peer, read at 6.4 MB/s", slowDownload],
  ] as const;
  for (const trafficClass of ["control", "presign"] satisfies TrafficClass[]) {
    for (const [name, start] of kinds) {
      const bulkTransport = mesh.transport("server", trafficClass);
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

if (process.argv.includes("--serve")) process.once("message", (setup) => void serve(setup as Setup));
else await main();
