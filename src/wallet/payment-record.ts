import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Ballot,
  type SignedPaymentRequest,
  SignedPaymentRequestSchema,
  Verdict,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { PaymentRecordSchema, Phase as StoredPhase } from "../../gen/mpcwallet/consensus/v1/record_pb.js";
import { readPaymentRequest, type VerifiedPaymentRequest } from "../consensus/payment-request.js";
import { createdState, type Phase, type TransactionState } from "../consensus/transaction-state.js";
import { wholeMs } from "../consensus/unix-time.js";
import { Bug } from "../crypto/fault.js";
import type { BallotView, PaymentView, TimelineEntry, VotesView } from "./wallet-application.js";

/** One payment as a coordinator keeps it: enough for another coordinator to go on. */
export interface PaymentRecord {
  /** The request id. */
  readonly paymentId: string;
  readonly walletId: string;
  readonly signedRequest: SignedPaymentRequest;
  readonly createdAtMs: number;
  readonly state: TransactionState;
  /** 32 bytes; empty until proposed. */
  readonly proposalDigest: Uint8Array;
  readonly policyVersion: bigint;
  readonly approvalsNeeded: number;
  /** Of the latest proposal. */
  readonly ballots: readonly RecordedBallot[];
  readonly timeline: readonly TimelineEntry[];
  /** Grows with every write. */
  readonly revision: bigint;
}

export interface RecordedBallot {
  readonly ballot: Ballot;
  readonly receivedAtMs: number;
  readonly durationMs: number;
}

/** Steps kept in a record; retries of a payment are few, so this is never reached in practice. */
export const TIMELINE_MAX = 256;

const STORED_PHASE: Readonly<Record<Phase, StoredPhase>> = {
  created: StoredPhase.CREATED,
  voting: StoredPhase.VOTING,
  approved: StoredPhase.APPROVED,
  signing: StoredPhase.SIGNING,
  signed: StoredPhase.SIGNED,
  broadcasting: StoredPhase.BROADCASTING,
  broadcast: StoredPhase.BROADCAST,
  confirmed: StoredPhase.CONFIRMED,
  rejected: StoredPhase.REJECTED,
  "timed-out": StoredPhase.TIMED_OUT,
  failed: StoredPhase.FAILED,
};
const PHASE_OF = new Map(Object.entries(STORED_PHASE).map(([phase, stored]) => [stored, phase as Phase]));

const toMicroseconds = (durationMs: number): bigint => BigInt(Math.max(0, Math.round(durationMs * 1000)));

export function newPaymentRecord(
  signedRequest: SignedPaymentRequest,
  request: VerifiedPaymentRequest,
  nowMs: number,
): PaymentRecord {
  return {
    paymentId: request.requestId,
    walletId: request.walletId,
    signedRequest,
    createdAtMs: nowMs,
    state: createdState(nowMs),
    proposalDigest: new Uint8Array(0),
    policyVersion: 0n,
    approvalsNeeded: 0,
    ballots: [],
    timeline: [],
    revision: 0n,
  };
}

export function encodePaymentRecord(record: PaymentRecord): Uint8Array {
  const { state } = record;
  const message = create(PaymentRecordSchema, {
    request: record.signedRequest,
    phase: STORED_PHASE[state.phase],
    txid: state.txid,
    psbt: state.psbt,
    feeSat: state.feeSat,
    votesExpireAtMs: wholeMs(state.votesExpireAtMs),
    signedTransaction: state.signedTransaction,
    signingRetries: state.signingRetries,
    broadcastRetries: state.broadcastRetries,
    confirmedHeight: state.confirmedHeight,
    createdAtMs: wholeMs(record.createdAtMs),
    changedAtMs: wholeMs(state.changedAtMs),
    proposalDigest: record.proposalDigest,
    policyVersion: record.policyVersion,
    approvalsNeeded: record.approvalsNeeded,
    ballots: record.ballots.map(({ ballot, receivedAtMs, durationMs }) => ({
      ballot,
      receivedAtMs: wholeMs(receivedAtMs),
      durationUs: toMicroseconds(durationMs),
    })),
    timeline: record.timeline.map(({ step, nodeId, startedAtMs, durationMs, outcome }) => ({
      step,
      nodeId,
      startedAtMs: wholeMs(startedAtMs),
      durationUs: toMicroseconds(durationMs),
      outcome,
    })),
    revision: record.revision,
  });
  if (state.failure !== undefined) {
    const { code, message: text, culprits } = state.failure;
    message.failure = {
      $typeName: "mpcwallet.consensus.v1.PaymentFailure",
      code,
      message: text,
      culprits: [...culprits],
    };
  }
  return toBinary(PaymentRecordSchema, message);
}

