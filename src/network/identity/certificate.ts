import { X509Certificate as NativeCertificate } from "node:crypto";
import { InvalidInput } from "../../crypto/fault.js";
import { isOneSequence, splitSigned } from "./der.js";
import { x509 } from "./x509-library.js";

/** Ours have under 500 bytes, an RSA-4096 root 1.4 KiB. Hostile ones at the limit cost 10 ms each to parse. */
export const MAX_CERTIFICATE_BYTES = 4 * 1024;

const COMMON_NAME = "2.5.4.3";
const BASIC_CONSTRAINTS = "2.5.29.19";
const KEY_USAGE = "2.5.29.15";
const EXTENDED_KEY_USAGE = "2.5.29.37";
const SUBJECT_ALTERNATIVE_NAME = "2.5.29.17";
const SUBJECT_KEY_IDENTIFIER = "2.5.29.14";
const AUTHORITY_KEY_IDENTIFIER = "2.5.29.35";

/** Extensions whose meaning the verifier applies; a critical one outside this set must be refused (RFC 5280, 4.2). */
const UNDERSTOOD = new Set([
  BASIC_CONSTRAINTS,
  KEY_USAGE,
  EXTENDED_KEY_USAGE,
  SUBJECT_ALTERNATIVE_NAME,
  SUBJECT_KEY_IDENTIFIER,
  AUTHORITY_KEY_IDENTIFIER,
]);

/** What a certificate says, read once. Nothing in it is trusted yet. */
export interface Certificate {
  readonly der: Uint8Array;
  /** OpenSSL's view, for signatures. */
  readonly native: NativeCertificate;
  /** Lower-case hexadecimal, without leading zero bytes. */
  readonly serialNumber: string;
  /** DER of the names as hexadecimal, so that comparing is exact. */
  readonly subjectName: string;
  readonly issuerName: string;
  readonly commonNames: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly isAuthority: boolean;
  /** How many further authorities may follow below this one; undefined: any number. */
  readonly pathLength: number | undefined;
  /** Bits of `x509.KeyUsageFlags`; undefined when the extension is absent. */
  readonly keyUsage: number | undefined;
  readonly extendedKeyUsage: readonly string[] | undefined;
  readonly alternativeNames: readonly { readonly type: string; readonly value: string }[];
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
  readonly hasUnknownCriticalExtension: boolean;
  readonly hasAcceptableAlgorithms: boolean;
  /** SHA-256 of the DER, lower-case hexadecimal. */
  readonly fingerprint: string;
}

/**
 * Reads a certificate. Total.
 * @param der at most `MAX_CERTIFICATE_BYTES`, nothing after the certificate
 * @returns undefined for anything that two parsers, OpenSSL's and @peculiar/x509's, do not both read in the same way
 */
export function parseCertificate(der: Uint8Array): Certificate | undefined {
  if (der.length > MAX_CERTIFICATE_BYTES || !isOneSequence(der)) return undefined;
  try {
    return readCertificate(new Uint8Array(der));
  } catch {
    return undefined;
  }
}

/** Splits a PEM chain. @throws InvalidInput `bad-certificate-file` */
export function parseCertificatesPem(pem: string): readonly Certificate[] {
  let ders: readonly ArrayBuffer[];
  try {
    ders = x509.PemConverter.decode(pem);
  } catch {
    ders = [];
  }
  const certificates = ders.map((der) => parseCertificate(new Uint8Array(der)));
  const usable = certificates.filter((certificate) => certificate !== undefined);
  if (usable.length === 0 || usable.length !== certificates.length) {
    throw new InvalidInput("bad-certificate-file", "the file holds no readable certificate in PEM form");
  }
  return usable;
}

/** PEM of one or more certificates, in the order given. */
export function certificatesToPem(certificates: readonly Certificate[]): string {
  return `${certificates.map(({ der }) => x509.PemConverter.encode(der, "CERTIFICATE")).join("\n")}\n`;
}

function readCertificate(der: Uint8Array): Certificate | undefined {
  const native = new NativeCertificate(der);
  const parsed = new x509.X509Certificate(der);
  const { extensions } = parsed;
  const byType = new Map(extensions.map((extension) => [extension.type, extension]));
  const names = readNames(byType.get(SUBJECT_ALTERNATIVE_NAME));
  const basic = byType.get(BASIC_CONSTRAINTS);
  const usage = byType.get(KEY_USAGE);
  const extended = byType.get(EXTENDED_KEY_USAGE);
  const subjectKey = byType.get(SUBJECT_KEY_IDENTIFIER);
  const authorityKey = byType.get(AUTHORITY_KEY_IDENTIFIER);
  const serialNumber = parsed.serialNumber.toLowerCase().replace(/^(00)+(?=..)/, "");
  const publicKey = native.publicKey.export({ type: "spki", format: "der" });

  const agree =
    byType.size === extensions.length &&
    Buffer.from(native.raw).equals(der) &&
    BigInt(`0x${native.serialNumber}`) === BigInt(`0x${serialNumber}`) &&
    publicKey.equals(Buffer.from(parsed.publicKey.rawData)) &&
    Date.parse(native.validTo) === parsed.notAfter.getTime() &&
    Date.parse(native.validFrom) === parsed.notBefore.getTime();
  if (!agree) return undefined;

  return Object.freeze({
    der,
    native,
    serialNumber,
    subjectName: hex(parsed.subjectName.toArrayBuffer()),
    issuerName: hex(parsed.issuerName.toArrayBuffer()),
    commonNames: parsed.subjectName.getField(COMMON_NAME),
    notBeforeMs: parsed.notBefore.getTime(),
    notAfterMs: parsed.notAfter.getTime(),
    isAuthority: basic instanceof x509.BasicConstraintsExtension && basic.ca,
    pathLength: basic instanceof x509.BasicConstraintsExtension ? basic.pathLength : undefined,
    keyUsage: usage instanceof x509.KeyUsagesExtension ? usage.usages : undefined,
    extendedKeyUsage:
      extended instanceof x509.ExtendedKeyUsageExtension ? Array.from(extended.usages, String) : undefined,
    alternativeNames: names,
    subjectKeyId: subjectKey instanceof x509.SubjectKeyIdentifierExtension ? subjectKey.keyId : undefined,
    authorityKeyId: authorityKey instanceof x509.AuthorityKeyIdentifierExtension ? authorityKey.keyId : undefined,
    hasUnknownCriticalExtension: extensions.some(({ critical, type }) => critical && !UNDERSTOOD.has(type)),
    hasAcceptableAlgorithms: isAcceptableKey(native) && splitSigned(der) !== undefined,
    fingerprint: native.fingerprint256.replaceAll(":", "").toLowerCase(),
  });
}

function readNames(extension: x509.Extension | undefined): Certificate["alternativeNames"] {
  if (!(extension instanceof x509.SubjectAlternativeNameExtension)) return [];
  return extension.names.items.map(({ type, value }) => ({ type, value }));
}

/** P-256 and P-384 everywhere; RSA only in the sizes that an organisation's existing root may have. */
function isAcceptableKey({ publicKey }: NativeCertificate): boolean {
  const details = publicKey.asymmetricKeyDetails;
  switch (publicKey.asymmetricKeyType) {
    case "ec":
      return details?.namedCurve === "prime256v1" || details?.namedCurve === "secp384r1";
    case "rsa": {
      const bits = details?.modulusLength ?? 0;
      return bits >= 3072 && bits <= 4096 && details?.publicExponent === 65537n;
    }
    default:
      return false;
  }
}

function hex(bytes: ArrayBuffer): string {
  return Buffer.from(bytes).toString("hex");
}
