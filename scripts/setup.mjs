// Installs what package-lock.json asks for and compiles, each only when it is stale. Node built-ins only:
// this is the first thing that runs in a fresh clone.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modifiedMs = (path) => (existsSync(path) ? statSync(path).mtimeMs : 0);

function newestSourceMs(folder) {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    newest = Math.max(newest, entry.isDirectory() ? newestSourceMs(path) : statSync(path).mtimeMs);
  }
  return newest;
}

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], shell: process.platform === "win32" });
  if (result.status !== 0) {
    console.error(`setup: '${command} ${args.join(" ")}' failed`);
    process.exit(result.status ?? 1);
  }
}

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`setup: Node 20.19 or later is needed, this is ${process.versions.node}`);
  process.exit(1);
}

const installed = join(root, "node_modules", ".package-lock.json");
if (modifiedMs(installed) < modifiedMs(join(root, "package-lock.json"))) {
  console.error("setup: installing packages");
  // Not `npm ci`: it refuses a lock file without the QUIC binding's packages of other platforms, which have no release.
  run("npm", ["install", "--prefer-offline", "--loglevel=error"]);
}

const built = join(root, "dist", ".tsbuildinfo");
const sources = ["src", "gen", "test", "migrations"].map((name) => join(root, name)).filter(existsSync);
const newest = Math.max(...sources.map(newestSourceMs), modifiedMs(join(root, "tsconfig.json")), modifiedMs(installed));
if (modifiedMs(built) < newest) {
  console.error("setup: compiling");
  run(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", root]);
}

// What was compiled from a file that is gone must not be run or tested any more.
const dist = join(root, "dist");
for (const name of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
  if (!/\.js(\.map)?$/.test(name)) continue;
  const source = join(root, relative(dist, join(dist, name)).replace(/\.js(\.map)?$/, ".ts"));
  if (!existsSync(source)) rmSync(join(dist, name));
}
