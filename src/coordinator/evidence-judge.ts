import { isMessage, toBinary } from "@bufbuild/protobuf";
import { type Evidence, EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { frostSign } from "../protocols/frost/sign.js";
import { frostSignPrepared } from "../protocols/frost/sign-prepared.js";
import { decodePublicKeyPackage } from "../protocols/key-share.js";
import { keygen } from "../protocols/keygen.js";
import { judge, type Trial } from "../session/evidence.js";
import { Group, MAX_PARTIES, partyId } from "../session/party.js";
import type { Protocol } from "../session/protocol.js";
import { sessionDigest } from "../session/session.js";
import { claimedSigning } from "../wallet/approved-signing.js";
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

/** The evidence that holds about the session of this order; with nonces made ahead it was one of another protocol. */
function upheldSigning(order: SigningOrder, wallet: JudgedWallet, evidence: readonly unknown[]): readonly Proven[] {
  const { sessionId, proposal, certificate, signers, presignatureIds } = order;
  const group = groupOf(wallet.roster, [...wallet.roster.keys()], signers);
  const claimed = claimedSigning(proposal, certificate, wallet.account);
  if (group === undefined || claimed === undefined || wallet.publicKeyPackage.length === 0) return [];
  const key = decodePublicKeyPackage(wallet.publicKeyPackage);
  if (key.scheme !== "frost") return [];
  const session = { sessionId, group };
  if (presignatureIds.length === 0) {
    return upheld(trialOf(frostSign, { ...session, pub: { key, ...claimed } }), evidence);
  }
  const { items, authorization } = claimed;
  if (presignatureIds.length !== items.length) return [];
  const named = items.map((item, index) => ({ ...item, noncesId: presignatureIds[index] ?? new Uint8Array() }));
  return upheld(trialOf(frostSignPrepared, { ...session, pub: { key, items: named, authorization } }), evidence);
}

/** Judges evidence about a signing session that this coordinator ordered. */
export const judgeSigning: JudgeEvidence = ({ order, wallet, evidence }) =>
  evidence.length === 0 ? [] : upheldSigning(order, wallet, evidence);

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
