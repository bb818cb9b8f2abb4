/**
 * Π-fac: both factors of N are smaller than √N·2^(ℓ+ε), so neither is small. Sent to each verifier under its own
 * parameters, and only after those have passed Π-prm: P and Q hide p and q only if s lies in the group of t.
 *
 * @source CGGMP24, Fig. 26
 */
import { create } from "@bufbuild/protobuf";
import { FacProofSchema, type FacProof as Message } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { randomBelow, squareRoot } from "../modulus.js";
import type { PaillierKey } from "../paillier.js";
import type { RingPedersenSetup } from "../ring-pedersen.js";
import type { SecurityProfile } from "../security-profile.js";
import { challengeInteger, type ProofContext, sameProfile } from "./context.js";
import { decoded, fields } from "./encoding.js";

export interface Statement {
  /** N, the prover's key. */
  readonly key: PaillierKey;
  /** (N̂, s, t) of the verifier. */
  readonly setup: RingPedersenSetup;
}

export interface Witness {
  readonly p: bigint;
  readonly q: bigint;
}

export interface Proof {
  readonly P: bigint;
  readonly Q: bigint;
  readonly A: bigint;
  readonly B: bigint;
  readonly T: bigint;
  readonly z1: bigint;
  readonly z2: bigint;
  readonly w1: bigint;
  readonly w2: bigint;
  readonly v: bigint;
}

type Commitments = Pick<Proof, "P" | "Q" | "A" | "B" | "T">;

/** √N·2^(ℓ+ε). */
function primeBound(N: bigint, { ell, epsilon }: SecurityProfile): bigint {
  return squareRoot(N) << BigInt(ell + epsilon);
}

/** e ∈ ±2^ℓ. */
function challenge(context: ProofContext, { key, setup }: Statement, { P, Q, A, B, T }: Commitments): bigint {
  return challengeInteger(
    context,
    { proof: "fac", statement: [key.N, setup.item], commitments: [P, Q, A, B, T] },
    1n << BigInt(context.profile.ell),
  );
}

export function prove(context: ProofContext, statement: Statement, { p, q }: Witness, random: Random): Proof {
  const { key, setup } = statement;
  const { ell, epsilon } = context.profile;
  const bound = primeBound(key.N, context.profile);
  const alpha = randomBelow(random, bound);
  const beta = randomBelow(random, bound);
  const mu = setup.randomMask(random);
  const nu = setup.randomMask(random);
  const x = setup.randomWideMask(random);
  const y = setup.randomWideMask(random);
  const r = randomBelow(random, (key.N * setup.N) << BigInt(ell + epsilon));

  const P = setup.commit(p, mu);
  const Q = setup.commit(q, nu);
  const A = setup.commit(alpha, x);
  const B = setup.commit(beta, y);
  const T = setup.times(setup.power(Q, alpha), setup.power(setup.t, r)); // T = Q^α t^r
  const e = challenge(context, statement, { P, Q, A, B, T });
  return {
    P,
    Q,
    A,
    B,
    T,
    z1: alpha + e * p,
    z2: beta + e * q,
    w1: x + e * mu,
    w2: y + e * nu,
    v: r - e * nu * p,
  };
}

export function verify(context: ProofContext, statement: Statement, proof: Proof): boolean {
  const { key, setup } = statement;
  const { P, Q, A, B, T, z1, z2, w1, w2, v } = proof;
  const { blinding, product } = fields(context.profile);
  if (!sameProfile(context, key, setup)) return false;
  const bound = primeBound(key.N, context.profile);
  if (z1 < -bound || z1 > bound || z2 < -bound || z2 > bound) return false; // z1, z2 ∈ ±√N·2^(ℓ+ε)
  if (!blinding.admits(w1) || !blinding.admits(w2) || !product.admits(v)) return false;
  if (!setup.areMembers([P, Q, A, B, T])) return false;
  const e = challenge(context, statement, proof);
  const s_N = setup.commit(key.N, 0n);
  return (
    setup.closes(setup.commit(z1, w1), { T: A, S: P, e }) && // ped(z1; w1) = A·P^e
    setup.closes(setup.commit(z2, w2), { T: B, S: Q, e }) && // ped(z2; w2) = B·Q^e
    setup.closes(setup.times(setup.power(Q, z1), setup.power(setup.t, v)), { T, S: s_N, e }) // Q^z1·t^v = T·(s^N)^e
  );
}

export function encode(profile: SecurityProfile, proof: Proof): Message {
  const { residue, prime, blinding, product } = fields(profile);
  return create(FacProofSchema, {
    commitmentP: residue.encode(proof.P),
    commitmentQ: residue.encode(proof.Q),
    maskCommitmentP: residue.encode(proof.A),
    maskCommitmentQ: residue.encode(proof.B),
    maskProduct: residue.encode(proof.T),
    responseP: prime.encode(proof.z1),
    responseQ: prime.encode(proof.z2),
    responseBlindingP: blinding.encode(proof.w1),
    responseBlindingQ: blinding.encode(proof.w2),
    responseProduct: product.encode(proof.v),
  });
}

export function decode(profile: SecurityProfile, message: Message): Proof | undefined {
  const { residue, prime, blinding, product } = fields(profile);
  return decoded(() => ({
    P: residue.decode(message.commitmentP),
    Q: residue.decode(message.commitmentQ),
    A: residue.decode(message.maskCommitmentP),
    B: residue.decode(message.maskCommitmentQ),
    T: residue.decode(message.maskProduct),
    z1: prime.decode(message.responseP),
    z2: prime.decode(message.responseQ),
    w1: blinding.decode(message.responseBlindingP),
    w2: blinding.decode(message.responseBlindingQ),
    v: product.decode(message.responseProduct),
  }));
}
