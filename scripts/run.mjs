// `npm run bench -- NAME [options]` and `npm run fuzz -- NAME [options]` run test/bench/NAME.ts and test/fuzz/NAME.ts; without a
// name they list what there is.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const [kind = "", name, ...options] = process.argv.slice(2);
const folder = join(dirname(dirname(fileURLToPath(import.meta.url))), "dist", "test", kind);
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".js"))
  .map((file) => file.slice(0, -".js".length));
if (name === undefined || !names.includes(name)) {
  console.error(`usage: npm run ${kind} -- NAME [options]; NAME is one of: ${names.join(", ")}`);
  process.exit(name === undefined ? 0 : 1);
}
const run = spawnSync(
  process.execPath,
  ["--expose-gc", "--enable-source-maps", join(folder, `${name}.js`), ...options],
  { stdio: "inherit" },
);
process.exit(run.status ?? 1);
