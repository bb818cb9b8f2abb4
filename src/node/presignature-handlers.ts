import type {
  GenerateAuxInfoRequest,
  ListPresignaturesRequest,
  PrepareAuxInfoRequest,
  PresignRequest,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { Bug, InvalidInput, PeerFault } from "../crypto/fault.js";
import type { SecurityProfile } from "../crypto/security-profile.js";
import { hashTuple } from "../crypto/transcript.js";
import { auxInfo } from "../protocols/cggmp24/aux-info.js";
import type { Scheme } from "../protocols/key-share.js";
import type { StoredWallet } from "../storage/key-store.js";
import {
  type ItemFacts,
  type ItemKind,
  type OneUseItem,
  type OneUseLedger,
  unconfirmed,
} from "../storage/one-use-ledger.js";
import { SecretBytes } from "../storage/secret-bytes.js";
import type { AuxInfoBoard } from "./aux-info-progress.js";
import type { BanRegister } from "./ban-register.js";
import { requireNoneBanned, runSession } from "./banning-session.js";
import type { Logger } from "./log.js";
import type { PrimeSource } from "./prime-pool.js";
import type { SessionExchange } from "./session-exchange.js";
import type { SessionSeat } from "./session-job.js";
import type { WalletShares } from "./wallet-shares.js";

/**
 * What a wallet needs before it signs, each for one signature: presignatures of a SegWit wallet, which has auxiliary info
 * made once, and nonces of a Taproot wallet. Both are items of the one-use ledger, under ids that all signers know.
 */

export interface PresignatureParts {
  readonly nodeId: string;
  readonly security: SecurityProfile["name"];
  readonly shares: WalletShares;
  readonly ledger: OneUseLedger;
  readonly primes: PrimeSource;
  readonly auxInfoBoard: AuxInfoBoard;
  readonly exchange: SessionExchange;
  readonly bans: BanRegister;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Most presignatures that one call makes. */
const BATCH_MAX = 100;
/** Sessions of a batch at once: while one waits for its peers, the other computes. */
const LANES = 2;
/** Presignatures of one wallet that may wait; a coordinator that wants more is wrong. */
const WAITING_MAX = 4_000;

/** What the schemes sign with. */
const ITEM_KINDS: Readonly<Record<Scheme, ItemKind>> = { cggmp24: "presignature", frost: "frost-nonce" };

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

export async function prepareAuxInfo(parts: PresignatureParts, { walletId }: PrepareAuxInfoRequest) {
  requireNoAuxInfo(parts.shares.stored(walletId));
  await parts.primes.prepare();
  return {};
}

export async function generateAuxInfo(parts: PresignatureParts, { sessionId, walletId }: GenerateAuxInfoRequest) {
  const { shares, primes, nodeId, security } = parts;
  const wallet = shares.stored(walletId);
  requireNoAuxInfo(wallet);
  const seat = shares.seat({ sessionId, parties: wallet.parties }, nodeId);
  requireNoneBanned(parts.bans, seat); // before primes are taken
  const keyShare = Uint8Array.from(wallet.keyShare.reveal());
  // Out of the store before they are used: primes that a peer has seen a modulus of serve no other wallet.
  const job = { kind: "aux-info" as const, keyShare, profile: security, primes: await primes.take() };
  const progress = parts.auxInfoBoard.follow(walletId, auxInfo.rounds);
  const result = await runSession(parts, job, seat, { onRound: progress.onRound }).finally(progress.end);
  if (result.kind !== "aux-info") throw new Bug("an aux-info session has aux info");
  const { epochId } = result;
  await shares.keepAuxInfo(wallet, result);
  parts.log.info({ event: "aux-info-kept", walletId, epochId: hex(epochId) }, "auxiliary info kept");
  return { epochId };
}

function requireNoAuxInfo({ scheme, auxInfo, walletId }: StoredWallet): void {
  if (scheme !== "cggmp24") throw new InvalidInput("scheme-differs", "only SegWit wallets have aux info", { walletId });
  if (auxInfo.length > 0) throw new InvalidInput("aux-info-exists", "the wallet has its auxiliary info", { walletId });
}

/** Makes a batch of what the wallet's scheme signs with. */
export async function presign(parts: PresignatureParts, request: PresignRequest) {
  const { shares, ledger } = parts;
  const { walletId, signers, count } = request;
  const wallet = shares.signing(walletId);
  if (count < 1 || count > BATCH_MAX) throw new InvalidInput("batch", `1 to ${BATCH_MAX} presignatures`, { count });
  if (ledger.counts({ kind: ITEM_KINDS[wallet.scheme], walletId }).available + count > WAITING_MAX) {
    throw new InvalidInput("pool-full", "enough presignatures wait here", { walletId, limit: WAITING_MAX });
  }
  requireThreshold(wallet, signers);
  const presignatureIds =
    wallet.scheme === "frost" ? await makeNonces(parts, wallet, request) : await presignBatch(parts, wallet, request);
  return { presignatureIds };
}

/** All in one session: a pair of nonces costs less than a message. */
async function makeNonces(
  parts: PresignatureParts,
  wallet: StoredWallet,
  { sessionId, signers, count }: PresignRequest,
): Promise<Uint8Array[]> {
  const { shares, ledger, nodeId, clock } = parts;
  const seat = shares.seat({ sessionId, parties: wallet.parties, signers }, nodeId);
  const result = await runSession(parts, { kind: "frost-nonces", keyShare: wallet.keyShare.reveal(), count }, seat);
  if (result.kind !== "frost-nonces") throw new Bug("a session that makes nonces has nonces");
  const createdAtMs = Math.floor(clock.nowMs());
  const items = result.nonces.map(({ id, secret }) => ({
    ...itemFacts(wallet, seat, id),
    createdAtMs,
    secret: SecretBytes.adopt(secret),
  }));
  try {
    await ledger.put(items);
  } finally {
    for (const { secret } of items) secret.erase();
  }
  return result.nonces.map(({ id }) => id);
}

const itemFacts = ({ scheme, walletId, epoch }: StoredWallet, seat: SessionSeat, id: Uint8Array) => ({
  kind: ITEM_KINDS[scheme],
  id: hex(id),
  walletId,
  walletEpoch: epoch,
  signers: seat.parties.map(({ nodeId }) => nodeId),
});

/** What was made before one session failed is kept; a proven fault of a peer is reported all the same. */
async function presignBatch(
  parts: PresignatureParts,
  wallet: StoredWallet,
  { sessionId, signers, count }: PresignRequest,
): Promise<Uint8Array[]> {
  const { shares, nodeId } = parts;
  const seats = Array.from({ length: count }, (_, index) => {
    const id = hashTuple("presign/session", [sessionId, BigInt(index)]).slice(0, 16);
    return shares.seat({ sessionId: id, parties: wallet.parties, signers }, nodeId);
  });
  const made: Uint8Array[] = [];
  const failures: unknown[] = [];
  const lane = async (): Promise<void> => {
    for (let seat = seats.shift(); seat !== undefined && failures.length === 0; seat = seats.shift()) {
      try {
        made.push(await presignOne(parts, wallet, seat));
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  const fault = failures.find((error) => error instanceof PeerFault) ?? (made.length === 0 ? failures[0] : undefined);
  if (fault !== undefined) throw fault;
  return made;
}

async function presignOne(parts: PresignatureParts, wallet: StoredWallet, seat: SessionSeat): Promise<Uint8Array> {
  const { ledger, clock } = parts;
  const keyShare = Uint8Array.from(wallet.keyShare.reveal());
  const auxInfo = Uint8Array.from(wallet.auxInfo.reveal());
  const result = await runSession(parts, { kind: "presign", keyShare, auxInfo }, seat);
  if (result.kind !== "presign") throw new Bug("a presigning has a presignature");
  const secret = SecretBytes.adopt(result.presignature);
  try {
    await ledger.put([{ ...itemFacts(wallet, seat, result.id), createdAtMs: Math.floor(clock.nowMs()), secret }]);
  } finally {
    secret.erase();
  }
  return result.id;
}

export async function listPresignatures({ shares, ledger }: PresignatureParts, { walletId }: ListPresignaturesRequest) {
  const { scheme, parties, epoch } = shares.signing(walletId);
  const items = ledger.isConfirmed ? ledger.items({ kind: ITEM_KINDS[scheme], walletId, walletEpoch: epoch }) : [];
  return {
    presignatures: items.map(({ id, signers }) => ({
      id: new Uint8Array(Buffer.from(id, "hex")),
      signers: signers.map((name) => parties.indexOf(name) + 1),
    })),
  };
}

/**
 * Takes the presignatures or nonces that a coordinator names, one for each input: used up durably, at this node, before anything
 * is computed from them. All are looked at before the first is taken, so that a wrong order costs none.
 *
 * @throws InvalidInput `presignature-count`, `presignature-repeated`, `presignature-unknown` (used ones too),
 *   `presignature-wallet`, `presignature-epoch`, `presignature-signers`
 * @throws Unavailable of the ledger, "ledger-unconfirmed" among them
 */
export async function takePresignatures(
  ledger: OneUseLedger,
  order: {
    readonly wallet: StoredWallet;
    readonly signers: readonly string[];
    readonly ids: readonly Uint8Array[];
    readonly inputs: number;
  },
): Promise<readonly OneUseItem[]> {
  const { wallet, signers, inputs } = order;
  const kind = ITEM_KINDS[wallet.scheme];
  const ids = order.ids.map(hex);
  if (ids.length !== inputs) {
    throw new InvalidInput("presignature-count", "one presignature for each input", { inputs, given: ids.length });
  }
  if (new Set(ids).size !== ids.length) {
    throw new InvalidInput("presignature-repeated", "one presignature signs one message");
  }
  if (!ledger.isConfirmed) throw unconfirmed();
  for (const id of ids) {
    const [item] = ledger.items({ kind, id });
    if (item === undefined) throw unknown(id);
    refuseForeign(item, wallet, signers);
  }
  const { walletId, epoch: walletEpoch } = wallet;
  // At once, so that they share a write. All have ended before any secret is handed on or erased.
  const outcomes = await Promise.allSettled(
    ids.map(async (id) => {
      const item = await ledger.take({ kind, id, walletId, walletEpoch, signers });
      if (item === undefined) throw unknown(id);
      return item;
    }),
  );
  const taken = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed === undefined) return taken;
  for (const { secret } of taken) secret.erase();
  throw failed.reason;
}

const unknown = (id: string): InvalidInput =>
  new InvalidInput("presignature-unknown", "no such presignature waits here; it was used, or never made", { id });

function refuseForeign(item: ItemFacts, wallet: StoredWallet, signers: readonly string[]): void {
  const { id } = item;
  if (item.walletId !== wallet.walletId) {
    throw new InvalidInput("presignature-wallet", "the presignature is of another wallet", { id });
  }
  if (item.walletEpoch !== wallet.epoch) {
    throw new InvalidInput("presignature-epoch", "the presignature is of another epoch", { id });
  }
  if (item.signers.length !== signers.length || !item.signers.every((name) => signers.includes(name))) {
    throw new InvalidInput("presignature-signers", "the presignature is of another signing set", { id });
  }
}

export function requireThreshold({ threshold }: StoredWallet, signers: readonly number[]): void {
  if (signers.length === threshold) return;
  throw new InvalidInput("signers", "a signing set is exactly the threshold", { threshold });
}
