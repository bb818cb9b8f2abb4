/**
 * The few DER pieces that @peculiar/x509 does not give: slicing a signed structure out of its envelope exactly as it
 * was signed, and writing a handful of fields. Reading is strict and total.
 */

export const INTEGER = 0x02;
export const OCTET_STRING = 0x04;
export const OBJECT_IDENTIFIER = 0x06;
export const SEQUENCE = 0x30;

interface Element {
  readonly tag: number;
  /** Header and content. */
  readonly whole: Uint8Array;
  readonly content: Uint8Array;
}

/** Encodes one element; parts are concatenated. */
export function encodeDer(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts);
  const length = content.length;
  const header =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, (length >>> 8) & 0xff, length & 0xff];
  if (length > 0xffff) throw new RangeError("DER content above 65535 bytes is never written here");
  return new Uint8Array(Buffer.concat([Buffer.from(header), content]));
}

/** Encodes a non-negative safe integer. */
export function encodeDerInteger(value: number): Uint8Array {
  const hex = value.toString(16);
  const bytes = Buffer.from(hex.padStart(hex.length + (hex.length % 2), "0"), "hex");
  return encodeDer(INTEGER, (bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes);
}

/** Reads a non-negative integer of at most 48 bits, minimally encoded; undefined for anything else. */
export function decodeDerInteger(der: Uint8Array): number | undefined {
  const element = elementAt(der, 0);
  if (element?.tag !== INTEGER || element.whole.length !== der.length) return undefined;
  const { content } = element;
  const [first = 0xff, second = 0] = content;
  if (content.length < 1 || content.length > 7 || first >= 0x80) return undefined;
  if (content.length > 1 && first === 0 && second < 0x80) return undefined;
  const value = Number.parseInt(Buffer.from(content).toString("hex"), 16);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Says whether the bytes are one SEQUENCE and nothing after it. */
export function isOneSequence(der: Uint8Array): boolean {
  const outer = elementAt(der, 0);
  return outer?.tag === SEQUENCE && outer.whole.length === der.length;
}

/**
 * Takes the signed part of a certificate, a request or a revocation list: the first element inside the outer
 * sequence, byte for byte. Re-encoding it from a parsed tree could verify something that nobody signed.
 */
export function signedPart(der: Uint8Array): Uint8Array | undefined {
  const outer = elementAt(der, 0);
  if (outer?.tag !== SEQUENCE || outer.whole.length !== der.length) return undefined;
  const inner = elementAt(outer.content, 0);
  return inner?.tag === SEQUENCE ? inner.whole : undefined;
}

function elementAt(der: Uint8Array, offset: number): Element | undefined {
  const tag = der[offset];
  const first = der[offset + 1];
  if (tag === undefined || first === undefined || first === 0x80) return undefined;
  let length = first;
  let header = 2;
  if (first > 0x80) {
    const lengthBytes = first - 0x80;
    if (lengthBytes > 4) return undefined;
    length = 0;
    for (let index = 0; index < lengthBytes; index += 1) {
      const byte = der[offset + 2 + index];
      if (byte === undefined) return undefined;
      length = length * 256 + byte;
    }
    // DER: the shortest form only.
    if (length < 0x80 || length < 256 ** (lengthBytes - 1)) return undefined;
    header += lengthBytes;
  }
  const end = offset + header + length;
  if (end > der.length) return undefined;
  return { tag, whole: der.subarray(offset, end), content: der.subarray(offset + header, end) };
}
