import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { WitnessService } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import { routePeer, routePki, routeWitness } from "../../gen/router.js";
import type { PaymentPolicy } from "../consensus/policy.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { verifyEd25519 } from "../crypto/ed25519.js";
import { Bug, InvalidInput } from "../crypto/fault.js";
import type { SecurityProfile } from "../crypto/security-profile.js";
import type { MessageIdentity } from "../network/identity/message-identity.js";
import type { Roster } from "../network/identity/roster.js";
import type { TrustFiles } from "../network/identity/trust-files.js";
import type { NetworkLimits } from "../network/network-limits.js";
import { PeerMesh } from "../network/peer-mesh.js";
import type { TransportCredentials } from "../network/quic-endpoint.js";
import type { TrafficClass } from "../network/traffic-class.js";
import type { KeyStore } from "../storage/key-store.js";
import type { LevelVoteStore } from "../storage/level-vote-store.js";
import type { LevelWitnessStore } from "../storage/level-witness-store.js";
import type { OneUseLedger } from "../storage/one-use-ledger.js";
import type { ChainSource } from "../wallet/chain-source.js";
import { PaymentGuard } from "../wallet/payment-guard.js";
import type { NetworkName } from "../wallet/wallet-application.js";
import { AuxInfoBoard } from "./aux-info-progress.js";
import { BanRegister } from "./ban-register.js";
import { CertificateLife, type OwnCertificate } from "./certificate-life.js";
import { LedgerWitness } from "./ledger-witness.js";
import { type Logger, networkLog } from "./log.js";
import type { ProcessMetrics } from "./metrics.js";
import { nodeHandlers } from "./node-handlers.js";
import { peerVerifier } from "./peer-trust.js";
import { positionMemory } from "./position-memory.js";
import type { PrimeSource } from "./prime-pool.js";
import { SessionExchange } from "./session-exchange.js";
import type { SessionJob } from "./session-job.js";
import type { SessionRunner } from "./session-pool.js";
import { ShareChanges } from "./share-changes.js";
import { WalletShares } from "./wallet-shares.js";

export interface NodeOptions {
  readonly identity: MessageIdentity;
  readonly listen: { readonly host: string; readonly port: number };
  readonly roster: Roster;
  readonly network: NetworkName;
  readonly credentials: TransportCredentials;
  /** Where those credentials lie; without it they are not renewed by this process. */
  readonly ownCertificate?: OwnCertificate;
  readonly trust: TrustFiles;
  /** How often the revocation lists are read again. */
  readonly trustReloadIntervalMs: number;
  readonly policy: PaymentPolicy;
  /** Payment authorities by name: Ed25519 public keys, 32 bytes. */
  readonly authorities: ReadonlyMap<string, Uint8Array>;
  readonly version: string;
  readonly security: SecurityProfile["name"];
  /** Presignatures and nonces older than this are put out of use. */
  readonly presignatureLifetimeMs: number;
  /** How long a started node waits for peers to say that its ledger is the newest, before it burns its pool. */
  readonly ledgerConfirmationMs: number;
  /** How long a signer waits for the others to say that they have used up their parts. */
  readonly takePatienceMs: number;
  /** Longest time between a payment request's creation and its expiry. */
  readonly maxRequestWindowMs: number;
  /** How far a client's clock may run ahead. */
  readonly clockSkewMs: number;
  readonly limits?: Partial<NetworkLimits>;
}

export interface NodeDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly store: KeyStore;
  readonly votes: LevelVoteStore;
  readonly ledger: OneUseLedger;
  /** What peers said of their ledgers. */
  readonly witnesses: LevelWitnessStore;
  readonly primes: PrimeSource;
  /** Runs protocol sessions with this node's identity; closed with the node. */
  readonly sessions: SessionRunner;
  readonly chain: ChainSource;
  readonly metrics?: ProcessMetrics;
}

/** Change addresses beyond the highest approved one that a scan still finds. */
const CHANGE_GAP = 20;
const PRUNE_INTERVAL_MS = 60_000;
/** A signer that has not noted a take by then is silent. */
const WITNESS_TIMEOUT_MS = 2_000;

/** An MPC node under way: it holds shares, checks payments and takes part in sessions. */
export class MpcNode {
  readonly nodeId: string;
  readonly #mesh: PeerMesh;
  readonly #dependencies: NodeDependencies;
  readonly #witness: LedgerWitness;
  readonly #stopChores: () => Promise<void>;

