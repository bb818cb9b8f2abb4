import type { Phase } from "../consensus/transaction-state.js";

/**
 * What the wallet offers to whoever speaks for a client: gateway/ maps its messages to these calls and nothing else.
 * Money is satoshi as `bigint`, time is Unix milliseconds, ids are strings, txids are hex as shown to people.
 *
 * All calls reject with a fault of `crypto/fault.ts`: `InvalidInput` (codes below, "wallet-unknown",
 * "payment-unknown", …) or `Unavailable`.
 */
export interface WalletApplication {
  /**
   * Creates a wallet by distributed key generation on its parties; resolves when all of them hold a share.
   * Refused with "wallet-exists", "threshold-out-of-range", "parties-out-of-range", "party-unknown",
   * "network-mismatch", "name-invalid".
   */
  createWallet(wallet: NewWallet, signal?: AbortSignal): Promise<WalletView>;
  listWallets(): Promise<readonly WalletView[]>;
  /** Refused with "wallet-unknown". */
  getWallet(walletId: string): Promise<WalletView>;
  /**
   * Takes a serialized `mpcwallet.consensus.v1.SignedWalletChange`: a refresh or reshare that a payment authority
   * signed. Returns as soon as it is recorded; it goes on by itself. The same bytes again return how far it is.
   * Refused with "change-running", "change-other-base", "change-forged", "change-expired", …
   */
  changeWallet(signedWalletChange: Uint8Array): Promise<WalletChangeView>;
  /** The newest change of a wallet, if there was one, and what an order of the next has to know. */
  walletChange(walletId: string): Promise<WalletChangeStatus>;
  /** The next unused receiving address. Every call advances the index. */
  newAddress(walletId: string): Promise<AddressView>;
  balance(walletId: string): Promise<BalanceView>;
  /** Unspent outputs of all addresses in use, found by a gap-limit scan. */
  utxos(walletId: string): Promise<readonly UtxoView[]>;

  /**
   * Takes a serialized `mpcwallet.consensus.v1.SignedPaymentRequest`, the exact bytes that the client signed over.
   * Returns as soon as the payment is recorded, phase "created"; the ceremony goes on by itself. Sending the same
   * bytes again returns the same payment; another request under a known request id is refused with
   * "request-id-reused". Other codes: those of `consensus/payment-request.ts` ("request-malformed",
   * "authority-unknown", "request-forged", "request-expired", …) and of the transaction builder
   * ("insufficient-funds", "amount-below-dust", "address-invalid", "address-other-network", …) appear as
   * `failure` of the payment when they are found only while it is being built.
   */
  sendPayment(signedPaymentRequest: Uint8Array): Promise<PaymentView>;
  /** Like `sendPayment` and resolves when the payment is broadcast, or when it will never be. */
  sendPaymentAndWait(signedPaymentRequest: Uint8Array, signal?: AbortSignal): Promise<PaymentView>;
  /** `paymentId` is the request id. Refused with "payment-unknown". */
  payment(paymentId: string): Promise<PaymentView>;
  /**
   * The payment as it is now, then again after every change; ends after a final phase ("confirmed", "rejected",
   * "timed-out", "failed"), or when the signal is aborted. A slow reader sees the newest state, not every state.
   */
  watchPayment(paymentId: string, signal?: AbortSignal): AsyncIterable<PaymentView>;
  /** Newest first. */
  payments(query: PaymentQuery): Promise<PaymentPage>;
  /** The ballots of a payment as far as they have come in. */
  votes(paymentId: string): Promise<VotesView>;

  poolStatus(walletId: string): Promise<PoolStatusView>;
  /** Never rejects: a part that does not answer is a part that is not healthy. */
  health(): Promise<HealthView>;
}

/** "frost" makes Taproot addresses (P2TR), "cggmp24" makes SegWit addresses (P2WPKH). */
export type Scheme = "frost" | "cggmp24";

export type NetworkName = "mainnet" | "testnet" | "signet" | "regtest";

export interface NewWallet {
  /** Shown to people, 1 to 64 characters, unique. */
  readonly name: string;
  readonly scheme: Scheme;
  /** Signers needed, 2 to the number of parties. */
  readonly threshold: number;
  /** Node ids in party order; empty means every node of the roster. */
  readonly parties: readonly string[];
}

export interface WalletView {
  readonly walletId: string;
  readonly name: string;
  readonly scheme: Scheme;
  readonly network: NetworkName;
  readonly threshold: number;
  readonly parties: readonly string[];
  /** SEC1 compressed group key, 33 bytes. */
  readonly groupKey: Uint8Array;
  /** BIP32 chain code, 32 bytes. */
  readonly chainCode: Uint8Array;
  /** Grows with each refresh or reshare. */
  readonly epoch: number;
  /** Digest of all public shares, 32 bytes; names the epoch in an order that replaces it. */
  readonly keyDigest: Uint8Array;
  readonly createdAtMs: number;
}

/** A refresh or reshare, as far as it is. */
export interface WalletChangeView {
  readonly walletId: string;
  readonly requestId: string;
  readonly kind: "refresh" | "reshare";
  /** Signers needed and node ids in party order, after the change. */
  readonly threshold: number;
  readonly parties: readonly string[];
  /** Number of the new epoch. */
  readonly epoch: number;
  readonly state: "running" | "switched" | "abandoned";
  /** Tries so far. */
  readonly attempt: number;
  /** What happens now, for people; empty when nothing does. */
  readonly step: string;
  /** Nodes that keep a running change from going on. */
  readonly waitingFor: readonly string[];
  /** Nodes that have not yet confirmed that they switched, or that they erased the share of a party that left. */
  readonly owing: readonly string[];
  /** Why it was abandoned, or why the last try failed; empty when nothing failed. */
  readonly code: string;
  readonly message: string;
  readonly changedAtMs: number;
}

