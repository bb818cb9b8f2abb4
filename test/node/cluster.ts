import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEFAULT_POLICY, type PaymentPolicy } from "../../src/consensus/policy.js";
import { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { ed25519PublicKey } from "../../src/crypto/ed25519.js";
import { security112 } from "../../src/crypto/security-profile.js";
import { createDevelopmentPki, type DevelopmentNode } from "../../src/network/identity/development-pki.js";
import { MessageIdentity } from "../../src/network/identity/message-identity.js";
import { Roster } from "../../src/network/identity/roster.js";
import { loadTlsCredentials } from "../../src/network/identity/tls-credentials.js";
import { TrustFiles } from "../../src/network/identity/trust-files.js";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import type { RouterSetup } from "../../src/network/rpc-server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { type Logger, networkLog, processLog } from "../../src/node/log.js";
import { MpcNode } from "../../src/node/node.js";
import { peerVerifier } from "../../src/node/peer-trust.js";
import type { PrimeSource } from "../../src/node/prime-pool.js";
import { SessionLanes } from "../../src/node/session-lanes.js";
import type { SessionRunner } from "../../src/node/session-pool.js";
import { KeyStore } from "../../src/storage/key-store.js";
import { LevelVoteStore } from "../../src/storage/level-vote-store.js";
import { LevelWitnessStore } from "../../src/storage/level-witness-store.js";
import { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import type { ChainSource } from "../../src/wallet/chain-source.js";
import { testPrimes } from "../fixtures/parties.js";

/** UDP ports that are free now. */
export async function freeUdpPorts(count: number): Promise<number[]> {
  const sockets = Array.from({ length: count }, () => createSocket("udp4"));
  const ports = await Promise.all(
    sockets.map(async (socket) => {
      socket.bind(0, "127.0.0.1");
      await once(socket, "listening");
      return socket.address().port;
    }),
  );
  await Promise.all(sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))));
  return ports;
}

/** On a machine that others keep busy, rounds take longer: TEST_SLOWNESS=5 waits five times as long. */
export const SLOWNESS = Number(process.env["TEST_SLOWNESS"] ?? 1);

export const TEST_AUTHORITY = { name: "treasury", seed: new Uint8Array(32).fill(7) };
export interface ClusterMember {
  readonly identity: MessageIdentity;
  readonly listen: { readonly host: string; readonly port: number };
  readonly credentials: TransportCredentials;
  readonly trust: TrustFiles;
  readonly roster: Roster;
}

/** The fixture's primes of one party; drawing some takes half a minute of this machine. */
function fixturePrimes(party: number): PrimeSource {
  return {
    prepare: async () => undefined,
    take: async () => testPrimes(security112, party),
    close: async () => undefined,
  };
}

const quickHash = { memoryKib: 64, passes: 1, lanes: 1 };

/** Five nodes and a coordinator's mesh in one process, over real QUIC on loopback. */
export class TestCluster {
  readonly folder: string;
  readonly roster: Roster;
  readonly nodes = new Map<string, MpcNode>();
  /** What each node that was started last remembers of the others' ledgers. */
  readonly witnesses: ReadonlyMap<string, LevelWitnessStore>;
  readonly ledgers: ReadonlyMap<string, OneUseLedger>;
  /** What a coordinator of this cluster starts with. */
  readonly coordinator: ClusterMember;
  readonly log: Logger;
  readonly #meshes: PeerMesh[] = [];
  readonly #startNode: (nodeId: string) => Promise<MpcNode>;
  readonly #member: (nodeId: string) => Promise<ClusterMember>;

  private constructor(parts: {
    folder: string;
    roster: Roster;
    coordinator: ClusterMember;
    log: Logger;
    startNode: (nodeId: string) => Promise<MpcNode>;
    member: (nodeId: string) => Promise<ClusterMember>;
    witnesses: ReadonlyMap<string, LevelWitnessStore>;
    ledgers: ReadonlyMap<string, OneUseLedger>;
  }) {
    this.witnesses = parts.witnesses;
    this.ledgers = parts.ledgers;
    this.folder = parts.folder;
    this.roster = parts.roster;
    this.coordinator = parts.coordinator;
    this.log = parts.log;
    this.#startNode = parts.startNode;
    this.#member = parts.member;
  }

