import { fromBinary } from "@bufbuild/protobuf";
import { EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import {
  type DetectorState,
  newDetector,
  type Observation,
  observe,
  type Violation,
} from "../consensus/byzantine-detector.js";
import type { VerifySignature } from "../consensus/signature.js";
import type { Ban, BanStore } from "../consensus/vote-ledger.js";
import type { Clock } from "../crypto/ambient.js";
import type { Logger } from "../node/log.js";
import type { AuditTrail } from "../wallet/audit-trail.js";

/** Evidence up to this size stands in the trail itself; of larger one the digest, and the whole with the ban. */
const INLINE_EVIDENCE_MAX_BYTES = 24_576;

/** Violations as rows that people query; the audit trail has what must be proven. Adapter: the audit database. */
export interface ViolationRecords {
  recordViolation(record: {
    readonly violation: Violation;
    /** Protocol session or proposal that it happened in, hex; empty when it is about none. */
    readonly sessionId: string;
    readonly banned: boolean;
  }): Promise<void>;
}

export interface ByzantineWatchDependencies {
  readonly bans: BanStore;
  readonly audit: AuditTrail;
  readonly violations: ViolationRecords;
  readonly clock: Clock;
  readonly verify: VerifySignature;
  readonly log: Logger;
  /** Digest of evidence, 32 bytes. */
  readonly digest: (bytes: Uint8Array) => Uint8Array;
}

/**
 * The Byzantine detector at work in a coordinator: what it decides goes into the audit trail, and bans into the
 * coordinators' shared store, so that a restart or another leader knows them. A ban here only keeps a node out of votes
 * and signing sets; nodes ban for themselves.
 */
export class ByzantineWatch {
  readonly #parts: ByzantineWatchDependencies;
  #state: DetectorState;
  /** Bans that the store has not taken yet. */
  readonly #unsaved = new Map<string, Ban>();

  constructor(roster: ReadonlyMap<string, Uint8Array>, dependencies: ByzantineWatchDependencies) {
    this.#parts = dependencies;
    this.#state = newDetector(roster);
  }

  get banned(): ReadonlySet<string> {
    return this.#state.banned;
  }

  /** Takes in what this or another coordinator had found; call before leading. @throws Unavailable */
  async load(): Promise<void> {
    await this.#save();
    const known = (await this.#parts.bans.bans()).map(({ nodeId }) => nodeId);
    const banned = new Set([...this.#state.banned, ...known.filter((nodeId) => this.#state.roster.has(nodeId))]);
    this.#state = { ...this.#state, banned };
  }

  observe(observation: Observation): void {
    const { clock, verify, log } = this.#parts;
    const { state, decisions } = observe(this.#state, observation, clock.nowMs(), verify);
    this.#state = state;
    const sessionId = sessionOf(observation);
    const banned = decisions.some(({ type }) => type === "ban");
    for (const decision of decisions) {
      switch (decision.type) {
        case "record":
          this.#record(decision.violation, { sessionId, banned });
          break;
        case "ban": {
          const { nodeId, violation, beyondTolerance } = decision;
          log.error({ event: "node-banned", nodeId, kind: violation.kind, beyondTolerance }, violation.detail);
          this.#unsaved.set(nodeId, banOf(violation));
          void this.#save().catch((error: unknown) => log.error({ err: error, nodeId }, "a ban is not stored yet"));
          break;
        }
        case "note-silence":
          log.debug({ event: "silence", nodeId: decision.nodeId, detail: decision.detail });
          break;
      }
    }
  }

  #record(violation: Violation, context: { readonly sessionId: string; readonly banned: boolean }): void {
    const { nodeId, kind, detail, proven, evidence } = violation;
    const { audit, digest, log, violations } = this.#parts;
    const size = evidence.reduce((sum, { length }) => sum + length, 0);
    const payload = {
      kind,
      detail,
      proven,
      ...context,
      evidence: size <= INLINE_EVIDENCE_MAX_BYTES ? evidence.map(hex) : [],
      evidenceDigests: evidence.map((bytes) => hex(digest(bytes))),
    };
    const failed = (error: unknown): void => log.error({ err: error, nodeId }, "a violation is not recorded");
    audit.append([{ kind: "byzantine-evidence", walletId: "", subject: nodeId, payload }]).catch(failed);
    violations.recordViolation({ violation, ...context }).catch(failed);
  }

  async #save(): Promise<void> {
    for (const [nodeId, ban] of this.#unsaved) {
      await this.#parts.bans.ban(ban);
      this.#unsaved.delete(nodeId);
    }
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** Session of the evidence, or the proposal that was voted on twice. */
function sessionOf(observation: Observation): string {
  switch (observation.type) {
    case "double-vote":
      return hex(observation.first.proposalDigest);
    case "session-evidence":
      return observation.upheld ? hex(fromBinary(EvidenceSchema, observation.evidence).ssid) : "";
    default:
      return "";
  }
}

function banOf({ nodeId, kind, detail, atMs, evidence }: Violation): Ban {
  return { nodeId, kind, detail, bannedAtMs: atMs, evidence };
}
