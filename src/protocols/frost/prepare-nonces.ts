/**
 * Nonces made ahead, RFC 9591 section 5.1 before the messages are known: one round of commitments, and one that echoes
 * it, so that all signers keep the same lists under the same ids. Which message a pair signs is decided later, once.
 */
import { create } from "@bufbuild/protobuf";
import { NoncesAgreedSchema } from "../../../gen/mpcwallet/frost/v1/frost_pb.js";
import type { Scalar } from "../../crypto/curve.js";
import { InvalidInput } from "../../crypto/fault.js";
import { hashTuple } from "../../crypto/transcript.js";
import { broadcast, type Participant, type Protocol, type Round, receive, type Steps } from "../../session/protocol.js";
import { keyDigest, type PublicKeyPackage } from "../key-share.js";
import { commitmentLists, commitmentsMessage, MAX_BATCH, NONCES } from "./nonce-round.js";
import { SigningNonces } from "./nonces.js";
import { PreparedNonces } from "./prepared-nonces.js";
import { at, checkSigning } from "./sign.js";

/** Public parameters of a session that makes nonces. */
export interface NoncePreparation {
  readonly key: PublicKeyPackage;
  /** Pairs that each signer makes, 1 to MAX_BATCH. */
  readonly count: number;
}

/** Carries nothing but the echo of the commitments, which every envelope carries. */
const AGREED: Round<typeof NoncesAgreedSchema> = {
  id: "agreed",
  step: 2,
  message: NoncesAgreedSchema,
  delivery: "broadcast",
  maxBytes: 0,
  wellFormed: () => true,
};

function* run(
  { self, parties, pub, random }: Participant<NoncePreparation>,
  secretShare: Scalar,
): Steps<NoncePreparation, readonly PreparedNonces[]> {
  const { key, count } = pub;
  checkSigning({ key, items: [] }, parties);
  if (!Number.isInteger(count) || count < 1 || count > MAX_BATCH) {
    throw new InvalidInput("batch", `a session makes 1 to ${MAX_BATCH} nonces`, { count });
  }
  // 4.1: hedged with the share of the group key; the key that they sign under is derived later.
  const generated = Array.from({ length: count }, () => SigningNonces.generate(secretShare, random));
  yield* broadcast(NONCES, commitmentsMessage(generated));
  const lists = commitmentLists(yield* receive(NONCES), count);
  yield* broadcast(AGREED, create(NoncesAgreedSchema));
  yield* receive(AGREED);
  const digest = keyDigest(key);
  return lists.map((list, index) => new PreparedNonces(self, { keyDigest: digest, list }, at(generated, index)));
}

/** Makes nonces for exactly the parties of the session, at least the threshold. Blames: malformed commitments, equivocation. */
export const prepareNonces: Protocol<NoncePreparation, Scalar, readonly PreparedNonces[]> = {
  name: "frost-nonces/1",
  rounds: [NONCES, AGREED],
  checks: [],
  shape: ({ key, count }, parties) => ({ parties, threshold: key.threshold, batch: count }),
  digest: ({ key, count }) => hashTuple("frost-nonces/parameters", [keyDigest(key), count]),
  run,
};
