import { create } from "@bufbuild/protobuf";
import {
  type AbandonedStatement,
  AbandonedStatementSchema,
  type PreparedStatement,
  PreparedStatementSchema,
  type SwitchCertificate,
  SwitchCertificateSchema,
} from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { DIGEST_BYTES, VOTER_MAX_LENGTH } from "./ballot.js";
import { digest } from "./digest.js";
import { type Refusal, refusal } from "./refusal.js";
import { SIGNATURE_BYTES, type SignMessage, type VerifySignature } from "./signature.js";
import { ATTEMPTS_MAX, type VerifiedWalletChange } from "./wallet-change.js";

/**
 * How all nodes of a wallet switch to new shares, or none does. A coordinator carries the messages and is not trusted.
 *
 * Attempts upon one epoch stand in one order (`comparePlaces`). A node keeps to these rules, each durable before what
 * it allows leaves the node:
 *
 *  R1  It signs a PreparedStatement about an attempt after the new share is on its disk beside the current one.
 *  R2  It prepares only what comes after everything that it has prepared or abandoned upon this epoch, and while its
 *      last one is not abandoned by a statement of one of that attempt's parties, it prepares nothing else, unless an
 *      order of the authority says that it supersedes unfinished ones.
 *  R3  It erases nothing that it prepared until it switches. It switches once from an epoch: to its last prepared
 *      attempt, upon a certificate of that attempt, in one write; current and other prepared shares are erased by it.
 *  R4  It signs an AbandonedStatement about an attempt that it has not prepared, and never prepares it afterwards.
 *  R5  A party that is to leave erases its shares upon a certificate of an attempt that is not before its last one.
 *
 * A certificate is the statements of *all* new parties about the same values, so it exists only when every one of them
 * had its new share on disk.
 *
 * The key is never lost, whatever a coordinator and any number of nodes say: take the last certified attempt A upon an
 * epoch. No honest party of A ever erases its share of A before it has moved on from A: it would have to switch to, or
 * leave by, a certified attempt after A, of which there is none; and if it had switched to an earlier one, it would
 * have left the epoch before it could prepare A. If there is no certified attempt, nobody has erased anything.
 *
 * No fork: honest nodes that are parties of two certified attempts A before B do not switch to A, by the same argument.
 *
 * Neither argument asks whether what was abandoned, or superseded, could still be certified: that matters for going on.
 *
 * It always goes on while parties do not lie: either all parties have prepared, and then anybody can collect their
 * statements again; or one has not, and then it can abandon the attempt, and a later one may be prepared. When that one
 * is gone for good, an order that supersedes goes on without it. A party that
 * signs both statements can, with the coordinator's help, stop changes of the wallet and stop it from signing, but it
 * loses no share. The two statements together convict it.
 */

export type CertificateFault =
  | "too-many-statements"
  | "statement-malformed"
  | "statement-party"
  | "statement-duplicate"
  | "statement-other-wallet"
  | "statement-other-change"
  | "statement-disagrees"
  | "statement-forged"
  | "statement-missing";

export interface CertifiedSwitch {
  readonly attempt: number;
  readonly epoch: number;
  /** Digest of the new public key package, 32 bytes. */
  readonly keyDigest: Uint8Array;
  /** 32 bytes; empty for FROST. */
  readonly epochId: Uint8Array;
}

export type SwitchVerdict =
  | { readonly valid: true; readonly certified: CertifiedSwitch }
  | { readonly valid: false; readonly refusal: Refusal<CertificateFault> };

type Unsigned<Message> = Omit<Message, "signature" | "$typeName" | "$unknown">;

function preparedDigest(statement: Unsigned<PreparedStatement>): Uint8Array {
  return digest("mpc-wallet/prepared/v1", [
    { text: statement.walletId },
    { bytes: statement.requestDigest },
    { uint: statement.attempt },
    { uint: statement.epoch },
    { bytes: statement.keyDigest },
    { bytes: statement.epochId },
    { text: statement.party },
  ]);
}

function abandonedDigest(statement: Unsigned<AbandonedStatement>): Uint8Array {
  return digest("mpc-wallet/abandoned/v1", [
    { text: statement.walletId },
    { bytes: statement.requestDigest },
    { uint: statement.attempt },
    { text: statement.party },
  ]);
}

export function signPrepared(content: Unsigned<PreparedStatement>, sign: SignMessage): PreparedStatement {
  return create(PreparedStatementSchema, { ...content, signature: sign(preparedDigest(content)) });
}

export function signAbandoned(content: Unsigned<AbandonedStatement>, sign: SignMessage): AbandonedStatement {
  return create(AbandonedStatementSchema, { ...content, signature: sign(abandonedDigest(content)) });
}

const isAttempt = (attempt: number): boolean => attempt >= 1 && attempt <= ATTEMPTS_MAX;

