import type { Random } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import { KeyStore } from "../storage/key-store.js";
import type { Argon2idCost } from "../storage/sealed-envelope.js";
import type { SecretBytes } from "../storage/secret-bytes.js";

export interface PassphraseRotation {
  readonly nodeId: string;
  /** False when the state was sealed under the new passphrase already: an earlier run got so far and was interrupted. */
  readonly changed: boolean;
}

/**
 * Seals a stopped node's state under a new passphrase. Everything that a passphrase protects is in that one file, the
 * key of the ledger and the stock of primes included, and the file is replaced in one step: whenever the process ends,
 * exactly one of the two passphrases opens it, and running it again finishes.
 *
 * @throws InvalidInput "passphrase-unchanged", "wrong-passphrase" (neither of the two), and what opening a state throws
 * @throws Unavailable "folder-locked" while the node runs, "write-failed"
 */
export async function rotatePassphrase(
  options: {
    readonly folder: string;
    readonly current: SecretBytes;
    readonly next: SecretBytes;
    /** Tests pass a small one. */
    readonly cost?: Argon2idCost;
  },
  { random }: { readonly random: Random },
): Promise<PassphraseRotation> {
  const { folder, current, next, cost } = options;
  if (current.equals(next)) throw new InvalidInput("passphrase-unchanged", "the new passphrase is the old one");
  const open = (passphrase: SecretBytes) =>
    KeyStore.open({ folder, passphrase, ...(cost === undefined ? {} : { cost }) }, { random });
  let changed = true;
  try {
    const store = await open(current);
    try {
      await store.rekey(next);
    } finally {
      await store.close();
    }
  } catch (error) {
    if (!(error instanceof InvalidInput) || error.code !== "wrong-passphrase") throw error;
    changed = false;
  }
  // Read back: an operator throws the old passphrase away after this.
  const store = await open(next);
  await store.close();
  return { nodeId: store.nodeId, changed };
}
