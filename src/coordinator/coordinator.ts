import { createHash } from "node:crypto";
import { routePki, routeWitness } from "../../gen/router.js";
import type { Observation } from "../consensus/byzantine-detector.js";
import type { PaymentPolicy } from "../consensus/policy.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { verifyEd25519 } from "../crypto/ed25519.js";
import { InvalidInput } from "../crypto/fault.js";
import { type Gateway, type GatewayOptions, type ServerCertificate, startGateway } from "../gateway/gateway-server.js";
import type { MessageIdentity } from "../network/identity/message-identity.js";
import type { RenewalAuthority } from "../network/identity/renewal-authority.js";
import type { Roster } from "../network/identity/roster.js";
import type { TrustFiles } from "../network/identity/trust-files.js";
import type { NetworkLimits } from "../network/network-limits.js";
import { PeerMesh } from "../network/peer-mesh.js";
import type { TransportCredentials } from "../network/quic-endpoint.js";
import { CertificateLife, type OwnCertificate } from "../node/certificate-life.js";
import { type Logger, networkLog } from "../node/log.js";
import type { ProcessMetrics } from "../node/metrics.js";
import { peerVerifier } from "../node/peer-trust.js";
import type { AuditTrail } from "../wallet/audit-trail.js";
import type { ChainSource } from "../wallet/chain-source.js";
import type { Coordination, Lease } from "../wallet/coordination.js";
import { DEFAULT_CEREMONY } from "../wallet/payment-ceremony.js";
import type { PaymentStore } from "../wallet/payment-store.js";
import { PresignaturePool, type PresignaturePoolOptions } from "../wallet/presignature-pool.js";
import type { NetworkName, WalletApplication } from "../wallet/wallet-application.js";
import { WalletRegistry } from "../wallet/wallet-registry.js";
import { DEFAULT_SERVICE, WalletService } from "../wallet/wallet-service.js";
import { ByzantineWatch, type ViolationRecords } from "./byzantine-watch.js";
import { ChangeCalls } from "./change-calls.js";
import { judgeSigning } from "./evidence-judge.js";
import { GatewayCertificate } from "./gateway-certificate.js";
import { JudgedKeyGeneration } from "./judged-key-generation.js";
import { ledgerDesk } from "./ledger-desk.js";
import { PeerCalls } from "./peer-calls.js";
import { CoordinationRevocations } from "./shared-revocations.js";
import { StoredBans } from "./stored-bans.js";

export interface CoordinatorOptions {
  readonly identity: MessageIdentity;
  readonly listen: { readonly host: string; readonly port: number };
  readonly roster: Roster;
  readonly network: NetworkName;
  readonly credentials: TransportCredentials;
  /** Where those credentials lie; without it they are not renewed by this process. */
  readonly ownCertificate?: OwnCertificate;
  /** The intermediate; without it this coordinator renews nobody's certificate. */
  readonly authority?: RenewalAuthority;
  readonly trust: TrustFiles;
  /** How often the revocation lists, and the gateway's certificate, are read again. */
  readonly trustReloadIntervalMs: number;
  /** What the coordinator builds within; nodes have their own and do not ask for this one. */
  readonly policy: PaymentPolicy;
  readonly authorities: ReadonlyMap<string, Uint8Array>;
  readonly gateway: GatewayOptions;
  /** Reads the gateway's certificate again; without it the gateway shows the first one for ever. */
  readonly gatewayCertificate?: () => Promise<ServerCertificate>;
  readonly electionTtlMs: number;
  readonly confirmationPollMs: number;
  /** Age up to which a remembered list of coins will do. */
  readonly utxoMaxAgeMs: number;
  readonly voteTimeoutMs: number;
  /** At the end: how long the gateway still takes calls while it says that it is not ready, and how long calls may go on. */
  readonly drain: { readonly lameDuckMs: number; readonly graceMs: number };
  readonly maxRequestWindowMs: number;
  readonly clockSkewMs: number;
  /** Presignatures of SegWit wallets, nonces of Taproot wallets. */
  readonly pool: Omit<PresignaturePoolOptions, "lockTtlMs" | "callTimeoutMs">;
  readonly limits?: Partial<NetworkLimits>;
}

export interface CoordinatorDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly chain: ChainSource;
  readonly audit: AuditTrail;
  readonly coordination: Coordination;
  readonly violations: ViolationRecords;
  /** Opens the payments' store; its writes are fenced by the lease that this coordinator leads under. */
  readonly payments: (lease: () => Lease | undefined) => PaymentStore;
  readonly metrics?: ProcessMetrics;
}

