import type { KeyObject, webcrypto } from "node:crypto";
import { createPublicKey, generateKeyPair } from "node:crypto";
import { promisify } from "node:util";
import type { Clock, Random } from "../../crypto/ambient.js";
import { Bug, InvalidInput } from "../../crypto/fault.js";
import { type Certificate, parseCertificate } from "./certificate.js";
import type { CertificateRequest } from "./certificate-request.js";
import { x509 } from "./x509-library.js";

/**
 * Root -> intermediate -> node. The root signs intermediates only and stays offline; the intermediate signs nodes and
 * the revocation list. Keys are made and signatures are drawn by OpenSSL with its own entropy; serial numbers and
 * times are arguments.
 */

const DAY_MS = 24 * 60 * 60 * 1000;
export const ROOT_LIFETIME_MS = 3652 * DAY_MS;
export const INTERMEDIATE_LIFETIME_MS = 730 * DAY_MS;
export const NODE_LIFETIME_MS = 90 * DAY_MS;

/** Peers' clocks differ: a certificate that starts "now" would be refused by a node five seconds behind. */
export const BACKDATE_MS = 5 * 60 * 1000;

const SERIAL_BYTES = 16;

export type CertificateCurve = "P-256" | "P-384";

/** Curve of authorities: signed once, verified for years. */
export const AUTHORITY_CURVE: CertificateCurve = "P-384";

/** Curve of nodes: a handshake signs with it; measured 0.02 ms against 0.56 ms for P-384. */
export const NODE_CURVE: CertificateCurve = "P-256";

export interface IssuingContext {
  readonly clock: Pick<Clock, "nowMs">;
  readonly random: Random;
}

/** A certificate together with the key that signs under it. */
export interface SigningAuthority {
  readonly certificate: Certificate;
  readonly privateKey: KeyObject;
}

/** Makes a private key for a certificate. */
export async function generateCertificateKey(curve: CertificateCurve): Promise<KeyObject> {
  const pair = await promisify(generateKeyPair)("ec", { namedCurve: curve });
  return pair.privateKey;
}

/**
 * Joins a certificate and its key.
 * @throws InvalidInput `key-does-not-match-certificate`, `not-an-authority`
 */
export function signingAuthority(certificate: Certificate, privateKey: KeyObject): SigningAuthority {
  if (!certificate.native.checkPrivateKey(privateKey)) {
    throw new InvalidInput("key-does-not-match-certificate", "the private key does not belong to the certificate");
  }
  if (!certificate.isAuthority) throw new InvalidInput("not-an-authority", "the certificate may not sign others");
  return { certificate, privateKey };
}

/** Makes a self-signed root over the given key, ten years by default. */
export async function createRoot(
  options: { readonly commonName: string; readonly privateKey: KeyObject; readonly lifetimeMs?: number },
  context: IssuingContext,
): Promise<SigningAuthority> {
  const publicKey = spkiOf(options.privateKey);
  const subject = distinguishedName(options.commonName);
  const certificate = await issue(
    {
      subject,
      issuer: subject,
      publicKey,
      signingKey: options.privateKey,
      validity: validity(options.lifetimeMs ?? ROOT_LIFETIME_MS, context),
      extensions: [...authorityExtensions(undefined), ...(await keyIdentifiers(publicKey, publicKey))],
    },
    context,
  );
  return signingAuthority(certificate, options.privateKey);
}

/** Makes an intermediate that may sign nodes but no further authority (path length 0), two years by default. */
export async function createIntermediate(
  options: {
    readonly commonName: string;
    readonly root: SigningAuthority;
    readonly privateKey: KeyObject;
    readonly lifetimeMs?: number;
  },
  context: IssuingContext,
): Promise<SigningAuthority> {
  const publicKey = spkiOf(options.privateKey);
  const certificate = await issue(
    {
      subject: distinguishedName(options.commonName),
      issuer: nameOf(options.root.certificate),
      publicKey,
      signingKey: options.root.privateKey,
      validity: within(options.root.certificate, options.lifetimeMs ?? INTERMEDIATE_LIFETIME_MS, context),
      extensions: [...authorityExtensions(0), ...(await keyIdentifiers(publicKey, spkiOf(options.root.privateKey)))],
    },
    context,
  );
  return signingAuthority(certificate, options.privateKey);
}

/**
 * Issues a node's certificate from a verified request. Only the key and the id are taken from the request; everything
 * else is decided here, so a request cannot ask for authority.
 * @returns the leaf; its notAfter never exceeds the intermediate's
 * @throws InvalidInput `authority-expired`
 */
