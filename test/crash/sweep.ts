// Kills nodes of a devnet with SIGKILL, at named steps and at random moments, while it pays from a Taproot and from a
// SegWit wallet and its coordinator attacks with used presignatures; then reads the wire logs.
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parse, stringify } from "smol-toml";
import { PaymentPhase, Scheme } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { loadClientProfile } from "../../src/cli/client-profile.js";
import { type GatewayClient, openGateway, paymentAuthority } from "../../src/cli/gateway-client.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";
import { stream } from "../../src/crypto/transcript.js";
import { Devnet } from "../../src/devnet/devnet.js";
import { devnetPaths, prepareDevnet } from "../../src/devnet/devnet-folder.js";
import { KILL_POINTS } from "./instrument.js";
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
  readonly schemes: readonly ("frost" | "cggmp24")[];
  readonly progress: (line: string) => void;
}

export interface SweepReport {
  readonly seed: string;
  /** By step; "random" for those that a timer chose. */
  readonly kills: Readonly<Record<string, number>>;
  /** By final phase. */
  readonly payments: Readonly<Record<string, number>>;
  /** By outcome, one for each node asked. */
  readonly attacks: Readonly<Record<string, number>>;
  readonly wire: WireVerdict;
  /** Payments that succeeded at the end, all nodes up. */
  readonly paidAtTheEnd: number;
}

const RECIPIENT = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const COINS = 40;
const COIN_SAT = 2_000_000n;
const PAYMENT_SAT = 100_000n;
/** Longest wait for a payment of the sweep; a wallet that lost two nodes needs a retry or two. */
const PAYMENT_PATIENCE_MS = 60_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

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