function isWellFormed(statement: PreparedStatement): boolean {
  return (
    statement.$unknown === undefined &&
    statement.requestDigest.length === DIGEST_BYTES &&
    statement.keyDigest.length === DIGEST_BYTES &&
    (statement.epochId.length === 0 || statement.epochId.length === DIGEST_BYTES) &&
    isAttempt(statement.attempt) &&
    statement.party.length <= VOTER_MAX_LENGTH &&
    statement.signature.length === SIGNATURE_BYTES
  );
}

/**
 * True when a party of the change stated that the attempt can never be completed. Total.
 *
 * @param roster every node with its Ed25519 identity key
 */
export function verifyAbandoned(
  statement: AbandonedStatement,
  of: {
    readonly change: VerifiedWalletChange;
    readonly attempt: number;
    readonly roster: ReadonlyMap<string, Uint8Array>;
  },
  verify: VerifySignature,
): boolean {
  const { change, attempt, roster } = of;
  const key = change.parties.includes(statement.party) ? roster.get(statement.party) : undefined;
  return (
    key !== undefined &&
    statement.walletId === change.walletId &&
    equalBytes(statement.requestDigest, change.digest) &&
    statement.attempt === attempt &&
    verify(key, abandonedDigest(statement), statement.signature)
  );
}

/** Statements in party order, so that equal ones make equal certificates. */
export function assembleSwitch(
  change: VerifiedWalletChange,
  publicKeyPackage: Uint8Array,
  statements: ReadonlyMap<string, PreparedStatement>,
): SwitchCertificate {
  const ordered = change.parties.flatMap((party) => statements.get(party) ?? []);
  return create(SwitchCertificateSchema, { change: change.signed, publicKeyPackage, statements: ordered });
}

/** What statements are compared with. An auditor who does not know the authorities' keys reads it from the order. */
type CertifiedOrder = Pick<VerifiedWalletChange, "walletId" | "digest" | "baseEpoch" | "parties">;

/** Cheap comparisons first; the signature is verified last. */
function checkStatement(
  statement: PreparedStatement,
  of: { readonly change: CertifiedOrder; readonly first: PreparedStatement; readonly key: Uint8Array },
  verify: VerifySignature,
): Refusal<CertificateFault> | undefined {
  const { change, first, key } = of;
  const facts = { party: statement.party };
  if (statement.walletId !== change.walletId) {
    return refusal("statement-other-wallet", "a statement is about another wallet", facts);
  }
  if (!equalBytes(statement.requestDigest, change.digest) || statement.epoch !== change.baseEpoch + 1) {
    return refusal("statement-other-change", "a statement is about another change", facts);
  }
  const agrees =
    statement.attempt === first.attempt &&
    equalBytes(statement.keyDigest, first.keyDigest) &&
    equalBytes(statement.epochId, first.epochId);
  if (!agrees) return refusal("statement-disagrees", "the parties prepared different things", facts);
  if (!verify(key, preparedDigest(statement), statement.signature)) {
    return refusal("statement-forged", "the party did not sign this", facts);
  }
  return undefined;
}

/**
 * Every new party of the change, once, and nobody else, has prepared the same new epoch. That `publicKeyPackage` has
 * the certified digest, and that its group key is the wallet's, is for the caller to check. Total.
 *
 * @param change the certificate's own order, verified
 * @param roster every node with its Ed25519 identity key
 */
export function verifySwitch(
  { statements }: SwitchCertificate,
  change: CertifiedOrder,
  roster: ReadonlyMap<string, Uint8Array>,
  verify: VerifySignature,
): SwitchVerdict {
  const refuse = (why: Refusal<CertificateFault>): SwitchVerdict => ({ valid: false, refusal: why });
  const { parties } = change;
  const [first] = statements;
  // The bound comes before any signature is verified; a small surplus is told apart as what it is.
  if (statements.length > 2 * parties.length) {
    return refuse(refusal("too-many-statements", "more statements than parties", { statements: statements.length }));
  }
  const seen = new Set<string>();
  for (const statement of statements) {
    const facts = { party: statement.party.slice(0, VOTER_MAX_LENGTH) };
    if (first === undefined || !isWellFormed(statement)) {
      return refuse(refusal("statement-malformed", "a statement is not well-formed", facts));
    }
    const key = parties.includes(statement.party) ? roster.get(statement.party) : undefined;
    if (key === undefined) return refuse(refusal("statement-party", "a statement of nobody that holds a share", facts));
    if (seen.has(statement.party)) return refuse(refusal("statement-duplicate", "a party counts once", facts));
    const fault = checkStatement(statement, { change, first, key }, verify);
    if (fault !== undefined) return refuse(fault);
    seen.add(statement.party);
  }
  const missing = parties.find((party) => !seen.has(party));
  if (missing !== undefined || first === undefined) {
    const facts = { party: missing ?? "" };
    return refuse(refusal("statement-missing", "not every party has prepared the new shares", facts));
  }
  const { attempt, epoch, keyDigest, epochId } = first;
  return { valid: true, certified: { attempt, epoch, keyDigest, epochId } };
}
