// `npm run bench -- sign [--scheme frost|cggmp24|both] [--security security128|security112] [--quick] [--json]`: how long
// signing takes, from the coordinator's request at the nodes to a signature that it has verified. Five node processes
// and a chain process; this process plays the coordinator with a coordinator's own code, without its database. Votes
// are cast before the clock starts. "pool" takes what was made ahead, "no pool" makes it within the measured time.
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { create } from "@bufbuild/protobuf";
import { parse, stringify } from "smol-toml";
import { type PaymentProposal, PaymentProposalSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import type { LedgerStatement } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import { routeWitness, type WitnessHandlers } from "../../gen/router.js";
import { loadClientProfile } from "../../src/cli/client-profile.js";
import { loadConfiguration } from "../../src/cli/configuration-file.js";
import { paymentAuthority } from "../../src/cli/gateway-client.js";
import { assembleCertificate } from "../../src/consensus/approval-certificate.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";
import { coordinatorConfigurationSchema } from "../../src/coordinator/configuration.js";
import { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { Devnet } from "../../src/devnet/devnet.js";
import { devnetPaths, prepareDevnet } from "../../src/devnet/devnet-folder.js";
import type { Roster } from "../../src/network/identity/roster.js";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { processLog } from "../../src/node/log.js";
import { ProcessMetrics } from "../../src/node/metrics.js";
import { peerVerifier } from "../../src/node/peer-trust.js";
import { positionMemory } from "../../src/node/position-memory.js";
import { openChain, openMembership } from "../../src/node/start.js";
import { Account } from "../../src/wallet/account.js";
import type { PeerSigning, SigningOrder } from "../../src/wallet/peer-signing.js";
import { decodeProposedTransaction, type ProposedTransaction } from "../../src/wallet/proposed-transaction.js";
import { attemptSigning } from "../../src/wallet/signing-attempt.js";
import { buildTransaction, type OwnOutput } from "../../src/wallet/transaction-builder.js";
import { finalizeTransaction } from "../../src/wallet/transaction-finalizer.js";
import type { Scheme } from "../../src/wallet/wallet-application.js";

const { values } = parseArgs({
  options: {
    scheme: { type: "string", default: "both" },
    security: { type: "string", default: "security128" },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const schemes: readonly Scheme[] =
  values.scheme === "frost" || values.scheme === "cggmp24" ? [values.scheme] : ["frost", "cggmp24"];

interface Load {
  readonly concurrency: number;
  readonly payments: number;
}
/** Payments with nonces made in the session, and as many with nonces made ahead. */
const WARM_UP = values.quick ? 20 : 500;
interface Plan {
  readonly pool: readonly Load[];
  readonly noPool: readonly Load[];
  /** Payments of the scheme before it is measured. */
  readonly warm: number;
}
/**
 * The nodes, which in a firm have run for days, warm up with Taproot payments before either scheme is measured: a
 * presignature costs three CPU seconds at security128, which is why few of the warm-up payments are SegWit.
 */
const PLANS: Readonly<Record<Scheme, Plan>> = values.quick
  ? {
      frost: {
        pool: [
          { concurrency: 1, payments: 30 },
          { concurrency: 10, payments: 60 },
        ],
        noPool: [{ concurrency: 1, payments: 30 }],
        warm: 0,
      },
      cggmp24: {
        pool: [
          { concurrency: 1, payments: 10 },
          { concurrency: 10, payments: 10 },
        ],
        noPool: [{ concurrency: 1, payments: 2 }],
        warm: 2,
      },
    }
  : {
      frost: {
        pool: [
          { concurrency: 1, payments: 200 },
          { concurrency: 10, payments: 200 },
          { concurrency: 50, payments: 200 },
        ],
        noPool: [
          { concurrency: 1, payments: 200 },
          { concurrency: 10, payments: 200 },
          { concurrency: 50, payments: 200 },
        ],
        warm: 0,
      },
      cggmp24: {
        pool: [
          { concurrency: 1, payments: 200 },
          { concurrency: 10, payments: 60 },
          { concurrency: 50, payments: 50 },
        ],
        noPool: [{ concurrency: 1, payments: 5 }],
        warm: 50,
      },
    };

const RECIPIENT = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const SIGNERS = [1, 2, 3] as const;
const THRESHOLD = 3;
const VOTES_AT_ONCE = 8;
/** Certificates live for a minute, which a busy machine fills with a hundred votes. */
const VOTED_AT_ONCE = 50;
const BATCH = 10;
const COIN_SAT = 1_000_000n;
const PATIENCE_MS = 600_000;
const patience = (): AbortSignal => AbortSignal.timeout(PATIENCE_MS);

/** Clock ticks of a process in user and system mode; Linux counts 100 a second. */
async function cpuMs(pid: number | undefined): Promise<number> {
  if (pid === undefined) return 0;
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return 10 * (Number(fields[11] ?? 0) + Number(fields[12] ?? 0));
}

const quantile = (numbers: readonly number[], q: number): number => {
  const all = [...numbers].sort((a, b) => a - b);
  return all[Math.min(all.length - 1, Math.floor(q * all.length))] ?? Number.NaN;
};

/** As a coordinator holds it after the vote: it decoded its proposal to name it. */
type ApprovedOrder = Omit<SigningOrder, "presignatureIds"> & { readonly proposed: ProposedTransaction };

/** A wallet with one coin, whose payments are never broadcast. */
class BenchWallet {
  readonly #calls: PeerCalls;
  readonly #parties: readonly string[];
  readonly #authority: Awaited<ReturnType<typeof paymentAuthority>>;
  readonly #account: Account;
  readonly #coin: OwnOutput;
  readonly scheme: Scheme;

  private constructor(parts: {
    calls: PeerCalls;
    parties: readonly string[];
    authority: Awaited<ReturnType<typeof paymentAuthority>>;
    account: Account;
    coin: OwnOutput;
    scheme: Scheme;
  }) {
    this.#calls = parts.calls;
    this.#parties = parts.parties;
    this.#authority = parts.authority;
    this.#account = parts.account;
    this.#coin = parts.coin;
    this.scheme = parts.scheme;
  }

  static async create(
    scheme: Scheme,
    parts: {
      readonly calls: PeerCalls;
      readonly devnet: Devnet;
      readonly chain: Awaited<ReturnType<typeof openChain>>;
      readonly authority: Awaited<ReturnType<typeof paymentAuthority>>;
    },
  ): Promise<BenchWallet> {
    const { calls, devnet, chain, authority } = parts;
    const parties = devnet.plan.nodes;
    const walletId = `bench-${scheme}`;
    const [network, threshold] = ["regtest" as const, THRESHOLD];
    const sessionId = systemRandom.bytes(16);
    const order = { sessionId, walletId, name: walletId, scheme, threshold, parties, network };
    const [key] = await Promise.all(parties.map((nodeId) => calls.generate(nodeId, order, patience())));
    if (key === undefined) throw new Error("a wallet has parties");
    if (scheme === "cggmp24") {
      await Promise.all(parties.map((nodeId) => calls.prepareAuxInfo(nodeId, walletId, patience())));
      const auxOrder = { sessionId: systemRandom.bytes(16), walletId };
      await Promise.all(parties.map((nodeId) => calls.generateAuxInfo(nodeId, auxOrder, patience())));
    }
    const { groupKey, chainCode } = key;
    const account = new Account({ walletId, scheme, network, groupKey, chainCode });
    const path = { change: false, index: 0 };
    const { address, scriptPubKey } = account.derive(path);
    await devnet.faucet(address, COIN_SAT);
    const [found] = await chain.unspentOutputs(scriptPubKey);
    if (found === undefined) throw new Error("the faucet paid nothing");
    const { txid, vout, valueSat, confirmedHeight } = found;
    const coin = { txid, vout, valueSat, path, confirmedHeight };
    return new BenchWallet({ calls, parties, authority, account, coin, scheme });
  }

  #proposal(): PaymentProposal {
    const recipients = [{ address: RECIPIENT, amountSat: COIN_SAT / 2n }];
    const createdAtMs = BigInt(Date.now());
    const request = signPaymentRequest(
      {
        requestId: randomUUID(),
        walletId: this.#account.walletId,
        recipients,
        maxFeeRateSatPerKvb: 50_000n,
        metadataJson: "",
        createdAtMs,
        expiresAtMs: createdAtMs + 600_000n,
      },
      this.#authority,
    );
    const { psbt } = buildTransaction(
      {
        account: this.#account,
        recipients,
        mark: undefined,
        coins: [this.#coin],
        feeRateSatPerKvb: 2_000n,
        longTermFeeRateSatPerKvb: 10_000n,
        maxInputs: 1,
        changeIndex: 0,
        tipHeight: this.#coin.confirmedHeight,
      },
      systemRandom,
    );
    return create(PaymentProposalSchema, { request, psbt, policyVersion: 1n, expiresAtMs: createdAtMs + 58_000n });
  }

  /** Payments with the certificates of all nodes, which live for a minute. */
  async approved(count: number): Promise<ApprovedOrder[]> {
    const orders: ApprovedOrder[] = [];
    await inLanes(VOTES_AT_ONCE, count, async () => {
      const proposal = this.#proposal();
      const ballots = await Promise.all(this.#parties.map((nodeId) => this.#calls.vote(nodeId, proposal, patience())));
      const certificate = assembleCertificate(ballots, { signers: this.#signers, needed: THRESHOLD });
      const proposed = decodeProposedTransaction(proposal.psbt);
      if (proposed === undefined) throw new Error("an own proposal decodes");
      orders.push({ sessionId: systemRandom.bytes(16), proposal, certificate, signers: SIGNERS, proposed });
    });
    return orders;
  }

  /** Has so many presignatures made for the signing set. */
  async presign(count: number): Promise<Uint8Array[]> {
    const made: Uint8Array[] = [];
    while (made.length < count) {
      const order = {
        sessionId: systemRandom.bytes(16),
        walletId: this.#account.walletId,
        signers: SIGNERS,
        count: Math.min(BATCH, count - made.length),
      };
      const [ids = []] = await Promise.all(
        this.#signers.map((nodeId) => this.#calls.presign(nodeId, order, patience())),
      );
      made.push(...ids);
    }
    return made;
  }

  /**
   * What the coordinator does after a vote; resolves when the transaction is verified, with what resolves when the
   * slower signers have answered, too.
   */
  async sign(
    { proposed, ...order }: ApprovedOrder,
    presignatureIds: readonly Uint8Array[],
  ): Promise<{ readonly over: Promise<unknown> }> {
    const answers: Promise<unknown>[] = [];
    const sign: PeerSigning["sign"] = (...call) => {
      const answer = this.#calls.sign(...call);
      answers.push(answer);
      return answer;
    };
    const result = await attemptSigning(
      { ...order, presignatureIds },
      this.#signers,
      { timeoutMs: 30_000, graceMs: 500 },
      {
        signing: { sign },
        clock: systemClock,
        signal: new AbortController().signal,
        accept: ({ signatures }) => finalizeTransaction(proposed, signatures, [this.#account.derive(this.#coin.path)]),
      },
    );
    if (!result.signed) {
      for (const { nodeId, error } of result.failures) console.error(`${nodeId}:`, error);
      throw new Error("a payment was not signed");
    }
    return { over: Promise.allSettled(answers) };
  }

  get #signers(): readonly string[] {
    return SIGNERS.map((index) => this.#parties[index - 1] ?? "");
  }
}

/** Runs `count` tasks, so many at a time. */
async function inLanes(lanes: number, count: number, task: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) await task(index);
  };
  await Promise.all(Array.from({ length: Math.min(lanes, count) }, lane));
}

interface Row {
  readonly scheme: Scheme;
  readonly supply: "pool" | "no pool";
  readonly concurrency: number;
  readonly payments: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly perSecond: number;
  /** Of one signer, and of this process. */
  readonly cpuMsNode: number;
  readonly cpuMsCoordinator: number;
}

async function measure(wallet: BenchWallet, supply: Row["supply"], load: Load, devnet: Devnet): Promise<Row> {
  const { concurrency, payments } = load;
  // Before the votes: certificates do not wait for minutes.
  const pool = supply === "pool" ? await wallet.presign(payments) : [];
  const pids = SIGNERS.map((index) => devnet.pid(devnet.plan.nodes[index - 1] ?? ""));
  const nodesCpuMs = async () => (await Promise.all(pids.map(cpuMs))).reduce((sum, ms) => sum + ms, 0);
  const latencies: number[] = [];
  let [seconds, nodesMs, ownMs] = [0, 0, 0];
  for (let done = 0; done < payments; ) {
    const orders = await wallet.approved(Math.min(VOTED_AT_ONCE, payments - done));
    const [nodesBefore, ownBefore, startedMs] = [await nodesCpuMs(), process.cpuUsage(), performance.now()];
    await inLanes(concurrency, orders.length, async (index) => {
      const order = orders[index];
      if (order === undefined) throw new Error("one order a payment");
      const beforeMs = performance.now();
      const made = supply === "pool" ? pool.splice(0, 1) : [];
      const ids = supply === "no pool" && wallet.scheme === "cggmp24" ? await wallet.presign(1) : made;
      const { over } = await wallet.sign(order, ids);
      latencies.push(performance.now() - beforeMs);
      // One payment at a time is one at all signers.
      if (concurrency === 1) await over;
    });
    seconds += (performance.now() - startedMs) / 1_000;
    const own = process.cpuUsage(ownBefore);
    ownMs += (own.user + own.system) / 1_000;
    // The slower signers are not waited for, but they finish.
    await new Promise((resolve) => setTimeout(resolve, 100));
    nodesMs += (await nodesCpuMs()) - nodesBefore;
    done += orders.length;
  }
  return {
    scheme: wallet.scheme,
    supply,
    concurrency,
    payments,
    p50Ms: quantile(latencies, 0.5),
    p99Ms: quantile(latencies, 0.99),
    perSecond: payments / seconds,
    cpuMsNode: nodesMs / pids.length / payments,
    cpuMsCoordinator: ownMs / payments,
  };
}

/** A coordinator's part in remembering where ledgers stand. */
function ledgerMemory(roster: Roster): WitnessHandlers {
  const statements = new Map<string, LedgerStatement>();
  const load = async (node: string): Promise<LedgerStatement | undefined> => statements.get(node);
  return positionMemory({
    roster,
    store: { load, recall: load, save: async (statement) => void statements.set(statement.nodeId, statement) },
    onBurn: async (node, { items, reason }) => console.error(`${node} burned ${items}: ${reason}`),
    report: (error) => console.error(error),
  });
}

const folder = await mkdtemp(join(tmpdir(), "mpc-wallet-bench-"));
const say = (line: string): void => void (values.json || console.error(line));
const { nodes } = await prepareDevnet({ folder, nodes: 5 });
const paths = devnetPaths(folder);
for (const nodeId of nodes) {
  const file = paths.nodeConfig(nodeId);
  const configuration = parse(await readFile(file, "utf8")) as { protocols: Record<string, Record<string, unknown>> };
  const { cggmp24 } = configuration.protocols;
  // A late share is a figure of the bench, not a reason to ask other signers.
  configuration.protocols = {
    cggmp24: { ...cggmp24, security: values.security },
    frost: { roundTimeoutMs: 25_000, sessionTimeoutMs: 60_000 },
  };
  await writeFile(file, stringify(configuration));
}
const devnet = await Devnet.start({
  folder,
  nodes: 5,
  coordinator: false,
  progress: say,
  onCrash: (name, why) => console.error(`${name}: ${why}`),
});
let mesh: PeerMesh | undefined;
try {
  const configuration = await loadConfiguration(paths.coordinatorConfig, coordinatorConfigurationSchema);
  const log = processLog({ name: "bench", level: "warn" });
  const { id: nodeId, dataFolder } = configuration.coordinator;
  const member = { nodeId, dataFolder, log, metrics: new ProcessMetrics() };
  const { identity, roster, credentials, trust, limits } = await openMembership(configuration, member);
  mesh = await PeerMesh.start(
    {
      nodeId: identity.nodeId,
      listen: { host: "127.0.0.1", port: configuration.network.listenPort },
      peers: roster.nodes.map(({ nodeId, host, port }) => ({ nodeId, host, port, dial: "us" as const })),
      credentials,
      limits,
    },
    {
      clock: systemClock,
      random: systemRandom,
      verifier: peerVerifier(trust, log),
      router: (router) => void routeWitness(router, ledgerMemory(roster)),
      log: () => {},
    },
  );
  await mesh.ready([...devnet.plan.nodes], 30_000);
  const parts = {
    calls: new PeerCalls(mesh),
    devnet,
    chain: await openChain(configuration.bitcoin, process.env),
    authority: await paymentAuthority(await loadClientProfile(paths.clientConfig, { environment: process.env })),
  };
  const rows: Row[] = [];
  say("creating a frost wallet");
  const taproot = await BenchWallet.create("frost", parts);
  say(`warming up with ${2 * WARM_UP} payments`);
  for (const supply of ["no pool", "pool"] as const) {
    await measure(taproot, supply, { concurrency: 1, payments: WARM_UP }, devnet);
  }
  for (const scheme of schemes) {
    if (scheme === "cggmp24") say("creating a cggmp24 wallet");
    const wallet = scheme === "frost" ? taproot : await BenchWallet.create(scheme, parts);
    const { pool, noPool, warm } = PLANS[scheme];
    if (warm > 0) await measure(wallet, "pool", { concurrency: 1, payments: warm }, devnet);
    const runs = [
      ...pool.map((load) => ({ load, supply: "pool" as const })),
      ...noPool.map((load) => ({ load, supply: "no pool" as const })),
    ];
    for (const { load, supply } of runs) {
      say(`${scheme}, ${supply}: ${load.payments} payments, ${load.concurrency} at once`);
      rows.push(await measure(wallet, supply, load, devnet));
    }
  }
  const machine = { cpus: cpus().length, node: process.version, security: values.security };
  if (values.json) console.log(JSON.stringify({ machine, rows }));
  else {
    console.log(`\n${machine.cpus} cores, Node ${machine.node}, five node processes, 3 of 5, ${machine.security}`);
    console.log("scheme   supply   at once  payments  p50 ms  p99 ms  signed/s  CPU ms: a signer  coordinator");
    for (const row of rows) {
      const cells = [row.p50Ms, row.p99Ms, row.perSecond].map((value) => value.toFixed(1).padStart(7)).join(" ");
      console.log(
        `${row.scheme.padEnd(8)} ${row.supply.padEnd(8)} ${String(row.concurrency).padStart(7)} ${String(row.payments).padStart(9)} ${cells}  ${row.cpuMsNode.toFixed(1).padStart(16)} ${row.cpuMsCoordinator.toFixed(1).padStart(12)}`,
      );
    }
  }
} finally {
  await mesh?.close();
  await devnet.stop();
  await rm(folder, { recursive: true, force: true });
}
