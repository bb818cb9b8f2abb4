import { createHash, hkdfSync, timingSafeEqual } from "node:crypto";
import { inspect } from "node:util";
import { create, fromJsonString, type JsonValue, toJson } from "@bufbuild/protobuf";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { argon2id } from "hash-wasm";
import {
  type Argon2id,
  Argon2idSchema,
  type SealedEnvelope,
  SealedEnvelopeSchema,
} from "../../gen/mpcwallet/storage/v1/state_pb.js";
import type { Random } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import { SecretBytes } from "./secret-bytes.js";

const FORMAT = "mpc-wallet/sealed";
const VERSION = 1;
const SALT_BYTES = 16;
const KEY_BYTES = 32;
const NONCE_BYTES = 24;
const TAG_BYTES = 16;
const CHECK_BYTES = 16;
/** Largest plaintext that is sealed or opened. */
export const MAX_SEALED_BYTES = 64 * 1024 * 1024;

/** Cost of one passphrase guess. */
export interface Argon2idCost {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
}

/** About 0.2 s and 64 MiB on the machine this was written on (RFC 9106, second recommended option, with one lane). */
export const DEFAULT_COST: Argon2idCost = { memoryKib: 64 * 1024, passes: 3, lanes: 1 };

/** What a reader accepts; more would let a foreign file exhaust the process, less would be a weak file. */
const MIN_COST: Argon2idCost = { memoryKib: 19 * 1024, passes: 2, lanes: 1 };
const MAX_COST: Argon2idCost = { memoryKib: 1024 * 1024, passes: 16, lanes: 16 };

/**
 * The key that Argon2id makes of a passphrase. Made once per process, since making it is slow on purpose; every purpose
 * uses its own HKDF-SHA-256 sub-key. Never printed.
 */
export class PassphraseKey {
  readonly #root: SecretBytes;
  readonly kdf: Argon2id;

  private constructor(root: SecretBytes, kdf: Argon2id) {
    this.#root = root;
    this.kdf = kdf;
  }

  /**
   * A key with a fresh salt, for a new file or a new passphrase.
   *
   * @param cost lower than the default in tests only
   */
  static async fresh(
    passphrase: SecretBytes,
    random: Random,
    cost: Argon2idCost = DEFAULT_COST,
  ): Promise<PassphraseKey> {
    const kdf = create(Argon2idSchema, { salt: random.bytes(SALT_BYTES), ...cost });
    return new PassphraseKey(await derive(passphrase, kdf), kdf);
  }

  /**
   * The key that opens `envelope`, if the passphrase is the one it was sealed with.
   *
   * @param minimum lowest accepted cost; a test that seals with a cheap cost passes that cost here too
   * @throws InvalidInput "wrong-passphrase", "envelope-cost" (parameters outside what this reader accepts)
   */
  static async of(
    passphrase: SecretBytes,
    envelope: SealedEnvelope,
    minimum: Argon2idCost = MIN_COST,
  ): Promise<PassphraseKey> {
    const { kdf } = envelope;
    if (kdf === undefined) throw corrupted("kdf");
    checkCost(kdf, minimum);
    const key = new PassphraseKey(await derive(passphrase, kdf), kdf);
    if (!same(key.check(envelope.purpose), envelope.keyCheck)) {
      key.erase();
      throw new InvalidInput("wrong-passphrase", "the passphrase does not open this file", {
        purpose: envelope.purpose,
      });
    }
    return key;
  }

  subKey(purpose: string): SecretBytes {
    return this.#expand(`mpc-wallet/key/${purpose}`, KEY_BYTES);
  }

  check(purpose: string): Uint8Array {
    return this.#expand(`mpc-wallet/key-check/${purpose}`, CHECK_BYTES).reveal();
  }

  erase(): void {
    this.#root.erase();
  }

  toJSON(): string {
    return "[passphrase key]";
  }

  [inspect.custom](): string {
    return "[passphrase key]";
  }

