import { createHash } from "node:crypto";
import type { Violation } from "../consensus/byzantine-detector.js";
import type { Clock } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import type { AuditDatabase } from "./audit-database.js";
import type { VotingOutcome } from "./audit-schema.js";
import { canonicalJson } from "./canonical-json.js";
import { withRetries } from "./database-call.js";

const MAX_PAGE = 1_000;
/** Two pieces of evidence of 256 KiB each, as hex, and what is around them. */
const MAX_EVIDENCE_CHARACTERS = 2 * 1024 * 1024;

export interface RecordedViolation {
  readonly violation: Violation;
  /** Protocol session or proposal it happened in; empty when it is about none. */
  readonly sessionId: string;
  /** Whether the node was banned for it. */
  readonly banned: boolean;
}

export interface ViolationRow {
  readonly nodeId: string;
  readonly kind: string;
  readonly sessionId: string;
  /** As recorded: `{detail, proven, evidence: [hex, …]}`. */
  readonly evidence: unknown;
  readonly banned: boolean;
  readonly detectedAtMs: number;
}

export interface PresignatureUse {
  readonly presignatureId: string;
  readonly walletId: string;
  readonly walletEpoch: number;
  readonly requestId: string;
  /** Empty when no transaction came of it. */
  readonly txid: string;
  readonly signers: readonly string[];
  readonly outcome: "used" | "failed";
  readonly usedAtMs: number;
}

export interface VotingRoundRow {
  readonly requestId: string;
  readonly walletId: string;
  readonly txid: string;
  readonly proposalDigest: Uint8Array;
  readonly threshold: number;
  /** As recorded: `[{voter, verdict, reasons, signature, …}, …]`. */
  readonly votes: unknown;
  readonly outcome: VotingOutcome;
  readonly startedAtMs: number;
  readonly endedAtMs: number | undefined;
}

/**
 * Violations, presignature usage and voting rounds as rows that can be queried. They repeat what the hash chain says,
 * for people; what must be proven is in the trail. Recording the same thing twice is recording it once.
 *
 * All calls reject with `Unavailable` "database-unavailable" after a few attempts.
 */
export class AuditRecords {
  readonly #database: AuditDatabase;
  readonly #clock: Clock;

  constructor(dependencies: { readonly database: AuditDatabase; readonly clock: Clock }) {
    this.#database = dependencies.database;
    this.#clock = dependencies.clock;
  }

  /** @throws InvalidInput "evidence-too-large" */
  async recordViolation({ violation, sessionId, banned }: RecordedViolation): Promise<void> {
    const { kind, nodeId, atMs, detail, proven, evidence } = violation;
    const json = canonicalJson({ detail, proven, evidence });
    if (json.length > MAX_EVIDENCE_CHARACTERS) {
      throw new InvalidInput("evidence-too-large", "the evidence exceeds the limit", { nodeId, size: json.length });
    }
    // Without proof two equal observations are two observations, so time is part of what makes them the same.
    const identity = canonicalJson({ kind, nodeId, sessionId, evidence: json, atMs: proven ? 0 : atMs });
    await withRetries(this.#clock, () =>
      this.#database.kysely
        .insertInto("byzantine_violations")
        .values({
          node_id: nodeId,
          kind,
          session_id: sessionId,
          evidence: json,
          evidence_digest: createHash("sha256").update(identity).digest(),
          banned,
          detected_at: new Date(atMs),
        })
        .onConflict((conflict) => conflict.column("evidence_digest").doNothing())
        .execute(),
    );
  }

  /** Newest first. */
  async violations(query: { readonly nodeId?: string; readonly limit: number }): Promise<readonly ViolationRow[]> {
    const { nodeId, limit } = query;
    checkLimit(limit);
    const rows = await withRetries(this.#clock, () => {
      const page = this.#database.kysely.selectFrom("byzantine_violations").selectAll().orderBy("id", "desc");
      return (nodeId === undefined ? page : page.where("node_id", "=", nodeId)).limit(limit).execute();
    });
    return rows.map((row) => ({
      nodeId: row.node_id,
      kind: row.kind,
      sessionId: row.session_id,
      evidence: row.evidence,
      banned: row.banned,
      detectedAtMs: row.detected_at.getTime(),
    }));
  }

  /** The first record of a presignature stands: a second use would be a catastrophe, not a correction. */
  async recordPresignatureUse(use: PresignatureUse): Promise<void> {
    await withRetries(this.#clock, () =>
      this.#database.kysely
        .insertInto("presignature_usage")
        .values({
          presignature_id: use.presignatureId,
          wallet_id: use.walletId,
          wallet_epoch: use.walletEpoch,
          request_id: use.requestId,
          txid: use.txid === "" ? null : use.txid,
          signers: canonicalJson(use.signers),
          outcome: use.outcome,
          used_at: new Date(use.usedAtMs),
        })
        .onConflict((conflict) => conflict.column("presignature_id").doNothing())
        .execute(),
    );
  }

  /** Oldest first. */
  async presignatureUses(requestId: string): Promise<readonly PresignatureUse[]> {
    const rows = await withRetries(this.#clock, () =>
      this.#database.kysely
        .selectFrom("presignature_usage")
        .selectAll()
        .where("request_id", "=", requestId)
        .orderBy("used_at")
        .limit(MAX_PAGE)
        .execute(),
    );
    return rows.map((row) => ({
      presignatureId: row.presignature_id,
      walletId: row.wallet_id,
      walletEpoch: row.wallet_epoch,
      requestId: row.request_id,
      txid: row.txid ?? "",
      signers: row.signers as readonly string[],
      outcome: row.outcome,
      usedAtMs: row.used_at.getTime(),
    }));
  }

  /** Every proposal of a payment that was voted on, oldest first. `DatabasePaymentStore` writes them. */
  async votingRounds(requestId: string): Promise<readonly VotingRoundRow[]> {
    const rows = await withRetries(this.#clock, () =>
      this.#database.kysely
        .selectFrom("voting_rounds")
        .selectAll()
        .where("request_id", "=", requestId)
        .orderBy("started_at")
        .limit(MAX_PAGE)
        .execute(),
    );
    return rows.map((row) => ({
      requestId: row.request_id,
      walletId: row.wallet_id,
      txid: row.txid ?? "",
      proposalDigest: row.proposal_digest,
      threshold: row.threshold,
      votes: row.votes,
      outcome: row.outcome,
      startedAtMs: row.started_at.getTime(),
      endedAtMs: row.ended_at?.getTime(),
    }));
  }
}

function checkLimit(limit: number): void {
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_PAGE) {
    throw new InvalidInput("page-limit", "a page has 1 to 1000 rows", { limit });
  }
}
