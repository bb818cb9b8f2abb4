import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Code, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import { SignedPaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { SignedWalletChangeSchema, WalletChangeKind } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import {
  type AddressSchema,
  BallotVerdict,
  Network,
  PaymentPhase,
  type PaymentSchema,
  PreparationPhase,
  Scheme,
  VoteOutcome,
  type WalletChangeSchema,
  WalletChangeState,
  type WalletSchema,
  type WalletService,
  type WatchPaymentResponseSchema,
} from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { InvalidInput } from "../crypto/fault.js";
import type {
  AddressView,
  BallotView,
  NetworkName,
  PaymentView,
  PreparationView,
  Scheme as SchemeName,
  VotesView,
  WalletApplication,
  WalletChangeView,
  WalletView,
} from "../wallet/wallet-application.js";
import { refusal } from "./error-mapping.js";

export interface WalletHandlerOptions {
  /** Longest time that a call may take. */
  readonly callMaxMs: number;
  /** Longest time that a watch may last. */
  readonly watchMaxMs: number;
  /** Watches that may run at once. */
  readonly watchesMax: number;
  /** Aborted when the gateway drains: running watches end with `unavailable`, other calls finish. */
  readonly draining: AbortSignal;
}

/** Maps the wallet API's messages to calls of the wallet; it decides nothing. */
export function walletHandlers(
  options: WalletHandlerOptions,
  { application }: { application: WalletApplication },
): ServiceImpl<typeof WalletService> {
  let watches = 0;
  const bounded = (context: HandlerContext) =>
    AbortSignal.any([context.signal, AbortSignal.timeout(options.callMaxMs)]);
  return {
    async createWallet({ name, scheme, threshold, parties }, context) {
      const wallet = { name, scheme: schemeName(scheme), threshold, parties };
      return { wallet: walletMessage(await application.createWallet(wallet, bounded(context))) };
    },
    async listWallets({ pageSize, pageToken }) {
      const { items, nextPageToken } = page(await application.listWallets(), { pageSize, pageToken });
      return { wallets: items.map(walletMessage), nextPageToken };
    },
    async getWallet({ walletId }) {
      return { wallet: walletMessage(await application.getWallet(walletId)) };
    },
    async changeWallet({ change }) {
      const signed = toBinary(SignedWalletChangeSchema, change ?? create(SignedWalletChangeSchema));
      return { change: changeMessage(await application.changeWallet(signed)) };
    },
    async getWalletChange({ walletId }) {
      const { change, changeCount } = await application.walletChange(walletId);
      return { changeCount, ...(change === undefined ? {} : { change: changeMessage(change) }) };
    },
    async newAddress({ walletId }) {
      return { address: addressMessage(await application.newAddress(walletId)) };
    },
    getBalance: ({ walletId }) => application.balance(walletId),
    async listUtxos({ walletId, pageSize, pageToken }) {
      const { items, nextPageToken } = page(await application.utxos(walletId), { pageSize, pageToken });
      return { utxos: items.map((utxo) => ({ ...utxo })), nextPageToken };
    },
    async sendPayment({ payment, waitForBroadcast }, context) {
      const signed = toBinary(SignedPaymentRequestSchema, payment ?? create(SignedPaymentRequestSchema));
      const view = waitForBroadcast
        ? await application.sendPaymentAndWait(signed, bounded(context))
        : await application.sendPayment(signed);
      return { payment: paymentMessage(view) };
    },
    async getPayment({ paymentId }) {
      return { payment: paymentMessage(await application.payment(paymentId)) };
    },
    async *watchPayment({ paymentId }, context): AsyncGenerator<MessageInitShape<typeof WatchPaymentResponseSchema>> {
      if (watches >= options.watchesMax) {
        throw refusal({
          code: Code.ResourceExhausted,
          reason: "too-many-watches",
          message: "too many payments are being watched; ask with GetPayment",
          facts: { watchesMax: options.watchesMax },
        });
      }
      watches += 1;
      // Aborted in `finally`, so that the wallet stops watching when the client goes away.
      const done = new AbortController();
      const signals = [done.signal, context.signal, options.draining, AbortSignal.timeout(options.watchMaxMs)];
      try {
        for await (const view of application.watchPayment(paymentId, AbortSignal.any(signals))) {
          yield { payment: paymentMessage(view) };
        }
      } finally {
        watches -= 1;
        done.abort();
      }
      if (options.draining.aborted) {
        const message = "this gateway is shutting down; watch again";
        throw refusal({ code: Code.Unavailable, reason: "draining", message });
      }
    },
    async listPayments({ walletId, pageSize, pageToken }) {
      const limit = pageSize === 0 ? 20 : pageSize;
      const { payments, next } = await application.payments({ walletId, limit, before: pageToken });
      return { payments: payments.map(paymentMessage), nextPageToken: next };
    },
    async getVotes({ paymentId }) {
      return votesMessage(await application.votes(paymentId));
    },
    async getPoolStatus({ walletId }) {
      return { ...(await application.poolStatus(walletId)) };
    },
    async getHealth() {
      const { healthy, parts, leader, timeMs, preparations } = await application.health();
      return {
        healthy,
        parts: parts.map((part) => ({ ...part })),
        leader,
        timeMs: BigInt(timeMs),
        preparations: preparations.map(({ walletId, name, phase, nodes }) => ({
          walletId,
          name,
          phase: PREPARATION_PHASE[phase],
          nodes: nodes.map((node) => ({ ...node })),
        })),
      };
    },
  };
}

/** A page of a list that the wallet answers whole. The token is the position of the first item. */
export function page<T>(
  all: readonly T[],
  { pageSize, pageToken }: { pageSize: number; pageToken: string },
): { items: readonly T[]; nextPageToken: string } {
  const from = pageToken === "" ? 0 : Number(pageToken);
  const to = from + (pageSize === 0 ? 100 : pageSize);
  return { items: all.slice(from, to), nextPageToken: to < all.length ? String(to) : "" };
}

function schemeName(scheme: Scheme): SchemeName {
  switch (scheme) {
    case Scheme.FROST:
      return "frost";
    case Scheme.CGGMP24:
      return "cggmp24";
    case Scheme.UNSPECIFIED:
      throw new InvalidInput("scheme-missing", "choose a scheme: frost or cggmp24");
  }
}

const SCHEME: Readonly<Record<SchemeName, Scheme>> = { frost: Scheme.FROST, cggmp24: Scheme.CGGMP24 };

const NETWORK: Readonly<Record<NetworkName, Network>> = {
  mainnet: Network.MAINNET,
  testnet: Network.TESTNET,
  signet: Network.SIGNET,
  regtest: Network.REGTEST,
};

const PHASE: Readonly<Record<PaymentView["phase"], PaymentPhase>> = {
  created: PaymentPhase.CREATED,
  voting: PaymentPhase.VOTING,
  approved: PaymentPhase.APPROVED,
  signing: PaymentPhase.SIGNING,
  signed: PaymentPhase.SIGNED,
  broadcasting: PaymentPhase.BROADCASTING,
  broadcast: PaymentPhase.BROADCAST,
  confirmed: PaymentPhase.CONFIRMED,
  rejected: PaymentPhase.REJECTED,
  "timed-out": PaymentPhase.TIMED_OUT,
  failed: PaymentPhase.FAILED,
};

const PREPARATION_PHASE: Readonly<Record<PreparationView["phase"], PreparationPhase>> = {
  key: PreparationPhase.KEY,
  primes: PreparationPhase.PRIMES,
  "auxiliary-info": PreparationPhase.AUXILIARY_INFO,
};

const VERDICT: Readonly<Record<BallotView["verdict"], BallotVerdict>> = {
  approve: BallotVerdict.APPROVE,
  reject: BallotVerdict.REJECT,
  none: BallotVerdict.NONE,
};

const OUTCOME: Readonly<Record<VotesView["outcome"], VoteOutcome>> = {
  pending: VoteOutcome.PENDING,
  approved: VoteOutcome.APPROVED,
  rejected: VoteOutcome.REJECTED,
  "timed-out": VoteOutcome.TIMED_OUT,
};

function walletMessage(view: WalletView): MessageInitShape<typeof WalletSchema> {
  return {
    ...view,
    scheme: SCHEME[view.scheme],
    network: NETWORK[view.network],
    parties: [...view.parties],
    createdAtMs: wholeMs(view.createdAtMs),
  };
}

const CHANGE_KIND: Readonly<Record<WalletChangeView["kind"], WalletChangeKind>> = {
  refresh: WalletChangeKind.REFRESH,
  reshare: WalletChangeKind.RESHARE,
};

const CHANGE_STATE: Readonly<Record<WalletChangeView["state"], WalletChangeState>> = {
  running: WalletChangeState.RUNNING,
  switched: WalletChangeState.SWITCHED,
  abandoned: WalletChangeState.ABANDONED,
};

function changeMessage(view: WalletChangeView): MessageInitShape<typeof WalletChangeSchema> {
  return {
    ...view,
    kind: CHANGE_KIND[view.kind],
    state: CHANGE_STATE[view.state],
    parties: [...view.parties],
    waitingFor: [...view.waitingFor],
    owing: [...view.owing],
    changedAtMs: wholeMs(view.changedAtMs),
  };
}

function addressMessage({ address, index, path, scriptPubKey }: AddressView): MessageInitShape<typeof AddressSchema> {
  return { address, index, path, scriptPubKey };
}

function paymentMessage(view: PaymentView): MessageInitShape<typeof PaymentSchema> {
  const { failure, rawTransaction, ...rest } = view;
  return {
    ...rest,
    phase: PHASE[view.phase],
    recipients: view.recipients.map((recipient) => ({ ...recipient })),
    ...(rawTransaction === undefined ? {} : { rawTransaction }),
    ...(failure === undefined ? {} : { failure: { ...failure, culprits: [...failure.culprits] } }),
    createdAtMs: wholeMs(view.createdAtMs),
    updatedAtMs: wholeMs(view.updatedAtMs),
    timeline: view.timeline.map((entry) => ({ ...entry, startedAtMs: wholeMs(entry.startedAtMs) })),
  };
}

function votesMessage(view: VotesView) {
  const ballots = view.ballots.map((ballot) => ({
    ...ballot,
    verdict: VERDICT[ballot.verdict],
    reasons: [...ballot.reasons],
    receivedAtMs: wholeMs(ballot.receivedAtMs),
  }));
  return { ...view, outcome: OUTCOME[view.outcome], ballots };
}

/** Clocks may answer fractions of a millisecond; the wire has whole ones. */
function wholeMs(timeMs: number): bigint {
  return BigInt(Math.round(timeMs));
}
