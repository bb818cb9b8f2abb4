import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { ControlService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";
import type { NetworkLimits } from "./network-limits.js";
import type { NetworkLog } from "./network-log.js";
import { CLOSE, type QuicConnection } from "./quic-connection.js";
import type { QuicStream } from "./quic-stream.js";
import { quicTransport } from "./rpc-client.js";
import { SampleWindow } from "./sample-window.js";
import type { TrafficClass } from "./traffic-class.js";

/** A peer that this node keeps a connection with. */
export interface PeerAddress {
  readonly nodeId: string;
  /** Needed when we dial. */
  readonly host?: string;
  readonly port?: number;
  /** Who dials. By default the side with the lower node id, so that a pair has one connection for both directions. */
  readonly dial?: "us" | "them";
}

/**
 * idle: waits for the peer to dial, or not started. connecting: an attempt runs. active: calls flow. degraded: connected, but
 * it is silent or the last health check failed. dead: lost, and the next attempt is waited for.
 */
export type LinkState = "idle" | "connecting" | "active" | "degraded" | "dead";

/** What is known about one peer. Latencies are of health checks, through the whole RPC path. */
export interface PeerLinkStatus {
  readonly nodeId: string;
  readonly state: LinkState;
  readonly dials: boolean;
  /** `address:port` of the live connection. */
  readonly remote: string | undefined;
  readonly latencyP50Us: number | undefined;
  readonly latencyP99Us: number | undefined;
  /** Lost packets of those sent on the live connection, 0 to 1. */
  readonly lossRatio: number;
  /** Health checks that succeeded, of the last 128, 0 to 1; undefined before the first. */
  readonly successRatio: number | undefined;
  /** Unix milliseconds of the last packet; undefined when there is no connection. */
  readonly lastMessageMs: number | undefined;
  /** Connections that became active so far. */
  readonly connections: number;
  /** Why there is no connection, or why the last one ended. */
  readonly lastFault: Unavailable | undefined;
}

export interface PeerLinkDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: NetworkLimits;
  readonly log: NetworkLog;
  dial(peer: { nodeId: string; host: string; port: number }): Promise<QuicConnection>;
}

const NOT_NEEDED = "the silent connection lives";

interface Waiter {
  readonly admit: (connection: QuicConnection) => void;
  readonly refuse: (fault: Unavailable) => void;
}

/** The persistent connection with one peer: dials or waits, dials again with backoff, checks health, gives streams to calls. */
export class PeerLink {
  readonly nodeId: string;
  readonly dials: boolean;
  readonly #address: PeerAddress;
  readonly #dependencies: PeerLinkDependencies;
  readonly #waiters = new Set<Waiter>();
  readonly #latency = new SampleWindow();
  readonly #success = new SampleWindow();
  readonly #transports = new Map<TrafficClass, Transport>();
  #state: LinkState = "idle";
  #connection: QuicConnection | undefined;
  #dialling: QuicConnection | undefined;
  /** The live connection is silent. */
  #silent = false;
  #attempt = 0;
  #connections = 0;
  #lastFault: Unavailable | undefined;
  #cancelRedial: (() => void) | undefined;
  #cancelHealth: (() => void) | undefined;
  #stopped = false;

  constructor(self: string, address: PeerAddress, dependencies: PeerLinkDependencies) {
    this.nodeId = address.nodeId;
    this.dials = address.dial === undefined ? self < address.nodeId : address.dial === "us";
    this.#address = address;
    this.#dependencies = dependencies;
  }

  get state(): LinkState {
    return this.#state;
  }

  get connection(): QuicConnection | undefined {
    return this.#connection;
  }

  start(): void {
    if (this.dials) void this.#dial();
  }

  /** The transport for one class of calls; calls wait for a connection within their deadline. */
  transport(trafficClass: TrafficClass): Transport {
    let transport = this.#transports.get(trafficClass);
    if (transport === undefined) {
      transport = quicTransport({
        open: (name, signal) => this.#openStream(name, signal),
        trafficClass,
        limits: this.#dependencies.limits,
      });
      this.#transports.set(trafficClass, transport);
    }
    return transport;
  }

