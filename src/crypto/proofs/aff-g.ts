/**
 * Π-aff-g: D is an affine operation x·C + y on a ciphertext under the verifier's key, with x ∈ ±2^ℓ in the exponent of X
 * and y ∈ ±2^ℓ' encrypted in Y under the prover's key.
 *
 * @source CGGMP24, Fig. 25
 */
import { create } from "@bufbuild/protobuf";
import { AffGProofSchema, type AffGProof as Message } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Point, scalar } from "../curve.js";
import { Bug } from "../fault.js";
import { inRange, randomBits } from "../modulus.js";
import type { Ciphertext, PaillierKey } from "../paillier.js";
import type { RingPedersenSetup } from "../ring-pedersen.js";
import type { SecurityProfile } from "../security-profile.js";
import { challengeInteger, type ProofContext, sameProfile } from "./context.js";
import { decoded, fields } from "./encoding.js";
import { type Openings, settled, term } from "./openings.js";

export interface Statement {
  /** N0, the verifier's key. */
  readonly key0: PaillierKey;
  /** N1, the prover's key. */
  readonly key1: PaillierKey;
  readonly C: Ciphertext;
  /** D = (x ⊙ C) ⊕ enc_0(y; ρ). */
  readonly D: Ciphertext;
  /** Y = enc_1(y; ρ_y). */
  readonly Y: Ciphertext;
  /** X = g^x. */
  readonly X: Point;
  /** (N̂, s, t) of the verifier. */
  readonly setup: RingPedersenSetup;
}

export interface Witness {
  /** x ∈ ±2^ℓ. */
  readonly x: bigint;
  /** y ∈ ±2^ℓ'. */
  readonly y: bigint;
  readonly rho: bigint;
  readonly rho_y: bigint;
}

export interface Proof {
  readonly S: bigint;
  readonly T: bigint;
  readonly E: bigint;
  readonly F: bigint;
  readonly A: bigint;
  readonly B_x: Point;
  readonly B_y: bigint;
  readonly z1: bigint;
  readonly z2: bigint;
  readonly z3: bigint;
  readonly z4: bigint;
  readonly w: bigint;
  readonly w_y: bigint;
}

type Commitments = Pick<Proof, "S" | "T" | "E" | "F" | "A" | "B_x" | "B_y">;

const g = Point.base;

function challenge(context: ProofContext, statement: Statement, { S, T, E, F, A, B_x, B_y }: Commitments): bigint {
  const { key0, key1, C, D, Y, X, setup } = statement;
  return challengeInteger(context, {
    proof: "aff-g",
    statement: [key0.N, key1.N, C, D, Y, X, setup.item],
    commitments: [S, T, A, B_x, B_y, E, F],
  });
}

export function prove(context: ProofContext, statement: Statement, witness: Witness, random: Random): Proof {
  const { key0, key1, C, setup } = statement;
  const { x, y, rho, rho_y } = witness;
  const { ell, ellPrime, epsilon } = context.profile;
  if (!inRange(x, ell) || !inRange(y, ellPrime)) throw new Bug("the witness of aff-g is out of range");
  const alpha = randomBits(random, ell + epsilon);
  const beta = randomBits(random, ellPrime + epsilon);
  const r = key0.randomNonce(random);
  const r_y = key1.randomNonce(random);
  const gamma = setup.randomWideMask(random);
  const delta = setup.randomWideMask(random);
  const m = setup.randomMask(random);
  const mu = setup.randomMask(random);

  const A = key0.add(key0.scale(C, alpha), key0.encryptWith(beta, r)); // A = (α ⊙ C) ⊕ enc_0(β; r)
  const B_x = g.times(scalar(alpha));
  const B_y = key1.encryptWith(beta, r_y);
  const E = setup.commit(alpha, gamma);
  const S = setup.commit(x, m);
  const F = setup.commit(beta, delta);
  const T = setup.commit(y, mu);
  const e = challenge(context, statement, { S, T, E, F, A, B_x, B_y });
  return {
    S,
    T,
    E,
    F,
    A,
    B_x,
    B_y,
    z1: alpha + e * x,
    z2: beta + e * y,
    z3: gamma + e * m,
    z4: delta + e * mu,
    w: key0.maskNonce(r, rho, e, random), //       w = r ρ^e mod N0
    w_y: key1.maskNonce(r_y, rho_y, e, random), // w_y = r_y ρ_y^e mod N1
  };
}

