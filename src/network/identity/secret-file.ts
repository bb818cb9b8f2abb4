import { access, chmod, mkdir, open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { InvalidInput } from "../../crypto/fault.js";

/** Files that hold keys, passphrases and certificates: durable, never half written, never overwritten by accident. */

const SECRET_MODE = 0o600;
const PUBLIC_MODE = 0o644;
const FOLDER_MODE = 0o700;

/** Makes a folder that only its owner enters. Existing parents are left as they are. */
export async function makePrivateFolder(path: string): Promise<void> {
  const created = await mkdir(path, { recursive: true, mode: FOLDER_MODE });
  // A permissive umask cannot widen 0700, but a folder of ours that existed may be wide: only tighten what we made.
  if (created !== undefined) await chmod(path, FOLDER_MODE);
}

/** Writes a file that must not exist, 0600. @throws InvalidInput `file-exists` */
export async function writeNewSecret(path: string, content: string): Promise<void> {
  await writeNew(path, content, SECRET_MODE);
}

/** Writes a public file that must not exist, 0644. @throws InvalidInput `file-exists` */
export async function writeNewPublic(path: string, content: string): Promise<void> {
  await writeNew(path, content, PUBLIC_MODE);
}

/** Replaces a public file in one step: readers see the old content or the new, never a part. */
export async function replacePublic(path: string, content: string): Promise<void> {
  await replace(path, content, PUBLIC_MODE);
}

/** Replaces a secret file in one step, 0600. */
export async function replaceSecret(path: string, content: string): Promise<void> {
  await replace(path, content, SECRET_MODE);
}

export async function appendDurably(path: string, line: string): Promise<void> {
  const file = await open(path, "a", SECRET_MODE);
  try {
    await file.appendFile(line, "utf8");
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Reads a secret file.
 * @param what names it in the error
 * @throws InvalidInput `file-missing`; `secret-readable-by-others` when its mode lets group or others read it
 */
export async function readSecret(path: string, what: string): Promise<string> {
  const file = await openExisting(path, what);
  try {
    const { mode } = await file.stat();
    if (process.platform !== "win32" && (mode & 0o077) !== 0) {
      throw new InvalidInput("secret-readable-by-others", `others may read ${what}: run chmod 600 ${path}`, { path });
    }
    return await file.readFile("utf8");
  } finally {
    await file.close();
  }
}

/** Reads a passphrase file: its first line, without the line break. @throws InvalidInput as `readSecret` */
export async function readPassphraseFile(path: string): Promise<string> {
  return (await readSecret(path, "the passphrase file")).split(/\r?\n/, 1)[0] ?? "";
}

/** Reads a text file. @param what names it in the error. @throws InvalidInput `file-missing` */
export async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw isMissing(error) ? missing(path, what) : error;
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

async function openExisting(path: string, what: string) {
  try {
    return await open(path, "r");
  } catch (error) {
    throw isMissing(error) ? missing(path, what) : error;
  }
}

function missing(path: string, what: string): InvalidInput {
  return new InvalidInput("file-missing", `${what} is not there: ${path}`, { path });
}

async function writeNew(path: string, content: string, mode: number): Promise<void> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, "wx", mode);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    throw new InvalidInput("file-exists", `${path} exists already and is not overwritten: move it away first`, {
      path,
    });
  }
  try {
    await file.writeFile(content, "utf8");
    await file.sync();
  } finally {
    await file.close();
  }
  await syncFolder(dirname(path));
}

async function replace(path: string, content: string, mode: number): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, "w", mode);
  try {
    await file.chmod(mode);
    await file.writeFile(content, "utf8");
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  await syncFolder(dirname(path));
}

async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