class Sweep {
  readonly #options: SweepOptions;
  readonly #devnet: Devnet;
  readonly #logs: string;
  readonly #gateway: GatewayClient;
  readonly #authority: Awaited<ReturnType<typeof paymentAuthority>>;
  readonly #dice: Dice;
  readonly #kills: Record<string, number> = {};
  readonly #payments: Record<string, number> = {};
  /** How each node is to die. */
  readonly #armed = new Map<string, string>();

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
    const untilMs = performance.now() + timeLimitMs;
    for (let round = 0; this.#killed() < kills && performance.now() < untilMs; round++) {
      const walletId = wallets[round % wallets.length] ?? "";
      await this.#killWhilePaying(walletId);
      progress(`${this.#killed()} of ${kills} kills, payments ${JSON.stringify(this.#payments)}`);
    }
    let paidAtTheEnd = 0;
    for (let turn = 0; turn < this.#options.paymentsAtTheEnd; turn++) {
      for (const walletId of wallets) if ((await this.#pay(walletId)) === "paid") paidAtTheEnd++;
    }
    return { seed, kills: this.#kills, payments: this.#payments, paidAtTheEnd };
  }

  #killed(): number {
    return Object.values(this.#kills).reduce((sum, count) => sum + count, 0);
  }

  async #wallets(): Promise<readonly string[]> {
    const { wallet } = this.#gateway;
    await this.#healthy();
    const made: string[] = [];
    for (const scheme of this.#options.schemes) {
      const created = await wallet.createWallet(
        { name: scheme, scheme: scheme === "frost" ? Scheme.FROST : Scheme.CGGMP24, threshold: 3 },
        { timeoutMs: 300_000 },
      );
      const walletId = created.wallet?.walletId ?? "";
      const { address } = await wallet.newAddress({ walletId });
      for (let coin = 0; coin < COINS; coin++) await this.#devnet.faucet(address?.address ?? "", COIN_SAT);
      for (let wait = 0; wait < 300; wait++) {
        const { available, target } = await wallet.getPoolStatus({ walletId });
        if (available >= target) break;
        await pause(500);
      }
      made.push(walletId);
      this.#options.progress(`wallet ${scheme} is ready`);
    }
    return made;
  }

  /** Two nodes may die in one payment: as many as three of five can do without. */
  async #killWhilePaying(walletId: string): Promise<void> {
    const { nodes } = this.#devnet.plan;
    const first = this.#dice.pick(nodes);
    const second = this.#dice.pick(nodes.filter((name) => name !== first));
    for (const name of [first, second]) {
      const point = this.#dice.pick([...KILL_POINTS, "random"] as const);
      if (point !== "random") {
        this.#armed.set(name, point);
        await writeFile(join(this.#logs, `${name}.kill`), `${point}\n`);
      } else setTimeout(() => this.#killNow(name), this.#dice.below(300));
    }
    const outcome = await this.#pay(walletId);
    this.#payments[outcome] = (this.#payments[outcome] ?? 0) + 1;
    await pause(50);
    for (const name of [first, second]) {
      await rm(join(this.#logs, `${name}.kill`), { force: true });
      if (this.#devnet.running().includes(name)) this.#armed.delete(name);
    }
    await this.#restart();
  }

  #killNow(name: string): void {
    const pid = this.#devnet.pid(name);
    if (pid === undefined || !this.#devnet.running().includes(name)) return;
    this.#armed.set(name, "random");
    process.kill(pid, "SIGKILL");
  }

  /** A process was killed, by the step that it was told to die at or by the timer. */
  onCrash(name: string): void {
    const point = this.#armed.get(name) ?? "unasked";
    this.#armed.delete(name);
    this.#kills[point] = (this.#kills[point] ?? 0) + 1;
  }

  async #restart(): Promise<void> {
    const { nodes } = this.#devnet.plan;
    const down = nodes.filter((name) => !this.#devnet.running().includes(name));
    await Promise.all(down.map((name) => this.#devnet.startNode(name)));
    await this.#healthy();
  }

  async #healthy(): Promise<void> {
    for (let attempt = 0; attempt < 300; attempt++) {
      const { parts, leader } = await this.#gateway.wallet.getHealth({});
      if (leader !== "" && parts.every(({ healthy }) => healthy)) return;
      await pause(100);
    }
    throw new Error("the devnet did not become healthy again");
  }

  async #pay(walletId: string): Promise<string> {
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
  for (const nodeId of plan.nodes) await useSmallModuli(paths.nodeConfig(nodeId));
  await useSmallModuli(paths.coordinatorConfig);
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
    const attacks: Record<string, number> = {};
    for (const line of lines) if (line.type === "attack") attacks[line.outcome] = (attacks[line.outcome] ?? 0) + 1;
    return { ...facts, attacks, wire: checkOneUse(lines) };
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

/** Ten signing sets with a few presignatures each at the cheaper profile: what is tested here is not the size of moduli. */
async function useSmallModuli(file: string): Promise<void> {
  const configuration = parse(await readFile(file, "utf8")) as { protocols: { cggmp24: Record<string, unknown> } };
  Object.assign(configuration.protocols.cggmp24, {
    security: "security112",
    poolTarget: 10,
    poolMinimum: 10,
    poolBatch: 2,
  });
  await writeFile(file, stringify(configuration), { mode: 0o600 });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { parseArgs } = await import("node:util");
  const { values } = parseArgs({
    options: {
      kills: { type: "string", default: "300" },
      minutes: { type: "string", default: "40" },
      seed: { type: "string", default: "1" },
      json: { type: "boolean", default: false },
    },
  });
  const report = await sweep({
    nodes: 5,
    kills: Number(values.kills),
    paymentsAtTheEnd: 1,
    timeLimitMs: Number(values.minutes) * 60_000,
    seed: values.seed,
    schemes: ["frost", "cggmp24"],
    progress: (line) => process.stderr.write(`${(performance.now() / 1000).toFixed(1).padStart(7)} s  ${line}\n`),
  });
  console.log(values.json ? JSON.stringify(report) : JSON.stringify(report, null, 2));
  process.exitCode = report.wire.reuses.length === 0 && report.wire.unexplained.length === 0 ? 0 : 1;
}
