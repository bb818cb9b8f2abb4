import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import type { Argon2idCost } from "../../src/storage/sealed-envelope.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";

/** Cheap on purpose: tests derive keys by the hundred. */
export const TEST_COST: Argon2idCost = { memoryKib: 64, passes: 1, lanes: 1 };

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** An empty folder that is removed after the tests of the file. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "mpc-wallet-"));
  folders.push(folder);
  return folder;
}

export const passphrase = (text = "correct horse battery staple"): SecretBytes => SecretBytes.copyOf(Buffer.from(text));