/** @param gathered takes what the proof claims about ciphertexts, for the caller to decide */
export function verify(context: ProofContext, statement: Statement, proof: Proof, gathered?: Openings): boolean {
  const { key0, key1, C, D, Y, X, setup } = statement;
  const { S, T, E, F, A, B_x, B_y, z1, z2, z3, z4, w, w_y } = proof;
  const { factor, summand, blinding } = fields(context.profile);
  if (!sameProfile(context, key0, key1, setup)) return false;
  if (!factor.admits(z1) || !summand.admits(z2)) return false; // z1 ∈ ±2^(ℓ+ε), z2 ∈ ±2^(ℓ'+ε)
  if (!blinding.admits(z3) || !blinding.admits(z4)) return false;
  if (X.isIdentity || B_x.isIdentity) return false;
  if (!key0.areMembers({ ciphertexts: [C, D, A], nonces: [w] })) return false;
  if (!key1.areMembers({ ciphertexts: [Y, B_y], nonces: [w_y] }) || !setup.areMembers([S, T, E, F])) return false;
  const e = challenge(context, statement, proof);
  return settled(
    gathered,
    (openings) =>
      g.timesPublic(scalar(z1)).equals(B_x.plus(X.timesPublic(scalar(e)))) && // g^z1 = B_x·X^e
      setup.closes(setup.commit(z1, z3), { T: E, S, e }) && //                   ped(z1; z3) = E·S^e
      setup.closes(setup.commit(z2, z4), { T: F, S: T, e }) && //                ped(z2; z4) = F·T^e
      openings.claim(key0, { m: z2, nonce: w, sum: [term(A), term(D, e), term(C, -z1)] }) && // (z1 ⊙ C) ⊕ enc_0(z2; w) = A ⊕ (e ⊙ D)
      openings.claim(key1, { m: z2, nonce: w_y, sum: [term(B_y), term(Y, e)] }), //         enc_1(z2; w_y) = B_y ⊕ (e ⊙ Y)
  );
}

export function encode(profile: SecurityProfile, proof: Proof): Message {
  const { residue, ciphertext, factor, summand, blinding } = fields(profile);
  return create(AffGProofSchema, {
    commitmentFactor: residue.encode(proof.S),
    commitmentSummand: residue.encode(proof.T),
    maskCommitmentFactor: residue.encode(proof.E),
    maskCommitmentSummand: residue.encode(proof.F),
    maskCiphertext: ciphertext.encode(proof.A),
    maskFactor: proof.B_x.toProto(),
    maskSummand: ciphertext.encode(proof.B_y),
    responseFactor: factor.encode(proof.z1),
    responseSummand: summand.encode(proof.z2),
    responseBlindingFactor: blinding.encode(proof.z3),
    responseBlindingSummand: blinding.encode(proof.z4),
    responseNonce: residue.encode(proof.w),
    responseNonceSummand: residue.encode(proof.w_y),
  });
}

export function decode(profile: SecurityProfile, message: Message): Proof | undefined {
  const { residue, ciphertext, factor, summand, blinding } = fields(profile);
  return decoded(() => ({
    S: residue.decode(message.commitmentFactor),
    T: residue.decode(message.commitmentSummand),
    E: residue.decode(message.maskCommitmentFactor),
    F: residue.decode(message.maskCommitmentSummand),
    A: ciphertext.decode(message.maskCiphertext),
    B_x: Point.fromProto(message.maskFactor),
    B_y: ciphertext.decode(message.maskSummand),
    z1: factor.decode(message.responseFactor),
    z2: summand.decode(message.responseSummand),
    z3: blinding.decode(message.responseBlindingFactor),
    z4: blinding.decode(message.responseBlindingSummand),
    w: residue.decode(message.responseNonce),
    w_y: residue.decode(message.responseNonceSummand),
  }));
}
