import { create, fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, sizeDelimitedEncode, WireType } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  EndSchema,
  type Field,
  FieldSchema,
  type Frame,
  FrameSchema,
  HeadSchema,
} from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { Pieces } from "./pieces.js";

interface FrameSize {
  /** Bytes of the length prefix. */
  readonly prefix: number;
  /** With the prefix. */
  readonly total: number;
}

/** Bounds of what a peer may send in one frame. */
export interface FrameLimits {
  /** A data frame with its framing. */
  readonly frameBytes: number;
  /** A head or an end. */
  readonly headBytes: number;
  /** Fields of a head or an end. */
  readonly headFields: number;
}

/** Framing of a data frame: two lengths and a tag. */
const DATA_OVERHEAD_BYTES = 16;
/** Copying so much is cheaper than one more call into the binding. */
const COPIED_BYTES = 8 * 1024;
/** A byte of flags and four of length before each gRPC message. */
export const MESSAGE_PREFIX_BYTES = 5;
const NO_PREFIX = new Uint8Array(0);
const DATA_TAG = (2 << 3) | WireType.LengthDelimited;

/** A head frame, size-delimited. */
export function encodeHead(head: { path?: string; status?: number; header: Headers }): Uint8Array {
  const value = create(HeadSchema, { path: head.path ?? "", status: head.status ?? 0, fields: fieldsOf(head.header) });
  return sizeDelimitedEncode(FrameSchema, create(FrameSchema, { kind: { case: "head", value } }));
}

/** An end frame, size-delimited; the last bytes of a direction. */
export function encodeEnd(trailer?: Headers): Uint8Array {
  const value = create(EndSchema, { trailers: trailer === undefined ? [] : fieldsOf(trailer) });
  return sizeDelimitedEncode(FrameSchema, create(FrameSchema, { kind: { case: "end", value } }));
}

/**
 * Pieces of data frames, size-delimited, no frame above `frameBytes`: the same bytes as sizeDelimitedEncode of Frames with
 * `data`, without its three copies. Large payloads are not copied at all and must not change afterwards.
 */
export function encodeData(bytes: Uint8Array, frameBytes: number): Iterable<Uint8Array> {
  return framed(NO_PREFIX, bytes, frameBytes);
}

/**
 * The same of a gRPC message: its five bytes of flags and length, and the message.
 *
 * @source gRPC over HTTP/2, "Length-Prefixed-Message"
 */
export function encodeMessage(message: Uint8Array, frameBytes: number): Iterable<Uint8Array> {
  const prefix = Buffer.alloc(MESSAGE_PREFIX_BYTES);
  prefix.writeUInt32BE(message.length, 1);
  return framed(prefix, message, frameBytes);
}

function* framed(prefix: Uint8Array, bytes: Uint8Array, frameBytes: number): Iterable<Uint8Array> {
  const payloadBytes = frameBytes - DATA_OVERHEAD_BYTES;
  let lead = prefix;
  let at = 0;
  do {
    const chunk = bytes.subarray(at, at + payloadBytes - lead.length);
    const isCopied = chunk.length <= COPIED_BYTES;
    yield dataFrame(lead, chunk, isCopied);
    if (!isCopied) yield chunk;
    at += chunk.length;
    lead = NO_PREFIX;
  } while (at < bytes.length);
}

/** A data frame with `lead`, and with the chunk that follows it if that is copied. */
function dataFrame(lead: Uint8Array, chunk: Uint8Array, isCopied: boolean): Uint8Array {
  const payloadLength = lead.length + chunk.length;
  const frameLength = 1 + varintLength(payloadLength) + payloadLength;
  const ownLength = varintLength(frameLength) + frameLength - (isCopied ? 0 : chunk.length);
  const out = Buffer.allocUnsafe(ownLength);
  let at = putVarint(out, frameLength, 0);
  out[at] = DATA_TAG;
  at = putVarint(out, payloadLength, at + 1);
  out.set(lead, at);
  if (isCopied) out.set(chunk, at + lead.length);
  return out;
}

