// A million datagrams and frames, varied from recorded ones, against a live node.
// `npm run fuzz -- network [--count=N] [--seconds=S] [--seed=N] [--start=N] [--json]`; --start goes on where a run ended.
import { fuzzNetwork } from "../network/network-fuzz.js";

function option(name: string, otherwise: number): number {
  const given = process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3);
  const value = given === undefined ? otherwise : Number(given);
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`--${name} must be a whole number`);
  return value;
}

const seed = option("seed", 1);
const started = performance.now();
const summary = await fuzzNetwork({
  seed,
  start: option("start", 0),
  count: option("count", 1_000_000),
  limitMs: option("seconds", 1_800) * 1_000,
  progress: (done) => console.error(`case ${done}`),
});
const seconds = (performance.now() - started) / 1_000;
if (process.argv.includes("--json")) console.log(JSON.stringify({ ...summary, seed, seconds }));
else {
  const { datagrams, frames, framesRead, framesRefused, calls, p50Ms, p99Ms, aloneP50Ms, aloneP99Ms } = summary;
  console.log(`${datagrams} datagrams and ${frames} frame sequences in ${seconds.toFixed(0)} s, no crash`);
  console.log(`frames read ${framesRead}, sequences refused ${framesRefused}`);
  console.log(
    `honest peer: ${calls} calls, none failed, p50/p99 ${p50Ms.toFixed(2)}/${p99Ms.toFixed(2)} ms ` +
      `(before ${aloneP50Ms.toFixed(2)}/${aloneP99Ms.toFixed(2)}), connections ${summary.connections}`,
  );
  console.log(`memory grew by ${summary.rssGrowthMb.toFixed(0)} MB; go on with --seed=${seed} --start=${summary.next}`);
}