const ELECTION = "coordinator";
const PROBE_TIMEOUT_MS = 1_500;
const POOL_CALL_TIMEOUT_MS = 2_000;

/** A coordinator under way: it leads payments when it is elected, and serves clients. It holds no share of any key. */
export class Coordinator {
  readonly nodeId: string;
  readonly #mesh: PeerMesh;
  readonly #certificates: CertificateLife;
  readonly #gateway: Gateway;
  readonly #gatewayCertificate: GatewayCertificate | undefined;
  readonly #service: WalletService;
  readonly #presignatures: PresignaturePool;
  readonly #watch: ByzantineWatch;
  readonly #dependencies: CoordinatorDependencies;
  readonly #stop: AbortController;
  readonly #drain: CoordinatorOptions["drain"];

  private constructor(
    nodeId: string,
    parts: {
      mesh: PeerMesh;
      certificates: CertificateLife;
      gateway: Gateway;
      gatewayCertificate: GatewayCertificate | undefined;
      service: WalletService;
      presignatures: PresignaturePool;
      watch: ByzantineWatch;
      stop: AbortController;
      drain: CoordinatorOptions["drain"];
    },
    dependencies: CoordinatorDependencies,
  ) {
    this.nodeId = nodeId;
    this.#mesh = parts.mesh;
    this.#certificates = parts.certificates;
    this.#gateway = parts.gateway;
    this.#gatewayCertificate = parts.gatewayCertificate;
    this.#service = parts.service;
    this.#presignatures = parts.presignatures;
    this.#watch = parts.watch;
    this.#stop = parts.stop;
    this.#drain = parts.drain;
    this.#dependencies = dependencies;
  }

  /** What the gateway offers to clients, for callers in the same process. */
  get application(): WalletApplication {
    return this.#service;
  }

  /** TCP port of the gateway. */
  get gatewayPort(): number {
    return this.#gateway.port;
  }

  /** Paths of all calls that peers may make. */
  get peerCalls(): readonly string[] {
    return this.#mesh.calls;
  }

  /** Resolves when the nodes named are connected. @throws Unavailable `peers-not-ready` */
  async ready(nodeIds: readonly string[], timeoutMs: number): Promise<void> {
    await this.#mesh.ready(nodeIds, timeoutMs);
  }

