/**
 * Presigning: CGGMP24 (ePrint 2021/060, revision of 2024-10-21), Fig. 8, with the failing paths of Fig. 9 and section
 * 4.3.1 as its continuation. The session's parties are the signing set S; w_i = λ_i(S) x_i.
 */
import { create } from "@bufbuild/protobuf";
import {
  PresignCommitmentProofsSchema,
  PresignCommitmentsSchema,
  PresignMaskSchema,
  PresignProductsSchema,
  PresignShareSchema,
  PresignVerdictSchema,
  type Product,
  ProductSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import { lagrangeCoefficient, Point, Scalar, scalar } from "../../crypto/curve.js";
import { Bug, InvalidInput } from "../../crypto/fault.js";
import { randomBits } from "../../crypto/modulus.js";
import type { PaillierSecret } from "../../crypto/paillier.js";
import * as affG from "../../crypto/proofs/aff-g.js";
import * as elog from "../../crypto/proofs/elog.js";
import * as encElg from "../../crypto/proofs/enc-elg.js";
import { Openings } from "../../crypto/proofs/openings.js";
import { hashTuple } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import {
  broadcast,
  type Check,
  type Participant,
  type Protocol,
  receive,
  type Steps,
  sendEach,
  verify,
} from "../../session/protocol.js";
import { keyDigest } from "../key-share.js";
import { attribution, OPENS_PRODUCTS, type OwnProduct, type Scene } from "./attribution.js";
import { auxItem, epochId } from "./aux-record.js";
import { carries } from "./carried-proof.js";
import { failedChi } from "./failed-chi.js";
import { failedNonce } from "./failed-nonce.js";
import {
  accused,
  accuser,
  additiveShare,
  auxOf,
  COMMITMENT_PROOFS,
  COMMITMENTS,
  DECRYPTION,
  everyone,
  jointNonce,
  jointProduct,
  MASK,
  MAX_SIGNERS,
  of,
  outcomeOf,
  PRODUCT_PROOFS,
  PRODUCTS,
  type PresignParameters,
  positionOf,
  productHash,
  proofContext,
  readCiphertext,
  readCommitments,
  readProduct,
  SHARE,
  VERDICT,
} from "./presign-rounds.js";
import { Presignature, presignatureId } from "./presignature.js";

export type { PresignParameters } from "./presign-rounds.js";

/** What one signer brings. */
export interface PresignSecret {
  /** x_i. */
  readonly secretShare: Scalar;
  readonly paillier: PaillierSecret;
}

/** K and A hold one k, G and B hold one γ, both small. Fig. 8, round 2, step 1. */
const COMMITS: Check<PresignParameters> = {
  id: "commitment-proofs",
  needs: [accused(COMMITMENT_PROOFS), accused(COMMITMENTS)],
  holds(facts, view) {
    const { pub, accused: prover, accuser: verifier } = facts;
    const { profile } = pub.aux;
    const key = auxOf(pub, prover).paillier;
    const setup = auxOf(pub, verifier).ringPedersen;
    const commitments = view.accused(COMMITMENTS);
    const proofs = view.accused(COMMITMENT_PROOFS);
    const { Y, A, B } = readCommitments(commitments);
    const K = readCiphertext(key, commitments.nonceCiphertext);
    const G = readCiphertext(key, commitments.maskCiphertext);
    if (K === undefined || G === undefined) return false;
    const at = (label: string) => proofContext(facts, label, { prover, verifier });
    const openings = new Openings();
    return (
      carries(profile, {
        message: proofs.nonce,
        decode: encElg.decode,
        verify: (proof) => encElg.verify(at("nonce"), { key, C: K, A: Y, B: A[0], X: A[1], setup }, proof, openings),
      }) &&
      carries(profile, {
        message: proofs.mask,
        decode: encElg.decode,
        verify: (proof) => encElg.verify(at("mask"), { key, C: G, A: Y, B: B[0], X: B[1], setup }, proof, openings),
      }) &&
      openings.hold()
    );
  },
};

/** Γ_j opens B_j. Fig. 8, round 3, step 1. */
const OPENS_MASK: Check<PresignParameters> = {
  id: "mask-opens-commitment",
  needs: [accused(MASK), accused(COMMITMENTS)],
  holds(facts, view) {
    const { mask, proof } = view.accused(MASK);
    const { Y: X, B } = readCommitments(view.accused(COMMITMENTS));
    const statement = { L: B[0], M: B[1], X, Y: Point.fromProto(mask), h: Point.base };
    const context = proofContext(facts, MASK.id, { prover: facts.accused, verifier: 0 });
    return carries(facts.pub.aux.profile, {
      message: proof,
      decode: (_, message) => elog.decode(message),
      verify: (opening) => elog.verify(context, statement, opening),
    });
  },
};

/** The products for the accuser are those whose hashes were broadcast: what is opened later is what was sent. */
const ANNOUNCED: Check<PresignParameters> = {
  id: "products-announced",
  needs: [accused(PRODUCTS), accused(MASK)],
  holds({ ssid, parties, accused: maker, accuser: target }, view) {
    const { mask, key } = view.accused(PRODUCTS);
    const hashes = view.accused(MASK).products[positionOf(parties, maker, target)];
    return (
      hashes !== undefined &&
      equalBytes(hashes.mask, productHash(ssid, { factor: "mask", maker, target }, mask)) &&
      equalBytes(hashes.key, productHash(ssid, { factor: "key", maker, target }, key))
    );
  },
};

/** D is γ_j ⊙ K_i plus what F encrypts, D̂ is w_j ⊙ K_i plus what F̂ encrypts. Fig. 8, round 3, step 1. */
const MULTIPLIES: Check<PresignParameters> = {
  id: "product-proofs",
  needs: [accused(PRODUCTS), accused(MASK), accuser(COMMITMENTS)],
  holds(facts, view) {
    const { pub, parties, accused: maker, accuser: target } = facts;
    const { profile } = pub.aux;
    const message = view.accused(PRODUCTS);
    const { paillier: key0, ringPedersen: setup } = auxOf(pub, target);
    const key1 = auxOf(pub, maker).paillier;
    const mask = readProduct(pub, { maker, target }, message.mask);
    const key = readProduct(pub, { maker, target }, message.key);
    if (mask === undefined || key === undefined) return false;
    const C = readCiphertext(key0, view.accuser(COMMITMENTS).nonceCiphertext);
    if (C === undefined) return true; // an accuser whose own ciphertext is none proves nothing
    const at = (label: string) => proofContext(facts, label, { prover: maker, verifier: target });
    const openings = new Openings();
    const Gamma_j = Point.fromProto(view.accused(MASK).mask);
    const W_j = additiveShare(pub, parties, maker);
    return (
      carries(profile, {
        message: message.maskProof,
        decode: affG.decode,
        verify: (proof) => {
          const statement = { key0, key1, C, D: mask.product, Y: mask.summand, X: Gamma_j, setup };
          return affG.verify(at("mask-product"), statement, proof, openings);
        },
      }) &&
      carries(profile, {
        message: message.keyProof,
        decode: affG.decode,
        verify: (proof) => {
          const statement = { key0, key1, C, D: key.product, Y: key.summand, X: W_j, setup };
          return affG.verify(at("key-product"), statement, proof, openings);
        },
      }) &&
      openings.hold()
    );
  },
};

/** Δ_j opens A_j to the base Γ. Fig. 8, output, step 1. */
const OPENS_NONCE: Check<PresignParameters> = {
  id: "nonce-opens-commitment",
  needs: [accused(SHARE), accused(COMMITMENTS), everyone(MASK)],
  holds(facts, view) {
    const { nonce, proof } = view.accused(SHARE);
    const { Y: X, A } = readCommitments(view.accused(COMMITMENTS));
    const statement = { L: A[0], M: A[1], X, Y: Point.fromProto(nonce), h: jointNonce(view.everyone(MASK)) };
    const context = proofContext(facts, SHARE.id, { prover: facts.accused, verifier: 0 });
    return carries(facts.pub.aux.profile, {
      message: proof,
      decode: (_, message) => elog.decode(message),
      verify: (opening) => elog.verify(context, statement, opening),
    });
  },
};

const nonceFailure = attribution(failedNonce);
const chiFailure = attribution(failedChi);

function validate(pub: PresignParameters, signers: readonly PartyId[], paillier: PaillierSecret, self: PartyId): void {
  if (pub.key.scheme !== "cggmp24") throw new InvalidInput("scheme", "a FROST key is never used for ECDSA");
  if (signers.length !== pub.key.threshold || signers.length > MAX_SIGNERS || signers.length < 2) {
    throw new InvalidInput("signing-set", "exactly the threshold of holders presigns", { signers });
  }
  for (const party of signers) {
    auxOf(pub, party);
    additiveShare(pub, signers, party);
  }
  if (auxOf(pub, self).paillier.N !== paillier.N) {
    throw new InvalidInput("aux-info", "the Paillier key is of another epoch", { self });
  }
}

function* run(
  participant: Participant<PresignParameters>,
  { secretShare, paillier }: PresignSecret,
): Steps<PresignParameters, Presignature> {
  const { self, parties, others, pub, ssid, random } = participant;
  const { profile } = pub.aux;
  validate(pub, parties, paillier, self);
  const w_i = Scalar.times(lagrangeCoefficient(self, parties), secretShare); // w_i = λ_i(S) x_i
  const at = (label: string, verifier: PartyId | 0) => proofContext(participant, label, { prover: self, verifier });
  const bytes = (ciphertext: bigint) => paillier.ciphertextToBytes(ciphertext);

  // Fig. 8, round 1, step 1: k_i, γ_i with their Paillier and ElGamal commitments.
  const k_i = Scalar.randomNonZero(random);
  const gamma_i = Scalar.randomNonZero(random);
  const K_i = paillier.encrypt(k_i, random);
  const G_i = paillier.encrypt(gamma_i, random);
  const Y_i = Point.base.times(Scalar.randomNonZero(random));
  const a_i = Scalar.randomNonZero(random);
  const b_i = Scalar.randomNonZero(random);
  const A_i = [Point.base.times(a_i), Y_i.times(a_i).plus(Point.base.times(k_i))] as const; //     (g^a, Y^a g^k)
  const B_i = [Point.base.times(b_i), Y_i.times(b_i).plus(Point.base.times(gamma_i))] as const; // (g^b, Y^b g^γ)
  yield* broadcast(
    COMMITMENTS,
    create(PresignCommitmentsSchema, {
      nonceCiphertext: bytes(K_i.ciphertext),
      maskCiphertext: bytes(G_i.ciphertext),
      base: Y_i.toProto(),
      nonceCommitment: { blinding: A_i[0].toProto(), value: A_i[1].toProto() },
      maskCommitment: { blinding: B_i[0].toProto(), value: B_i[1].toProto() },
    }),
  );

  // Round 1, step 2: Π-enc-elg for each j.
  yield* sendEach(COMMITMENT_PROOFS, (to) => {
    const setup = auxOf(pub, to).ringPedersen;
    const nonce = encElg.prove(
      at("nonce", to),
      { key: paillier, C: K_i.ciphertext, A: Y_i, B: A_i[0], X: A_i[1], setup },
      { x: k_i, rho: K_i.nonce, b: a_i },
      random,
    );
    const mask = encElg.prove(
      at("mask", to),
      { key: paillier, C: G_i.ciphertext, A: Y_i, B: B_i[0], X: B_i[1], setup },
      { x: gamma_i, rho: G_i.nonce, b: b_i },
      random,
    );
    return create(PresignCommitmentProofsSchema, {
      nonce: encElg.encode(profile, nonce),
      mask: encElg.encode(profile, mask),
    });
  });
  const commitments = yield* receive(COMMITMENTS);
  yield* receive(COMMITMENT_PROOFS);
  yield* verify(COMMITS);

  // Round 2, step 2: Γ_i; for each j the products D, F of γ_i and D̂, F̂ of w_i with k_j.
  const Gamma_i = Point.base.times(gamma_i);
  const opensMask = elog.prove(
    at(MASK.id, 0),
    { L: B_i[0], M: B_i[1], X: Y_i, Y: Gamma_i, h: Point.base },
    { y: gamma_i, lambda: b_i },
    random,
  );
  const nonceOf = (party: PartyId) => {
    const K_j = readCiphertext(auxOf(pub, party).paillier, of(commitments, party).nonceCiphertext);
    if (K_j === undefined) throw new Bug("a verified nonce ciphertext is readable", { party });
    return K_j;
  };
  const multiply = (x: Scalar, party: PartyId): OwnProduct => {
    const key_j = auxOf(pub, party).paillier;
    const beta = randomBits(random, profile.ellPrime);
    const masked = key_j.encrypt(beta, random);
    const F = paillier.encrypt(beta, random); // F_ji = enc_i(β; r)
    const D = key_j.add(key_j.scale(nonceOf(party), x), masked.ciphertext); // D_ji = (x ⊙ K_j) ⊕ enc_j(β; s)
    return { product: D, summand: F.ciphertext, y: beta, rho: masked.nonce, rho_y: F.nonce };
  };
  const maskProducts = new Map(others.map((party) => [party, multiply(gamma_i, party)]));
  const keyProducts = new Map(others.map((party) => [party, multiply(w_i, party)]));
  const message = ({ product, summand }: OwnProduct, target: PartyId): Product =>
    create(ProductSchema, {
      product: auxOf(pub, target).paillier.ciphertextToBytes(product),
      summand: bytes(summand),
    });
  yield* broadcast(
    MASK,
    create(PresignMaskSchema, {
      mask: Gamma_i.toProto(),
      proof: elog.encode(opensMask),
      products: others.map((target) => ({
        mask: productHash(ssid, { factor: "mask", maker: self, target }, message(of(maskProducts, target), target)),
        key: productHash(ssid, { factor: "key", maker: self, target }, message(of(keyProducts, target), target)),
      })),
    }),
  );

  // Round 2, step 3: Π-aff-g of both for j.
  const W_i = additiveShare(pub, parties, self);
  yield* sendEach(PRODUCTS, (to) => {
    const { paillier: key0, ringPedersen: setup } = auxOf(pub, to);
    const shown = (label: string, { x, X, made }: { x: Scalar; X: Point; made: OwnProduct }) => {
      const statement = { key0, key1: paillier, C: nonceOf(to), D: made.product, Y: made.summand, X, setup };
      const { y, rho, rho_y } = made;
      return affG.encode(profile, affG.prove(at(label, to), statement, { x, y, rho, rho_y }, random));
    };
    return create(PresignProductsSchema, {
      mask: message(of(maskProducts, to), to),
      key: message(of(keyProducts, to), to),
      maskProof: shown("mask-product", { x: gamma_i, X: Gamma_i, made: of(maskProducts, to) }),
      keyProof: shown("key-product", { x: w_i, X: W_i, made: of(keyProducts, to) }),
    });
  });
  const masks = yield* receive(MASK);
  const products = yield* receive(PRODUCTS);
  yield* verify(OPENS_MASK, ANNOUNCED, MULTIPLIES);

  // Round 3, step 2: Γ = Π Γ_j; δ_i, χ_i, Δ_i, S_i.
  const Gamma = jointNonce(masks);
  if (Gamma.isIdentity) throw new Bug("committed masks cancel out, which has probability 1/q");
  const share = (x: Scalar, own: ReadonlyMap<PartyId, OwnProduct>, factor: "mask" | "key"): Scalar => {
    let sum = x * k_i;
    for (const [target, pair] of own) {
      const received = readProduct(pub, { maker: target, target: self }, of(products, target)[factor]);
      if (received === undefined) throw new Bug("a verified product is readable", { target });
      sum += paillier.decrypt(received.product) - pair.y; // x_i k_i + Σ_j (α_ij - β_ji)
    }
    return scalar(sum);
  };
  const delta_i = share(gamma_i, maskProducts, "mask");
  const chi_i = share(w_i, keyProducts, "key");
  const Delta_i = Gamma.times(k_i);
  const opensNonce = elog.prove(
    at(SHARE.id, 0),
    { L: A_i[0], M: A_i[1], X: Y_i, Y: Delta_i, h: Gamma },
    { y: k_i, lambda: a_i },
    random,
  );
  yield* broadcast(
    SHARE,
    create(PresignShareSchema, {
      productShare: Scalar.toProto(delta_i),
      nonce: Delta_i.toProto(),
      key: Gamma.times(chi_i).toProto(), // S_i = Γ^{χ_i}
      proof: elog.encode(opensNonce),
    }),
  );
  const shares = yield* receive(SHARE);
  yield* verify(OPENS_NONCE);

  // Output: δ ≠ 0, g^δ = Π Δ_j, X^δ = Π S_j. Everybody says so, or opens its products; the echo of that broadcast
  // shows that all saw the same shares.
  const outcome = outcomeOf(pub.key.groupKey, shares);
  const opened = outcome === "failed-nonce" ? maskProducts : keyProducts;
  yield* broadcast(
    VERDICT,
    create(PresignVerdictSchema, {
      opened: outcome === "sound" ? [] : others.map((target) => message(of(opened, target), target)),
    }),
  );
  const verdicts = yield* receive(VERDICT);
  yield* verify(OPENS_PRODUCTS);

  if (outcome !== "sound") {
    const scene: Scene = { pub, ssid, parties, commitments, masks, shares };
    if (outcome === "failed-nonce") {
      return yield* nonceFailure.attribute(participant, scene, {
        paillier,
        x: gamma_i,
        products: maskProducts,
        verdicts,
      });
    }
    return yield* chiFailure.attribute(participant, scene, { paillier, x: w_i, products: keyProducts, verdicts });
  }

  // k̃_i = k_i/δ, χ̃_i = χ_i/δ, and for all j Δ̃_j = Δ_j^{1/δ}, S̃_j = S_j^{1/δ}. What else was drawn ends here with
  // this generator; BigInt cannot be erased, only dropped.
  const inverse = Scalar.invert(jointProduct(shares));
  const fields = {
    keyDigest: keyDigest(pub.key),
    epoch: epochId(pub.key, pub.aux),
    nonce: Gamma,
    commitments: new Map(
      [...shares].map(([party, { nonce, key }]) => [
        party,
        {
          nonce: Point.fromProto(nonce).timesPublic(inverse),
          key: Point.fromProto(key).timesPublic(inverse),
        },
      ]),
    ),
  };
  return new Presignature(
    self,
    { id: presignatureId(fields), ...fields },
    { nonceShare: Scalar.times(k_i, inverse), keyShare: Scalar.times(chi_i, inverse) },
  );
}

/**
 * Makes one presignature with exactly `threshold` holders of a CGGMP24 key.
 * Blames: whoever's commitments, products, shares or proofs are wrong, with evidence; if the shares do not fit
 * together although each passed its own checks, two more rounds find out who lied.
 */
export const presign: Protocol<PresignParameters, PresignSecret, Presignature> = {
  name: "cggmp24-presign/1",
  rounds: [COMMITMENTS, COMMITMENT_PROOFS, MASK, PRODUCTS, SHARE, VERDICT, DECRYPTION, PRODUCT_PROOFS],
  checks: [
    COMMITS,
    OPENS_MASK,
    ANNOUNCED,
    MULTIPLIES,
    OPENS_NONCE,
    OPENS_PRODUCTS,
    ...nonceFailure.checks,
    ...chiFailure.checks,
  ],
  shape: ({ key }, parties) => ({ parties, threshold: key.threshold, batch: 1 }),
  digest: ({ key, aux }) => hashTuple("presign/parameters", [keyDigest(key), auxItem(aux)]),
  run,
};
