import type { NetworkName, Scheme } from "./wallet-application.js";

/** How a coordinator has a wallet's key made. Adapter: the peer RPC (coordinator/). */
export interface KeyGeneration {
  /** Asks one party; all parties are asked at once. Rejects as `PeerSigning.sign` does. */
  generate(nodeId: string, order: KeyGenerationOrder, signal: AbortSignal): Promise<GeneratedKey>;
}

export interface KeyGenerationOrder {
  /** 16 bytes, the same for all parties, never used twice. */
  readonly sessionId: Uint8Array;
  readonly walletId: string;
  readonly name: string;
  readonly scheme: Scheme;
  readonly threshold: number;
  /** Node ids in party order. */
  readonly parties: readonly string[];
  readonly network: NetworkName;
}

export interface GeneratedKey {
  /** SEC1 compressed, 33 bytes. */
  readonly groupKey: Uint8Array;
  readonly chainCode: Uint8Array;
  /** Digest of all public shares, equal at all parties, 32 bytes. */
  readonly keyDigest: Uint8Array;
  /** Public shares of all parties, serialized; the adapter has checked that `keyDigest` is its digest. */
  readonly publicKeyPackage: Uint8Array;
}
