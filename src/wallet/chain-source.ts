/** Where the wallet learns about the chain. Adapters: Esplora, Bitcoin Core RPC (storage/), devnet speaks both. */

/** An unspent output as the chain source reports it. Never trusted for amounts: signatures commit to them. */
export interface UnspentOutput {
  /** Transaction id as shown to people, hex, 64 characters. */
  readonly txid: string;
  readonly vout: number;
  readonly valueSat: bigint;
  readonly scriptPubKey: Uint8Array;
  /** 0 while in the mempool. */
  readonly confirmedHeight: number;
}

/** Names an output. */
export interface Outpoint {
  /** Transaction id as shown to people, hex, 64 characters. */
  readonly txid: string;
  readonly vout: number;
}

/** An unspent output that was asked for by its outpoint. */
export interface FoundOutput {
  readonly valueSat: bigint;
  readonly scriptPubKey: Uint8Array;
  /** 0 while in the mempool. */
  readonly confirmedHeight: number;
}

/** A transaction's place in the chain. */
export interface TransactionStatus {
  readonly known: boolean;
  /** 0 while in the mempool. */
  readonly confirmedHeight: number;
  /** Block hash as shown to people, hex; empty while in the mempool. */
  readonly blockHash: string;
}

/** All calls reject with `Unavailable` when no source answers, with `InvalidInput` when the source refuses the input. */
export interface ChainSource {
  tipHeight(): Promise<number>;
  /** Confirmed and unconfirmed outputs of the script, spent ones left out. */
  unspentOutputs(scriptPubKey: Uint8Array): Promise<readonly UnspentOutput[]>;
  /**
   * Looks outputs up by their outpoints. Value and script come from the transaction that the txid authenticates.
   *
   * @returns one entry for each outpoint; undefined when it is unknown or spent, by the mempool included
   */
  findUnspent(outpoints: readonly Outpoint[]): Promise<readonly (FoundOutput | undefined)[]>;
  transactionStatus(txid: string): Promise<TransactionStatus>;
  /** Raw transaction; undefined when unknown. */
  transaction(txid: string): Promise<Uint8Array | undefined>;
  /** Satoshi per 1000 virtual bytes for confirmation within `targetBlocks`. */
  feeRateSatPerKvb(targetBlocks: number): Promise<number>;
  /** Returns the txid. A transaction that is already known is a success. */
  broadcast(transaction: Uint8Array): Promise<string>;
}