  static async start(options: {
    readonly nodes: number;
    readonly chain: ChainSource;
    /** The chain as one node sees it; the common one where this is left out or returns nothing. */
    readonly chainOf?: (nodeId: string) => ChainSource | undefined;
    /** What runs a node's sessions in place of honest threads. */
    readonly sessions?: (identity: MessageIdentity) => SessionRunner | undefined;
    readonly policy?: PaymentPolicy;
    /** Members of the roster, 1 when left out; none of them is started. */
    readonly coordinators?: number;
    /** Asked at each start of a node. */
    readonly ledgerConfirmationMs?: () => number;
    /** Stands between a node and its session threads, for tests that look at what arrives. */
    readonly observe?: (nodeId: string, sessions: SessionRunner) => SessionRunner;
  }): Promise<TestCluster> {
    const folder = await mkdtemp(join(tmpdir(), "mpc-wallet-cluster-"));
    const nodeIds = Array.from({ length: options.nodes }, (_, index) => `node-${index + 1}`);
    const { coordinators = 1 } = options;
    const coordinatorIds = Array.from({ length: coordinators }, (_, index) => `coordinator-${index + 1}`);
    const pki = await createDevelopmentPki(
      { folder: join(folder, "pki"), nodeIds: [...nodeIds, ...coordinatorIds] },
      { clock: systemClock, random: systemRandom },
    );
    const ports = await freeUdpPorts(pki.nodes.length);
    const roster = new Roster(
      pki.nodes.map(({ nodeId, identityKey }, index) => ({
        nodeId,
        role: nodeId.startsWith("node-") ? ("node" as const) : ("coordinator" as const),
        host: "127.0.0.1",
        port: ports[index] ?? 0,
        identityKey,
      })),
    );
    const trust = await TrustFiles.load(
      {
        rootPath: pki.paths.rootCertificate,
        intermediatePath: pki.paths.intermediateCertificate,
        revocationListPaths: [pki.paths.revocationList],
        roster,
      },
      { clock: systemClock },
    );
    const log = processLog({ name: "test", level: process.env["TEST_LOG"] ?? "silent" });
    const credentials = ({ nodeId, tlsKeyPath, tlsChainPath }: DevelopmentNode) =>
      loadTlsCredentials({ nodeId, keyPath: tlsKeyPath, chainPath: tlsChainPath });
    const find = (nodeId: string): DevelopmentNode => {
      const node = pki.nodes.find((candidate) => candidate.nodeId === nodeId);
      if (node === undefined) throw new Error(`no ${nodeId}`);
      return node;
    };
    const opened = {
      witnesses: new Map<string, LevelWitnessStore>(),
      ledgers: new Map<string, OneUseLedger>(),
    };
    const startNode = async (nodeId: string): Promise<MpcNode> => {
      const node = find(nodeId);
      const stateFolder = join(folder, nodeId);
      const passphrase = () => SecretBytes.copyOf(new TextEncoder().encode(`passphrase of ${nodeId}`));
      const store = (await KeyStore.exists(stateFolder))
        ? await KeyStore.open(
            { folder: stateFolder, passphrase: passphrase(), cost: quickHash },
            { random: systemRandom },
          )
        : await KeyStore.create(
            { folder: stateFolder, nodeId, passphrase: passphrase(), cost: quickHash },
            { random: systemRandom },
          );
      const identity = MessageIdentity.fromPem(nodeId, await readFile(node.identityKeyPath, "utf8"));
      const patience = { roundTimeoutMs: 3_000 * SLOWNESS, sessionTimeoutMs: 10_000 * SLOWNESS };
      const presignPatience = { roundTimeoutMs: 20_000 * SLOWNESS, sessionTimeoutMs: 60_000 * SLOWNESS };
      const sessions =
        options.sessions?.(identity) ??
        (await SessionLanes.start(
          { workers: 1, identity: identity.privateKey, maxSessions: 256, patience, presignPatience },
          { clock: systemClock },
        ));
      const witnesses = await LevelWitnessStore.open(join(stateFolder, "witness"));
      opened.witnesses.set(nodeId, witnesses);
      const ledger = await OneUseLedger.open(
        { folder: join(stateFolder, "ledger"), key: store.ledgerKey() },
        { clock: systemClock, random: systemRandom },
      );
      opened.ledgers.set(nodeId, ledger);
      return await MpcNode.start(
        {
          identity,
          listen: { host: "127.0.0.1", port: roster.get(nodeId)?.port ?? 0 },
          roster,
          network: "regtest",
          credentials: await credentials(node),
          trust,
          trustReloadIntervalMs: 60_000,
          policy: options.policy ?? DEFAULT_POLICY,
          authorities: new Map([[TEST_AUTHORITY.name, ed25519PublicKey(TEST_AUTHORITY.seed)]]),
          version: "test",
          security: "security112",
          presignatureLifetimeMs: 3_600_000,
          ledgerConfirmationMs: options.ledgerConfirmationMs?.() ?? 30_000,
          maxRequestWindowMs: 3_600_000,
          clockSkewMs: 5_000,
        },
        {
          clock: systemClock,
          random: systemRandom,
          log: log.child({ nodeId }),
          store,
          votes: await LevelVoteStore.open(join(stateFolder, "votes")),
          sessions: options.observe?.(nodeId, sessions) ?? sessions,
          witnesses,
          ledger,
          primes: fixturePrimes(nodeIds.indexOf(nodeId) + 1),
          chain: options.chainOf?.(nodeId) ?? options.chain,
        },
      );
    };
    const member = async (nodeId: string): Promise<ClusterMember> => {
      const node = find(nodeId);
      return {
        identity: MessageIdentity.fromPem(nodeId, await readFile(node.identityKeyPath, "utf8")),
        listen: { host: "127.0.0.1", port: roster.get(nodeId)?.port ?? 0 },
        credentials: await credentials(node),
        trust,
        roster,
      };
    };
    const cluster = new TestCluster({
      folder,
      roster,
      log,
      startNode,
      member,
      ...opened,
      coordinator: await member("coordinator-1"),
    });
    await Promise.all(nodeIds.map((nodeId) => cluster.startNode(nodeId)));
    return cluster;
  }

