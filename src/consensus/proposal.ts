import { digest } from "./digest.js";

/** Everything that a vote is about. Whatever of it changes, the digest changes and the votes are void. */
export interface ProposalFacts {
  readonly walletId: string;
  /** `VerifiedPaymentRequest.digest`, 32 bytes. */
  readonly requestDigest: Uint8Array;
  /** Serialized without witnesses. */
  readonly unsignedTransaction: Uint8Array;
  /** One for each input, in input order, as the node computed them itself; they commit to every amount spent. */
  readonly sighashes: readonly Uint8Array[];
  readonly policyVersion: bigint;
  readonly expiresAtMs: bigint;
}

/** @returns what ballots are over, 32 bytes */
export function proposalDigest(facts: ProposalFacts): Uint8Array {
  return digest("mpc-wallet/proposal/v1", [
    { text: facts.walletId },
    { bytes: facts.requestDigest },
    { bytes: facts.unsignedTransaction },
    { list: facts.sighashes.map((bytes) => ({ bytes })) },
    { uint: facts.policyVersion },
    { uint: facts.expiresAtMs },
  ]);
}
