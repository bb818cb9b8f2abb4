/**
 * FROST signing, RFC 9591 sections 5.1 to 5.3, with the hashes of BIP340 (noble-curves `schnorr_FROST`). Several
 * messages are signed in one session, each with its own nonces and its own derived key.
 */
import { create } from "@bufbuild/protobuf";
import type { GenNonce, NonceCommitments } from "@noble/curves/abstract/frost.js";
import { schnorr_FROST } from "@noble/curves/secp256k1.js";
import {
  type NonceCommitments as NonceCommitmentsMessage,
  NonceCommitmentsSchema,
  SignatureSharesSchema,
} from "../../../gen/mpcwallet/frost/v1/frost_pb.js";
import type { Random } from "../../crypto/ambient.js";
import type { Scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import { hashTuple } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import {
  broadcast,
  type Check,
  type Participant,
  type Protocol,
  type Round,
  receive,
  type Steps,
  verify,
} from "../../session/protocol.js";
import { isPoint, isScalar } from "../element-shape.js";
import { keyDigest, type PublicKeyPackage } from "../key-share.js";
import { identifierOf, type OutputKey, outputKey, outputShare } from "./taproot.js";

/** Most messages that one session signs. */
export const MAX_BATCH = 256;

/** One message and the derived key that signs it. */
export interface SigningItem {
  /** BIP341 sighash, 32 bytes, computed by this node from the transaction. */
  readonly message: Uint8Array;
  /** τ: sum of the BIP32 tweaks from the group key to the signing key. */
  readonly bip32Tweak: Scalar;
}

/** Public parameters of a signing session. */
export interface FrostSigning {
  readonly key: PublicKeyPackage;
  readonly items: readonly SigningItem[];
  /** What authorizes the signing, for example the proposal digest; bound into the session. */
  readonly authorization: Uint8Array;
}

const NONCES: Round<typeof NonceCommitmentsSchema> = {
  id: "nonces",
  step: 1,
  message: NonceCommitmentsSchema,
  delivery: "broadcast",
  maxBytes: MAX_BATCH * 96,
  wellFormed: ({ commitments }, { batch }) =>
    commitments.length === batch && commitments.every(({ hiding, binding }) => isPoint(hiding) && isPoint(binding)),
};
const SHARES: Round<typeof SignatureSharesSchema> = {
  id: "shares",
  step: 2,
  message: SignatureSharesSchema,
  delivery: "broadcast",
  maxBytes: MAX_BATCH * 48,
  wellFormed: ({ shares }, { batch }) => shares.length === batch && shares.every(isScalar),
};

/** The commitment list of RFC 9591 for one item, ascending by party. */
function commitmentList(all: ReadonlyMap<PartyId, NonceCommitmentsMessage>, index: number): NonceCommitments[] {
  return [...all].map(([party, { commitments }]) => {
    const { hiding, binding } = commitments[index] ?? {};
    if (hiding === undefined || binding === undefined) throw new Bug("well-formed commitments are complete");
    return {
      identifier: identifierOf(party),
      hiding: new Uint8Array(hiding.sec1),
      binding: new Uint8Array(binding.sec1),
    };
  });
}

/** RFC 9591 section 5.3, verify_signature_share, for every item. Names a bad share at once. */
const SHARE_VERIFIES: Check<FrostSigning> = {
  id: "signature-share",
  needs: [
    { round: SHARES, from: "accused" },
    { round: NONCES, from: "everyone" },
  ],
  holds({ pub, accused }, view) {
    const { shares } = view.accused(SHARES);
    const nonces = view.everyone(NONCES);
    return pub.items.every((item, index) => {
      const share = shares[index]?.be32 ?? new Uint8Array();
      const { frost } = outputKey(pub.key, item.bip32Tweak);
      try {
        return schnorr_FROST.verifyShare(
          frost,
          commitmentList(nonces, index),
          item.message,
          identifierOf(accused),
          share,
        );
      } catch {
        return false; // noble throws where the group commitment is the identity; then nobody's share can verify
      }
    });
  },
};

const entropy =
  (random: Random) =>
  (length = 32): Uint8Array =>
    random.bytes(length);

function* run(participant: Participant<FrostSigning>, secretShare: Scalar): Steps<FrostSigning, readonly Uint8Array[]> {
  const { self, pub, random } = participant;
  const keys: readonly OutputKey[] = pub.items.map((item) => outputKey(pub.key, item.bip32Tweak));

  // RFC 9591, 5.1: one pair of nonces an item. They live in this generator only and are used at most once.
  const generated: readonly GenNonce[] = keys.map((key) =>
    schnorr_FROST.commit(outputShare(self, secretShare, key), entropy(random) as never),
  );
  yield* broadcast(
    NONCES,
    create(NonceCommitmentsSchema, {
      commitments: generated.map(({ commitments: { hiding, binding } }) => ({
        hiding: { sec1: hiding },
        binding: { sec1: binding },
      })),
    }),
  );
  const nonces = yield* receive(NONCES);

  // 5.2: z_i = d_i + ρ_i e_i + λ_i x_i c.
  const own = keys.map((key, index) => {
    const [item, nonce] = [pub.items[index], generated[index]];
    if (item === undefined || nonce === undefined) throw new Bug("an item without a nonce");
    const secret = outputShare(self, secretShare, key);
    return schnorr_FROST.signShare(secret, key.frost, nonce.nonces, commitmentList(nonces, index), item.message);
  });
  yield* broadcast(SHARES, create(SignatureSharesSchema, { shares: own.map((be32) => ({ be32 })) }));
  const shares = yield* receive(SHARES);

  // 5.3: z = Σ z_i. Verified as a whole; only a failure verifies each share, to name its sender.
  const aggregate = (): readonly Uint8Array[] | undefined => {
    try {
      return keys.map(({ frost }, index) => {
        const item = pub.items[index];
        if (item === undefined) throw new Bug("a key without an item");
        const list = [...shares].map(([party, m]) => [identifierOf(party), m.shares[index]?.be32 ?? new Uint8Array()]);
        return schnorr_FROST.aggregate(frost, commitmentList(nonces, index), item.message, Object.fromEntries(list));
      });
    } catch (cause) {
      if (cause instanceof Bug) throw cause;
      return undefined;
    }
  };
  const signatures = aggregate();
  if (signatures !== undefined) return signatures;
  yield* verify(SHARE_VERIFIES);
  throw new Bug("every signature share verifies but the signature does not");
}

/**
 * Signs `items` with exactly the parties of the session (at least the threshold); returns BIP340 signatures, 64 bytes
 * each, valid under the derived output keys. Blames: a party whose signature share does not verify, with evidence.
 */
export const frostSign: Protocol<FrostSigning, Scalar, readonly Uint8Array[]> = {
  name: "frost-sign/1",
  rounds: [NONCES, SHARES],
  checks: [SHARE_VERIFIES],
  shape: ({ key, items }, parties) => ({ parties, threshold: key.threshold, batch: items.length }),
  digest: ({ key, items, authorization }) =>
    hashTuple("frost-sign/parameters", [
      keyDigest(key),
      items.map(({ message, bip32Tweak }) => [message, { scalar: bip32Tweak }]),
      authorization,
    ]),
  run,
};
