// One process of `npm run bench -- quic`: a server or a client of one protocol. Told what to be by the first message, then
// asked one thing at a time.
import { randomBytes } from "node:crypto";
import { type Client, type ConnectRouter, createClient, type Transport } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";
import { ControlService, type ExchangeRequest, SessionService } from "../../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { PeerMesh } from "../../../src/network/peer-mesh.js";
import { CLIENT, type Credentials, http2Transport, SERVER, startHttp2Server, startMesh } from "./protocols.js";

export type Protocol = "quic" | "http2";

export interface Setup extends Credentials {
  protocol: Protocol;
  role: "server" | "client";
  /** Address that the server listens on. */
  host: string;
  /** The server's; a server is given 0. */
  port: number;
}

/** What the bench asks of a party; a server answers `usage` only. */
export type Ask =
  | { do: "usage" }
  | { do: "calls"; sizeBytes: number; concurrency: number; ms: number; timeoutMs: number }
  | { do: "rounds"; sizeBytes: number; ms: number }
  | { do: "connect"; count: number };

/** Times in ms, one a call; a failed call is counted and has no time. */
export interface Measured {
  timesMs: number[];
  failed: number;
  elapsedMs: number;
}

export interface Usage {
  cpuUs: number;
  rssBytes: number;
}

function routes(router: ConnectRouter): void {
  router.service(ControlService, { ping: ({ payload }) => ({ payload, timeMs: 1n }) });
  router.service(SessionService, {
    async *exchange(requests: AsyncIterable<ExchangeRequest>) {
      for await (const { frame } of requests) yield frame === undefined ? {} : { frame };
    },
  });
}

function ourMesh(nodeId: string, setup: Setup): Promise<PeerMesh> {
  const peer =
    nodeId === SERVER
      ? ({ nodeId: CLIENT, dial: "them" } as const)
      : ({ nodeId: SERVER, host: setup.host, port: setup.port, dial: "us" } as const);
  const host = nodeId === SERVER ? setup.host : "0.0.0.0";
  const port = nodeId === SERVER ? setup.port : 0;
  return startMesh(nodeId, { ...setup, peer, routes, listen: { host, port } });
}

/** At both ends, so that HTTP/2 does not wait for acknowledgements where QUIC never does. */
const noDelay = true;

async function listen(setup: Setup): Promise<number> {
  if (setup.protocol === "quic") return (await ourMesh(SERVER, setup)).port;
  return await startHttp2Server({ ...setup, routes, noDelay });
}

/** One connection to the server. */
interface Connected {
  readonly control: Client<typeof ControlService>;
  readonly session: Client<typeof SessionService>;
  close(): Promise<void>;
}

async function connect(setup: Setup): Promise<Connected> {
  const clients = (transport: Transport) => ({
    control: createClient(ControlService, transport),
    session: createClient(SessionService, transport),
  });
  if (setup.protocol === "quic") {
    const mesh = await ourMesh(CLIENT, setup);
    return { ...clients(mesh.transport(SERVER)), close: () => mesh.close() };
  }
  const { transport, close } = http2Transport({ ...setup, noDelay });
  return { ...clients(transport), close };
}

/** `concurrency` callers that each wait for their answer before they call again. */
async function calls(to: Connected, ask: Extract<Ask, { do: "calls" }>): Promise<Measured> {
  const payload = randomBytes(ask.sizeBytes);
  const timesMs: number[] = [];
  let failed = 0;
  const startMs = performance.now();
  const caller = async () => {
    while (performance.now() < startMs + ask.ms) {
      const beginMs = performance.now();
      try {
        const answer = await to.control.ping({ payload }, { timeoutMs: ask.timeoutMs });
        if (answer.payload.length !== ask.sizeBytes) throw new Error("another payload came back");
        timesMs.push(performance.now() - beginMs);
      } catch {
        failed += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: ask.concurrency }, caller));
  return { timesMs, failed, elapsedMs: performance.now() - startMs };
}

/** Round trips inside one open bidirectional stream, as the rounds of a protocol session. */
async function rounds(to: Connected, ask: Extract<Ask, { do: "rounds" }>): Promise<Measured> {
  const envelope = randomBytes(ask.sizeBytes);
  const requests = createWritableIterable<{ frame: { kind: { case: "envelope"; value: Uint8Array } } }>();
  const answers = to.session.exchange(requests)[Symbol.asyncIterator]();
  const timesMs: number[] = [];
  const startMs = performance.now();
  while (performance.now() < startMs + ask.ms) {
    const beginMs = performance.now();
    // `write` resolves when the frame was taken, which may be after the answer.
    const written = requests.write({ frame: { kind: { case: "envelope", value: envelope } } });
    const { done, value } = await answers.next();
    if (done || value.frame?.kind.case !== "envelope") throw new Error("the session stream ended");
    await written;
    timesMs.push(performance.now() - beginMs);
  }
  const elapsedMs = performance.now() - startMs;
  requests.close();
  await answers.next();
  return { timesMs, failed: 0, elapsedMs };
}

/** From nothing to the first answered call, one connection after the other, for at most 10 s. */
async function connections(setup: Setup, ask: Extract<Ask, { do: "connect" }>): Promise<Measured> {
  const payload = new Uint8Array(200);
  const timesMs: number[] = [];
  const startMs = performance.now();
  for (let at = 0; at < ask.count && performance.now() < startMs + 10_000; at++) {
    const beginMs = performance.now();
    const connection = await connect(setup);
    await connection.control.ping({ payload }, { timeoutMs: 10_000 });
    timesMs.push(performance.now() - beginMs);
    await connection.close();
  }
  return { timesMs, failed: 0, elapsedMs: performance.now() - startMs };
}

function usage(): Usage {
  const { user, system } = process.cpuUsage();
  return { cpuUs: user + system, rssBytes: process.memoryUsage().rss };
}

async function run(setup: Setup): Promise<void> {
  const reply = (message: unknown) => process.send?.(message);
  let connected: Connected | undefined;
  process.on("message", async (ask: Ask) => {
    try {
      if (ask.do === "usage") reply(usage());
      else if (ask.do === "connect") {
        // Of two connections of one peer the newer one wins, so ours gives way.
        await connected?.close();
        connected = undefined;
        reply(await connections(setup, ask));
      } else {
        connected ??= await connect(setup);
        reply(await (ask.do === "calls" ? calls(connected, ask) : rounds(connected, ask)));
      }
    } catch (error) {
      reply({ error: String(error) });
    }
  });
  reply({ port: setup.role === "server" ? await listen(setup) : 0 });
}

process.once("message", (setup) => void run(setup as Setup));
process.once("disconnect", () => process.exit());
