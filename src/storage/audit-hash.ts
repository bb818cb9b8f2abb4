import { createHash } from "node:crypto";
import type { AuditEntry } from "../wallet/audit-trail.js";
import { canonicalJson } from "./canonical-json.js";

const DOMAIN = "mpc-wallet/audit/v1\n";

/** Previous hash of the first entry. */
export const GENESIS_HASH: Uint8Array = new Uint8Array(32);

/**
 * The hash that chains an entry, for whoever verifies a trail without this program:
 *
 *   SHA-256( "mpc-wallet/audit/v1\n" ‖ previousHash ‖ canonical JSON of
 *            {kind, payload, sequence as decimal string, subject, timeMs, walletId} )
 *
 * with canonical JSON as in RFC 8785, UTF-8. Read from the database: the columns of the row, `payload` as parsed.
 */
export function auditHash(entry: Omit<AuditEntry, "hash">): Uint8Array {
  const { sequence, timeMs, kind, walletId, subject, payload, previousHash } = entry;
  return createHash("sha256")
    .update(DOMAIN)
    .update(previousHash)
    .update(canonicalJson({ sequence, timeMs, kind, walletId, subject, payload }))
    .digest();
}

/** Whether `entry` is the entry that follows `previous` (undefined: the first one) and is unaltered. */
export function follows(entry: AuditEntry, previous: Pick<AuditEntry, "sequence" | "hash"> | undefined): boolean {
  const { sequence, hash } = previous ?? { sequence: 0n, hash: GENESIS_HASH };
  return (
    entry.sequence === sequence + 1n &&
    Buffer.compare(entry.previousHash, hash) === 0 &&
    Buffer.compare(entry.hash, auditHash(entry)) === 0
  );
}
