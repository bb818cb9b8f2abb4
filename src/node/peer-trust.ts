import type { Clock } from "../crypto/ambient.js";
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

/**
 * Reads the revocation lists again and again and has live peers judged by them, so that a revoked one is cut off.
 * Returns how to stop.
 */
export function followRevocations(
  trust: TrustFiles,
  options: {
    readonly intervalMs: number;
    readonly clock: Clock;
    readonly log: Logger;
    /** Called after every reading, a failed one too: certificates also expire. */
    readonly reverifyPeers: () => void;
  },
): () => void {
  const { intervalMs, clock, log } = options;
  let stopped = false;
  let cancel = (): void => {};
  const read = async (): Promise<void> => {
    try {
      for (const result of await trust.readRevocations()) {
        if (!result.ok) log.error({ event: "revocation-list-refused", path: result.path, reason: result.reason });
      }
    } catch (error) {
      log.error({ event: "revocation-list-unreadable", err: error });
    }
    if (stopped) return;
    options.reverifyPeers();
    schedule();
  };
  const schedule = (): void => {
    cancel = clock.after(intervalMs, () => void read());
  };
  schedule();
  return () => {
    stopped = true;
    cancel();
  };
}
