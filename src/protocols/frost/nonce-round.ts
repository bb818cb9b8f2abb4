/** The round in which signers publish nonce commitments, RFC 9591 section 5.1: one pair for each message. */
import { create } from "@bufbuild/protobuf";
import {
  type NonceCommitment as NonceCommitmentMessage,
  NonceCommitmentSchema,
  type NonceCommitments as NonceCommitmentsMessage,
  NonceCommitmentsSchema,
} from "../../../gen/mpcwallet/frost/v1/frost_pb.js";
import { Point } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import type { PartyId } from "../../session/party.js";
import type { Round } from "../../session/protocol.js";
import type { CommitmentList } from "./binding.js";

/** Most messages that one session signs. */
export const MAX_BATCH = 256;

/** D and E of one message. */
export interface NoncePair {
  readonly hiding: Point;
  readonly binding: Point;
}

/** Points of the messages that are still referred to: decompressing one costs as much as half a multiplication. */
const parsed = new WeakMap<NonceCommitmentsMessage, readonly NoncePair[]>();

export const pairToProto = ({ hiding, binding }: NoncePair): NonceCommitmentMessage =>
  create(NonceCommitmentSchema, { hiding: hiding.toProto(), binding: binding.toProto() });

/** RFC 9591 section 3.1, DeserializeElement. @throws InvalidInput for what is no point, or the identity */
export const pairFromProto = ({ hiding, binding }: NonceCommitmentMessage): NoncePair => ({
  hiding: Point.fromProto(hiding),
  binding: Point.fromProto(binding),
});

/** The own message. */
export function commitmentsMessage(pairs: readonly NoncePair[]): NonceCommitmentsMessage {
  const message = create(NonceCommitmentsSchema, { commitments: pairs.map(pairToProto) });
  parsed.set(
    message,
    pairs.map(({ hiding, binding }) => ({ hiding, binding })),
  );
  return message;
}

/** Undefined when a commitment is no point. Total. */
function pairsOf(message: NonceCommitmentsMessage): readonly NoncePair[] | undefined {
  const known = parsed.get(message);
  if (known !== undefined) return known;
  try {
    const pairs = message.commitments.map(pairFromProto);
    parsed.set(message, pairs);
    return pairs;
  } catch {
    return undefined;
  }
}

export const NONCES: Round<typeof NonceCommitmentsSchema> = {
  id: "nonces",
  step: 1,
  message: NonceCommitmentsSchema,
  delivery: "broadcast",
  maxBytes: MAX_BATCH * 96,
  wellFormed: (message, { batch }) => message.commitments.length === batch && pairsOf(message) !== undefined,
};

/** What every signer published. */
export type NonceMessages = ReadonlyMap<PartyId, NonceCommitmentsMessage>;

/** The commitment list of each of `count` messages. */
export function commitmentLists(all: NonceMessages, count: number): readonly CommitmentList[] {
  const pairs = [...all].sort(([a], [b]) => a - b).map(([party, message]) => ({ party, pairs: pairsOf(message) }));
  return Array.from({ length: count }, (_, index) =>
    pairs.map(({ party, pairs }) => {
      const pair = pairs?.[index];
      if (pair === undefined) throw new Bug("well-formed commitments are complete");
      return { party, ...pair };
    }),
  );
}
