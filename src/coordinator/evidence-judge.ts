import { isMessage, toBinary } from "@bufbuild/protobuf";
import { type Evidence, EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { decodePublicPresignature, type PublicPresignature } from "../protocols/cggmp24/presignature.js";
import { type Signing, sign, validateSigning } from "../protocols/cggmp24/sign.js";
import { frostSign } from "../protocols/frost/sign.js";
import { frostSignPrepared } from "../protocols/frost/sign-prepared.js";
import { decodePublicKeyPackage, type PublicKeyPackage } from "../protocols/key-share.js";
import { keygen } from "../protocols/keygen.js";
import { judge, type Trial } from "../session/evidence.js";
import { Group, MAX_PARTIES, type PartyId, partyId } from "../session/party.js";
import type { Protocol } from "../session/protocol.js";
import { sessionDigest } from "../session/session.js";
import { type ApprovedItem, claimedSigning } from "../wallet/approved-signing.js";
import type { KeyGenerationOrder } from "../wallet/key-generation.js";
import type { JudgedWallet, JudgeEvidence, SigningOrder } from "../wallet/peer-signing.js";

/**
 * A coordinator's own verdict on what nodes report about each other. It ordered the session, so it knows every public
 * fact of it, and runs the very check that the accuser says has failed. What it cannot judge proves nothing.
 */

/** A node that evidence proves guilty. */
export interface Proven {
  readonly nodeId: string;
  /** The check that failed, or the engine's own name for the fault. */
  readonly check: string;
  /** Serialized `mpcwallet.session.v1.Evidence`. */
  readonly evidence: Uint8Array;
}

/** Accusations of one report that are looked at: an honest party names each other party once. */
const ACCUSATIONS_MAX = MAX_PARTIES;

/** The evidence of one report that holds, at most one for each node. Total. */
function upheld<Pub>(trial: Trial<Pub>, evidence: readonly unknown[]): readonly Proven[] {
  const proven = new Map<string, Proven>();
  for (const item of evidence.slice(0, ACCUSATIONS_MAX)) {
    if (!isMessage(item, EvidenceSchema)) continue;
    const nodeId = trial.group.party(item.accused)?.nodeId;
    if (nodeId === undefined || proven.has(nodeId) || !judge(trial, item)) continue;
    proven.set(nodeId, { nodeId, check: item.check, evidence: toBinary(EvidenceSchema, item) });
  }
  return [...proven.values()];
}

function trialOf<Pub>(
  protocol: Protocol<Pub, never, unknown>,
  session: { readonly sessionId: Uint8Array; readonly group: Group; readonly pub: Pub },
): Trial<Pub> {
  const { group, pub } = session;
  return { protocol, group, pub, shape: protocol.shape(pub, group.ids.length), ssid: sessionDigest(protocol, session) };
}

/** Undefined when a party has no key in the roster: then nobody's signature can be checked. */
function groupOf(roster: ReadonlyMap<string, Uint8Array>, parties: readonly string[], indices: readonly number[]) {
  const members = indices.flatMap((index) => {
    const nodeId = parties[index - 1];
    const identityKey = nodeId === undefined ? undefined : roster.get(nodeId);
    if (nodeId === undefined || identityKey?.length !== 32) return [];
    return [{ id: partyId(index), nodeId, identityKey }];
  });
  return members.length === indices.length && members.length > 0 ? new Group(members) : undefined;
}

/** The evidence that holds about the session of this order; each kind of wallet and supply has its own protocol. */
function upheldSigning(
  order: SigningOrder,
  wallet: JudgedWallet,
  { evidence, exhibits }: { readonly evidence: readonly unknown[]; readonly exhibits: readonly Uint8Array[] },
): readonly Proven[] {
  const { sessionId, proposal, certificate, signers, presignatureIds } = order;
  const group = groupOf(wallet.roster, [...wallet.roster.keys()], signers);
  const claimed = claimedSigning(proposal, certificate, wallet.account);
  if (group === undefined || claimed === undefined || wallet.publicKeyPackage.length === 0) return [];
  const key = decodePublicKeyPackage(wallet.publicKeyPackage);
  const session = { sessionId, group };
  if (key.scheme === "frost" && presignatureIds.length === 0) {
    return upheld(trialOf(frostSign, { ...session, pub: { key, ...claimed } }), evidence);
  }
  const { items, authorization } = claimed;
  if (presignatureIds.length !== items.length) return [];
  if (key.scheme === "cggmp24") {
    const presignatures = namedPresignatures(presignatureIds, exhibits);
    const pub = presignatures && segwitSigning(key, { items, authorization, presignatures }, group.ids);
    return pub === undefined ? [] : upheld(trialOf(sign, { ...session, pub }), evidence);
  }
  const named = items.map((item, index) => ({ ...item, noncesId: presignatureIds[index] ?? new Uint8Array() }));
  return upheld(trialOf(frostSignPrepared, { ...session, pub: { key, items: named, authorization } }), evidence);
}

/**
 * The presignatures that the order names by their ids, out of what the reporter shows: an id is the hash of all that is
 * public about a presignature, so nobody can show another one. Undefined when one is missing.
 */
function namedPresignatures(
  ids: readonly Uint8Array[],
  exhibits: readonly Uint8Array[],
): readonly PublicPresignature[] | undefined {
  if (exhibits.length !== ids.length) return undefined;
  try {
    const shown = exhibits.map(decodePublicPresignature);
    return shown.every(({ id }, index) => equalBytes(id, ids[index] ?? new Uint8Array())) ? shown : undefined;
  } catch {
    return undefined;
  }
}

/** The session's public parameters; undefined when no honest signer would have taken part with them. */
function segwitSigning(
  key: PublicKeyPackage,
  parts: {
    readonly items: readonly ApprovedItem[];
    readonly authorization: Uint8Array;
    readonly presignatures: readonly PublicPresignature[];
  },
  signers: readonly PartyId[],
): Signing | undefined {
  const { authorization, presignatures } = parts;
  const items = parts.items.flatMap(({ message, bip32Tweak }, index) => {
    const presignature = presignatures[index];
    return presignature === undefined ? [] : [{ presignature, digest: { bytes: message }, bip32Tweak }];
  });
  // All are of one epoch, or they are refused; which one it is, is fixed by their ids.
  const pub = { key, epoch: presignatures[0]?.epoch ?? new Uint8Array(), items, authorization };
  try {
    validateSigning(pub, signers);
    return pub;
  } catch {
    return undefined;
  }
}

/** Judges evidence about a signing session that this coordinator ordered. */
export const judgeSigning: JudgeEvidence = ({ order, wallet, evidence, exhibits }) =>
  evidence.length === 0 ? [] : upheldSigning(order, wallet, { evidence, exhibits });

/** Judges evidence about a key generation that this coordinator ordered. */
export function judgeKeyGeneration(
  order: KeyGenerationOrder,
  roster: ReadonlyMap<string, Uint8Array>,
  evidence: readonly Evidence[],
): readonly Proven[] {
  const { sessionId, parties, scheme, threshold, walletId } = order;
  const group = groupOf(
    roster,
    parties,
    parties.map((_, position) => position + 1),
  );
  if (group === undefined || evidence.length === 0) return [];
  return upheld(trialOf(keygen, { sessionId, group, pub: { scheme, threshold, walletId } }), evidence);
}
