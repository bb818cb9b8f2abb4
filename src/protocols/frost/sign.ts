/**
 * FROST signing, RFC 9591 sections 5.1 to 5.4, with the hashes of BIP340. Several messages are signed in one session,
 * each with its own nonces and its own derived key. Public values are computed by libsecp256k1, in variable time;
 * nonces and shares only by what `Point.times` and `Scalar` do in constant time, as far as BigInt does.
 */
import { create } from "@bufbuild/protobuf";
import {
  type SignatureShares as SignatureSharesMessage,
  SignatureSharesSchema,
} from "../../../gen/mpcwallet/frost/v1/frost_pb.js";
import { lagrangeCoefficient, Scalar } from "../../crypto/curve.js";
import { Bug, InvalidInput } from "../../crypto/fault.js";
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
import { isScalar } from "../element-shape.js";
import { keyDigest, type PublicKeyPackage } from "../key-share.js";
import { type Binding, bind } from "./binding.js";
import { commitmentLists, commitmentsMessage, MAX_BATCH, NONCES, type NonceMessages } from "./nonce-round.js";
import { SigningNonces } from "./nonces.js";
import { aggregate, signatureShare, verifyShare, verifySignature } from "./share.js";
import { type OutputKey, outputShare, outputVerifyingShare, rememberedOutputKey } from "./taproot.js";

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

const SHARES: Round<typeof SignatureSharesSchema> = {
  id: "shares",
  step: 2,
  message: SignatureSharesSchema,
  delivery: "broadcast",
  maxBytes: MAX_BATCH * 48,
  wellFormed: ({ shares }, { batch }) => shares.length === batch && shares.every(isScalar),
};

/** What the run computed, for the checks of the same session: to name a culprit must not cost a binding a suspect. */
const bound = new WeakMap<FrostSigning, { readonly all: NonceMessages; readonly bindings: readonly Binding[] }>();

/** RFC 9591 sections 4.4 to 4.6 for every item. */
function bindings(pub: FrostSigning, all: NonceMessages): readonly Binding[] {
  const known = bound.get(pub);
  const same = known?.all.size === all.size && [...all].every(([party, message]) => known.all.get(party) === message);
  if (known !== undefined && same) return known.bindings;
  const lists = commitmentLists(all, pub.items.length);
  const made = pub.items.map(({ message, bip32Tweak }, index) =>
    bind({ list: at(lists, index), Q: rememberedOutputKey(pub.key, bip32Tweak).Q, message }),
  );
  bound.set(pub, { all, bindings: made });
  return made;
}

export function at<T>(all: readonly T[], index: number): T {
  const one = all[index];
  if (one === undefined) throw new Bug("every item has its part");
  return one;
}

const shareAt = ({ shares }: SignatureSharesMessage, index: number): Scalar => Scalar.fromProto(shares[index]);

/** RFC 9591 section 5.4, verify_signature_share, for every item. Names a bad share at once. */
const SHARE_VERIFIES: Check<FrostSigning> = {
  id: "signature-share",
  needs: [
    { round: SHARES, from: "accused" },
    { round: NONCES, from: "everyone" },
  ],
  holds({ pub, accused }, view) {
    const message = view.accused(SHARES);
    const nonces = view.everyone(NONCES);
    const lambda_i = lagrangeCoefficient(accused, [...nonces.keys()]);
    return bindings(pub, nonces).every((binding, index) => {
      const output = rememberedOutputKey(pub.key, at(pub.items, index).bip32Tweak);
      const verifyingShare = outputVerifyingShare(pub.key, accused, output);
      if (verifyingShare === undefined) return false;
      return verifyShare({ party: accused, share: shareAt(message, index), verifyingShare, lambda_i }, binding);
    });
  },
};

function* run(participant: Participant<FrostSigning>, secretShare: Scalar): Steps<FrostSigning, readonly Uint8Array[]> {
  const { self, parties, pub, random } = participant;
  checkSigning(pub, parties);
  const keys: readonly OutputKey[] = pub.items.map(({ bip32Tweak }) => rememberedOutputKey(pub.key, bip32Tweak));

  // RFC 9591, 5.1: one pair of nonces an item. They live in this generator only and are spent at most once.
  const generated = keys.map((key) => SigningNonces.generate(outputShare(secretShare, key), random));
  yield* broadcast(NONCES, commitmentsMessage(generated));
  const bindingOf = bindings(pub, yield* receive(NONCES));

  // 5.2: z_i = ±(d_i + ρ_i e_i) + λ_i x_i c.
  const lambda_i = lagrangeCoefficient(self, parties);
  const own = keys.map((key, index) =>
    signatureShare(
      { self, secretShare: outputShare(secretShare, key), lambda_i, nonces: at(generated, index) },
      at(bindingOf, index),
    ),
  );
  yield* broadcast(SHARES, create(SignatureSharesSchema, { shares: own.map(Scalar.toProto) }));
  const shares = [...(yield* receive(SHARES)).values()];

  // 5.3: z = Σ z_i. Verified as a whole; only a failure verifies each share, to name its sender.
  const signatures = aggregateAll(pub, bindingOf, (index) => shares.map((message) => shareAt(message, index)));
  if (signatures !== undefined) return signatures;
  yield* verify(SHARE_VERIFIES);
  throw new Bug("every signature share verifies but the signature does not");
}

/** RFC 9591 section 5.3: the signature of each item, or undefined when one of them does not verify. */
export function aggregateAll(
  { key, items }: Pick<FrostSigning, "key" | "items">,
  bindingOf: readonly Binding[],
  sharesOf: (index: number) => readonly Scalar[],
): readonly Uint8Array[] | undefined {
  const signatures = bindingOf.map((binding, index) => aggregate(sharesOf(index), binding));
  const verified = signatures.every((signature, index) => {
    const { message, bip32Tweak } = at(items, index);
    return verifySignature(signature, message, rememberedOutputKey(key, bip32Tweak).xOnly);
  });
  return verified ? signatures : undefined;
}

/** RFC 9591 section 5: at least the threshold signs, all of them hold shares. */
export function checkSigning({ key, items }: Pick<FrostSigning, "key" | "items">, parties: readonly PartyId[]): void {
  if (parties.length < key.threshold || parties.some((party) => !key.publicShares.has(party))) {
    throw new InvalidInput("signers", "the signers are at least the threshold of the key's parties", { parties });
  }
  if (items.some(({ message }) => message.length !== 32)) {
    throw new InvalidInput("sighash-length", "a sighash has 32 bytes");
  }
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
