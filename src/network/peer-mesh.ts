import type { Transport } from "@connectrpc/connect";
import type { Clock, Random } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { RouterSetup } from "./method-table.js";
import { DEFAULT_LIMITS, type NetworkLimits } from "./network-limits.js";
import type { NetworkLog } from "./network-log.js";
import { PacketBudget } from "./packet-budget.js";
import { type PeerAddress, PeerLink, type PeerLinkStatus } from "./peer-link.js";
import type { PeerVerifier } from "./peer-verifier.js";
import { CLOSE, type ConnectionEvents } from "./quic-connection.js";
import { QuicEndpoint, type TransportCredentials } from "./quic-endpoint.js";
import { RpcServer } from "./rpc-server.js";
import type { TrafficClass } from "./traffic-class.js";

export interface PeerMeshOptions {
  readonly nodeId: string;
  /** Port 0 takes a free one. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly peers: readonly PeerAddress[];
  readonly credentials: TransportCredentials;
  readonly limits?: Partial<NetworkLimits>;
}

export interface PeerMeshDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly verifier: PeerVerifier;
  /** Registers what this node offers, usually `(router) => routePeer(router, handlers)`. */
  readonly router: RouterSetup;
  readonly log: NetworkLog;
  /** A peer that had no connection has one. */
  readonly onPeer?: (nodeId: string) => void;
}

/**
 * A node's place among its peers: one QUIC connection a pair, with mutual TLS, over which both sides call each other with gRPC
 * semantics. A coordinator is a peer like any other.
 *
 * Everything runs on the thread that starts it. A worker would add two thread hops to each call, and the connections survive
 * without one: the driver reads waiting packets before it believes a timer (see quic-connection.ts), so an application that
 * blocks the event loop for less than `idleTimeoutMs - keepAliveIntervalMs` loses no connection. Long computations belong in
 * worker threads of their own.
 */
export class PeerMesh {
  readonly nodeId: string;
  readonly #limits: NetworkLimits;
  readonly #dependencies: PeerMeshDependencies;
  readonly #links: Map<string, PeerLink>;
  readonly #endpoint: QuicEndpoint;
  readonly #server: RpcServer;
  #closing: Promise<void> | undefined;

  private constructor(
    options: { nodeId: string; limits: NetworkLimits },
    dependencies: PeerMeshDependencies,
    parts: { endpoint: QuicEndpoint; server: RpcServer; links: Map<string, PeerLink> },
  ) {
    this.nodeId = options.nodeId;
    this.#limits = options.limits;
    this.#dependencies = dependencies;
    this.#endpoint = parts.endpoint;
    this.#server = parts.server;
    this.#links = parts.links;
  }

  /**
   * Binds the port and begins to dial; returns before any peer is connected (see `ready`).
   *
   * @throws {Unavailable} `quic-platform-unsupported`, `listen-failed`
   * @throws {InvalidInput} `credentials-invalid`, `peers-invalid`
   */
  static async start(options: PeerMeshOptions, dependencies: PeerMeshDependencies): Promise<PeerMesh> {
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    const { nodeId } = options;
    const server = new RpcServer({
      setup: dependencies.router,
      limits,
      clock: dependencies.clock,
      log: dependencies.log,
    });
    const links = new Map<string, PeerLink>();
    // Strangers must not be able to fill the disk with lines about them.
    const strangerLog = new PacketBudget({ ...STRANGER_LINES, nowMs: dependencies.clock.monotonicMs() });
    const events: ConnectionEvents = {
      active: (connection) => {
        const link = links.get(connection.peerNodeId);
        const isFirst = link?.connection === undefined;
        link?.adopt(connection);
        if (link !== undefined && isFirst) dependencies.onPeer?.(connection.peerNodeId);
      },
      stream: (stream, connection) => server.serve(stream, connection),
      silent: (connection) => links.get(connection.peerNodeId)?.silent(connection),
      heard: (connection) => links.get(connection.peerNodeId)?.heard(connection),
      closed: (connection, fault) => {
        const peer = connection.peerNodeId || connection.expectedNodeId;
        if (peer !== undefined) links.get(peer)?.lost(connection, fault);
        if (peer === undefined && !strangerLog.take(connection.remote.host, dependencies.clock.monotonicMs())) return;
        const facts = { peer: peer ?? connection.remote.host, code: fault.code, why: fault.message };
        dependencies.log({ level: "info", event: "connection-closed", facts });
      },
    };
    // Who is no peer is refused with its certificate, before it can open a stream.
    const verifier: PeerVerifier = (chain, expected) => {
      const verdict = dependencies.verifier(chain, expected);
      if (!verdict.ok || links.has(verdict.nodeId)) return verdict;
      return { ok: false, reason: `${verdict.nodeId} is not a peer of ${nodeId}` };
    };
    const endpoint = await QuicEndpoint.start(
      { nodeId, listen: options.listen, credentials: options.credentials, limits },
      { clock: dependencies.clock, random: dependencies.random, verifier, events },
    );
    const mesh = new PeerMesh({ nodeId, limits }, dependencies, { endpoint, server, links });
    try {
      for (const peer of options.peers) mesh.addPeer(peer);
    } catch (error) {
      await mesh.close();
      throw error;
    }
    return mesh;
  }

