import { createPublicKey, type KeyObject, verify } from "node:crypto";
import { InvalidInput } from "../../crypto/fault.js";
import { spkiOf, webCryptoSigner } from "./certificate-authority.js";
import { isOneSequence, splitSigned } from "./der.js";
import { assertNodeId, isNodeId } from "./node-id.js";
import { x509 } from "./x509-library.js";

/** A request of ours has about 400 bytes. */
export const MAX_REQUEST_BYTES = 4 * 1024;

const COMMON_NAME = "2.5.4.3";
const SUBJECT_ALTERNATIVE_NAME = "2.5.29.17";

/** A request whose signature was verified: its sender holds the private key. Who the sender is, is not shown by it. */
export interface CertificateRequest {
  readonly nodeId: string;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
}

export type RequestRefusal = "oversized" | "malformed" | "unacceptable-key" | "bad-signature" | "bad-node-id";

/** Makes a PKCS#10 request for a node id, signed with the key that the certificate will name. DER. */
export async function createCertificateRequest(nodeId: string, privateKey: KeyObject): Promise<Uint8Array> {
  assertNodeId(nodeId);
  const signer = await webCryptoSigner(privateKey);
  const publicKey = await crypto.subtle.importKey("spki", spkiOf(privateKey), signer.algorithm, true, ["verify"]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: new x509.Name([{ CN: [nodeId] }]),
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: "dns", value: nodeId }], false)],
    signingAlgorithm: signer.algorithm,
    keys: { privateKey: signer.key, publicKey },
  });
  return new Uint8Array(request.rawData);
}

export function requestToPem(der: Uint8Array): string {
  return `${x509.PemConverter.encode(der, "CERTIFICATE REQUEST")}\n`;
}

/** @throws InvalidInput `bad-request-file` */
export function requestFromPem(pem: string): Uint8Array {
  try {
    return new Uint8Array(x509.PemConverter.decodeFirst(pem));
  } catch {
    throw new InvalidInput("bad-request-file", "the file holds no certificate request in PEM form");
  }
}

/**
 * Verifies a request. Total.
 * @param der PKCS#10
 * @returns the requested id and the key; or why the request cannot be granted to anybody
 */
export function verifyCertificateRequest(
  der: Uint8Array,
):
  | { readonly ok: true; readonly request: CertificateRequest }
  | { readonly ok: false; readonly reason: RequestRefusal } {
  if (der.length > MAX_REQUEST_BYTES) return { ok: false, reason: "oversized" };
  if (!isOneSequence(der)) return { ok: false, reason: "malformed" };
  try {
    return readRequest(new Uint8Array(der));
  } catch {
    return { ok: false, reason: "malformed" };
  }
}

function readRequest(der: Uint8Array<ArrayBuffer>): ReturnType<typeof verifyCertificateRequest> {
  const parsed = new x509.Pkcs10CertificateRequest(der);
  const publicKey = new Uint8Array(parsed.publicKey.rawData);
  const key = createPublicKey({ key: Buffer.from(publicKey), format: "der", type: "spki" });
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (curve !== "prime256v1" && curve !== "secp384r1") return { ok: false, reason: "unacceptable-key" };
  const parts = splitSigned(der);
  if (parts?.keyType !== "ec") return { ok: false, reason: "malformed" };
  if (!verify(parts.digest, parts.signed, key, parts.signature)) return { ok: false, reason: "bad-signature" };

  const commonNames = parsed.subjectName.getField(COMMON_NAME);
  const [nodeId] = commonNames;
  const names = parsed.getExtensions(SUBJECT_ALTERNATIVE_NAME).flatMap((extension) => {
    // An extension that the library does not read as names counts as a name that never matches.
    if (!(extension instanceof x509.SubjectAlternativeNameExtension)) return [undefined];
    return extension.names.items.map(({ type, value }) => (type === "dns" ? value : undefined));
  });
  if (nodeId === undefined || commonNames.length !== 1 || !isNodeId(nodeId) || names.some((name) => name !== nodeId)) {
    return { ok: false, reason: "bad-node-id" };
  }
  return { ok: true, request: { nodeId, publicKey } };
}
