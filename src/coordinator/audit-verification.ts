import { fromBinary } from "@bufbuild/protobuf";
import { Transaction } from "bitcoinjs-lib";
import { ApprovalCertificateSchema, Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { SwitchCertificateSchema } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { verifyBallot } from "../consensus/ballot.js";
import { approvalsNeeded } from "../consensus/quorum.js";
import { verifySwitch } from "../consensus/switch-certificate.js";
import { readWalletChange } from "../consensus/wallet-change.js";
import { verifyEd25519 } from "../crypto/ed25519.js";
import { Unavailable } from "../crypto/fault.js";
import type { Roster } from "../network/identity/roster.js";
import type { AuditEntry, AuditTrail } from "../wallet/audit-trail.js";
import type { ChainSource } from "../wallet/chain-source.js";

/** What reading the whole trail with public keys and a view of the chain shows. */
export interface AuditVerdict {
  readonly entries: bigint;
  readonly payments: number;
  /** What does not fit; empty when the trail holds. */
  readonly problems: readonly string[];
}

const PAGE = 1_000;

/**
 * Verifies the trail as an outsider does: the hash chain; every certificate's ballots under the nodes' public keys; every
 * signed transaction against the id that was voted for and against the chain.
 *
 * @throws Unavailable when the trail or the chain does not answer
 */
export async function verifyTrail(parts: {
  readonly audit: AuditTrail;
  readonly roster: Roster;
  readonly chain: ChainSource;
}): Promise<AuditVerdict> {
  const { audit, roster, chain } = parts;
  const { entries, firstBroken } = await audit.verify();
  const problems: string[] = [];
  if (firstBroken !== undefined) problems.push(`the hash chain breaks at entry ${firstBroken}`);
  const payments = new Set<string>();
  const electorates = new Map<string, WalletElectorate>();
  let from = 1n;
  for (;;) {
    const page = await audit.read({ fromSequence: from, limit: PAGE });
    for (const entry of page) {
      if (entry.kind.startsWith("payment-")) payments.add(entry.subject);
      if (entry.kind === "wallet-created" || entry.kind === "wallet-switched")
        electorates.set(entry.walletId, electorateOf(entry));
      problems.push(
        ...checkSwitch(entry, roster),
        ...checkCertificate(entry, electorates.get(entry.walletId), roster),
        ...(await checkTransaction(entry, chain)),
      );
    }
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) break;
    from = last.sequence + 1n;
  }
  return { entries, payments: payments.size, problems };
}

/** Who votes on a wallet's payments, as the last entry of its creation, its refresh or reshare says. */
interface WalletElectorate {
  readonly parties: readonly string[];
  readonly threshold: number;
}

function electorateOf({ payload }: AuditEntry): WalletElectorate {
  const parties = Array.isArray(payload["parties"]) ? payload["parties"].map(String) : [];
  return { parties, threshold: Number(payload["threshold"]) };
}

/** That a wallet has other parties is true when all of them have signed it. */
function checkSwitch({ kind, walletId, payload }: AuditEntry, roster: Roster): readonly string[] {
  if (kind !== "wallet-switched") return [];
  const bytes = Buffer.from(String(payload["certificate"] ?? ""), "hex");
  const certificate = fromBinary(SwitchCertificateSchema, bytes);
  const change = certificate.change && readWalletChange(certificate.change);
  const keys = new Map(roster.nodes.map(({ nodeId, identityKey }) => [nodeId, identityKey]));
  const holds = change !== undefined && verifySwitch(certificate, change, keys, verifyEd25519).valid;
  const says =
    change?.walletId === walletId &&
    change.threshold === Number(payload["threshold"]) &&
    JSON.stringify(change.parties) === JSON.stringify(payload["parties"]);
  return holds && says ? [] : [`wallet ${walletId}: the certificate of its new parties does not hold`];
}

function checkCertificate(
  entry: AuditEntry,
  electorate: WalletElectorate | undefined,
  roster: Roster,
): readonly string[] {
  if (entry.kind !== "certificate") return [];
  if (electorate === undefined) return [`payment ${entry.subject}: its wallet was never created in this trail`];
  const bytes = Buffer.from(String(entry.payload["certificate"] ?? ""), "hex");
  const { ballots } = fromBinary(ApprovalCertificateSchema, bytes);
  const problems: string[] = [];
  const digests = new Set(ballots.map(({ proposalDigest }) => Buffer.from(proposalDigest).toString("hex")));
  const voters = new Set(ballots.map(({ voter }) => voter));
  if (digests.size !== 1) problems.push(`payment ${entry.subject}: the certificate is over ${digests.size} proposals`);
  const needed = approvalsNeeded({ parties: electorate.parties.length, threshold: electorate.threshold });
  if (voters.size < needed)
    problems.push(`payment ${entry.subject}: ${voters.size} voters, at least ${needed} are needed`);
  for (const ballot of ballots) {
    const key = electorate.parties.includes(ballot.voter) ? roster.get(ballot.voter)?.identityKey : undefined;
    if (key === undefined || ballot.verdict !== Verdict.APPROVE || !verifyBallot(ballot, key, verifyEd25519)) {
      problems.push(`payment ${entry.subject}: the ballot of ${ballot.voter} does not hold`);
    }
  }
  return problems;
}

async function checkTransaction(entry: AuditEntry, chain: ChainSource): Promise<readonly string[]> {
  const txid = String(entry.payload["txid"] ?? "");
  if (entry.kind === "payment-signed") {
    const transaction = Transaction.fromHex(String(entry.payload["transaction"] ?? ""));
    if (transaction.getId() !== txid) return [`payment ${entry.subject}: the signed transaction is not ${txid}`];
    const known = await chain.transaction(txid);
    if (known === undefined) return [`payment ${entry.subject}: the chain does not know ${txid}`];
    if (!Buffer.from(known).equals(transaction.toBuffer()))
      return [`payment ${entry.subject}: the chain has other bytes for ${txid}`];
  }
  if (entry.kind === "payment-confirmed") {
    const status = await chain.transactionStatus(txid);
    if (!status.known) throw new Unavailable("chain-incomplete", `the chain source does not know ${txid}`, { txid });
    if (status.confirmedHeight !== Number(entry.payload["height"])) {
      return [
        `payment ${entry.subject}: confirmed at ${status.confirmedHeight}, not at ${String(entry.payload["height"])}`,
      ];
    }
  }
  return [];
}