  /** The bound UDP port. */
  get port(): number {
    return this.#endpoint.port;
  }

  /** Paths of all calls that peers may make. */
  get calls(): readonly string[] {
    return this.#server.paths;
  }

  /**
   * A Connect transport to a peer for one class of calls. A call waits for a connection within its own deadline; without one it
   * fails with Code.Unavailable, and so does a running call whose connection dies: it may or may not have been executed.
   *
   * @throws {InvalidInput} `peer-unknown`
   */
  transport(nodeId: string, trafficClass: TrafficClass = "control"): Transport {
    return this.#link(nodeId).transport(trafficClass);
  }

  /** How every peer is doing. */
  status(): PeerLinkStatus[] {
    return [...this.#links.values()].map((link) => link.status());
  }

  /**
   * Resolves when all of `nodeIds` are connected.
   *
   * @throws {Unavailable} `peers-not-ready`, with the missing ones
   */
  async ready(nodeIds: readonly string[], timeoutMs: number): Promise<void> {
    const deadline = new AbortController();
    const cancel = this.#dependencies.clock.after(timeoutMs, () => deadline.abort());
    try {
      const links = nodeIds.map((nodeId) => this.#link(nodeId));
      const results = await Promise.allSettled(links.map((link) => this.#connected(link, deadline.signal)));
      const missing = nodeIds.filter((_, index) => results[index]?.status === "rejected");
      if (missing.length === 0) return;
      const reasons = this.status().filter(({ nodeId }) => missing.includes(nodeId));
      const why = reasons.map(({ nodeId, lastFault }) => `${nodeId} (${lastFault?.message ?? "no answer"})`);
      throw new Unavailable("peers-not-ready", `not connected: ${why.join(", ")}`, { missing });
    } finally {
      cancel();
    }
  }

  /** Waits longer than a call would: a peer that starts may not have listened yet when it was last dialled. */
  async #connected(link: PeerLink, deadline: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await link.connected(deadline);
        return;
      } catch (error) {
        if (deadline.aborted || link.stopped) throw error;
        await new Promise<void>((resolve) => void this.#dependencies.clock.after(READY_RETRY_MS, resolve));
      }
    }
  }

  /** Begins to keep a connection with another peer. @throws {InvalidInput} `peers-invalid` */
  addPeer(peer: PeerAddress): void {
    const { clock, random, log } = this.#dependencies;
    if (peer.nodeId === "" || peer.nodeId === this.nodeId || this.#links.has(peer.nodeId)) {
      throw new InvalidInput("peers-invalid", `'${peer.nodeId}' cannot be added as a peer of ${this.nodeId}`);
    }
    const dial = (address: { nodeId: string; host: string; port: number }) => this.#endpoint.dial(address);
    const link = new PeerLink(this.nodeId, peer, { clock, random, log, limits: this.#limits, dial });
    this.#links.set(peer.nodeId, link);
    link.start();
  }

  /** Drops a peer: its connection is closed and it is refused from now on. */
  removePeer(nodeId: string): void {
    const link = this.#links.get(nodeId);
    this.#links.delete(nodeId);
    link?.stop();
    link?.close(CLOSE.refused, "no longer a peer");
  }

  /** Judges every live peer's certificate again; call it when revocations or the roster may have changed. */
  reverifyPeers(): void {
    this.#endpoint.reverify();
  }

  /** Replaces the connections that we dialled by fresh ones, which show the newest certificates; no call fails by it. */
  refreshConnections(): void {
    for (const link of this.#links.values()) link.refresh();
  }

  /** New connections show the new certificate; live ones and their calls stay. @throws {InvalidInput} `credentials-invalid` */
  useCredentials(credentials: TransportCredentials): void {
    this.#endpoint.useCredentials(credentials);
  }

  /** Refuses new calls, lets running ones finish within `drainMs`, closes every connection and the socket. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const { clock } = this.#dependencies;
    this.#endpoint.stopAccepting();
    for (const link of this.#links.values()) link.stop();
    const deadline = new Promise<void>((resolve) => {
      const cancel = clock.after(this.#limits.drainMs, resolve);
      void this.#server.drained().then(() => {
        cancel();
        resolve();
      });
    });
    await deadline;
    this.#server.abort();
    // Answers are on their way to the kernel; a CONNECTION_CLOSE in the same turn would overtake them.
    await new Promise<void>((resolve) => setTimeout(resolve, FLUSH_MS));
    await this.#endpoint.close(CLOSE.done, `${this.nodeId} is closing`);
  }

  #link(nodeId: string): PeerLink {
    const link = this.#links.get(nodeId);
    if (link === undefined) {
      throw new InvalidInput("peer-unknown", `${nodeId} is not a peer of ${this.nodeId}`, { peer: nodeId });
    }
    return link;
  }
}

const FLUSH_MS = 20;
const READY_RETRY_MS = 100;
const STRANGER_LINES = { perSourcePerSecond: 5, perSecond: 20 };
