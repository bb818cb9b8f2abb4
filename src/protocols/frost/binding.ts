/**
 * What binds the shares of one message to each other: binding factors, group commitment, challenge. Every value here
 * is public, so points are multiplied in variable time.
 */
import { Point, Scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import type { PartyId } from "../../session/party.js";
import { H1, H2, H4, H5 } from "./ciphersuite.js";

/** What one signer publishes before it signs; neither point is the identity. */
export interface NonceCommitment {
  readonly party: PartyId;
  /** D_i. */
  readonly hiding: Point;
  /** E_i. */
  readonly binding: Point;
}

/** commitment_list of RFC 9591: one commitment a signer, ascending by party. */
export type CommitmentList = readonly NonceCommitment[];

/** One message with its output key and everybody's commitments. */
export interface Statement {
  readonly list: CommitmentList;
  /** Q with even y: the output key as BIP340 reads it. */
  readonly Q: Point;
  readonly message: Uint8Array;
}

/** What every signer of the statement computes alike. */
export interface Binding {
  readonly list: CommitmentList;
  /** ρ_i. */
  readonly factors: ReadonlyMap<PartyId, Scalar>;
  /** R, of either parity. */
  readonly R: Point;
  /** c; undefined when R is the identity, and then nobody can sign. */
  readonly c: Scalar | undefined;
}

/** RFC 9591 section 5.2, the part before the share; sections 4.4 to 4.6. */
export function bind(statement: Statement): Binding {
  const { list, Q, message } = statement;
  const factors = bindingFactors(statement);
  const R = groupCommitment(list, factors);
  return { list, factors, R, c: R.isIdentity ? undefined : H2(R, Q, message) }; // 4.6, compute_challenge
}

/** RFC 9591 section 4.3, encode_group_commitment_list. */
export function encodeCommitmentList(list: CommitmentList): Uint8Array {
  let last = 0;
  return Buffer.concat(
    list.flatMap(({ party, hiding, binding }) => {
      if (party <= last) throw new Bug("a commitment list ascends by party");
      last = party;
      return [identifier(party), hiding.toBytes(), binding.toBytes()];
    }),
  );
}

/** RFC 9591 section 4.4, compute_binding_factors: ρ_i = H1(Q || H4(m) || H5(list) || i). */
export function bindingFactors({ list, Q, message }: Statement): ReadonlyMap<PartyId, Scalar> {
  const prefix = Buffer.concat([Q.toBytes(), H4(message), H5(encodeCommitmentList(list))]);
  return new Map(list.map(({ party }) => [party, H1(Buffer.concat([prefix, identifier(party)]))]));
}

/** RFC 9591 section 4.5, compute_group_commitment: R = Π D_i E_i^{ρ_i}. */
export function groupCommitment(list: CommitmentList, factors: ReadonlyMap<PartyId, Scalar>): Point {
  return Point.sum(list.map((commitment) => commitmentShare(commitment, factors)));
}

/** D_i E_i^{ρ_i}. */
export function commitmentShare(
  { party, hiding, binding }: NonceCommitment,
  factors: ReadonlyMap<PartyId, Scalar>,
): Point {
  const rho_i = factors.get(party);
  if (rho_i === undefined) throw new Bug("a signer without a binding factor");
  return hiding.plus(binding.timesPublic(rho_i));
}

/** SerializeScalar of an identifier, RFC 9591 section 4.3. */
const identifier = (party: PartyId): Uint8Array => Scalar.toBytes(BigInt(party) as Scalar);
