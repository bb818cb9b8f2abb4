/**
 * FROST signing with nonces made ahead: RFC 9591 sections 5.2 to 5.4 in one round. The binding factors are those of the
 * two-round protocol: hashes of output key, message and all commitments, so nobody gains by having seen the
 * commitments before choosing the message. What must never happen is one pair signing two messages: the caller has
 * marked the nonces used, durably, before.
 */
import { create } from "@bufbuild/protobuf";
import {
  type PreparedShare as PreparedShareMessage,
  PreparedShareSchema,
  PreparedSharesSchema,
} from "../../../gen/mpcwallet/frost/v1/frost_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import { lagrangeCoefficient, Scalar } from "../../crypto/curve.js";
import { Bug, InvalidInput } from "../../crypto/fault.js";
import { hashTuple } from "../../crypto/transcript.js";
import { MAX_PARTIES, type PartyId } from "../../session/party.js";
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
import { keyDigest } from "../key-share.js";
import { bind, type CommitmentList } from "./binding.js";
import { MAX_BATCH, pairFromProto, pairToProto } from "./nonce-round.js";
import { type PreparedNonces, preparedNoncesId } from "./prepared-nonces.js";
import { signatureShare, verifyShare } from "./share.js";
import { aggregateAll, at, checkSigning, type FrostSigning, type SigningItem } from "./sign.js";
import { outputShare, outputVerifyingShare, rememberedOutputKey } from "./taproot.js";

/** One message with the nonces that sign it. */
export interface PreparedSigningItem extends SigningItem {
  /** 32 bytes. */
  readonly noncesId: Uint8Array;
}

/** Public parameters of a signing session; its parties are the nonces' signing set. */
export interface PreparedSigning extends FrostSigning {
  readonly items: readonly PreparedSigningItem[];
}

/** What a signer brings; secret. */
export interface PreparedSecret {
  readonly secretShare: Scalar;
  /** In the order of the items. */
  readonly nonces: readonly PreparedNonces[];
}

/** A share and the commitments of the largest group. */
const SHARE_MAX_BYTES = 48 + MAX_PARTIES * 80;

const SHARES: Round<typeof PreparedSharesSchema> = {
  id: "shares",
  step: 1,
  message: PreparedSharesSchema,
  delivery: "broadcast",
  maxBytes: MAX_BATCH * SHARE_MAX_BYTES,
  wellFormed: ({ shares }, { batch, parties }) =>
    shares.length === batch &&
    shares.every(({ share, commitments }) => isScalar(share) && commitments.length === parties),
};

/** The list that a share came with; undefined unless it is the one that `noncesId` names. Total. */
function namedList(
  { commitments }: PreparedShareMessage,
  named: { readonly noncesId: Uint8Array; readonly keyDigest: Uint8Array; readonly parties: readonly PartyId[] },
): CommitmentList | undefined {
  try {
    const list = commitments.map((pair, index) => ({ party: at(named.parties, index), ...pairFromProto(pair) }));
    return equalBytes(preparedNoncesId(named.keyDigest, list), named.noncesId) ? list : undefined;
  } catch {
    return undefined;
  }
}

/**
 * RFC 9591 section 5.4, verify_signature_share, for every item. The commitments are the accused's own word, and only
 * those count that hash to the id which the session binds: an honest signer has no others.
 */
const SHARE_VERIFIES: Check<PreparedSigning> = {
  id: "signature-share",
  needs: [{ round: SHARES, from: "accused" }],
  holds({ pub, accused, parties }, view) {
    const { shares } = view.accused(SHARES);
    const { key, items } = pub;
    const digest = keyDigest(key);
    const lambda_i = lagrangeCoefficient(accused, parties);
    return items.every(({ message, bip32Tweak, noncesId }, index) => {
      const claim = at(shares, index);
      const list = namedList(claim, { noncesId, keyDigest: digest, parties });
      const output = rememberedOutputKey(key, bip32Tweak);
      const verifyingShare = outputVerifyingShare(key, accused, output);
      if (list === undefined || verifyingShare === undefined) return false;
      const share = Scalar.fromProto(claim.share);
      return verifyShare({ party: accused, share, verifyingShare, lambda_i }, bind({ list, Q: output.Q, message }));
    });
  },
};

