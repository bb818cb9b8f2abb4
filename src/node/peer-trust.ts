import type { Clock } from "../crypto/ambient.js";
import type { TrustFiles } from "../network/identity/trust-files.js";
import type { PeerVerifier } from "../network/peer-verifier.js";
import type { Logger } from "./log.js";

/** The certificate verifier as the mesh asks it, with every refusal and warning in the log. */
export function peerVerifier(trust: TrustFiles, log: Logger): PeerVerifier {
  return (chain, expectedNodeId) => {
    const verdict = trust.verifier.verify(chain, expectedNodeId);
    if (!verdict.ok)
      log.warn({ event: "peer-refused", reason: verdict.reason, expectedNodeId }, "a peer's certificate is refused");
    else
      for (const warning of verdict.warnings)
        log.warn({ event: warning, peer: verdict.nodeId, notAfterMs: verdict.notAfterMs });
    return verdict;
  };
}

/** Reads the revocation lists again and again, so that a revoked peer's next handshake fails. Returns how to stop. */
export function followRevocations(
  trust: TrustFiles,
  { intervalMs, clock, log }: { readonly intervalMs: number; readonly clock: Clock; readonly log: Logger },
): () => void {
  let cancel = (): void => {};
  const read = async (): Promise<void> => {
    try {
      for (const result of await trust.readRevocations()) {
        if (!result.ok) log.error({ event: "revocation-list-refused", path: result.path, reason: result.reason });
      }
    } catch (error) {
      log.error({ event: "revocation-list-unreadable", err: error });
    }
    schedule();
  };
  const schedule = (): void => {
    cancel = clock.after(intervalMs, () => void read());
  };
  schedule();
  return () => cancel();
}
