import { createHash } from "node:crypto";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { equalBytes } from "../crypto/bytes.js";
import { Bug } from "../crypto/fault.js";

/**
 * The 80 bytes by which a payment names itself on the chain.
 *
 *     [0-3]   magic "MPCW"
 *     [4-7]   version, u32 big-endian
 *     [8-15]  creation of the request, Unix milliseconds, u64 big-endian
 *     [16-47] request id: UUID as 32 hex characters, ASCII
 *     [48-79] metadata
 *
 * The version says how the metadata stands there. Version 1: one byte of length, then JSON compressed by raw DEFLATE,
 * then zeros. Version 2: SHA-256 of the JSON, which is kept in the audit trail. The blueprint names zstd; Node has it
 * only from 22.15 and for 31 bytes neither wins, so DEFLATE serves and version 3 stays free.
 */

export const OP_RETURN_BYTES = 80;
/** OP_RETURN, OP_PUSHDATA1, length. */
export const OP_RETURN_SCRIPT_BYTES = OP_RETURN_BYTES + 3;

const MAGIC = Buffer.from("MPCW", "ascii");
const METADATA_BYTES = 32;
const METADATA_MAX_BYTES = 4096;
const VERSION_DEFLATED = 1;
const VERSION_HASHED = 2;
const OP_RETURN = 0x6a;
const OP_PUSHDATA1 = 0x4c;

export interface PaymentMark {
  /** UUID with hyphens, lower case. */
  readonly requestId: string;
  readonly createdAtMs: number;
  readonly metadata: MarkedMetadata;
}

export type MarkedMetadata =
  | { readonly form: "json"; readonly json: string }
  | { readonly form: "sha256"; readonly sha256: Uint8Array };

function sha256(text: string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(text, "utf8").digest());
}

/** True when the JSON has to be kept elsewhere because only its hash fits. */
export function needsKeeping(metadataJson: string): boolean {
  return deflateRawSync(metadataJson, { level: 9 }).length >= METADATA_BYTES;
}

/** @returns the 80 bytes */
export function encodeMark(payment: {
  readonly requestId: string;
  readonly createdAtMs: number;
  readonly metadataJson: string;
}): Uint8Array {
  const id = payment.requestId.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/.test(id)) throw new Bug("a verified request has a UUID");
  const bytes = Buffer.alloc(OP_RETURN_BYTES);
  bytes.set(MAGIC, 0);
  bytes.writeBigUInt64BE(BigInt(payment.createdAtMs), 8);
  bytes.write(id, 16, "ascii");
  const deflated = deflateRawSync(payment.metadataJson, { level: 9 });
  if (deflated.length < METADATA_BYTES) {
    bytes.writeUInt32BE(VERSION_DEFLATED, 4);
    bytes[48] = deflated.length;
    bytes.set(deflated, 49);
  } else {
    bytes.writeUInt32BE(VERSION_HASHED, 4);
    bytes.set(sha256(payment.metadataJson), 48);
  }
  return new Uint8Array(bytes);
}

function inflate(field: Uint8Array): string | undefined {
  const length = field[0] ?? 0;
  if (length >= METADATA_BYTES || field.subarray(1 + length).some((byte) => byte !== 0)) return undefined;
  try {
    const options = { maxOutputLength: METADATA_MAX_BYTES, info: true };
    // With `info` the call also tells how much input it took; bytes after the compressed stream would be ignored.
    const { buffer: json, engine } = inflateRawSync(field.subarray(1, 1 + length), options) as unknown as {
      buffer: Uint8Array;
      engine: { bytesWritten: number };
    };
    if (engine.bytesWritten !== length) return undefined;
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    return undefined;
  }
}

/** Total: undefined for anything that is not exactly this form. */
export function decodeMark(bytes: Uint8Array): PaymentMark | undefined {
  const data = Buffer.from(bytes);
  if (data.length !== OP_RETURN_BYTES || !data.subarray(0, 4).equals(MAGIC)) return undefined;
  const id = data.toString("latin1", 16, 48);
  const parts = /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/.exec(id);
  const createdAtMs = data.readBigUInt64BE(8);
  if (parts === null || createdAtMs > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  const mark = { requestId: parts.slice(1).join("-"), createdAtMs: Number(createdAtMs) };
  const field = data.subarray(48);
  switch (data.readUInt32BE(4)) {
    case VERSION_DEFLATED: {
      const json = inflate(field);
      return json === undefined ? undefined : { ...mark, metadata: { form: "json", json } };
    }
    case VERSION_HASHED:
      return { ...mark, metadata: { form: "sha256", sha256: Uint8Array.from(field) } };
    default:
      return undefined;
  }
}

/** The output script that carries the mark. */
export function markScript(mark: Uint8Array): Uint8Array {
  return Uint8Array.from([OP_RETURN, OP_PUSHDATA1, mark.length, ...mark]);
}

/** The mark in an output script; undefined for any other script. Total. */
export function readMarkScript(script: Uint8Array): PaymentMark | undefined {
  const [first, second, length] = script;
  const fits = script.length === OP_RETURN_SCRIPT_BYTES && first === OP_RETURN && second === OP_PUSHDATA1;
  return fits && length === OP_RETURN_BYTES ? decodeMark(script.subarray(3)) : undefined;
}

export function isOpReturn(script: Uint8Array): boolean {
  return script[0] === OP_RETURN;
}

/**
 * True when the mark is that of the request. Compared by content, not by re-encoding: compressors of different
 * versions may write the same JSON in different bytes.
 */
export function marksRequest(
  mark: PaymentMark,
  request: { readonly requestId: string; readonly createdAtMs: number; readonly metadataJson: string },
): boolean {
  if (mark.requestId !== request.requestId || mark.createdAtMs !== request.createdAtMs) return false;
  return mark.metadata.form === "json"
    ? mark.metadata.json === request.metadataJson
    : equalBytes(mark.metadata.sha256, sha256(request.metadataJson));
}