function varintLength(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : 4;
}

function putVarint(out: Buffer, value: number, at: number): number {
  let rest = value;
  let end = at;
  for (; rest >= 0x80; rest >>>= 7) out[end++] = (rest & 0x7f) | 0x80;
  out[end++] = rest;
  return end;
}

/** Header fields as an HTTP headers object; names and values that HTTP does not allow are refused. */
export function headersOf(fields: readonly Field[]): Headers {
  try {
    return new Headers(fields.map(({ name, value }): [string, string] => [name, value]));
  } catch {
    throw new ConnectError("a header field is not valid", Code.Internal);
  }
}

/** The value of a field, by its lower-case name. */
export function fieldOf(fields: readonly Field[], wanted: string): string | undefined {
  return fields.find(({ name }) => name === wanted)?.value;
}

function fieldsOf(headers: Headers): Field[] {
  const fields: Field[] = [];
  headers.forEach((value, name) => {
    fields.push(create(FieldSchema, { name, value }));
  });
  return fields;
}

/** From this part of a frame on there is memory for all of it. What a peer claims costs at most so many times what it sent. */
const WORTH_A_FRAME = 1 / 4;

/**
 * Splits the bytes of one direction of a call into frames. Pushed synchronously, as the driver reads;
 * sizeDelimitedDecodeStream of protobuf reads the same format, but an async generator a call costs more than the rest of the
 * framing, and it has one limit for all frames. The bytes that are pushed stay the driver's: what is kept of them is copied, once,
 * since V8 collects its whole heap after so many megabytes of buffers.
 */
export class FrameReader {
  readonly #limits: FrameLimits;
  /** Of a frame that is not whole yet, until it is worth a buffer of its own. */
  readonly #pieces = new Pieces();
  #frame: Buffer | undefined;
  #frameFilled = 0;
  /** Bytes of the frame that is being collected and of its length prefix; undefined while the prefix is not whole. */
  #size: FrameSize | undefined;
  #first = true;
  #over = false;

  constructor(limits: FrameLimits) {
    this.#limits = limits;
  }

  /** Bytes of a frame that is not whole yet. */
  get heldBytes(): number {
    return this.#pieces.bytes + this.#frameFilled;
  }

  /** True after an end frame. */
  get over(): boolean {
    return this.#over;
  }

  /** Takes the next bytes and returns the frames that are complete. @throws {ConnectError} as `feed` */
  push(bytes: Uint8Array): Frame["kind"][] {
    const frames: Frame["kind"][] = [];
    this.feed(bytes, (frame) => frames.push(frame));
    return frames;
  }

  /**
   * Takes the next bytes, which may change afterwards, and gives each frame that is complete to `take`. What that throws ends
   * the reading, so that the rest of a hostile peer's frames costs nothing.
   *
   * @throws {ConnectError} ResourceExhausted for a frame over its limit; Internal for what does not decode or is out of order
   */
  feed(bytes: Uint8Array, take: (frame: Frame["kind"]) => void): void {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.heldBytes > 0) {
        rest = this.#collect(rest);
        const whole = this.#takeWhole();
        if (whole === undefined) return;
        take(this.#decode(whole, "ours"));
        continue;
      }
      const size = this.#checkedSize(rest);
      if (size === undefined || rest.length < size.total) {
        this.#size = size;
        this.#collect(rest);
        return;
      }
      take(this.#decode(rest.subarray(size.prefix, size.total), "the driver's"));
      rest = rest.subarray(size.total);
    }
  }

