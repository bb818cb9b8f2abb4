// Runs the compiled tests with Node's own runner. Words after `npm test --` choose files by a part of their path.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const wanted = process.argv.slice(2).filter((word) => !word.startsWith("-"));
const options = process.argv.slice(2).filter((word) => word.startsWith("-"));

const files = readdirSync(join(root, "dist", "test"), { recursive: true })
  .map((name) => join("dist", "test", String(name)))
  .filter((name) => name.endsWith(".test.js"))
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
    "--test-timeout=300000",
    "--test-reporter=spec",
    "--test-concurrency=2",
    ...options,
    ...files,
  ],
  { cwd: root, stdio: "inherit" },
);
process.exit(run.status ?? 1);
