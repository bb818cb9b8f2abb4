import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type SwitchCertificate, SwitchCertificateSchema } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import type { CertifiedSwitch } from "../consensus/switch-certificate.js";
import {
  type AttemptPlace,
  changeDigest,
  comparePlaces,
  encodeSignedWalletChange,
  parseSignedWalletChange,
  placeOf,
  readWalletChange,
  type VerifiedWalletChange,
} from "../consensus/wallet-change.js";
import { equalBytes } from "../crypto/bytes.js";
import { Bug, InvalidInput } from "../crypto/fault.js";
import { decodeKeyShare, decodePublicKeyPackage, keyDigest } from "../protocols/key-share.js";
import type { HeldWallet, PreparedShares, StoredWallet } from "../storage/key-store.js";

/**
 * What a node may do with what it holds of a wallet: rules R2 to R5 of consensus/switch-certificate.ts as pure edits of
 * `HeldWallet`, so that the key store applies check and change as one step.
 */

const walletDigest = ({ keyShare }: StoredWallet): Uint8Array => keyDigest(decodeKeyShare(keyShare.reveal()));

/** An attempt upon a change, as one node sees it. */
export interface Attempt {
  readonly change: VerifiedWalletChange;
  readonly attempt: number;
  readonly nodeId: string;
}

const isOfOrder = ({ signed }: VerifiedWalletChange, prepared: PreparedShares): boolean => {
  const known = parseSignedWalletChange(prepared.change);
  return known !== undefined && equalBytes(changeDigest(known), changeDigest(signed));
};

const isPrepared = ({ change, attempt }: Attempt, prepared: PreparedShares): boolean =>
  prepared.attempt === attempt && isOfOrder(change, prepared);

/** What this node prepared for exactly this attempt. */
export function preparedFor(held: HeldWallet, attempt: Attempt): PreparedShares | undefined {
  return held.prepared.find((prepared) => isPrepared(attempt, prepared));
}

/** The certificate of the last switch. */
export function lastSwitch({ certificate }: HeldWallet): SwitchCertificate | undefined {
  return certificate.length === 0 ? undefined : fromBinary(SwitchCertificateSchema, certificate);
}

/** @throws InvalidInput `change-other-base` when the share that signs here is not the one that is to be replaced */
export function requireBase({ wallet }: HeldWallet, { change }: Pick<Attempt, "change">): void {
  if (wallet === undefined) return;
  if (wallet.epoch === change.baseEpoch && equalBytes(walletDigest(wallet), change.baseKeyDigest)) return;
  throw new InvalidInput("change-other-base", "the order replaces another epoch than this node holds; order again", {
    walletId: change.walletId,
    held: wallet.epoch,
    ordered: change.baseEpoch,
  });
}

/** R2. @throws InvalidInput `change-other-base`, `change-pending`, `change-superseded` */
export function requirePreparable(held: HeldWallet, attempt: Attempt): void {
  const { change } = attempt;
  requireBase(held, attempt);
  const place = placeOf(change, attempt.attempt);
  if (held.closed !== undefined && comparePlaces(place, held.closed) <= 0) {
    throw new InvalidInput("change-superseded", "this node has promised to prepare only later attempts", {
      walletId: change.walletId,
      attempt: attempt.attempt,
    });
  }
  requireFree(held, attempt);
}

/** @throws InvalidInput `change-pending` while another attempt is neither done, abandoned nor superseded */
export function requireFree({ prepared }: HeldWallet, { change }: Pick<Attempt, "change">): void {
  const last = prepared.at(-1);
  if (last === undefined || last.abandoned || (change.supersedes && !isOfOrder(change, last))) return;
  throw new InvalidInput("change-pending", "another change of this wallet is prepared and neither done nor abandoned", {
    walletId: change.walletId,
  });
}

/** R1 and R2: the held wallet with the new share beside the current one. */
export function withPrepared(held: HeldWallet, attempt: Attempt, next: StoredWallet | undefined): HeldWallet {
  requirePreparable(held, attempt);
  const change = encodeSignedWalletChange(attempt.change.signed);
  const prepared = [...held.prepared, { change, attempt: attempt.attempt, next, abandoned: false }];
  return { ...held, prepared, closed: placeOf(attempt.change, attempt.attempt) };
}

