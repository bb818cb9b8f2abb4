/**
 * Distributed key generation, t of n: CGGMP24 (ePrint 2021/060, revision of 2024-10-21), Fig. 6, with Feldman sharing.
 * Both schemes use it. noble-curves has a FROST DKG as well; it is not used because it applies the Taproot tweak to
 * its output (then the key cannot be a BIP32 root), binds no session, and does not name who cheated.
 */
import { create } from "@bufbuild/protobuf";
import {
  KeygenCommitmentSchema,
  KeygenConfirmationSchema,
  type KeygenOpening,
  KeygenOpeningSchema,
  KeygenProofSchema,
  KeygenShareSchema,
} from "../../gen/mpcwallet/keygen/v1/keygen_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { Point, Scalar, scalar } from "../crypto/curve.js";
import { Bug } from "../crypto/fault.js";
import { hashTuple, type Item, scalarChallenge } from "../crypto/transcript.js";
import type { PartyId } from "../session/party.js";
import {
  broadcast,
  type Check,
  type Participant,
  type Protocol,
  type Round,
  receive,
  type Steps,
  sendEach,
  verify,
} from "../session/protocol.js";
import { isPoint, isScalar } from "./element-shape.js";
import type { KeyShare, Scheme } from "./key-share.js";

/** Public parameters of a key generation. */
export interface KeygenParameters {
  readonly scheme: Scheme;
  /** t, 2 to the number of parties. */
  readonly threshold: number;
  /** Wallet that the key is for. */
  readonly walletId: string;
}

const COMMITMENT: Round<typeof KeygenCommitmentSchema> = {
  id: "commitment",
  step: 1,
  message: KeygenCommitmentSchema,
  delivery: "broadcast",
  maxBytes: 64,
  wellFormed: ({ hash }) => hash.length === 32,
};
const OPENING: Round<typeof KeygenOpeningSchema> = {
  id: "opening",
  step: 2,
  message: KeygenOpeningSchema,
  delivery: "broadcast",
  maxBytes: 4096,
  wellFormed: (m, { threshold }) =>
    m.rid.length === 32 &&
    m.chainCode.length === 32 &&
    m.blinding.length === 32 &&
    m.coefficients.length === threshold &&
    m.coefficients.every(isPoint) &&
    isPoint(m.schnorrCommitment),
};
const SHARE: Round<typeof KeygenShareSchema> = {
  id: "share",
  step: 2,
  message: KeygenShareSchema,
  delivery: "direct",
  maxBytes: 64,
  wellFormed: ({ share }) => isScalar(share),
};
const PROOF: Round<typeof KeygenProofSchema> = {
  id: "proof",
  step: 3,
  message: KeygenProofSchema,
  delivery: "broadcast",
  maxBytes: 64,
  wellFormed: ({ response }) => isScalar(response),
};
const CONFIRMATION: Round<typeof KeygenConfirmationSchema> = {
  id: "confirmation",
  step: 4,
  message: KeygenConfirmationSchema,
  delivery: "broadcast",
  maxBytes: 16,
  wellFormed: () => true,
};

/** V_i = H(ssid, i, rid_i, c_i, F_i, A_i, u_i). */
function commitmentHash(ssid: Uint8Array, party: PartyId, opening: KeygenOpening): Uint8Array {
  const items: Item[] = [ssid, BigInt(party), opening.rid, opening.chainCode];
  items.push(opening.coefficients.map(Point.fromProto), Point.fromProto(opening.schnorrCommitment), opening.blinding);
  return hashTuple("keygen/commitment", items);
}

/** g^{f(j)} = Π_m F_m^{j^m}. Public inputs only. */
function commitmentAt(coefficients: readonly Point[], party: PartyId): Point {
  let power = Scalar.one;
  return Point.sum(
    coefficients.map((F_m) => {
      const term = F_m.timesPublic(power);
      power = Scalar.times(power, scalar(BigInt(party)));
      return term;
    }),
  );
}

/** X_j = Π_k g^{f_k(j)}. */
function publicShare(openings: ReadonlyMap<PartyId, KeygenOpening>, party: PartyId): Point {
  return Point.sum([...openings.values()].map((k) => commitmentAt(k.coefficients.map(Point.fromProto), party)));
}

const xor = (parts: Iterable<Uint8Array>): Uint8Array => {
  const total = new Uint8Array(32);
  for (const part of parts) for (const [i, byte] of part.entries()) total[i] = (total[i] ?? 0) ^ byte;
  return total;
};

const rid = (openings: ReadonlyMap<PartyId, KeygenOpening>): Uint8Array =>
  xor([...openings.values()].map((opening) => opening.rid));

/** e = H(ssid, rid, j, X_j, A_j). */
function proofChallenge(
  ssid: Uint8Array,
  openings: ReadonlyMap<PartyId, KeygenOpening>,
  statement: { readonly party: PartyId; readonly X_j: Point; readonly A_j: Point },
): Scalar {
  const { party, X_j, A_j } = statement;
  return scalarChallenge("keygen/proof", [ssid, rid(openings), BigInt(party), X_j, A_j]);
}

/** The opening is what was committed to. */
const OPENS: Check<KeygenParameters> = {
  id: "opens-commitment",
  needs: [
    { round: OPENING, from: "accused" },
    { round: COMMITMENT, from: "accused" },
  ],
  holds({ ssid, accused }, view) {
    return equalBytes(view.accused(COMMITMENT).hash, commitmentHash(ssid, accused, view.accused(OPENING)));
  },
};

