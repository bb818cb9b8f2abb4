// Runs the compiled tests with Node's own runner. Words after `npm test --` choose files by a part of their path. With
// `--long` (`npm run test:long`) it runs the files that take minutes, named *.long.ts, instead of the suite.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const wanted = process.argv.slice(2).filter((word) => !word.startsWith("-"));
const long = process.argv.includes("--long");
const options = process.argv.slice(2).filter((word) => word.startsWith("-") && word !== "--long");

const files = readdirSync(join(root, "dist", "test"), { recursive: true })
  .map((name) => join("dist", "test", String(name)))
  .filter((name) => name.endsWith(long ? ".long.js" : ".test.js"))
  .filter((name) => wanted.length === 0 || wanted.some((word) => relative("dist/test", name).includes(word)))
  .sort();
if (files.length === 0) {
  console.error(`no test file matches: ${wanted.join(" ")}`);
  process.exit(1);
}
const run = spawnSync(
  process.execPath,
  [
    "--enable-source-maps",
    "--test",
    `--test-timeout=${long ? 7_200_000 : 300_000}`,
    "--test-reporter=spec",
    "--test-concurrency=2",
    ...options,
    ...files,
  ],
  { cwd: root, stdio: "inherit" },
);
process.exit(run.status ?? 1);
