import { create } from "@bufbuild/protobuf";
import { sizeDelimitedEncode } from "@bufbuild/protobuf/wire";
import { EndSchema, FieldSchema, FrameSchema, HeadSchema } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { encodeData, encodeEnd, encodeHead } from "../../src/network/frame-codec.js";

export const PING = "/mpcwallet.peer.v1.ControlService/Ping";
/** A call of many messages. */
export const EXCHANGE = "/mpcwallet.peer.v1.SessionService/Exchange";
const HEADERS = { "content-type": "application/grpc+proto", te: "trailers" };
const FRAME_BYTES = 100_000;

/** A head frame, as an honest caller sends it. */
export const requestHead = (header: Record<string, string> = {}, path = PING): Uint8Array =>
  encodeHead({ path, header: new Headers({ ...HEADERS, ...header }) });

/** A gRPC message of `length` bytes that claims to have `claimed`. */
export function grpcMessage(length: number, claimed = length): Buffer {
  const message = Buffer.alloc(5 + length);
  message.writeUInt32BE(claimed, 1);
  return message;
}

/** A PingRequest of `payloadBytes`, at most 2 MB, as the body of a call. */
export function pingBody(payloadBytes: number): Buffer {
  const message = Buffer.alloc(payloadBytes + 4);
  const length = payloadBytes;
  // Field 1, length-delimited, a varint of three bytes.
  message.set([0x0a, (length & 0x7f) | 0x80, ((length >> 7) & 0x7f) | 0x80, (length >> 14) & 0x7f]);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** The frames of a body. */
export const dataFrames = (body: Uint8Array, frameBytes = FRAME_BYTES): Buffer =>
  Buffer.concat([...encodeData(body, frameBytes)]);

/** Data frames of one byte each. */
export function singleBytes(body: Uint8Array): Buffer {
  const frames = Buffer.alloc(body.length * 4);
  for (const [index, byte] of body.entries()) frames.set([3, (2 << 3) | 2, 1, byte], index * 4);
  return frames;
}

/** A head and a message that lacks its last byte. */
export function halfRequest(messageBytes: number, path = PING): Buffer {
  const frames = dataFrames(grpcMessage(messageBytes));
  return Buffer.concat([requestHead({}, path), frames.subarray(0, frames.length - 1)]);
}

/** A whole call. */
export const wholePing = (payloadBytes: number): Buffer =>
  Buffer.concat([requestHead(), dataFrames(pingBody(payloadBytes)), encodeEnd()]);

/** A call whose message claims 4 GB. */
export const hugeClaim = (): Buffer =>
  Buffer.concat([requestHead(), dataFrames(grpcMessage(0, 0xffff_ffff)), encodeEnd()]);

export const field = (name: string, value: string) => create(FieldSchema, { name, value });

const manyFields = (count: number, value: string) =>
  Array.from({ length: count }, (_, index) => field(`x-${index}`, value));

function headOf(fields: ReturnType<typeof field>[]): Uint8Array {
  const value = create(HeadSchema, { path: PING, fields });
  return sizeDelimitedEncode(FrameSchema, create(FrameSchema, { kind: { case: "head", value } }));
}

function endOf(trailers: ReturnType<typeof field>[]): Uint8Array {
  const value = create(EndSchema, { trailers });
  return sizeDelimitedEncode(FrameSchema, create(FrameSchema, { kind: { case: "end", value } }));
}

/** Beginnings of calls that are over a limit, each refused while it arrives. */
export const BOMBS: readonly (readonly [string, () => Uint8Array])[] = [
  ["a head of 10,000 fields", () => headOf(manyFields(10_000, "v"))],
  ["a head of 65 small fields", () => headOf(manyFields(65, ""))],
  ["a head with a value of 1 MB", () => headOf([field("x-large", "v".repeat(2 ** 20))])],
  ["a path of 1 MB", () => encodeHead({ path: "/".repeat(2 ** 20), header: new Headers() })],
  ["a length prefix of 2^28 - 1", () => Buffer.from([0xff, 0xff, 0xff, 0x7f])],
  ["a length prefix that does not end", () => Buffer.alloc(64, 0xff)],
  ["a data frame of 200 KB", () => Buffer.concat([requestHead(), dataFrames(Buffer.alloc(200_000), 2 ** 20)])],
  ["an end of 10,000 fields", () => Buffer.concat([requestHead(), endOf(manyFields(10_000, "v"))])],
];
