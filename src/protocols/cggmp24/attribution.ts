/**
 * Who broke a presigning whose shares do not fit together. Fig. 9 and section 4.3.1 are one argument with two sets of
 * names; `Failure` holds the names. All products of round 2 are open by now (step 4). In step 5 everybody proves that
 * its share is what the products for it decrypt to; if all did, step 6 proves the products. The statements that all of
 * step 5 and 6 prove together imply the equation that failed, so somebody's proof fails.
 */
import { create } from "@bufbuild/protobuf";
import {
  type PresignCommitments,
  PresignDecryptionSchema,
  type PresignMask,
  PresignProductProofsSchema,
  type PresignShare,
  type PresignVerdict,
} from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import type { Point, Scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import type { Ciphertext, PaillierSecret } from "../../crypto/paillier.js";
import * as affGStar from "../../crypto/proofs/aff-g-star.js";
import * as dec from "../../crypto/proofs/dec.js";
import type { PartyId } from "../../session/party.js";
import {
  broadcast,
  type Check,
  type Facts,
  type Participant,
  receive,
  type Steps,
  type View,
  verify,
} from "../../session/protocol.js";
import { carries } from "./carried-proof.js";
import {
  accused,
  auxOf,
  COMMITMENTS,
  DECRYPTION,
  everyone,
  MASK,
  type Outcome,
  of,
  outcomeOf,
  PRODUCT_PROOFS,
  type PresignParameters,
  type ProductPair,
  positionOf,
  productHash,
  proofContext,
  readCiphertext,
  readProduct,
  SHARE,
  VERDICT,
} from "./presign-rounds.js";

/** The broadcasts of a session that the statements read. */
export interface Scene {
  readonly pub: PresignParameters;
  readonly ssid: Uint8Array;
  readonly parties: readonly PartyId[];
  readonly commitments: ReadonlyMap<PartyId, PresignCommitments>;
  readonly masks: ReadonlyMap<PartyId, PresignMask>;
  readonly shares: ReadonlyMap<PartyId, PresignShare>;
}

/** One of the two ways in which the shares of step 3 may not fit together. */
export interface Failure {
  readonly outcome: Exclude<Outcome, "sound">;
  /** Which products are opened. */
  readonly factor: "mask" | "key";
  /** X = g^x for the factor x of party j. */
  X(scene: Scene, party: PartyId): Point;
  G(scene: Scene): Point;
  /** S = G^y for the share y that party j published. */
  S(scene: Scene, party: PartyId): Point;
}

/** One's own products and the randomness that proves them. */
export interface OwnProduct extends ProductPair {
  /** β_ji. */
  readonly y: bigint;
  /** Of the product. */
  readonly rho: bigint;
  /** Of the summand. */
  readonly rho_y: bigint;
}

/** What the party needs to prove its own honesty. */
export interface Alibi {
  readonly paillier: PaillierSecret;
  /** x: γ_i or w_i. */
  readonly x: Scalar;
  readonly products: ReadonlyMap<PartyId, OwnProduct>;
}

const sceneNeeds = [everyone(COMMITMENTS), everyone(MASK), everyone(SHARE)];
const sceneOf = ({ pub, ssid, parties }: Facts<PresignParameters>, view: View): Scene => ({
  pub,
  ssid,
  parties,
  commitments: view.everyone(COMMITMENTS),
  masks: view.everyone(MASK),
  shares: view.everyone(SHARE),
});

/** Step 4: nothing is opened when the shares fit; otherwise exactly the products whose hashes stand in step 2. */
export const OPENS_PRODUCTS: Check<PresignParameters> = {
  id: "opens-products",
  needs: [accused(VERDICT), everyone(MASK), everyone(SHARE)],
  holds(facts, view) {
    const { pub, ssid, parties, accused: maker } = facts;
    const { opened } = view.accused(VERDICT);
    const outcome = outcomeOf(pub.key.groupKey, view.everyone(SHARE));
    if (outcome === "sound") return opened.length === 0;
    if (opened.length !== parties.length - 1) return false;
    const factor = outcome === "failed-nonce" ? "mask" : "key";
    const hashes = of(view.everyone(MASK), maker).products;
    return parties
      .filter((party) => party !== maker)
      .every((target, i) => {
        const hash = productHash(ssid, { factor, maker, target }, opened[i]);
        return (
          equalBytes(hash, hashes[i]?.[factor] ?? new Uint8Array()) &&
          readProduct(pub, { maker, target }, opened[i]) !== undefined
        );
      });
  },
};

/** D_jl and F_jl as l opened them for j. */
function openedPair(
  { pub, parties }: Scene,
  verdicts: ReadonlyMap<PartyId, PresignVerdict>,
  { maker, target }: { readonly maker: PartyId; readonly target: PartyId },
): ProductPair | undefined {
  return readProduct(pub, { maker, target }, of(verdicts, maker).opened[positionOf(parties, maker, target)]);
}

/** Σ_l (D_jl ⊖ F_lj) under N_j; undefined when something that was opened is no ciphertext. */
function balance(scene: Scene, verdicts: ReadonlyMap<PartyId, PresignVerdict>, party: PartyId): Ciphertext | undefined {
  const { paillier } = auxOf(scene.pub, party);
  let sum: Ciphertext | undefined;
  for (const other of scene.parties) {
    if (other === party) continue;
    const received = openedPair(scene, verdicts, { maker: other, target: party });
    const made = openedPair(scene, verdicts, { maker: party, target: other });
    if (received === undefined || made === undefined) return undefined;
    const term = paillier.subtract(received.product, made.summand);
    sum = sum === undefined ? term : paillier.add(sum, term);
  }
  return sum;
}

/** The statement of party j's Π-dec: S = G^y for the y that (x ⊙ K_j) ⊕ Σ_l (D_jl ⊖ F_lj) encrypts. */
function decryptionStatement(
  failure: Failure,
  scene: Scene,
  { verdicts, party }: { readonly verdicts: ReadonlyMap<PartyId, PresignVerdict>; readonly party: PartyId },
): dec.Statement | undefined {
  const key = auxOf(scene.pub, party).paillier;
  const K = readCiphertext(key, of(scene.commitments, party).nonceCiphertext);
  const D = balance(scene, verdicts, party);
  if (K === undefined || D === undefined) return undefined;
  const parties = scene.parties.length;
  return { key, K, X: failure.X(scene, party), D, S: failure.S(scene, party), G: failure.G(scene), parties };
}

/** The statement of l's Π-aff-g* for one of its products. */
function productStatement(
  failure: Failure,
  scene: Scene,
  { maker, target, pair }: { readonly maker: PartyId; readonly target: PartyId; readonly pair: ProductPair },
): affGStar.Statement | undefined {
  const key0 = auxOf(scene.pub, target).paillier;
  const C = readCiphertext(key0, of(scene.commitments, target).nonceCiphertext);
  if (C === undefined) return undefined;
  const key1 = auxOf(scene.pub, maker).paillier;
  return { key0, key1, C, D: pair.product, Y: pair.summand, X: failure.X(scene, maker) };
}

/** The two checks and the two rounds of one failure. */
export function attribution(failure: Failure) {
  const label = (proof: string): string => `${failure.outcome}/${proof}`;
  const applies = (scene: Scene): boolean => outcomeOf(scene.pub.key.groupKey, scene.shares) === failure.outcome;

  /** Step 5: the published share is what the products decrypt to. */
  const DECRYPTS: Check<PresignParameters> = {
    id: label("decryption"),
    needs: [accused(DECRYPTION), everyone(VERDICT), ...sceneNeeds],
    holds(facts, view) {
      const scene = sceneOf(facts, view);
      if (!applies(scene)) return true; // without this failure nobody owes a proof
      const { profile } = facts.pub.aux;
      const statement = decryptionStatement(failure, scene, {
        verdicts: view.everyone(VERDICT),
        party: facts.accused,
      });
      if (statement === undefined) return true; // then a step before convicts whoever opened it
      const context = proofContext(facts, label("decryption"), { prover: facts.accused, verifier: 0 });
      return carries(profile, {
        message: view.accused(DECRYPTION).proof,
        decode: (_, message) => dec.decode(profile, message, scene.parties.length),
        verify: (proof) => dec.verify(context, statement, proof),
      });
    },
  };

  /** Step 6: every product is the factor in X times k_j, plus what the summand encrypts. */
  const MULTIPLIES: Check<PresignParameters> = {
    id: label("product"),
    needs: [accused(PRODUCT_PROOFS), everyone(VERDICT), ...sceneNeeds],
    holds(facts, view) {
      const scene = sceneOf(facts, view);
      if (!applies(scene)) return true;
      const { profile } = facts.pub.aux;
      const maker = facts.accused;
      const { proofs } = view.accused(PRODUCT_PROOFS);
      return scene.parties
        .filter((party) => party !== maker)
        .every((target, i) => {
          const pair = openedPair(scene, view.everyone(VERDICT), { maker, target });
          const statement = pair && productStatement(failure, scene, { maker, target, pair });
          if (statement === undefined) return true;
          const context = proofContext(facts, `${label("product")}/${target}`, { prover: maker, verifier: 0 });
          return carries(profile, {
            message: proofs[i],
            decode: affGStar.decode,
            verify: (proof) => affGStar.verify(context, statement, proof),
          });
        });
    },
  };

  /** Ends in an abort that names somebody. */
  function* attribute(
    participant: Participant<PresignParameters>,
    scene: Scene,
    alibi: Alibi & { readonly verdicts: ReadonlyMap<PartyId, PresignVerdict> },
  ): Steps<PresignParameters, never> {
    const { self, others, random } = participant;
    const { profile } = scene.pub.aux;
    const { paillier, x, verdicts } = alibi;

    // Fig. 9, step 1: prove the own share.
    const statement = decryptionStatement(failure, scene, { verdicts, party: self });
    if (statement === undefined) throw new Bug("opened products are verified ciphertexts");
    const C = paillier.add(paillier.scale(statement.K, x), statement.D); // C = (x ⊙ K_i) ⊕ Σ_l (D_il ⊖ F_li)
    const witness = { x, y: paillier.decrypt(C), rho: paillier.extractNonce(C) };
    const context = proofContext(scene, label("decryption"), { prover: self, verifier: 0 });
    const decryption = dec.prove(context, { ...statement, key: paillier }, witness, random);
    yield* broadcast(
      DECRYPTION,
      create(PresignDecryptionSchema, { proof: dec.encode(profile, decryption, scene.parties.length) }),
    );
    yield* receive(DECRYPTION);
    yield* verify(DECRYPTS);

    // Fig. 9, step 2: prove the own products.
    const proofs = others.map((target) => {
      const pair = of(alibi.products, target);
      const claim = productStatement(failure, scene, { maker: self, target, pair });
      if (claim === undefined) throw new Bug("a verified nonce ciphertext is readable", { target });
      const place = proofContext(scene, `${label("product")}/${target}`, { prover: self, verifier: 0 });
      const { y, rho, rho_y } = pair;
      return affGStar.encode(
        profile,
        affGStar.prove(place, { ...claim, key1: paillier }, { x, y, rho, rho_y }, random),
      );
    });
    yield* broadcast(PRODUCT_PROOFS, create(PresignProductProofsSchema, { proofs }));
    yield* receive(PRODUCT_PROOFS);
    yield* verify(MULTIPLIES);
    throw new Bug("the shares do not fit together and everybody proved to be honest");
  }

  return { checks: [DECRYPTS, MULTIPLIES], attribute };
}
