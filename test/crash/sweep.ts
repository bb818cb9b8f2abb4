// Kills nodes of a devnet with SIGKILL, at named steps and at random moments, while it pays from a Taproot and from a
// SegWit wallet, has their shares refreshed, and its coordinator attacks with used presignatures; then reads the wire
// logs, and what the nodes keep of their shares.
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import { PaymentPhase, Scheme, WalletChangeState } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { loadClientProfile } from "../../src/cli/client-profile.js";
import { type GatewayClient, openGateway, paymentAuthority } from "../../src/cli/gateway-client.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";
import { signWalletChange } from "../../src/consensus/wallet-change.js";
import { stream } from "../../src/crypto/transcript.js";
import { Devnet } from "../../src/devnet/devnet.js";
import { devnetPaths, prepareDevnet } from "../../src/devnet/devnet-folder.js";
import { CHANGE_POINTS, type KillPoint, SIGNING_POINTS } from "./instrument.js";
import { disksInDisorder, otherShares } from "./shares-kept.js";
import { checkOneUse, readWireLogs, type WireVerdict } from "./wire-log.js";

export interface SweepOptions {
  /** At least three, which is the threshold. */
  readonly nodes: number;
  readonly kills: number;
  /** Payments of every wallet after the last kill. */
  readonly paymentsAtTheEnd: number;
  /** Whether the nodes' ledgers hand out again what was taken, which the check must find. */
  readonly forgetful?: boolean;
  /** The sweep ends with what it has when this is over. */
  readonly timeLimitMs: number;
  readonly seed: string;
  readonly schemes: readonly SweptScheme[];
  readonly progress: (line: string) => void;
}

type SweptScheme = "frost" | "cggmp24";

/** Steps that come last in a change: what a node can still be told to die at when another one is back. */
const SWITCH_POINTS = CHANGE_POINTS.slice(CHANGE_POINTS.indexOf("before-certificate"));

/** A step that a node dies at, or a moment that a timer chooses. */
export type Death = KillPoint | "random";

export interface SweepReport {
  readonly seed: string;
  /** By step; "random" for those that a timer chose. */
  readonly kills: Readonly<Record<string, number>>;
  /** How often a node was told to die there; not every payment comes to every node. */
  readonly tries: Readonly<Record<string, number>>;
  /** By final phase. */
  readonly payments: Readonly<Record<string, number>>;
  /** Refreshes, by scheme and how they ended. */
  readonly changes: Readonly<Record<string, number>>;
  /** By outcome, one for each node asked. */
  readonly attacks: Readonly<Record<string, number>>;
  readonly wire: WireVerdict;
  /** Payments that succeeded at the end, all nodes up. */
  readonly paidAtTheEnd: number;
  readonly killingMs: number;
  /** What must never be, in words. */
  readonly violations: readonly string[];
}

interface SweptWallet {
  readonly walletId: string;
  readonly scheme: SweptScheme;
}

const RECIPIENT = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const COINS = 40;
const COIN_SAT = 2_000_000n;
const PAYMENT_SAT = 20_000n;
/** Longest wait for a payment of the sweep; a wallet that lost two nodes needs a retry or two. */
const PAYMENT_PATIENCE_MS = 60_000;
/** Longest wait for a change to end at all nodes; a SegWit wallet's nodes compute for seconds in each try. */
const CHANGE_PATIENCE_MS: Readonly<Record<SweptScheme, number>> = { frost: 90_000, cggmp24: 240_000 };
/** Payments in which a node that was told to die gets to its step, or does not. */
const PAYMENTS_IN_ROUND = 3;
const PAYMENTS_IN_CHANGE = 6;
/** Nodes that die in one change at most. */
const DEATHS_IN_CHANGE = 4;
/** Of so many refreshes one is of the SegWit wallet: it costs a minute, for the same steps of the same code. */
const SEGWIT_REFRESH_EVERY = 16;
/** Between payments while shares change: a SegWit wallet's would take the machine from those who make its shares. */
const PAYMENT_PAUSE_MS: Readonly<Record<SweptScheme, number>> = { frost: 300, cggmp24: 3_000 };
const POLL_MS = 100;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const isOfChange = (death: Death): boolean => (CHANGE_POINTS as readonly string[]).includes(death);

/** A choice that a seed reproduces; which process the scheduler runs first no seed decides. */
class Dice {
  readonly #bytes: (count: number) => Uint8Array;

  constructor(seed: string) {
    const source = stream("test/crash", [seed]);
    this.#bytes = (count) => source.bytes(count);
  }