  /** A coordinator's calls to the nodes, without a coordinator. */
  async connect(): Promise<PeerCalls> {
    return this.callsOver(await this.mesh("coordinator-1"));
  }

  callsOver(mesh: PeerMesh): PeerCalls {
    return new PeerCalls(mesh);
  }

  /** Connections of a member that is not running, for calls that its program would never make. */
  async mesh(member: string, router: RouterSetup = () => {}): Promise<PeerMesh> {
    const { identity, listen, credentials, trust } = await this.#member(member);
    const peers = this.roster.nodes.filter(({ nodeId }) => this.nodes.has(nodeId));
    const mesh = await PeerMesh.start(
      {
        nodeId: identity.nodeId,
        listen,
        // A coordinator dials nodes; among nodes the lower id does. Two sides that both dial would replace each other's
        // connection in the middle of a call.
        peers: peers.map(({ nodeId, host, port }) =>
          member.startsWith("node-") ? { nodeId, host, port } : { nodeId, host, port, dial: "us" as const },
        ),
        credentials,
      },
      {
        clock: systemClock,
        random: systemRandom,
        verifier: peerVerifier(trust, this.log),
        router,
        log: networkLog(this.log.child({ nodeId: identity.nodeId })),
      },
    );
    this.#meshes.push(mesh);
    await mesh.ready([...this.nodes.keys()], 10_000);
    return mesh;
  }

  async startNode(nodeId: string): Promise<void> {
    this.nodes.set(nodeId, await this.#startNode(nodeId));
  }

  async stopNode(nodeId: string): Promise<void> {
    await this.nodes.get(nodeId)?.close();
    this.nodes.delete(nodeId);
  }

  async close(): Promise<void> {
    await Promise.all(this.#meshes.map((mesh) => mesh.close()));
    await Promise.all([...this.nodes.values()].map((node) => node.close()));
    await rm(this.folder, { recursive: true, force: true });
  }
}
