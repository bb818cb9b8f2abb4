/**
 * Auxiliary info: CGGMP24 (ePrint 2021/060, revision of 2024-10-21), Fig. 7 without the share change. Every party
 * publishes a Paillier modulus and Ring-Pedersen parameters and proves both sound. PAPER.md lists the deviations.
 */
import { create } from "@bufbuild/protobuf";
import {
  AuxCommitmentSchema,
  AuxConfirmationSchema,
  AuxFactorProofSchema,
  type AuxOpening,
  AuxOpeningSchema,
  type AuxProof,
  AuxProofSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/aux_info_pb.js";
import { PrmProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import { Bug, InvalidInput } from "../../crypto/fault.js";
import { gcd, invert, parseNatural, toBytes } from "../../crypto/modulus.js";
import { PaillierKey, PaillierSecret } from "../../crypto/paillier.js";
import type { ProofContext } from "../../crypto/proofs/context.js";
import * as fac from "../../crypto/proofs/fac.js";
import * as mod from "../../crypto/proofs/mod.js";
import * as prm from "../../crypto/proofs/prm.js";
import { RingPedersenSetup, RingPedersenTrapdoor } from "../../crypto/ring-pedersen.js";
import { profileItem, type SecurityProfile } from "../../crypto/security-profile.js";
import { hashTuple, residuesChallenge } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import {
  broadcast,
  type Check,
  type Facts,
  type Participant,
  type Protocol,
  type Round,
  receive,
  type Steps,
  sendEach,
  verify,
} from "../../session/protocol.js";
import type { AuxInfo, PartyAux } from "./aux-record.js";
import { carries } from "./carried-proof.js";

/** Public parameters of an aux-info session. */
export interface AuxParameters {
  readonly profile: SecurityProfile;
  /** Digest of the key that the aux info is for, 32 bytes. */
  readonly keyDigest: Uint8Array;
}

/** What the protocols that contain this exchange must know. */
type Profiled = Pick<AuxParameters, "profile">;

interface PrimePair {
  readonly p: bigint;
  readonly q: bigint;
}

/** One party's primes, drawn ahead (`drawAuxPrimes`); used for one epoch and never again. */
export interface AuxPrimes {
  /** ≡ 3 mod 4. */
  readonly paillier: PrimePair;
  /** Safe. */
  readonly ringPedersen: PrimePair;
}

/** rid = ⊕ rid_j. */
function jointRandomness(openings: ReadonlyMap<PartyId, AuxOpening>): Uint8Array {
  const rid = new Uint8Array(32);
  for (const opening of openings.values()) for (const [i, byte] of opening.rid.entries()) rid[i] = (rid[i] ?? 0) ^ byte;
  return rid;
}

/** V_i = H(ssid, i, N_i, N̂_i, s_i, t_i, ψ̂_i, rid_i, u_i). */
export function auxCommitmentHash(ssid: Uint8Array, party: PartyId, opening: AuxOpening): Uint8Array {
  return hashTuple("aux-info/commitment", [
    ssid,
    party,
    [opening.paillierModulus, opening.ringPedersenModulus, opening.ringPedersenS, opening.ringPedersenT],
    (opening.parametersProof ?? create(PrmProofSchema)).entries.flatMap(({ mask, response }) => [mask, response]),
    opening.rid,
    opening.blinding,
  ]);
}

/** The opened keys; undefined when a number has another length, is even, or s or t is no unit or ±1. Total. */
function readKeys(profile: SecurityProfile, opening: AuxOpening | undefined): PartyAux | undefined {
  if (opening === undefined) return undefined;
  const { paillierModulus, ringPedersenModulus: N, ringPedersenS: s, ringPedersenT: t } = opening;
  try {
    const paillier = PaillierKey.parse(paillierModulus, profile);
    return { paillier, ringPedersen: RingPedersenSetup.parse({ N, s, t }, profile) };
  } catch (refusal) {
    if (refusal instanceof InvalidInput) return undefined;
    throw refusal;
  }
}

/** y ∈ Z_N̂ whose N̂-th root shows that the party can factor its own N̂. */
function rootChallenge(
  { ssid, party }: { readonly ssid: Uint8Array; readonly party: PartyId },
  rid: Uint8Array,
  setup: RingPedersenSetup,
): bigint {
  const items = [ssid, rid, party, setup.item];
  return residuesChallenge("aux-info/ring-pedersen-root", items, { count: 1, bound: setup.N })[0] ?? 0n;
}

/** Whether the party's step 3 shows that it knows the factors of N_j and of N̂_j. Total. */
function knowsFactors(
  { pub, ssid }: Pick<Facts<Profiled>, "pub" | "ssid">,
  party: PartyId,
  view: { readonly openings: ReadonlyMap<PartyId, AuxOpening>; readonly proof: AuxProof; readonly round: string },
): boolean {
  const keys = readKeys(pub.profile, view.openings.get(party));
  if (keys === undefined) return false;
  const rid = jointRandomness(view.openings);
  const { paillier: key, ringPedersen: setup } = keys;
  if (view.proof.ringPedersenRoot.length !== pub.profile.modulusBits / 8) return false;
  const root = parseNatural(view.proof.ringPedersenRoot, pub.profile.modulusBits / 8);
  if (root <= 0n || root >= setup.N) return false;
  if (setup.power(root, setup.N) !== rootChallenge({ ssid, party }, rid, setup)) return false; // z^N̂ = y mod N̂
  const context = { profile: pub.profile, ssid, round: view.round, prover: party, verifier: 0, rid };
  return carries(pub.profile, {
    message: view.proof.paillierProof,
    decode: mod.decode,
    verify: (proof) => mod.verify(context, { key }, proof),
  });
}

/** The exchange with its rounds from `firstStep` on, so that refresh can run it after its own. */
export function auxExchange(firstStep: number) {
  const COMMITMENT: Round<typeof AuxCommitmentSchema> = {
    id: "aux-commitment",
    step: firstStep,
    message: AuxCommitmentSchema,
    delivery: "broadcast",
    maxBytes: 64,
    wellFormed: ({ hash }) => hash.length === 32,
  };
  const OPENING: Round<typeof AuxOpeningSchema> = {
    id: "aux-opening",
    step: firstStep + 1,
    message: AuxOpeningSchema,
    delivery: "broadcast",
    maxBytes: 1 << 17,
    wellFormed: ({ rid, blinding, parametersProof }) =>
      rid.length === 32 && blinding.length === 32 && parametersProof !== undefined,
  };
  const PROOF: Round<typeof AuxProofSchema> = {
    id: "aux-proof",
    step: firstStep + 2,
    message: AuxProofSchema,
    delivery: "broadcast",
    maxBytes: 1 << 17,
    wellFormed: ({ paillierProof }) => paillierProof !== undefined,
  };
  const FACTOR_PROOF: Round<typeof AuxFactorProofSchema> = {
    id: "aux-factor-proof",
    step: firstStep + 2,
    message: AuxFactorProofSchema,
    delivery: "direct",
    maxBytes: 1 << 13,
    wellFormed: ({ proof }) => proof !== undefined,
  };
  const CONFIRMATION: Round<typeof AuxConfirmationSchema> = {
    id: "aux-confirmation",
    step: firstStep + 3,
    message: AuxConfirmationSchema,
    delivery: "broadcast",
    maxBytes: 16,
    wellFormed: () => true,
  };

  /** The opening is what was committed to. */
  const OPENS: Check<Profiled> = {
    id: "aux-opens-commitment",
    needs: [
      { round: OPENING, from: "accused" },
      { round: COMMITMENT, from: "accused" },
    ],
    holds: ({ ssid, accused }, view) =>
      equalBytes(view.accused(COMMITMENT).hash, auxCommitmentHash(ssid, accused, view.accused(OPENING))),
  };

  /** N and N̂ have exactly the profile's length and no factor in common; s lies in the group of t. */
  const PARAMETERS: Check<Profiled> = {
    id: "aux-parameters",
    needs: [{ round: OPENING, from: "accused" }],
    holds({ pub, ssid, accused }, view) {
      const opening = view.accused(OPENING);
      const keys = readKeys(pub.profile, opening);
      if (keys === undefined || gcd(keys.paillier.N, keys.ringPedersen.N) !== 1n) return false;
      const context = { profile: pub.profile, ssid, round: OPENING.id, prover: accused, verifier: 0 };
      return carries(pub.profile, {
        message: opening.parametersProof,
        decode: prm.decode,
        verify: (proof) => prm.verify(context, { setup: keys.ringPedersen }, proof),
      });
    },
  };

  /** The party can factor N and N̂, and N is a Paillier-Blum modulus. */
  const KNOWS_FACTORS: Check<Profiled> = {
    id: "aux-knows-factors",
    needs: [
      { round: PROOF, from: "accused" },
      { round: OPENING, from: "everyone" },
    ],
    holds: (facts, view) =>
      knowsFactors(facts, facts.accused, {
        openings: view.everyone(OPENING),
        proof: view.accused(PROOF),
        round: PROOF.id,
      }),
  };

  /** N has no small factor, shown under the accuser's parameters. */
  const NO_SMALL_FACTOR: Check<Profiled> = {
    id: "aux-no-small-factor",
    needs: [
      { round: FACTOR_PROOF, from: "accused" },
      { round: OPENING, from: "everyone" },
    ],
    holds({ pub, ssid, accused, accuser }, view) {
      const openings = view.everyone(OPENING);
      const prover = readKeys(pub.profile, openings.get(accused));
      const verifier = readKeys(pub.profile, openings.get(accuser));
      if (prover === undefined) return false;
      if (verifier === undefined) return true; // an accuser without sound parameters proves nothing
      const context = {
        profile: pub.profile,
        ssid,
        round: FACTOR_PROOF.id,
        prover: accused,
        verifier: accuser,
        rid: jointRandomness(openings),
      };
      return carries(pub.profile, {
        message: view.accused(FACTOR_PROOF).proof,
        decode: fac.decode,
        verify: (proof) => fac.verify(context, { key: prover.paillier, setup: verifier.ringPedersen }, proof),
      });
    },
  };

  /**
   * No other party shares a factor with the accused and knows its own factors. Who copied an honest party's modulus
   * fails `aux-knows-factors` and does not count here, so a copy never frames its original.
   */
  const DISTINCT: Check<Profiled> = {
    id: "aux-distinct-moduli",
    needs: [
      { round: CONFIRMATION, from: "accused" },
      { round: OPENING, from: "everyone" },
      { round: PROOF, from: "everyone" },
    ],
    holds(facts, view) {
      const { pub, accused, parties } = facts;
      const openings = view.everyone(OPENING);
      const moduli = (party: PartyId): bigint => {
        const keys = readKeys(pub.profile, openings.get(party));
        return keys === undefined ? 1n : keys.paillier.N * keys.ringPedersen.N;
      };
      const own = moduli(accused);
      const others = parties.filter((party) => party !== accused);
      if (
        gcd(
          others.reduce((product, party) => (product * moduli(party)) % own, 1n),
          own,
        ) === 1n
      )
        return true;
      return !others.some((party) => {
        const proof = view.everyone(PROOF).get(party);
        if (proof === undefined || gcd(moduli(party), own) === 1n) return false;
        return knowsFactors(facts, party, { openings, proof, round: PROOF.id });
      });
    },
  };

  function* exchange<Pub extends Profiled>(participant: Participant<Pub>, primes: AuxPrimes): Steps<Pub, AuxInfo> {
    const { self, pub, ssid, random } = participant;
    const { profile } = pub;
    const context = (round: Round, verifier: PartyId | 0, rid?: Uint8Array): ProofContext => ({
      profile,
      ssid,
      round: round.id,
      prover: self,
      verifier,
      ...(rid === undefined ? {} : { rid }),
    });

    // Fig. 7, round 1: N_i, N̂_i, s_i, t_i with ψ̂_i, rid_i, u_i; broadcast V_i.
    const paillier = new PaillierSecret(primes.paillier.p, primes.paillier.q, profile);
    const ringPedersen = RingPedersenTrapdoor.generate(primes.ringPedersen, profile, random);
    const parameters = prm.prove(context(OPENING, 0), { setup: ringPedersen }, { trapdoor: ringPedersen }, random);
    const own = ringPedersen.toBytes();
    const opening = create(AuxOpeningSchema, {
      paillierModulus: paillier.toBytes(),
      ringPedersenModulus: own.N,
      ringPedersenS: own.s,
      ringPedersenT: own.t,
      parametersProof: prm.encode(profile, parameters),
      rid: random.bytes(32),
      blinding: random.bytes(32),
    });
    yield* broadcast(COMMITMENT, create(AuxCommitmentSchema, { hash: auxCommitmentHash(ssid, self, opening) }));
    yield* receive(COMMITMENT);

    // Round 2: open.
    yield* broadcast(OPENING, opening);
    const openings = yield* receive(OPENING);
    yield* verify<Pub>(OPENS, PARAMETERS);

    // Round 3: rid = ⊕ rid_j; broadcast Π-mod and the root, send each j Π-fac under its own parameters.
    const rid = jointRandomness(openings);
    const parties = new Map<PartyId, PartyAux>();
    for (const [party, message] of openings) {
      const keys = party === self ? { paillier, ringPedersen } : readKeys(profile, message);
      if (keys === undefined) throw new Bug("verified keys are readable", { party });
      parties.set(party, keys);
    }
    const exponent = invert(ringPedersen.N, ringPedersen.phi);
    if (exponent === undefined) throw new InvalidInput("ring-pedersen-primes", "N̂ is not coprime to φ(N̂)");
    const root = ringPedersen.power(rootChallenge({ ssid, party: self }, rid, ringPedersen), exponent); // z = y^{1/N̂}
    yield* broadcast(
      PROOF,
      create(AuxProofSchema, {
        paillierProof: mod.encode(
          profile,
          mod.prove(context(PROOF, 0, rid), { key: paillier }, { secret: paillier }, random),
        ),
        ringPedersenRoot: toBytes(root, profile.modulusBits / 8),
      }),
    );
    yield* sendEach(FACTOR_PROOF, (to) => {
      const setup = parties.get(to)?.ringPedersen;
      if (setup === undefined) throw new Bug("every party has opened", { to });
      const statement = { key: paillier, setup };
      const proof = fac.prove(context(FACTOR_PROOF, to, rid), statement, primes.paillier, random);
      return create(AuxFactorProofSchema, { proof: fac.encode(profile, proof) });
    });
    yield* receive(PROOF);
    yield* receive(FACTOR_PROOF);
    yield* verify<Pub>(KNOWS_FACTORS, NO_SMALL_FACTOR);

    // Round 4: an empty broadcast whose echo covers round 3, so that nobody keeps keys that others refused.
    yield* broadcast(CONFIRMATION, create(AuxConfirmationSchema));
    yield* receive(CONFIRMATION);
    yield* verify<Pub>(DISTINCT);
    return { profile, self, paillier, ringPedersen, parties };
  }

  return {
    rounds: [COMMITMENT, OPENING, PROOF, FACTOR_PROOF, CONFIRMATION] as readonly Round[],
    checks: [OPENS, PARAMETERS, KNOWS_FACTORS, NO_SMALL_FACTOR, DISTINCT] as readonly Check<Profiled>[],
    exchange,
  };
}

const { rounds, checks, exchange } = auxExchange(1);

/**
 * Gives every holder of a key Paillier and Ring-Pedersen keys that all others have verified.
 * Blames: a party whose opening, moduli, parameters or proofs are wrong, with evidence.
 */
export const auxInfo: Protocol<AuxParameters, AuxPrimes, AuxInfo> = {
  name: "cggmp24-aux-info/1",
  rounds,
  checks,
  shape: (_, parties) => ({ parties, threshold: parties, batch: 1 }),
  digest: ({ profile, keyDigest }) => hashTuple("aux-info/parameters", [profileItem(profile), keyDigest]),
  run: exchange,
};