/** The share lies on the committed polynomial. */
const ON_POLYNOMIAL: Check<KeygenParameters> = {
  id: "share-on-polynomial",
  needs: [
    { round: SHARE, from: "accused" },
    { round: OPENING, from: "accused" },
  ],
  holds({ accuser }, view) {
    const F_j = view.accused(OPENING).coefficients.map(Point.fromProto);
    const f_j_i = Scalar.fromProto(view.accused(SHARE).share);
    return Point.base.times(f_j_i).equals(commitmentAt(F_j, accuser)); // g^{f_j(i)} = Π_m F_j,m^{i^m}
  },
};

/** The party knows its share of the key. */
const KNOWS_SHARE: Check<KeygenParameters> = {
  id: "knows-share",
  needs: [
    { round: PROOF, from: "accused" },
    { round: OPENING, from: "everyone" },
  ],
  holds({ ssid, accused }, view) {
    const openings = view.everyone(OPENING);
    const X_j = publicShare(openings, accused);
    const A_j = Point.fromProto(openings.get(accused)?.schnorrCommitment);
    if (X_j.isIdentity) return false;
    const e = proofChallenge(ssid, openings, { party: accused, X_j, A_j });
    const z = Scalar.fromProto(view.accused(PROOF).response);
    return Point.base.timesPublic(z).equals(A_j.plus(X_j.timesPublic(e))); // g^z = A_j X_j^e
  },
};

function* run(participant: Participant<KeygenParameters>): Steps<KeygenParameters, KeyShare> {
  const { self, parties, pub, ssid, random } = participant;

  // Fig. 6, round 1: sample f_i, rid_i, c_i, τ_i, u_i; broadcast V_i.
  const f_i = Array.from({ length: pub.threshold }, () => Scalar.randomNonZero(random));
  const tau_i = Scalar.randomNonZero(random);
  const evaluate = (party: PartyId): Scalar =>
    f_i.reduceRight((sum, f_im) => scalar(sum * BigInt(party) + f_im), Scalar.zero);
  const opening = create(KeygenOpeningSchema, {
    rid: random.bytes(32),
    chainCode: random.bytes(32),
    coefficients: f_i.map((f_im) => Point.base.times(f_im).toProto()),
    schnorrCommitment: Point.base.times(tau_i).toProto(),
    blinding: random.bytes(32),
  });
  yield* broadcast(COMMITMENT, create(KeygenCommitmentSchema, { hash: commitmentHash(ssid, self, opening) }));
  yield* receive(COMMITMENT);

  // Round 2: open; send f_i(j) to each j.
  yield* broadcast(OPENING, opening);
  yield* sendEach(SHARE, (to) => create(KeygenShareSchema, { share: Scalar.toProto(evaluate(to)) }));
  const openings = yield* receive(OPENING);
  const shares = yield* receive(SHARE);
  yield* verify(OPENS, ON_POLYNOMIAL);

  // Round 3: x_i = Σ_j f_j(i); prove knowledge of it with the nonce committed to in round 1.
  const received = [...shares.values()].map(({ share }) => Scalar.fromProto(share));
  const x_i = Scalar.sum([evaluate(self), ...received]);
  const X_i = Point.base.times(x_i);
  const A_i = Point.fromProto(opening.schnorrCommitment);
  const e = proofChallenge(ssid, openings, { party: self, X_j: X_i, A_j: A_i });
  yield* broadcast(PROOF, create(KeygenProofSchema, { response: Scalar.toProto(scalar(tau_i + e * x_i)) }));
  yield* receive(PROOF);
  yield* verify(KNOWS_SHARE);

  // Round 4: an empty broadcast whose echo covers round 3, so that nobody keeps a key that others refused.
  yield* broadcast(CONFIRMATION, create(KeygenConfirmationSchema));
  yield* receive(CONFIRMATION);

  const publicShares = new Map(parties.map((party) => [party, publicShare(openings, party)]));
  if (publicShares.get(self)?.equals(X_i) !== true) throw new Bug("the own share does not fit the commitments");
  return {
    scheme: pub.scheme,
    threshold: pub.threshold,
    self,
    secretShare: x_i,
    publicShares,
    groupKey: Point.sum([...openings.values()].map(({ coefficients }) => Point.fromProto(coefficients[0]))), // X = Π F_j,0
    chainCode: xor([...openings.values()].map(({ chainCode }) => chainCode)), // c = ⊕ c_j
  };
}

/**
 * Creates a key that exists nowhere: every party ends with one share, and any `threshold` of them sign.
 * Blames: a party whose opening, share or proof is wrong, with evidence.
 */
export const keygen: Protocol<KeygenParameters, undefined, KeyShare> = {
  name: "keygen/1",
  rounds: [COMMITMENT, OPENING, SHARE, PROOF, CONFIRMATION],
  checks: [OPENS, ON_POLYNOMIAL, KNOWS_SHARE],
  shape: ({ threshold }, parties) => ({ parties, threshold, batch: 1 }),
  digest: ({ scheme, threshold, walletId }) => hashTuple("keygen/parameters", [scheme, BigInt(threshold), walletId]),
  run,
};
