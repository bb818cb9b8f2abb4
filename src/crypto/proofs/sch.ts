/**
 * Π-sch: knowledge of the discrete logarithm of X. The commitment A is sent one round ahead (Fig. 6), so it belongs to
 * the statement, and its nonce τ proves once: two challenges for one τ reveal x.
 *
 * @source CGGMP24, Π-sch, as Fig. 6 uses it
 */
import { create } from "@bufbuild/protobuf";
import { type SchProof as Message, SchProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Point, Scalar } from "../curve.js";
import { challengeScalar, type ProofContext } from "./context.js";
import { decoded } from "./encoding.js";

export interface Statement {
  /** X = g^x. */
  readonly X: Point;
  /** A = g^τ. */
  readonly A: Point;
}

export interface Witness {
  readonly x: Scalar;
  readonly tau: Scalar;
}

export interface Proof {
  /** z = τ + e·x. */
  readonly z: Scalar;
}

/** The nonce τ and its commitment A. */
export function commit(random: Random): { readonly tau: Scalar; readonly A: Point } {
  const tau = Scalar.randomNonZero(random);
  return { tau, A: Point.base.times(tau) };
}

const challenge = (context: ProofContext, { X, A }: Statement): Scalar =>
  challengeScalar(context, { proof: "sch", statement: [X], commitments: [A] });

export function prove(context: ProofContext, statement: Statement, { x, tau }: Witness): Proof {
  const e = challenge(context, statement);
  return { z: Scalar.plus(tau, Scalar.times(e, x)) };
}

export function verify(context: ProofContext, statement: Statement, { z }: Proof): boolean {
  const { X, A } = statement;
  if (X.isIdentity || A.isIdentity) return false;
  const e = challenge(context, statement);
  return Point.base.timesPublic(z).equals(A.plus(X.timesPublic(e))); // g^z = A·X^e
}

export function encode({ z }: Proof): Message {
  return create(SchProofSchema, { response: Scalar.toProto(z) });
}

export function decode(message: Message): Proof | undefined {
  return decoded(() => ({ z: Scalar.fromProto(message.response) }));
}
