// Our gRPC over QUIC against connect-node over HTTP/2: same services, mutual TLS, no compression, client and server each in
// a process of its own, the two protocols in turns. On loopback, over a virtual Ethernet, and over one that loses and delays.
// `npm run bench -- quic [--quick] [--json] [--only calls,rounds,connect,ethernet,loss]`.
import { type ChildProcess, fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release } from "node:os";
import { fileURLToPath } from "node:url";
import { TestAuthority } from "../network/test-certificates.js";
import { ImpairedLink, SERVER_ADDRESS } from "./quic/impaired-link.js";
import type { Ask, Measured, Protocol, Setup, Usage } from "./quic/party.js";
import { rootOf } from "./quic/protocols.js";

const PROTOCOLS: readonly Protocol[] = ["quic", "http2"];
const QUICK = process.argv.includes("--quick");
const PARTY = fileURLToPath(new URL("./quic/party.js", import.meta.url));

const SECTIONS = ["calls", "rounds", "connect", "ethernet", "loss"] as const;
type Section = (typeof SECTIONS)[number];

/** A section that takes longer on a busy machine leaves its other cells out and says so. The sum bounds the whole bench. */
const BUDGET_MS: Readonly<Record<Section, number>> = {
  calls: QUICK ? 60_000 : 150_000,
  rounds: 15_000,
  connect: QUICK ? 15_000 : 40_000,
  ethernet: QUICK ? 15_000 : 40_000,
  loss: QUICK ? 60_000 : 300_000,
};
const ROUNDS = QUICK ? 2 : 3;
const CELL_MS = QUICK ? 250 : 600;
const SIZES_BYTES = [200, 1_024, 16_384, 65_536, 262_144, 1_048_576];
const CONCURRENCIES = [1, 8, 50, 100];
const ETHERNET_SIZES_BYTES = [200, 16_384, 65_536];
const ETHERNET_CONCURRENCIES = [1, 8];
const CONNECTIONS = QUICK ? 20 : 60;
const LOSS_PERCENTS = [0, 1, 5, 20];
const LOSS_SIZES_BYTES = [1_024, 16_384];
const LOSS_CONCURRENCY = 8;
const LOSS_ROUNDS = QUICK ? 1 : 2;
const LOSS_CELL_MS = QUICK ? 1_500 : 4_000;
const DELAY_MS = 20;
/** A call that takes longer has failed; its time counts as this. */
const CALL_TIMEOUT_MS = 10_000;
const NEW_CONNECTION_GOAL_MS = 50;
const COMPARED_UP_TO_BYTES = 65_536;
/** Ratios so close to 1 are called equal: two runs differ by that. */
const EQUAL = 0.05;

// ---- the parties

class Party {
  readonly #child: ChildProcess;
  readonly port: number;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(child: ChildProcess, setup: Setup): Promise<Party> {
    const { port } = await exchange<{ port: number }>(child, setup);
    return new Party(child, port);
  }

