/** How a coordinator has a wallet made ready to sign; FROST nonces count as presignatures. Adapter: the peer RPC (coordinator/). */
export interface PeerPresigning {
  /** Has a node draw primes, unless it has some. Takes up to minutes. Rejects with `Unavailable`, `InvalidInput`. */
  prepareAuxInfo(nodeId: string, walletId: string, signal: AbortSignal): Promise<void>;
  /** How far a node is with what takes long. Rejects with `Unavailable`. */
  progress(nodeId: string, signal: AbortSignal): Promise<PresigningProgress>;
  /** Asks one party; all parties are asked at once. Resolves with the epoch's id, 32 bytes, equal at all parties. */
  generateAuxInfo(nodeId: string, order: AuxInfoOrder, signal: AbortSignal): Promise<Uint8Array>;
  /** Asks one signer; all signers of the set are asked at once. Resolves with what was made, 32 bytes each. */
  presign(nodeId: string, order: PresignOrder, signal: AbortSignal): Promise<readonly Uint8Array[]>;
  /** The presignatures of the wallet that wait at a node. */
  waiting(nodeId: string, walletId: string, signal: AbortSignal): Promise<readonly WaitingPresignature[]>;
}

export interface PresigningProgress {
  /** Sets at hand, and of the four primes of the set that is being drawn those found, with the candidates tested. */
  readonly primes: { readonly ready: number; readonly found: number; readonly tested: number };
  /** Of the wallets whose auxiliary info the node is making. */
  readonly auxInfo: readonly { readonly walletId: string; readonly step: number; readonly steps: number }[];
}

export interface AuxInfoOrder {
  /** 16 bytes, the same for all parties, never used twice. */
  readonly sessionId: Uint8Array;
  readonly walletId: string;
}

export interface PresignOrder extends AuxInfoOrder {
  /** Party indices, ascending, exactly the threshold. */
  readonly signers: readonly number[];
  readonly count: number;
}

export interface WaitingPresignature {
  /** 32 bytes. */
  readonly id: Uint8Array;
  /** Party indices, ascending. */
  readonly signers: readonly number[];
}
