import { createCipheriv, createPrivateKey, type KeyObject, scrypt } from "node:crypto";
import type { Random } from "../../crypto/ambient.js";
import { InvalidInput } from "../../crypto/fault.js";
import { encodeDer, encodeDerInteger, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE } from "./der.js";
import { x509 } from "./x509-library.js";

/**
 * Authority keys at rest: a standard "ENCRYPTED PRIVATE KEY" (PKCS#8, PBES2) with scrypt and AES-256-CBC, so that
 * `openssl pkey` opens it too. `KeyObject.export` would do, but its PBKDF2 has 2,048 iterations, a dictionary away from
 * plain text. CBC is not authenticated; a changed file does not decode, or does not match its certificate, and
 * `signingAuthority` refuses that.
 * @source RFC 7914 section 7 (scrypt in PBES2); RFC 8018 section 6.2
 */

/** 16 MiB, five passes: OpenSSL reads at most 32 MiB, so the work is in p. 0.2 s on one core. */
const SCRYPT = { N: 16384, r: 8, p: 5 } as const;
const SCRYPT_MAX_MEMORY_BYTES = 64 * 1024 * 1024;
const SALT_BYTES = 16;
const IV_BYTES = 16;
const KEY_BYTES = 32;

/** Shorter is guessed offline, whatever the key derivation costs. */
export const MIN_PASSPHRASE_CHARACTERS = 12;

const PBES2 = oid("06092a864886f70d01050d");
const SCRYPT_KDF = oid("06092b06010401da47040b");
const AES_256_CBC = oid("060960864801650304012a");

/**
 * Encrypts a private key.
 * @param passphrase at least 12 characters
 * @returns PEM "ENCRYPTED PRIVATE KEY"
 * @throws InvalidInput `short-passphrase`
 */
export async function encryptPrivateKey(key: KeyObject, passphrase: string, random: Random): Promise<string> {
  if ([...passphrase].length < MIN_PASSPHRASE_CHARACTERS) {
    throw new InvalidInput("short-passphrase", `a passphrase has at least ${MIN_PASSPHRASE_CHARACTERS} characters`);
  }
  const salt = random.bytes(SALT_BYTES);
  const iv = random.bytes(IV_BYTES);
  const plain = key.export({ type: "pkcs8", format: "der" });
  const secret = await deriveKey(passphrase, salt);
  try {
    const cipher = createCipheriv("aes-256-cbc", secret, iv);
    const encrypted = Buffer.concat([cipher.update(plain), cipher.final()]);
    const kdf = encodeDer(
      SEQUENCE,
      encodeDer(OCTET_STRING, salt),
      encodeDerInteger(SCRYPT.N),
      encodeDerInteger(SCRYPT.r),
      encodeDerInteger(SCRYPT.p),
    );
    const parameters = encodeDer(
      SEQUENCE,
      encodeDer(SEQUENCE, SCRYPT_KDF, kdf),
      encodeDer(SEQUENCE, AES_256_CBC, encodeDer(OCTET_STRING, iv)),
    );
    const der = encodeDer(SEQUENCE, encodeDer(SEQUENCE, PBES2, parameters), encodeDer(OCTET_STRING, encrypted));
    return `${x509.PemConverter.encode(new Uint8Array(der), "ENCRYPTED PRIVATE KEY")}\n`;
  } finally {
    plain.fill(0);
    secret.fill(0);
  }
}

/**
 * Opens an encrypted private key.
 * @throws InvalidInput `wrong-passphrase`, also for a damaged file: the two cannot be told apart
 */
export function decryptPrivateKey(pem: string, passphrase: string): KeyObject {
  try {
    return createPrivateKey({ key: pem, passphrase });
  } catch {
    throw new InvalidInput("wrong-passphrase", "the private key does not open: wrong passphrase or damaged file");
  }
}

function deriveKey(passphrase: string, salt: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, KEY_BYTES, { ...SCRYPT, maxmem: SCRYPT_MAX_MEMORY_BYTES }, (error, key) =>
      error === null ? resolve(key) : reject(error),
    );
  });
}

function oid(hex: string): Uint8Array {
  const bytes = Buffer.from(hex, "hex");
  if (bytes[0] !== OBJECT_IDENTIFIER) throw new RangeError("not an object identifier");
  return bytes;
}
