import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { InvalidInput } from "../crypto/fault.js";
import { SecretBytes } from "./secret-bytes.js";

const MIN_PASSPHRASE_BYTES = 12;
const MAX_PASSPHRASE_BYTES = 1024;

/** Name of the credential in systemd's `LoadCredential=` and of the file a container mounts. */
export const PASSPHRASE_CREDENTIAL = "state-encryption-key";

/**
 * Finds the passphrase of the node's state, from the first of: the file `file`, the variable STATE_ENCRYPTION_KEY, the
 * file named by STATE_ENCRYPTION_KEY_FILE, systemd's credential `state-encryption-key`. A file may end in one newline.
 *
 * @param environment usually `process.env`; read, never changed
 * @throws InvalidInput "passphrase-missing", "passphrase-unreadable", "passphrase-length" (12 to 1024 bytes)
 */
export function readPassphrase(
  environment: Readonly<Record<string, string | undefined>>,
  options: { readonly file?: string } = {},
): SecretBytes {
  const value = environment["STATE_ENCRYPTION_KEY"];
  const named = environment["STATE_ENCRYPTION_KEY_FILE"];
  const credentials = environment["CREDENTIALS_DIRECTORY"];
  if (options.file !== undefined) return fromFile(options.file);
  if (value !== undefined && value !== "") return checked(new TextEncoder().encode(value), "STATE_ENCRYPTION_KEY");
  if (named !== undefined && named !== "") return fromFile(named);
  if (credentials !== undefined && credentials !== "") return fromFile(join(credentials, PASSPHRASE_CREDENTIAL));
  throw new InvalidInput(
    "passphrase-missing",
    "set STATE_ENCRYPTION_KEY, STATE_ENCRYPTION_KEY_FILE or the systemd credential state-encryption-key",
  );
}

function fromFile(path: string): SecretBytes {
  let bytes: Uint8Array;
  try {
    if (statSync(path).size > MAX_PASSPHRASE_BYTES + 2) throw new RangeError("file is too large for a passphrase");
    bytes = readFileSync(path);
  } catch (cause) {
    throw new InvalidInput("passphrase-unreadable", "the passphrase file cannot be read", { path }, cause);
  }
  let end = bytes.length;
  if (bytes[end - 1] === 0x0a) end -= 1;
  if (bytes[end - 1] === 0x0d) end -= 1;
  const secret = checked(Uint8Array.from(bytes.subarray(0, end)), path);
  bytes.fill(0);
  return secret;
}

function checked(bytes: Uint8Array, source: string): SecretBytes {
  if (bytes.length < MIN_PASSPHRASE_BYTES || bytes.length > MAX_PASSPHRASE_BYTES) {
    throw new InvalidInput("passphrase-length", "a passphrase has 12 to 1024 bytes", { source });
  }
  return SecretBytes.adopt(bytes);
}
