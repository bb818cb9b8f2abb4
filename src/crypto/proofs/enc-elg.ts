/**
 * Π-enc-elg: the plaintext of C is in ±2^ℓ and equals the one inside the ElGamal commitment (B, X) under A.
 *
 * @source CGGMP24, Fig. 24
 */
import { create } from "@bufbuild/protobuf";
import { EncElgProofSchema, type EncElgProof as Message } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Point, Scalar, scalar } from "../curve.js";
import { Bug } from "../fault.js";
import { inRange, randomBits } from "../modulus.js";
import type { Ciphertext, PaillierKey } from "../paillier.js";
import type { RingPedersenSetup } from "../ring-pedersen.js";
import type { SecurityProfile } from "../security-profile.js";
import { challengeInteger, type ProofContext, sameProfile } from "./context.js";
import { decoded, fields } from "./encoding.js";
import { type Openings, settled, term } from "./openings.js";

export interface Statement {
  /** N0, the prover's key. */
  readonly key: PaillierKey;
  /** C = enc_0(x; ρ). */
  readonly C: Ciphertext;
  readonly A: Point;
  /** B = g^b. */
  readonly B: Point;
  /** X = A^b g^x. */
  readonly X: Point;
  /** (N̂, s, t) of the verifier. */
  readonly setup: RingPedersenSetup;
}

export interface Witness {
  /** x ∈ ±2^ℓ. */
  readonly x: bigint;
  readonly rho: bigint;
  readonly b: Scalar;
}

export interface Proof {
  readonly S: bigint;
  readonly T: bigint;
  readonly D: bigint;
  readonly Y: Point;
  readonly Z: Point;
  readonly z1: bigint;
  readonly w: Scalar;
  readonly z2: bigint;
  readonly z3: bigint;
}

type Commitments = Pick<Proof, "S" | "T" | "D" | "Y" | "Z">;

const g = Point.base;

const challenge = (context: ProofContext, { key, C, A, B, X, setup }: Statement, { S, T, D, Y, Z }: Commitments) =>
  challengeInteger(context, {
    proof: "enc-elg",
    statement: [key.N, C, A, B, X, setup.item],
    commitments: [S, D, Y, Z, T],
  });

export function prove(context: ProofContext, statement: Statement, { x, rho, b }: Witness, random: Random): Proof {
  const { key, A, setup } = statement;
  const { ell, epsilon } = context.profile;
  if (!inRange(x, ell)) throw new Bug("the witness of enc-elg is out of range");
  const mu = setup.randomMask(random);
  const gamma = setup.randomWideMask(random);
  const alpha = randomBits(random, ell + epsilon);
  const beta = Scalar.randomNonZero(random);
  const r = key.randomNonce(random);

  const S = setup.commit(x, mu);
  const D = key.encryptWith(alpha, r);
  const Y = A.times(beta).plus(g.times(scalar(alpha)));
  const Z = g.times(beta);
  const T = setup.commit(alpha, gamma);
  const e = challenge(context, statement, { S, T, D, Y, Z });
  return {
    S,
    T,
    D,
    Y,
    Z,
    z1: alpha + e * x,
    w: scalar(beta + e * b),
    z2: key.maskNonce(r, rho, e, random), // z2 = r ρ^e mod N0
    z3: gamma + e * mu,
  };
}

/** @param gathered takes what the proof claims about ciphertexts, for the caller to decide */
export function verify(context: ProofContext, statement: Statement, proof: Proof, gathered?: Openings): boolean {
  const { key, C, A, B, X, setup } = statement;
  const { S, T, D, Y, Z, z1, w, z2, z3 } = proof;
  const { factor, blinding } = fields(context.profile);
  if (!sameProfile(context, key, setup)) return false;
  if (!factor.admits(z1) || !blinding.admits(z3)) return false; // z1 ∈ ±2^(ℓ+ε)
  if ([A, B, X, Y, Z].some((point) => point.isIdentity)) return false;
  if (!key.areMembers({ ciphertexts: [C, D], nonces: [z2] }) || !setup.areMembers([S, T])) return false;
  const e = challenge(context, statement, proof);
  const e_q = scalar(e);
  const z1_q = scalar(z1);
  return settled(
    gathered,
    (openings) =>
      g.timesPublic(w).equals(Z.plus(B.timesPublic(e_q))) && // g^w = Z·B^e
      A.timesPublic(w)
        .plus(g.timesPublic(z1_q))
        .equals(Y.plus(X.timesPublic(e_q))) && //               A^w·g^z1 = Y·X^e
      setup.closes(setup.commit(z1, z3), { T, S, e }) && //     ped(z1; z3) = T·S^e
      openings.claim(key, { m: z1, nonce: z2, sum: [term(D), term(C, e)] }), // enc_0(z1; z2) = D ⊕ (e ⊙ C)
  );
}

export function encode(profile: SecurityProfile, proof: Proof): Message {
  const { residue, ciphertext, factor, blinding } = fields(profile);
  return create(EncElgProofSchema, {
    commitment: residue.encode(proof.S),
    maskCommitment: residue.encode(proof.T),
    maskCiphertext: ciphertext.encode(proof.D),
    maskMessage: proof.Y.toProto(),
    maskExponent: proof.Z.toProto(),
    response: factor.encode(proof.z1),
    responseExponent: Scalar.toProto(proof.w),
    responseNonce: residue.encode(proof.z2),
    responseBlinding: blinding.encode(proof.z3),
  });
}

export function decode(profile: SecurityProfile, message: Message): Proof | undefined {
  const { residue, ciphertext, factor, blinding } = fields(profile);
  return decoded(() => ({
    S: residue.decode(message.commitment),
    T: residue.decode(message.maskCommitment),
    D: ciphertext.decode(message.maskCiphertext),
    Y: Point.fromProto(message.maskMessage),
    Z: Point.fromProto(message.maskExponent),
    z1: factor.decode(message.response),
    w: Scalar.fromProto(message.responseExponent),
    z2: residue.decode(message.responseNonce),
    z3: blinding.decode(message.responseBlinding),
  }));
}
