import { toBinary } from "@bufbuild/protobuf";
import {
  type PreparedStatement,
  type SignedWalletChange,
  type SwitchCertificate,
  SwitchCertificateSchema,
} from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import type { RequestRules } from "../consensus/payment-request.js";
import { approvalsNeeded } from "../consensus/quorum.js";
import { refused } from "../consensus/refusal.js";
import type { VerifySignature } from "../consensus/signature.js";
import { assembleSwitch, verifySwitch } from "../consensus/switch-certificate.js";
import {
  ATTEMPTS_MAX,
  type ChangeVerdict,
  changeDigest,
  isExpired,
  parseSignedWalletChange,
  type VerifiedWalletChange,
  verifyWalletChange,
} from "../consensus/wallet-change.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { equalBytes } from "../crypto/bytes.js";
import { Bug, InvalidInput, PeerFault, PeerSilent, Unavailable } from "../crypto/fault.js";
import { decodePublicKeyPackage, keyDigest } from "../protocols/key-share.js";
import type { AuditTrail } from "./audit-trail.js";
import { BoundedCalls } from "./bounded-calls.js";
import type { Coordination } from "./coordination.js";
import type { PeerWalletChange, ShareStatus } from "./peer-wallet-change.js";
import { failureCode } from "./signing-attempt.js";
import { SwitchDelivery } from "./switch-delivery.js";
import type { WalletChangeView } from "./wallet-application.js";
import { type ChangeRecord, WalletChangeRecords } from "./wallet-change-records.js";
import type { RegisteredWallet, WalletRegistry } from "./wallet-registry.js";

/**
 * Refresh and reshare as a coordinator drives them. It decides nothing: it asks the nodes where they stand, and does
 * what is left to be done, as often as it takes. Everybody prepared: it collects their statements into a certificate
 * and hands it to everybody. Somebody did not: it has that node abandon the attempt, and tries again. What the nodes
 * know is all it needs, so another coordinator, or one whose records are lost, goes on where this one stopped.
 */

export interface WalletChangesOptions {
  readonly rules: Omit<RequestRules, "nowMs">;
  /** One question to a node. */
  readonly callTimeoutMs: number;
  /** Until a node has primes at hand. */
  readonly checkTimeoutMs: number;
  /** The sessions that make new shares. */
  readonly prepareTimeoutMs: number;
  /** Pause before nodes that did not answer are asked again. */
  readonly retryMs: number;
  readonly lockTtlMs: number;
}

export const DEFAULT_CHANGES: Omit<WalletChangesOptions, "rules" | "lockTtlMs"> = {
  callTimeoutMs: 5_000,
  checkTimeoutMs: 280_000,
  prepareTimeoutMs: 600_000,
  retryMs: 2_000,
};

export interface WalletChangesDependencies {
  readonly peers: PeerWalletChange;
  readonly registry: WalletRegistry;
  readonly coordination: Coordination;
  readonly audit: AuditTrail;
  readonly clock: Clock;
  readonly random: Random;
  readonly verify: VerifySignature;
  /** Every node with its Ed25519 identity key. */
  readonly roster: () => ReadonlyMap<string, Uint8Array>;
  /** Hears that a wallet has new shares: pools of the old ones are worthless. */
  readonly onSwitched: (walletId: string) => void;
  readonly onError: (error: unknown, walletId: string) => void;
}

type Pending = NonNullable<ShareStatus["pending"]>;

/** What the nodes of a change said; those that did not answer are missing. */
type Answers = ReadonlyMap<string, ShareStatus>;

/** Pause before a driver that stopped because something did not answer begins again. */
const BEGIN_AGAIN_MS = 5_000;

export class WalletChanges {
  readonly #options: WalletChangesOptions;
  readonly #parts: WalletChangesDependencies;
  readonly #running = new Map<string, Promise<void>>();
  /** Wallets that were asked for while their driver ran. */
  readonly #wanted = new Set<string>();
  readonly #steps = new Map<string, { readonly step: string; readonly waitingFor: readonly string[] }>();
  /** Attempts that were abandoned everywhere, whatever a node says of them afterwards. */
  readonly #dead = new Set<string>();
  readonly #stop = new AbortController();
  readonly #calls: BoundedCalls;
  readonly #records: WalletChangeRecords;
  readonly #delivery: SwitchDelivery;

