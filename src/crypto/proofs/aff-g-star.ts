/**
 * Π-aff-g*: the statement of Π-aff-g with binary challenges instead of Ring-Pedersen parameters, so that a third party
 * can verify; the error path only. Signs are those of Π-aff-g: D = (x ⊙ C) ⊕ enc_0(y; ρ) and Y = enc_1(y; ρ_y).
 *
 * @source CGGMP24, Fig. 27
 */
import { create } from "@bufbuild/protobuf";
import {
  AffGStarEntrySchema,
  AffGStarProofSchema,
  type AffGStarProof as Message,
} from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Point, scalar } from "../curve.js";
import { Bug } from "../fault.js";
import { inRange, randomBits } from "../modulus.js";
import type { SecurityProfile } from "../security-profile.js";
import type { Statement as AffGStatement, Witness } from "./aff-g.js";
import { challengeBits, type ProofContext, sameProfile } from "./context.js";
import { decoded, decodeEntries, fields } from "./encoding.js";
import { Openings, term } from "./openings.js";

export type Statement = Omit<AffGStatement, "setup">;
export type { Witness } from "./aff-g.js";

/** One repetition. */
export interface Entry {
  readonly A: bigint;
  readonly B_x: Point;
  readonly B_y: bigint;
  readonly z1: bigint;
  readonly z2: bigint;
  readonly w: bigint;
  readonly w_y: bigint;
}

export interface Proof {
  readonly entries: readonly Entry[];
}

type Commitments = Pick<Entry, "A" | "B_x" | "B_y">;

const g = Point.base;

function challenge(context: ProofContext, statement: Statement, commitments: readonly Commitments[]) {
  const { key0, key1, C, D, Y, X } = statement;
  return challengeBits(
    context,
    {
      proof: "aff-g-star",
      statement: [key0.N, key1.N, C, D, Y, X],
      commitments: commitments.map(({ A, B_x, B_y }) => [A, B_x, B_y]),
    },
    context.profile.binaryRepetitions,
  );
}

export function prove(context: ProofContext, statement: Statement, witness: Witness, random: Random): Proof {
  const { key0, key1, C } = statement;
  const { x, y, rho, rho_y } = witness;
  const { ell, ellPrime, epsilon, binaryRepetitions } = context.profile;
  if (!inRange(x, ell) || !inRange(y, ellPrime)) throw new Bug("the witness of aff-g* is out of range");
  const masks = Array.from({ length: binaryRepetitions }, () => {
    const alpha = randomBits(random, ell + epsilon);
    const beta = randomBits(random, ellPrime + epsilon);
    const r = key0.randomNonce(random);
    const r_y = key1.randomNonce(random);
    const A = key0.add(key0.scale(C, alpha), key0.encryptWith(beta, r)); // A = (α ⊙ C) ⊕ enc_0(β; r)
    return { alpha, beta, r, r_y, A, B_x: g.times(scalar(alpha)), B_y: key1.encryptWith(beta, r_y) };
  });
  const e = challenge(context, statement, masks);
  return {
    entries: masks.map(({ alpha, beta, r, r_y, A, B_x, B_y }, i) => {
      if (e[i] !== true) return { A, B_x, B_y, z1: alpha, z2: beta, w: r, w_y: r_y };
      const w = (r * rho) % key0.N;
      const w_y = (r_y * rho_y) % key1.N;
      return { A, B_x, B_y, z1: alpha + x, z2: beta + y, w, w_y };
    }),
  };
}

export function verify(context: ProofContext, statement: Statement, { entries }: Proof): boolean {
  const { key0, key1, C, D, Y, X } = statement;
  if (!sameProfile(context, key0, key1) || entries.length !== context.profile.binaryRepetitions) return false;
  if (X.isIdentity) return false;
  const { factor, summand } = fields(context.profile);
  if (!entries.every(({ z1, z2 }) => factor.admits(z1) && summand.admits(z2))) return false;
  const under0 = { ciphertexts: [C, D, ...entries.map(({ A }) => A)], nonces: entries.map(({ w }) => w) };
  const under1 = { ciphertexts: [Y, ...entries.map(({ B_y }) => B_y)], nonces: entries.map(({ w_y }) => w_y) };
  if (!key0.areMembers(under0) || !key1.areMembers(under1)) return false;
  const e = challenge(context, statement, entries);
  const openings = new Openings();
  const fit = entries.every(({ A, B_x, B_y, z1, z2, w, w_y }, i) => {
    const e_i = e[i] === true ? 1n : 0n;
    return (
      g.timesPublic(scalar(z1)).equals(e_i === 1n ? B_x.plus(X) : B_x) && // g^z1 = B_x·X^e
      openings.claim(key1, { m: z2, nonce: w_y, sum: [term(B_y), term(Y, e_i)] }) && //       enc_1(z2; w_y) = B_y ⊕ (e ⊙ Y)
      openings.claim(key0, { m: z2, nonce: w, sum: [term(A), term(D, e_i), term(C, -z1)] }) // (z1 ⊙ C) ⊕ enc_0(z2; w) = A ⊕ (e ⊙ D)
    );
  });
  return fit && openings.hold();
}

export function encode(profile: SecurityProfile, { entries }: Proof): Message {
  const { residue, ciphertext, factor, summand } = fields(profile);
  return create(AffGStarProofSchema, {
    entries: entries.map(({ A, B_x, B_y, z1, z2, w, w_y }) =>
      create(AffGStarEntrySchema, {
        maskCiphertext: ciphertext.encode(A),
        maskFactor: B_x.toProto(),
        maskSummand: ciphertext.encode(B_y),
        responseFactor: factor.encode(z1),
        responseSummand: summand.encode(z2),
        responseNonce: residue.encode(w),
        responseNonceSummand: residue.encode(w_y),
      }),
    ),
  });
}

export function decode(profile: SecurityProfile, message: Message): Proof | undefined {
  const { residue, ciphertext, factor, summand } = fields(profile);
  return decoded(() => ({
    entries: decodeEntries(message.entries, profile.binaryRepetitions, (entry) => ({
      A: ciphertext.decode(entry.maskCiphertext),
      B_x: Point.fromProto(entry.maskFactor),
      B_y: ciphertext.decode(entry.maskSummand),
      z1: factor.decode(entry.responseFactor),
      z2: summand.decode(entry.responseSummand),
      w: residue.decode(entry.responseNonce),
      w_y: residue.decode(entry.responseNonceSummand),
    })),
  }));
}
