import { create } from "@bufbuild/protobuf";
import { type Ballot, BallotSchema, Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { digest } from "./digest.js";
import { SIGNATURE_BYTES, type SignMessage, type VerifySignature } from "./signature.js";

/** A ballot is one node's signed answer to one proposal. */

export const REASONS_MAX = 32;
export const REASON_MAX_LENGTH = 64;
export const VOTER_MAX_LENGTH = 64;
export const DIGEST_BYTES = 32;

export interface BallotContent {
  readonly walletId: string;
  readonly proposalDigest: Uint8Array;
  readonly policyVersion: bigint;
  readonly expiresAtMs: bigint;
  readonly verdict: Verdict.APPROVE | Verdict.REJECT;
  /** Empty for an approval; cut to the bounds above. */
  readonly reasons: readonly string[];
  readonly voter: string;
}

/** What a voter signs: every field but the signature, 32 bytes. */
export function ballotDigest(ballot: Omit<Ballot, "signature" | "$typeName" | "$unknown">): Uint8Array {
  return digest("mpc-wallet/ballot/v1", [
    { text: ballot.walletId },
    { bytes: ballot.proposalDigest },
    { uint: ballot.policyVersion },
    { uint: ballot.expiresAtMs },
    { uint: ballot.verdict },
    { list: ballot.reasons.map((text) => ({ text })) },
    { text: ballot.voter },
  ]);
}

export function signBallot(content: BallotContent, sign: SignMessage): Ballot {
  const reasons = content.reasons.slice(0, REASONS_MAX).map((reason) => reason.slice(0, REASON_MAX_LENGTH));
  const ballot = create(BallotSchema, { ...content, reasons });
  ballot.signature = sign(ballotDigest(ballot));
  return ballot;
}

/** Lengths and enums are as they must be; says nothing about the signature. Total. */
export function isWellFormed(ballot: Ballot): boolean {
  return (
    ballot.$unknown === undefined &&
    ballot.proposalDigest.length === DIGEST_BYTES &&
    ballot.signature.length === SIGNATURE_BYTES &&
    ballot.voter.length > 0 &&
    ballot.voter.length <= VOTER_MAX_LENGTH &&
    ballot.walletId.length <= VOTER_MAX_LENGTH &&
    (ballot.verdict === Verdict.APPROVE || ballot.verdict === Verdict.REJECT) &&
    ballot.reasons.length <= REASONS_MAX &&
    ballot.reasons.every((reason) => reason.length <= REASON_MAX_LENGTH)
  );
}

/** True when the holder of `publicKey` cast exactly this ballot. Total. */
export function verifyBallot(ballot: Ballot, publicKey: Uint8Array, verify: VerifySignature): boolean {
  return isWellFormed(ballot) && verify(publicKey, ballotDigest(ballot), ballot.signature);
}
