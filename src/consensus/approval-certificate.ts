import { create } from "@bufbuild/protobuf";
import {
  type ApprovalCertificate,
  ApprovalCertificateSchema,
  type Ballot,
  Verdict,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { isWellFormed, verifyBallot } from "./ballot.js";
import { approvalsNeeded } from "./quorum.js";
import { type Refusal, refusal } from "./refusal.js";
import type { VerifySignature } from "./signature.js";
import { wholeMs } from "./unix-time.js";

/**
 * The approval certificate is why a node signs: enough of the wallet's nodes have each checked this very transaction.
 * It is verified by every signer for itself; whoever carries it is not trusted.
 */

/** A ballot lives at most this long, so an old certificate cannot be played again. */
export const REPLAY_WINDOW_MS = 60_000;

export type CertificateRefusalCode =
  | "too-many-ballots"
  | "malformed-ballot"
  | "unknown-voter"
  | "banned-voter"
  | "duplicate-voter"
  | "not-an-approval"
  | "other-wallet"
  | "other-proposal"
  | "other-policy"
  | "other-expiry"
  | "expired"
  | "expiry-too-far"
  | "forged-ballot"
  | "too-few-ballots"
  | "own-ballot-missing";

/** What the verifying node itself knows. Nothing of it comes from the certificate. */
export interface CertificateExpectation {
  readonly walletId: string;
  /** Computed by the verifying node from the transaction that it checked. */
  readonly proposalDigest: Uint8Array;
  readonly policyVersion: bigint;
  readonly expiresAtMs: bigint;
  readonly threshold: number;
  /** All parties of the wallet with their Ed25519 identity keys; its size is n. */
  readonly roster: ReadonlyMap<string, Uint8Array>;
  readonly banned: ReadonlySet<string>;
  readonly nowMs: number;
  /** A signer demands its own ballot; an auditor leaves this out. */
  readonly ownNodeId?: string;
}

export type CertificateVerdict =
  | { readonly valid: true; readonly voters: readonly string[] }
  | { readonly valid: false; readonly refusal: Refusal<CertificateRefusalCode> };

/**
 * Approvals in the order of their voters' names, so that equal ballots make equal certificates: all of them, or the
 * signers' and as many others as are needed. Each signer verifies every ballot that it is shown.
 */
export function assembleCertificate(
  ballots: Iterable<Ballot>,
  enough?: { readonly signers: readonly string[]; readonly needed: number },
): ApprovalCertificate {
  let approvals = [...ballots].filter((ballot) => ballot.verdict === Verdict.APPROVE);
  if (enough !== undefined) {
    const signing = approvals.filter(({ voter }) => enough.signers.includes(voter));
    const others = approvals.filter(({ voter }) => !enough.signers.includes(voter));
    approvals = [...signing, ...others.slice(0, Math.max(0, enough.needed - signing.length))];
  }
  approvals.sort((a, b) => (a.voter < b.voter ? -1 : 1));
  return create(ApprovalCertificateSchema, { ballots: approvals });
}

function checkTime(expected: CertificateExpectation): Refusal<CertificateRefusalCode> | undefined {
  const facts = { expiresAtMs: expected.expiresAtMs, nowMs: expected.nowMs };
  if (expected.expiresAtMs <= wholeMs(expected.nowMs)) {
    return refusal("expired", "the proposal and its ballots have expired", facts);
  }
  if (expected.expiresAtMs > wholeMs(expected.nowMs + REPLAY_WINDOW_MS)) {
    return refusal("expiry-too-far", `ballots live at most ${REPLAY_WINDOW_MS} ms`, facts);
  }
  return undefined;
}

/** Cheap comparisons first; the signature is verified last. */
function checkBallot(
  ballot: Ballot,
  expected: CertificateExpectation,
  verify: VerifySignature,
): Refusal<CertificateRefusalCode> | undefined {
  const facts = { voter: ballot.voter.slice(0, 64) };
  if (!isWellFormed(ballot)) return refusal("malformed-ballot", "a ballot is not well-formed", facts);
  const key = expected.roster.get(ballot.voter);
  if (key === undefined) return refusal("unknown-voter", "the voter is no party of this wallet", facts);
  if (expected.banned.has(ballot.voter)) return refusal("banned-voter", "the voter is banned", facts);
  if (ballot.verdict !== Verdict.APPROVE) return refusal("not-an-approval", "the ballot rejects", facts);
  if (ballot.walletId !== expected.walletId) return refusal("other-wallet", "cast for another wallet", facts);
  if (!equalBytes(ballot.proposalDigest, expected.proposalDigest)) {
    return refusal("other-proposal", "cast for another transaction", facts);
  }
  if (ballot.policyVersion !== expected.policyVersion) {
    return refusal("other-policy", "cast under another version of the policy", facts);
  }
  if (ballot.expiresAtMs !== expected.expiresAtMs) return refusal("other-expiry", "cast with another expiry", facts);
  if (!verifyBallot(ballot, key, verify)) return refusal("forged-ballot", "the voter did not sign this", facts);
  return undefined;
}

/**
 * At least max(t, 2f+1) distinct unbanned parties approved exactly this proposal, the verifier included, and the
 * proposal is still alive. Every ballot in the certificate must hold: one that does not is a reason to refuse, not to
 * skip, because nobody honest puts it there. Total.
 */
export function verifyCertificate(
  certificate: ApprovalCertificate,
  expected: CertificateExpectation,
  verify: VerifySignature,
): CertificateVerdict {
  const refuse = (why: Refusal<CertificateRefusalCode>): CertificateVerdict => ({ valid: false, refusal: why });
  const { ballots } = certificate;
  const parties = expected.roster.size;
  // The bound comes before any signature is verified, so that a large certificate costs nothing; a certificate with
  // more ballots than parties repeats a voter, which is the more telling refusal as long as it is small.
  if (ballots.length > 2 * parties) {
    return refuse(refusal("too-many-ballots", "more ballots than parties", { ballots: ballots.length, parties }));
  }
  const late = checkTime(expected);
  if (late !== undefined) return refuse(late);
  const voters = new Set<string>();
  for (const ballot of ballots) {
    if (voters.has(ballot.voter)) {
      return refuse(refusal("duplicate-voter", "a voter counts once", { voter: ballot.voter.slice(0, 64) }));
    }
    const fault = checkBallot(ballot, expected, verify);
    if (fault !== undefined) return refuse(fault);
    voters.add(ballot.voter);
  }
  const needed = approvalsNeeded({ parties, threshold: expected.threshold });
  if (voters.size < needed) {
    return refuse(refusal("too-few-ballots", `${needed} approvals are needed`, { approvals: voters.size, needed }));
  }
  if (expected.ownNodeId !== undefined && !voters.has(expected.ownNodeId)) {
    return refuse(refusal("own-ballot-missing", "a node signs only what it approved itself"));
  }
  return { valid: true, voters: [...voters] };
}