  ask<T = Measured>(question: Ask): Promise<T> {
    return exchange<T>(this.#child, question);
  }

  stop(): void {
    this.#child.kill();
  }
}

function exchange<T>(child: ChildProcess, message: object): Promise<T> {
  return new Promise((resolve, reject) => {
    const gone = () => reject(new Error("a process of the bench ended"));
    child.once("exit", gone);
    child.once("message", (reply: T & { error?: string }) => {
      child.off("exit", gone);
      if (reply.error === undefined) resolve(reply);
      else reject(new Error(reply.error));
    });
    child.send(message);
  });
}

type Pair = Readonly<Record<"client" | "server", Party>>;
type Pairs = Readonly<Record<Protocol, Pair>>;

async function withPairs<T>(
  place: { host: string; forkOn: (host: "client" | "server") => ChildProcess },
  use: (pairs: Pairs) => Promise<T>,
): Promise<T> {
  const authority = await TestAuthority.create("bench");
  const rootDerBase64 = rootOf(authority.rootDer);
  const started: Party[] = [];
  const start = async (protocol: Protocol, role: "client" | "server", port: number) => {
    const credentials = await authority.issue(role);
    const setup: Setup = { protocol, role, host: place.host, port, credentials, rootDerBase64 };
    const party = await Party.start(place.forkOn(role), setup);
    started.push(party);
    return party;
  };
  const pair = async (protocol: Protocol): Promise<Pair> => {
    const server = await start(protocol, "server", 0);
    return { server, client: await start(protocol, "client", server.port) };
  };
  try {
    return await use({ quic: await pair("quic"), http2: await pair("http2") });
  } finally {
    for (const party of started) party.stop();
  }
}

const onLoopback = { host: "127.0.0.1", forkOn: () => fork(PARTY, { execArgv: [] }) };

// ---- measuring

interface Figures {
  samples: number;
  failed: number;
  p50Ms: number;
  p99Ms: number;
  perSecond: number;
  clientCpuUs: number;
  serverCpuUs: number;
}

interface Cell {
  section: Section;
  what: string;
  sizeBytes: number;
  concurrency: number;
  lossPercent: number;
  quic: Figures;
  http2: Figures;
}

const median = (values: number[]) => quantile(values, 0.5);

function quantile(values: number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? Number.NaN;
}

async function once(pair: Pair, question: Ask) {
  const usage = async () => {
    const ask: Ask = { do: "usage" };
    return { client: await pair.client.ask<Usage>(ask), server: await pair.server.ask<Usage>(ask) };
  };
  const before = await usage();
  const measured = await pair.client.ask(question);
  const after = await usage();
  const count = Math.max(1, measured.timesMs.length);
  return {
    measured,
    perSecond: (measured.timesMs.length / measured.elapsedMs) * 1_000,
    clientCpuUs: (after.client.cpuUs - before.client.cpuUs) / count,
    serverCpuUs: (after.server.cpuUs - before.server.cpuUs) / count,
  };
}

/** The protocols take turns, each first in every other round, so that a noisy neighbour hits both. */
async function compare(
  pairs: Pairs,
  cell: Omit<Cell, Protocol>,
  plan: { question: Ask; warmUp?: Ask; rounds: number },
): Promise<Cell> {
  const seen = { quic: [] as Awaited<ReturnType<typeof once>>[], http2: [] as Awaited<ReturnType<typeof once>>[] };
  for (let round = 0; round < plan.rounds; round++) {
    for (const protocol of round % 2 === 0 ? PROTOCOLS : [...PROTOCOLS].reverse()) {
      if (plan.warmUp !== undefined) await pairs[protocol].client.ask(plan.warmUp);
      seen[protocol].push(await once(pairs[protocol], plan.question));
    }
  }
  const figures = (protocol: Protocol): Figures => {
    const rounds = seen[protocol];
    const failed = rounds.reduce((sum, { measured }) => sum + measured.failed, 0);
    const timesMs = rounds.flatMap(({ measured }) => measured.timesMs);
    const withFailures = [...timesMs, ...Array.from({ length: failed }, () => CALL_TIMEOUT_MS)];
    return {
      samples: timesMs.length,
      failed,
      p50Ms: quantile(withFailures, 0.5),
      p99Ms: quantile(withFailures, 0.99),
      perSecond: median(rounds.map(({ perSecond }) => perSecond)),
      clientCpuUs: median(rounds.map(({ clientCpuUs }) => clientCpuUs)),
      serverCpuUs: median(rounds.map(({ serverCpuUs }) => serverCpuUs)),
    };
  };
  const done = { ...cell, quic: figures("quic"), http2: figures("http2") };
  if (!process.argv.includes("--json")) printCell(done);
  return done;
}

/** When each section began, and the cells for which it had no time. */
const begunMs = new Map<Section, number>();
const leftOut: string[] = [];

async function compareCalls(
  pairs: Pairs,
  cell: { section: Section; sizeBytes: number; concurrency: number; lossPercent?: number },
  plan: { rounds: number; ms: number; warmUpMs: number },
): Promise<Cell[]> {
  const { section, sizeBytes, concurrency, lossPercent = 0 } = cell;
  if (!begunMs.has(section)) begunMs.set(section, performance.now());
  if (performance.now() - (begunMs.get(section) ?? 0) > BUDGET_MS[section]) {
    leftOut.push(`${section} ${sizeBytes} B x ${concurrency}${lossPercent > 0 ? ` at ${lossPercent} %` : ""}`);
    return [];
  }
  const question = {
    do: "calls",
    sizeBytes: cell.sizeBytes,
    concurrency: cell.concurrency,
    ms: plan.ms,
    timeoutMs: CALL_TIMEOUT_MS,
  } as const;
  const done = await compare(
    pairs,
    { what: "unary", lossPercent, section, sizeBytes, concurrency },
    { question, warmUp: { ...question, ms: plan.warmUpMs }, rounds: plan.rounds },
  );
  return [done];
}

// ---- sections

async function loopbackSections(wanted: ReadonlySet<Section>): Promise<Cell[]> {
  return withPairs(onLoopback, async (pairs) => {
    const cells: Cell[] = [];
    await warmUp(pairs);
    if (wanted.has("calls")) {
      printHead("unary calls on loopback");
      for (const sizeBytes of SIZES_BYTES) {
        for (const concurrency of CONCURRENCIES) {
          const plan = { rounds: ROUNDS, ms: CELL_MS, warmUpMs: CELL_MS / 6 };
          cells.push(...(await compareCalls(pairs, { section: "calls", sizeBytes, concurrency }, plan)));
        }
      }
    }
    if (wanted.has("rounds")) {
      printHead("round trips inside one open bidirectional stream, on loopback");
      for (const sizeBytes of [200, 16_384]) {
        const cell = { section: "rounds", what: "round trip", sizeBytes, concurrency: 1, lossPercent: 0 } as const;
        const question: Ask = { do: "rounds", sizeBytes, ms: CELL_MS };
        const warmUp: Ask = { ...question, ms: CELL_MS / 6 };
        cells.push(await compare(pairs, cell, { question, warmUp, rounds: ROUNDS }));
      }
    }
    if (wanted.has("connect")) {
      printHead("new connections on loopback, from nothing to the first answered call");
      const cell = { section: "connect", what: "connect", sizeBytes: 200, concurrency: 1, lossPercent: 0 } as const;
      cells.push(await compare(pairs, cell, { question: { do: "connect", count: CONNECTIONS }, rounds: ROUNDS }));
    }
    return cells;
  });
}

async function warmUp(pairs: Pairs): Promise<void> {
  for (const protocol of PROTOCOLS) {
    await pairs[protocol].client.ask({ do: "calls", sizeBytes: 200, concurrency: 50, ms: 1_500, timeoutMs: 10_000 });
  }
}

async function networkSections(wanted: ReadonlySet<Section>, link: ImpairedLink): Promise<Cell[]> {
  const cells: Cell[] = [];
  const forkOn = (host: "client" | "server") => link.fork(host, PARTY);
  if (wanted.has("ethernet")) {
    printHead("unary calls over a virtual Ethernet, 1,500 bytes a frame");
    await withPairs({ host: SERVER_ADDRESS.plain, forkOn }, async (pairs) => {
      await warmUp(pairs);
      for (const sizeBytes of ETHERNET_SIZES_BYTES) {
        for (const concurrency of ETHERNET_CONCURRENCIES) {
          const plan = { rounds: ROUNDS, ms: CELL_MS, warmUpMs: CELL_MS / 6 };
          cells.push(...(await compareCalls(pairs, { section: "ethernet", sizeBytes, concurrency }, plan)));
        }
      }
    });
  }
  if (wanted.has("loss")) {
    printHead(`unary calls over a virtual Ethernet that delays each packet by ${DELAY_MS} ms and loses some`);
    // The delay is there before the connections: both congestion controls would remember the shorter round trip for 10 s.
    await link.set({ lossPercent: 0, delayMs: DELAY_MS });
    await withPairs({ host: SERVER_ADDRESS.impaired, forkOn }, async (pairs) => {
      await warmUp(pairs);
      for (const lossPercent of LOSS_PERCENTS) {
        await link.set({ lossPercent, delayMs: DELAY_MS });
        for (const sizeBytes of LOSS_SIZES_BYTES) {
          const cell = { section: "loss", sizeBytes, concurrency: LOSS_CONCURRENCY, lossPercent } as const;
          cells.push(...(await compareCalls(pairs, cell, { rounds: LOSS_ROUNDS, ms: LOSS_CELL_MS, warmUpMs: 300 })));
        }
        const { frames, lost, overflowed } = await link.set({ lossPercent: 0, delayMs: DELAY_MS });
        say(
          `  wire: ${frames} packets, ${lost} lost (${((100 * lost) / frames).toFixed(1)} %), ${overflowed} overflowed`,
        );
      }
    });
  }
  return cells;
}

// ---- report

function say(text: string): void {
  if (!process.argv.includes("--json")) console.log(text);
}

function printHead(title: string): void {
  say(
    `\n${title}\n   bytes conc loss  p50 ms, QUIC / HTTP/2     p99 ms               calls/s            CPU us client      CPU us server`,
  );
}

function printCell({ sizeBytes, concurrency, lossPercent, quic, http2 }: Cell): void {
  const both = (pick: (figures: Figures) => number, digits: number) =>
    `${pick(quic).toFixed(digits).padStart(8)} /${pick(http2).toFixed(digits).padStart(8)}`.padEnd(20);
  const failed = quic.failed + http2.failed === 0 ? "" : `  failed ${quic.failed} / ${http2.failed}`;
  console.log(
    `${String(sizeBytes).padStart(8)} ${String(concurrency).padStart(4)} ${`${lossPercent} %`.padStart(4)} ` +
      `${both((f) => f.p50Ms, 2)} ${both((f) => f.p99Ms, 1)} ${both((f) => f.perSecond, 0)} ` +
      `${both((f) => f.clientCpuUs, 0)} ${both((f) => f.serverCpuUs, 0)}${failed}`,
  );
}

interface Goal {
  text: string;
  /** Undefined where it was not measured. */
  met: boolean | undefined;
}

function goals(cells: readonly Cell[]): Goal[] {
  const without = cells.filter(({ section, sizeBytes }) => section === "calls" && sizeBytes <= COMPARED_UP_TO_BYTES);
  const cpu = ({ clientCpuUs, serverCpuUs }: Figures) => clientCpuUs + serverCpuUs;
  const everywhere = (what: string, ratio: (cell: Cell) => number): Goal => {
    const worse = without.filter((cell) => ratio(cell) > 1 + EQUAL);
    const names = worse.map((cell) => `${cell.sizeBytes} B x ${cell.concurrency} (${ratio(cell).toFixed(2)})`);
    const text = `${what} equal to HTTP/2 or better at every size up to 64 KB without loss`;
    const rest = worse.length === 0 ? "" : `; worse by ${names.join(", ")}`;
    return { text: text + rest, met: without.length === 0 ? undefined : worse.length === 0 };
  };
  const fresh = cells.find(({ section }) => section === "connect");
  const lossy = cells.filter(({ section, lossPercent }) => section === "loss" && lossPercent >= 1);
  return [
    everywhere("calls/s", (cell) => cell.http2.perSecond / cell.quic.perSecond),
    everywhere("CPU a call", (cell) => cpu(cell.quic) / cpu(cell.http2)),
    {
      text:
        `new connection p99 under ${NEW_CONNECTION_GOAL_MS} ms: ` +
        `${fresh?.quic.p99Ms.toFixed(1)} (HTTP/2 ${fresh?.http2.p99Ms.toFixed(1)})`,
      met: fresh && fresh.quic.p99Ms < NEW_CONNECTION_GOAL_MS,
    },
    ...lossy.map(({ sizeBytes, concurrency, lossPercent, quic, http2 }) => ({
      text:
        `p99 better than HTTP/2 at ${lossPercent} % loss, ${sizeBytes} B, ${concurrency} at a time: ` +
        `${quic.p99Ms.toFixed(0)} against ${http2.p99Ms.toFixed(0)} ms`,
      met: quic.p99Ms < http2.p99Ms,
    })),
  ];
}

function machine() {
  const congestion = () => readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "utf8").trim();
  return {
    cpu: `${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`,
    system: `${process.platform} ${release()}`,
    node: process.version,
    tcpCongestionControl: process.platform === "linux" ? congestion() : "unknown",
  };
}

