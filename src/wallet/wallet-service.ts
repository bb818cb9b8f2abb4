import type { SignedPaymentRequest } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import {
  parseSignedPaymentRequest,
  type RequestRules,
  readPaymentRequest,
  type VerifiedPaymentRequest,
  verifyPaymentRequest,
} from "../consensus/payment-request.js";
import { approvalsNeeded } from "../consensus/quorum.js";
import { refused } from "../consensus/refusal.js";
import { FINAL_PHASES } from "../consensus/transaction-state.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import { pathText } from "./account.js";
import { AddressBook } from "./address-book.js";
import type { GeneratedKey, KeyGeneration, KeyGenerationOrder } from "./key-generation.js";
import {
  type CeremonyDependencies,
  type CeremonyOptions,
  type CeremonyWallet,
  DEFAULT_CEREMONY,
  PaymentCeremony,
} from "./payment-ceremony.js";
import { PaymentFeed } from "./payment-feed.js";
import { newPaymentRecord, type PaymentRecord, paymentView, sameRequest, votesView } from "./payment-record.js";
import type { PeerPresigning } from "./peer-presigning.js";
import type { PeerWalletChange } from "./peer-wallet-change.js";
import { checkHealth, type HealthProbe, type PoolMonitor } from "./service-health.js";
import { TipWatch } from "./tip-watch.js";
import { UtxoIndex } from "./utxo-index.js";
import { UtxoReservations } from "./utxo-reservation.js";
import type {
  AddressView,
  BalanceView,
  HealthView,
  NetworkName,
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
} from "./wallet-application.js";
import { DEFAULT_CHANGES, WalletChanges } from "./wallet-changes.js";
import { WalletPreparations } from "./wallet-preparation.js";
import { WalletRegistry } from "./wallet-registry.js";

/** The wallet as a coordinator offers it: wallets, addresses, balances, and the ceremonies of running payments. */

export interface WalletServiceOptions {
  readonly network: NetworkName;
  readonly authorities: RequestRules["authorities"];
  readonly maxRequestWindowMs: number;
  readonly clockSkewMs: number;
  readonly gapLimit: number;
  /** Age up to which a remembered list of coins will do; BIP44's gap and the blueprint's 60 s are defaults. */
  readonly utxoMaxAgeMs: number;
  readonly fullScanEveryMs: number;
  /** Payments that run at once; more are refused with "too-many-payments". */
  readonly paymentsMax: number;
  readonly watchersMax: number;
  readonly keyGenerationTimeoutMs: number;
  /** For a SegWit wallet's auxiliary info: nodes without primes in stock draw some first. */
  readonly auxInfoTimeoutMs: number;
  readonly healthTimeoutMs: number;
  readonly ceremony: CeremonyOptions;
  /** How often the tip of the chain is looked at while payments wait for their confirmation. */
  readonly confirmationPollMs: number;
}

/** A transaction that no new block touches is asked for after so many looks at the tip: it may have been dropped. */
const TIP_LOOKS_MAX = 6;

export const DEFAULT_SERVICE: Omit<WalletServiceOptions, "network" | "authorities"> = {
  maxRequestWindowMs: 3_600_000,
  clockSkewMs: 5_000,
  gapLimit: 20,
  utxoMaxAgeMs: 60_000,
  fullScanEveryMs: 3_600_000,
  paymentsMax: 1_000,
  watchersMax: 10_000,
  keyGenerationTimeoutMs: 60_000,
  auxInfoTimeoutMs: 280_000,
  healthTimeoutMs: 2_000,
  ceremony: DEFAULT_CEREMONY,
  confirmationPollMs: 10_000,
};

