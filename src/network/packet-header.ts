/** Bytes of every connection id that we issue; short headers do not carry a length, so it must be fixed. */
export const CONNECTION_ID_BYTES = 16;

/** A client's first datagram is padded to this size, else it is dropped (RFC 9000, section 14.1). */
export const MIN_INITIAL_BYTES = 1_200;

const MAX_CONNECTION_ID_BYTES = 20;
const MAX_TOKEN_BYTES = 256;

/** The part of a QUIC packet header that routing needs. */
export type PacketHeader =
  | { readonly kind: "short"; readonly dcid: Buffer }
  | {
      readonly kind: "initial" | "other-long";
      readonly version: number;
      readonly dcid: Buffer;
      readonly scid: Buffer;
      /** Empty unless `kind` is initial. */
      readonly token: Buffer;
    };

/**
 * Parses the invariant header (RFC 8999) and the token of an Initial. Total: whatever the bytes are, the answer is a
 * header or undefined. The package's own path dies here, because a 0-RTT header has no token.
 */
export function parsePacketHeader(datagram: Buffer): PacketHeader | undefined {
  const first = datagram[0];
  if (first === undefined) return undefined;
  if ((first & 0x80) === 0) {
    if ((first & 0x40) === 0 || datagram.length < 1 + CONNECTION_ID_BYTES) return undefined;
    return { kind: "short", dcid: datagram.subarray(1, 1 + CONNECTION_ID_BYTES) };
  }
  if (datagram.length < 7) return undefined;
  const version = datagram.readUInt32BE(1);
  const dcid = lengthPrefixed(datagram, 5);
  if (dcid === undefined) return undefined;
  const scid = lengthPrefixed(datagram, 6 + dcid.length);
  if (scid === undefined) return undefined;
  const kind = version !== 0 && (first & 0x30) === 0 ? "initial" : "other-long";
  if (kind === "other-long") return { kind, version, dcid, scid, token: EMPTY };
  const token = varintPrefixed(datagram, 7 + dcid.length + scid.length);
  return token && { kind, version, dcid, scid, token };
}

const EMPTY = Buffer.alloc(0);

function lengthPrefixed(datagram: Buffer, at: number): Buffer | undefined {
  const length = datagram[at];
  if (length === undefined || length > MAX_CONNECTION_ID_BYTES || at + 1 + length > datagram.length) return undefined;
  return datagram.subarray(at + 1, at + 1 + length);
}

/** Tokens are ours and short: a length of one or two varint bytes is all that is read. */
function varintPrefixed(datagram: Buffer, at: number): Buffer | undefined {
  const first = datagram[at];
  if (first === undefined) return undefined;
  const wide = first >> 6;
  if (wide > 1 || at + 1 + wide > datagram.length) return undefined;
  const length = wide === 0 ? first : datagram.readUInt16BE(at) & 0x3fff;
  const start = at + 1 + wide;
  if (length > MAX_TOKEN_BYTES || start + length > datagram.length) return undefined;
  return datagram.subarray(start, start + length);
}
