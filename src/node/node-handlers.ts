import type { HandlerContext } from "@connectrpc/connect";
import {
  ConnectionState,
  type GenerateAuxInfoRequest,
  type GenerateKeyRequest,
  type ListPresignaturesRequest,
  type PrepareAuxInfoRequest,
  type PresignRequest,
  Scheme as SchemeMessage,
  type SignPaymentRequest,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { PeerHandlers } from "../../gen/router.js";
import { Bug, InvalidInput } from "../crypto/fault.js";
import { peerNodeId } from "../network/call-context.js";
import { faultToWire } from "../network/fault-wire.js";
import type { Roster } from "../network/identity/roster.js";
import type { PeerLinkStatus } from "../network/peer-link.js";
import type { Scheme } from "../protocols/key-share.js";
import type { StoredWallet } from "../storage/key-store.js";
import type { OneUseItem } from "../storage/one-use-ledger.js";
import { type ApprovedItem, signingAuthorization, signingItems } from "../wallet/approved-signing.js";
import type { PaymentGuard } from "../wallet/payment-guard.js";
import { requireNoneBanned, runSession } from "./banning-session.js";
import type { LedgerWitness } from "./ledger-witness.js";
import {
  generateAuxInfo,
  listPresignatures,
  type PresignatureParts,
  prepareAuxInfo,
  presign,
  requireThreshold,
  takePresignatures,
} from "./presignature-handlers.js";
import type { PrimePoolProgress } from "./prime-pool.js";
import type { SessionPlace } from "./session-exchange.js";
import type { SessionSeat, SigningJob } from "./session-job.js";
import type { ShareChanges } from "./share-changes.js";
import { walletChangeHandlers } from "./wallet-change-handlers.js";

export interface NodeHandlerParts extends PresignatureParts {
  readonly version: string;
  readonly network: string;
  readonly roster: Roster;
  readonly guard: PaymentGuard;
  readonly witness: Pick<LedgerWitness, "attend" | "burn">;
  readonly changes: ShareChanges;
  readonly links: () => readonly PeerLinkStatus[];
}

const STATES: Readonly<Record<PeerLinkStatus["state"], ConnectionState>> = {
  idle: ConnectionState.IDLE,
  connecting: ConnectionState.CONNECTING,
  active: ConnectionState.ACTIVE,
  degraded: ConnectionState.DEGRADED,
  dead: ConnectionState.DEAD,
};

/** What a node offers its peers. Only coordinators may start sessions and ask for votes; only nodes exchange envelopes. */
export function nodeHandlers(parts: NodeHandlerParts): PeerHandlers {
  const { nodeId, roster, clock } = parts;
  const startedMs = clock.monotonicMs();
  const report = (error: unknown): void => parts.log.error({ error }, "a handler failed");
  /** Runs a handler for a caller of one role; what it throws goes to the peer as a fault. */
  const serve =
    <Request, Response>(
      role: "node" | "coordinator",
      handler: (request: Request, context: HandlerContext) => Promise<Response>,
    ) =>
    async (request: Request, context: HandlerContext): Promise<Response> => {
      try {
        requireRole(roster, context, role);
        return await handler(request, context);
      } catch (error) {
        throw faultToWire(error, report);
      }
    };
  return {
    control: {
      ping: ({ payload }) => ({ payload, timeMs: BigInt(clock.nowMs()) }),
      getStatus: () => ({
        nodeId,
        version: parts.version,
        uptimeMs: BigInt(Math.round(clock.monotonicMs() - startedMs)),
        walletIds: [...parts.shares.ids()],
        ledger: ledgerStatus(parts),
        peers: parts.links().map((link) => ({
          nodeId: link.nodeId,
          state: STATES[link.state],
          rttP50Us: BigInt(Math.round(link.latencyP50Us ?? 0)),
          rttP99Us: BigInt(Math.round(link.latencyP99Us ?? 0)),
        })),
        primes: primesStatus(parts.primes.progress),
        auxInfo: parts.auxInfoBoard.running.map((running) => ({ ...running })),
      }),
    },
    session: {
      generateKey: serve("coordinator", (request: GenerateKeyRequest) => generateKey(parts, request)),
      prepareAuxInfo: serve("coordinator", (request: PrepareAuxInfoRequest) => prepareAuxInfo(parts, request)),
      generateAuxInfo: serve("coordinator", (request: GenerateAuxInfoRequest) => generateAuxInfo(parts, request)),
      presign: serve("coordinator", (request: PresignRequest) => presign(parts, request)),
      listPresignatures: serve("coordinator", (request: ListPresignaturesRequest) => listPresignatures(parts, request)),
      signPayment: serve("coordinator", (request: SignPaymentRequest) => signPayment(parts, request)),
      async *exchange(requests, context) {
        try {
          requireRole(roster, context, "node");
          yield* parts.exchange.accept(context.values.get(peerNodeId), requests, context.signal);
        } catch (error) {
          throw faultToWire(error, report);
        }
      },
    },
    walletChange: walletChangeHandlers(parts.changes, (handler) => serve("coordinator", handler)),
    consensus: {
      vote: serve("coordinator", async ({ proposal }) => {
        if (proposal === undefined) throw new InvalidInput("proposal-missing", "a vote request has a proposal");
        return { ballot: await parts.guard.vote(proposal) };
      }),
      notify: serve("coordinator", async ({ requestId, txid, confirmedHeight }) => {
        parts.log.info({ requestId, txid, confirmedHeight: confirmedHeight.toString() }, "payment outcome");
        return {};
      }),
    },
  };
}

const primesStatus = ({ ready, drawing }: PrimePoolProgress) => ({
  ready,
  drawing: drawing !== undefined,
  found: drawing?.found ?? 0,
  tested: drawing?.tested ?? 0,
});
function ledgerStatus({ ledger, witness }: NodeHandlerParts) {
  const { available, used, failed, expired } = ledger.counts();
  const { burn } = witness;
  const burned = burn === undefined ? {} : { burnedAtMs: burn.atMs, burnedReason: burn.reason };
  return { confirmed: ledger.isConfirmed, available, used, failed, expired, ...burned };
}

function requireRole(roster: Roster, context: HandlerContext, role: "node" | "coordinator"): void {
  const caller = context.values.get(peerNodeId);
  if (roster.get(caller)?.role !== role) {
    throw new InvalidInput("not-allowed", `only a ${role} may make this call`, { caller });
  }
}

async function generateKey(parts: NodeHandlerParts, { sessionId, wallet }: GenerateKeyRequest) {
  if (wallet === undefined) throw new InvalidInput("wallet-missing", "a key generation names its wallet");
  const { walletId, threshold, parties } = wallet;
  if (!/^[0-9a-z-]{1,64}$/.test(walletId))
    throw new InvalidInput("wallet-id-invalid", "a wallet id is 1 to 64 of a-z, 0-9, '-'");
  if (wallet.network !== parts.network) {
    throw new InvalidInput("network-mismatch", "this node serves another network", { network: parts.network });
  }
  if (parts.shares.has(walletId))
    throw new InvalidInput("wallet-exists", "this node has a share of the wallet", { walletId });
  const seat = parts.shares.seat({ sessionId, parties }, parts.nodeId);
  const job = { kind: "keygen" as const, scheme: schemeOf(wallet.scheme), threshold, walletId };
  const result = await runSession(parts, job, seat);
  if (result.kind !== "keygen") throw new Bug("a key generation has a key");
  const kept = await parts.shares.keep({ walletId, parties, nowMs: parts.clock.nowMs() }, result.keyShare);
  parts.log.info({ walletId, threshold, parties }, "key share kept");
  return kept;
}

function schemeOf(scheme: SchemeMessage): Scheme {
  switch (scheme) {
    case SchemeMessage.FROST:
      return "frost";
    case SchemeMessage.CGGMP24:
      return "cggmp24";
    case SchemeMessage.UNSPECIFIED:
      throw new InvalidInput("scheme-invalid", "a wallet has a scheme");
  }
}

/**
 * Takes part in signing. The three conditions of the invariant stand here in order: the guard has checked the payment
 * itself and holds a certificate with this node's own vote; what was made ahead is used up on this node's disk before
 * a share is computed from it, and at every other signer before the share leaves, and whatever comes of the session, it
 * never comes back. Nonces that FROST draws in the session itself die with it.
 */
async function signPayment(parts: NodeHandlerParts, request: SignPaymentRequest) {
  const { proposal, certificate, sessionId, signers, presignatureIds: ids } = request;
  if (proposal === undefined || certificate === undefined) {
    throw new InvalidInput("certificate-missing", "signing needs a proposal and its certificate");
  }
  const payment = await parts.guard.authorize(proposal, certificate);
  const wallet = parts.shares.signing(payment.walletId);
  requireEpoch(wallet, request);
  requireThreshold(wallet, signers);
  const seat = parts.shares.seat({ sessionId, parties: wallet.parties, signers }, parts.nodeId);
  requireNoneBanned(parts.bans, seat); // before anything is taken
  const authorization = signingAuthorization(payment.proposalDigest, certificate);
  const items = signingItems(payment);
  if (wallet.scheme === "frost" && ids.length === 0) {
    return await runSigning(parts, signingJob(wallet, { items, authorization, taken: [] }), seat);
  }
  const place = parts.exchange.join(wallet.scheme === "frost" ? "frost-sign" : "cggmp24-sign", seat, ids);
  try {
    const passage = parts.witness.attend();
    const names = seat.parties.map(({ nodeId }) => nodeId);
    const taken = await takePresignatures(parts.ledger, { wallet, signers: names, ids, inputs: items.length });
    try {
      passage.tell();
      const release = async (): Promise<void> => {
        await place.takeTogether();
        await passage.requireNewest();
      };
      return await runSigning(parts, signingJob(wallet, { items, authorization, taken }), seat, { place, release });
    } catch (error) {
      const failed = taken.map((item) => parts.ledger.fail(item, "signing failed"));
      for (const outcome of await Promise.allSettled(failed)) {
        if (outcome.status === "rejected")
          parts.log.warn({ err: outcome.reason }, "a failed signing is recorded as a used one");
      }
      throw error;
    } finally {
      for (const { secret } of taken) secret.erase();
    }
  } finally {
    place.leave();
  }
}

/** A session between shares of different epochs would only time out. */
function requireEpoch({ epoch, walletId }: StoredWallet, { walletEpoch }: SignPaymentRequest): void {
  if (walletEpoch === undefined || walletEpoch === epoch) return;
  throw new InvalidInput("wallet-epoch-differs", "the wallet's shares are of another epoch here; try again", {
    walletId,
    epoch,
    asked: walletEpoch,
  });
}

function signingJob(
  wallet: StoredWallet,
  order: {
    readonly items: readonly ApprovedItem[];
    readonly authorization: Uint8Array;
    /** One for each item; none where FROST draws its nonces in the session. */
    readonly taken: readonly OneUseItem[];
  },
): SigningJob {
  const { authorization, taken } = order;
  const keyShare = wallet.keyShare.reveal();
  const secretAt = (index: number): Uint8Array => {
    const secret = taken[index]?.secret;
    if (secret === undefined) throw new Bug("one was taken for each input");
    return secret.reveal();
  };
  if (wallet.scheme === "cggmp24") {
    const items = order.items.map((item, index) => ({ ...item, presignature: secretAt(index) }));
    return { kind: "cggmp24-sign", keyShare, epoch: wallet.epochId, items, authorization };
  }
  const items = order.items.map((item, index) => (taken.length === 0 ? item : { ...item, nonces: secretAt(index) }));
  return { kind: "frost-sign", keyShare, items, authorization };
}

async function runSigning(
  parts: NodeHandlerParts,
  job: SigningJob,
  seat: SessionSeat,
  options?: { readonly place: SessionPlace; readonly release: () => Promise<void> },
) {
  const result = await runSession(parts, job, seat, options);
  if (result.kind !== job.kind) throw new Bug("a signing has signatures");
  return { signatures: [...result.signatures], evidence: [] };
}