export interface WalletServiceDependencies
  extends Omit<CeremonyDependencies, "wallet" | "tips" | "reservations" | "utxos" | "changeIndices" | "onChange"> {
  readonly keyGeneration: KeyGeneration;
  readonly presigning: Pick<PeerPresigning, "prepareAuxInfo" | "generateAuxInfo" | "progress">;
  readonly shareChanges: PeerWalletChange;
  /** Hears of a new wallet, whose pool is empty. */
  readonly onWallet: (wallet: WalletView) => void;
  /** Hears that a wallet has new shares, whose pool is empty. */
  readonly onSwitched: (walletId: string) => void;
  readonly pools: PoolMonitor;
  readonly probes: readonly HealthProbe[];
  /** Every node with its Ed25519 identity key. */
  readonly roster: () => ReadonlyMap<string, Uint8Array>;
  readonly leader: () => string;
  /** Reported with the payment: our own bug, or a store that did not answer. */
  readonly onError: (error: unknown, paymentId: string) => void;
}

const NAME_MAX_LENGTH = 64;
const PARTIES_MAX = 20;
const PAGE_MAX = 100;
const WATCH_POLL_MS = 1_000;

export class WalletService implements WalletApplication {
  readonly #options: WalletServiceOptions;
  readonly #parts: WalletServiceDependencies;
  readonly #registry: WalletRegistry;
  readonly #changes: WalletChanges;
  readonly #addresses: AddressBook;
  readonly #reservations: UtxoReservations;
  readonly #tips: TipWatch;
  readonly #utxos: UtxoIndex;
  readonly #feed: PaymentFeed;
  readonly #preparations: WalletPreparations;
  readonly #running = new Map<string, { readonly ceremony: PaymentCeremony; readonly done: Promise<void> }>();
  /** Payments between their check for a known id and their first write. */
  readonly #arriving = new Map<string, Promise<PaymentRecord>>();
  readonly #stop = new AbortController();
  #tipHeight = 0;

