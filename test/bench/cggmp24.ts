// `npm run bench -- cggmp24 [--quick] [--runs N] [--profile security112] [--layout processes] [--only presign] [--json]`:
// medians of what CGGMP24 costs, with all parties in one process and with a process for each party.
//
// CPU time a party: in one process all that it used, divided by the parties; with a process each, the median over the
// parties of what theirs used. Wall time: from the first party's begin to the last one's end. Bytes: signed envelopes that
// party 1 sends, all recipients together. "pow" is a yardstick: one 3072-bit exponentiation right after the row, so that
// figures of a busy machine can be compared with those of a quiet one. --quick: one run of each, at security112 unless a profile is named.
import { type ChildProcess, fork } from "node:child_process";
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { generateBlumPrime, Modulus } from "../../src/crypto/modulus.js";
import { generateSafePrime } from "../../src/crypto/safe-prime.js";
import { type SecurityProfile, security112, security128 } from "../../src/crypto/security-profile.js";
import { systemRandom } from "../../src/node/ambient.js";
import { decodeEnvelope } from "../../src/session/envelope.js";
import { range } from "../protocols/cggmp24/ceremony.js";
import { Party, type SendEnvelope, type Task } from "./ceremony/party.js";
import type { PartyOrder, PartyReport } from "./ceremony/party-process.js";

/** No ceremony may take longer. */
const DEADLINE_MS = 1_200_000;
const BATCH = 10;

