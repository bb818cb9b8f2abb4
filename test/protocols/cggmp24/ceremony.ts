// What the tests of CGGMP24 share: keys, aux info from the fixture's primes, presignatures and signatures in memory.
import { PaillierSecret } from "../../../src/crypto/paillier.js";
import { RingPedersenTrapdoor } from "../../../src/crypto/ring-pedersen.js";
import { type SecurityProfile, security112 } from "../../../src/crypto/security-profile.js";
import { type AuxParameters, type AuxPrimes, auxInfo } from "../../../src/protocols/cggmp24/aux-info.js";
import {
  type AuxInfo,
  epochId,
  type PartyAux,
  type PublicAux,
  publicAux,
} from "../../../src/protocols/cggmp24/aux-record.js";
import { type PresignParameters, type PresignSecret, presign } from "../../../src/protocols/cggmp24/presign.js";
import type { Presignature } from "../../../src/protocols/cggmp24/presignature.js";
import type { EcdsaSignature, Signing, SigningItem } from "../../../src/protocols/cggmp24/sign.js";
import { sign } from "../../../src/protocols/cggmp24/sign.js";
import { type KeyShare, keyDigest, type PublicKeyPackage } from "../../../src/protocols/key-share.js";
import { keygen } from "../../../src/protocols/keygen.js";
import { type PartyId, partyId } from "../../../src/session/party.js";
import { testPrimes } from "../../fixtures/parties.js";
import { outputs, type Run, SeededRandom, simulate } from "../../session/simulation.js";
import { remembering } from "./dishonesty.js";

/** Everything that a wallet's nodes hold together. */
export interface Ceremony {
  readonly ids: readonly number[];
  readonly shares: ReadonlyMap<PartyId, KeyShare>;
  readonly aux: ReadonlyMap<PartyId, AuxInfo>;
  /** Any party's view of the key. */
  readonly key: PublicKeyPackage;
  /** Nothing secret in it. */
  readonly publicAux: PublicAux;
}

export const range = (n: number): readonly number[] => Array.from({ length: n }, (_, index) => index + 1);

export function of<K, V>(map: ReadonlyMap<K, V>, key: K): V {
  const value = map.get(key);
  if (value === undefined) throw new Error(`nothing of ${String(key)}`);
  return value;
}

export function generateKey(ids: readonly number[], threshold: number, seed: string): ReadonlyMap<PartyId, KeyShare> {
  const pub = { scheme: "cggmp24" as const, threshold, walletId: "wallet" };
  return outputs(simulate({ protocol: keygen, ids, pub, secret: () => undefined, seed }));
}

export function auxRun(
  ids: readonly number[],
  key: PublicKeyPackage,
  profile: SecurityProfile,
  seed: string,
): Run<AuxParameters, AuxPrimes, AuxInfo> {
  const pub = { profile, keyDigest: keyDigest(key) };
  return { protocol: auxInfo, ids, pub, secret: (party) => testPrimes(profile, party), seed };
}

/**
 * The error path with 8 instead of 256 repetitions, on moduli of full size; a profile of the tests only. The long tests
 * ask for all of them.
 */
export const fewRepetitions: SecurityProfile =
  process.env["CGGMP24_REPETITIONS"] === "all" ? security112 : { ...security112, binaryRepetitions: 8 };

const owned = new Map<
  SecurityProfile,
  Map<PartyId, { paillier: PaillierSecret; ringPedersen: RingPedersenTrapdoor }>
>();

function ownedKeys(profile: SecurityProfile, party: PartyId) {
  const made = owned.get(profile) ?? new Map();
  owned.set(profile, made);
  const primes = testPrimes(profile, party);
  const keys = made.get(party) ?? {
    paillier: new PaillierSecret(primes.paillier.p, primes.paillier.q, profile),
    ringPedersen: RingPedersenTrapdoor.generate(primes.ringPedersen, profile, new SeededRandom(`aux of ${party}`)),
  };
  made.set(party, keys);
  return keys;
}

/** The fixture's keys as the protocol would have left them. */
export function fixtureAux(ids: readonly number[], profile: SecurityProfile): ReadonlyMap<PartyId, AuxInfo> {
  const parties: PublicAux = { profile, parties: new Map(ids.map(partyId).map((id) => [id, ownedKeys(profile, id)])) };
  return new Map(
    ids.map(partyId).map((self) => {
      const own = ownedKeys(profile, self);
      const view = new Map<PartyId, PartyAux>(publicAux(parties).parties).set(self, own);
      return [self, { profile, self, ...own, parties: view }];
    }),
  );
}

/** A key and aux info for n parties; `full` runs the aux-info protocol, else the fixture's keys are taken as its result. */
export function ceremony(
  {
    threshold,
    n,
    profile = security112,
    full = false,
  }: { threshold: number; n: number; profile?: SecurityProfile; full?: boolean },
  seed: string,
): Ceremony {
  const ids = range(n);
  const shares = generateKey(ids, threshold, `${seed}/key`);
  const key = of(shares, partyId(1));
  const aux = full
    ? outputs(simulate(remembering(auxRun(ids, key, profile, `${seed}/aux`))))
    : fixtureAux(ids, profile);
  return { ids, shares, aux, key, publicAux: publicAux(of(aux, partyId(1))) };
}

export function presignRun(
  { shares, aux, key, publicAux: everybody }: Ceremony,
  signers: readonly number[],
  seed: string,
): Run<PresignParameters, PresignSecret, Presignature> {
  return {
    protocol: presign,
    ids: signers,
    pub: { key, aux: everybody },
    pubOf: (party) => ({ key, aux: of(aux, party) }),
    secret: (party) => ({ secretShare: of(shares, party).secretShare, paillier: of(aux, party).paillier }),
    seed,
  };
}

export function makePresignatures(
  of: Ceremony,
  signers: readonly number[],
  seed: string,
): ReadonlyMap<PartyId, Presignature> {
  return outputs(simulate(presignRun(of, signers, seed)));
}

export type Message = Pick<SigningItem, "digest" | "bip32Tweak">;

export function signRun(
  { key, publicAux: everybody }: Ceremony,
  presignatures: readonly ReadonlyMap<PartyId, Presignature>[],
  messages: readonly Message[],
  seed: string,
): Run<Signing, readonly Presignature[], readonly EcdsaSignature[]> {
  const ids = [...(presignatures[0]?.keys() ?? [])];
  const items = messages.map((message, index) => ({
    ...message,
    presignature: of(of(new Map(presignatures.entries()), index), ids[0] ?? partyId(1)).public,
  }));
  return {
    protocol: sign,
    ids,
    pub: {
      key,
      epoch: epochId(key, everybody),
      items,
      authorization: new SeededRandom(`${seed}/authorization`).bytes(32),
    },
    secret: (party) => presignatures.map((set) => of(set, party)),
    seed,
  };
}
