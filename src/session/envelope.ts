import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { sha256 } from "@noble/hashes/sha2.js";
import { type Envelope, EnvelopeSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { verifyEd25519 } from "../crypto/ed25519.js";
import { hashTuple } from "../crypto/transcript.js";
import type { Group, PartyId } from "./party.js";

/** Bytes that an envelope may have around its payload. */
export const ENVELOPE_OVERHEAD_BYTES = 512;

/** Signs with the party's Ed25519 identity key; 64 bytes. */
export type SignIdentity = (message: Uint8Array) => Uint8Array;

/** The fields of an envelope before it is signed. */
export interface Unsigned {
  readonly ssid: Uint8Array;
  readonly round: string;
  readonly sender: PartyId;
  /** 0 for a broadcast. */
  readonly recipient: PartyId | 0;
  readonly echo: Uint8Array;
  readonly payload: Uint8Array;
}

/** SHA-256 of the payload, present or withheld. */
export function payloadHash(envelope: Envelope): Uint8Array {
  switch (envelope.content.case) {
    case "payload":
      return sha256(envelope.content.value);
    case "payloadSha256":
      return envelope.content.value;
    default:
      return sha256(new Uint8Array());
  }
}

/** What the sender signs: every field typed and length-prefixed. Two envelopes are the same when their digests are. */
export function envelopeDigest(envelope: Envelope): Uint8Array {
  return hashTuple("envelope", [
    envelope.ssid,
    envelope.round,
    BigInt(envelope.sender),
    BigInt(envelope.recipient),
    envelope.echo,
    payloadHash(envelope),
  ]);
}

export function signEnvelope(fields: Unsigned, sign: SignIdentity): Envelope {
  const envelope = create(EnvelopeSchema, {
    ssid: fields.ssid,
    round: fields.round,
    sender: fields.sender,
    recipient: fields.recipient,
    echo: fields.echo,
    content: { case: "payload", value: fields.payload },
  });
  envelope.signature = sign(envelopeDigest(envelope));
  return envelope;
}

/** The digest of an envelope that a member of the group signed; undefined for any other. Total. */
export function authenticDigest(envelope: Envelope, group: Group): Uint8Array | undefined {
  const sender = group.party(envelope.sender);
  if (sender === undefined || envelope.echo.length !== 32 || envelope.ssid.length !== 32) return undefined;
  if (envelope.content.case === undefined || payloadHash(envelope).length !== 32) return undefined;
  const digest = envelopeDigest(envelope);
  return verifyEd25519(sender.identityKey, digest, envelope.signature) ? digest : undefined;
}

export function encodeEnvelope(envelope: Envelope): Uint8Array {
  return toBinary(EnvelopeSchema, envelope);
}

/** Undefined when the bytes are no envelope. */
export function decodeEnvelope(bytes: Uint8Array): Envelope | undefined {
  try {
    return fromBinary(EnvelopeSchema, bytes, { readUnknownFields: false });
  } catch {
    return undefined;
  }
}

/** The same signed statement without its payload. */
export function withholdPayload(envelope: Envelope): Envelope {
  return create(EnvelopeSchema, { ...envelope, content: { case: "payloadSha256", value: payloadHash(envelope) } });
}