const { values: options } = parseArgs({
  options: {
    runs: { type: "string", default: "5" },
    profile: { type: "string" },
    layout: { type: "string" },
    only: { type: "string" },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const runsWanted = options.quick ? 1 : Math.min(100, Math.max(1, Number(options.runs)));

/** Where parties run. */
interface Layout {
  readonly name: "one process" | "process each";
  prepare(task: Task): Promise<void>;
  /** How all ended, and the CPU time of one party. */
  run(task: Task, sent: SendEnvelope): Promise<{ readonly outcomes: readonly string[]; readonly cpuMs: number }>;
  close(): Promise<void>;
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const cpuSinceMs = (before: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
};

function inOneProcess(): Layout {
  const parties = new Map<number, Party>();
  const partyOf = (id: number): Party => {
    const party = parties.get(id) ?? new Party(id);
    parties.set(id, party);
    return party;
  };
  return {
    name: "one process",
    async prepare(task) {
      for (const id of task.ids) await partyOf(id).prepare(task);
    },
    async run(task, sent) {
      const before = process.cpuUsage();
      const outcomes = await Promise.all(
        task.ids.map((from) =>
          partyOf(from).run(task, (session, to, bytes) => {
            if (from === task.ids[0]) sent(session, to, bytes);
            for (const id of task.ids) {
              if (id !== from && (to === 0 || to === id)) setImmediate(() => partyOf(id).receive(session, bytes));
            }
          }),
        ),
      );
      return { outcomes, cpuMs: cpuSinceMs(before) / task.ids.length };
    },
    async close() {
      for (const party of parties.values()) await party.close();
    },
  };
}

function processEach(): Layout {
  const children = new Map<number, ChildProcess>();
  const childOf = (id: number): ChildProcess => {
    const child =
      children.get(id) ??
      fork(new URL("./ceremony/party-process.js", import.meta.url), [String(id)], { serialization: "advanced" });
    children.set(id, child);
    return child;
  };
  const order = (id: number, message: PartyOrder): void => void childOf(id).send(message);
  /** Resolves when a child says that it is through with something. */
  const until = <Kind extends "prepared" | "ended">(
    id: number,
    kind: Kind,
  ): Promise<Extract<PartyReport, { kind: Kind }>> =>
    new Promise((resolve, reject) => {
      const child = childOf(id);
      const stop = (): void => {
        child.off("message", listen);
        child.off("exit", onExit);
      };
      const onExit = (code: number | null): void => reject(new Error(`party ${id} exited with ${String(code)}`));
      const listen = (message: PartyReport): void => {
        if (message.kind === "broke") {
          stop();
          reject(new Error(`party ${id}: ${message.why}`));
        } else if (message.kind === kind) {
          stop();
          resolve(message as Extract<PartyReport, { kind: Kind }>);
        }
      };
      child.on("message", listen);
      child.on("exit", onExit);
    });
  /** Delivers what the children send. A liar says at once that it is through and goes on sending, so this ends with the task. */
  const deliver = ({ ids }: Task, sent: SendEnvelope): (() => void) => {
    const listeners = ids.map((from) => {
      const listen = (message: PartyReport): void => {
        if (message.kind !== "send") return;
        const { session, to, bytes } = message;
        if (from === ids[0]) sent(session, to, bytes);
        for (const id of ids) {
          if (id !== from && (to === 0 || to === id)) order(id, { kind: "receive", session, bytes });
        }
      };
      childOf(from).on("message", listen);
      return () => childOf(from).off("message", listen);
    });
    return () => {
      for (const remove of listeners) remove();
    };
  };
  return {
    name: "process each",
    async prepare(task) {
      const prepared = task.ids.map((id) => until(id, "prepared"));
      for (const id of task.ids) order(id, { kind: "prepare", task });
      await Promise.all(prepared);
    },
    async run(task, sent) {
      const stopDelivering = deliver(task, sent);
      try {
        const ended = task.ids.map((id) => until(id, "ended"));
        for (const id of task.ids) order(id, { kind: "run", task });
        const ends = await Promise.all(ended);
        return { outcomes: ends.map(({ outcome }) => outcome), cpuMs: median(ends.map(({ cpuMs }) => cpuMs)) };
      } finally {
        stopDelivering();
      }
    },
    async close() {
      for (const child of children.values()) child.disconnect();
    },
  };
}

interface Row {
  readonly name: string;
  readonly profile: string;
  readonly layout: string;
  readonly parties: number;
  readonly threshold: number;
  readonly runs: number;
  readonly cpuMsPerParty: number;
  readonly wallMs: number;
  /** Median CPU time of one 3072-bit exponentiation right after. */
  readonly powMs: number;
  readonly outcome: string;
  readonly bytesPerPartyAndRound: Readonly<Record<string, number>>;
}
const rows: Row[] = [];

/** Odd and composite; nothing secret. */
const yardstick = new Modulus((1n << 3072n) - (5n << 2001n) - 1_103_717n);

function powMs(): number {
  const samples = range(9).map((index) => {
    const before = process.cpuUsage();
    yardstick.pow(BigInt(index + 2), yardstick.value >> 1n);
    return cpuSinceMs(before);
  });
  return median(samples);
}

function show(measured: Omit<Row, "powMs">): void {
  const row = { ...measured, powMs: powMs() };
  rows.push(row);
  if (options.json) return;
  const figures = `CPU ${row.cpuMsPerParty.toFixed(1).padStart(9)} ms a party   wall ${row.wallMs.toFixed(1).padStart(9)} ms`;
  const bytes = Object.entries(row.bytesPerPartyAndRound).map(([round, count]) => `${round} ${count}`);
  const place = `${row.profile.padEnd(11)} ${row.layout.padEnd(12)}`;
  console.log(
    `${row.name.padEnd(34)} ${place} ${figures}   ${row.outcome} (${row.runs}), pow ${row.powMs.toFixed(1)} ms`,
  );
  if (bytes.length > 0) console.log(`    bytes a party: ${bytes.join(", ")}`);
}

async function within<T>(task: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} takes longer than ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  return await Promise.race([task, late]).finally(() => clearTimeout(timer));
}

/** Runs the task `runs` times, each with its own seed, after `warmUps` that do not count. */
async function bench(
  layout: Layout,
  name: string,
  task: Omit<Task, "seed">,
  { runs, warmUps = 0 }: { readonly runs: number; readonly warmUps?: number },
): Promise<void> {
  if (options.only !== undefined && !name.includes(options.only)) return;
  const samples: { cpuMs: number; wallMs: number; outcome: string; bytes: Record<string, number> }[] = [];
  for (let index = -warmUps; index < runs; index++) {
    const seeded = { ...task, seed: `bench ${name} ${index}` };
    await within(layout.prepare(seeded), name);
    const bytes: Record<string, number> = {};
    const before = performance.now();
    const { outcomes, cpuMs } = await within(
      layout.run(seeded, (_, to, envelope) => {
        const round = decodeEnvelope(envelope)?.round ?? "";
        bytes[round] = (bytes[round] ?? 0) + envelope.length * (to === 0 ? task.ids.length - 1 : 1);
      }),
      name,
    );
    const wallMs = performance.now() - before;
    // The liar of a failing run accuses nobody; the first party is honest.
    if (index >= 0) samples.push({ cpuMs, wallMs, outcome: outcomes[0] ?? "", bytes });
  }
  show({
    name,
    profile: task.operation === "keygen" ? "-" : task.profile,
    layout: layout.name,
    parties: task.ids.length,
    threshold: task.threshold,
    runs,
    cpuMsPerParty: median(samples.map(({ cpuMs }) => cpuMs)),
    wallMs: median(samples.map(({ wallMs }) => wallMs)),
    outcome: samples.at(-1)?.outcome ?? "",
    bytesPerPartyAndRound: samples.at(-1)?.bytes ?? {},
  });
}

async function primes(profile: SecurityProfile): Promise<void> {
  const draws = [
    ["Blum prime", () => generateBlumPrime(profile.primeBits)],
    ["safe prime", () => generateSafePrime(profile.primeBits, systemRandom)],
  ] as const;
  for (const [kind, draw] of draws) {
    const name = `${kind}, ${profile.primeBits} bits`;
    if (options.only !== undefined && !name.includes(options.only)) continue;
    const runs = 2 * runsWanted;
    const samples: { cpuMs: number; wallMs: number }[] = [];
    for (let index = 0; index < runs; index++) {
      const [before, startMs] = [process.cpuUsage(), performance.now()];
      await draw();
      samples.push({ cpuMs: cpuSinceMs(before), wallMs: performance.now() - startMs });
    }
    const mean = samples.reduce((sum, { cpuMs }) => sum + cpuMs, 0) / runs;
    show({
      name,
      profile: profile.name,
      layout: "one process",
      parties: 1,
      threshold: 1,
      runs,
      cpuMsPerParty: median(samples.map(({ cpuMs }) => cpuMs)),
      wallMs: median(samples.map(({ wallMs }) => wallMs)),
      outcome: `mean ${mean.toFixed(0)} CPU ms`,
      bytesPerPartyAndRound: {},
    });
  }
}

async function ceremonies(layout: Layout, profile: SecurityProfile): Promise<void> {
  const [three, five] = [range(3), range(5)];
  const task = { profile: profile.name, ids: three, threshold: 3, count: 1 } as const;
  const few = Math.min(2, runsWanted);
  const run = (name: string, changes: Pick<Task, "operation"> & Partial<Task>, runs: number, warmUps = 0) =>
    bench(layout, name, { ...task, ...changes }, { runs, warmUps });
  await run("aux info of 5, primes ready", { operation: "aux-info", ids: five }, few);
  await run("aux info of 5, cold", { operation: "aux-info-cold", ids: five }, 1);
  await run("presign, 3 signers", { operation: "presign" }, runsWanted, 1);
  await run("presign, 5 signers", { operation: "presign", ids: five, threshold: 5 }, Math.min(3, runsWanted), 1);
  const batch = { operation: "presign-batch" as const, count: BATCH };
  await run(`presign, 3 signers, batch of ${BATCH}`, batch, 1, 1);
  await run(`presign, 5 signers, batch of ${BATCH}`, { ...batch, ids: five, threshold: 5 }, 1, 1);
  await run("failed nonce, 3 signers", { operation: "failed-nonce" }, 1);
  await run("failed chi, 3 signers", { operation: "failed-chi" }, 1);
}

/** Each signature uses up one of the presignatures that are made here first. */
async function signing(layout: Layout, profile: SecurityProfile): Promise<void> {
  const name = "online sign, 3 signers";
  if (options.only !== undefined && !name.includes(options.only)) return;
  const task = { profile: profile.name, ids: range(3), threshold: 3, count: 1 } as const;
  // A node signs all day: the first signatures are those of a compiler that has not seen the code yet.
  const [warmUps, runs] = [6, 2 * runsWanted + 1];
  for (let index = 0; index < warmUps + runs; index++) {
    const seeded: Task = { ...task, operation: "presign", seed: `for signing ${index}` };
    await within(layout.prepare(seeded), name);
    await within(
      layout.run(seeded, () => {}),
      name,
    );
  }
  await bench(layout, name, { ...task, operation: "sign" }, { runs, warmUps });
}

const named = options.profile ?? (options.quick ? security112.name : undefined);
const profiles = [security112, security128].filter(({ name }) => named === undefined || named === name);
const layouts = [
  { key: "one", make: inOneProcess },
  { key: "processes", make: processEach },
].filter(({ key }) => options.layout === undefined || options.layout === key);
for (const { make } of layouts) {
  const layout = make();
  try {
    const ids = range(5);
    const keygen = { operation: "keygen", profile: security112.name, ids, threshold: 3, count: 1 } as const;
    await bench(layout, "keygen 3-of-5", keygen, { runs: runsWanted, warmUps: 1 });
    for (const profile of profiles) {
      await ceremonies(layout, profile);
      await signing(layout, profile);
    }
  } finally {
    await layout.close();
  }
}
for (const profile of profiles) await primes(profile);
if (options.json) {
  const machine = { node: process.version, cpu: cpus()[0]?.model, cores: cpus().length };
  console.log(JSON.stringify({ ...machine, rows }, null, 2));
}
