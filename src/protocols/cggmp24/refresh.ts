/**
 * Refresh: CGGMP24, Fig. 7. The same key and holders, new shares (a Feldman sharing of zero by everyone) and new
 * auxiliary info, in one session: either all of it is new, or nothing.
 */
import { equalBytes } from "../../crypto/bytes.js";
import { Point, Scalar } from "../../crypto/curve.js";
import { InvalidInput } from "../../crypto/fault.js";
import { profileItem, type SecurityProfile } from "../../crypto/security-profile.js";
import { hashTuple } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import type { Participant, Protocol, Steps } from "../../session/protocol.js";
import { type KeyShare, keyDigest, type PublicKeyPackage } from "../key-share.js";
import { type AuxPrimes, auxExchange } from "./aux-info.js";
import type { AuxInfo } from "./aux-record.js";
import { dealing } from "./dealing.js";

/** Public parameters of a refresh. The session's parties are all holders of the key. */
export interface RefreshParameters {
  readonly profile: SecurityProfile;
  /** The key with the shares that are to be replaced. */
  readonly key: PublicKeyPackage;
}

export interface RefreshSecret {
  readonly share: KeyShare;
  /** Fresh primes. */
  readonly primes: AuxPrimes;
}

/** The new epoch of one party. Erase the old share, aux info and presignatures before using it. */
export interface Refreshed {
  readonly share: KeyShare;
  readonly aux: AuxInfo;
}

const holders = ({ key }: RefreshParameters): readonly PartyId[] => [...key.publicShares.keys()];

const zeroSharing = dealing<RefreshParameters>({
  dealers: holders,
  holders,
  threshold: ({ key }) => key.threshold,
  constant: () => Point.identity,
  base: ({ key }, holder) => key.publicShares.get(holder) ?? Point.identity,
});
const aux = auxExchange(4);

function* run(participant: Participant<RefreshParameters>, secret: RefreshSecret): Steps<RefreshParameters, Refreshed> {
  const { pub, self, parties } = participant;
  const { key } = pub;
  if (parties.join() !== holders(pub).join()) throw new InvalidInput("refresh-parties", "every holder takes part");
  if (secret.share.self !== self || !equalBytes(keyDigest(secret.share), keyDigest(key))) {
    throw new InvalidInput("refresh-share", "the share is not of the key that is refreshed");
  }

  // Fig. 7, share change: X'_j = X_j Π_i g^{f_i(j)} with f_i(0) = 0.
  const { secretShare, publicShares } = yield* zeroSharing.deal(participant, {
    constant: Scalar.zero,
    base: secret.share.secretShare,
  });
  if (secretShare === undefined) throw new InvalidInput("refresh-share", "every party of a refresh holds");

  // Fig. 7, auxiliary info.
  const info = yield* aux.exchange(participant, secret.primes);
  return { share: { ...secret.share, secretShare, publicShares }, aux: info };
}

/**
 * Replaces all shares and all aux info of a key; the key itself cannot change.
 * Blames: a party whose share change or aux info is wrong, with evidence.
 */
export const refresh: Protocol<RefreshParameters, RefreshSecret, Refreshed> = {
  name: "cggmp24-refresh/1",
  rounds: [...zeroSharing.rounds, ...aux.rounds],
  checks: [...zeroSharing.checks, ...aux.checks],
  shape: ({ key }, parties) => ({ parties, threshold: key.threshold, batch: 1 }),
  digest: ({ profile, key }) => hashTuple("refresh/parameters", [profileItem(profile), keyDigest(key)]),
  run,
};
