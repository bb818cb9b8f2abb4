import type { Ballot, PaymentProposal } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";

/** How a coordinator asks nodes for votes. Adapter: the peer RPC (coordinator/). */
export interface PeerVoting {
  /**
   * Resolves with the node's ballot. Rejects with `Unavailable` or `PeerSilent` when it does not answer, with
   * `InvalidInput` when it will not vote at all (its code says why), and with the signal's reason when aborted.
   */
  vote(nodeId: string, proposal: PaymentProposal, signal: AbortSignal): Promise<Ballot>;
  /** Tells a node what became of a payment. Nothing depends on it. */
  notify(nodeId: string, outcome: PaymentOutcome, signal: AbortSignal): Promise<void>;
}

export interface PaymentOutcome {
  readonly requestId: string;
  readonly txid: string;
  /** 0 while unconfirmed. */
  readonly confirmedHeight: number;
}