/** R4: from here on the attempt is never prepared. @throws InvalidInput `change-prepared`, `change-over` */
export function withPromise(held: HeldWallet, attempt: Attempt): HeldWallet {
  const { change } = attempt;
  const facts = { walletId: change.walletId, attempt: attempt.attempt };
  if (preparedFor(held, attempt) !== undefined) {
    throw new InvalidInput("change-prepared", "this node has prepared the attempt and cannot abandon it", facts);
  }
  const place = placeOf(change, attempt.attempt);
  // What was prepared before the last switch is no longer listed, but it came before the attempt that was switched to.
  const switched = placeOfLastSwitch(held);
  if (switched !== undefined && comparePlaces(place, switched) <= 0) {
    throw new InvalidInput("change-over", "this node has switched to this attempt or a later one", facts);
  }
  const closed = held.closed === undefined || comparePlaces(place, held.closed) > 0 ? place : held.closed;
  return { ...held, closed };
}

/** Somebody else abandoned it. */
export function withAbandoned(held: HeldWallet, attempt: Attempt): HeldWallet {
  const prepared = held.prepared.map((one) => (isPrepared(attempt, one) ? { ...one, abandoned: true } : one));
  return { ...held, prepared };
}

/**
 * R3 and R5: the one step of the switch.
 *
 * @throws InvalidInput `change-other-base`, `change-superseded`, `change-never-prepared`, `not-a-party`
 */
export function switched(
  held: HeldWallet,
  attempt: Attempt,
  to: { readonly certified: CertifiedSwitch; readonly certificate: SwitchCertificate },
): HeldWallet {
  const { change, nodeId } = attempt;
  const facts = { walletId: change.walletId, attempt: attempt.attempt };
  requireBase(held, attempt);
  const place = placeOf(change, attempt.attempt);
  const certificate = toBinary(SwitchCertificateSchema, to.certificate);
  const done = { prepared: [], certificate, closed: place };
  const superseded = () =>
    new InvalidInput("change-superseded", "this node has prepared a later attempt than the certified one", facts);
  const last = held.prepared.at(-1);
  if (!change.parties.includes(nodeId)) {
    if (held.wallet === undefined) throw new InvalidInput("not-a-party", "this node holds no share to erase", facts);
    if (last !== undefined && comparePlaces(placeOfPrepared(last), place) > 0) throw superseded();
    return { ...done, wallet: undefined };
  }
  if (last === undefined || !isPrepared(attempt, last)) {
    if (preparedFor(held, attempt) !== undefined) throw superseded();
    const message = "a certificate says that this node prepared shares which are not here: was its folder put back?";
    throw new InvalidInput("change-never-prepared", message, facts);
  }
  const { next } = last;
  const fits =
    next !== undefined &&
    equalBytes(walletDigest(next), to.certified.keyDigest) &&
    equalBytes(next.epochId, to.certified.epochId);
  if (!fits) throw new Bug("this node's own statement names another share than it prepared", facts);
  return { ...done, wallet: next };
}

/** Whether the last switch of this node was to this very attempt. */
export function isSwitchedTo(held: HeldWallet, attempt: Attempt): boolean {
  const place = placeOfLastSwitch(held);
  return place !== undefined && comparePlaces(place, placeOf(attempt.change, attempt.attempt)) === 0;
}

/** The package of a certificate is the certified one, of the key that this node knows if it holds it. */
export function requireCertifiedPackage(
  held: HeldWallet,
  { certified, certificate }: { readonly certified: CertifiedSwitch; readonly certificate: SwitchCertificate },
): void {
  const key = decodePublicKeyPackage(certificate.publicKeyPackage);
  const known = held.wallet && decodeKeyShare(held.wallet.keyShare.reveal());
  const sameKey =
    known === undefined || (key.groupKey.equals(known.groupKey) && equalBytes(key.chainCode, known.chainCode));
  if (sameKey && equalBytes(keyDigest(key), certified.keyDigest)) return;
  throw new InvalidInput("certificate-key", "the certificate's key is not the one that its statements name");
}

function placeOfPrepared({ change, attempt }: PreparedShares): AttemptPlace {
  const signed = parseSignedWalletChange(change);
  const order = signed && readWalletChange(signed);
  if (order === undefined) throw new Bug("a stored change does not decode");
  return placeOf(order, attempt);
}

function placeOfLastSwitch(held: HeldWallet): AttemptPlace | undefined {
  const certificate = lastSwitch(held);
  const [first] = certificate?.statements ?? [];
  const change = certificate?.change && readWalletChange(certificate.change);
  return change && first && placeOf(change, first.attempt);
}
