import { link, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { z } from "zod";
import type { Random } from "../../crypto/ambient.js";
import { Unavailable } from "../../crypto/fault.js";
import { isMissing, makePrivateFolder } from "./secret-file.js";

const LOCK_NAME = /^lock-(\d{1,15})$/;
const POLL_MS = 25;

/** Commands take a second; whoever waits longer than this is told who holds the folder. */
export const LOCK_PATIENCE_MS = 15_000;

const holderSchema = z.object({
  pid: z.int().min(1),
  host: z.string(),
  /** Start of the holder's process, so that a later process with the same number is not taken for it. */
  startedAt: z.string(),
  released: z.boolean(),
});
type Holder = z.infer<typeof holderSchema>;

/**
 * Runs `work` while no other command, of this process or another one, works in the folder.
 *
 * The lock is a file `lock-<n>` made by an exclusive hard link, content and all. The highest number is who holds the
 * folder; a holder that ends writes so into its file, and one that was killed is recognised by its process being gone.
 * Whoever comes next makes `lock-<n+1>`, which only one can: nobody ever removes a lock that may be somebody's, which is
 * where locks that are deleted when they look stale go wrong.
 *
 * @throws Unavailable `pki-folder-locked` naming the holder, after `patienceMs`
 */
export async function withPkiLock<T>(
  folder: string,
  options: { readonly random: Random; readonly patienceMs?: number },
  work: () => Promise<T>,
): Promise<T> {
  const before = queues.get(resolve(folder));
  const turn = (before ?? Promise.resolve()).then(() => lockedWork(folder, options, work));
  const settled = turn.then(
    () => {},
    () => {},
  );
  queues.set(resolve(folder), settled);
  try {
    return await turn;
  } finally {
    if (queues.get(resolve(folder)) === settled) queues.delete(resolve(folder));
  }
}

/** Work of this process stands in line; only the first of the line looks at the lock files. */
const queues = new Map<string, Promise<void>>();

async function lockedWork<T>(
  folder: string,
  options: { readonly random: Random; readonly patienceMs?: number },
  work: () => Promise<T>,
): Promise<T> {
  await makePrivateFolder(folder);
  const draft = join(folder, `lock-draft-${process.pid}-${Buffer.from(options.random.bytes(8)).toString("hex")}`);
  const path = await acquire(folder, draft, options.patienceMs ?? LOCK_PATIENCE_MS);
  try {
    return await work();
  } finally {
    await write(draft, true);
    await rename(draft, path);
  }
}

async function acquire(folder: string, draft: string, patienceMs: number): Promise<string> {
  const tries = Math.max(1, Math.ceil(patienceMs / POLL_MS));
  await write(draft, false);
  try {
    for (let attempt = 0; attempt < tries; attempt += 1) {
      const highest = (await numbers(folder)).at(-1) ?? 0;
      if (await isFree(folder, highest)) {
        const path = await claim(folder, draft, highest + 1);
        if (path !== undefined) return path;
      }
      await wait(POLL_MS);
    }
  } finally {
    await rm(draft, { force: true });
  }
  const highest = (await numbers(folder)).at(-1) ?? 0;
  const found = await readHolder(folder, highest);
  const holder = typeof found === "string" ? undefined : found;
  throw new Unavailable(
    "pki-folder-locked",
    `another command works in ${folder}: process ${holder?.pid ?? "unknown"} on ${holder?.host ?? "an unknown host"}`,
    { folder, pid: holder?.pid ?? 0, host: holder?.host ?? "", file: `lock-${highest}` },
  );
}

/** Takes number `n`; undefined when somebody else was faster. */
async function claim(folder: string, draft: string, n: number): Promise<string | undefined> {
  const path = join(folder, `lock-${n}`);
  try {
    await link(draft, path);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return undefined;
    throw error;
  }
  const present = await numbers(folder);
  // Held up between looking and linking, while others came, went and tidied up: the highest number is not ours.
  if (present.at(-1) !== n) {
    await rm(path, { force: true });
    return undefined;
  }
  for (const old of present.slice(0, -1)) await rm(join(folder, `lock-${old}`), { force: true });
  return path;
}

/** Ascending. */
async function numbers(folder: string): Promise<number[]> {
  const found = (await readdir(folder)).map((name) => LOCK_NAME.exec(name)?.[1]).filter((text) => text !== undefined);
  return found.map(Number).sort((a, b) => a - b);
}

async function isFree(folder: string, n: number): Promise<boolean> {
  if (n === 0) return true;
  const holder = await readHolder(folder, n);
  // Tidied up by its successor: look again.
  if (holder === "missing") return false;
  if (holder === "damaged" || holder.released) return true;
  // Whether a process of another machine lives cannot be seen from here.
  if (holder.host !== hostname()) return false;
  return (await startOf(holder.pid)) !== holder.startedAt;
}

/** Lock files appear and change whole. One that does not read lost its content with the machine's power. */
async function readHolder(folder: string, n: number): Promise<Holder | "missing" | "damaged"> {
  try {
    return holderSchema.parse(JSON.parse(await readFile(join(folder, `lock-${n}`), "utf8")));
  } catch (error) {
    return isMissing(error) ? "missing" : "damaged";
  }
}

async function write(path: string, released: boolean): Promise<void> {
  const startedAt = (await startOf(process.pid)) ?? "";
  const holder: Holder = { pid: process.pid, host: hostname(), startedAt, released };
  await writeFile(path, JSON.stringify(holder), { mode: 0o600 });
}

/** When a process was started, in the kernel's ticks; undefined when there is no such process. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ESRCH") return undefined;
  }
  try {
    // The name in parentheses may hold spaces; behind it come the state and, as the 20th field, the start.
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : (fields[19] ?? "");
  } catch (error) {
    // No /proc on this platform, or the process has just ended.
    return isMissing(error) && process.platform === "linux" ? undefined : "";
  }
}
