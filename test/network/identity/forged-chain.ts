import { type KeyObject, randomBytes } from "node:crypto";
import type { Random } from "../../../src/crypto/ambient.js";
import { type Certificate, parseCertificate } from "../../../src/network/identity/certificate.js";
import {
  type CertificateCurve,
  createIntermediate,
  createRoot,
  generateCertificateKey,
  type IssuingContext,
  issueNodeCertificate,
  type SigningAuthority,
  spkiOf,
  webCryptoSigner,
} from "../../../src/network/identity/certificate-authority.js";
import {
  createCertificateRequest,
  verifyCertificateRequest,
} from "../../../src/network/identity/certificate-request.js";
import { x509 } from "../../../src/network/identity/x509-library.js";

export const DAY_MS = 24 * 60 * 60 * 1000;
export const NOW_MS = Date.parse("2026-06-01T12:00:00Z");

export const testRandom: Random = { bytes: (length) => new Uint8Array(randomBytes(length)) };

/** A clock that tests move. */
export class MovableClock {
  timeMs: number;
  constructor(timeMs = NOW_MS) {
    this.timeMs = timeMs;
  }
  nowMs(): number {
    return this.timeMs;
  }
}

export const context: IssuingContext = { clock: new MovableClock(), random: testRandom };

export interface Hierarchy {
  readonly root: SigningAuthority;
  readonly intermediate: SigningAuthority;
}

export async function makeHierarchy(name = "test", issuing: IssuingContext = context): Promise<Hierarchy> {
  const root = await createRoot(
    { commonName: `${name} root`, privateKey: await generateCertificateKey("P-384") },
    issuing,
  );
  const privateKey = await generateCertificateKey("P-384");
  const intermediate = await createIntermediate({ commonName: `${name} intermediate`, root, privateKey }, issuing);
  return { root, intermediate };
}

export async function issueTo(
  nodeId: string,
  intermediate: SigningAuthority,
  options: { readonly curve?: CertificateCurve; readonly lifetimeMs?: number; readonly issuing?: IssuingContext } = {},
): Promise<{ readonly leaf: Certificate; readonly privateKey: KeyObject }> {
  const privateKey = await generateCertificateKey(options.curve ?? "P-256");
  const verified = verifyCertificateRequest(await createCertificateRequest(nodeId, privateKey));
  if (!verified.ok) throw new Error(verified.reason);
  const leaf = await issueNodeCertificate(
    {
      intermediate,
      request: verified.request,
      ...(options.lifetimeMs === undefined ? {} : { lifetimeMs: options.lifetimeMs }),
    },
    options.issuing ?? context,
  );
  return { leaf, privateKey };
}

export interface Forgery {
  readonly subject: x509.JsonName;
  readonly issuer: x509.JsonName;
  /** Whose key the certificate names. */
  readonly holder: KeyObject;
  readonly signer: KeyObject;
  readonly extensions: x509.Extension[];
  readonly notBeforeMs?: number;
  readonly notAfterMs?: number;
}

/** Makes a certificate that our own authority code would never make. */
export async function forge(forgery: Forgery): Promise<Uint8Array> {
  const signer = await webCryptoSigner(forgery.signer);
  const made = await x509.X509CertificateGenerator.create({
    serialNumber: `40${randomBytes(15).toString("hex")}`,
    subject: forgery.subject,
    issuer: forgery.issuer,
    notBefore: new Date(forgery.notBeforeMs ?? NOW_MS - DAY_MS),
    notAfter: new Date(forgery.notAfterMs ?? NOW_MS + 90 * DAY_MS),
    publicKey: spkiOf(forgery.holder),
    signingKey: signer.key,
    signingAlgorithm: signer.algorithm,
    extensions: forgery.extensions,
  });
  return new Uint8Array(made.rawData);
}

/** Extensions of a good leaf, each replaceable. */
export function leafExtensions(
  nodeId: string,
  changes: {
    readonly names?: x509.JsonGeneralName[];
    readonly usages?: string[];
    readonly keyUsage?: number;
    readonly authority?: boolean;
    readonly more?: x509.Extension[];
  } = {},
): x509.Extension[] {
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  return [
    new x509.BasicConstraintsExtension(changes.authority ?? false, undefined, true),
    new x509.KeyUsagesExtension(changes.keyUsage ?? x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension(changes.usages ?? [serverAuth, clientAuth]),
    new x509.SubjectAlternativeNameExtension(changes.names ?? [{ type: "dns", value: nodeId }]),
    ...(changes.more ?? []),
  ];
}

export function authorityExtensions(
  changes: { readonly authority?: boolean; readonly pathLength?: number; readonly keyUsage?: number } = {},
): x509.Extension[] {
  const { keyCertSign, cRLSign } = x509.KeyUsageFlags;
  return [
    new x509.BasicConstraintsExtension(changes.authority ?? true, changes.pathLength, true),
    new x509.KeyUsagesExtension(changes.keyUsage ?? keyCertSign | cRLSign, true),
  ];
}

export function nameFor(commonName: string): x509.JsonName {
  return [{ CN: [commonName] }];
}

/** Reads a certificate that must be readable. */
export function parsed(der: Uint8Array): Certificate {
  const certificate = parseCertificate(der);
  if (certificate === undefined) throw new Error("the test's certificate does not parse");
  return certificate;
}
