// `npm run bench -- cggmp24 [--runs N] [--profile security112] [--only presign] [--json]`: medians of what CGGMP24 costs.
// All parties run in this one thread, one after another, so wall time is the sum of the parties' CPU time; CPU time is
// taken around each party's own calls. Bytes are those of the signed envelopes.
import { cpus } from "node:os";
import { Scalar } from "../../src/crypto/curve.js";
import { type SecurityProfile, security112, security128 } from "../../src/crypto/security-profile.js";
import { keygen } from "../../src/protocols/keygen.js";
import { decodeEnvelope } from "../../src/session/envelope.js";
import type { PartyId } from "../../src/session/party.js";
import { Session } from "../../src/session/session.js";
import {
  auxRun,
  type Ceremony,
  ceremony,
  makePresignatures,
  of,
  presignRun,
  range,
  signRun,
} from "../protocols/cggmp24/ceremony.js";
import { type Loose, lying, otherPoint, otherScalar } from "../protocols/cggmp24/dishonesty.js";
import { type Run, SeededRandom, signAs, testGroup } from "../session/simulation.js";

interface Sample {
  readonly wallMs: number;
  /** Median over the parties. */
  readonly cpuMs: number;
  /** Bytes that one party sends in each round, all recipients together. */
  readonly bytes: Readonly<Record<string, number>>;
  readonly outcome: string;
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const cpuNowMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** Runs all parties, in order of delivery, and measures each. */
function measure<Pub, Secret, Out>(run: Run<Pub, Secret, Out>): Sample {
  const group = testGroup(run.ids);
  const sessionId = new SeededRandom(run.seed).bytes(16);
  const cpu = new Map<PartyId, number>();
  const bytes = new Map<string, number>();
  const timed = <T>(party: PartyId, work: () => T): T => {
    const before = cpuNowMs();
    const result = work();
    cpu.set(party, (cpu.get(party) ?? 0) + cpuNowMs() - before);
    return result;
  };
  const start = performance.now();
  const sessions = new Map(
    group.ids.map((self) => [
      self,
      timed(
        self,
        () =>
          new Session<Pub, Secret, Out>(
            {
              protocol: run.cheats?.get(self) ?? run.protocol,
              context: { sessionId, group, pub: run.pubOf?.(self) ?? run.pub },
              self,
              secret: run.secret(self),
            },
            { random: new SeededRandom(`${run.seed}/${self}`), sign: signAs(self) },
          ),
      ),
    ]),
  );
  const queue: { to: PartyId; bytes: Uint8Array }[] = [];
  const collect = (from: PartyId, session: Session<Pub, Secret, Out>) => {
    for (const out of session.drain()) {
      const recipients = out.to === 0 ? group.others(from) : [out.to];
      const round = decodeEnvelope(out.bytes)?.round ?? "";
      if (from === group.ids[0]) bytes.set(round, (bytes.get(round) ?? 0) + out.bytes.length * recipients.length);
      for (const to of recipients) queue.push({ to, bytes: out.bytes });
    }
  };
  for (const [from, session] of sessions) collect(from, session);
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { to, bytes: envelope } = next;
    const session = of(sessions, to);
    timed(to, () => session.receive(envelope));
    collect(to, session);
  }
  const states = new Set([...sessions.values()].map(({ progress }) => progress.state));
  return {
    wallMs: performance.now() - start,
    cpuMs: median([...cpu.values()]),
    bytes: Object.fromEntries(bytes),
    outcome: [...states].join(),
  };
}

interface Row extends Sample {
  readonly name: string;
  readonly profile: string;
  readonly runs: number;
}

const option = (name: string): string | undefined => {
  const index = process.argv.indexOf(`--${name}`);
  return index < 0 ? undefined : process.argv[index + 1];
};
const runs = Number(option("runs") ?? 5);
const only = option("only");
const rows: Row[] = [];

function bench(name: string, profile: string, make: (index: number) => Sample, count = runs): void {
  if (only !== undefined && !name.includes(only)) return;
  const samples = range(count).map(make);
  const [last] = samples.slice(-1);
  if (last === undefined) return;
  const row = {
    ...last,
    name,
    profile,
    runs: count,
    wallMs: median(samples.map(({ wallMs }) => wallMs)),
    cpuMs: median(samples.map(({ cpuMs }) => cpuMs)),
  };
  rows.push(row);
  if (!process.argv.includes("--json")) {
    const sent = Object.entries(row.bytes).map(([round, count]) => `${round} ${count}`);
    const figures = `cpu/party ${row.cpuMs.toFixed(1)} ms, wall ${row.wallMs.toFixed(1)} ms`;
    console.log(`${name} (${profile}, ${row.outcome}): ${figures}; bytes/party: ${sent.join(", ")}`);
  }
}

const profiles: readonly SecurityProfile[] = [security112, security128].filter(
  ({ name }) => option("profile") === undefined || option("profile") === name,
);
bench("keygen 3-of-5", "-", (index) =>
  measure({
    protocol: keygen,
    ids: range(5),
    pub: { scheme: "cggmp24", threshold: 3, walletId: "wallet" },
    secret: () => undefined,
    seed: `keygen ${index}`,
  }),
);
for (const profile of profiles) {
  const threes: Ceremony = ceremony({ threshold: 3, n: 5, profile }, "bench 3");
  const fives: Ceremony = ceremony({ threshold: 5, n: 5, profile }, "bench 5");
  bench(
    "aux info, 5 parties, primes ready",
    profile.name,
    (index) => measure(auxRun(range(5), threes.key, profile, `aux ${index}`)),
    Math.min(runs, 2),
  );
  // Once before measuring: engines of the moduli are made at first use.
  if (only === undefined || "presign".includes(only)) makePresignatures(threes, [1, 2, 3], "warm");
  bench("presign, 3 signers", profile.name, (index) => measure(presignRun(threes, [1, 2, 3], `presign ${index}`)));
  bench("presign, 5 signers", profile.name, (index) => measure(presignRun(fives, range(5), `presign ${index}`)));
  for (const { name, change } of [
    { name: "failed nonce, 3 signers", change: (m: Loose) => otherScalar(m.productShare) },
    { name: "failed chi, 3 signers", change: (m: Loose) => otherPoint(m.key) },
  ]) {
    bench(
      name,
      profile.name,
      (index) => {
        const run = presignRun(threes, [1, 2, 3], `failed ${index}`);
        return measure({ ...run, cheats: new Map([[3, lying(run.protocol, { share: change })]]) });
      },
      1,
    );
  }
  if (only === undefined || "online sign, 3 signers".includes(only)) {
    const random = new SeededRandom("bench messages");
    const one = () => ({ digest: { bytes: random.bytes(32) }, bip32Tweak: Scalar.random(random) });
    const sets = range(runs + 3).map((index) => makePresignatures(threes, [1, 2, 3], `sign ${index}`));
    for (const set of sets.slice(runs)) measure(signRun(threes, [set], [one()], "warm"));
    bench("online sign, 3 signers", profile.name, (index) =>
      measure(signRun(threes, [of(new Map(sets.entries()), index - 1)], [one()], `sign ${index}`)),
    );
  }
}
if (process.argv.includes("--json")) {
  const cpu = cpus();
  console.log(JSON.stringify({ node: process.version, cpu: cpu[0]?.model, cores: cpu.length, rows }, null, 2));
}
