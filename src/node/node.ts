import { createClient } from "@connectrpc/connect";
import { SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { routePeer } from "../../gen/router.js";
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
import type { OneUseLedger } from "../storage/one-use-ledger.js";
import type { ChainSource } from "../wallet/chain-source.js";
import { PaymentGuard } from "../wallet/payment-guard.js";
import type { NetworkName } from "../wallet/wallet-application.js";
import { BanRegister } from "./ban-register.js";
import { type Logger, networkLog } from "./log.js";
import { nodeHandlers } from "./node-handlers.js";
import { followRevocations, peerVerifier } from "./peer-trust.js";
import type { PrimeSource } from "./prime-pool.js";
import { SessionExchange } from "./session-exchange.js";
import type { SessionJob } from "./session-job.js";
import type { SessionRunner } from "./session-pool.js";
import { WalletShares } from "./wallet-shares.js";

export interface NodeOptions {
  readonly identity: MessageIdentity;
  readonly listen: { readonly host: string; readonly port: number };
  readonly roster: Roster;
  readonly network: NetworkName;
  readonly credentials: TransportCredentials;
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
  readonly primes: PrimeSource;
  /** Runs protocol sessions with this node's identity; closed with the node. */
  readonly sessions: SessionRunner;
  readonly chain: ChainSource;
}

/** Change addresses beyond the highest approved one that a scan still finds. */
const CHANGE_GAP = 20;
const PRUNE_INTERVAL_MS = 60_000;

/** An MPC node under way: it holds shares, checks payments and takes part in sessions. */
export class MpcNode {
  readonly nodeId: string;
  readonly #mesh: PeerMesh;
  readonly #dependencies: NodeDependencies;
  readonly #stopChores: () => void;

  private constructor(
    nodeId: string,
    parts: { mesh: PeerMesh; stopChores: () => void },
    dependencies: NodeDependencies,
  ) {
    this.nodeId = nodeId;
    this.#stopChores = parts.stopChores;
    this.#mesh = parts.mesh;
    this.#dependencies = dependencies;
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
      { patienceMs: 5_000, maxWaiting: 1_024, linkCapacity: 256, rememberedSessions: 100_000 },
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
    const handlers = nodeHandlers({
      nodeId,
      version: options.version,
      network: options.network,
      roster,
      shares,
      guard,
      exchange,
      security: options.security,
      ledger: dependencies.ledger,
      primes: dependencies.primes,
      links: () => mesh?.status() ?? [],
      bans,
      clock,
      log,
    });
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
        router: (router) => void routePeer(router, handlers),
        log: networkLog(log),
      },
    );
    log.info({ event: "node-started", nodeId, port: mesh.port, wallets: shares.ids().length }, "node is up");
    const { votes, ledger } = dependencies;
    if (ledger.damage !== undefined)
      log.error({ event: "ledger-damaged", ...ledger.damage }, "presignatures were burned");
    const stopPruning = repeat(clock, PRUNE_INTERVAL_MS, async () => {
      await votes.prune(clock.nowMs());
      await ledger.prune(options.presignatureLifetimeMs).catch((error: unknown) => log.warn({ err: error }));
    });
    const stopFollowing = followRevocations(options.trust, {
      intervalMs: options.trustReloadIntervalMs,
      clock,
      log,
      reverifyPeers: () => mesh?.reverifyPeers(),
    });
    const stopChores = (): void => {
      stopPruning();
      stopFollowing();
    };
    return new MpcNode(nodeId, { mesh, stopChores }, dependencies);
  }

  /** Lets running calls finish, then closes peers, threads and stores. */
  async close(): Promise<void> {
    this.#stopChores();
    await this.#mesh.close();
    await this.#dependencies.sessions.close();
    await this.#dependencies.primes.close();
    await this.#dependencies.ledger.close();
    await this.#dependencies.votes.close();
    await this.#dependencies.store.close();
  }
}

const CLASSES: Readonly<Record<SessionJob["kind"], TrafficClass>> = {
  keygen: "dkg",
  "aux-info": "dkg",
  presign: "presign",
  "frost-nonces": "presign",
  "frost-sign": "signing",
  "cggmp24-sign": "signing",
};

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