  constructor(options: WalletChangesOptions, dependencies: WalletChangesDependencies) {
    this.#options = options;
    this.#parts = dependencies;
    const { coordination, clock, peers, onError } = dependencies;
    this.#calls = new BoundedCalls({ timeoutMs: options.callTimeoutMs }, { clock, stop: this.#stop.signal });
    this.#records = new WalletChangeRecords({ coordination, clock });
    this.#delivery = new SwitchDelivery({ peers, coordination, calls: this.#calls, clock, onError });
  }

  /**
   * Takes an order that a payment authority signed. The change goes on by itself; the same order again answers how far.
   *
   * @throws InvalidInput the order's refusal code, `change-expired`, `wallet-unknown`, `change-other-base`,
   *   `refresh-differs`, `party-unknown`, `change-running`
   */
  async submit(bytes: Uint8Array): Promise<WalletChangeView> {
    const signed = parseSignedWalletChange(bytes);
    if (signed === undefined) throw new InvalidInput("change-malformed", "the order does not decode");
    const change = this.#verified(signed);
    const record = await this.#records.turn(change.walletId, () => this.#accept(change));
    if (record.state === "running") this.#begin(change.walletId);
    return await this.#viewOf(change.walletId, record);
  }

  async #accept(change: VerifiedWalletChange): Promise<ChangeRecord> {
    const { walletId, requestId, expiresAtMs, signed } = change;
    const known = await this.#records.get(walletId);
    if (known !== undefined && equalBytes(changeDigest(known.signed), change.digest)) return known;
    if (known?.state === "running" && !change.supersedes) {
      const message = "another change of this wallet is under way; see 'mpc-wallet wallet change'";
      throw new InvalidInput("change-running", message, { walletId });
    }
    if (isExpired(change, this.#parts.clock.nowMs())) {
      throw new InvalidInput("change-expired", "the order has expired; order again", { requestId, expiresAtMs });
    }
    this.#requireFits(change, await this.#parts.registry.get(walletId));
    const record = await this.#records.put(walletId, { signed, state: "running", attempt: 0, code: "", message: "" });
    this.#audit("wallet-change-ordered", change, {
      kind: change.kind,
      ...termsOf(change),
      authority: change.authority,
    });
    return record;
  }

  /** The newest change of a wallet; undefined when there was none. */
  async view(walletId: string): Promise<WalletChangeView | undefined> {
    const record = await this.#records.get(walletId);
    return record && (await this.#viewOf(walletId, record));
  }

  /** Goes on with what is unfinished, also with what only the nodes still know. Call when this coordinator leads. */
  async resume(): Promise<void> {
    for (const { walletId } of await this.#parts.registry.list()) this.#begin(walletId);
    this.#delivery.begin(0);
  }

  async close(): Promise<void> {
    this.#stop.abort(new Unavailable("shutting-down", "this coordinator shuts down"));
    await Promise.allSettled([...this.#running.values(), this.#delivery.close()]);
  }

  #begin(walletId: string): void {
    if (this.#stop.signal.aborted) return;
    if (this.#running.has(walletId)) {
      // The driver may have looked already and be about to end.
      this.#wanted.add(walletId);
      return;
    }
    const run = this.#drive(walletId)
      .catch((error: unknown) => {
        if (this.#stop.signal.aborted) return;
        this.#parts.onError(error, walletId);
        if (error instanceof Unavailable) this.#parts.clock.after(BEGIN_AGAIN_MS, () => this.#begin(walletId));
      })
      .finally(() => {
        this.#running.delete(walletId);
        this.#steps.delete(walletId);
        if (this.#wanted.delete(walletId)) this.#begin(walletId);
      });
    this.#running.set(walletId, run);
  }

  /** One driver a wallet: whoever holds the lock, until nothing is left to do. */
  async #drive(walletId: string): Promise<void> {
    const { coordination } = this.#parts;
    const lock = await coordination.tryLock(`/locks/wallet-change/${walletId}`, this.#options.lockTtlMs);
    if (lock === undefined) return;
    try {
      while (!this.#stop.signal.aborted && !lock.lost.aborted) {
        const rest = await this.#step(walletId);
        if (rest === "done") return;
        if (rest === "wait") await this.#sleep(this.#options.retryMs);
      }
    } finally {
      await lock.release();
    }
  }

  async #step(walletId: string): Promise<"done" | "again" | "wait"> {
    const wallet = await this.#parts.registry.get(walletId);
    const record = await this.#records.get(walletId);
    const ordered = record?.state === "running" ? this.#verified(record.signed) : undefined;
    const answers = await this.#ask(wallet, ordered);
    const switched = this.#newestSwitch(wallet, answers);
    if (switched !== undefined) return await this.#finish(wallet, switched);
    if (await this.#helpLate(wallet, answers)) return "wait";
    const pending = [...answers.values()]
      .flatMap((status) => status.pending ?? [])
      .find((one) => !one.abandoned && this.#isObstacle(one, wallet, ordered));
    if (pending !== undefined) return await this.#settle(wallet, pending, answers);
    if (record === undefined || ordered === undefined) return "done";
    return await this.#attempt(wallet, record, { change: ordered, answers });
  }

  /** Whether what a node says that it prepared must be certified or abandoned first. It may say anything. */
  #isObstacle(pending: Pending, { view }: RegisteredWallet, ordered: VerifiedWalletChange | undefined): boolean {
    const verdict = this.#verdict(pending.change);
    if (!verdict.valid || !equalBytes(verdict.change.baseKeyDigest, view.keyDigest)) return false;
    if (this.#dead.has(attemptName(verdict.change, pending.attempt))) return false;
    return ordered?.supersedes !== true || equalBytes(verdict.change.digest, ordered.digest);
  }

  /** What the nodes prepared is either certified or abandoned; nothing else comes before that. */
  async #settle(wallet: RegisteredWallet, pending: Pending, known: Answers): Promise<"again" | "wait"> {
    const { peers } = this.#parts;
    const { walletId } = wallet.view;
    const change = this.#verified(pending.change);
    // The nodes may know an order that this coordinator's records have lost.
    const answers = new Map([...known, ...(await this.#ask(wallet, change))]);
    const isOfAttempt = (one: Pending | undefined): one is Pending =>
      one !== undefined && one.attempt === pending.attempt && equalBytes(changeDigest(one.change), change.digest);
    const statements = new Map<string, PreparedStatement>();
    const packages: Uint8Array[] = [];
    for (const nodeId of change.parties) {
      const own = answers.get(nodeId)?.pending;
      if (!isOfAttempt(own) || own.statement === undefined) continue;
      statements.set(nodeId, own.statement);
      packages.push(own.publicKeyPackage);
    }
    const missing = change.parties.filter((nodeId) => !statements.has(nodeId));
    if (missing.length === 0) {
      // Whose package or statement is wrong cannot stop the others by more than its own statement.
      const certificates = packages.map((publicKeyPackage) => assembleSwitch(change, publicKeyPackage, statements));
      const certificate = certificates.find((one) => this.#isCertified(wallet, one));
      if (certificate !== undefined) return await this.#finish(wallet, certificate);
      this.#note(walletId, "the nodes' statements about new shares do not fit each other", change.parties);
      return "wait";
    }
    const able = missing.filter((nodeId) => answers.has(nodeId));
    this.#note(walletId, "some nodes prepared new shares, others did not", missing);
    for (const nodeId of able) {
      const order = { change: pending.change, attempt: pending.attempt };
      const statement = await this.#calls
        .make((signal) => peers.abandonChange(nodeId, order, signal))
        .catch(this.#silent);
      if (statement === undefined) continue;
      const holding = [...answers].filter(([, status]) => isOfAttempt(status.pending)).map(([holder]) => holder);
      const dropped = await Promise.allSettled(
        holding.map((holder) =>
          this.#calls.make((signal) => peers.dropChange(holder, { change: pending.change, statement }, signal)),
        ),
      );
      this.#audit("wallet-change-attempt-abandoned", change, { attempt: pending.attempt, by: nodeId });
      if (!dropped.every(({ status }) => status === "fulfilled")) return "wait";
      this.#dead.add(attemptName(change, pending.attempt));
      return "again";
    }
    return "wait";
  }

  /** One try: every party is ready, then all make new shares. */
  async #attempt(
    wallet: RegisteredWallet,
    record: ChangeRecord,
    { change, answers }: { readonly change: VerifiedWalletChange; readonly answers: Answers },
  ): Promise<"done" | "again" | "wait"> {
    const { clock, random, peers } = this.#parts;
    const { walletId, parties: oldParties } = wallet.view;
    const give = (code: string, message: string) => this.#abandon(change, { ...record, code, message });
    if (!equalBytes(change.baseKeyDigest, wallet.view.keyDigest)) {
      return await give("change-other-base", "the wallet's shares were changed by another order");
    }
    const silent = change.parties.filter((nodeId) => !answers.has(nodeId));
    if (isExpired(change, clock.nowMs())) {
      if (silent.length > 0) return await give("nodes-silent", `${silent.join(", ")} did not answer; order again`);
      return await give(record.code || "change-expired", record.message || "the order expired; order again");
    }
    if (record.attempt >= ATTEMPTS_MAX) return await give(record.code, record.message);
    const dealers = this.#dealers(wallet, change, { answers, attempt: record.attempt });
    if (silent.length > 0 || dealers === undefined) {
      const waitingFor = silent.length > 0 ? silent : oldParties.filter((nodeId) => !answers.has(nodeId));
      this.#note(walletId, "waiting for nodes that do not answer", waitingFor);
      return "wait";
    }
    const dealing = dealers.map((dealer) => oldParties[dealer - 1] ?? "");
    const everybody = [...new Set([...change.parties, ...dealing])];
    const { publicKeyPackage } = wallet;
    const check = { change: change.signed, base: { publicKeyPackage, parties: oldParties } };
    this.#note(walletId, "the nodes get ready", []);
    const ready = await this.#all(everybody, this.#options.checkTimeoutMs, (nodeId, signal) =>
      peers.checkChange(nodeId, check, signal),
    );
    const refusal = ready.find(({ error }) => error instanceof InvalidInput);
    if (refusal !== undefined) {
      return await give(failureCode(refusal.error), `${refusal.nodeId} refuses: ${messageOf(refusal.error)}`);
    }
    if (ready.some(({ error }) => error !== undefined)) return await this.#failed(record, ready);
    const attempt = record.attempt + 1;
    const tried = await this.#records.advance(walletId, { ...record, attempt });
    if (tried === undefined) return "again";
    this.#note(walletId, `the nodes make new shares, try ${attempt}`, []);
    const session = { ...check, attempt, dealers, sessionId: random.bytes(16) };
    const prepared = await this.#all(everybody, this.#options.prepareTimeoutMs, (nodeId, signal) =>
      peers.prepareChange(nodeId, session, signal),
    );
    if (prepared.every(({ error }) => error === undefined)) return "again";
    return await this.#failed(tried, prepared);
  }

  async #failed(record: ChangeRecord, outcomes: readonly Outcome[]): Promise<"again" | "wait"> {
    const failures = outcomes.filter(({ error }) => error !== undefined);
    // What names culprits says most; that somebody was silent says least.
    const weight = ({ error }: Outcome) => (error instanceof PeerFault ? 0 : error instanceof PeerSilent ? 2 : 1);
    const [worst] = [...failures].sort((a, b) => weight(a) - weight(b));
    if (worst === undefined) throw new Bug("a try failed without a failure");
    const change = this.#verified(record.signed);
    const code = failureCode(worst.error);
    await this.#records.advance(change.walletId, {
      ...record,
      code,
      message: `${worst.nodeId}: ${messageOf(worst.error)}`,
    });
    this.#audit("wallet-change-attempt-failed", change, { attempt: record.attempt, nodeId: worst.nodeId, code });
    return "wait";
  }

  async #abandon(change: VerifiedWalletChange, record: ChangeRecord): Promise<"done" | "again"> {
    if ((await this.#records.advance(change.walletId, { ...record, state: "abandoned" })) === undefined) return "again";
    this.#audit("wallet-change-abandoned", change, { attempts: record.attempt, code: record.code });
    return "done";
  }

  /** The old threshold of old parties, those that stay first; another choice with each try. */
  #dealers(
    wallet: RegisteredWallet,
    change: VerifiedWalletChange,
    { answers, attempt }: { readonly answers: Answers; readonly attempt: number },
  ): readonly number[] | undefined {
    const { parties, threshold } = wallet.view;
    const able = parties.filter((nodeId) => answers.get(nodeId)?.holds === true);
    const [stay, leave] = [
      able.filter((nodeId) => change.parties.includes(nodeId)),
      able.filter((nodeId) => !change.parties.includes(nodeId)),
    ];
    const turned = [...rotated(stay, attempt), ...rotated(leave, attempt)];
    if (turned.length < threshold) return undefined;
    return turned
      .slice(0, threshold)
      .map((nodeId) => parties.indexOf(nodeId) + 1)
      .sort((a, b) => a - b);
  }

  /** A switch beyond what the registry knows: somebody collected a certificate already. */
  #newestSwitch(wallet: RegisteredWallet, answers: Answers): SwitchCertificate | undefined {
    const newer = [...answers.values()]
      .flatMap(({ switched }) => switched ?? [])
      .filter(({ statements }) => (statements[0]?.epoch ?? 0) > wallet.view.epoch)
      .sort((a, b) => (b.statements[0]?.epoch ?? 0) - (a.statements[0]?.epoch ?? 0));
    return newer.find((certificate) => this.#isCertified(wallet, certificate));
  }

  #isCertified(wallet: RegisteredWallet, certificate: SwitchCertificate): boolean {
    try {
      this.#certified(wallet, certificate);
      return true;
    } catch {
      return false; // a node may say anything
    }
  }

  /** @throws InvalidInput when this is no certificate of the wallet's key */
  #certified(wallet: RegisteredWallet, certificate: SwitchCertificate) {
    const { roster, verify } = this.#parts;
    if (certificate.change === undefined) throw new InvalidInput("change-malformed", "a certificate has its order");
    const change = this.#verified(certificate.change);
    const verdict = verifySwitch(certificate, change, roster(), verify);
    if (!verdict.valid) throw refused(verdict.refusal);
    const key = decodePublicKeyPackage(certificate.publicKeyPackage);
    const isWallets =
      change.walletId === wallet.view.walletId &&
      equalBytes(key.groupKey.toBytes(), wallet.view.groupKey) &&
      equalBytes(key.chainCode, wallet.view.chainCode) &&
      equalBytes(keyDigest(key), verdict.certified.keyDigest) &&
      key.threshold === change.threshold;
    if (!isWallets) throw new InvalidInput("certificate-key", "the certificate is not of this wallet's key");
    return { change, certified: verdict.certified };
  }

  /** Hands the certificate to everybody whom it concerns; from then on the wallet is what it says. */
  async #finish(wallet: RegisteredWallet, certificate: SwitchCertificate): Promise<"again"> {
    const { registry, onSwitched } = this.#parts;
    const { change, certified } = this.#certified(wallet, certificate);
    const { walletId, parties: oldParties } = wallet.view;
    const everybody = [...new Set([...change.parties, ...oldParties])];
    this.#note(walletId, "the nodes switch to the new shares", []);
    const owed = await this.#delivery.owe(everybody, { walletId, epoch: certified.epoch }, certificate);
    const { threshold, parties } = change;
    const renew = () => {
      const { epoch, keyDigest: digest } = certified;
      const { publicKeyPackage } = certificate;
      return registry.renew(walletId, { epoch, threshold, parties, keyDigest: digest, publicKeyPackage });
    };
    // Payments go to the new shares once enough nodes have them; a node that is away must not hold them up.
    const enough = approvalsNeeded({ parties: parties.length, threshold });
    let switchedCount = 0;
    let renewed: Promise<unknown> | undefined;
    const told = owed.map(async (item) => {
      if ((await this.#delivery.deliver([item])) === 0 || !parties.includes(item.nodeId)) return;
      if (++switchedCount !== enough) return;
      renewed = renew();
      renewed.catch(() => undefined); // awaited below
    });
    await Promise.all(told);
    await (renewed ?? renew());
    const { attempt } = certified;
    await this.#records.advance(walletId, { signed: change.signed, state: "switched", attempt, code: "", message: "" });
    this.#audit("wallet-switched", change, {
      kind: change.kind,
      ...termsOf(change),
      epoch: certified.epoch,
      keyDigest: hex(certified.keyDigest),
      certificate: hex(toBinary(SwitchCertificateSchema, certificate)),
    });
    onSwitched(walletId);
    this.#delivery.begin(this.#options.retryMs);
    return "again";
  }

  /** Nodes that missed the last switch, whoever forgot about them. */
  async #helpLate(wallet: RegisteredWallet, answers: Answers): Promise<boolean> {
    const { walletId, epoch, parties } = wallet.view;
    const certificate = [...answers.values()]
      .flatMap(({ switched }) => switched ?? [])
      .find((known) => known.statements[0]?.epoch === epoch && this.#isCertified(wallet, known));
    const late = [...answers].filter(
      ([nodeId, status]) => parties.includes(nodeId) && (!status.holds || status.epoch < epoch) && status.pending,
    );
    if (certificate === undefined || late.length === 0) return false;
    const nodes = late.map(([nodeId]) => nodeId);
    return (await this.#delivery.deliver(await this.#delivery.owe(nodes, { walletId, epoch }, certificate))) > 0;
  }

  // ── Nodes and words ────────────────────────────────────────────────────────────────────────────────────────────

  async #ask(wallet: RegisteredWallet, change: VerifiedWalletChange | undefined): Promise<Answers> {
    const { peers } = this.#parts;
    const { walletId, parties } = wallet.view;
    const nodes = [...new Set([...parties, ...(change?.parties ?? [])])];
    const answers = await Promise.all(
      nodes.map(async (nodeId) => {
        const status = await this.#calls
          .make((signal) => peers.shareStatus(nodeId, walletId, signal))
          .catch(this.#silent);
        return status === undefined ? [] : [[nodeId, status] as const];
      }),
    );
    return new Map(answers.flat());
  }

  readonly #silent = (): undefined => {
    this.#stop.signal.throwIfAborted();
    return undefined;
  };

  /** Every node answers or fails by itself: whoever prepared must be known to have. */
  #all(
    nodes: readonly string[],
    timeoutMs: number,
    ask: (nodeId: string, signal: AbortSignal) => Promise<void>,
  ): Promise<readonly Outcome[]> {
    return Promise.all(
      nodes.map((nodeId) =>
        this.#calls
          .make((signal) => ask(nodeId, signal), timeoutMs)
          .then(
            () => ({ nodeId, error: undefined }),
            (error: unknown) => {
              this.#silent();
              return { nodeId, error: error ?? new Unavailable("peer-failed", "the call failed") };
            },
          ),
      ),
    );
  }

  #requireFits(change: VerifiedWalletChange, { view }: RegisteredWallet): void {
    const { walletId } = change;
    if (change.baseEpoch !== view.epoch || !equalBytes(change.baseKeyDigest, view.keyDigest)) {
      const message = "the order replaces another epoch than the wallet has; look at the wallet and order again";
      throw new InvalidInput("change-other-base", message, { walletId, epoch: view.epoch, ordered: change.baseEpoch });
    }
    const stranger = change.parties.find((nodeId) => !this.#parts.roster().has(nodeId));
    if (stranger !== undefined)
      throw new InvalidInput("party-unknown", `no such node: ${stranger}`, { nodeId: stranger });
    const same = change.threshold === view.threshold && change.parties.join() === view.parties.join();
    if (change.kind === "refresh" && !same) {
      throw new InvalidInput("refresh-differs", "a refresh keeps threshold and nodes; order a reshare", { walletId });
    }
  }

  #verified(signed: SignedWalletChange): VerifiedWalletChange {
    const verdict = this.#verdict(signed);
    if (!verdict.valid) throw refused(verdict.refusal);
    return verdict.change;
  }

  #verdict(signed: SignedWalletChange): ChangeVerdict {
    const { rules } = this.#options;
    return verifyWalletChange(signed, { ...rules, nowMs: this.#parts.clock.nowMs() }, this.#parts.verify);
  }

  async #viewOf(walletId: string, record: ChangeRecord): Promise<WalletChangeView> {
    const change = this.#verified(record.signed);
    const { requestId, kind, threshold, parties } = change;
    const { state, attempt, code, message, changedAtMs } = record;
    const running = state === "running" ? this.#steps.get(walletId) : undefined;
    return {
      walletId,
      requestId,
      kind,
      threshold,
      parties,
      epoch: change.baseEpoch + 1,
      state,
      attempt,
      step: running?.step ?? "",
      waitingFor: running?.waitingFor ?? [],
      owing: await this.#delivery.owing(walletId),
      code,
      message,
      changedAtMs,
    };
  }

  #note(walletId: string, step: string, waitingFor: readonly string[]): void {
    this.#steps.set(walletId, { step, waitingFor });
  }

  #audit(
    kind: string,
    { walletId, requestId }: VerifiedWalletChange,
    payload: Readonly<Record<string, unknown>>,
  ): void {
    this.#parts.audit.append([{ kind, walletId, subject: requestId, payload }]).catch(() => undefined);
  }

  #sleep(delayMs: number): Promise<void> {
    const { signal } = this.#stop;
    return new Promise((resolve) => {
      const done = (): void => {
        cancel();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const cancel = this.#parts.clock.after(delayMs, done);
      signal.addEventListener("abort", done);
      if (signal.aborted) done();
    });
  }
}

interface Outcome {
  readonly nodeId: string;
  readonly error: unknown;
}

const attemptName = ({ digest }: VerifiedWalletChange, attempt: number): string => `${hex(digest)}/${attempt}`;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const termsOf = ({ threshold, parties }: VerifiedWalletChange) => ({ threshold, parties: [...parties] });

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : "unknown");

function rotated<T>(items: readonly T[], by: number): readonly T[] {
  const shift = items.length === 0 ? 0 : by % items.length;
  return [...items.slice(shift), ...items.slice(0, shift)];
}
