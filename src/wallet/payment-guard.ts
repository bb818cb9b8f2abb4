import { createHash } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import {
  type ApprovalCertificate,
  type Ballot,
  type PaymentProposal,
  PaymentProposalSchema,
  Verdict,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { REPLAY_WINDOW_MS, verifyCertificate } from "../consensus/approval-certificate.js";
import { ballotDigest, signBallot } from "../consensus/ballot.js";
import { type RequestRules, type VerifiedPaymentRequest, verifyPaymentRequest } from "../consensus/payment-request.js";
import type { PaymentPolicy } from "../consensus/policy.js";
import { refused } from "../consensus/refusal.js";
import type { SignMessage, VerifySignature } from "../consensus/signature.js";
import { wholeMs } from "../consensus/unix-time.js";
import { DAY_MS, refuseApproval, type VoteStore, withApproval } from "../consensus/vote-ledger.js";
import type { Clock } from "../crypto/ambient.js";
import { equalBytes } from "../crypto/bytes.js";
import { InvalidInput } from "../crypto/fault.js";
import type { Account } from "./account.js";
import type { ChainSource } from "./chain-source.js";
import { type ChainView, fetchChainView } from "./chain-view.js";
import { type CheckedPayment, type CheckVerdict, checkPayment } from "./payment-check.js";
import { claimedProposalDigest, decodeProposedTransaction, type ProposedTransaction } from "./proposed-transaction.js";

/**
 * The node's side of a payment: it votes on what it checked itself, and it lets a payment be signed only when a
 * certificate with its own vote says so. Everything that a node signs for goes through `authorize`.
 */

/** A wallet as one of its parties knows it. */
export interface GuardedWallet {
  readonly account: Account;
  readonly threshold: number;
  /** All parties in party order with their Ed25519 identity keys. */
  readonly roster: ReadonlyMap<string, Uint8Array>;
}

export interface GuardOptions {
  readonly nodeId: string;
  readonly authorities: RequestRules["authorities"];
  readonly maxRequestWindowMs: number;
  readonly clockSkewMs: number;
  /** How far beyond the highest approved change index a new one may be; at most the gap limit of wallet scans. */
  readonly changeGap: number;
}

export interface GuardDependencies {
  readonly wallet: (walletId: string) => GuardedWallet | undefined;
  /** The policy in force now. */
  readonly policy: () => PaymentPolicy;
  readonly banned: () => ReadonlySet<string>;
  readonly chain: ChainSource;
  readonly votes: VoteStore;
  /** Ed25519 with this node's identity key. */
  readonly sign: SignMessage;
  readonly verify: VerifySignature;
  readonly clock: Clock;
}

export type ProposalReason = "proposal-expired" | "proposal-expiry-too-far" | "policy-version-differs";

/** Approved payments that are remembered between vote and signature; a certificate lives a minute. */
const REMEMBERED_MAX = 1024;

interface Opened {
  readonly wallet: GuardedWallet;
  readonly request: VerifiedPaymentRequest;
  readonly proposed: ProposedTransaction;
  readonly digest: Uint8Array;
}

/** A payment that this process approved: checked, and its vote on disk. */
interface Approved {
  readonly payment: CheckedPayment;
  /** The own approval and what it is a signature of. */
  readonly ballot: { readonly digest: Uint8Array; readonly signature: Uint8Array };
  /** Of the proposal or of its request, whichever is first. */
  readonly expiresAtMs: number;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
/** Of a proposal's every byte, the request's signature and unknown fields among them. */
const nameOf = (proposal: PaymentProposal): string =>
  createHash("sha256").update(toBinary(PaymentProposalSchema, proposal)).digest("hex");

export class PaymentGuard {
  readonly #options: GuardOptions;
  readonly #parts: GuardDependencies;
  readonly #approved = new Map<string, Approved>();
  /**
   * The last vote of each wallet. The decision and its record are one step: two votes that overlap could both pass a
   * daily limit, or approve two transactions for one request.
   */
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(options: GuardOptions, dependencies: GuardDependencies) {
    this.#options = options;
    this.#parts = dependencies;
  }

  /**
   * Checks a proposal and votes. The vote is durable before it is returned, and a proposal that is asked about again
   * gets the same ballot. Rejects with `InvalidInput` when there is nothing to vote on: "psbt-malformed",
   * "wallet-unknown", "not-a-party", or the request's refusal; with `Unavailable` when the chain source is silent.
   */
  async vote(proposal: PaymentProposal): Promise<Ballot> {
    const opened = this.#open(proposal);
    const earlier = await this.#parts.votes.ballot(opened.digest);
    if (earlier !== undefined) return earlier;
    const [reason] = this.#proposalReasons(proposal);
    const view = reason === undefined ? await this.#view(opened) : undefined;
    const { walletId } = opened.request;
    const before = this.#turns.get(walletId) ?? Promise.resolve();
    const turn = before.catch(() => undefined).then(() => this.#vote(proposal, opened, view));
    this.#turns.set(walletId, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(walletId) === turn) this.#turns.delete(walletId);
    }
  }

  /**
   * What may be signed now: the payment of the proposal, if the certificate holds and this node voted for it.
   * The caller burns its nonces or presignature durably before a share leaves.
   * Rejects with `InvalidInput`: the certificate's refusal code, "not-approved-here", or those of `vote`.
   */
  async authorize(proposal: PaymentProposal, certificate: ApprovalCertificate): Promise<CheckedPayment> {
    const approved = this.#approvedHere(proposal);
    const payment = approved?.payment ?? (await this.#recheck(proposal));
    const { account, threshold, roster } = this.#wallet(payment.walletId);
    const verdict = verifyCertificate(
      certificate,
      {
        walletId: account.walletId,
        proposalDigest: payment.proposalDigest,
        policyVersion: this.#parts.policy().version,
        expiresAtMs: proposal.expiresAtMs,
        threshold,
        roster,
        banned: this.#parts.banned(),
        nowMs: this.#parts.clock.nowMs(),
        ownNodeId: this.#options.nodeId,
      },
      approved === undefined ? this.#parts.verify : this.#verifyKnowing(approved),
    );
    if (!verdict.valid) throw refused(verdict.refusal);
    // The own ballot in the certificate proves the approval; its record proves that this node still remembers it,
    // which a node that was restored from an old backup does not.
    if (approved !== undefined) return payment;
    const record = await this.#parts.votes.approvedRequest(payment.requestId);
    if (record?.transactions.some(({ txid }) => txid === payment.txid) !== true) {
      const digest = hex(payment.proposalDigest);
      throw new InvalidInput("not-approved-here", "this node has no record of its approval", { digest });
    }
    return payment;
  }

  #open(proposal: PaymentProposal): Opened {
    const { authorities, maxRequestWindowMs, clockSkewMs } = this.#options;
    if (proposal.request === undefined) throw new InvalidInput("request-malformed", "the proposal has no request");
    const rules = { authorities, nowMs: this.#parts.clock.nowMs(), maxWindowMs: maxRequestWindowMs, clockSkewMs };
    const verdict = verifyPaymentRequest(proposal.request, rules, this.#parts.verify);
    if (!verdict.valid) throw refused(verdict.refusal);
    const { request } = verdict;
    const wallet = this.#wallet(request.walletId);
    const proposed = decodeProposedTransaction(proposal.psbt);
    if (proposed === undefined) throw new InvalidInput("psbt-malformed", "the PSBT does not decode");
    const digest = claimedProposalDigest(proposed, {
      walletId: request.walletId,
      requestDigest: request.digest,
      policyVersion: proposal.policyVersion,
      expiresAtMs: proposal.expiresAtMs,
    });
    return { wallet, request, proposed, digest };
  }

  #wallet(walletId: string): GuardedWallet {
    const wallet = this.#parts.wallet(walletId);
    if (wallet === undefined) throw new InvalidInput("wallet-unknown", "this node has no share of the wallet");
    if (!wallet.roster.has(this.#options.nodeId)) {
      throw new InvalidInput("not-a-party", "this node is no party of the wallet");
    }
    return wallet;
  }

  #proposalReasons(proposal: PaymentProposal): ProposalReason[] {
    const nowMs = this.#parts.clock.nowMs();
    const reasons: ProposalReason[] = [];
    if (proposal.expiresAtMs <= wholeMs(nowMs)) reasons.push("proposal-expired");
    if (proposal.expiresAtMs > wholeMs(nowMs + REPLAY_WINDOW_MS)) reasons.push("proposal-expiry-too-far");
    if (proposal.policyVersion !== this.#parts.policy().version) reasons.push("policy-version-differs");
    return reasons;
  }

  #view({ proposed }: Opened): Promise<ChainView> {
    return fetchChainView(proposed, this.#parts.chain);
  }

  async #check(proposal: PaymentProposal, { wallet, request }: Opened, view: ChainView): Promise<CheckVerdict> {
    const { votes, clock } = this.#parts;
    const { walletId } = wallet.account;
    const sinceMs = clock.nowMs() - DAY_MS;
    const [spent, highest] = await Promise.all([
      votes.spentSince({ walletId, sinceMs, withoutRequestId: request.requestId }),
      votes.highestChangeIndex(walletId),
    ]);
    return checkPayment({
      account: wallet.account,
      request,
      psbt: proposal.psbt,
      view,
      policy: this.#parts.policy(),
      expiresAtMs: proposal.expiresAtMs,
      spent,
      changeIndexMax: highest + this.#options.changeGap,
    });
  }

  async #vote(proposal: PaymentProposal, opened: Opened, view: ChainView | undefined): Promise<Ballot> {
    const { votes } = this.#parts;
    const earlier = await votes.ballot(opened.digest);
    if (earlier !== undefined) return earlier;
    const reasons = this.#proposalReasons(proposal);
    if (reasons.length > 0 || view === undefined) return this.#reject(proposal, opened, reasons);
    const verdict = await this.#check(proposal, opened, view);
    if (!verdict.approved) return this.#reject(proposal, opened, verdict.reasons);
    const { payment } = verdict;
    const known = await votes.approvedRequest(payment.requestId);
    const transaction = { txid: payment.txid, outpoints: payment.outpoints };
    const why = refuseApproval(known, transaction);
    if (why !== undefined) return this.#reject(proposal, opened, [why.code]);
    const ballot = this.#ballot(proposal, opened, []);
    const approval = {
      requestId: payment.requestId,
      walletId: payment.walletId,
      amountSat: payment.amountSat,
      approvedAtMs: Math.floor(this.#parts.clock.nowMs()),
      expiresAtMs: opened.request.expiresAtMs,
      changeIndex: payment.changeIndex,
    };
    await votes.record({ ballot, approved: withApproval(known, approval, transaction) });
    this.#remember(proposal, { payment, ballot, request: opened.request });
    return ballot;
  }

  async #reject(proposal: PaymentProposal, opened: Opened, why: readonly string[]): Promise<Ballot> {
    // Without a reason a ballot approves: the proposal expired while its turn came.
    const reasons = why.length === 0 ? ["proposal-expired"] : why;
    const ballot = this.#ballot(proposal, opened, reasons);
    await this.#parts.votes.record({ ballot, approved: undefined });
    return ballot;
  }

  #ballot(proposal: PaymentProposal, opened: Opened, reasons: readonly string[]): Ballot {
    return signBallot(
      {
        walletId: opened.request.walletId,
        proposalDigest: opened.digest,
        policyVersion: proposal.policyVersion,
        expiresAtMs: proposal.expiresAtMs,
        verdict: reasons.length === 0 ? Verdict.APPROVE : Verdict.REJECT,
        reasons,
        voter: this.#options.nodeId,
      },
      this.#parts.sign,
    );
  }

  /** A signature that this process made needs no verification: its digest names the voter. */
  #verifyKnowing({ ballot }: Approved): VerifySignature {
    return (publicKey, digest, signature) =>
      (equalBytes(signature, ballot.signature) && equalBytes(digest, ballot.digest)) ||
      this.#parts.verify(publicKey, digest, signature);
  }

  #remember(
    proposal: PaymentProposal,
    vote: { readonly payment: CheckedPayment; readonly ballot: Ballot; readonly request: VerifiedPaymentRequest },
  ): void {
    const { payment, ballot, request } = vote;
    const nowMs = this.#parts.clock.nowMs();
    if (this.#approved.size >= REMEMBERED_MAX) {
      for (const [key, entry] of this.#approved) if (entry.expiresAtMs <= nowMs) this.#approved.delete(key);
    }
    const [oldest] = this.#approved.keys();
    if (this.#approved.size >= REMEMBERED_MAX && oldest !== undefined) this.#approved.delete(oldest);
    const expiresAtMs = Math.min(request.expiresAtMs, Number(proposal.expiresAtMs));
    const { signature } = ballot;
    const own = { digest: ballotDigest(ballot), signature };
    this.#approved.set(nameOf(proposal), { payment, ballot: own, expiresAtMs });
  }

  /** The payment of exactly these bytes, if this process approved it and it can still be signed. */
  #approvedHere(proposal: PaymentProposal): Approved | undefined {
    const known = this.#approved.get(nameOf(proposal));
    const isNow = known !== undefined && known.expiresAtMs > this.#parts.clock.nowMs();
    return isNow && this.#proposalReasons(proposal).length === 0 ? known : undefined;
  }

  /** Checks a payment again that this process does not remember. */
  async #recheck(proposal: PaymentProposal): Promise<CheckedPayment> {
    const opened = this.#open(proposal);
    const [reason] = this.#proposalReasons(proposal);
    if (reason !== undefined) throw new InvalidInput(reason, "the proposal cannot be signed now");
    const verdict = await this.#check(proposal, opened, await this.#view(opened));
    if (verdict.approved) return verdict.payment;
    throw new InvalidInput("payment-not-approved", "this node's check refuses the payment", {
      reasons: verdict.reasons,
    });
  }
}
