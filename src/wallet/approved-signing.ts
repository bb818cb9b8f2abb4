import { toBinary } from "@bufbuild/protobuf";
import {
  type ApprovalCertificate,
  ApprovalCertificateSchema,
  type PaymentProposal,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { requestDigest } from "../consensus/payment-request.js";
import { type Scalar, scalar } from "../crypto/curve.js";
import { Bug } from "../crypto/fault.js";
import { hashTuple } from "../crypto/transcript.js";
import type { Account } from "./account.js";
import { type CheckedPayment, isCheckedPayment } from "./payment-check.js";
import { claimedProposalDigest, decodeProposedTransaction, sighashBytes } from "./proposed-transaction.js";

/**
 * What a signing session signs and under which authority: the one place that turns a payment into the public
 * parameters of a session, for the nodes that sign and for whoever judges them afterwards.
 */

/** One input: the digest and the sum of the BIP32 tweaks from the group key to the key that signs it. */
export interface ApprovedItem {
  /** 32 bytes. */
  readonly message: Uint8Array;
  readonly bip32Tweak: Scalar;
}

/** Binds a session to the certificate that allows it. */
export function signingAuthorization(proposalDigest: Uint8Array, certificate: ApprovalCertificate): Uint8Array {
  return hashTuple("signing/authorization", [proposalDigest, toBinary(ApprovalCertificateSchema, certificate)]);
}

const toScalar = (tweak: Uint8Array): Scalar => scalar(BigInt(`0x${Buffer.from(tweak).toString("hex")}`));

/** For a node: what it signs, one item for each input. A payment that nobody checked is our own bug. */
export function signingItems(payment: CheckedPayment): readonly ApprovedItem[] {
  if (!isCheckedPayment(payment)) throw new Bug("only a checked payment is signed");
  return payment.sighashes.map(({ bytes, key }) => ({ message: bytes, bip32Tweak: toScalar(key.tweak) }));
}

/**
 * For a judge: what the session of this proposal signed if its claims were true, which every signer that took part
 * had made sure of. Undefined when the proposal is not this wallet's. Total.
 */
export function claimedSigning(
  proposal: PaymentProposal,
  certificate: ApprovalCertificate,
  account: Account,
): { readonly items: readonly ApprovedItem[]; readonly authorization: Uint8Array } | undefined {
  const proposed = decodeProposedTransaction(proposal.psbt);
  if (proposed === undefined || proposal.request === undefined) return undefined;
  const spent = proposed.inputs.map(({ claimedScript, claimedValueSat }) => ({
    script: claimedScript,
    valueSat: claimedValueSat,
  }));
  const digests = sighashBytes(proposed.transaction, spent);
  const items = proposed.inputs.flatMap(({ claimedDerivation }, index) => {
    const message = digests[index];
    if (message === undefined || claimedDerivation === undefined || claimedDerivation.path.index > 0x7fffffff)
      return [];
    return [{ message, bip32Tweak: toScalar(account.derive(claimedDerivation.path).tweak) }];
  });
  if (items.length !== proposed.inputs.length) return undefined;
  const proposalDigest = claimedProposalDigest(proposed, {
    walletId: account.walletId,
    requestDigest: requestDigest(proposal.request),
    policyVersion: proposal.policyVersion,
    expiresAtMs: proposal.expiresAtMs,
  });
  return { items, authorization: signingAuthorization(proposalDigest, certificate) };
}