/**
 * The record as it was written. The inner request is read without verifying it again: it was verified before the first
 * write, may have expired since, and nodes trust nothing of it.
 */
export function decodePaymentRecord(bytes: Uint8Array): PaymentRecord {
  const message = fromBinary(PaymentRecordSchema, bytes);
  const phase = PHASE_OF.get(message.phase);
  const content = message.request && readPaymentRequest(message.request);
  if (phase === undefined || message.request === undefined || content === undefined) {
    throw new Bug("a stored payment does not decode");
  }
  const { requestId, walletId } = content;
  const { failure } = message;
  return {
    paymentId: requestId,
    walletId,
    signedRequest: message.request,
    createdAtMs: Number(message.createdAtMs),
    state: {
      phase,
      txid: message.txid,
      psbt: message.psbt,
      feeSat: message.feeSat,
      votesExpireAtMs: Number(message.votesExpireAtMs),
      signedTransaction: message.signedTransaction,
      signingRetries: message.signingRetries,
      broadcastRetries: message.broadcastRetries,
      confirmedHeight: message.confirmedHeight,
      failure:
        failure === undefined
          ? undefined
          : { code: failure.code, message: failure.message, culprits: failure.culprits },
      changedAtMs: Number(message.changedAtMs),
    },
    proposalDigest: message.proposalDigest,
    policyVersion: message.policyVersion,
    approvalsNeeded: message.approvalsNeeded,
    ballots: message.ballots.flatMap(({ ballot, receivedAtMs, durationUs }) =>
      ballot === undefined
        ? []
        : [{ ballot, receivedAtMs: Number(receivedAtMs), durationMs: Number(durationUs) / 1000 }],
    ),
    timeline: message.timeline.map(({ step, nodeId, startedAtMs, durationUs, outcome }) => ({
      step,
      nodeId,
      startedAtMs: Number(startedAtMs),
      durationMs: Number(durationUs) / 1000,
      outcome,
    })),
    revision: message.revision,
  };
}

/** True when both are the same request, byte for byte. */
export function sameRequest(a: SignedPaymentRequest, b: SignedPaymentRequest): boolean {
  const bytes = (request: SignedPaymentRequest) => toBinary(SignedPaymentRequestSchema, request);
  return Buffer.compare(bytes(a), bytes(b)) === 0;
}

/** `tipHeight` of the chain as last seen, for the number of confirmations. */
export function paymentView(record: PaymentRecord, tipHeight: number): PaymentView {
  const { state } = record;
  const content = readPaymentRequest(record.signedRequest);
  const { confirmedHeight } = state;
  return {
    paymentId: record.paymentId,
    walletId: record.walletId,
    phase: state.phase,
    recipients: content?.recipients ?? [],
    metadataJson: content?.metadataJson ?? "",
    txid: state.txid,
    feeSat: state.feeSat,
    rawTransaction: state.signedTransaction.length === 0 ? undefined : state.signedTransaction,
    confirmedHeight,
    confirmations: confirmedHeight === 0 ? 0 : Math.max(1, tipHeight - confirmedHeight + 1),
    retries: state.signingRetries,
    failure: state.failure,
    createdAtMs: record.createdAtMs,
    updatedAtMs: state.changedAtMs,
    timeline: record.timeline,
  };
}

function voteOutcome(record: PaymentRecord): VotesView["outcome"] {
  const { phase, failure } = record.state;
  if (phase === "rejected") return "rejected";
  const approvals = record.ballots.filter(({ ballot }) => ballot.verdict === Verdict.APPROVE).length;
  if (record.approvalsNeeded > 0 && approvals >= record.approvalsNeeded) return "approved";
  return phase === "timed-out" || (phase === "failed" && failure !== undefined) ? "timed-out" : "pending";
}

/** One line for every party, whether it answered or not. */
export function votesView(record: PaymentRecord, parties: readonly string[]): VotesView {
  const byVoter = new Map(record.ballots.map((recorded) => [recorded.ballot.voter, recorded]));
  const ballots = parties.map((voter): BallotView => {
    const recorded = byVoter.get(voter);
    if (recorded === undefined) return { voter, verdict: "none", reasons: [], receivedAtMs: 0, durationMs: 0 };
    const { ballot, receivedAtMs, durationMs } = recorded;
    const verdict = ballot.verdict === Verdict.APPROVE ? "approve" : "reject";
    return { voter, verdict, reasons: ballot.reasons, receivedAtMs, durationMs };
  });
  return {
    paymentId: record.paymentId,
    proposalDigest: record.proposalDigest,
    policyVersion: record.policyVersion,
    approvalsNeeded: record.approvalsNeeded,
    outcome: voteOutcome(record),
    ballots,
  };
}
