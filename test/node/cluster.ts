import { type ChildProcess, fork } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PaymentPolicy } from "../../src/consensus/policy.js";
import { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { createDevelopmentPki, type DevelopmentNode } from "../../src/network/identity/development-pki.js";
import { MessageIdentity } from "../../src/network/identity/message-identity.js";
import { Roster, rosterEntries } from "../../src/network/identity/roster.js";
import { loadTlsCredentials } from "../../src/network/identity/tls-credentials.js";
import type { TrustFiles } from "../../src/network/identity/trust-files.js";
import type { RouterSetup } from "../../src/network/method-table.js";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { type Logger, networkLog, processLog } from "../../src/node/log.js";
import { peerVerifier } from "../../src/node/peer-trust.js";
import type { SessionRunner } from "../../src/node/session-pool.js";
import { type HeldWallet, KeyStore } from "../../src/storage/key-store.js";
import type { LevelWitnessStore } from "../../src/storage/level-witness-store.js";
import type { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import type { ChainSource } from "../../src/wallet/chain-source.js";
import { DYING_NODE, DYING_NODE_FLAG, type DyingNodeOrder, type DyingNodeSetup, type Step } from "./dying-node.js";
import {
  quickHash,
  SLOWNESS,
  startTestNode,
  TEST_AUTHORITY,
  type TestNodeSetup,
  testPassphrase,
  testTrust,
} from "./test-node.js";

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

export { SLOWNESS, TEST_AUTHORITY };

export interface ClusterMember {
  readonly identity: MessageIdentity;
  readonly listen: { readonly host: string; readonly port: number };
  readonly credentials: TransportCredentials;
  readonly trust: TrustFiles;
  readonly roster: Roster;
}

/** A node that runs, in this process or in another. */
export interface RunningNode {
  close(): Promise<void>;
}

/** A node in a process of its own, which may be told to kill itself. */
export class NodeProcess implements RunningNode {
  readonly #child: ChildProcess;
  readonly ended: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.ended = once(child, "exit");
  }

  static async start(setup: DyingNodeSetup): Promise<NodeProcess> {
    const child = fork(DYING_NODE, [DYING_NODE_FLAG], { execArgv: ["--enable-source-maps"] });
    const running = new NodeProcess(child);
    child.send({ setup } satisfies DyingNodeOrder);
    const [word] = (await Promise.race([once(child, "message"), running.ended])) as [unknown];
    if (typeof word !== "object" || word === null || !("ready" in word)) {
      throw new Error(`${setup.node.nodeId} did not start: ${JSON.stringify(word)}`);
    }
    return running;
  }

  dieAt(step: Step): void {
    this.#child.send({ dieAt: step } satisfies DyingNodeOrder);
  }

  async close(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.ended;
  }
}

/** Five nodes and a coordinator's mesh in one process, over real QUIC on loopback. */
export class TestCluster {
  readonly folder: string;
  readonly roster: Roster;
  readonly nodes = new Map<string, RunningNode>();
  /** What each node of this process that was started last remembers of the others' ledgers. */
  readonly witnesses: ReadonlyMap<string, LevelWitnessStore>;
  readonly ledgers: ReadonlyMap<string, OneUseLedger>;
  /** What a coordinator of this cluster starts with. */
  readonly coordinator: ClusterMember;
  readonly log: Logger;
  readonly #meshes: PeerMesh[] = [];
  readonly #startNode: (nodeId: string) => Promise<RunningNode>;
  readonly #member: (nodeId: string) => Promise<ClusterMember>;

  private constructor(parts: {
    folder: string;
    roster: Roster;
    coordinator: ClusterMember;
    log: Logger;
    startNode: (nodeId: string) => Promise<RunningNode>;
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
    /** Esplora's URL: then each node is a process of its own. */
    readonly chainUrl?: string;
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
    const trustPaths = {
      root: pki.paths.rootCertificate,
      intermediate: pki.paths.intermediateCertificate,
      revocationList: pki.paths.revocationList,
    };
    const trust = await testTrust({ trust: trustPaths }, roster);
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
    const setupOf = (nodeId: string): TestNodeSetup => ({
      folder,
      node: find(nodeId),
      party: nodeIds.indexOf(nodeId) + 1,
      roster: rosterEntries(roster),
      trust: trustPaths,
    });
    const startNode = async (nodeId: string): Promise<RunningNode> => {
      const { chainUrl } = options;
      if (chainUrl !== undefined) return await NodeProcess.start({ ...setupOf(nodeId), chainUrl });
      const identity = (await member(nodeId)).identity;
      return await startTestNode(setupOf(nodeId), {
        chain: options.chainOf?.(nodeId) ?? options.chain,
        sessions: options.sessions?.(identity),
        observe: (sessions) => options.observe?.(nodeId, sessions) ?? sessions,
        policy: options.policy,
        ledgerConfirmationMs: options.ledgerConfirmationMs?.(),
        tamper: ({ witnesses, ledger }) => {
          opened.witnesses.set(nodeId, witnesses);
          opened.ledgers.set(nodeId, ledger);
        },
      });
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

  /** What the program of a member starts with. */
  member(nodeId: string): Promise<ClusterMember> {
    return this.#member(nodeId);
  }

  /** A node's identity, for what only a compromised node would sign. */
  async identityOf(nodeId: string): Promise<MessageIdentity> {
    return (await this.#member(nodeId)).identity;
  }

  /** Of a cluster of processes. */
  process(nodeId: string): NodeProcess {
    const node = this.nodes.get(nodeId);
    if (!(node instanceof NodeProcess)) throw new Error(`${nodeId} is no process`);
    return node;
  }

  /** What a thief of a node's disk and passphrase finds now. */
  async stolenFrom(nodeId: string, walletId: string): Promise<HeldWallet> {
    const folder = await mkdtemp(join(this.folder, "stolen-"));
    await cp(join(this.folder, nodeId, "state.json"), join(folder, "state.json"));
    const options = { folder, passphrase: testPassphrase(nodeId), cost: quickHash };
    const store = await KeyStore.open(options, { random: systemRandom });
    const held = store.held(walletId);
    await store.close();
    return held;
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