  private constructor(
    nodeId: string,
    parts: { mesh: PeerMesh; witness: LedgerWitness; stopChores: () => Promise<void> },
    dependencies: NodeDependencies,
  ) {
    this.nodeId = nodeId;
    this.#stopChores = parts.stopChores;
    this.#mesh = parts.mesh;
    this.#witness = parts.witness;
    this.#dependencies = dependencies;
  }

  /** Paths of all calls that peers may make. */
  get peerCalls(): readonly string[] {
    return this.#mesh.calls;
  }

  get port(): number {
    return this.#mesh.port;
  }

  /** @throws InvalidInput when the options do not fit each other; Unavailable when the port cannot be bound */
  static async start(options: NodeOptions, dependencies: NodeDependencies): Promise<MpcNode> {
    const { identity, roster } = options;
    const { nodeId } = identity;
    const { clock, random, log, store } = dependencies;
    checkMembership(options, store);
    let mesh: PeerMesh | undefined;
    const connected = (): PeerMesh => {
      if (mesh === undefined) throw new Bug("a session begins before the mesh");
      return mesh;
    };
    const exchange = new SessionExchange(
      {
        patienceMs: 5_000,
        maxWaiting: 1_024,
        linkCapacity: 256,
        rememberedSessions: 100_000,
        takePatienceMs: options.takePatienceMs,
      },
      {
        pool: dependencies.sessions,
        clock,
        open: ({ peer, kind }, requests, signal) =>
          createClient(SessionService, connected().transport(peer, CLASSES[kind])).exchange(requests, { signal }),
      },
    );
    const shares = new WalletShares({ store, roster, network: options.network });
    const keys = new Map(roster.nodes.map((node) => [node.nodeId, node.identityKey]));
    const bans = await BanRegister.open(keys, { store: dependencies.votes, clock, log });
    const guard = new PaymentGuard(
      {
        nodeId,
        authorities: options.authorities,
        maxRequestWindowMs: options.maxRequestWindowMs,
        clockSkewMs: options.clockSkewMs,
        changeGap: CHANGE_GAP,
      },
      {
        wallet: (walletId) => shares.guarded(walletId),
        policy: () => options.policy,
        banned: () => bans.banned,
        chain: dependencies.chain,
        votes: dependencies.votes,
        sign: (message) => identity.sign(message),
        verify: verifyEd25519,
        clock,
      },
    );
    const witness = new LedgerWitness(
      {
        nodeId,
        identityKey: identity.publicKey,
        members: roster.peers,
        confirmationMs: options.ledgerConfirmationMs,
        answerTimeoutMs: WITNESS_TIMEOUT_MS,
      },
      {
        ledger: dependencies.ledger,
        calls: {
          announce: async (member, announcement, signal) => {
            const client = createClient(WitnessService, connected().transport(member, "signing"));
            return (await client.announce(announcement, { signal })).furthest;
          },
          recall: async (member, signal) => {
            const client = createClient(WitnessService, connected().transport(member));
            try {
              return (await client.recall({}, { signal })).furthest;
            } catch (error) {
              // A coordinator without memory knows nothing; a node without one must not pass for a witness.
              if (roster.get(member)?.role !== "coordinator" || !isUnimplemented(error)) throw error;
              return undefined;
            }
          },
        },
        sign: (message) => identity.sign(message),
        wallet: (walletId) => store.wallet(walletId),
        clock,
        log,
      },
    );
    const memory = positionMemory({
      roster,
      store: dependencies.witnesses,
      onBurn: async (peer, { items, reason }) => log.warn({ event: "peer-pool-burned", peer, items, reason }),
      report: (error) => log.error({ error }, "a handler failed"),
    });
    const { maxRequestWindowMs: maxWindowMs, authorities, clockSkewMs, security } = options;
    const changes = new ShareChanges(
      { nodeId, rules: { authorities, maxWindowMs, clockSkewMs }, security, changeGap: CHANGE_GAP },
      {
        ...dependencies,
        shares,
        roster: keys,
        exchange,
        bans,
        sign: (message) => identity.sign(message),
        verify: verifyEd25519,
      },
    );
    await changes.recover();
    const handlers = nodeHandlers({
      nodeId,
      version: options.version,
      network: options.network,
      roster,
      shares,
      guard,
      changes,
      exchange,
      security: options.security,
      ledger: dependencies.ledger,
      witness,
      primes: dependencies.primes,
      auxInfoBoard: new AuxInfoBoard(),
      links: () => mesh?.status() ?? [],
      bans,
      clock,
      log,
    });
    const { metrics } = dependencies;
    const certificates = new CertificateLife(
      {
        nodeId,
        roster,
        trust: options.trust,
        trustReloadIntervalMs: options.trustReloadIntervalMs,
        own: options.ownCertificate,
        authority: undefined,
      },
      { clock, random, log, countRenewal: (outcome) => metrics?.countRenewal(outcome) },
    );
    mesh = await PeerMesh.start(
      {
        nodeId,
        listen: options.listen,
        peers: roster.peers
          .filter((peer) => peer.nodeId !== nodeId)
          // Coordinators dial nodes; among nodes the lower id dials.
          .map(({ host, port, role, nodeId: id }) => ({
            nodeId: id,
            host,
            port,
            ...(role === "coordinator" ? { dial: "them" as const } : {}),
          })),
        credentials: options.credentials,
        ...(options.limits === undefined ? {} : { limits: options.limits }),
      },
      {
        clock,
        random,
        verifier: peerVerifier(options.trust, log),
        router: (router) => void routeWitness(routePki(routePeer(router, handlers), certificates.handlers), memory),
        log: networkLog(log),
        onPeer: (peer) => certificates.meet(peer),
      },
    );
    log.info({ event: "node-started", nodeId, port: mesh.port, wallets: shares.ids().length }, "node is up");
    const { votes, ledger } = dependencies;
    if (ledger.damage !== undefined)
      log.error({ event: "ledger-damaged", ...ledger.damage }, "presignatures were burned");
    witness.start();
    const stopPruning = repeat(clock, PRUNE_INTERVAL_MS, async () => {
      await votes.prune(clock.nowMs());
      await ledger.prune(options.presignatureLifetimeMs).catch((error: unknown) => log.warn({ err: error }));
    });
    certificates.start(mesh);
    metrics?.follow({ links: () => mesh?.status() ?? [], certificates, trust: options.trust, clock });
    const stopChores = async (): Promise<void> => {
      stopPruning();
      await certificates.stop();
    };
    return new MpcNode(nodeId, { mesh, witness, stopChores }, dependencies);
  }

