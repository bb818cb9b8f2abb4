/**
 * Reshare: the same key for other holders and another threshold. A set S of t old holders shares its additive shares
 * w_i = λ_i(S) x_i by Feldman among the new holders. Of either scheme; CGGMP24 holders run aux-info afterwards.
 */
import { create } from "@bufbuild/protobuf";
import { DealingConfirmationSchema } from "../../../gen/mpcwallet/cggmp24/v1/dealing_pb.js";
import { lagrangeCoefficient, Point, Scalar } from "../../crypto/curve.js";
import { InvalidInput } from "../../crypto/fault.js";
import { hashTuple } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import { broadcast, type Participant, type Protocol, type Round, receive, type Steps } from "../../session/protocol.js";
import { type KeyShare, keyDigest, type PublicKeyPackage } from "../key-share.js";
import { dealing } from "./dealing.js";

/**
 * Public parameters of a reshare. The session's parties are exactly dealers and holders together; their indices in the
 * session are the new ones, and a dealer that holds no longer has one that no holder has.
 */
export interface ReshareParameters {
  /** The key with its old shares. */
  readonly key: PublicKeyPackage;
  /** S: exactly the old threshold of old holders, ascending. */
  readonly dealers: readonly PartyId[];
  /** A dealer's index among the old holders, where it is not its index in the session. */
  readonly oldIndices?: ReadonlyMap<PartyId, PartyId>;
  /** The new holders, ascending. */
  readonly holders: readonly PartyId[];
  /** t', 2 to the number of new holders. */
  readonly threshold: number;
}

export interface Reshared {
  readonly key: PublicKeyPackage;
  /** Undefined for a dealer that holds no longer. */
  readonly share: KeyShare | undefined;
}

const oldIndex = ({ oldIndices }: ReshareParameters, dealer: PartyId): PartyId => oldIndices?.get(dealer) ?? dealer;
const oldDealers = (pub: ReshareParameters): readonly PartyId[] => pub.dealers.map((dealer) => oldIndex(pub, dealer));

const CONFIRMATION: Round<typeof DealingConfirmationSchema> = {
  id: "dealing-confirmation",
  step: 4,
  message: DealingConfirmationSchema,
  delivery: "broadcast",
  maxBytes: 16,
  wellFormed: () => true,
};

const additive = dealing<ReshareParameters>({
  dealers: ({ dealers }) => dealers,
  holders: ({ holders }) => holders,
  threshold: ({ threshold }) => threshold,
  constant: (pub, dealer) => {
    const i = oldIndex(pub, dealer);
    return (pub.key.publicShares.get(i) ?? Point.identity).timesPublic(lagrangeCoefficient(i, oldDealers(pub))); // W_i = X_i^{λ_i(S)}
  },
  base: () => Point.identity,
});

function validate(pub: ReshareParameters, parties: readonly PartyId[]): void {
  const { key, dealers, holders, threshold } = pub;
  const old = oldDealers(pub);
  const union = [...new Set([...dealers, ...holders])].sort((a, b) => a - b);
  if (union.join() !== parties.join()) {
    throw new InvalidInput("reshare-parties", "the session's parties are the dealers and the holders");
  }
  if (new Set(old).size !== key.threshold || dealers.length !== key.threshold) {
    throw new InvalidInput("reshare-dealers", "exactly the old threshold deals", { threshold: key.threshold });
  }
  if (!old.every((dealer) => key.publicShares.has(dealer))) {
    throw new InvalidInput("reshare-dealers", "every dealer holds an old share");
  }
  if (!Number.isInteger(threshold) || threshold < 2 || threshold > new Set(holders).size) {
    throw new InvalidInput("reshare-threshold", "the new threshold is 2 to the number of holders", { threshold });
  }
}

function* run(
  participant: Participant<ReshareParameters>,
  old: KeyShare | undefined,
): Steps<ReshareParameters, Reshared> {
  const { pub, self, parties } = participant;
  validate(pub, parties);
  const deals = pub.dealers.includes(self);
  if (deals && (old === undefined || old.self !== oldIndex(pub, self) || !old.groupKey.equals(pub.key.groupKey))) {
    throw new InvalidInput("reshare-share", "a dealer needs its share of the key");
  }
  const constant = // w_i = λ_i(S) x_i
    deals && old !== undefined
      ? Scalar.times(lagrangeCoefficient(old.self, oldDealers(pub)), old.secretShare)
      : Scalar.zero;

  // Π_{i∈S} W_i = X, so the new shares are shares of the same key whatever the dealers choose.
  const { secretShare, publicShares } = yield* additive.deal(participant, { constant, base: Scalar.zero });

  // An empty broadcast whose echo covers the proofs, so that nobody keeps shares that others refused.
  yield* broadcast(CONFIRMATION, create(DealingConfirmationSchema));
  yield* receive(CONFIRMATION);

  const key: PublicKeyPackage = {
    scheme: pub.key.scheme,
    threshold: pub.threshold,
    publicShares,
    groupKey: pub.key.groupKey,
    chainCode: pub.key.chainCode,
  };
  return { key, share: secretShare === undefined ? undefined : { ...key, self, secretShare } };
}

/**
 * Gives new holders shares of the same key, at a new threshold. The old shares still open the key until their holders
 * erase them: a reshare takes nobody's power away by itself.
 * Blames: a party whose opening, share or proof is wrong, with evidence.
 */
export const reshare: Protocol<ReshareParameters, KeyShare | undefined, Reshared> = {
  name: "cggmp24-reshare/1",
  rounds: [...additive.rounds, CONFIRMATION],
  checks: additive.checks,
  shape: ({ threshold }, parties) => ({ parties, threshold, batch: 1 }),
  digest: (pub) =>
    hashTuple("reshare/parameters", [
      keyDigest(pub.key),
      [...pub.dealers],
      [...oldDealers(pub)],
      [...pub.holders],
      pub.threshold,
    ]),
  run,
};
