import type { Certificate } from "./certificate.js";
import { type IssuingContext, issueNodeCertificate, type SigningAuthority } from "./certificate-authority.js";
import { type RequestRefusal, verifyCertificateRequest } from "./certificate-request.js";
import { EXPIRY_WARNING_MS } from "./peer-verifier.js";

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

export type RenewalRefusal = RequestRefusal | "another-node" | "key-reused";

/**
 * Issues the next certificate to a node that is connected under its present one.
 * @param options.authenticated who asks, as verified on this very connection: never what the request says
 * @returns the new leaf; or a refusal, when the request names another node or brings the old key again
 */
export async function issueRenewal(
  options: {
    readonly authenticated: { readonly nodeId: string; readonly publicKey?: Uint8Array };
    readonly requestDer: Uint8Array;
    readonly intermediate: SigningAuthority;
    readonly lifetimeMs?: number;
  },
  context: IssuingContext,
): Promise<
  { readonly ok: true; readonly certificate: Certificate } | { readonly ok: false; readonly reason: RenewalRefusal }
> {
  const verified = verifyCertificateRequest(options.requestDer);
  if (!verified.ok) return verified;
  const { request } = verified;
  const { nodeId, publicKey } = options.authenticated;
  if (request.nodeId !== nodeId) return { ok: false, reason: "another-node" };
  // A renewal that keeps the key would keep a stolen one alive for ever.
  if (publicKey !== undefined && Buffer.compare(publicKey, request.publicKey) === 0) {
    return { ok: false, reason: "key-reused" };
  }
  const certificate = await issueNodeCertificate(
    {
      intermediate: options.intermediate,
      request,
      ...(options.lifetimeMs === undefined ? {} : { lifetimeMs: options.lifetimeMs }),
    },
    context,
  );
  return { ok: true, certificate };
}