export async function issueNodeCertificate(
  options: {
    readonly intermediate: SigningAuthority;
    readonly request: CertificateRequest;
    readonly lifetimeMs?: number;
  },
  context: IssuingContext,
): Promise<Certificate> {
  const { intermediate, request } = options;
  const extensions = [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth], false),
    new x509.SubjectAlternativeNameExtension([{ type: "dns", value: request.nodeId }], false),
    ...(await keyIdentifiers(request.publicKey, spkiOf(intermediate.privateKey))),
  ];
  return issue(
    {
      subject: distinguishedName(request.nodeId),
      issuer: nameOf(intermediate.certificate),
      publicKey: request.publicKey,
      signingKey: intermediate.privateKey,
      validity: within(intermediate.certificate, options.lifetimeMs ?? NODE_LIFETIME_MS, context),
      extensions,
    },
    context,
  );
}

/** Name of an authority, for what it signs. */
export function nameOf(certificate: Certificate): x509.Name {
  return new x509.Name(Buffer.from(certificate.subjectName, "hex"));
}

/** Imports a private key for the library's WebCrypto signatures. */
export async function webCryptoSigner(privateKey: KeyObject): Promise<{
  readonly key: webcrypto.CryptoKey;
  readonly algorithm: webcrypto.EcdsaParams & webcrypto.EcKeyImportParams;
}> {
  const namedCurve = curveOf(privateKey);
  const algorithm = { name: "ECDSA", namedCurve, hash: namedCurve === "P-384" ? "SHA-384" : "SHA-256" };
  const pkcs8 = privateKey.export({ type: "pkcs8", format: "der" });
  try {
    return { key: await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]), algorithm };
  } finally {
    pkcs8.fill(0);
  }
}

/** SubjectPublicKeyInfo of a private key's public half. */
export function spkiOf(privateKey: KeyObject): Uint8Array<ArrayBuffer> {
  return new Uint8Array(createPublicKey(privateKey).export({ type: "spki", format: "der" }));
}

interface Issuance {
  readonly subject: x509.Name;
  readonly issuer: x509.Name;
  readonly publicKey: Uint8Array<ArrayBuffer>;
  readonly signingKey: KeyObject;
  readonly validity: { readonly notBefore: Date; readonly notAfter: Date };
  readonly extensions: x509.Extension[];
}

async function issue(issuance: Issuance, context: IssuingContext): Promise<Certificate> {
  const signer = await webCryptoSigner(issuance.signingKey);
  const made = await x509.X509CertificateGenerator.create({
    serialNumber: randomSerialNumber(context.random),
    subject: issuance.subject,
    issuer: issuance.issuer,
    ...issuance.validity,
    publicKey: issuance.publicKey,
    signingKey: signer.key,
    signingAlgorithm: signer.algorithm,
    extensions: issuance.extensions,
  });
  const certificate = parseCertificate(new Uint8Array(made.rawData));
  if (certificate === undefined) throw new Bug("a certificate that was just made does not parse");
  return certificate;
}

/** 126 random bits; a fixed top makes the number positive and its length constant (RFC 5280, 4.1.2.2). */
function randomSerialNumber(random: Random): string {
  const bytes = Buffer.from(random.bytes(SERIAL_BYTES));
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

function validity(lifetimeMs: number, { clock }: IssuingContext): Issuance["validity"] {
  // X.509 counts whole seconds.
  const nowMs = Math.floor(clock.nowMs() / 1000) * 1000;
  return { notBefore: new Date(nowMs - BACKDATE_MS), notAfter: new Date(nowMs + lifetimeMs) };
}

/** A certificate never outlives or predates the one that signs it. */
function within(issuer: Certificate, lifetimeMs: number, context: IssuingContext): Issuance["validity"] {
  const wanted = validity(lifetimeMs, context);
  if (issuer.notAfterMs <= context.clock.nowMs()) {
    throw new InvalidInput("authority-expired", "the signing certificate has expired: make a new one first", {
      notAfterMs: issuer.notAfterMs,
    });
  }
  return {
    notBefore: new Date(Math.max(wanted.notBefore.getTime(), issuer.notBeforeMs)),
    notAfter: new Date(Math.min(wanted.notAfter.getTime(), issuer.notAfterMs)),
  };
}

function authorityExtensions(pathLength: number | undefined): x509.Extension[] {
  return [
    new x509.BasicConstraintsExtension(true, pathLength, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
  ];
}

async function keyIdentifiers(subject: Uint8Array, issuer: Uint8Array): Promise<x509.Extension[]> {
  return [
    await x509.SubjectKeyIdentifierExtension.create(subject),
    await x509.AuthorityKeyIdentifierExtension.create(issuer),
  ];
}

function distinguishedName(commonName: string): x509.Name {
  if (commonName.length < 1 || commonName.length > 64) {
    throw new InvalidInput("bad-common-name", "a common name has 1 to 64 characters", { length: commonName.length });
  }
  return new x509.Name([{ CN: [commonName] }]);
}

function curveOf(key: KeyObject): CertificateCurve {
  const namedCurve = key.asymmetricKeyDetails?.namedCurve;
  if (namedCurve === "prime256v1") return "P-256";
  if (namedCurve === "secp384r1") return "P-384";
  throw new InvalidInput("unacceptable-key", "certificate keys are P-256 or P-384", {
    keyType: namedCurve ?? key.asymmetricKeyType ?? key.type,
  });
}
