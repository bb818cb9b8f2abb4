/** `npm run demo`: the main job from nothing, on embedded defaults, told as a timeline. */
import { createPublicKey, generateKeyPairSync, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { networks, payments as scripts } from "bitcoinjs-lib";
import { Command, Option } from "commander";
import {
  BallotVerdict,
  type GetVotesResponse,
  type Payment,
  PaymentPhase,
  Scheme,
  type Wallet,
} from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { signPaymentRequest } from "../consensus/payment-request.js";
import { type AuditVerdict, verifyTrail } from "../coordinator/audit-verification.js";
import { coordinatorConfigurationSchema } from "../coordinator/configuration.js";
import { openAudit } from "../coordinator/start.js";
import { Unavailable } from "../crypto/fault.js";
import { Devnet } from "../devnet/devnet.js";
import { Roster } from "../network/identity/roster.js";
import { systemClock } from "../node/ambient.js";
import { openChain } from "../node/start.js";
import { DatabaseAuditTrail } from "../storage/database-audit-trail.js";
import type { AuditEntry } from "../wallet/audit-trail.js";
import { type ClientProfile, loadClientProfile } from "./client-profile.js";
import { loadConfiguration } from "./configuration-file.js";
import { introduction } from "./devnet-command.js";
import { failureOf } from "./failure.js";
import { type GatewayClient, openGateway, paymentAuthority } from "./gateway-client.js";
import { bar, toldWhileMade } from "./preparation-line.js";
import { untilToldToStop } from "./process-commands.js";

interface DemoOptions {
  readonly keep: boolean;
  readonly killNode: boolean;
  readonly json: boolean;
  readonly scheme: DemoScheme | "both";
  readonly folder?: string;
}

/** A payment that confirmed, of one of the wallets. */
interface Paid extends DemoWallet {
  readonly payment: Payment;
  readonly votes: GetVotesResponse;
}

type DemoScheme = "frost" | "cggmp24";

/** A wallet of the demo, ready to pay. */
interface DemoWallet {
  readonly scheme: DemoScheme;
  readonly wallet: Wallet;
  readonly dkgMs: number;
  readonly address: string;
}

/** One payment as the demo reports it. */
interface PaymentReport {
  readonly txid: string;
  readonly scheme: string;
  readonly votes: number;
  readonly signers: readonly string[];
  readonly timingsMs: Readonly<Record<"dkg" | "votes" | "sign" | "broadcast" | "total", number>>;
  readonly confirmedHeight: number;
}

const FUNDS_SAT = 10_000_000n;
const PAYMENT_SAT = 1_250_000n;
const REQUEST_LIFETIME_MS = 600_000;
/** Tries to hit the moment between a node's vote and the signature. */
const KILL_ATTEMPTS_MAX = 3;
const PROGRESS_MS = 3_000;
const POOL_PATIENCE_MS = 600_000;

const startedMs = performance.now();
const tell = (what: string): void => {
  process.stderr.write(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)} s  ${what}\n`);
};
const rounded = (ms: number): number => Math.round(ms * 10) / 10;

class Demo {
  readonly #devnet: Devnet;
  readonly #profile: ClientProfile;
  readonly #client: GatewayClient["wallet"];

  constructor(parts: { devnet: Devnet; profile: ClientProfile; client: GatewayClient["wallet"] }) {
    this.#devnet = parts.devnet;
    this.#profile = parts.profile;
    this.#client = parts.client;
  }

  async createWallet(scheme: DemoScheme): Promise<{ readonly wallet: Wallet; readonly dkgMs: number }> {
    await this.#ready();
    const name = `demo-${randomUUID().slice(0, 8)}`;
    const before = performance.now();
    const order = { name, scheme: scheme === "frost" ? Scheme.FROST : Scheme.CGGMP24, threshold: 3 };
    const told = { name, intervalMs: PROGRESS_MS, tell: (line: string) => tell(`  ${line}`) };
    const { wallet } = await toldWhileMade(this.#client, told, () => this.#client.createWallet(order));
    const dkgMs = performance.now() - before;
    if (wallet === undefined) throw new Unavailable("wallet-missing", "the gateway made no wallet");
    const made = scheme === "frost" ? "Taproot, key generated" : "SegWit, key and auxiliary info generated";
    tell(`wallet ${name}: 3 of ${wallet.parties.length}, ${made} in ${dkgMs.toFixed(0)} ms; the key exists nowhere`);
    return { wallet, dkgMs };
  }

  /** A presignature or nonces for each signing set, so that whoever votes first can sign. */
  async awaitPool({ walletId }: Wallet, scheme: DemoScheme): Promise<void> {
    const what = scheme === "frost" ? "nonces" : "presignatures";
    const before = performance.now();
    let [toldMs, told] = [before, -1];
    for (;;) {
      const { available, minimum, target } = await this.#client.getPoolStatus({ walletId });
      if (target === 0) return;
      const now = performance.now();
      if (available >= minimum) return tell(`pool: ${available} ${what}, made in ${(now - before).toFixed(0)} ms`);
      if (now - before > POOL_PATIENCE_MS) {
        throw new Unavailable("pool-empty", `only ${available} of ${minimum} ${what} were made in time`);
      }
      if (now - toldMs > PROGRESS_MS && available !== told) {
        [toldMs, told] = [now, available];
        tell(`  ${what} ${bar(available, minimum)} ${available} of ${minimum} are ready`);
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  async fund({ walletId }: Wallet): Promise<string> {
    const { address } = await this.#client.newAddress({ walletId });
    if (address === undefined) throw new Unavailable("address-missing", "the gateway made no address");
    await this.#devnet.faucet(address.address, FUNDS_SAT);
    const balance = await this.#client.getBalance({ walletId });
    tell(`funded ${address.address} with ${FUNDS_SAT} sat; confirmed balance ${balance.confirmedSat} sat`);
    return address.address;
  }

  /** Sends a payment and watches it to its confirmation. `kill` ends one voter with SIGKILL before the signature is there. */
  async pay(
    { walletId }: Wallet,
    options: { readonly kill: boolean },
  ): Promise<{ payment: Payment; killed: string | undefined }> {
    const createdAtMs = BigInt(systemClock.nowMs());
    const request = signPaymentRequest(
      {
        requestId: randomUUID(),
        walletId,
        recipients: [{ address: outsideAddress(), amountSat: PAYMENT_SAT }],
        maxFeeRateSatPerKvb: 100_000n,
        metadataJson: JSON.stringify({ purpose: "demo" }),
        createdAtMs,
        expiresAtMs: createdAtMs + BigInt(REQUEST_LIFETIME_MS),
      },
      await paymentAuthority(this.#profile),
    );
    const sent = await this.#client.sendPayment({ payment: request });
    const paymentId = sent.payment?.paymentId ?? "";
    let killed: string | undefined;
    let mined = false;
    let last: Payment | undefined;
    for await (const { payment } of this.#client.watchPayment({ paymentId })) {
      if (payment === undefined) continue;
      last = payment;
      const waitsForSignature = payment.phase === PaymentPhase.APPROVED || payment.phase === PaymentPhase.SIGNING;
      if (options.kill && killed === undefined && waitsForSignature) killed = await this.#killVoter(paymentId);
      if (payment.phase === PaymentPhase.BROADCAST && !mined) {
        mined = true;
        await this.#devnet.mine(1);
      }
    }
    if (last?.phase !== PaymentPhase.CONFIRMED) {
      const { code = "unknown", message = "" } = last?.failure ?? {};
      throw new Unavailable("payment-failed", `the payment was not confirmed: ${code} ${message}`, { paymentId });
    }
    return { payment: last, killed };
  }

  async votes(paymentId: string): Promise<GetVotesResponse> {
    return await this.#client.getVotes({ paymentId });
  }

  /** Waits until the coordinator leads and a quorum answers. */
  async #ready(): Promise<void> {
    for (let attempt = 0; attempt < 100; attempt++) {
      const { healthy, leader } = await this.#client.getHealth({});
      if (healthy && leader !== "") return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Unavailable("devnet-unhealthy", "the devnet did not become healthy in time");
  }

  async #killVoter(paymentId: string): Promise<string | undefined> {
    const { ballots } = await this.#client.getVotes({ paymentId });
    const voter = ballots.find(({ verdict }) => verdict === BallotVerdict.APPROVE)?.voter;
    if (voter === undefined) return undefined;
    await this.#devnet.kill(voter);
    tell(`killed ${voter} with SIGKILL after its vote`);
    return voter;
  }
}

/** A SegWit address of nobody in this wallet. */
function outsideAddress(): string {
  const der = createPublicKey(generateKeyPairSync("ec", { namedCurve: "secp256k1" }).privateKey).export({
    format: "der",
    type: "spki",
  });
  const x = der.subarray(-64, -32);
  const { address } = scripts.p2wpkh({
    pubkey: Buffer.concat([Uint8Array.of(2 + ((der.at(-1) ?? 0) & 1)), x]),
    network: networks.regtest,
  });
  if (address === undefined) throw new Unavailable("address-missing", "no address for a fresh key");
  return address;
}

function stepMs(payment: Payment, step: string): number {
  const entries = payment.timeline.filter(
    (entry) => entry.step === step && entry.nodeId === "" && entry.outcome === "ok",
  );
  return entries.at(-1)?.durationMs ?? 0;
}

function report(parts: {
  payment: Payment;
  votes: GetVotesResponse;
  dkgMs: number;
  signers: readonly string[];
  scheme: DemoScheme;
}): PaymentReport {
  const { payment, votes, dkgMs, signers, scheme } = parts;
  const [votesMs, sign, broadcast] = ["vote", "sign", "broadcast"].map((step) => stepMs(payment, step));
  const until = payment.timeline.filter(({ step }) => step === "broadcast").at(-1);
  const total = until === undefined ? 0 : Number(until.startedAtMs) + until.durationMs - Number(payment.createdAtMs);
  return {
    txid: payment.txid,
    scheme,
    votes: votes.ballots.filter(({ verdict }) => verdict === BallotVerdict.APPROVE).length,
    signers,
    timingsMs: {
      dkg: rounded(dkgMs),
      votes: rounded(votesMs ?? 0),
      sign: rounded(sign ?? 0),
      broadcast: rounded(broadcast ?? 0),
      total: rounded(total),
    },
    confirmedHeight: payment.confirmedHeight,
  };
}

function tellPayment(payment: Payment, votes: GetVotesResponse, signers: readonly string[]): void {
  for (const { voter, verdict, durationMs } of votes.ballots) {
    tell(
      `  vote of ${voter}: ${verdict === BallotVerdict.APPROVE ? "approve" : "reject"} after ${durationMs.toFixed(1)} ms`,
    );
  }
  tell(
    `  signed by ${signers.join(", ")} in ${stepMs(payment, "sign").toFixed(1)} ms${payment.retries > 0 ? `, after ${payment.retries} failed attempt(s)` : ""}`,
  );
  tell(`  broadcast ${payment.txid} in ${stepMs(payment, "broadcast").toFixed(1)} ms, fee ${payment.feeSat} sat`);
  tell(`  confirmed at height ${payment.confirmedHeight}`);
}

/** Reads the trail of the stopped coordinator: its hash chain, its certificates, and its transactions against the chain. */
async function readTrail(
  devnet: Devnet,
): Promise<{ readonly verdict: AuditVerdict; signersOf(paymentId: string): readonly string[] }> {
  const configuration = await loadConfiguration(devnet.paths.coordinatorConfig, coordinatorConfigurationSchema);
  const database = await openAudit(configuration, process.env);
  const audit = new DatabaseAuditTrail({}, { database, clock: systemClock });
  try {
    const chain = await openChain(configuration.bitcoin, process.env);
    const verdict = await verifyTrail({ audit, roster: new Roster(configuration.network.roster), chain });
    const certificates: AuditEntry[] = (await audit.read({ fromSequence: 1n, limit: 1_000 })).filter(
      ({ kind }) => kind === "certificate",
    );
    return {
      verdict,
      signersOf(paymentId) {
        const signers = certificates.filter(({ subject }) => subject === paymentId).at(-1)?.payload["signers"];
        return Array.isArray(signers) ? signers.map(String) : [];
      },
    };
  } finally {
    await audit.close();
    await database.close();
  }
}

async function run(options: DemoOptions): Promise<void> {
  const folder =
    options.folder === undefined ? await mkdtemp(join(tmpdir(), "mpc-wallet-demo-")) : resolve(options.folder);
  const crashes: string[] = [];
  const devnet = await Devnet.start({
    folder,
    nodes: 5,
    progress: tell,
    onCrash: (name, why, logFile) => {
      crashes.push(name);
      tell(`${name} ended by itself (${why}); its log is ${logFile}`);
    },
  });
  let succeeded = false;
  try {
    tell(`up: ${devnet.running().join(", ")}, each its own process`);
    const profile = await loadClientProfile(devnet.paths.clientConfig, { environment: process.env });
    const gateway = await openGateway(profile, { environment: process.env });
    const demo = new Demo({ devnet, profile, client: gateway.wallet });
    const wallets: DemoWallet[] = [];
    const paid: Paid[] = [];
    let killed: string | undefined;
    const schemes = options.scheme === "both" ? (["frost", "cggmp24"] as const) : [options.scheme];
    for (const [index, scheme] of schemes.entries()) {
      const made = await demo.createWallet(scheme);
      await demo.awaitPool(made.wallet, scheme);
      const wallet: DemoWallet = { scheme, ...made, address: await demo.fund(made.wallet) };
      wallets.push(wallet);
      // In the last payment: the auxiliary info of a SegWit wallet needs every node alive.
      const kill = options.killNode && index === schemes.length - 1;
      for (let attempt = 0; attempt < (kill ? KILL_ATTEMPTS_MAX : 1) && killed === undefined; attempt++) {
        const done = await demo.pay(wallet.wallet, { kill });
        killed = done.killed;
        const votes = await demo.votes(done.payment.paymentId);
        paid.push({ ...wallet, payment: done.payment, votes });
        tell(
          `paid from the ${scheme === "frost" ? "Taproot" : "SegWit"} wallet, signed in ${stepMs(done.payment, "sign").toFixed(1)} ms`,
        );
        if (kill && killed === undefined)
          tell("the payment was signed before a node could be killed; paying once more");
      }
    }
    if (options.killNode && killed === undefined)
      throw new Unavailable("kill-missed", "no node could be killed between vote and signature");
    gateway.close();
    await devnet.stopCoordinator();
    const { verdict, signersOf } = await readTrail(devnet);
    for (const { payment, votes } of paid) tellPayment(payment, votes, signersOf(payment.paymentId));
    if (killed !== undefined) tell(`paid although ${killed} is dead`);
    for (const problem of verdict.problems) tell(`audit: ${problem}`);
    const verified = verdict.problems.length === 0;
    tell(
      `audit: ${verdict.entries} entries, ${verified ? "hash chain, certificates and transactions verified against the chain" : "NOT VERIFIED"}`,
    );
    const summary = {
      wallets: wallets.map(({ wallet, scheme, address }) => ({ id: wallet.walletId, scheme, address })),
      payments: paid.map((one) => report({ ...one, signers: signersOf(one.payment.paymentId) })),
      audit: { rows: Number(verdict.entries), verified },
    };
    succeeded = verified && crashes.length === 0;
    if (!succeeded) process.exitCode = 1;
    if (options.keep) {
      await devnet.startCoordinator();
      const told = untilToldToStop();
      for (const line of introduction(devnet)) process.stderr.write(`${line}\n`);
      if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`);
      await told;
    } else if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`);
  } finally {
    tell("stopping");
    await devnet.stop();
    if (options.folder === undefined && !options.keep && succeeded) await rm(folder, { recursive: true, force: true });
    else tell(`kept ${folder}`);
  }
}

const program = new Command("demo")
  .description("makes a devnet, creates a wallet by key generation, funds it, pays, verifies the audit trail, stops")
  .addOption(
    new Option(
      "--scheme <scheme>",
      "frost: Taproot, seconds; cggmp24: SegWit, which takes a minute or two of primes first; both",
    )
      .choices(["frost", "cggmp24", "both"])
      .default("both"),
  )
  .option("--keep", "leave the devnet running and say how to use it", false)
  .option("--kill-node", "kill one node with SIGKILL between vote and signing, and still pay", false)
  .option("--json", "print one JSON object on standard output at the end", false)
  .option("--folder <path>", "where the devnet lives; default: a temporary folder that is removed")
  .action(async (options: DemoOptions) => {
    await run(options);
  });
try {
  await program.parseAsync();
} catch (error) {
  const { message, next } = failureOf(error);
  process.stderr.write(`demo: ${message}${next === "" ? "" : ` (${next})`}\n`);
  process.exitCode = 1;
}
