// Three attacks on live nodes, with an honest peer that goes on calling: a million datagrams and frames, varied from recorded
// ones; 20,000 varied calls as real streams of an authenticated peer; floods of streams by such a peer, in processes of their own.
// `npm run fuzz -- network [--only=frames,streams,floods] [--count=N] [--streams=N] [--attack-seconds=S] [--seconds=S] [--seed=N]
// [--start=N] [--json]`; --start goes on where a run of frames ended.
import { fuzzNetwork } from "../network/network-fuzz.js";
import { floodStreams } from "../network/stream-flood.js";
import { fuzzStreams } from "../network/stream-fuzz.js";

const PARTS = ["frames", "streams", "floods"] as const;
const JSON_ONLY = process.argv.includes("--json");

function text(name: string): string | undefined {
  return process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3);
}

function option(name: string, otherwise: number): number {
  const given = text(name);
  const value = given === undefined ? otherwise : Number(given);
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`--${name} must be a whole number`);
  return value;
}

function wantedParts(): ReadonlySet<string> {
  const names = text("only")?.split(",") ?? PARTS;
  const unknown = names.filter((name) => !PARTS.includes(name as (typeof PARTS)[number]));
  if (unknown.length > 0) throw new RangeError(`--only takes ${PARTS.join(", ")}, not ${unknown.join(", ")}`);
  return new Set(names);
}

function say(line: string): void {
  if (!JSON_ONLY) console.log(line);
}

const both = (p50Ms: number, p99Ms: number) => `${p50Ms.toFixed(2)}/${p99Ms.toFixed(2)}`;
const counts = (of: Readonly<Record<string, number>>) =>
  Object.entries(of)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");

const seed = option("seed", 1);
const limitMs = option("seconds", 1_800) * 1_000;

async function frames() {
  const started = performance.now();
  const summary = await fuzzNetwork({
    seed,
    start: option("start", 0),
    count: option("count", 1_000_000),
    limitMs,
    progress: (done) => console.error(`case ${done}`),
  });
  const seconds = (performance.now() - started) / 1_000;
  const { datagrams, frames: sequences, framesRead, framesRefused, calls } = summary;
  say(`${datagrams} datagrams and ${sequences} frame sequences in ${seconds.toFixed(0)} s, no crash`);
  say(`frames read ${framesRead}, sequences refused ${framesRefused}`);
  say(
    `honest peer: ${calls} calls, none failed, p50/p99 ${both(summary.p50Ms, summary.p99Ms)} ms ` +
      `(before ${both(summary.aloneP50Ms, summary.aloneP99Ms)}), connections ${summary.connections}`,
  );
  say(`memory grew by ${summary.rssGrowthMb.toFixed(0)} MB; go on with --seed=${seed} --start=${summary.next}`);
  return { ...summary, seconds };
}

async function streams() {
  const started = performance.now();
  const summary = await fuzzStreams({ seed, start: 0, count: option("streams", 20_000), limitMs });
  const seconds = (performance.now() - started) / 1_000;
  say(`\n${summary.streams} varied calls as streams in ${seconds.toFixed(0)} s, each ended, no crash`);
  say(`ended by the node: ${counts(summary.ends)}`);
  say(`cancelled by the attacker ${summary.cancelled}, conversations left open by it ${summary.leftOpen}`);
  say(
    `honest peer: ${summary.calls} calls, none failed, p50/p99 ${both(summary.p50Ms, summary.p99Ms)} ms ` +
      `(before ${both(summary.aloneP50Ms, summary.aloneP99Ms)}); memory grew by ${summary.rssGrowthMb.toFixed(0)} MB`,
  );
  return { ...summary, seconds };
}

async function floods() {
  const attackMs = option("attack-seconds", 12) * 1_000;
  const phases = await floodStreams({ attackMs, aloneMs: attackMs / 4 });
  say(
    `\nfloods of streams by a peer with a good certificate, ${attackMs / 1_000} s each; p50/p99 ms of an honest peer's calls`,
  );
  for (const { attack, alone, during, ...rest } of phases) {
    say(
      `${attack.padEnd(46)} ${both(during.p50Ms, during.p99Ms).padStart(14)} ` +
        `(before ${both(alone.p50Ms, alone.p99Ms)}), ${during.calls} calls, none failed; ` +
        `${rest.opened} streams: answered ${rest.answered}, refused ${counts(rest.reset) || "none"}, ` +
        `open at the end ${rest.unfinished}; memory + ${rest.rssGrowthMb.toFixed(0)} MB`,
    );
  }
  return phases;
}

const wanted = wantedParts();
const found: Record<string, unknown> = { seed };
if (wanted.has("frames")) found["frames"] = await frames();
if (wanted.has("streams")) found["streams"] = await streams();
if (wanted.has("floods")) found["floods"] = await floods();
if (JSON_ONLY) console.log(JSON.stringify(found));
