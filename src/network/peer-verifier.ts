/** Whose certificate it is, or why it is refused. `reason` is shown to the peer and to people: no secrets. */
export type PeerVerdict =
  | { readonly ok: true; readonly nodeId: string }
  | { readonly ok: false; readonly reason: string };

/**
 * Decides about the certificate chain of a peer: leaf first, DER. `expectedNodeId` is whom we dialled; undefined on the
 * accepting side. It replaces the native verification, so it checks everything: chain, validity, key usage, node id,
 * revocation. It is total: hostile bytes get a verdict, never an exception.
 */
export type PeerVerifier = (chainDer: readonly Uint8Array[], expectedNodeId: string | undefined) => PeerVerdict;

/** The verifier behind a net: a defect in it refuses the peer instead of ending the process. */
export function verifyPeer(
  verifier: PeerVerifier,
  chainDer: readonly Uint8Array[] | null,
  expectedNodeId: string | undefined,
): PeerVerdict {
  if (chainDer === null || chainDer.length === 0) return { ok: false, reason: "no certificate" };
  try {
    const verdict = verifier(chainDer, expectedNodeId);
    if (!verdict.ok) return verdict;
    if (expectedNodeId !== undefined && verdict.nodeId !== expectedNodeId) {
      return { ok: false, reason: `certificate of ${verdict.nodeId}, expected ${expectedNodeId}` };
    }
    return verdict;
  } catch {
    return { ok: false, reason: "certificate could not be checked" };
  }
}
