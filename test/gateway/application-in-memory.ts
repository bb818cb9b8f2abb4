import { createHash } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { PaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { parseSignedPaymentRequest, verifyPaymentRequest } from "../../src/consensus/payment-request.js";
import { parseSignedWalletChange, verifyWalletChange } from "../../src/consensus/wallet-change.js";
import { InvalidInput, PeerFault, PeerSilent, Unavailable } from "../../src/crypto/fault.js";
import type {
  AddressView,
  BalanceView,
  HealthView,
  NewWallet,
  PaymentPage,
  PaymentQuery,
  PaymentView,
  PoolStatusView,
  UtxoView,
  VotesView,
  WalletApplication,
  WalletChangeStatus,
  WalletChangeView,
  WalletView,
} from "../../src/wallet/wallet-application.js";

type Stored = { -readonly [Key in keyof PaymentView]: PaymentView[Key] };

const NODES = ["node-1", "node-2", "node-3"];

/** The wallet as the gateway sees it, without nodes or a chain. Payments move when a test says so. */
export class ApplicationInMemory implements WalletApplication {
  readonly #wallets = new Map<string, WalletView>();
  readonly #changes = new Map<string, WalletChangeView>();
  readonly #payments = new Map<string, Stored>();
  readonly #bytes = new Map<string, string>();
  readonly #changed = new Set<() => void>();
  readonly #next = new Map<string, number>();
  /** Authorities whose requests are paid; with none, every request is. */
  readonly authorities = new Map<string, Uint8Array>();
  healthy = true;
  preparations: HealthView["preparations"] = [];
  /** Watches that are running. */
  watches = 0;
  /** Errors that the next calls fail with. */
  readonly failures: unknown[] = [];

  constructor(private readonly verify: (key: Uint8Array, message: Uint8Array, signature: Uint8Array) => boolean) {}

  #fail(): void {
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
  }

  #wallet(walletId: string): WalletView {
    this.#fail();
    const wallet = this.#wallets.get(walletId);
    if (wallet === undefined) throw new InvalidInput("wallet-unknown", "no such wallet", { walletId });
    return wallet;
  }

  async createWallet(wallet: NewWallet): Promise<WalletView> {
    this.#fail();
    const walletId = `w-${wallet.name}`;
    if (this.#wallets.has(walletId)) throw new InvalidInput("wallet-exists", "a wallet has this name", { walletId });
    const parties = wallet.parties.length === 0 ? NODES : wallet.parties;
    const view: WalletView = {
      ...wallet,
      walletId,
      parties,
      network: "regtest",
      groupKey: new Uint8Array(33).fill(2),
      chainCode: new Uint8Array(32).fill(7),
      epoch: 0,
      keyDigest: new Uint8Array(32).fill(9),
      createdAtMs: 1_700_000_000_000.25,
    };
    this.#wallets.set(walletId, view);
    return view;
  }

  async listWallets(): Promise<readonly WalletView[]> {
    this.#fail();
    return [...this.#wallets.values()];
  }

  async changeWallet(bytes: Uint8Array): Promise<WalletChangeView> {
    const signed = parseSignedWalletChange(bytes);
    if (signed === undefined) throw new InvalidInput("change-malformed", "the order does not decode");
    const verdict = verifyWalletChange(
      signed,
      { authorities: this.authorities, nowMs: Date.now(), maxWindowMs: 3_600_000, clockSkewMs: 5_000 },
      this.verify,
    );
    if (!verdict.valid) throw new InvalidInput(verdict.refusal.code, verdict.refusal.message);
    const { change } = verdict;
    this.#wallet(change.walletId);
    const { walletId, requestId, kind, threshold, parties } = change;
    const view: WalletChangeView = {
      walletId,
      requestId,
      kind,
      threshold,
      parties,
      epoch: change.baseEpoch + 1,
      state: "running",
      attempt: 1,
      step: "the nodes make new shares, try 1",
      waitingFor: [],
      owing: [],
      code: "",
      message: "",
      changedAtMs: 1_700_000_000_000.25,
    };
    this.#changes.set(walletId, view);
    return view;
  }

  async walletChange(walletId: string): Promise<WalletChangeStatus> {
    this.#wallet(walletId);
    return { change: this.#changes.get(walletId), changeCount: 2 };
  }

  /** Moves a change on, as its nodes would. */
  moveChange(walletId: string, fields: Partial<WalletChangeView>): void {
    const view = this.#changes.get(walletId);
    const wallet = this.#wallets.get(walletId);
    if (view === undefined || wallet === undefined) throw new Error("no such change");
    const moved = { ...view, ...fields };
    this.#changes.set(walletId, moved);
    if (moved.state !== "switched") return;
    const { threshold, parties, epoch } = moved;
    this.#wallets.set(walletId, { ...wallet, threshold, parties, epoch });
  }

  async getWallet(walletId: string): Promise<WalletView> {
    return this.#wallet(walletId);
  }

  async newAddress(walletId: string): Promise<AddressView> {
    this.#wallet(walletId);
    const index = this.#next.get(walletId) ?? 0;
    this.#next.set(walletId, index + 1);
    const address = `bcrt1q${createHash("sha256").update(`${walletId}/${index}`).digest("hex").slice(0, 38)}`;
    return { walletId, address, change: false, index, path: `0/${index}`, scriptPubKey: new Uint8Array([0, 20]) };
  }

  async balance(walletId: string): Promise<BalanceView> {
    this.#wallet(walletId);
    return { walletId, confirmedSat: 2_099_999_997_690_000n, unconfirmedSat: 5n, reservedSat: 0n, tipHeight: 840_000 };
  }

  async utxos(walletId: string): Promise<readonly UtxoView[]> {
    this.#wallet(walletId);
    return [1, 2, 3].map((vout) => ({
      txid: "ab".repeat(32),
      vout,
      valueSat: BigInt(vout) * 1000n,
      address: "bcrt1qexample",
      path: `0/${vout}`,
      confirmedHeight: 100,
      confirmations: 6,
      reserved: false,
    }));
  }

  async sendPayment(signedPaymentRequest: Uint8Array): Promise<PaymentView> {
    this.#fail();
    const signed = parseSignedPaymentRequest(signedPaymentRequest);
    if (signed === undefined) throw new InvalidInput("request-malformed", "does not decode");
    if (this.authorities.size > 0) {
      const rules = { authorities: this.authorities, nowMs: Date.now(), maxWindowMs: 86_400_000, clockSkewMs: 60_000 };
      const verdict = verifyPaymentRequest(signed, rules, this.verify);
      if (!verdict.valid) throw new InvalidInput(verdict.refusal.code, verdict.refusal.message, verdict.refusal.facts);
    }
    const request = fromBinary(PaymentRequestSchema, signed.request);
    const hex = Buffer.from(signedPaymentRequest).toString("hex");
    const before = this.#payments.get(request.requestId);
    if (before !== undefined) {
      if (this.#bytes.get(request.requestId) === hex) return { ...before };
      throw new InvalidInput("request-id-reused", "another request has this id", { requestId: request.requestId });
    }
    const nowMs = Date.now();
    const payment: Stored = {
      paymentId: request.requestId,
      walletId: request.walletId,
      phase: "created",
      recipients: request.recipients.map(({ address, amountSat }) => ({ address, amountSat })),
      metadataJson: request.metadataJson,
      txid: "",
      feeSat: 0n,
      rawTransaction: undefined,
      confirmedHeight: 0,
      confirmations: 0,
      retries: 0,
      failure: undefined,
      createdAtMs: nowMs,
      updatedAtMs: nowMs,
      timeline: [],
    };
    this.#payments.set(request.requestId, payment);
    this.#bytes.set(request.requestId, hex);
    return { ...payment };
  }

  async sendPaymentAndWait(signedPaymentRequest: Uint8Array, signal?: AbortSignal): Promise<PaymentView> {
    const { paymentId } = await this.sendPayment(signedPaymentRequest);
    for await (const view of this.watchPayment(paymentId, signal)) if (view.phase === "broadcast") return view;
    return this.payment(paymentId);
  }

  /** Changes a payment, as the ceremony would. */
  move(paymentId: string, change: Partial<PaymentView>): void {
    const payment = this.#payments.get(paymentId);
    if (payment === undefined) throw new Error("no such payment");
    Object.assign(payment, change);
    for (const wake of this.#changed) wake();
  }

  async payment(paymentId: string): Promise<PaymentView> {
    this.#fail();
    const payment = this.#payments.get(paymentId);
    if (payment === undefined) throw new InvalidInput("payment-unknown", "no such payment", { paymentId });
    return { ...payment };
  }

  async *watchPayment(paymentId: string, signal?: AbortSignal): AsyncGenerator<PaymentView> {
    this.watches += 1;
    try {
      let last = "";
      while (signal?.aborted !== true) {
        const view = await this.payment(paymentId);
        if (view.phase !== last) yield view;
        last = view.phase;
        if (["confirmed", "rejected", "timed-out", "failed"].includes(last)) return;
        await new Promise<void>((resolve) => {
          const wake = () => {
            this.#changed.delete(wake);
            signal?.removeEventListener("abort", wake);
            resolve();
          };
          this.#changed.add(wake);
          signal?.addEventListener("abort", wake, { once: true });
          if (signal?.aborted === true || this.#payments.get(paymentId)?.phase !== last) wake();
        });
      }
    } finally {
      this.watches -= 1;
    }
  }

  async payments({ walletId, limit, before }: PaymentQuery): Promise<PaymentPage> {
    this.#wallet(walletId);
    const all = [...this.#payments.values()].filter((one) => one.walletId === walletId).reverse();
    const from = before === "" ? 0 : all.findIndex((one) => one.paymentId === before);
    return { payments: all.slice(from, from + limit), next: all[from + limit]?.paymentId ?? "" };
  }

  async votes(paymentId: string): Promise<VotesView> {
    await this.payment(paymentId);
    return {
      paymentId,
      proposalDigest: new Uint8Array(32).fill(9),
      policyVersion: 1n,
      approvalsNeeded: 2,
      outcome: "pending",
      ballots: [
        { voter: "node-1", verdict: "approve", reasons: [], receivedAtMs: Date.now(), durationMs: 1.5 },
        { voter: "node-2", verdict: "reject", reasons: ["fee-rate-too-high"], receivedAtMs: Date.now(), durationMs: 2 },
        { voter: "node-3", verdict: "none", reasons: [], receivedAtMs: 0, durationMs: 0 },
      ],
    };
  }

  async poolStatus(walletId: string): Promise<PoolStatusView> {
    this.#wallet(walletId);
    return { walletId, available: 97, inUse: 2, failed: 1, target: 100, minimum: 20 };
  }

  async health(): Promise<HealthView> {
    const parts = [
      { name: "chain", healthy: this.healthy, detail: "" },
      { name: "node:node-1", healthy: true, detail: "" },
    ];
    return {
      healthy: this.healthy,
      parts,
      leader: "coordinator-1",
      timeMs: Date.now(),
      preparations: this.preparations,
    };
  }
}

/** One fault of each kind that a call can end with. */
export const FAULTS = {
  unavailable: () =>
    new Unavailable(
      "chain-unavailable",
      "no chain source answers",
      { tried: 3 },
      new Error("ECONNREFUSED s3cret-cause"),
    ),
  peerFault: () =>
    new PeerFault("signing-aborted", "node-2 broke the protocol", {
      culprits: ["node-2"],
      evidence: ["s3cret-evidence"],
    }),
  peerSilent: () => new PeerSilent("votes-missing", "nodes did not vote", ["node-3"]),
};
