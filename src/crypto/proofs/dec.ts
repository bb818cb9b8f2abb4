/**
 * Π-dec: S = G^y for the y that (x ⊙ K) ⊕ D encrypts, with X = g^x. Binary challenges, no Ring-Pedersen parameters, so
 * that a third party can verify; the error path only.
 *
 * The base G is explicit (Fig. 28 writes g): the proof for χ uses Γ. y may be as large as a sum over all parties of
 * what honest verification lets through, ±2^(ℓ'+ε+1+⌈log2 n⌉).
 *
 * @source CGGMP24, Fig. 28
 */
import { create } from "@bufbuild/protobuf";
import {
  DecEntrySchema,
  DecProofSchema,
  type DecProof as Message,
} from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Point, scalar } from "../curve.js";
import { Bug } from "../fault.js";
import { inRange, randomBits } from "../modulus.js";
import type { Ciphertext, PaillierKey } from "../paillier.js";
import { decRangeBits, decResponseBits, MOST_PARTIES, type SecurityProfile } from "../security-profile.js";
import { challengeBits, type ProofContext, sameProfile } from "./context.js";
import { decoded, decodeEntries, fields, signed } from "./encoding.js";
import { Openings, term } from "./openings.js";

export interface Statement {
  /** N0, the prover's key. */
  readonly key: PaillierKey;
  readonly K: Ciphertext;
  /** X = g^x. */
  readonly X: Point;
  /** D with enc_0(y; ρ) = (x ⊙ K) ⊕ D. */
  readonly D: Ciphertext;
  /** S = G^y. */
  readonly S: Point;
  readonly G: Point;
  /** How many parties' masks are summed in y. */
  readonly parties: number;
}

export interface Witness {
  /** x ∈ ±2^ℓ. */
  readonly x: bigint;
  /** y ∈ ±2^(ℓ'+ε+1+⌈log2 n⌉), the decryption itself. */
  readonly y: bigint;
  /** The nonce of (x ⊙ K) ⊕ D. */
  readonly rho: bigint;
}

/** One repetition. */
export interface Entry {
  readonly A: bigint;
  readonly B: Point;
  readonly C: Point;
  readonly z: bigint;
  readonly w: bigint;
  readonly nu: bigint;
}

export interface Proof {
  readonly entries: readonly Entry[];
}

type Commitments = Pick<Entry, "A" | "B" | "C">;

const g = Point.base;

function challenge(context: ProofContext, statement: Statement, commitments: readonly Commitments[]) {
  const { key, K, X, D, S, G, parties } = statement;
  return challengeBits(
    context,
    {
      proof: "dec",
      statement: [key.N, K, X, D, S, G, parties],
      commitments: commitments.map(({ A, B, C }) => [A, B, C]),
    },
    context.profile.binaryRepetitions,
  );
}

export function prove(context: ProofContext, statement: Statement, witness: Witness, random: Random): Proof {
  const { key, K, G, parties } = statement;
  const { x, y, rho } = witness;
  const { profile } = context;
  if (!inRange(x, profile.ell) || !inRange(y, decRangeBits(profile, parties))) {
    throw new Bug("the witness of dec is out of range");
  }
  const inverseK = key.subtract(1n, K);
  const masks = Array.from({ length: profile.binaryRepetitions }, () => {
    const alpha = randomBits(random, profile.ell + profile.epsilon);
    const beta = randomBits(random, decResponseBits(profile, parties));
    const r = key.randomNonce(random);
    const A = key.add(key.scale(inverseK, alpha), key.encryptWith(beta, r)); // A = (-α ⊙ K) ⊕ enc_0(β; r)
    return { alpha, beta, r, A, B: G.times(scalar(beta)), C: g.times(scalar(alpha)) };
  });
  const e = challenge(context, statement, masks);
  return {
    entries: masks.map(({ alpha, beta, r, A, B, C }, i) => {
      const e_i = e[i] === true ? 1n : 0n;
      return { A, B, C, z: alpha + e_i * x, w: beta + e_i * y, nu: (r * (e_i === 1n ? rho : 1n)) % key.N };
    }),
  };
}

export function verify(context: ProofContext, statement: Statement, { entries }: Proof): boolean {
  const { key, K, X, D, S, G, parties } = statement;
  const { profile } = context;
  if (!sameProfile(context, key) || !Number.isInteger(parties) || parties < 2 || parties > MOST_PARTIES) return false;
  if (entries.length !== profile.binaryRepetitions) return false;
  if ([X, S, G].some((point) => point.isIdentity)) return false;
  const { factor } = fields(profile);
  const response = signed(decResponseBits(profile, parties));
  if (!entries.every(({ z, w }) => factor.admits(z) && response.admits(w))) return false;
  const members = { ciphertexts: [K, D, ...entries.map(({ A }) => A)], nonces: entries.map(({ nu }) => nu) };
  if (!key.areMembers(members)) return false;
  const e = challenge(context, statement, entries);
  const openings = new Openings();
  const fit = entries.every(({ A, B, C, z, w, nu }, i) => {
    const e_i = e[i] === true ? 1n : 0n;
    return (
      g.timesPublic(scalar(z)).equals(e_i === 1n ? C.plus(X) : C) && // g^z = C·X^e
      G.timesPublic(scalar(w)).equals(e_i === 1n ? B.plus(S) : B) && // G^w = B·S^e
      openings.claim(key, { m: w, nonce: nu, sum: [term(A), term(D, e_i), term(K, z)] }) // enc_0(w; ν) = A ⊕ (e ⊙ D) ⊕ (z ⊙ K)
    );
  });
  return fit && openings.hold();
}

export function encode(profile: SecurityProfile, { entries }: Proof, parties: number): Message {
  const { residue, ciphertext, factor } = fields(profile);
  const response = signed(decResponseBits(profile, parties));
  return create(DecProofSchema, {
    entries: entries.map(({ A, B, C, z, w, nu }) =>
      create(DecEntrySchema, {
        maskCiphertext: ciphertext.encode(A),
        maskPlaintext: B.toProto(),
        maskFactor: C.toProto(),
        responseFactor: factor.encode(z),
        responsePlaintext: response.encode(w),
        responseNonce: residue.encode(nu),
      }),
    ),
  });
}

export function decode(profile: SecurityProfile, message: Message, parties: number): Proof | undefined {
  const { residue, ciphertext, factor } = fields(profile);
  const response = signed(decResponseBits(profile, parties));
  return decoded(() => ({
    entries: decodeEntries(message.entries, profile.binaryRepetitions, (entry) => ({
      A: ciphertext.decode(entry.maskCiphertext),
      B: Point.fromProto(entry.maskPlaintext),
      C: Point.fromProto(entry.maskFactor),
      z: factor.decode(entry.responseFactor),
      w: response.decode(entry.responsePlaintext),
      nu: residue.decode(entry.responseNonce),
    })),
  }));
}
