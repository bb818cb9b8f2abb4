import { toBinary } from "@bufbuild/protobuf";
import { type Ballot, BallotSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { verifyBallot } from "./ballot.js";
import { toleratedFaults } from "./quorum.js";
import type { VerifySignature } from "./signature.js";

/**
 * Who broke the rules, and what follows. Pure: observations in, a new state and decisions out.
 *
 * A ban needs proof that a third party can check: two opposite ballots under one key, or evidence of a protocol
 * session that the judge upheld. A bad signature or bytes that do not decode prove nothing to others (whoever carries
 * a message can damage it), so they are recorded and reported. Silence is no fault at all.
 */

export type ViolationKind =
  | "double-vote"
  | "equivocation"
  | "protocol-fault"
  | "invalid-signature"
  | "malformed-message";

export type Observation =
  | { readonly type: "double-vote"; readonly nodeId: string; readonly first: Ballot; readonly second: Ballot }
  /**
   * Evidence of a protocol session. `upheld` is what `judge` of the session layer said about it; the check is its
   * name there, for example "equivocation".
   */
  | {
      readonly type: "session-evidence";
      readonly nodeId: string;
      readonly check: string;
      readonly evidence: Uint8Array;
      readonly upheld: boolean;
    }
  | { readonly type: "invalid-signature"; readonly nodeId: string; readonly detail: string }
  | { readonly type: "malformed-message"; readonly nodeId: string; readonly detail: string }
  | { readonly type: "timeout"; readonly nodeId: string; readonly detail: string };

export interface Violation {
  readonly kind: ViolationKind;
  readonly nodeId: string;
  readonly atMs: number;
  readonly detail: string;
  /** Proof that a third party can check; empty when there is none. */
  readonly evidence: readonly Uint8Array[];
  readonly proven: boolean;
}

export type Decision =
  /** Write it into the audit trail. */
  | { readonly type: "record"; readonly violation: Violation }
  /** Ban the node; `beyondTolerance` when more than f nodes are now banned: people must look. */
  | { readonly type: "ban"; readonly nodeId: string; readonly violation: Violation; readonly beyondTolerance: boolean }
  /** Count it for the metrics; nothing else. */
  | { readonly type: "note-silence"; readonly nodeId: string; readonly detail: string };

export interface DetectorState {
  /** Node id and Ed25519 identity key; only its members can be accused. */
  readonly roster: ReadonlyMap<string, Uint8Array>;
  readonly banned: ReadonlySet<string>;
  /** Newest last, at most `VIOLATIONS_MAX` a node; the audit trail has all of them. */
  readonly violations: ReadonlyMap<string, readonly Violation[]>;
  /** Silences since the start, for people; never a reason for anything. */
  readonly silences: ReadonlyMap<string, number>;
}

export const VIOLATIONS_MAX = 32;
export const EVIDENCE_MAX_BYTES = 262_144;
export const DETAIL_MAX_LENGTH = 200;

export function newDetector(
  roster: ReadonlyMap<string, Uint8Array>,
  banned: ReadonlySet<string> = new Set(),
): DetectorState {
  return { roster, banned, violations: new Map(), silences: new Map() };
}

/** True when the two ballots prove that the holder of the key gave two answers to one proposal. Anyone can check it. */
export function provesDoubleVote(
  pair: { readonly first: Ballot; readonly second: Ballot },
  publicKey: Uint8Array,
  verify: VerifySignature,
): boolean {
  const { first, second } = pair;
  return (
    first.voter === second.voter &&
    first.walletId === second.walletId &&
    equalBytes(first.proposalDigest, second.proposalDigest) &&
    first.verdict !== second.verdict &&
    verifyBallot(first, publicKey, verify) &&
    verifyBallot(second, publicKey, verify)
  );
}

function violationOf(
  state: DetectorState,
  observation: Exclude<Observation, { type: "timeout" }>,
  nowMs: number,
  verify: VerifySignature,
): Violation | undefined {
  const { nodeId } = observation;
  const key = state.roster.get(nodeId);
  if (key === undefined) return undefined;
  const unproven = { nodeId, atMs: nowMs, evidence: [], proven: false };
  switch (observation.type) {
    case "double-vote": {
      const { first, second } = observation;
      if (first.voter !== nodeId || !provesDoubleVote(observation, key, verify)) return undefined;
      const evidence = [toBinary(BallotSchema, first), toBinary(BallotSchema, second)];
      return {
        kind: "double-vote",
        nodeId,
        atMs: nowMs,
        detail: "two verdicts on one proposal",
        evidence,
        proven: true,
      };
    }
    case "session-evidence": {
      const kind = observation.check === "equivocation" ? "equivocation" : "protocol-fault";
      const detail = observation.check.slice(0, DETAIL_MAX_LENGTH);
      const proven = observation.upheld && observation.evidence.length <= EVIDENCE_MAX_BYTES;
      return { ...unproven, kind, detail, evidence: proven ? [observation.evidence] : [], proven };
    }
    case "invalid-signature":
    case "malformed-message":
      return { ...unproven, kind: observation.type, detail: observation.detail.slice(0, DETAIL_MAX_LENGTH) };
  }
}

/** Total. An observation about a stranger, or a double vote that is none, changes nothing. */
export function observe(
  state: DetectorState,
  observation: Observation,
  nowMs: number,
  verify: VerifySignature,
): { readonly state: DetectorState; readonly decisions: readonly Decision[] } {
  const { nodeId } = observation;
  if (observation.type === "timeout") {
    if (!state.roster.has(nodeId)) return { state, decisions: [] };
    const silences = new Map(state.silences).set(nodeId, (state.silences.get(nodeId) ?? 0) + 1);
    const detail = observation.detail.slice(0, DETAIL_MAX_LENGTH);
    return { state: { ...state, silences }, decisions: [{ type: "note-silence", nodeId, detail }] };
  }
  const violation = violationOf(state, observation, nowMs, verify);
  if (violation === undefined) return { state, decisions: [] };
  const recent = [...(state.violations.get(nodeId) ?? []), violation].slice(-VIOLATIONS_MAX);
  const violations = new Map(state.violations).set(nodeId, recent);
  const decisions: Decision[] = [{ type: "record", violation }];
  if (!violation.proven || state.banned.has(nodeId)) return { state: { ...state, violations }, decisions };
  const banned = new Set(state.banned).add(nodeId);
  const beyondTolerance = banned.size > toleratedFaults(state.roster.size);
  decisions.push({ type: "ban", nodeId, violation, beyondTolerance });
  return { state: { ...state, violations, banned }, decisions };
}