  #expand(info: string, length: number): SecretBytes {
    return SecretBytes.adopt(new Uint8Array(hkdfSync("sha256", this.#root.reveal(), new Uint8Array(0), info, length)));
  }
}

/** Seals `plaintext` for one purpose with a fresh random nonce. @throws InvalidInput "plaintext-too-large" */
export function seal(
  plaintext: Uint8Array,
  options: { readonly key: PassphraseKey; readonly purpose: string },
  random: Random,
): SealedEnvelope {
  if (plaintext.length > MAX_SEALED_BYTES) {
    throw new InvalidInput("plaintext-too-large", "the plaintext exceeds the limit", { limit: MAX_SEALED_BYTES });
  }
  const { key, purpose } = options;
  const envelope = create(SealedEnvelopeSchema, {
    format: FORMAT,
    version: VERSION,
    purpose,
    kdf: key.kdf,
    keyCheck: key.check(purpose),
    nonce: random.bytes(NONCE_BYTES),
  });
  const header = associatedData(envelope);
  const subKey = key.subKey(purpose);
  envelope.ciphertext = xchacha20poly1305(subKey.reveal(), envelope.nonce, header).encrypt(plaintext);
  subKey.erase();
  envelope.checksum = checksum(header, envelope.ciphertext);
  return envelope;
}

/**
 * Opens an envelope whose key is known.
 *
 * @throws InvalidInput "envelope-tampered" when the tag does not match although the passphrase does
 */
export function unseal(envelope: SealedEnvelope, key: PassphraseKey): Uint8Array {
  const subKey = key.subKey(envelope.purpose);
  try {
    return xchacha20poly1305(subKey.reveal(), envelope.nonce, associatedData(envelope)).decrypt(envelope.ciphertext);
  } catch (cause) {
    throw new InvalidInput("envelope-tampered", "the ciphertext was altered", { purpose: envelope.purpose }, cause);
  } finally {
    subKey.erase();
  }
}

/** The envelope as JSON text with a final newline. */
export function formatEnvelope(envelope: SealedEnvelope): string {
  const json: JsonValue = toJson(SealedEnvelopeSchema, envelope);
  return `${JSON.stringify(json, null, 2)}\n`;
}

/**
 * Reads an envelope and everything in it that needs no passphrase.
 *
 * @throws InvalidInput "envelope-corrupted" (not JSON, truncated, a field of the wrong size, checksum),
 *   "envelope-foreign" (another format or purpose), "envelope-version" (a version this program does not know)
 */
export function parseEnvelope(text: string, purpose: string): SealedEnvelope {
  let envelope: SealedEnvelope;
  try {
    envelope = fromJsonString(SealedEnvelopeSchema, text, { ignoreUnknownFields: true });
  } catch {
    throw corrupted("json"); // the parser's message may quote the file
  }
  if (envelope.format !== FORMAT || envelope.purpose !== purpose) {
    throw new InvalidInput("envelope-foreign", "the file is not what was expected here", { expected: purpose });
  }
  if (envelope.version !== VERSION) {
    throw new InvalidInput("envelope-version", "the file was written by another version", {
      version: envelope.version,
      known: VERSION,
    });
  }
  if (envelope.kdf === undefined || envelope.kdf.salt.length !== SALT_BYTES) throw corrupted("kdf");
  if (envelope.keyCheck.length !== CHECK_BYTES) throw corrupted("keyCheck");
  if (envelope.nonce.length !== NONCE_BYTES) throw corrupted("nonce");
  const { length } = envelope.ciphertext;
  if (length < TAG_BYTES || length > MAX_SEALED_BYTES + TAG_BYTES) throw corrupted("ciphertext");
  if (!same(checksum(associatedData(envelope), envelope.ciphertext), envelope.checksum)) throw corrupted("checksum");
  return envelope;
}

async function derive(passphrase: SecretBytes, kdf: Argon2id): Promise<SecretBytes> {
  const root = await argon2id({
    password: passphrase.reveal(),
    salt: kdf.salt,
    iterations: kdf.passes,
    parallelism: kdf.lanes,
    memorySize: kdf.memoryKib,
    hashLength: KEY_BYTES,
    outputType: "binary",
  });
  return SecretBytes.adopt(root);
}

function checkCost(cost: Argon2idCost, minimum: Argon2idCost): void {
  for (const name of ["memoryKib", "passes", "lanes"] as const) {
    if (cost[name] < minimum[name] || cost[name] > MAX_COST[name]) {
      throw new InvalidInput("envelope-cost", "the passphrase hash has parameters outside the accepted range", {
        parameter: name,
        value: cost[name],
        minimum: minimum[name],
        maximum: MAX_COST[name],
      });
    }
  }
}

/** Every field before the ciphertext, each with its length, so that no two headers share an encoding. */
function associatedData(envelope: SealedEnvelope): Uint8Array {
  const kdf = envelope.kdf ?? create(Argon2idSchema);
  const numbers = Buffer.alloc(16);
  numbers.writeUInt32BE(envelope.version, 0);
  numbers.writeUInt32BE(kdf.memoryKib, 4);
  numbers.writeUInt32BE(kdf.passes, 8);
  numbers.writeUInt32BE(kdf.lanes, 12);
  const text = new TextEncoder();
  const fields = [
    text.encode(envelope.format),
    text.encode(envelope.purpose),
    numbers,
    kdf.salt,
    envelope.keyCheck,
    envelope.nonce,
  ];
  return Buffer.concat(
    fields.flatMap((field) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(field.length);
      return [length, field];
    }),
  );
}

function checksum(header: Uint8Array, ciphertext: Uint8Array): Uint8Array {
  return createHash("sha256").update(header).update(ciphertext).digest();
}

function same(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right);
}

function corrupted(part: string): InvalidInput {
  return new InvalidInput("envelope-corrupted", "the file is damaged or truncated", { part });
}
