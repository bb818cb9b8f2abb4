import type { TrustFiles } from "../network/identity/trust-files.js";
import type { PeerVerifier } from "../network/peer-verifier.js";
import type { Logger } from "./log.js";

/** The certificate verifier as the mesh asks it. Refusals are logged each time, a peer's warning once. */
export function peerVerifier(trust: TrustFiles, log: Logger): PeerVerifier {
  const warned = new Set<string>();
  return (chain, expectedNodeId) => {
    const verdict = trust.verifier.verify(chain, expectedNodeId);
    if (!verdict.ok) {
      log.warn({ event: "peer-refused", reason: verdict.reason, expectedNodeId }, "a peer's certificate is refused");
      return verdict;
    }
    const { nodeId, notAfterMs, warnings } = verdict;
    for (const warning of warnings) {
      const once = `${nodeId}/${warning}/${notAfterMs}`;
      if (!warned.has(once)) log.warn({ event: warning, peer: nodeId, notAfterMs });
      warned.add(once);
    }
    return verdict;
  };
}