  /** Resolves with the live connection; waits for one until the signal aborts, or `connectionWaitMs` without a signal. */
  connected(signal: AbortSignal | undefined): Promise<QuicConnection> {
    if (this.#connection !== undefined) return Promise.resolve(this.#connection);
    const { limits, clock } = this.#dependencies;
    if (this.#stopped || this.#waiters.size >= limits.queuedCalls) return Promise.reject(this.#absence());
    return new Promise((resolve, reject) => {
      const leave = () => waiter.refuse(this.#absence());
      const cancelWait = clock.after(limits.connectionWaitMs, leave);
      const settle = () => {
        this.#waiters.delete(waiter);
        cancelWait();
        signal?.removeEventListener("abort", leave);
      };
      const waiter: Waiter = {
        admit: (connection) => {
          settle();
          resolve(connection);
        },
        refuse: (fault) => {
          settle();
          reject(fault);
        },
      };
      this.#waiters.add(waiter);
      signal?.addEventListener("abort", leave, { once: true });
    });
  }

  /** A connection with this peer is authenticated on both sides. The newest one wins: an older one is of a former life. */
  adopt(connection: QuicConnection): void {
    const previous = this.#connection;
    this.#connection = connection;
    if (connection === this.#dialling) this.#dialling = undefined;
    this.#silent = false;
    this.#connections += 1;
    this.#attempt = 0;
    this.#cancelRedial?.();
    this.#become("active");
    if (previous !== undefined) previous.close(CLOSE.superseded, "superseded by a newer connection");
    for (const waiter of [...this.#waiters]) waiter.admit(connection);
    this.#cancelHealth?.();
    void this.#checkHealth(connection);
  }

  /**
   * The peer stopped answering pings. It may be busy, so calls go on; or our address may have changed for it, so we dial
   * again beside the silent connection.
   */
  silent(connection: QuicConnection): void {
    if (connection !== this.#connection) return;
    this.#become("degraded");
    this.#silent = true;
    if (this.dials) void this.#dial();
  }

  /** A silent peer is back: nothing has to be replaced. */
  heard(connection: QuicConnection): void {
    if (connection !== this.#connection) return;
    this.#become("active");
    this.#silent = false;
    const attempt = this.#dialling;
    this.#dialling = undefined;
    attempt?.close(CLOSE.superseded, NOT_NEEDED);
  }

  /** A connection with this peer ended, active or not. */
  lost(connection: QuicConnection, fault: Unavailable): void {
    if (this.#connection === undefined) this.#lastFault = fault;
    // An attempt of the peer that failed, or the loser of two connections: what is current does not change.
    if (connection !== this.#connection && connection !== this.#dialling) return;
    this.#lastFault = fault;
    if (connection === this.#dialling) this.#dialling = undefined;
    if (connection === this.#connection) {
      this.#connection = undefined;
      this.#silent = false;
      this.#cancelHealth?.();
    }
    if (this.#connection !== undefined) return;
    this.#become("dead");
    this.#redial();
  }

  status(): PeerLinkStatus {
    const connection = this.#connection;
    const { clock } = this.#dependencies;
    const path = connection?.pathStatistics();
    const toUs = (ms: number | undefined) => (ms === undefined ? undefined : Math.round(ms * 1_000));
    return {
      nodeId: this.nodeId,
      state: this.#state,
      dials: this.dials,
      remote: connection && `${connection.remote.host}:${connection.remote.port}`,
      latencyP50Us: toUs(this.#latency.percentile(0.5)),
      latencyP99Us: toUs(this.#latency.percentile(0.99)),
      lossRatio: path === undefined || path.sent === 0 ? 0 : path.lost / path.sent,
      successRatio: this.#success.mean(),
      lastMessageMs: connection && Math.round(clock.nowMs() - (clock.monotonicMs() - connection.lastReceivedMs)),
      connections: this.#connections,
      lastFault: this.#lastFault,
    };
  }

  /** No more attempts; waiting calls fail. The connection itself is closed by the endpoint. */
  stop(): void {
    this.#stopped = true;
    this.#cancelRedial?.();
    this.#cancelHealth?.();
    for (const waiter of [...this.#waiters]) waiter.refuse(this.#absence());
  }

  async #openStream(trafficClass: TrafficClass, signal: AbortSignal | undefined): Promise<QuicStream> {
    const connection = this.#connection ?? (await this.connected(signal));
    return connection.openStream(trafficClass, signal);
  }

  /** Dials when there is no connection, or only a silent one. */
  async #dial(): Promise<void> {
    const { host, port } = this.#address;
    if (this.#stopped || this.#dialling !== undefined || !this.#lacksConnection()) return;
    if (this.#connection === undefined) this.#become("connecting");
    try {
      if (host === undefined || port === undefined) {
        throw new Unavailable("address-unknown", `no address to dial ${this.nodeId}`, { peer: this.nodeId });
      }
      const attempt = await this.#dependencies.dial({ nodeId: this.nodeId, host, port });
      if (this.#lacksConnection()) this.#dialling = attempt;
      else attempt.close(CLOSE.superseded, NOT_NEEDED);
    } catch (error) {
      if (this.#connection !== undefined) return;
      this.#lastFault =
        error instanceof Unavailable ? error : new Unavailable("dial-failed", `cannot dial ${this.nodeId}`, {}, error);
      this.#become("dead");
      this.#redial();
    }
  }

  #lacksConnection(): boolean {
    return this.#connection === undefined || this.#silent;
  }

  #redial(): void {
    if (!this.dials || this.#stopped) return;
    const { redialDelaysMs } = this.#dependencies.limits;
    const delayMs = redialDelaysMs[Math.min(this.#attempt, redialDelaysMs.length - 1)] ?? 1_000;
    this.#attempt += 1;
    this.#cancelRedial?.();
    this.#cancelRedial = this.#dependencies.clock.after(this.#jittered(delayMs), () => void this.#dial());
  }

  /** A quarter more or less, so that peers of a node that comes back do not all dial at once. */
  #jittered(delayMs: number): number {
    const [byte = 128] = this.#dependencies.random.bytes(1);
    return delayMs * (0.75 + byte / 512);
  }

  /** A call through the whole path. A peer that does not offer Ping has answered all the same. */
  async #checkHealth(connection: QuicConnection): Promise<void> {
    const { clock, limits } = this.#dependencies;
    const startedMs = clock.monotonicMs();
    let healthy = true;
    try {
      const control = createClient(ControlService, this.transport("control"));
      await control.ping({}, { timeoutMs: limits.healthTimeoutMs });
    } catch (error) {
      healthy = error instanceof ConnectError && error.code === Code.Unimplemented;
    }
    if (this.#connection !== connection || this.#stopped) return;
    if (healthy) this.#latency.add(clock.monotonicMs() - startedMs);
    this.#success.add(healthy ? 1 : 0);
    this.#become(healthy ? "active" : "degraded");
    this.#cancelHealth = clock.after(limits.healthIntervalMs, () => void this.#checkHealth(connection));
  }

  #become(state: LinkState): void {
    if (this.#state === state) return;
    const was = this.#state;
    this.#state = state;
    const bad = state === "dead" || state === "degraded";
    this.#dependencies.log({
      level: bad ? "warn" : "info",
      event: "peer-link",
      facts: { peer: this.nodeId, state, was, ...(bad && this.#lastFault ? { why: this.#lastFault.message } : {}) },
    });
  }

  #absence(): Unavailable {
    const why = this.#lastFault === undefined ? this.#state : this.#lastFault.message;
    return new Unavailable("peer-not-connected", `no connection with ${this.nodeId}: ${why}`, { peer: this.nodeId });
  }
}
