/**
 * Dealing new shares of a key that exists: the share change of CGGMP24, Fig. 7, in its threshold form. Each dealer
 * shares by Feldman a constant whose commitment everyone knows already (zero in a refresh, w_i = λ_i(S) x_i in a
 * reshare), so the group key cannot change: a wrong constant makes the shares fail.
 */
import { create } from "@bufbuild/protobuf";
import {
  DealingCommitmentSchema,
  type DealingOpening,
  DealingOpeningSchema,
  DealingProofSchema,
  DealingShareSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/dealing_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import { Point, Scalar, scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import { type Polynomial, randomPolynomial, share, shareCommitment } from "../../crypto/feldman.js";
import { hashTuple, scalarChallenge } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import {
  broadcast,
  type Check,
  type Participant,
  type Round,
  receive,
  type Steps,
  sendEach,
  verify,
} from "../../session/protocol.js";
import { isPoint, isScalar } from "../element-shape.js";

/** Who deals what to whom. All of it is public and follows from the session's parameters. */
export interface Plan<Pub> {
  dealers(pub: Pub): readonly PartyId[];
  holders(pub: Pub): readonly PartyId[];
  /** t', of the new sharing. */
  threshold(pub: Pub): number;
  /** g^{f_i,0} of a dealer; the identity in a refresh. */
  constant(pub: Pub, dealer: PartyId): Point;
  /** What a holder's new share is added to: X_j in a refresh, the identity in a reshare. */
  base(pub: Pub, holder: PartyId): Point;
}

/** The secret side of the plan. */
export interface DealingSecret {
  /** f_i,0 of a dealer. */
  readonly constant: Scalar;
  /** What the own new share is added to. */
  readonly base: Scalar;
}

export interface Dealt {
  /** x'_i; undefined for a party that does not hold. */
  readonly secretShare: Scalar | undefined;
  /** X'_j of every holder. */
  readonly publicShares: ReadonlyMap<PartyId, Point>;
}

type Openings = ReadonlyMap<PartyId, DealingOpening>;

const COMMITMENT: Round<typeof DealingCommitmentSchema> = {
  id: "dealing-commitment",
  step: 1,
  message: DealingCommitmentSchema,
  delivery: "broadcast",
  maxBytes: 64,
  wellFormed: ({ hash }) => hash.length === 32,
};
const OPENING: Round<typeof DealingOpeningSchema> = {
  id: "dealing-opening",
  step: 2,
  message: DealingOpeningSchema,
  delivery: "broadcast",
  maxBytes: 4096,
  wellFormed: (m, { threshold }) =>
    m.rid.length === 32 &&
    m.blinding.length === 32 &&
    (m.coefficients.length === 0 || m.coefficients.length === threshold - 1) &&
    m.coefficients.every(isPoint) &&
    (m.schnorrCommitment === undefined || isPoint(m.schnorrCommitment)),
};
const SHARE: Round<typeof DealingShareSchema> = {
  id: "dealing-share",
  step: 2,
  message: DealingShareSchema,
  delivery: "direct",
  maxBytes: 64,
  wellFormed: ({ share }) => share === undefined || isScalar(share),
};
const PROOF: Round<typeof DealingProofSchema> = {
  id: "dealing-proof",
  step: 3,
  message: DealingProofSchema,
  delivery: "broadcast",
  maxBytes: 64,
  wellFormed: ({ response }) => response === undefined || isScalar(response),
};

/** V_i = H(ssid, i, rid_i, F_i, A_i, u_i). */
function commitmentHash(ssid: Uint8Array, party: PartyId, opening: DealingOpening): Uint8Array {
  const { rid, coefficients, schnorrCommitment, blinding } = opening;
  const A_i = schnorrCommitment === undefined ? [] : [Point.fromProto(schnorrCommitment)];
  return hashTuple("dealing/commitment", [ssid, party, rid, coefficients.map(Point.fromProto), A_i, blinding]);
}

/** rid = ⊕ rid_j. */
function jointRandomness(openings: Openings): Uint8Array {
  const rid = new Uint8Array(32);
  for (const opening of openings.values()) for (const [i, byte] of opening.rid.entries()) rid[i] = (rid[i] ?? 0) ^ byte;
  return rid;
}

const openingOf = (openings: Openings, party: PartyId): DealingOpening => {
  const opening = openings.get(party);
  if (opening === undefined) throw new Bug("everybody has opened", { party });
  return opening;
};

/** Rounds, checks and the function of one plan; steps 1 to 3. */
export function dealing<Pub>(plan: Plan<Pub>) {
  const isDealer = (pub: Pub, party: PartyId): boolean => plan.dealers(pub).includes(party);
  const isHolder = (pub: Pub, party: PartyId): boolean => plan.holders(pub).includes(party);

  /** g^{f_i(j)} = g^{f_i,0} Π_k F_i,k^{j^k}. */
  const dealtTo = (pub: Pub, dealer: PartyId, { opening, holder }: { opening: DealingOpening; holder: PartyId }) =>
    shareCommitment([plan.constant(pub, dealer), ...opening.coefficients.map(Point.fromProto)], holder);

  /** X'_j = X_j Π_i g^{f_i(j)}. */
  const publicShare = (pub: Pub, openings: Openings, holder: PartyId): Point =>
    Point.sum([
      plan.base(pub, holder),
      ...plan.dealers(pub).map((dealer) => dealtTo(pub, dealer, { opening: openingOf(openings, dealer), holder })),
    ]);

  /** e = H(ssid, rid, j, X'_j, A_j). */
  const challenge = (
    ssid: Uint8Array,
    openings: Openings,
    { party, X_j, A_j }: { readonly party: PartyId; readonly X_j: Point; readonly A_j: Point },
  ): Scalar => scalarChallenge("dealing/proof", [ssid, jointRandomness(openings), party, X_j, A_j]);

  /** The opening is what was committed to. */
  const OPENS: Check<Pub> = {
    id: "dealing-opens-commitment",
    needs: [
      { round: OPENING, from: "accused" },
      { round: COMMITMENT, from: "accused" },
    ],
    holds: ({ ssid, accused }, view) =>
      equalBytes(view.accused(COMMITMENT).hash, commitmentHash(ssid, accused, view.accused(OPENING))),
  };

  /** Dealers deal exactly t'-1 coefficients, holders commit to a nonce, and nobody else does. */
  const ROLE: Check<Pub> = {
    id: "dealing-role",
    needs: [{ round: OPENING, from: "accused" }],
    holds({ pub, accused }, view) {
      const { coefficients, schnorrCommitment } = view.accused(OPENING);
      const dealt = isDealer(pub, accused) ? plan.threshold(pub) - 1 : 0;
      return coefficients.length === dealt && (schnorrCommitment !== undefined) === isHolder(pub, accused);
    },
  };

  /** The share lies on the committed polynomial, whose constant everybody knew before. */
  const ON_POLYNOMIAL: Check<Pub> = {
    id: "dealing-share-on-polynomial",
    needs: [
      { round: SHARE, from: "accused" },
      { round: OPENING, from: "accused" },
    ],
    holds({ pub, accused, accuser }, view) {
      const message = view.accused(SHARE).share;
      if (!isDealer(pub, accused) || !isHolder(pub, accuser)) return message === undefined;
      if (message === undefined) return false;
      const commitment = dealtTo(pub, accused, { opening: view.accused(OPENING), holder: accuser });
      return Point.base.times(Scalar.fromProto(message)).equals(commitment); // g^{f_i(j)} = Π_k F_i,k^{j^k}
    },
  };

  /** The holder knows its new share. */
  const KNOWS_SHARE: Check<Pub> = {
    id: "dealing-knows-share",
    needs: [
      { round: PROOF, from: "accused" },
      { round: OPENING, from: "everyone" },
    ],
    holds({ pub, ssid, accused }, view) {
      const { response } = view.accused(PROOF);
      if (!isHolder(pub, accused)) return response === undefined;
      const openings = view.everyone(OPENING);
      const commitment = openingOf(openings, accused).schnorrCommitment;
      if (response === undefined || commitment === undefined) return false;
      const A_j = Point.fromProto(commitment);
      const X_j = publicShare(pub, openings, accused);
      const e = challenge(ssid, openings, { party: accused, X_j, A_j });
      const g_z = Point.base.timesPublic(Scalar.fromProto(response));
      return !X_j.isIdentity && g_z.equals(A_j.plus(X_j.timesPublic(e))); // g^z = A_j X_j^e
    },
  };

  function* deal(participant: Participant<Pub>, secret: DealingSecret): Steps<Pub, Dealt> {
    const { self, pub, ssid, random } = participant;
    const [deals, holds] = [isDealer(pub, self), isHolder(pub, self)];

    // Round 1: sample f_i with the known constant, rid_i, τ_i, u_i; broadcast V_i.
    const f_i: Polynomial | undefined = deals
      ? randomPolynomial(plan.threshold(pub), random, secret.constant)
      : undefined;
    const tau_i = Scalar.randomNonZero(random);
    const opening = create(DealingOpeningSchema, {
      rid: random.bytes(32),
      coefficients: (f_i?.coefficients.slice(1) ?? []).map((f_ik) => Point.base.times(f_ik).toProto()),
      blinding: random.bytes(32),
      ...(holds ? { schnorrCommitment: Point.base.times(tau_i).toProto() } : {}),
    });
    yield* broadcast(COMMITMENT, create(DealingCommitmentSchema, { hash: commitmentHash(ssid, self, opening) }));
    yield* receive(COMMITMENT);

    // Round 2: open; send f_i(j) to each holder j.
    yield* broadcast(OPENING, opening);
    yield* sendEach(SHARE, (to) =>
      create(
        DealingShareSchema,
        f_i !== undefined && isHolder(pub, to) ? { share: Scalar.toProto(share(f_i, to)) } : {},
      ),
    );
    const openings = yield* receive(OPENING);
    const shares = yield* receive(SHARE);
    yield* verify(OPENS, ROLE, ON_POLYNOMIAL);

    // Round 3: x'_i = x_i + Σ_j f_j(i); prove knowledge of it.
    let secretShare: Scalar | undefined;
    if (holds) {
      const received = [...shares.values()].flatMap((m) => (m.share === undefined ? [] : [Scalar.fromProto(m.share)]));
      secretShare = Scalar.sum([secret.base, ...(f_i === undefined ? [] : [share(f_i, self)]), ...received]);
      const X_i = Point.base.times(secretShare);
      if (!X_i.equals(publicShare(pub, openings, self))) throw new Bug("the own share does not fit the commitments");
      const e = challenge(ssid, openings, { party: self, X_j: X_i, A_j: Point.base.times(tau_i) });
      const response = Scalar.toProto(scalar(tau_i + e * secretShare)); // z = τ + e x'
      yield* broadcast(PROOF, create(DealingProofSchema, { response }));
    } else {
      yield* broadcast(PROOF, create(DealingProofSchema));
    }
    yield* receive(PROOF);
    yield* verify(KNOWS_SHARE);
    return {
      secretShare,
      publicShares: new Map(plan.holders(pub).map((party) => [party, publicShare(pub, openings, party)])),
    };
  }

  return {
    rounds: [COMMITMENT, OPENING, SHARE, PROOF] as readonly Round[],
    checks: [OPENS, ROLE, ON_POLYNOMIAL, KNOWS_SHARE] as readonly Check<Pub>[],
    deal,
  };
}
