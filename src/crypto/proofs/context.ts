/**
 * What every proof is bound to besides its statement, and the Fiat-Shamir challenges.
 */
import type { PaillierKey } from "../paillier.js";
import type { RingPedersenSetup } from "../ring-pedersen.js";
import { profileItem, type SecurityProfile } from "../security-profile.js";
import { bitsChallenge, type Item, residuesChallenge, scalarChallenge, signedChallenge } from "../transcript.js";

export interface ProofContext {
  readonly profile: SecurityProfile;
  /** Digest that binds protocol, parties, keys and parameters, 32 bytes. */
  readonly ssid: Uint8Array;
  /** Name of the round. */
  readonly round: string;
  /** Party index of the prover. */
  readonly prover: number;
  /** Party index of the verifier; 0 when the proof is broadcast. */
  readonly verifier: number;
  /** Joint randomness of the session so far (rid); absent where the protocol has none yet. */
  readonly rid?: Uint8Array;
}

/** Name of a proof: the domain of its challenge. */
export type ProofName = "sch" | "elog" | "enc-elg" | "aff-g" | "fac" | "mod" | "prm" | "dec" | "aff-g-star";

/** What the challenge depends on: everything public, in the order of the figure. */
export interface Challenged {
  readonly proof: ProofName;
  readonly statement: readonly Item[];
  /** The first message of the proof. */
  readonly commitments: readonly Item[];
}

function items(context: ProofContext, { statement, commitments }: Challenged): readonly Item[] {
  const { profile, ssid, round, prover, verifier, rid } = context;
  return [profileItem(profile), ssid, round, prover, verifier, rid === undefined ? [] : [rid], statement, commitments];
}

const domain = ({ proof }: Challenged): string => `proof/${proof}`;

/** e ∈ ±q, or ±bound. */
export function challengeInteger(context: ProofContext, of: Challenged, bound?: bigint): bigint {
  return signedChallenge(domain(of), items(context, of), bound);
}

/** e ∈ [0, q), for proofs in the curve group only. */
export function challengeScalar(context: ProofContext, of: Challenged) {
  return scalarChallenge(domain(of), items(context, of));
}

/** Binary challenges. */
export function challengeBits(context: ProofContext, of: Challenged, count: number): readonly boolean[] {
  return bitsChallenge(domain(of), items(context, of), count);
}

/** `count` elements of Z_N. */
export function challengeResidues(
  context: ProofContext,
  of: Challenged,
  { count, bound }: { readonly count: number; readonly bound: bigint },
): readonly bigint[] {
  return residuesChallenge(domain(of), items(context, of), { count, bound });
}

/** Keys and parameters of another profile than the context's are refused before anything is computed. */
export function sameProfile(
  context: ProofContext,
  ...parameters: readonly (PaillierKey | RingPedersenSetup)[]
): boolean {
  return parameters.every(({ profile }) => profile === context.profile);
}
