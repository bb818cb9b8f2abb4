import type {
  AbandonedStatement,
  PreparedStatement,
  SignedWalletChange,
  SwitchCertificate,
} from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";

/** How a coordinator has a wallet's shares changed. Adapter: the peer RPC (coordinator/). */
export interface PeerWalletChange {
  shareStatus(nodeId: string, walletId: string, signal: AbortSignal): Promise<ShareStatus>;
  /** Resolves when the node is ready to take part; drawing primes takes up to minutes. */
  checkChange(nodeId: string, order: ChangeCheck, signal: AbortSignal): Promise<void>;
  /** Asks one party; all parties are asked at once. Resolves when the node has prepared. */
  prepareChange(nodeId: string, order: ChangeSession, signal: AbortSignal): Promise<void>;
  abandonChange(nodeId: string, attempt: ChangeAttempt, signal: AbortSignal): Promise<AbandonedStatement>;
  dropChange(
    nodeId: string,
    abandoned: { readonly change: SignedWalletChange; readonly statement: AbandonedStatement },
    signal: AbortSignal,
  ): Promise<void>;
  switchWallet(nodeId: string, certificate: SwitchCertificate, signal: AbortSignal): Promise<void>;
}

/** The key that is replaced. */
export interface ChangeCheck {
  readonly change: SignedWalletChange;
  readonly base: {
    readonly publicKeyPackage: Uint8Array;
    /** Node ids in party order. */
    readonly parties: readonly string[];
  };
}

export interface ChangeAttempt {
  readonly change: SignedWalletChange;
  readonly attempt: number;
}

export interface ChangeSession extends ChangeCheck, ChangeAttempt {
  /** 16 bytes, the same for all parties, never used twice. */
  readonly sessionId: Uint8Array;
  /** Indices of old parties, ascending, exactly the old threshold. */
  readonly dealers: readonly number[];
}

/** Where a wallet's shares stand at one node, as it says. */
export interface ShareStatus {
  /** Whether it holds a share that signs; of which epoch. */
  readonly holds: boolean;
  readonly epoch: number;
  /** What it prepared last and has not switched to. */
  readonly pending:
    | (ChangeAttempt & {
        /** Undefined at a party that only dealt. */
        readonly statement: PreparedStatement | undefined;
        readonly publicKeyPackage: Uint8Array;
        readonly abandoned: boolean;
      })
    | undefined;
  /** Its last switch. */
  readonly switched: SwitchCertificate | undefined;
}
