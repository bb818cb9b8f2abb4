/**
 * Π-prm: s lies in the group that t generates modulo N̂. Each binary challenge is checked on its own: a batch with
 * random weights would let an s pass that is off by an element of small order.
 *
 * @source CGGMP24, Π-prm
 */
import { create } from "@bufbuild/protobuf";
import {
  type PrmProof as Message,
  PrmEntrySchema,
  PrmProofSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Bug } from "../fault.js";
import { FixedBase } from "../fixed-base.js";
import { randomBelow, reduce } from "../modulus.js";
import type { RingPedersenSetup, RingPedersenTrapdoor } from "../ring-pedersen.js";
import type { SecurityProfile } from "../security-profile.js";
import { challengeBits, type ProofContext, sameProfile } from "./context.js";
import { decoded, decodeEntries, fields } from "./encoding.js";

export interface Statement {
  readonly setup: RingPedersenSetup;
}

export interface Witness {
  readonly trapdoor: RingPedersenTrapdoor;
}

/** One repetition. */
export interface Entry {
  /** A = t^a. */
  readonly A: bigint;
  /** z = a + e·λ mod φ(N̂). */
  readonly z: bigint;
}

export interface Proof {
  readonly entries: readonly Entry[];
}

function challenge(context: ProofContext, { setup }: Statement, A: readonly bigint[]): readonly boolean[] {
  return challengeBits(
    context,
    { proof: "prm", statement: [setup.item], commitments: [A] },
    context.profile.repetitions,
  );
}

export function prove(context: ProofContext, statement: Statement, { trapdoor }: Witness, random: Random): Proof {
  const { lambda, phi, t } = trapdoor;
  if (trapdoor.N !== statement.setup.N) throw new Bug("the witness of prm is of other parameters");
  const a = Array.from({ length: context.profile.repetitions }, () => randomBelow(random, phi));
  const A = a.map((a_i) => trapdoor.power(t, a_i));
  const e = challenge(context, statement, A);
  return {
    entries: a.map((a_i, i) => ({ A: A[i] ?? 0n, z: e[i] === true ? reduce(a_i + lambda, phi) : a_i })),
  };
}

export function verify(context: ProofContext, statement: Statement, { entries }: Proof): boolean {
  const { setup } = statement;
  const { N, s, t } = setup;
  if (!sameProfile(context, setup) || entries.length !== context.profile.repetitions) return false;
  if (!entries.every(({ z }) => z >= 0n && z < N) || !setup.areMembers(entries.map(({ A }) => A))) return false;
  const e = challenge(
    context,
    statement,
    entries.map(({ A }) => A),
  );
  const powersOfT = new FixedBase(t, N, context.profile.modulusBits);
  return entries.every(({ A, z }, i) => powersOfT.pow(z) === (e[i] === true ? setup.times(A, s) : A)); // t^z = A·s^e
}

export function encode(profile: SecurityProfile, { entries }: Proof): Message {
  const { residue } = fields(profile);
  return create(PrmProofSchema, {
    entries: entries.map(({ A, z }) =>
      create(PrmEntrySchema, { mask: residue.encode(A), response: residue.encode(z) }),
    ),
  });
}

export function decode(profile: SecurityProfile, message: Message): Proof | undefined {
  const { residue } = fields(profile);
  return decoded(() => ({
    entries: decodeEntries(message.entries, profile.repetitions, ({ mask, response }) => ({
      A: residue.decode(mask),
      z: residue.decode(response),
    })),
  }));
}
