import { mkdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import { Unavailable } from "../crypto/fault.js";

/** Who held the folder before, when that process ended without letting go. */
export interface FormerHolder {
  readonly pid: number;
  readonly host: string;
}

/**
 * Keeps a second process out of a folder.
 *
 * Node has no flock. LevelDB takes a kernel lock on its LOCK file (and refuses a second open in one process), and the
 * kernel drops that lock with the process, however it ends: nothing to clean up after kill -9, and no race between two
 * processes that both believe a lock file is stale. So the lock is an empty LevelDB of a few hundred bytes.
 */
export class FolderLock {
  readonly #level: ClassicLevel;
  readonly #holderFile: string;
  /** Set when the last holder did not release; the state files are still whole, but its sessions are lost. */
  readonly formerHolder: FormerHolder | undefined;

  private constructor(level: ClassicLevel, holderFile: string, formerHolder: FormerHolder | undefined) {
    this.#level = level;
    this.#holderFile = holderFile;
    this.formerHolder = formerHolder;
  }

  /** @throws Unavailable "folder-locked" with the holder's pid, when another process or opener holds it */
  static async acquire(folder: string): Promise<FolderLock> {
    const path = join(folder, "lock");
    await mkdir(path, { recursive: true, mode: 0o700 });
    const holderFile = join(path, "HOLDER.json");
    const level = new ClassicLevel(path);
    try {
      await level.open();
    } catch (cause) {
      const holder = await readHolder(holderFile);
      throw new Unavailable(
        "folder-locked",
        "another process uses this folder",
        { folder, pid: holder?.pid ?? 0, host: holder?.host ?? "" },
        cause,
      );
    }
    const former = await readHolder(holderFile);
    await writeFile(holderFile, JSON.stringify({ pid: process.pid, host: hostname() }), { mode: 0o600 });
    return new FolderLock(level, holderFile, former);
  }

  async release(): Promise<void> {
    await writeFile(this.#holderFile, "", { mode: 0o600 });
    await this.#level.close();
  }
}

/** A hint for people; the lock itself is the kernel's. Unreadable or empty is "nobody". */
async function readHolder(path: string): Promise<FormerHolder | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    if (typeof value !== "object" || value === null) return undefined;
    const { pid, host } = value as { pid?: unknown; host?: unknown };
    return typeof pid === "number" && typeof host === "string" ? { pid, host } : undefined;
  } catch {
    return undefined;
  }
}
