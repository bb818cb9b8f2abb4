// `npm run crash -- --kills 300`: exit code 1 when something happened that must never happen, 2 when the time was over
// before all kills were made.
import { parseArgs } from "node:util";
import { KILL_POINTS } from "./instrument.js";
import { sweep } from "./sweep.js";

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "300" },
    minutes: { type: "string", default: "45" },
    seed: { type: "string", default: "1" },
    json: { type: "boolean", default: false },
  },
});
const kills = Number(values.kills);
const tell = (line: string): void => {
  process.stderr.write(`${(performance.now() / 1000).toFixed(1).padStart(7)} s  ${line}\n`);
};

const report = await sweep({
  nodes: 5,
  kills,
  paymentsAtTheEnd: 1,
  timeLimitMs: Number(values.minutes) * 60_000,
  seed: values.seed,
  schemes: ["frost", "cggmp24"],
  progress: tell,
});
const made = Object.values(report.kills).reduce((sum, count) => sum + count, 0);
for (const point of [...KILL_POINTS, "random"]) {
  const [died, told] = [report.kills[point] ?? 0, report.tries[point] ?? 0];
  tell(`${point.padEnd(20)} ${String(died).padStart(4)} kills, told ${told} times`);
}
tell(`${made} kills in ${(report.killingMs / 60_000).toFixed(1)} minutes; changes ${JSON.stringify(report.changes)}`);
const { shares, used, keys } = report.wire;
tell(
  `wire: ${shares} shares of ${used} presignatures and nonces under ${keys} keys, ${report.wire.reuses.length} reused`,
);
for (const violation of report.violations) tell(`VIOLATION: ${violation}`);
console.log(values.json ? JSON.stringify(report) : JSON.stringify(report, null, 2));
process.exitCode = report.violations.length > 0 ? 1 : made < kills ? 2 : 0;