  below(limit: number): number {
    return new DataView(this.#bytes(4).slice().buffer).getUint32(0) % limit;
  }

  pick<T>(from: readonly T[]): T {
    const chosen = from[this.below(from.length)];
    if (chosen === undefined) throw new Error("nothing to choose from");
    return chosen;
  }
}

/** Counts by name. */
class Count {
  readonly #of: Record<string, number> = {};

  add(name: string): void {
    this.#of[name] = this.of(name) + 1;
  }

  of(name: string): number {
    return this.#of[name] ?? 0;
  }

  get total(): number {
    return Object.values(this.#of).reduce((sum, count) => sum + count, 0);
  }

  toJSON(): Readonly<Record<string, number>> {
    return { ...this.#of };
  }
}

const walletOf = (wallets: readonly SweptWallet[], scheme: SweptScheme): SweptWallet | undefined =>
  wallets.find((wallet) => wallet.scheme === scheme);

class Sweep {
  readonly #options: SweepOptions;
  readonly #devnet: Devnet;
  readonly #logs: string;
  readonly #gateway: GatewayClient;
  readonly #authority: Awaited<ReturnType<typeof paymentAuthority>>;
  readonly #dice: Dice;
  readonly #kills = new Count();
  readonly #tries = new Count();
  readonly #payments = new Count();
  readonly #changes = new Count();
  readonly #violations: string[] = [];
  /** How each node is to die. */
  readonly #armed = new Map<string, Death>();
  /** Nodes that died and are being started again. */
  readonly #returning = new Map<string, Promise<void>>();
  /** What the nodes were told in this round, in words. */
  #told: string[] = [];
  #refreshes = 0;
  #lastRefreshed = "";

  constructor(
    options: SweepOptions,
    parts: {
      devnet: Devnet;
      logs: string;
      gateway: GatewayClient;
      authority: Awaited<ReturnType<typeof paymentAuthority>>;
    },
  ) {
    this.#options = options;
    this.#devnet = parts.devnet;
    this.#logs = parts.logs;
    this.#gateway = parts.gateway;
    this.#authority = parts.authority;
    this.#dice = new Dice(options.seed);
  }

  async run(): Promise<Omit<SweepReport, "wire" | "attacks">> {
    const { progress, kills, timeLimitMs, seed } = this.#options;
    const wallets = await this.#wallets();
    const startedMs = performance.now();
    const killingMs = (): number => performance.now() - startedMs;
    for (let round = 0; this.#kills.total < kills && killingMs() < timeLimitMs; round++) {
      const before = performance.now();
      const what = await this.#round(wallets, round);
      const each = this.#kills.total === 0 ? "" : `, ${(killingMs() / 1000 / this.#kills.total).toFixed(1)} s each`;
      const tookS = ((performance.now() - before) / 1000).toFixed(1);
      progress(`${this.#kills.total} of ${kills} kills${each}; last round ${tookS} s: ${what}`);
    }
    const tookMs = killingMs();
    let paidAtTheEnd = 0;
    for (let turn = 0; turn < this.#options.paymentsAtTheEnd; turn++) {
      for (const wallet of wallets) {
        const outcome = await this.#pay(wallet);
        if (outcome === "paid") paidAtTheEnd++;
        else this.#violations.push(`a payment of the ${wallet.scheme} wallet after the last kill: ${outcome}`);
      }
    }
    return {
      seed,
      kills: this.#kills.toJSON(),
      tries: this.#tries.toJSON(),
      payments: this.#payments.toJSON(),
      changes: this.#changes.toJSON(),
      paidAtTheEnd,
      killingMs: tookMs,
      violations: this.#violations,
    };
  }

  async #wallets(): Promise<readonly SweptWallet[]> {
    const { wallet } = this.#gateway;
    await this.#whole();
    const made: SweptWallet[] = [];
    for (const scheme of this.#options.schemes) {
      const created = await wallet.createWallet(
        { name: scheme, scheme: scheme === "frost" ? Scheme.FROST : Scheme.CGGMP24, threshold: 3 },
        { timeoutMs: 300_000 },
      );
      const walletId = created.wallet?.walletId ?? "";
      const { address } = await wallet.newAddress({ walletId });
      for (let coin = 0; coin < COINS; coin++) await this.#devnet.faucet(address?.address ?? "", COIN_SAT);
      for (let wait = 0; wait < 300; wait++) {
        const { available, minimum } = await wallet.getPoolStatus({ walletId });
        if (available >= minimum) break;
        await pause(500);
      }
      made.push({ walletId, scheme });
      this.#options.progress(`wallet ${scheme} is ready`);
    }
    return made;
  }

  /** Two nodes may die at once: as many as three of five can do without. Each comes back as soon as it is dead. */
  async #round(wallets: readonly SweptWallet[], round: number): Promise<string> {
    const signing: readonly Death[] = [...SIGNING_POINTS, "random"];
    const all: readonly Death[] = [...signing, ...CHANGE_POINTS];
    const death = this.#rarest(all);
    const otherDeath = this.#rarest(isOfChange(death) ? all : signing);
    this.#told = [];
    const timers = [await this.#arm(death), await this.#arm(otherDeath)];
    const payer = this.#dice.pick(wallets);
    if (isOfChange(death)) await this.#refreshWhilePaying(this.#toRefresh(wallets), payer);
    else await this.#payUntilDead(payer, walletOf(wallets, "frost") ?? payer);
    await Promise.all(timers.map((over) => over()));
    await this.#disarm();
    await this.#whole();
    if (isOfChange(death)) await this.#requireOneEpoch(wallets);
    return `${round + 1}: ${this.#told.join(", ")}; payments ${JSON.stringify(this.#payments)}`;
  }

  /** Nodes that were not asked to sign the first time may be asked the next time, which the Taproot wallet does quickly. */
  async #payUntilDead(payer: SweptWallet, quick: SweptWallet): Promise<void> {
    await this.#payAndCount(payer);
    for (let more = 1; more < PAYMENTS_IN_ROUND; more++) {
      if (![...this.#armed.keys()].some((name) => this.#devnet.running().includes(name))) return;
      await this.#payAndCount(quick);
    }
  }

  /** The Taproot wallet, if there is one, and the SegWit wallet once in a while. */
  #toRefresh(wallets: readonly SweptWallet[]): SweptWallet {
    const isSegwitsTurn = this.#refreshes % SEGWIT_REFRESH_EVERY === SEGWIT_REFRESH_EVERY / 2;
    const wanted: readonly SweptScheme[] = [isSegwitsTurn ? "cggmp24" : "frost", "frost", "cggmp24"];
    const [wallet] = wanted.map((scheme) => walletOf(wallets, scheme)).filter((found) => found !== undefined);
    if (wallet === undefined) throw new Error("a sweep has a wallet");
    return wallet;
  }

  /** Every step gets its turn; among those that had equally many, the dice choose. */
  #rarest(deaths: readonly Death[]): Death {
    const least = Math.min(...deaths.map((death) => this.#tries.of(death)));
    const death = this.#dice.pick(deaths.filter((one) => this.#tries.of(one) === least));
    this.#tries.add(death);
    return death;
  }

  /**
   * Tells a node that runs, and was not told yet, how to die.
   *
   * @returns ends when no timer runs for this node any more
   */
  async #arm(death: Death): Promise<() => Promise<void>> {
    const name = this.#dice.pick(this.#devnet.running().filter((one) => this.#isNode(one) && !this.#armed.has(one)));
    this.#armed.set(name, death);
    this.#told.push(`${name} ${death}`);
    if (death !== "random") {
      await writeFile(this.#orderFile(name), `${death}\n`);
      return async () => undefined;
    }
    const killed = pause(this.#dice.below(300)).then(() => {
      const pid = this.#devnet.pid(name);
      if (pid !== undefined && this.#devnet.running().includes(name)) process.kill(pid, "SIGKILL");
    });
    return () => killed;
  }

  /** A change that goes on gets another death when one node is back; never more than two are down at once. */
  async #killAgain(): Promise<void> {
    const isUp = (name: string): boolean => this.#devnet.running().includes(name) && !this.#armed.has(name);
    if (this.#devnet.plan.nodes.filter((name) => !isUp(name)).length >= 2) return;
    if (this.#told.length < DEATHS_IN_CHANGE) await this.#arm(this.#rarest(SWITCH_POINTS));
  }

  #isNode(name: string): boolean {
    return this.#devnet.plan.nodes.includes(name);
  }

  #orderFile(name: string): string {
    return join(this.#logs, `${name}.kill`);
  }

  async #disarm(): Promise<void> {
    for (const name of this.#devnet.plan.nodes) await rm(this.#orderFile(name), { force: true });
    // A timer of the last step may be about to see the order that has just been withdrawn.
    await pause(20);
    for (const name of this.#devnet.running()) this.#armed.delete(name);
  }

  /** A process was killed, by the step that it was told to die at or by the timer. */
  onCrash(name: string): void {
    this.#kills.add(this.#armed.get(name) ?? "unasked");
    this.#armed.delete(name);
    const back = this.#devnet.startNode(name);
    back.catch(() => undefined); // awaited in #whole
    this.#returning.set(name, back);
  }

  /** All nodes run and answer the coordinator. @throws when one cannot be started */
  async #whole(): Promise<void> {
    while (this.#returning.size > 0) {
      for (const [name, back] of [...this.#returning]) {
        await back;
        if (this.#returning.get(name) === back) this.#returning.delete(name);
      }
    }
    for (let attempt = 0; attempt < 300; attempt++) {
      const { parts, leader } = await this.#gateway.wallet.getHealth({});
      if (leader !== "" && parts.every(({ healthy }) => healthy)) return;
      await pause(POLL_MS);
    }
    throw new Error("the devnet did not become healthy again");
  }

  async #refreshWhilePaying(wallet: SweptWallet, payer: SweptWallet): Promise<void> {
    this.#refreshes++;
    this.#lastRefreshed = wallet.walletId;
    let isRunning = true;
    const ended = this.#refresh(wallet).finally(() => {
      isRunning = false;
    });
    ended.catch(() => undefined); // awaited below
    await this.#payAndCount(payer);
    for (let more = 1; isRunning && more < PAYMENTS_IN_CHANGE; more++) {
      await this.#killAgain();
      await pause(PAYMENT_PAUSE_MS[wallet.scheme]);
      await this.#payAndCount(wallet);
    }
    const outcome = await ended;
    this.#changes.add(`${wallet.scheme}: ${outcome}`);
  }

  /** Orders a refresh, as `mpc-wallet wallet refresh` does, and follows it until no node has to hear of it any more. */
  async #refresh({ walletId, scheme }: SweptWallet): Promise<string> {
    const { wallet: client } = this.#gateway;
    const { wallet } = await client.getWallet({ walletId });
    if (wallet === undefined) return "wallet unknown";
    const { epoch: baseEpoch, keyDigest: baseKeyDigest, threshold, parties } = wallet;
    const { changeCount } = await client.getWalletChange({ walletId });
    const createdAtMs = Date.now();
    const terms = { walletId, kind: "refresh" as const, baseEpoch, baseKeyDigest, threshold, parties, changeCount };
    const times = { createdAtMs, expiresAtMs: createdAtMs + 600_000 };
    const order = { requestId: randomUUID(), ...terms, supersedes: false, ...times };
    await client.changeWallet({ change: signWalletChange(order, this.#authority) });
    let last = "";
    for (const endMs = performance.now() + CHANGE_PATIENCE_MS[scheme]; performance.now() < endMs; ) {
      const { change } = await client.getWalletChange({ walletId });
      await pause(POLL_MS);
      if (change === undefined || change.requestId !== order.requestId) continue;
      const { state, owing, step, message } = change;
      last = `${WalletChangeState[state]} ${step} ${message} ${owing.join()}`;
      if (owing.length > 0) continue;
      if (state === WalletChangeState.SWITCHED) return "switched";
      if (state === WalletChangeState.ABANDONED) return "abandoned";
    }
    this.#violations.push(`a refresh of the ${scheme} wallet did not end: ${last}`);
    return "unfinished";
  }

  /** All or none: every node holds the epoch that the wallet says it has, and a wallet whose shares changed pays. */
  async #requireOneEpoch(wallets: readonly SweptWallet[]): Promise<void> {
    for (const swept of wallets) {
      const { wallet } = await this.#gateway.wallet.getWallet({ walletId: swept.walletId });
      if (wallet === undefined) throw new Error("a wallet is gone");
      const others = otherShares(this.#logs, this.#devnet.plan.nodes, wallet);
      if (others.length > 0) this.#violations.push(`epoch ${wallet.epoch} is divided: ${others.join(", ")}`);
    }
    const [swept] = wallets.filter(({ walletId }) => walletId === this.#lastRefreshed);
    if (swept === undefined) throw new Error("nothing was refreshed");
    const outcome = await this.#payAndCount(swept);
    if (outcome !== "paid") this.#violations.push(`the ${swept.scheme} wallet did not pay after a change: ${outcome}`);
  }

  async #payAndCount(wallet: SweptWallet): Promise<string> {
    const outcome = await this.#pay(wallet);
    this.#payments.add(outcome);
    return outcome;
  }

  async #pay({ walletId }: SweptWallet): Promise<string> {
    const createdAtMs = BigInt(Date.now());
    const payment = signPaymentRequest(
      {
        requestId: randomUUID(),
        walletId,
        recipients: [{ address: RECIPIENT, amountSat: PAYMENT_SAT }],
        maxFeeRateSatPerKvb: 100_000n,
        metadataJson: "",
        createdAtMs,
        expiresAtMs: createdAtMs + 600_000n,
      },
      this.#authority,
    );
    try {
      const options = { timeoutMs: PAYMENT_PATIENCE_MS };
      const sent = await this.#gateway.wallet.sendPayment({ payment, waitForBroadcast: true }, options);
      await this.#devnet.mine(1);
      return sent.payment?.phase === PaymentPhase.BROADCAST ? "paid" : (sent.payment?.failure?.code ?? "unknown");
    } catch (error) {
      return error instanceof Error && "code" in error ? `call ended: ${String(error.code)}` : "call ended";
    }
  }
}

/** Runs a sweep on a devnet of its own in a temporary folder. */
export async function sweep(options: SweepOptions): Promise<SweepReport> {
  const folder = await mkdtemp(join(tmpdir(), "mpc-wallet-crash-"));
  const logs = join(folder, "wire");
  await mkdir(logs);
  const plan = await prepareDevnet({ folder, nodes: options.nodes });
  const paths = devnetPaths(folder);
  for (const nodeId of plan.nodes) await makeQuick(paths.nodeConfig(nodeId));
  await makeQuick(paths.coordinatorConfig);
  const before = { ...process.env };
  process.env["CRASH_TEST_FOLDER"] = logs;
  if (options.forgetful === true) process.env["CRASH_TEST_FORGETFUL"] = "1";
  process.env["NODE_OPTIONS"] = `--import ${new URL("./instrument.js", import.meta.url).href}`;
  let run: Sweep | undefined;
  let devnet: Devnet | undefined;
  let kept = false;
  try {
    devnet = await Devnet.start({
      folder,
      nodes: options.nodes,
      progress: options.progress,
      onCrash: (name, why) => {
        if (why !== "signal SIGKILL") throw new Error(`${name} ended by itself: ${why}`);
        run?.onCrash(name);
      },
    });
    const profile = await loadClientProfile(devnet.paths.clientConfig, { environment: before });
    const gateway = await openGateway(profile, { environment: before });
    run = new Sweep(options, { devnet, logs, gateway, authority: await paymentAuthority(profile) });
    const facts = await run.run();
    gateway.close();
    await devnet.stop();
    const lines = readWireLogs(logs);
    const attacks = new Count();
    for (const line of lines) if (line.type === "attack") attacks.add(line.outcome);
    const wire = checkOneUse(lines);
    const disorder = await disksInDisorder(folder, plan.nodes);
    const violations = [...facts.violations, ...disorder, ...wordsOf(wire)];
    kept = violations.length > 0 && options.forgetful !== true;
    if (kept) options.progress(`kept ${folder}`);
    return { ...facts, attacks: attacks.toJSON(), wire, violations };
  } catch (error) {
    await devnet?.stop();
    kept = true;
    throw error;
  } finally {
    for (const name of ["CRASH_TEST_FOLDER", "CRASH_TEST_FORGETFUL", "NODE_OPTIONS"]) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
    // The logs of a sweep that failed are what its failure is understood from.
    if (!kept) await rm(folder, { recursive: true, force: true });
  }
}

function wordsOf({ reuses, unexplained, strayed }: WireVerdict): readonly string[] {
  return [
    ...reuses.map(({ sender, used, sessions }) => `${sender} used ${used} in ${sessions.length} sessions`),
    ...unexplained.map((share) => `nobody knows what a share was made from: ${share}`),
    ...strayed.map((used) => `${used} was used under two keys`),
  ];
}

/** What a configuration may say of waiting, and of how much is made ahead. */
interface Waits {
  readonly network: Record<string, unknown>;
  readonly protocols: Record<"cggmp24" | "frost", Record<string, unknown> | undefined>;
}

/**
 * What is tested here is neither the size of moduli nor the patience with a network: ten signing sets with one or two
 * presignatures each at the cheaper profile, and a dead peer is noticed, and dialled again, as soon as loopback allows.
 */
async function makeQuick(file: string): Promise<void> {
  const configuration = parse(await readFile(file, "utf8")) as unknown as Waits;
  const { network, protocols } = configuration;
  const pool = { poolTarget: 10, poolMinimum: 10, poolBatch: 2 };
  Object.assign(network, { pingIntervalMs: 250, connectTimeoutMs: 2_000, hotStandby: false });
  protocols.cggmp24 = { ...protocols.cggmp24, security: "security112", ...pool };
  protocols.frost = { ...protocols.frost, ...pool, roundTimeoutMs: 1_500 };
  await writeFile(file, stringify(configuration), { mode: 0o600 });
}
