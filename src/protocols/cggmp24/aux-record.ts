/** Auxiliary info as parties hold it: public for all, with the owner's factors for the party itself. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { AuxInfoSchema } from "../../../gen/mpcwallet/cggmp24/v1/aux_info_pb.js";
import { InvalidInput } from "../../crypto/fault.js";
import { parseNatural, toBytes } from "../../crypto/modulus.js";
import { PaillierKey, PaillierSecret } from "../../crypto/paillier.js";
import { RingPedersenSetup, RingPedersenTrapdoor } from "../../crypto/ring-pedersen.js";
import { profileItem, profiles, type SecurityProfile } from "../../crypto/security-profile.js";
import { hashTuple, type Item } from "../../crypto/transcript.js";
import { type PartyId, partyId } from "../../session/party.js";
import { keyDigest, type PublicKeyPackage } from "../key-share.js";

/** One party's keys. */
export interface PartyAux {
  /** N_j. */
  readonly paillier: PaillierKey;
  /** (N̂_j, s_j, t_j). */
  readonly ringPedersen: RingPedersenSetup;
}

/**
 * Everybody's keys. In what a party holds itself, its own entry knows the factors: then the same checks of others'
 * proofs run five times faster. Digests and messages only ever contain the public numbers.
 */
export interface PublicAux {
  readonly profile: SecurityProfile;
  /** Ascending by party. */
  readonly parties: ReadonlyMap<PartyId, PartyAux>;
}

/** One party's result of the aux-info protocol. The factors never leave the node. */
export interface AuxInfo extends PublicAux {
  readonly self: PartyId;
  readonly paillier: PaillierSecret;
  readonly ringPedersen: RingPedersenTrapdoor;
}

/** A digest of what is public, as a transcript item. */
export const auxItem = (aux: PublicAux): Item => [
  profileItem(aux.profile),
  [...aux.parties].map(([party, { paillier, ringPedersen }]) => [party, paillier.N, ringPedersen.item]),
];

/**
 * Names one generation of shares and auxiliary info of a key: the hash of all public shares and all public aux info,
 * 32 bytes. A presignature belongs to one epoch and is worthless in every other.
 */
export function epochId(key: PublicKeyPackage, aux: PublicAux): Uint8Array {
  return hashTuple("epoch", [keyDigest(key), auxItem(aux)]);
}

/** The aux info without anything secret, for other processes and judges. */
export function publicAux({ profile, parties }: PublicAux): PublicAux {
  return {
    profile,
    parties: new Map(
      [...parties].map(([party, { paillier, ringPedersen }]) => [
        party,
        { paillier: new PaillierKey(paillier.N, profile), ringPedersen: new RingPedersenSetup(ringPedersen, profile) },
      ]),
    ),
  };
}

export function encodeAuxInfo(aux: AuxInfo): Uint8Array {
  const half = aux.profile.primeBits / 8;
  return toBinary(
    AuxInfoSchema,
    create(AuxInfoSchema, {
      profile: aux.profile.name,
      self: aux.self,
      parties: [...aux.parties].map(([party, { paillier, ringPedersen }]) => {
        const { N, s, t } = ringPedersen.toBytes();
        return {
          party,
          paillierModulus: paillier.toBytes(),
          ringPedersenModulus: N,
          ringPedersenS: s,
          ringPedersenT: t,
        };
      }),
      paillierP: toBytes(aux.paillier.p, half),
      paillierQ: toBytes(aux.paillier.q, half),
      ringPedersenP: toBytes(aux.ringPedersen.p, half),
      ringPedersenQ: toBytes(aux.ringPedersen.q, half),
      ringPedersenLambda: toBytes(aux.ringPedersen.lambda, 2 * half),
    }),
  );
}

/** @throws InvalidInput `aux-info` when the factors do not fit the own public numbers, or as their parsers throw */
export function decodeAuxInfo(bytes: Uint8Array): AuxInfo {
  const message = fromBinary(AuxInfoSchema, bytes);
  const profile = profiles.find(({ name }) => name === message.profile);
  if (profile === undefined) throw new InvalidInput("aux-info", "unknown profile", { profile: message.profile });
  const half = profile.primeBits / 8;
  const factor = (field: Uint8Array): bigint => parseNatural(field, half);
  const self = partyId(message.self);
  const parties = new Map<PartyId, PartyAux>(
    message.parties.map((party) => [
      partyId(party.party),
      {
        paillier: PaillierKey.parse(party.paillierModulus, profile),
        ringPedersen: RingPedersenSetup.parse(
          { N: party.ringPedersenModulus, s: party.ringPedersenS, t: party.ringPedersenT },
          profile,
        ),
      },
    ]),
  );
  const own = parties.get(self);
  const paillier = new PaillierSecret(factor(message.paillierP), factor(message.paillierQ), profile);
  const ringPedersen = new RingPedersenTrapdoor(
    {
      p: factor(message.ringPedersenP),
      q: factor(message.ringPedersenQ),
      t: own?.ringPedersen.t ?? 0n,
      lambda: parseNatural(message.ringPedersenLambda, 2 * half),
    },
    profile,
  );
  if (
    own?.paillier.N !== paillier.N ||
    own.ringPedersen.N !== ringPedersen.N ||
    own.ringPedersen.s !== ringPedersen.s
  ) {
    throw new InvalidInput("aux-info", "the factors do not fit the own public numbers", { self });
  }
  return { self, profile, paillier, ringPedersen, parties: parties.set(self, { paillier, ringPedersen }) };
}