  constructor(options: WalletServiceOptions, dependencies: WalletServiceDependencies) {
    this.#options = options;
    this.#parts = dependencies;
    const { chain, clock, coordination, presigning } = dependencies;
    this.#preparations = new WalletPreparations({
      ask: (nodeId, signal) => presigning.progress(nodeId, signal),
      clock,
    });
    this.#registry = new WalletRegistry({ coordination });
    const { authorities, maxRequestWindowMs: maxWindowMs, clockSkewMs } = options;
    this.#changes = new WalletChanges(
      { ...DEFAULT_CHANGES, rules: { authorities, maxWindowMs, clockSkewMs }, lockTtlMs: options.ceremony.lockTtlMs },
      {
        ...dependencies,
        peers: dependencies.shareChanges,
        registry: this.#registry,
        onError: (error, walletId) => dependencies.onError(error, walletId),
      },
    );
    this.#addresses = new AddressBook({ coordination });
    this.#tips = new TipWatch(
      { pollMs: options.confirmationPollMs, looksMax: TIP_LOOKS_MAX },
      { chain: dependencies.chain, clock: dependencies.clock },
    );
    this.#reservations = new UtxoReservations({ lockTtlMs: options.ceremony.lockTtlMs }, { coordination });
    const { gapLimit, utxoMaxAgeMs: maxAgeMs, fullScanEveryMs } = options;
    const nextIndex = (walletId: string, change: boolean) => this.#addresses.nextIndex(walletId, change);
    this.#utxos = new UtxoIndex({ gapLimit, maxAgeMs, fullScanEveryMs }, { chain, clock, nextIndex });
    this.#feed = new PaymentFeed({ watchersMax: options.watchersMax, pollMs: WATCH_POLL_MS }, { clock });
  }

  /** Goes on with every payment and every change of shares that a coordinator left unfinished. Call when this coordinator begins to lead. */
  async resume(): Promise<number> {
    const records = await this.#parts.store.unfinished();
    for (const record of records) if (!this.#running.has(record.paymentId)) await this.#start(record);
    await this.#changes.resume();
    return records.length;
  }

  /** Lets go of all running payments; they stay in the store for whoever leads next. */
  async close(): Promise<void> {
    this.#stop.abort(new Unavailable("shutting-down", "this coordinator shuts down"));
    await this.#changes.close();
    await Promise.allSettled([...this.#running.values()].map(({ done }) => done));
  }

  // ── Wallets ────────────────────────────────────────────────────────────────────────────────────────────────────

  async createWallet(wallet: NewWallet, signal?: AbortSignal): Promise<WalletView> {
    const { coordination, random, audit, clock } = this.#parts;
    const parties = this.#parties(wallet);
    const lock = await coordination.tryLock("/locks/dkg-session", this.#options.ceremony.lockTtlMs);
    if (lock === undefined) throw new Unavailable("key-generation-busy", "another wallet is being created");
    try {
      await this.#registry.requireFreeName(wallet.name);
      const order: KeyGenerationOrder = {
        sessionId: random.bytes(16),
        walletId: Buffer.from(random.bytes(16)).toString("hex"),
        name: wallet.name,
        scheme: wallet.scheme,
        threshold: wallet.threshold,
        parties,
        network: this.#options.network,
      };
      const { groupKey, chainCode, keyDigest, publicKeyPackage, epochId } = await this.#prepare(order, signal);
      const { walletId, name, scheme, threshold, network } = order;
      const createdAtMs = clock.nowMs();
      const key = { groupKey, chainCode, epoch: 0, keyDigest };
      const view = { walletId, name, scheme, threshold, network, parties, ...key, createdAtMs };
      await this.#registry.add(view, publicKeyPackage);
      const payload = {
        name,
        scheme,
        threshold,
        parties,
        network,
        groupKey: Buffer.from(groupKey).toString("hex"),
        keyDigest: Buffer.from(keyDigest).toString("hex"),
        ...(epochId === undefined ? {} : { epochId: Buffer.from(epochId).toString("hex") }),
      };
      audit.append([{ kind: "wallet-created", walletId, subject: walletId, payload }]).catch(() => undefined);
      this.#parts.onWallet(view);
      return view;
    } finally {
      await lock.release();
    }
  }

  #parties({ name, parties: wanted, threshold }: NewWallet): readonly string[] {
    const roster = this.#parts.roster();
    if (name.length === 0 || name.length > NAME_MAX_LENGTH || name.trim() !== name) {
      throw new InvalidInput("name-invalid", `a name has 1 to ${NAME_MAX_LENGTH} characters without outer spaces`);
    }
    const parties = wanted.length === 0 ? [...roster.keys()] : wanted;
    if (parties.length < 2 || parties.length > PARTIES_MAX || new Set(parties).size !== parties.length) {
      throw new InvalidInput("parties-out-of-range", `2 to ${PARTIES_MAX} different nodes hold a wallet`);
    }
    const stranger = parties.find((nodeId) => !roster.has(nodeId));
    if (stranger !== undefined) throw new InvalidInput("party-unknown", "no such node", { nodeId: stranger });
    if (!Number.isInteger(threshold) || threshold < 2 || threshold > parties.length) {
      throw new InvalidInput("threshold-out-of-range", "the threshold is 2 to the number of nodes", { threshold });
    }
    return parties;
  }

  /** Everything that the nodes must make before the wallet can be used, followed for people who wait. */
  async #prepare(
    order: KeyGenerationOrder,
    signal: AbortSignal | undefined,
  ): Promise<GeneratedKey & { readonly epochId: Uint8Array | undefined }> {
    const progress = this.#preparations.follow(order);
    try {
      const key = await this.#generate(order, signal);
      const epochId = order.scheme === "cggmp24" ? await this.#makeAuxInfo(order, progress, signal) : undefined;
      return { ...key, epochId };
    } finally {
      progress.end();
    }
  }

  /** All parties must name the same key: a coordinator that shows clients another one would only lose their money. */
  async #generate(order: KeyGenerationOrder, signal: AbortSignal | undefined): Promise<GeneratedKey> {
    const options = { timeoutMs: this.#options.keyGenerationTimeoutMs, signal };
    const keys = await this.#together(options, order.parties, (nodeId, own) =>
      this.#parts.keyGeneration.generate(nodeId, order, own),
    );
    return agreed(keys, ({ groupKey, chainCode, keyDigest, publicKeyPackage }) =>
      Buffer.concat([groupKey, chainCode, keyDigest, publicKeyPackage]),
    );
  }

  /** Primes at every party first, since a session does not wait for minutes; then the session among all of them. */
  async #makeAuxInfo(
    { walletId, parties }: KeyGenerationOrder,
    progress: Pick<ReturnType<WalletPreparations["follow"]>, "enter">,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> {
    const { presigning, random } = this.#parts;
    const options = { timeoutMs: this.#options.auxInfoTimeoutMs, signal };
    progress.enter("primes");
    await this.#together(options, parties, (nodeId, own) => presigning.prepareAuxInfo(nodeId, walletId, own));
    progress.enter("auxiliary-info");
    const order = { sessionId: random.bytes(16), walletId };
    const epochs = await this.#together(options, parties, (nodeId, own) =>
      presigning.generateAuxInfo(nodeId, order, own),
    );
    return agreed(epochs, (epoch) => epoch);
  }

  /** Asks all parties at once; the first failure ends all calls. */
  async #together<T>(
    options: { readonly timeoutMs: number; readonly signal: AbortSignal | undefined },
    parties: readonly string[],
    ask: (nodeId: string, signal: AbortSignal) => Promise<T>,
  ): Promise<readonly T[]> {
    const { timeoutMs, signal } = options;
    const abort = new AbortController();
    const stop = (): void => abort.abort(new Unavailable("key-generation-aborted", "key generation was aborted"));
    signal?.addEventListener("abort", stop);
    const cancel = this.#parts.clock.after(timeoutMs, stop);
    try {
      return await Promise.all(parties.map((nodeId) => ask(nodeId, abort.signal)));
    } catch (error) {
      stop();
      throw error;
    } finally {
      cancel();
      signal?.removeEventListener("abort", stop);
    }
  }

  listWallets(): Promise<readonly WalletView[]> {
    return this.#registry.list();
  }

  async getWallet(walletId: string): Promise<WalletView> {
    return (await this.#registry.get(walletId)).view;
  }

  changeWallet(signedWalletChange: Uint8Array): Promise<WalletChangeView> {
    return this.#changes.submit(signedWalletChange);
  }

  async walletChange(walletId: string): Promise<WalletChangeStatus> {
    await this.#registry.get(walletId);
    const changeCount = await this.#addresses.nextIndex(walletId, true);
    return { change: await this.#changes.view(walletId), changeCount };
  }

  async newAddress(walletId: string): Promise<AddressView> {
    const { account } = await this.#registry.get(walletId);
    const index = await this.#addresses.advance(walletId, false);
    const { address, path, scriptPubKey } = account.derive({ change: false, index });
    return { walletId, address, change: false, index, path: pathText(path), scriptPubKey };
  }

  async balance(walletId: string): Promise<BalanceView> {
    const { tipHeight, outputs } = await this.#snapshot(walletId);
    const sum = (coins: typeof outputs): bigint => coins.reduce((total, { valueSat }) => total + valueSat, 0n);
    return {
      walletId,
      confirmedSat: sum(outputs.filter(({ confirmedHeight }) => confirmedHeight > 0)),
      unconfirmedSat: sum(outputs.filter(({ confirmedHeight }) => confirmedHeight === 0)),
      reservedSat: sum(outputs.filter((coin) => this.#reservations.isReserved(coin))),
      tipHeight,
    };
  }

  async utxos(walletId: string): Promise<readonly UtxoView[]> {
    const { account } = await this.#registry.get(walletId);
    const { tipHeight, outputs } = await this.#snapshot(walletId);
    return outputs.map(({ path, ...coin }) => ({
      ...coin,
      address: account.derive(path).address,
      path: pathText(path),
      confirmations: coin.confirmedHeight === 0 ? 0 : tipHeight - coin.confirmedHeight + 1,
      reserved: this.#reservations.isReserved(coin),
    }));
  }

  async #snapshot(walletId: string) {
    const { account } = await this.#registry.get(walletId);
    const snapshot = await this.#utxos.snapshot(account, { fresh: true });
    this.#tipHeight = snapshot.tipHeight;
    return snapshot;
  }

  // ── Payments ───────────────────────────────────────────────────────────────────────────────────────────────────

  async sendPayment(signedPaymentRequest: Uint8Array): Promise<PaymentView> {
    const signed = parseSignedPaymentRequest(signedPaymentRequest);
    const content = signed && readPaymentRequest(signed);
    if (signed === undefined || content === undefined) {
      throw new InvalidInput("request-malformed", "the payment request does not decode");
    }
    const { requestId } = content;
    const earlier = this.#arriving.get(requestId);
    if (earlier !== undefined) return this.#repeated(await earlier, signed);
    const arrival = this.#arrive(signed, requestId);
    this.#arriving.set(requestId, arrival);
    try {
      return this.#repeated(await arrival, signed);
    } finally {
      this.#arriving.delete(requestId);
    }
  }

  /** The payment of this id, begun now unless it is known. */
  async #arrive(signed: SignedPaymentRequest, requestId: string): Promise<PaymentRecord> {
    const known = await this.#find(requestId);
    if (known !== undefined) return known;
    const verdict = verifyPaymentRequest(signed, this.#rules(), this.#parts.verify);
    if (!verdict.valid) throw refused(verdict.refusal);
    const { request } = verdict;
    await this.#registry.get(request.walletId);
    if (this.#running.size + this.#arriving.size > this.#options.paymentsMax) {
      throw new Unavailable("too-many-payments", "too many payments are running");
    }
    const record = { ...newPaymentRecord(signed, request, this.#parts.clock.nowMs()), revision: 1n };
    await this.#parts.store.put(record);
    await this.#start(record, request);
    return record;
  }

  #repeated(known: PaymentRecord, signed: SignedPaymentRequest): PaymentView {
    if (sameRequest(known.signedRequest, signed)) return this.#view(known);
    throw new InvalidInput("request-id-reused", "another request has this id", { requestId: known.paymentId });
  }

  #rules(): RequestRules {
    const { authorities, clockSkewMs, maxRequestWindowMs: maxWindowMs } = this.#options;
    return { authorities, clockSkewMs, maxWindowMs, nowMs: this.#parts.clock.nowMs() };
  }

  /**
   * A record that is resumed has its request verified as of its creation: it may have expired since, and then nodes
   * refuse to vote, while a transaction that was signed is still brought to the chain.
   */
  async #start(record: PaymentRecord, verified?: VerifiedPaymentRequest): Promise<void> {
    const request = verified ?? this.#reverify(record);
    const wallet = await this.#ceremonyWallet(record.walletId);
    const ceremony = new PaymentCeremony({ record, request, wallet }, this.#options.ceremony, {
      ...this.#parts,
      wallet: (walletId) => this.#ceremonyWallet(walletId),
      tips: this.#tips,
      reservations: this.#reservations,
      utxos: this.#utxos,
      changeIndices: this.#addresses,
      onChange: ({ paymentId }) => this.#feed.changed(paymentId),
    });
    const done = ceremony
      .run(this.#stop.signal)
      .then(() => undefined)
      .catch((error: unknown) => {
        // Another coordinator got there first, which is as good.
        if (error instanceof Unavailable && error.code === "payment-runs-elsewhere") return;
        this.#parts.onError(error, record.paymentId);
      })
      .finally(() => {
        this.#running.delete(record.paymentId);
        this.#feed.changed(record.paymentId);
      });
    this.#running.set(record.paymentId, { ceremony, done });
  }

  async #ceremonyWallet(walletId: string): Promise<CeremonyWallet> {
    const { view, account, publicKeyPackage } = await this.#registry.get(walletId);
    const { threshold, epoch } = view;
    const roster = this.#parts.roster();
    const keys = view.parties.map((nodeId): [string, Uint8Array] => [nodeId, roster.get(nodeId) ?? new Uint8Array(0)]);
    return { account, threshold, epoch, roster: new Map(keys), publicKeyPackage };
  }

  #reverify(record: PaymentRecord): VerifiedPaymentRequest {
    const rules = { ...this.#rules(), nowMs: record.createdAtMs };
    const verdict = verifyPaymentRequest(record.signedRequest, rules, this.#parts.verify);
    if (!verdict.valid) throw refused(verdict.refusal);
    return verdict.request;
  }

  async sendPaymentAndWait(signedPaymentRequest: Uint8Array, signal?: AbortSignal): Promise<PaymentView> {
    const { paymentId } = await this.sendPayment(signedPaymentRequest);
    let last: PaymentView | undefined;
    for await (const view of this.watchPayment(paymentId, signal)) {
      last = view;
      if (view.phase === "broadcast" || FINAL_PHASES.has(view.phase)) break;
    }
    return last ?? this.payment(paymentId);
  }

  async #find(paymentId: string): Promise<PaymentRecord | undefined> {
    return this.#running.get(paymentId)?.ceremony.record ?? (await this.#parts.store.get(paymentId));
  }

  async #require(paymentId: string): Promise<PaymentRecord> {
    const record = await this.#find(paymentId);
    if (record === undefined) throw new InvalidInput("payment-unknown", "no such payment", { paymentId });
    return record;
  }

  #view(record: PaymentRecord): PaymentView {
    return paymentView(record, this.#tipHeight);
  }

  async payment(paymentId: string): Promise<PaymentView> {
    return this.#view(await this.#require(paymentId));
  }

  async *watchPayment(paymentId: string, signal?: AbortSignal): AsyncGenerator<PaymentView> {
    await this.#require(paymentId);
    if (!this.#feed.hasRoom) throw new Unavailable("too-many-watchers", "too many payments are being watched");
    const isLast = ({ phase }: PaymentView): boolean => FINAL_PHASES.has(phase);
    yield* this.#feed.watch(paymentId, () => this.payment(paymentId), isLast, signal);
  }

  async payments({ walletId, limit, before }: PaymentQuery): Promise<PaymentPage> {
    await this.#registry.get(walletId);
    if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_MAX) {
      throw new InvalidInput("limit-out-of-range", `a page has 1 to ${PAGE_MAX} payments`, { limit });
    }
    // One more than asked for tells whether there is another page.
    const records = await this.#parts.store.list({ walletId, limit: limit + 1, before });
    const shown = records.slice(0, limit);
    const last = records.length > limit ? shown.at(-1) : undefined;
    return { payments: shown.map((record) => this.#view(record)), next: last?.paymentId ?? "" };
  }

  async votes(paymentId: string): Promise<VotesView> {
    const record = await this.#require(paymentId);
    const { view } = await this.#registry.get(record.walletId);
    return votesView(record, view.parties);
  }

  // ── Operation ──────────────────────────────────────────────────────────────────────────────────────────────────

  async poolStatus(walletId: string): Promise<PoolStatusView> {
    await this.#registry.get(walletId);
    return this.#parts.pools.status(walletId);
  }

  async health(): Promise<HealthView> {
    const { clock, leader, probes, roster } = this.#parts;
    const abort = new AbortController();
    const cancel = clock.after(this.#options.healthTimeoutMs, () => abort.abort());
    const nodesNeeded = approvalsNeeded({ parties: roster().size, threshold: 2 });
    try {
      const facts = { nodesNeeded, leader: leader(), timeMs: clock.nowMs() };
      return { ...(await checkHealth(probes, facts, abort.signal)), preparations: this.#preparations.running };
    } finally {
      cancel();
    }
  }
}

function agreed<T>(answers: readonly T[], bytes: (answer: T) => Uint8Array): T {
  const [first] = answers;
  if (first === undefined) throw new Bug("a wallet has parties");
  if (answers.some((answer) => Buffer.compare(bytes(answer), bytes(first)) !== 0)) {
    throw new Unavailable("key-disagreement", "the nodes name different keys; this wallet must not be used");
  }
  return first;
}
