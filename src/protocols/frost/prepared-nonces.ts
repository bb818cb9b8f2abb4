/** One signer's nonces for one message, made ahead: one use, one signing set, one key. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { PreparedNoncesSchema } from "../../../gen/mpcwallet/frost/v1/frost_pb.js";
import { equalBytes } from "../../crypto/bytes.js";
import { InvalidInput } from "../../crypto/fault.js";
import { hashTuple } from "../../crypto/transcript.js";
import { type PartyId, partyId } from "../../session/party.js";
import type { CommitmentList } from "./binding.js";
import { pairFromProto, pairToProto } from "./nonce-round.js";
import { SigningNonces } from "./nonces.js";

/** Longest encoding: 64 signers. */
const MAX_BYTES = 8192;

/**
 * Names nonces by everything that is public about them, 32 bytes: whoever signs "with the nonces of this id" has said
 * which commitments its share answers to.
 *
 * @param keyDigest digest of the key with all public shares, 32 bytes
 */
export function preparedNoncesId(keyDigest: Uint8Array, list: CommitmentList): Uint8Array {
  return hashTuple("frost/prepared-nonces", [
    keyDigest,
    list.map(({ party, hiding, binding }) => [party, hiding, binding]),
  ]);
}

/**
 * Taking the nonces consumes the object. That no copy of it is used either is the ledger's promise (take and erase
 * durably, before anything leaves the process), not this object's.
 */
export class PreparedNonces {
  readonly self: PartyId;
  /** 32 bytes, equal at all signers. */
  readonly id: Uint8Array;
  /** 32 bytes. */
  readonly keyDigest: Uint8Array;
  /** Ascending by party; the parties are the signing set. */
  readonly list: CommitmentList;
  #nonces: SigningNonces | undefined;

  /** @throws InvalidInput `nonces` when the list does not hold this signer's commitment */
  constructor(
    self: PartyId,
    facts: { readonly keyDigest: Uint8Array; readonly list: CommitmentList },
    nonces: SigningNonces,
  ) {
    const own = facts.list.find(({ party }) => party === self);
    if (own === undefined || !own.hiding.equals(nonces.hiding) || !own.binding.equals(nonces.binding)) {
      throw new InvalidInput("nonces", "the list does not hold the own commitment", { self });
    }
    this.self = self;
    this.keyDigest = facts.keyDigest;
    this.list = facts.list;
    this.id = preparedNoncesId(facts.keyDigest, facts.list);
    this.#nonces = nonces;
  }

  /** The nonces, once. @throws InvalidInput `nonces-used` */
  take(): SigningNonces {
    const nonces = this.#nonces;
    this.#nonces = undefined;
    if (nonces === undefined) throw new InvalidInput("nonces-used", "nonces sign once");
    return nonces;
  }

  /** For the ledger, in place of use: this object is consumed. The bytes are secret. @throws InvalidInput `nonces-used` */
  encode(): Uint8Array {
    const secret = this.take().putAside();
    const commitments = this.list.map(({ party, ...pair }) => ({ party, commitment: pairToProto(pair) }));
    const { id, keyDigest, self } = this;
    try {
      return toBinary(PreparedNoncesSchema, create(PreparedNoncesSchema, { id, keyDigest, self, commitments, secret }));
    } finally {
      secret.fill(0);
    }
  }

  /** Reads what `encode` wrote. @throws InvalidInput `nonces` for anything else */
  static decode(bytes: Uint8Array): PreparedNonces {
    if (bytes.length > MAX_BYTES) throw new InvalidInput("nonces", "too long", { bytes: bytes.length });
    const message = fromBinary(PreparedNoncesSchema, bytes);
    const self = partyId(message.self);
    const list = message.commitments.map(({ party, commitment }) => {
      if (commitment === undefined) throw new InvalidInput("nonces", "a commitment is missing");
      return { party: partyId(party), ...pairFromProto(commitment) };
    });
    const own = list.find(({ party }) => party === self);
    const ascending = list.every(({ party }, index) => index === 0 || (list[index - 1]?.party ?? 0) < party);
    if (own === undefined || !ascending || message.secret.length !== 64) {
      throw new InvalidInput("nonces", "these are no nonces of one signer", { self });
    }
    // A copy: protobuf hands out views, and callers erase the bytes after use.
    const facts = { keyDigest: Uint8Array.from(message.keyDigest), list };
    const prepared = new PreparedNonces(self, facts, SigningNonces.takeUp(message.secret, own));
    if (!equalBytes(prepared.id, message.id)) throw new InvalidInput("nonces", "the id is of other nonces", { self });
    return prepared;
  }

  /** Never shown: an inspector or a log gets the id only. */
  toJSON(): string {
    return `PreparedNonces(${Buffer.from(this.id).toString("hex")})`;
  }
}
