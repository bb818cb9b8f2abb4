// `npm run fuzz -- NAME [options]` runs fuzzer NAME; without a name it lists them. A fuzzer is test/fuzz/NAME.ts.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = join(dirname(dirname(fileURLToPath(import.meta.url))), "dist", "test", "fuzz");
const names = readdirSync(folder)
  .filter((name) => name.endsWith(".js"))
  .map((name) => name.slice(0, -".js".length));
const [name, ...options] = process.argv.slice(2);
if (name === undefined || !names.includes(name)) {
  console.error(`usage: npm run fuzz -- NAME [options]; NAME is one of: ${names.join(", ")}`);
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
