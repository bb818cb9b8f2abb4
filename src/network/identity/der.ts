/**
 * The few DER pieces that @peculiar/x509 does not give: slicing a signed structure out of its envelope exactly as it
 * was signed, and writing a handful of fields. Reading is strict and total.
 */

const INTEGER = 0x02;
const BIT_STRING = 0x03;
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

/** The three parts of a certificate, a request or a revocation list. */
export interface SignedStructure {
  /** Byte for byte as it was signed: re-encoding a parsed tree could verify something that nobody signed. */
  readonly signed: Uint8Array;
  readonly digest: "sha256" | "sha384" | "sha512";
  readonly keyType: "ec" | "rsa";
  readonly signature: Uint8Array;
}

/** Signature algorithms by their exact DER (RFC 5758 section 3.2, RFC 4055 section 5). */
const ALGORITHMS: Readonly<Record<string, Pick<SignedStructure, "digest" | "keyType">>> = {
  "300a06082a8648ce3d040302": { digest: "sha256", keyType: "ec" },
  "300a06082a8648ce3d040303": { digest: "sha384", keyType: "ec" },
  "300a06082a8648ce3d040304": { digest: "sha512", keyType: "ec" },
  "300d06092a864886f70d01010b0500": { digest: "sha256", keyType: "rsa" },
  "300d06092a864886f70d01010c0500": { digest: "sha384", keyType: "rsa" },
  "300d06092a864886f70d01010d0500": { digest: "sha512", keyType: "rsa" },
};

/**
 * Splits SEQUENCE { signed, algorithm, BIT STRING }, with nothing before, between or after. The envelope is not covered
 * by the signature, so that each of its bytes must be the only one possible.
 * @returns undefined for any other bytes, and for an algorithm that we do not accept
 */
export function splitSigned(der: Uint8Array): SignedStructure | undefined {
  const outer = elementAt(der, 0);
  if (outer?.tag !== SEQUENCE || outer.whole.length !== der.length) return undefined;
  const { content } = outer;
  const signed = elementAt(content, 0);
  if (signed?.tag !== SEQUENCE) return undefined;
  const algorithm = elementAt(content, signed.whole.length);
  if (algorithm === undefined) return undefined;
  const bits = elementAt(content, signed.whole.length + algorithm.whole.length);
  if (bits?.tag !== BIT_STRING || bits.content[0] !== 0) return undefined;
  if (signed.whole.length + algorithm.whole.length + bits.whole.length !== content.length) return undefined;
  const known = ALGORITHMS[Buffer.from(algorithm.whole).toString("hex")];
  return known === undefined ? undefined : { signed: signed.whole, ...known, signature: bits.content.subarray(1) };
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
