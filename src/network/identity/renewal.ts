import { createHash } from "node:crypto";
import type { Certificate } from "./certificate.js";
import { type CertificateRequest, type RequestRefusal, verifyCertificateRequest } from "./certificate-request.js";
import { EXPIRY_WARNING_MS, nodeIdOf } from "./peer-verifier.js";

type Lifetime = Pick<Certificate, "notBeforeMs" | "notAfterMs">;

/**
 * When a certificate should be renewed: after two thirds of its life. The last third (30 of 90 days) is the overlap, in
 * which the old and the new certificate are both good: connections move over one by one and renewals may fail for
 * weeks before anybody is shut out.
 */
export function renewAtMs({ notBeforeMs, notAfterMs }: Lifetime): number {
  return notBeforeMs + Math.floor(((notAfterMs - notBeforeMs) * 2) / 3);
}

/** "due": renew now; "urgent": renewals have been failing, alert a person; "expired": only a person can help. */
export type RenewalState = "fresh" | "due" | "urgent" | "expired";

export function renewalState(certificate: Lifetime, nowMs: number): RenewalState {
  if (nowMs > certificate.notAfterMs) return "expired";
  if (nowMs < renewAtMs(certificate)) return "fresh";
  return certificate.notAfterMs - nowMs < EXPIRY_WARNING_MS ? "urgent" : "due";
}

export type RenewalRefusal = RequestRefusal | "another-node" | "key-reused" | "certificate-revoked";

/**
 * Whether a request may be granted as the renewal of a certificate: it names the same node and brings a new key. A
 * renewal that kept the key would keep a stolen one alive for ever.
 * @param options.present the certificate under which the asker is connected: never what the request says
 * @param options.hasCertified tells whether a key (SHA-256 of its SubjectPublicKeyInfo, hex) had a certificate before
 */
export function judgeRenewal(options: {
  readonly present: Certificate;
  readonly nodeId: string;
  readonly requestDer: Uint8Array;
  readonly hasCertified: (keyDigest: string) => boolean;
}):
  | { readonly ok: true; readonly request: CertificateRequest }
  | { readonly ok: false; readonly reason: RenewalRefusal } {
  const { present, nodeId, requestDer, hasCertified } = options;
  const verified = verifyCertificateRequest(requestDer);
  if (!verified.ok) return verified;
  const { request } = verified;
  if (request.nodeId !== nodeId || nodeIdOf(present) !== nodeId) return { ok: false, reason: "another-node" };
  const presentKey = present.native.publicKey.export({ type: "spki", format: "der" });
  if (Buffer.compare(presentKey, request.publicKey) === 0 || hasCertified(keyDigestOf(request.publicKey))) {
    return { ok: false, reason: "key-reused" };
  }
  return { ok: true, request };
}

/** SHA-256 of a SubjectPublicKeyInfo, hex: how the register tells keys apart. */
export function keyDigestOf(publicKey: Uint8Array): string {
  return createHash("sha256").update(publicKey).digest("hex");
}