/** Refuses nonces of another key or signing set, and one pair for two messages. */
function checkNonces({ key, items }: PreparedSigning, nonces: readonly PreparedNonces[], group: Group): void {
  const { self, parties } = group;
  const digest = keyDigest(key);
  if (items.length === 0 || items.length > MAX_BATCH || nonces.length !== items.length) {
    throw new InvalidInput("batch", `1 to ${MAX_BATCH} messages, nonces for each`, { count: items.length });
  }
  for (const [index, prepared] of nonces.entries()) {
    if (prepared.self !== self || !equalBytes(prepared.id, at(items, index).noncesId)) {
      throw new InvalidInput("nonces-order", "the nonces are not those of the session", { index });
    }
    if (!equalBytes(prepared.keyDigest, digest)) throw new InvalidInput("nonces-key", "the nonces are of another key");
    if (prepared.list.map(({ party }) => party).join() !== parties.join()) {
      throw new InvalidInput("nonces-signers", "the nonces are of another signing set");
    }
  }
  const ids = new Set(items.map(({ noncesId }) => Buffer.from(noncesId).toString("hex")));
  if (ids.size !== items.length) throw new InvalidInput("nonces-repeated", "nonces sign one message");
}

interface Group {
  readonly self: PartyId;
  readonly parties: readonly PartyId[];
}

function* run(
  { self, parties, pub }: Participant<PreparedSigning>,
  { secretShare, nonces }: PreparedSecret,
): Steps<PreparedSigning, readonly Uint8Array[]> {
  checkSigning(pub, parties);
  checkNonces(pub, nonces, { self, parties });
  const keys = pub.items.map(({ bip32Tweak }) => rememberedOutputKey(pub.key, bip32Tweak));
  const bindingOf = nonces.map(({ list }, index) =>
    bind({ list, Q: at(keys, index).Q, message: at(pub.items, index).message }),
  );

  // 5.2: z_i = ±(d_i + ρ_i e_i) + λ_i x_i c.
  const lambda_i = lagrangeCoefficient(self, parties);
  const own = nonces.map((prepared, index) =>
    signatureShare(
      { self, secretShare: outputShare(secretShare, at(keys, index)), lambda_i, nonces: prepared.take() },
      at(bindingOf, index),
    ),
  );
  const messages = own.map((share, index) =>
    create(PreparedShareSchema, {
      share: Scalar.toProto(share),
      commitments: at(nonces, index).list.map(pairToProto),
    }),
  );
  yield* broadcast(SHARES, create(PreparedSharesSchema, { shares: messages }));
  const shares = [...(yield* receive(SHARES)).values()];

  // 5.3: z = Σ z_i. Verified as a whole; only a failure verifies each share, to name its sender.
  const signatures = aggregateAll(pub, bindingOf, (index) =>
    shares.map((message) => Scalar.fromProto(message.shares[index]?.share)),
  );
  if (signatures !== undefined) return signatures;
  yield* verify(SHARE_VERIFIES);
  throw new Bug("every signature share verifies but the signature does not");
}

/**
 * Signs with exactly the nonces' signers; returns BIP340 signatures, 64 bytes each, valid under the derived output
 * keys. The caller has marked all nonces used, durably, before. Blames: a party whose signature share does not verify,
 * with evidence.
 */
export const frostSignPrepared: Protocol<PreparedSigning, PreparedSecret, readonly Uint8Array[]> = {
  name: "frost-sign-prepared/1",
  rounds: [SHARES],
  checks: [SHARE_VERIFIES],
  shape: ({ key, items }, parties) => ({ parties, threshold: key.threshold, batch: items.length }),
  digest: ({ key, items, authorization }) =>
    hashTuple("frost-sign-prepared/parameters", [
      keyDigest(key),
      items.map(({ message, bip32Tweak, noncesId }) => [message, { scalar: bip32Tweak }, noncesId]),
      authorization,
    ]),
  run,
};
