import type { Clock } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import { parseCertificatesPem } from "../network/identity/certificate.js";
import { PeerIdentityVerifier, type RefusalReason } from "../network/identity/peer-verifier.js";
import { RevocationLists, revocationListFromPem } from "../network/identity/revocation-lists.js";
import type { Roster } from "../network/identity/roster.js";
import type { PeerVerifier } from "../network/peer-verifier.js";
import type { Logger } from "./log.js";

/** Whom a node or coordinator lets in: the authorities, who stands in the roster, what is revoked. All PEM. */
export interface TrustFiles {
  readonly rootPem: string;
  readonly intermediatePem: string;
  readonly revocationListPem: string;
}

/** The one certificate verifier, set up for a mesh. @throws InvalidInput when a file cannot be used */
export function peerTrust(
  files: TrustFiles,
  parts: {
    readonly roster: Roster;
    readonly clock: Clock;
    readonly log: Logger;
    readonly count?: (outcome: "accepted" | RefusalReason) => void;
  },
): PeerVerifier {
  const { roster, clock, log } = parts;
  const roots = parseCertificatesPem(files.rootPem);
  const intermediates = parseCertificatesPem(files.intermediatePem);
  const revocations = new RevocationLists({ authorities: [...roots, ...intermediates] });
  const accepted = revocations.accept(revocationListFromPem(files.revocationListPem), clock.nowMs());
  if (!accepted.ok) {
    throw new InvalidInput("revocation-list", `the revocation list cannot be used: ${accepted.reason}`, {
      reason: accepted.reason,
    });
  }
  const verifier = new PeerIdentityVerifier(
    { roots: roots.map(({ der }) => der), intermediates: intermediates.map(({ der }) => der), roster, revocations },
    { clock, ...(parts.count === undefined ? {} : { count: parts.count }) },
  );
  return (chain, expectedNodeId) => {
    const verdict = verifier.verify(chain, expectedNodeId);
    if (!verdict.ok)
      log.warn({ event: "peer-refused", reason: verdict.reason, expectedNodeId }, "a peer's certificate was refused");
    else
      for (const warning of verdict.warnings)
        log.warn({ event: warning, peer: verdict.nodeId, notAfterMs: verdict.notAfterMs });
    return verdict;
  };
}
