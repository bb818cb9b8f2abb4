import type { ApprovalCertificate, PaymentProposal } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import type { Account } from "./account.js";

/** How a coordinator starts a signing session on its signers. Adapter: the peer RPC (coordinator/). */
export interface PeerSigning {
  /**
   * Asks one signer to take part; every signer of the set is asked. Resolves when the session ended well.
   *
   * Rejects with `PeerFault` (culprits are node ids, with evidence) or `PeerSilent` when the session failed,
   * with `InvalidInput` when the node refuses to sign, with `Unavailable` when it does not answer.
   */
  sign(nodeId: string, order: SigningOrder, signal: AbortSignal): Promise<SigningAnswer>;
}

export interface SigningOrder {
  /** 16 bytes, the same for all signers, never used twice. */
  readonly sessionId: Uint8Array;
  readonly proposal: PaymentProposal;
  readonly certificate: ApprovalCertificate;
  /** Party indices, ascending, exactly the threshold. */
  readonly signers: readonly number[];
  /**
   * One of exactly this signing set for each input, in input order, 32 bytes each. With none a Taproot wallet's signers
   * draw nonces in the session.
   */
  readonly presignatureIds: readonly Uint8Array[];
  /** Epoch of the wallet's shares as the coordinator knows it; nodes of another one refuse with "wallet-epoch-differs". */
  readonly walletEpoch?: number;
}

export interface SigningAnswer {
  /** One for each input, in input order: BIP340 64 bytes, or DER with the sighash byte. */
  readonly signatures: readonly Uint8Array[];
  readonly evidence: readonly Evidence[];
}

/** What is public about the wallet whose signing session failed. */
export interface JudgedWallet {
  readonly account: Account;
  /** Party order; party index is the position plus one. */
  readonly roster: ReadonlyMap<string, Uint8Array>;
  /** Public shares of all parties, serialized; empty when they are not known, then nothing about shares is provable. */
  readonly publicKeyPackage: Uint8Array;
}

/** Decides about evidence that a signer reported; returns the node ids that it proves guilty. Nobody's word is taken. */
export type JudgeEvidence = (report: {
  readonly reporter: string;
  readonly order: SigningOrder;
  readonly wallet: JudgedWallet;
  readonly evidence: readonly unknown[];
  /** What the reporter adds about the session; believed as far as the order fixes it. */
  readonly exhibits: readonly Uint8Array[];
}) => readonly { readonly nodeId: string; readonly check: string; readonly evidence: Uint8Array }[];