  /** Lets running calls finish, then closes peers, threads and stores. */
  async close(): Promise<void> {
    await this.#stopChores();
    await this.#mesh.close();
    await this.#dependencies.metrics?.close();
    await this.#witness.close();
    await this.#dependencies.sessions.close();
    await this.#dependencies.primes.close();
    await this.#dependencies.ledger.close();
    await this.#dependencies.votes.close();
    await this.#dependencies.witnesses.close();
    await this.#dependencies.store.close();
  }
}

const CLASSES: Readonly<Record<SessionJob["kind"], TrafficClass>> = {
  keygen: "dkg",
  "aux-info": "dkg",
  refresh: "dkg",
  reshare: "dkg",
  presign: "presign",
  "frost-nonces": "presign",
  "frost-sign": "signing",
  "cggmp24-sign": "signing",
};

const isUnimplemented = (error: unknown): boolean => ConnectError.from(error).code === Code.Unimplemented;

function checkMembership({ identity, roster }: NodeOptions, store: KeyStore): void {
  const { nodeId } = identity;
  const own = roster.get(nodeId);
  if (own === undefined || own.role !== "node") {
    throw new InvalidInput("not-in-roster", `${nodeId} is no node of the roster`, { nodeId });
  }
  if (Buffer.compare(own.identityKey, identity.publicKey) !== 0) {
    throw new InvalidInput("identity-key", `the roster has another identity key for ${nodeId}`, { nodeId });
  }
  if (store.nodeId !== nodeId) {
    throw new InvalidInput("state-of-other-node", `the state belongs to ${store.nodeId}`, { nodeId: store.nodeId });
  }
}

function repeat(clock: Clock, intervalMs: number, task: () => Promise<void>): () => void {
  let cancel = (): void => {};
  const schedule = (): void => {
    cancel = clock.after(intervalMs, () => void task().finally(schedule));
  };
  schedule();
  return () => cancel();
}
