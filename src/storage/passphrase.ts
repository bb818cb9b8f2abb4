import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { InvalidInput } from "../crypto/fault.js";
import { SecretBytes } from "./secret-bytes.js";

const MIN_PASSPHRASE_BYTES = 12;
const MAX_PASSPHRASE_BYTES = 1024;

/** Name of the credential in systemd's `LoadCredential=` and of the file a container mounts. */
export const PASSPHRASE_CREDENTIAL = "state-encryption-key";

/** How the environment names a passphrase: the variable, the same with _FILE, and systemd's credential. */
export interface PassphraseNames {
  readonly variable: string;
  readonly credential: string;
}

const STATE_NAMES: PassphraseNames = { variable: "STATE_ENCRYPTION_KEY", credential: PASSPHRASE_CREDENTIAL };

/**
 * Finds a passphrase, from the first of: the file `file`, the variable, the file named by the variable with _FILE, the
 * systemd credential. A file may end in one newline. Without `names` it is that of the node's state: STATE_ENCRYPTION_KEY,
 * STATE_ENCRYPTION_KEY_FILE, `state-encryption-key`.
 *
 * @param environment usually `process.env`; read, never changed
 * @throws InvalidInput "passphrase-missing", "passphrase-unreadable", "passphrase-length" (12 to 1024 bytes)
 */
export function readPassphrase(
  environment: Readonly<Record<string, string | undefined>>,
  options: { readonly file?: string; readonly names?: PassphraseNames } = {},
): SecretBytes {
  const { variable, credential } = options.names ?? STATE_NAMES;
  const value = environment[variable];
  const named = environment[`${variable}_FILE`];
  const credentials = environment["CREDENTIALS_DIRECTORY"];
  if (options.file !== undefined) return fromFile(options.file);
  if (value !== undefined && value !== "") return checked(new TextEncoder().encode(value), variable);
  if (named !== undefined && named !== "") return fromFile(named);
  if (credentials !== undefined && credentials !== "") return fromFile(join(credentials, credential));
  throw new InvalidInput(
    "passphrase-missing",
    `set ${variable}, ${variable}_FILE or the systemd credential ${credential}`,
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
