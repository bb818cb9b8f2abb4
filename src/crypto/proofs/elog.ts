/**
 * Π-elog: the discrete logarithm of Y to base h is the one inside an ElGamal commitment (L, M) under X.
 *
 * @source CGGMP24, Fig. 23
 */
import { create } from "@bufbuild/protobuf";
import { ElogProofSchema, type ElogProof as Message } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Point, Scalar } from "../curve.js";
import { challengeScalar, type ProofContext } from "./context.js";
import { decoded } from "./encoding.js";

export interface Statement {
  /** L = g^λ. */
  readonly L: Point;
  /** M = g^y X^λ. */
  readonly M: Point;
  readonly X: Point;
  /** Y = h^y. */
  readonly Y: Point;
  readonly h: Point;
}

export interface Witness {
  readonly y: Scalar;
  readonly lambda: Scalar;
}

export interface Proof {
  readonly A: Point;
  readonly N: Point;
  readonly B: Point;
  readonly z: Scalar;
  readonly u: Scalar;
}

type Commitments = Pick<Proof, "A" | "N" | "B">;

const g = Point.base;

const challenge = (context: ProofContext, { L, M, X, Y, h }: Statement, { A, N, B }: Commitments): Scalar =>
  challengeScalar(context, { proof: "elog", statement: [L, M, X, Y, h], commitments: [A, N, B] });

export function prove(context: ProofContext, statement: Statement, { y, lambda }: Witness, random: Random): Proof {
  const { X, h } = statement;
  const alpha = Scalar.randomNonZero(random);
  const m = Scalar.randomNonZero(random);
  const A = g.times(alpha);
  const N = g.times(m).plus(X.times(alpha));
  const B = h.times(m);
  const e = challenge(context, statement, { A, N, B });
  return {
    A,
    N,
    B,
    z: Scalar.plus(alpha, Scalar.times(e, lambda)), // z = α + eλ
    u: Scalar.plus(m, Scalar.times(e, y)), //          u = m + ey
  };
}

export function verify(context: ProofContext, statement: Statement, proof: Proof): boolean {
  const { L, M, X, Y, h } = statement;
  const { A, N, B, z, u } = proof;
  if ([L, M, X, Y, h, A, N, B].some((point) => point.isIdentity)) return false;
  const e = challenge(context, statement, proof);
  return (
    g.timesPublic(z).equals(A.plus(L.timesPublic(e))) && //                        g^z = A·L^e
    g
      .timesPublic(u)
      .plus(X.timesPublic(z))
      .equals(N.plus(M.timesPublic(e))) && // g^u·X^z = N·M^e
    h.timesPublic(u).equals(B.plus(Y.timesPublic(e))) //                           h^u = B·Y^e
  );
}

export function encode({ A, N, B, z, u }: Proof): Message {
  return create(ElogProofSchema, {
    maskBlinding: A.toProto(),
    maskCommitment: N.toProto(),
    maskPower: B.toProto(),
    responseBlinding: Scalar.toProto(z),
    responseExponent: Scalar.toProto(u),
  });
}

export function decode(message: Message): Proof | undefined {
  return decoded(() => ({
    A: Point.fromProto(message.maskBlinding),
    N: Point.fromProto(message.maskCommitment),
    B: Point.fromProto(message.maskPower),
    z: Scalar.fromProto(message.responseBlinding),
    u: Scalar.fromProto(message.responseExponent),
  }));
}
