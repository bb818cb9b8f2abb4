// `npm run bench -- NAME [options]` runs bench NAME; without a name it lists them. A bench is test/bench/NAME.ts.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = join(dirname(dirname(fileURLToPath(import.meta.url))), "dist", "test", "bench");
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".js"))
  .map((name) => name.slice(0, -".js".length));
const [name, ...options] = process.argv.slice(2);
if (name === undefined || !names.includes(name)) {
  console.error(`usage: npm run bench -- NAME [options]; NAME is one of: ${names.join(", ")}`);
  process.exit(name === undefined ? 0 : 1);
}
const run = spawnSync(
  process.execPath,
  ["--expose-gc", "--enable-source-maps", join(folder, `${name}.js`), ...options],
  {
    stdio: "inherit",
  },
);
process.exit(run.status ?? 1);