  static async start(options: CoordinatorOptions, dependencies: CoordinatorDependencies): Promise<Coordinator> {
    const { identity, roster } = options;
    const { nodeId } = identity;
    const { clock, random, log, chain, audit, coordination } = dependencies;
    if (roster.get(nodeId)?.role !== "coordinator") {
      throw new InvalidInput("not-in-roster", `${nodeId} is no coordinator of the roster`, { nodeId });
    }
    const { metrics } = dependencies;
    const certificates = new CertificateLife(
      {
        nodeId,
        roster,
        trust: options.trust,
        trustReloadIntervalMs: options.trustReloadIntervalMs,
        own: options.ownCertificate,
        authority: options.authority,
      },
      {
        clock,
        random,
        log,
        shared: new CoordinationRevocations(coordination),
        countRenewal: (outcome) => metrics?.countRenewal(outcome),
      },
    );
    let pools: PresignaturePool | undefined;
    const desk = ledgerDesk(nodeId, { roster, coordination, audit, log, onBurn: () => pools?.wake() });
    const mesh = await PeerMesh.start(
      {
        nodeId,
        listen: options.listen,
        // Coordinators dial nodes; among coordinators, who renew each other's certificates, the lower id dials.
        peers: roster.peers
          .filter((peer) => peer.nodeId !== nodeId)
          .map(({ nodeId: id, host, port, role }) => ({
            nodeId: id,
            host,
            port,
            ...(role === "node" ? { dial: "us" as const } : {}),
          })),
        credentials: options.credentials,
        ...(options.limits === undefined ? {} : { limits: options.limits }),
      },
      {
        clock,
        random,
        verifier: peerVerifier(options.trust, log),
        router: (router) => void routeWitness(routePki(router, certificates.handlers), desk),
        log: networkLog(log),
        onPeer: (peer) => certificates.meet(peer),
      },
    );
    const calls = new PeerCalls(mesh);
    const stop = new AbortController();
    const leadership: { lease: Lease | undefined } = { lease: undefined };
    const keys = new Map(roster.nodes.map((node) => [node.nodeId, node.identityKey]));
    const registry = new WalletRegistry({ coordination });
    const presignatures = new PresignaturePool(
      { ...options.pool, lockTtlMs: DEFAULT_CEREMONY.lockTtlMs, callTimeoutMs: POOL_CALL_TIMEOUT_MS },
      {
        presigning: calls,
        coordination,
        clock,
        random,
        wallets: () => registry.list(),
        leads: () => leadership.lease?.held === true,
        onError: (error, facts) => log.warn({ event: "presigning-failed", err: error, ...facts }),
      },
    );
    pools = presignatures;
    const watch = new ByzantineWatch(keys, {
      bans: new StoredBans(coordination),
      audit,
      violations: dependencies.violations,
      clock,
      verify: verifyEd25519,
      log,
      digest: (bytes) => new Uint8Array(createHash("sha256").update(bytes).digest()),
    });
    const observe = (observation: Observation): void => watch.observe(observation);
    const service = new WalletService(
      {
        ...DEFAULT_SERVICE,
        network: options.network,
        authorities: options.authorities,
        maxRequestWindowMs: options.maxRequestWindowMs,
        clockSkewMs: options.clockSkewMs,
        utxoMaxAgeMs: options.utxoMaxAgeMs,
        ceremony: {
          ...DEFAULT_CEREMONY,
          voteTimeoutMs: options.voteTimeoutMs,
        },
        confirmationPollMs: options.confirmationPollMs,
      },
      {
        voting: calls,
        signing: calls,
        keyGeneration: new JudgedKeyGeneration({ nodes: calls, roster: () => keys, observe }),
        presigning: calls,
        presignatures,
        shareChanges: new ChangeCalls(mesh),
        onWallet: () => presignatures.wake(),
        onSwitched: (walletId) => {
          presignatures.forget(walletId);
          presignatures.wake();
        },
        chain,
        audit,
        coordination,
        store: dependencies.payments(() => leadership.lease),
        clock,
        random,
        verify: verifyEd25519,
        policy: () => options.policy,
        banned: () => watch.banned,
        judge: judgeSigning,
        observe,
        pools: presignatures,
        probes: [
          { name: "chain", probe: async () => `height ${await chain.tipHeight()}` },
          ...roster.nodes.map((node) => ({
            name: `node:${node.nodeId}`,
            probe: async () => {
              await calls.ping(node.nodeId, PROBE_TIMEOUT_MS);
              return "answers";
            },
          })),
        ],
        roster: () => keys,
        leader: () => (leadership.lease?.held === true ? nodeId : ""),
        onError: (error, paymentId) => log.error({ err: error, paymentId }, "a payment failed inside the coordinator"),
      },
    );
    const gateway = await startGateway(options.gateway, {
      application: service,
      clock,
      random,
      log,
      ...(metrics === undefined ? {} : { metrics: () => metrics.exposition() }),
    });
    const read = options.gatewayCertificate;
    const gatewayCertificate =
      read &&
      new GatewayCertificate(
        { intervalMs: options.trustReloadIntervalMs, shown: options.gateway.tls },
        { clock, log, read, gateway },
      );
    gatewayCertificate?.start();
    const coordinator = new Coordinator(
      nodeId,
      { mesh, certificates, gateway, gatewayCertificate, service, presignatures, watch, stop, drain: options.drain },
      dependencies,
    );
    void coordinator.#lead(leadership, options.electionTtlMs);
    certificates.start(mesh);
    metrics?.follow({ links: () => mesh.status(), certificates, trust: options.trust, clock });
    log.info({ event: "coordinator-started", nodeId, gatewayPort: gateway.port }, "coordinator is up");
    return coordinator;
  }

  /** Leads whenever it is elected; a new leader goes on with what the one before left unfinished. */
  async #lead(leadership: { lease: Lease | undefined }, ttlMs: number): Promise<void> {
    const { coordination, log } = this.#dependencies;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        const lease = await coordination.campaign(ELECTION, this.nodeId, { ttlMs, signal });
        leadership.lease = lease;
        await this.#watch.load();
        const resumed = await this.#service.resume();
        this.#presignatures.wake();
        log.info({ event: "leading", fencing: lease.fencing.toString(), resumed }, "this coordinator leads");
        await ended(AbortSignal.any([lease.lost, signal]));
        if (signal.aborted) await lease.release();
      } catch (error) {
        if (signal.aborted) return;
        log.warn({ err: error }, "leadership failed; trying again");
        await new Promise<void>((resolve) => void this.#dependencies.clock.after(1_000, resolve));
      } finally {
        leadership.lease = undefined;
      }
    }
  }

  /** Stops taking calls, lets payments go for the next leader, closes peers. Stores are closed by whoever opened them. */
  async close(): Promise<void> {
    await this.#gatewayCertificate?.stop();
    await this.#gateway.drain(this.#drain);
    this.#stop.abort();
    await this.#service.close();
    await this.#presignatures.close();
    await this.#certificates.stop();
    await this.#mesh.close();
  }
}

function ended(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