export interface WalletChangeStatus {
  readonly change: WalletChangeView | undefined;
  /** Change addresses in use. */
  readonly changeCount: number;
}

export interface AddressView {
  readonly walletId: string;
  readonly address: string;
  /** False for receiving addresses, true for change. */
  readonly change: boolean;
  readonly index: number;
  /** Relative to the group key, for example "0/7". */
  readonly path: string;
  readonly scriptPubKey: Uint8Array;
}

export interface BalanceView {
  readonly walletId: string;
  readonly confirmedSat: bigint;
  /** Still in the mempool. */
  readonly unconfirmedSat: bigint;
  /** Part of the two above that running payments have reserved. */
  readonly reservedSat: bigint;
  readonly tipHeight: number;
}

export interface UtxoView {
  readonly txid: string;
  readonly vout: number;
  readonly valueSat: bigint;
  readonly address: string;
  readonly path: string;
  /** 0 while in the mempool. */
  readonly confirmedHeight: number;
  readonly confirmations: number;
  /** A running payment spends it. */
  readonly reserved: boolean;
}

export interface PaymentRecipientView {
  readonly address: string;
  readonly amountSat: bigint;
}

/** How long one step of a payment took, for people and metrics. */
export interface TimelineEntry {
  /** "build", "vote", "certificate", "sign", "finalize", "broadcast", "confirm" or "total". */
  readonly step: string;
  /** Node the entry is about; empty for the payment as a whole. */
  readonly nodeId: string;
  readonly startedAtMs: number;
  readonly durationMs: number;
  /** "ok", or the code of what went wrong. */
  readonly outcome: string;
}

export interface PaymentView {
  /** The request id. */
  readonly paymentId: string;
  readonly walletId: string;
  readonly phase: Phase;
  readonly recipients: readonly PaymentRecipientView[];
  readonly metadataJson: string;
  /** Empty until the transaction is built. SegWit: the same before and after signing. */
  readonly txid: string;
  /** 0 until the transaction is built. */
  readonly feeSat: bigint;
  /** The signed transaction, once there is one. */
  readonly rawTransaction: Uint8Array | undefined;
  /** 0 until confirmed. */
  readonly confirmedHeight: number;
  readonly confirmations: number;
  /** Signing attempts that did not succeed. */
  readonly retries: number;
  /** Why it is in "rejected", "timed-out" or "failed"; empty otherwise. */
  readonly failure: PaymentFailureView | undefined;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  readonly timeline: readonly TimelineEntry[];
}

export interface PaymentFailureView {
  readonly code: string;
  readonly message: string;
  /** Node ids that are to blame with proof. */
  readonly culprits: readonly string[];
}

export interface PaymentQuery {
  readonly walletId: string;
  /** 1 to 100. */
  readonly limit: number;
  /** From `PaymentPage.next`; empty starts at the newest. */
  readonly before: string;
}

export interface PaymentPage {
  readonly payments: readonly PaymentView[];
  /** Empty when there are no older payments. */
  readonly next: string;
}

export interface BallotView {
  readonly voter: string;
  /** "none" while the node has not answered. */
  readonly verdict: "approve" | "reject" | "none";
  /** Machine-readable, for example "fee-rate-too-high". */
  readonly reasons: readonly string[];
  readonly receivedAtMs: number;
  readonly durationMs: number;
}

export interface VotesView {
  readonly paymentId: string;
  /** 32 bytes; empty until the first proposal. */
  readonly proposalDigest: Uint8Array;
  readonly policyVersion: bigint;
  readonly approvalsNeeded: number;
  readonly outcome: "pending" | "approved" | "rejected" | "timed-out";
  readonly ballots: readonly BallotView[];
}

/** Presignatures (CGGMP24) or nonce pairs (FROST) that wait for use. */
export interface PoolStatusView {
  readonly walletId: string;
  readonly available: number;
  readonly inUse: number;
  readonly failed: number;
  readonly target: number;
  readonly minimum: number;
}

export interface PartHealth {
  /** For example "chain", "audit", "coordination", "node:node-3". */
  readonly name: string;
  readonly healthy: boolean;
  readonly detail: string;
}

export interface HealthView {
  /** Payments can be made: a quorum of nodes and every other needed part answers. */
  readonly healthy: boolean;
  readonly parts: readonly PartHealth[];
  readonly leader: string;
  readonly timeMs: number;
  /** Wallets that this coordinator is making now. */
  readonly preparations: readonly PreparationView[];
}

export type PreparationPhase = "key" | "primes" | "auxiliary-info";

/** How far a wallet is that is being made. */
export interface PreparationView {
  readonly walletId: string;
  readonly name: string;
  readonly phase: PreparationPhase;
  /** Of the nodes that have answered in this phase. */
  readonly nodes: readonly NodePreparation[];
}

export interface NodePreparation {
  readonly nodeId: string;
  /** Primes found, or steps done, of the present phase. */
  readonly done: number;
  readonly of: number;
  /** Candidates for primes tested so far. */
  readonly tested: number;
}