  /** Keeps what belongs to the frame under way; returns what comes after it. */
  #collect(bytes: Uint8Array): Uint8Array {
    let rest = bytes;
    // At most the bytes of a prefix, one at a time: afterwards it is known where the frame ends.
    while (this.#size === undefined && rest.length > 0) {
      this.#pieces.add(Uint8Array.from(rest.subarray(0, 1)));
      rest = rest.subarray(1);
      const prefix = this.#pieces.takeJoined();
      this.#size = this.#checkedSize(prefix);
      this.#pieces.add(prefix);
    }
    if (this.#size === undefined) return rest;
    const { total } = this.#size;
    const part = rest.subarray(0, total - this.heldBytes);
    if (this.#frame === undefined && this.heldBytes + part.length >= total * WORTH_A_FRAME) {
      // Not from Node's pool: it would be kept by what is read out of it.
      this.#frame = Buffer.allocUnsafeSlow(total);
      for (const piece of this.#pieces.takeAll()) this.#fill(piece);
    }
    if (this.#frame === undefined) this.#pieces.add(Uint8Array.from(part));
    else this.#fill(part);
    return rest.subarray(part.length);
  }

  #fill(part: Uint8Array): void {
    this.#frame?.set(part, this.#frameFilled);
    this.#frameFilled += part.length;
  }

  /** The frame under way without its prefix, when it is whole. */
  #takeWhole(): Uint8Array | undefined {
    const [size, frame] = [this.#size, this.#frame];
    if (size === undefined || frame === undefined || this.#frameFilled < size.total) return undefined;
    this.#size = undefined;
    this.#frame = undefined;
    this.#frameFilled = 0;
    return frame.subarray(size.prefix);
  }

  /** @throws {ConnectError} for a frame over its limit */
  #checkedSize(bytes: Uint8Array): FrameSize | undefined {
    const size = peekSize(bytes);
    if (size === undefined) return undefined;
    this.#checkSize(size.value);
    return { prefix: size.offset, total: size.offset + size.value };
  }

  #checkSize(sizeBytes: number): void {
    const limit = this.#first ? this.#limits.headBytes : this.#limits.frameBytes;
    if (sizeBytes > limit) tooLarge("frame", sizeBytes, limit);
  }

  #decode(bytes: Uint8Array, owner: "ours" | "the driver's"): Frame["kind"] {
    if (this.#over) throw new ConnectError("frame after the end", Code.Internal);
    const kind = decodeFrame(bytes);
    if ((kind.case === "head") !== this.#first) throw new ConnectError("head frame out of order", Code.Internal);
    this.#first = false;
    // Not into Node's pool: what is decoded from it keeps it, and a thread that gets a part of it gets the whole.
    if (kind.case === "data") return owner === "ours" ? kind : { case: "data", value: Uint8Array.from(kind.value) };
    const fields = kind.case === "head" ? kind.value.fields : kind.case === "end" ? kind.value.trailers : [];
    if (bytes.length > this.#limits.headBytes) tooLarge("end frame", bytes.length, this.#limits.headBytes);
    if (fields.length > this.#limits.headFields) tooLarge("number of fields", fields.length, this.#limits.headFields);
    if (kind.case === "end") this.#over = true;
    return kind;
  }
}

function decodeFrame(bytes: Uint8Array): Frame["kind"] {
  try {
    if (bytes[0] === DATA_TAG) {
      const reader = new BinaryReader(bytes);
      reader.tag();
      const value = reader.bytes();
      if (reader.pos === bytes.length) return { case: "data", value };
    }
    return fromBinary(FrameSchema, bytes).kind;
  } catch {
    throw new ConnectError("frame does not decode", Code.Internal);
  }
}

/** Length prefix: at most four varint bytes, which is more than any limit. */
function peekSize(buffer: Uint8Array): { value: number; offset: number } | undefined {
  let value = 0;
  for (let at = 0; at < 4; at++) {
    const byte = buffer[at];
    if (byte === undefined) return undefined;
    value |= (byte & 0x7f) << (7 * at);
    if (byte < 0x80) return { value, offset: at + 1 };
  }
  throw new ConnectError("frame length is out of range", Code.ResourceExhausted);
}

function tooLarge(what: string, size: number, limit: number): never {
  throw new ConnectError(`${what} is ${size}, the limit is ${limit}`, Code.ResourceExhausted);
}
