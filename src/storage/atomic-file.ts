import { open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Unavailable } from "../crypto/fault.js";

const SUFFIX = ".new";

/**
 * Replaces a file so that a reader, after any crash, sees the whole old or the whole new content: write beside it,
 * fsync, rename, fsync the folder. Mode 0600. The caller holds the folder's lock, so one temporary name is enough.
 *
 * @throws Unavailable "write-failed"; the old file is then still in place
 */
export async function replaceFile(path: string, content: string): Promise<void> {
  const temporary = `${path}${SUFFIX}`;
  try {
    const file = await open(temporary, "w", 0o600);
    try {
      await file.chmod(0o600); // the mode above is ignored for a file left by a crash
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (cause) {
    throw new Unavailable("write-failed", "the file could not be written", { path }, cause);
  }
}

/** Removes what an interrupted `replaceFile` left: never the file itself. */
export async function removeLeftover(path: string): Promise<void> {
  const leftover = `${basename(path)}${SUFFIX}`;
  const names = await readdir(dirname(path));
  if (names.includes(leftover)) await rm(join(dirname(path), leftover), { force: true });
}

async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return; // a folder cannot be opened there
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
