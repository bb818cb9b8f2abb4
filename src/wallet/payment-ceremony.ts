import { create } from "@bufbuild/protobuf";
import {
  type Ballot,
  type PaymentProposal,
  PaymentProposalSchema,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { assembleCertificate, REPLAY_WINDOW_MS } from "../consensus/approval-certificate.js";
import type { Observation } from "../consensus/byzantine-detector.js";
import type { VerifiedPaymentRequest } from "../consensus/payment-request.js";
import { type PaymentPolicy, wantsOpReturn } from "../consensus/policy.js";
import { approvalsNeeded } from "../consensus/quorum.js";
import type { VerifySignature } from "../consensus/signature.js";
import { type Failure, FINAL_PHASES, recovered, type TransactionEvent } from "../consensus/transaction-state.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { Bug, InvalidInput, PeerFault, PeerSilent, Unavailable } from "../crypto/fault.js";
import type { Account } from "./account.js";
import type { AuditTrail } from "./audit-trail.js";
import type { ChainSource } from "./chain-source.js";
import type { Coordination, Lease } from "./coordination.js";
import { encodeMark } from "./op-return.js";
import { PaymentJournal } from "./payment-journal.js";
import type { PaymentRecord } from "./payment-record.js";
import type { PaymentStore } from "./payment-store.js";
import type { JudgeEvidence, PeerSigning, SigningOrder } from "./peer-signing.js";
import type { PeerVoting } from "./peer-voting.js";
import type { PresignatureSupply, ReservedPresignatures } from "./presignature-pool.js";
import {
  claimedProposalDigest,
  decodeProposedTransaction,
  outpointName,
  type ProposedTransaction,
} from "./proposed-transaction.js";
import { SignerChoice } from "./signer-choice.js";
import { type AttemptFailure, attemptSigning, failureCode } from "./signing-attempt.js";
import type { TipWatch } from "./tip-watch.js";
import { type BuiltTransaction, buildTransaction, type OwnOutput } from "./transaction-builder.js";
import { type FinalTransaction, finalizeTransaction } from "./transaction-finalizer.js";
import type { UtxoIndex } from "./utxo-index.js";
import type { Reservation, UtxoReservations } from "./utxo-reservation.js";
import { rejectionReasons, type VoteAnswer, VoteRound } from "./vote-round.js";

/**
 * One payment from request to confirmation, as the leading coordinator runs it: build, vote, certificate, sign,
 * finalize, broadcast, watch. Every transition is in the store before its effect is visible to anybody, so another
 * coordinator can go on. Nothing that happens here can make a node sign what it did not check itself.
 */

export interface CeremonyOptions {
  /** From start to signature; a payment that is not signed by then is timed out. */
  readonly deadlineMs: number;
  readonly voteTimeoutMs: number;
  /** Life of ballots and certificate; at most the replay window of 60 s. */
  readonly proposalLifetimeMs: number;
  /** One signing session; longer than a session's own round timeout, so that nodes can say who was silent. */
  readonly signTimeoutMs: number;
  readonly signGraceMs: number;
  readonly lockTtlMs: number;
  /** Pause before a broadcast is tried again; grows with every retry. */
  readonly broadcastRetryMs: number;
  /** Blocks within which the payment should confirm. */
  readonly targetBlocks: number;
  readonly longTermFeeRateSatPerKvb: bigint;
}

export const DEFAULT_CEREMONY: CeremonyOptions = {
  deadlineMs: 120_000,
  voteTimeoutMs: 30_000,
  proposalLifetimeMs: 45_000,
  signTimeoutMs: 15_000,
  signGraceMs: 500,
  lockTtlMs: 30_000,
  broadcastRetryMs: 1_000,
  targetBlocks: 3,
  longTermFeeRateSatPerKvb: 10_000n,
};

/** A wallet as the coordinator knows it. */
export interface CeremonyWallet {
  readonly account: Account;
  readonly threshold: number;
  /** Party order; party index is the position plus one. */
  readonly roster: ReadonlyMap<string, Uint8Array>;
  /** Public shares of all parties, serialized; for judging evidence. */
  readonly publicKeyPackage: Uint8Array;
  /** Of its shares; grows with each refresh or reshare. */
  readonly epoch: number;
}

export interface CeremonyDependencies {
  /** The wallet as it is now: its shares may change while a payment runs. */
  readonly wallet: (walletId: string) => Promise<CeremonyWallet>;
  readonly voting: PeerVoting;
  readonly signing: PeerSigning;
  readonly presignatures: PresignatureSupply;
  readonly chain: ChainSource;
  readonly tips: Pick<TipWatch, "moved">;
  readonly audit: AuditTrail;
  readonly coordination: Coordination;
  readonly reservations: UtxoReservations;
  readonly utxos: UtxoIndex;
  readonly store: PaymentStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly verify: VerifySignature;
  /** The policy in force; nodes have their own. */
  readonly policy: () => PaymentPolicy;
  readonly banned: () => ReadonlySet<string>;
  /** Takes a change index out of use. An index that no signed payment used is given back. */
  readonly changeIndices: { take(walletId: string): Promise<number>; giveBack(walletId: string, index: number): void };
  readonly judge: JudgeEvidence;
  /** For the Byzantine detector. */
  readonly observe: (observation: Observation) => void;
  readonly onChange: (record: PaymentRecord) => void;
}

/** A payment ends: thrown inside a ceremony only, and turned into the event. */
class Ending extends Error {
  readonly event: Extract<TransactionEvent, { failure: Failure }>;

  constructor(type: Extract<TransactionEvent, { failure: Failure }>["type"], failure: Failure) {
    super(failure.message);
    this.event = { type, failure };
  }

  get code(): string {
    return this.event.failure.code;
  }
}

const failureOf = (code: string, message: string, culprits: readonly string[] = []): Failure => {
  return { code, message, culprits };
};

/** Attempts to build with coins that nobody else has taken meanwhile. */
const BUILD_ATTEMPTS_MAX = 8;
/** A certificate must live at least this much longer for a signing session to begin under it. */
const CERTIFICATE_MARGIN_MS = 5_000;
/** Pause before the second try while nodes switch to new shares; doubles with each further one. */
const SWITCH_PAUSE_MS = 300;
/** Answers that do not know the transaction before it counts as dropped. */
const UNKNOWN_ANSWERS_MAX = 3;

export class PaymentCeremony {
  readonly #options: CeremonyOptions;
  readonly #parts: CeremonyDependencies;
  #wallet: CeremonyWallet;
  readonly #request: VerifiedPaymentRequest;
  readonly #signers = new SignerChoice();
  /** Aborted when this process must let go of the payment: shut down, or no longer the holder of its lock. */
  readonly #stop = new AbortController();
  /** Aborted when the payment may no longer be signed; includes `#stop`. */
  readonly #deadline = new AbortController();
  readonly #journal: PaymentJournal;
  #round: VoteRound | undefined;
  #reservation: Reservation | undefined;
  #changeIndex: number | undefined;
  #decoded: { readonly psbt: Uint8Array; readonly proposed: ProposedTransaction } | undefined;
  #locks: Lease[] = [];

  constructor(
    payment: {
      readonly record: PaymentRecord;
      /** The record's request, verified when it came in. Nodes verify it again and refuse an expired one. */
      readonly request: VerifiedPaymentRequest;
      readonly wallet: CeremonyWallet;
    },
    options: CeremonyOptions,
    dependencies: CeremonyDependencies,
  ) {
    this.#request = payment.request;
    this.#wallet = payment.wallet;
    this.#options = options;
    this.#parts = dependencies;
    const { metadataJson } = payment.request;
    const record = { ...payment.record, state: recovered(payment.record.state) };
    this.#journal = new PaymentJournal({ record, metadataJson }, dependencies);
  }

  get record(): PaymentRecord {
    return this.#journal.record;
  }

  /**
   * Runs until a final phase, or until `signal` is aborted (then the record stays for whoever resumes it).
   * Never rejects for a payment that fails: the record says why. Rejects with `Unavailable` when the store does not
   * take the record, and with "payment-runs-elsewhere" when another coordinator has it.
   */
  async run(signal: AbortSignal): Promise<PaymentRecord> {
    const { clock } = this.#parts;
    const started = this.#journal.moment();
    const stop = (): void => this.#stop.abort(signal.reason);
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    this.#stop.signal.addEventListener("abort", () => this.#deadline.abort(this.#stop.signal.reason));
    const cancel = clock.after(this.#options.deadlineMs, () => this.#deadline.abort(new Error("deadline")));
    try {
      await this.#lock(`/locks/payments/${this.record.paymentId}`);
      await this.#toSignature().catch((error: unknown) => this.#end(error));
      cancel();
      await this.#toChain();
      this.#journal.note("total", "", started, this.record.state.phase);
    } finally {
      cancel();
      signal.removeEventListener("abort", stop);
      await this.#cleanUp();
    }
    return this.record;
  }

  // ── From request to signature, under the deadline ──────────────────────────────────────────────────────────────

  async #toSignature(): Promise<void> {
    let build: BuiltTransaction | undefined;
    if (this.record.state.phase === "created" && this.record.state.psbt.length === 0) {
      build = await this.#journal.timed("build", "", () => this.#build());
    } else if (this.record.state.phase === "created") {
      await this.#reserveAgain();
    }
    while (["created", "approved"].includes(this.record.state.phase)) {
      if (this.#stop.signal.aborted) return;
      this.#checkDeadline();
      await this.#renewWallet();
      if (this.record.state.phase === "created") await this.#vote(build);
      else await this.#sign();
    }
  }

  /** After a refresh or reshare the new parties vote: ballots of nodes that left count no longer. */
  async #renewWallet(): Promise<void> {
    const wallet = await this.#parts.wallet(this.#wallet.account.walletId);
    if (wallet.epoch === this.#wallet.epoch) return;
    this.#wallet = wallet;
    this.#round?.close();
    this.#round = undefined;
    if (this.record.state.phase === "approved") await this.#journal.apply({ type: "certificate-expired" });
  }

  #checkDeadline(): void {
    if (!this.#deadline.signal.aborted) return;
    throw new Ending("deadline-passed", failureOf("deadline-passed", "the payment was not signed in time"));
  }

  #feeRate(marketSatPerKvb: number): bigint {
    const policy = this.#parts.policy();
    let highest = policy.maxFeeRateSatPerKvb;
    if (this.#request.maxFeeRateSatPerKvb < highest) highest = this.#request.maxFeeRateSatPerKvb;
    if (highest < policy.minFeeRateSatPerKvb) {
      throw new InvalidInput("max-fee-rate-below-policy", "the client's highest fee rate is below the policy's lowest");
    }
    const market = BigInt(Math.ceil(marketSatPerKvb));
    const wanted = market < policy.minFeeRateSatPerKvb ? policy.minFeeRateSatPerKvb : market;
    // A market above the client's bound makes the payment slower, not wrong.
    return wanted > highest ? highest : wanted;
  }

  /** Chooses coins that nobody else has, and reserves them. */
  async #build(): Promise<BuiltTransaction> {
    const { chain, changeIndices, policy, random, reservations, utxos } = this.#parts;
    const { account } = this.#wallet;
    const rules = policy();
    const feeRateSatPerKvb = this.#feeRate(await chain.feeRateSatPerKvb(this.#options.targetBlocks));
    const marked = wantsOpReturn(rules.opReturn, this.#request.metadataJson);
    const mark = marked ? encodeMark(this.#request) : undefined;
    this.#changeIndex = await changeIndices.take(account.walletId);
    const takenElsewhere = new Set<string>();
    let fresh = false;
    for (let attempt = 0; attempt < BUILD_ATTEMPTS_MAX; attempt++) {
      this.#checkDeadline();
      const { tipHeight, outputs } = await utxos.snapshot(account, { fresh });
      const coins = outputs.filter(
        (coin) =>
          !reservations.isReserved(coin) &&
          !takenElsewhere.has(outpointName(coin)) &&
          isConfirmed(coin, tipHeight, rules.minConfirmations),
      );
      const built = this.#tryBuild(
        {
          account,
          recipients: this.#request.recipients,
          mark,
          coins,
          feeRateSatPerKvb,
          longTermFeeRateSatPerKvb: this.#options.longTermFeeRateSatPerKvb,
          maxInputs: rules.maxInputs,
          changeIndex: this.#changeIndex,
          tipHeight,
        },
        random,
        fresh,
      );
      if (built === undefined) {
        fresh = true;
        continue;
      }
      const result = await reservations.reserve(this.record.paymentId, built.inputs);
      if ("reservation" in result) {
        this.#reservation = result.reservation;
        if (built.changeSat === 0n) this.#giveChangeBack();
        return built;
      }
      for (const outpoint of result.taken) takenElsewhere.add(outpoint);
    }
    throw new Unavailable("coins-contended", "other payments kept taking the coins");
  }

  /** Undefined when the money may only seem to be missing because the index is old. */
  #tryBuild(
    order: Parameters<typeof buildTransaction>[0],
    random: Random,
    fresh: boolean,
  ): BuiltTransaction | undefined {
    try {
      return buildTransaction(order, random);
    } catch (error) {
      const poor = error instanceof InvalidInput && error.code === "insufficient-funds";
      if (poor && !fresh) return undefined;
      throw error;
    }
  }

  /** After a crash: the coins of the transaction that was proposed. */
  async #reserveAgain(): Promise<void> {
    const proposed = this.#proposedBy(this.record.state.psbt);
    const result = await this.#parts.reservations.reserve(this.record.paymentId, proposed.inputs);
    if ("reservation" in result) this.#reservation = result.reservation;
    else throw new Unavailable("coins-contended", "the coins of this payment are taken");
  }

  async #vote(build: BuiltTransaction | undefined): Promise<void> {
    const { clock, policy, voting, verify } = this.#parts;
    const { account, threshold, roster } = this.#wallet;
    const policyVersion = policy().version;
    const lifetimeMs = Math.min(this.#options.proposalLifetimeMs, REPLAY_WINDOW_MS - CERTIFICATE_MARGIN_MS);
    const expiresAtMs = Math.floor(Math.min(clock.nowMs() + lifetimeMs, this.#request.expiresAtMs));
    const psbt = build?.psbt ?? this.record.state.psbt;
    const proposed = this.#proposedBy(psbt);
    const proposal = create(PaymentProposalSchema, {
      request: this.record.signedRequest,
      psbt,
      policyVersion,
      expiresAtMs: BigInt(expiresAtMs),
    });
    const proposalDigest = claimedProposalDigest(proposed, {
      walletId: account.walletId,
      requestDigest: this.#request.digest,
      policyVersion,
      expiresAtMs: BigInt(expiresAtMs),
    });
    if (this.#locks.length < 2) await this.#lock(`/locks/signing/${proposed.txid}`);
    this.#journal.change({
      proposalDigest,
      policyVersion,
      approvalsNeeded: approvalsNeeded({ parties: roster.size, threshold }),
      ballots: [],
    });
    const feeSat = build?.feeSat ?? this.record.state.feeSat;
    await this.#journal.apply({ type: "proposed", txid: proposed.txid, psbt, feeSat, votesExpireAtMs: expiresAtMs });
    this.#round?.close();
    const round = new VoteRound(
      {
        proposal,
        proposalDigest,
        walletId: account.walletId,
        threshold,
        roster,
        banned: this.#parts.banned(),
        timeoutMs: this.#options.voteTimeoutMs,
      },
      { voting, verify, clock, onAnswer: (answer) => this.#onAnswer(answer) },
    );
    this.#round = round;
    const closeAtDeadline = (): void => round.close();
    this.#deadline.signal.addEventListener("abort", closeAtDeadline);
    const outcome = await this.#journal.timed("vote", "", () => round.run());
    this.#deadline.signal.removeEventListener("abort", closeAtDeadline);
    this.#journal.change({ ballots: round.recorded });
    await this.#concludeVote(outcome, round);
  }

  async #concludeVote(outcome: Awaited<ReturnType<VoteRound["run"]>>, round: VoteRound): Promise<void> {
    // Written with the start of the signing session: whoever takes over votes again, whichever of them it finds.
    if (outcome === "approved") return this.#journal.transit({ type: "approved" });
    this.#checkDeadline();
    const reasons = rejectionReasons(round.recorded);
    if (outcome === "rejected") {
      throw new Ending("rejected", failureOf("rejected", `the nodes reject the payment: ${reasons.join(", ")}`));
    }
    const detail = reasons.length === 0 ? "" : `; rejections: ${reasons.join(", ")}`;
    throw new Ending("votes-missing", failureOf("votes-missing", `too few nodes answered in time${detail}`));
  }

  #onAnswer(answer: VoteAnswer): void {
    const { nodeId, cast, startedAtMs, durationMs } = answer;
    const outcome = cast.type === "refused" ? cast.code : cast.type === "none" ? failureCode(cast.error) : cast.type;
    this.#journal.addStep({ step: "vote", nodeId, startedAtMs, durationMs, outcome });
    if (cast.type === "double-vote") {
      this.#parts.observe({ type: "double-vote", nodeId, first: cast.first, second: cast.second });
    }
    if (cast.type === "refused") {
      const type = cast.code === "forged-ballot" ? "invalid-signature" : "malformed-message";
      this.#parts.observe({ type, nodeId, detail: `ballot refused: ${cast.code}` });
    }
    if (cast.type === "none") this.#parts.observe({ type: "timeout", nodeId, detail: `vote: ${outcome}` });
    if (cast.type === "counted" && answer.ballot !== undefined) {
      const { verdict, reasons } = answer.ballot;
      this.#journal.audit("ballot", nodeId, {
        paymentId: this.record.paymentId,
        verdict,
        reasons,
        durationMs,
      });
      if (this.#round !== undefined) this.#journal.change({ ballots: this.#round.recorded });
    }
    // A late ballot changes the record after the outcome; it is written with the next transition.
    this.#journal.show();
  }

  /** One signing session. Goes back to "approved" for the next try, or to "created" for a new vote. */
  async #sign(): Promise<void> {
    const { clock } = this.#parts;
    const round = this.#round;
    const remainingMs = this.record.state.votesExpireAtMs - clock.nowMs();
    if (round === undefined || remainingMs < CERTIFICATE_MARGIN_MS) {
      if (this.#request.expiresAtMs - clock.nowMs() < CERTIFICATE_MARGIN_MS) {
        throw new Ending("deadline-passed", failureOf("request-expired", "the request expired before it was signed"));
      }
      return this.#journal.apply({ type: "certificate-expired" });
    }
    if (this.#trusted(round).length < this.record.approvalsNeeded) return this.#voteWithoutBanned();
    if (this.#signers.choose(this.#willing(round), this.#wallet.threshold) === undefined) {
      const culprits = this.#signers.culprits;
      throw new Ending("abandoned", failureOf("too-few-signers", "too few approvers can still sign", culprits));
    }
    // Nodes sign the same transaction under this certificate however often they are asked, so the session need not wait
    // for the record that it began. What it signs waits: it is written after this, and before it is broadcast.
    const started = this.#journal.apply({ type: "signing-started" });
    started.catch(() => undefined);
    const supply = await this.#supply(round, remainingMs).catch((error: unknown) => this.#blameSupply(error));
    if (typeof supply === "string") {
      await started;
      this.#checkDeadline();
      const failure = failureOf("presignatures-missing", `no presignatures (${supply})`, this.#signers.culprits);
      return this.#journal.apply({ type: "attempt-failed", failure });
    }
    const parties = [...this.#wallet.roster.keys()];
    const signers = supply.signers.map((index) => parties[index - 1] ?? "");
    // After the choice: a node that voted meanwhile may be among the signers, and signs only under its own vote.
    const certificate = assembleCertificate(this.#trusted(round), { signers, needed: this.record.approvalsNeeded });
    const order: SigningOrder = {
      sessionId: this.#parts.random.bytes(16),
      proposal: this.#proposal(),
      certificate,
      signers: supply.signers,
      presignatureIds: supply.ids,
      walletEpoch: this.#wallet.epoch,
    };
    this.#journal.auditCertificate(certificate, signers);
    const result = await this.#journal.timed("sign", "", () => this.#attempt(order, signers));
    await started;
    this.#parts.presignatures.settle(supply, result.signed ? "used" : "failed");
    if (result.signed) return this.#journal.apply({ type: "signed", signedTransaction: result.output.bytes });
    this.#blame(result.failures, order);
    this.#checkDeadline();
    const named = result.failures.map(({ nodeId, error }) => `${nodeId}: ${failureCode(error)}`).join(", ");
    const failure = failureOf("signing-failed", `signing failed (${named})`, this.#signers.culprits);
    await this.#journal.apply({ type: "attempt-failed", failure });
    // The nodes are switching to new shares: the next try comes when they have.
    const switching = result.failures.some(({ error }) => failureCode(error) === "wallet-epoch-differs");
    if (switching) await this.#sleep(SWITCH_PAUSE_MS * 2 ** (this.record.state.signingRetries - 1));
  }

  /** Approvers that may sign, fastest first: ballots were recorded as they came. */
  #willing(round: VoteRound): readonly string[] {
    const approvers = round.recorded.map(({ ballot }) => ballot.voter);
    const trusted = this.#trusted(round);
    return this.#signers.inOrder(approvers.filter((nodeId) => trusted.some(({ voter }) => voter === nodeId)));
  }

  /** Who signs, and with which presignatures or nonces. */
  async #supply(round: VoteRound, remainingMs: number): Promise<ReservedPresignatures> {
    const { account, threshold, roster } = this.#wallet;
    const { walletId, scheme } = account;
    const parties = [...roster.keys()];
    const proposed = this.#proposedBy(this.record.state.psbt);
    const wallet = { walletId, scheme, threshold, parties };
    const order = { wallet, count: proposed.inputs.length, willing: () => this.#willing(round) };
    const expired = new AbortController();
    const late = new Unavailable("presignatures-missing", "no presignatures before the certificate expires");
    const cancel = this.#parts.clock.after(remainingMs - CERTIFICATE_MARGIN_MS, () => expired.abort(late));
    const signal = AbortSignal.any([this.#deadline.signal, expired.signal]);
    try {
      return await this.#journal.timed("presignatures", "", () => this.#parts.presignatures.reserve(order, signal));
    } finally {
      cancel();
    }
  }

  /** Puts back whom a failed presigning names, so that the next attempt asks others. */
  #blameSupply(error: unknown): string {
    if (error instanceof Bug) throw error;
    const named = error instanceof PeerSilent ? error.silent : error instanceof PeerFault ? error.culprits : [];
    for (const nodeId of named) this.#signers.setBack(nodeId);
    return failureCode(error);
  }

  /** Nodes that saw the proof themselves refuse a certificate in which a culprit votes. */
  #trusted(round: VoteRound): readonly Ballot[] {
    const banned = this.#parts.banned();
    const { culprits } = this.#signers;
    return round.approvals.filter(({ voter }) => !banned.has(voter) && !culprits.includes(voter));
  }

  /** A round that was opened before a ban has too few votes left: ask again, without the banned. */
  #voteWithoutBanned(): Promise<void> {
    const banned = this.#parts.banned();
    const { culprits } = this.#signers;
    if (culprits.every((nodeId) => banned.has(nodeId))) return this.#journal.apply({ type: "certificate-expired" });
    throw new Ending("abandoned", failureOf("too-few-signers", "too few approvers can still sign", culprits));
  }

  /** The own transaction, to be read only; decoded once, because each step of a payment wants it. */
  #proposedBy(psbt: Uint8Array): ProposedTransaction {
    if (this.#decoded?.psbt === psbt) return this.#decoded.proposed;
    const proposed = decodeProposedTransaction(psbt);
    if (proposed === undefined) throw new Bug("own PSBT does not decode");
    this.#decoded = { psbt, proposed };
    return proposed;
  }

  #proposal(): PaymentProposal {
    return create(PaymentProposalSchema, {
      request: this.record.signedRequest,
      psbt: this.record.state.psbt,
      policyVersion: this.record.policyVersion,
      expiresAtMs: BigInt(this.record.state.votesExpireAtMs),
    });
  }

  #attempt(order: SigningOrder, signers: readonly string[]) {
    const { clock, signing } = this.#parts;
    const { signTimeoutMs: timeoutMs, signGraceMs: graceMs } = this.#options;
    return attemptSigning<FinalTransaction>(
      order,
      signers,
      { timeoutMs, graceMs },
      {
        signing,
        clock,
        signal: this.#deadline.signal,
        accept: ({ signatures }) => this.#finalize(signatures),
      },
    );
  }

  #finalize(signatures: readonly Uint8Array[]): FinalTransaction {
    const started = this.#journal.moment();
    const { psbt } = this.record.state;
    const proposed = this.#proposedBy(psbt);
    const keys = proposed.inputs.map(({ claimedDerivation }) => {
      if (claimedDerivation === undefined) throw new Bug("own input without derivation");
      return this.#wallet.account.derive(claimedDerivation.path);
    });
    const final = finalizeTransaction(proposed, signatures, keys);
    this.#journal.note("finalize", "", started, "ok");
    return final;
  }

  /**
   * A culprit is excluded only on evidence that our own judge upholds. Silence, refusals and bare accusations put the
   * named and the accuser back in the choice of the next signers.
   */
  #blame(failures: readonly AttemptFailure[], order: SigningOrder): void {
    for (const { nodeId, error } of failures) {
      this.#journal.addStep({
        step: "sign",
        nodeId,
        startedAtMs: this.#parts.clock.nowMs(),
        durationMs: 0,
        outcome: failureCode(error),
      });
      this.#signers.setBack(nodeId);
      if (error instanceof PeerSilent) {
        for (const silent of error.silent) {
          if (silent !== nodeId) this.#signers.setBack(silent);
          this.#parts.observe({ type: "timeout", nodeId: silent, detail: `signing: ${error.code}` });
        }
      } else if (error instanceof PeerFault) {
        const { evidence: shown, exhibits } = error;
        const proven = this.#parts.judge({ reporter: nodeId, order, wallet: this.#wallet, evidence: shown, exhibits });
        for (const { nodeId: culprit, check, evidence } of proven) {
          this.#signers.exclude(culprit);
          this.#parts.observe({ type: "session-evidence", nodeId: culprit, check, evidence, upheld: true });
        }
        for (const accused of error.culprits) this.#signers.setBack(accused);
      }
      this.#journal.audit("signing-failed", nodeId, {
        paymentId: this.record.paymentId,
        code: failureCode(error),
      });
    }
  }

  // ── From signature to confirmation: no deadline, a signed transaction is not called back ────────────────────────

  async #toChain(): Promise<void> {
    while (!this.#stop.signal.aborted && ["signed", "broadcast"].includes(this.record.state.phase)) {
      if (this.record.state.phase === "signed") await this.#broadcast();
      else await this.#confirm();
    }
  }

  async #broadcast(): Promise<void> {
    const { broadcastRetries } = this.record.state;
    if (broadcastRetries > 0) await this.#sleep(this.#options.broadcastRetryMs * 2 ** (broadcastRetries - 1));
    if (this.#stop.signal.aborted) return;
    // Written with what comes of it: whoever takes over broadcasts a signed payment again, which is harmless.
    this.#journal.transit({ type: "broadcast-started" });
    try {
      const { signedTransaction, txid } = this.record.state;
      const accepted = await this.#journal.timed("broadcast", "", () => this.#parts.chain.broadcast(signedTransaction));
      if (accepted !== txid) throw new Bug("the chain source names another transaction", { accepted, txid });
    } catch (error) {
      const message = error instanceof Error ? error.message : "unknown";
      return this.#journal.apply({
        type: "not-accepted",
        failure: failureOf(
          failureCode(error),
          `signed, but not accepted by the chain source, and valid until one of its inputs is spent: ${message}`,
        ),
      });
    }
    const { inputs } = this.#proposedBy(this.record.state.psbt);
    this.#parts.utxos.markSpent(this.#wallet.account.walletId, inputs.map(outpointName));
    this.#changeIndex = undefined;
    await this.#journal.apply({ type: "accepted" });
    this.#notify();
  }

  async #confirm(): Promise<void> {
    const { chain } = this.#parts;
    const started = this.#journal.moment();
    // The coins are spent on the chain source's books by now; holding their locks would serve nobody.
    await this.#release();
    for (let unknown = 0; unknown < UNKNOWN_ANSWERS_MAX; ) {
      await this.#parts.tips.moved(this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      const status = await chain.transactionStatus(this.record.state.txid).catch(() => undefined);
      if (status === undefined) continue;
      unknown = status.known ? 0 : unknown + 1;
      if (status.confirmedHeight === 0) continue;
      this.#journal.note("confirm", "", started, "ok");
      await this.#journal.apply({ type: "confirmed", height: status.confirmedHeight });
      return this.#notify();
    }
    await this.#journal.apply({ type: "dropped" });
  }

  #notify(): void {
    const { paymentId: requestId, state } = this.record;
    const outcome = { requestId, txid: state.txid, confirmedHeight: state.confirmedHeight };
    for (const nodeId of this.#wallet.roster.keys()) {
      this.#parts.voting.notify(nodeId, outcome, this.#stop.signal).catch(() => undefined);
    }
  }

  #sleep(delayMs: number): Promise<void> {
    const { signal } = this.#stop;
    return new Promise((resolve) => {
      const done = (): void => {
        cancel();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const cancel = this.#parts.clock.after(delayMs, done);
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }

  // ── How it ends ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** Turns what stopped the payment into its last event. Our own bugs and a lost store are not the payment's fault. */
  async #end(error: unknown): Promise<void> {
    if (this.#stop.signal.aborted || FINAL_PHASES.has(this.record.state.phase)) return;
    if (error instanceof Ending) return this.#journal.apply(error.event);
    if (error instanceof InvalidInput) {
      return this.#journal.apply({ type: "abandoned", failure: failureOf(error.code, error.message) });
    }
    if (this.#deadline.signal.aborted) {
      const failure = failureOf("deadline-passed", "the payment was not signed in time");
      return this.#journal.apply({ type: "deadline-passed", failure });
    }
    if (error instanceof Unavailable && error.code !== "not-leading") {
      return this.#journal.apply({ type: "abandoned", failure: failureOf(error.code, error.message) });
    }
    throw error;
  }

  async #lock(name: string): Promise<void> {
    const lease = await this.#parts.coordination.tryLock(name, this.#options.lockTtlMs);
    if (lease === undefined) throw new Unavailable("payment-runs-elsewhere", "another coordinator runs this payment");
    this.#locks.push(lease);
    const lost = (): void => this.#stop.abort(new Unavailable("lock-lost", "the lock on this payment was lost"));
    lease.lost.addEventListener("abort", lost);
    if (lease.lost.aborted) lost();
  }

  #giveChangeBack(): void {
    if (this.#changeIndex === undefined) return;
    this.#parts.changeIndices.giveBack(this.#wallet.account.walletId, this.#changeIndex);
    this.#changeIndex = undefined;
  }

  async #release(): Promise<void> {
    await this.#reservation?.release().catch(() => undefined);
    this.#reservation = undefined;
  }

  async #cleanUp(): Promise<void> {
    this.#round?.close();
    const { phase, signedTransaction } = this.record.state;
    if (FINAL_PHASES.has(phase) && signedTransaction.length === 0) this.#giveChangeBack();
    await this.#release();
    // Without the lock the record is no longer ours to write.
    if (!this.#stop.signal.aborted && this.#locks.length > 0) await this.#journal.write().catch(() => undefined);
    await Promise.allSettled(this.#locks.map((lease) => lease.release()));
    this.#locks = [];
    this.#journal.show();
  }
}

function isConfirmed(coin: OwnOutput, tipHeight: number, confirmations: number): boolean {
  if (confirmations === 0) return true;
  return coin.confirmedHeight > 0 && tipHeight - coin.confirmedHeight + 1 >= confirmations;
}