function wantedSections(): ReadonlySet<Section> {
  const at = process.argv.indexOf("--only");
  const names = at < 0 ? SECTIONS : (process.argv[at + 1] ?? "").split(",");
  const unknown = names.filter((name) => !SECTIONS.includes(name as Section));
  if (unknown.length > 0) throw new Error(`unknown section ${unknown.join(", ")}; there are ${SECTIONS.join(", ")}`);
  return new Set(names as Section[]);
}

async function main(): Promise<void> {
  const wanted = wantedSections();
  const about = machine();
  say(`${about.cpu}, ${about.system}, Node ${about.node}, TCP ${about.tcpCongestionControl}`);
  const cells = ["calls", "rounds", "connect"].some((name) => wanted.has(name as Section))
    ? await loopbackSections(wanted)
    : [];
  let notMeasured: string | undefined;
  if (wanted.has("ethernet") || wanted.has("loss")) {
    const link = await ImpairedLink.create().catch((error: unknown) => {
      notMeasured = `no network namespaces here, so nothing was measured over a network: ${String(error)}`;
    });
    if (link !== undefined) {
      try {
        cells.push(...(await networkSections(wanted, link)));
      } finally {
        link.close();
      }
    }
  }
  const verdicts = goals(cells);
  if (process.argv.includes("--json")) {
    console.log(JSON.stringify({ machine: about, cells, goals: verdicts, notMeasured, leftOut }, null, 2));
    return;
  }
  say("");
  if (notMeasured !== undefined) say(notMeasured);
  if (leftOut.length > 0) say(`no time for ${leftOut.join(", ")}`);
  for (const { text, met } of verdicts) {
    if (met !== undefined) say(`${met ? "met    " : "NOT MET"}  ${text}`);
  }
}

await main();
