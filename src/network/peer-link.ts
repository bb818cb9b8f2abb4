import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { ControlService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";
import type { NetworkLimits } from "./network-limits.js";
import type { NetworkLog } from "./network-log.js";
import { CLOSE, type QuicConnection } from "./quic-connection.js";
import type { QuicStream } from "./quic-stream.js";
import { repeatingIdempotent } from "./repeated-call.js";
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
  /** A second connection stands by. */
  readonly standby: boolean;
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

/** A connection that calls may use. */
interface Seat {
  readonly connection: QuicConnection;
  readonly cancelAge: () => void;
  /** To be replaced by a fresh one; serves until that is there. */
  outdated: boolean;
  /** Nothing comes over it. */
  silent: boolean;
}

const NOT_NEEDED = "the silent connection lives";

/** A connection that takes no new calls and is closed when those that it has are over. */
interface Retired {
  readonly connection: QuicConnection;
  readonly sinceMs: number;
}

/** The newest connection and one in reserve. */
const MAX_SEATS = 2;
/** The peer learns of a replacement within a round trip; until then it may begin calls on the old connection. */
const RETIRE_GRACE_MS = 2_000;
const RETIRE_LOOK_MS = 1_000;
/** A peer that dials again and again does not get to keep more. */
const MAX_RETIRED = 4;
/** A stream that could not be opened because its connection died is opened on another one, so often at most. */
const OPEN_ATTEMPTS = 3;
const STANDBY_DELAY_MS = 100;

interface Waiter {
  readonly admit: (connection: QuicConnection) => void;
  readonly refuse: (fault: Unavailable) => void;
}

/**
 * The persistent connection with one peer: dials or waits, dials again with backoff, checks health, gives streams to calls.
 *
 * There may be two connections. Calls use the newer one; the other one stands by, and calls move to it in the moment in
 * which the newer one dies. The side that dials decides whether there is a second one (`limits.standby`), and replaces
 * each after `connectionMaxAgeMs`: first the new connection, then the old one retires.
 */
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
  /** The one in use first. */
  #seats: readonly Seat[] = [];
  #retired: readonly Retired[] = [];
  #dialling: QuicConnection | "begun" | undefined;
  #attempt = 0;
  #connections = 0;
  #lastFault: Unavailable | undefined;
  #cancelRedial: (() => void) | undefined;
  #cancelHealth: (() => void) | undefined;
  #cancelRetiring: (() => void) | undefined;
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

  get stopped(): boolean {
    return this.#stopped;
  }

  /** The connection that calls use. */
  get connection(): QuicConnection | undefined {
    return this.#seats[0]?.connection;
  }

  start(): void {
    if (this.dials) void this.#dial();
  }

  /** The transport for one class of calls; calls wait for a connection within their deadline. */
  transport(trafficClass: TrafficClass): Transport {
    let transport = this.#transports.get(trafficClass);
    if (transport === undefined) {
      transport = repeatingIdempotent(
        quicTransport({
          open: (name, signal) => this.#openStream(name, signal),
          trafficClass,
          limits: this.#dependencies.limits,
        }),
        { clock: this.#dependencies.clock, hasConnection: () => this.connection !== undefined },
      );
      this.#transports.set(trafficClass, transport);
    }
    return transport;
  }

  /** Resolves with the live connection; waits for one until the signal aborts, or `connectionWaitMs` without a signal. */
  connected(signal: AbortSignal | undefined): Promise<QuicConnection> {
    if (this.connection !== undefined) return Promise.resolve(this.connection);
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

  /**
   * A connection with this peer is authenticated on both sides. The newest one is used. Of the others, those of a former
   * life of the peer and silent ones are over at once; one of the same life stands by or, when it is replaced, retires.
   */
  adopt(connection: QuicConnection): void {
    const { clock, limits } = this.#dependencies;
    if (connection === this.#dialling) this.#dialling = undefined;
    const life = connection.peerIncarnation;
    const silent = this.#seats.filter((each) => each.silent).map((each) => each.connection);
    const isOver = (other: QuicConnection) => life === "" || other.peerIncarnation !== life || silent.includes(other);
    const known = [...this.#seats, ...this.#retired].map((each) => each.connection);
    const over = new Set(known.filter(isOver));
    const others = this.#seats.filter((seat) => !over.has(seat.connection));
    this.#retired = this.#retired.filter((each) => !over.has(each.connection));
    const seat: Seat = {
      connection,
      outdated: false,
      silent: false,
      cancelAge: this.dials
        ? clock.after(this.#jittered(limits.connectionMaxAgeMs), () => this.#outdate([seat]))
        : () => {},
    };
    // The side that accepts keeps what the dialling side keeps; it cannot know which one is meant to go.
    const room = this.dials && !limits.standby ? 1 : MAX_SEATS;
    const staying = others.filter(({ outdated }) => !outdated).slice(0, room - 1);
    for (const gone of this.#seats.filter((each) => !staying.includes(each))) gone.cancelAge();
    this.#seats = [seat, ...staying];
    this.#retire(others.filter((each) => !staying.includes(each)));
    this.#connections += 1;
    this.#attempt = 0;
    this.#cancelRedial?.();
    this.#become("active");
    for (const former of over) former.close(CLOSE.superseded, "superseded by a newer connection");
    for (const waiter of [...this.#waiters]) waiter.admit(connection);
    this.#watch(connection);
    if (this.#wantsAnother()) this.#redial(STANDBY_DELAY_MS);
  }

  /**
   * The peer stopped answering pings on a connection. It may be busy, so calls that it has go on; new ones begin on the
   * other connection when that one is not silent. And as our address may have changed for the peer, we dial again.
   */
  silent(connection: QuicConnection): void {
    const seat = this.#seats.find((each) => each.connection === connection);
    if (seat === undefined) return;
    seat.silent = true;
    if (seat === this.#seats[0]) {
      const other = this.#seats.find((each) => !each.silent);
      if (other === undefined) this.#become("degraded");
      else this.#moveTo(other.connection, "no answer to pings");
    }
    void this.#dial();
  }

  /** A silent peer is back: what is being dialled in its place is not needed. */
  heard(connection: QuicConnection): void {
    const seat = this.#seats.find((each) => each.connection === connection);
    if (seat === undefined) return;
    seat.silent = false;
    if (seat === this.#seats[0]) this.#become("active");
    else if (this.#seats[0]?.silent === true) this.#moveTo(connection, "heard again");
    const attempt = this.#dialling;
    if (this.#lacksOne() || attempt === undefined || attempt === "begun") return;
    this.#dialling = undefined;
    attempt.close(CLOSE.superseded, NOT_NEEDED);
  }

  /** A connection with this peer ended, active or not. */
  lost(connection: QuicConnection, fault: Unavailable): void {
    const wasDialled = connection === this.#dialling;
    if (wasDialled) this.#dialling = undefined;
    if (this.#seats.length === 0) this.#lastFault = fault;
    this.#retired = this.#retired.filter((each) => each.connection !== connection);
    const seat = this.#seats.find((each) => each.connection === connection);
    // An attempt of the peer that failed, or one that retired: what is current does not change.
    if (seat === undefined && !wasDialled) return;
    this.#lastFault = fault;
    seat?.cancelAge();
    const wasInUse = seat !== undefined && seat === this.#seats[0];
    this.#seats = this.#seats.filter((each) => each !== seat);
    const next = this.connection;
    if (next !== undefined) {
      if (wasInUse) this.#moveTo(next, fault.message);
    } else {
      this.#cancelHealth?.();
      this.#become("dead");
    }
    this.#redial();
  }

  /** Replaces the connections that we dialled, one after the other and without failing a call: credentials have changed. */
  refresh(): void {
    if (this.dials) this.#outdate(this.#seats);
  }

  status(): PeerLinkStatus {
    const { connection } = this;
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
      standby: this.#seats.length > 1,
      lastFault: this.#lastFault,
    };
  }

  /** No more attempts; waiting calls fail. The connections themselves are closed by the endpoint. */
  stop(): void {
    this.#stopped = true;
    this.#cancelRedial?.();
    this.#cancelHealth?.();
    this.#cancelRetiring?.();
    for (const seat of this.#seats) seat.cancelAge();
    for (const waiter of [...this.#waiters]) waiter.refuse(this.#absence());
  }

  /** Closes every connection with the peer. */
  close(code: number, reason: string): void {
    for (const { connection } of [...this.#seats, ...this.#retired]) connection.close(code, reason);
  }

  async #openStream(trafficClass: TrafficClass, signal: AbortSignal | undefined): Promise<QuicStream> {
    for (let attempt = 1; ; attempt += 1) {
      const connection = this.connection ?? (await this.connected(signal));
      try {
        return await connection.openStream(trafficClass, signal);
      } catch (error) {
        // Nothing of the call has left: it may wait or go to another connection without being done twice.
        const died = connection.phase === "closed" && !this.#stopped && signal?.aborted !== true;
        if (!died || attempt >= OPEN_ATTEMPTS) throw error;
      }
    }
  }

  async #dial(): Promise<void> {
    const { host, port } = this.#address;
    if (this.#stopped || !this.#wantsAnother()) return;
    if (this.#seats.length === 0) this.#become("connecting");
    this.#dialling = "begun";
    try {
      if (host === undefined || port === undefined) {
        throw new Unavailable("address-unknown", `no address to dial ${this.nodeId}`, { peer: this.nodeId });
      }
      const attempt = await this.#dependencies.dial({ nodeId: this.nodeId, host, port });
      this.#dialling = this.#lacksOne() ? attempt : undefined;
      if (this.#dialling === undefined) attempt.close(CLOSE.superseded, NOT_NEEDED);
    } catch (error) {
      this.#dialling = undefined;
      this.#lastFault =
        error instanceof Unavailable ? error : new Unavailable("dial-failed", `cannot dial ${this.nodeId}`, {}, error);
      if (this.#seats.length === 0) this.#become("dead");
      this.#redial();
    }
  }

  /** True while a connection is missing, silent, or to be replaced, and none is on its way. */
  #wantsAnother(): boolean {
    return this.dials && this.#dialling === undefined && this.#lacksOne();
  }

  #lacksOne(): boolean {
    const good = this.#seats.filter(({ outdated, silent }) => !outdated && !silent).length;
    return good < (this.#dependencies.limits.standby ? MAX_SEATS : 1);
  }

  #redial(delay?: number): void {
    if (!this.dials || this.#stopped) return;
    const { redialDelaysMs } = this.#dependencies.limits;
    const delayMs = delay ?? redialDelaysMs[Math.min(this.#attempt, redialDelaysMs.length - 1)] ?? 1_000;
    if (delay === undefined) this.#attempt += 1;
    this.#cancelRedial?.();
    this.#cancelRedial = this.#dependencies.clock.after(this.#jittered(delayMs), () => void this.#dial());
  }

  #outdate(seats: readonly Seat[]): void {
    for (const seat of seats) seat.outdated = true;
    if (!this.#stopped) void this.#dial();
  }

  /** Calls begin on the other connection from now on. */
  #moveTo(connection: QuicConnection, why: string): void {
    this.#seats = [...this.#seats].sort(
      (a, b) => Number(b.connection === connection) - Number(a.connection === connection),
    );
    this.#dependencies.log({ level: "warn", event: "peer-failover", facts: { peer: this.nodeId, why } });
    this.#become("active");
    this.#watch(connection);
  }

  #retire(seats: readonly Seat[]): void {
    const sinceMs = this.#dependencies.clock.monotonicMs();
    const all = [...this.#retired, ...seats.map(({ connection }) => ({ connection, sinceMs }))];
    this.#retired = all.slice(-MAX_RETIRED);
    for (const { connection } of all.slice(0, -MAX_RETIRED)) connection.close(CLOSE.superseded, "replaced too often");
    this.#tendRetired();
  }

  #tendRetired(): void {
    this.#cancelRetiring?.();
    const { clock, limits } = this.#dependencies;
    const nowMs = clock.monotonicMs();
    for (const { connection, sinceMs } of this.#retired) {
      const ageMs = nowMs - sinceMs;
      const isDone = ageMs >= RETIRE_GRACE_MS && connection.openStreams === 0;
      if (isDone || ageMs >= limits.retireMs) connection.close(CLOSE.superseded, "replaced by a newer connection");
    }
    if (this.#retired.length === 0 || this.#stopped) return;
    this.#cancelRetiring = clock.after(RETIRE_LOOK_MS, () => this.#tendRetired());
  }

  /** A quarter more or less, so that peers of a node that comes back do not all dial at once. */
  #jittered(delayMs: number): number {
    const [byte = 128] = this.#dependencies.random.bytes(1);
    return delayMs * (0.75 + byte / 512);
  }

  #watch(connection: QuicConnection): void {
    this.#cancelHealth?.();
    void this.#checkHealth(connection);
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
    if (this.connection !== connection || this.#stopped) return;
    if (healthy) this.#latency.add(clock.monotonicMs() - startedMs);
    this.#success.add(healthy ? 1 : 0);
    this.#become(healthy ? "active" : "degraded");
    const reserve = this.#seats[1]?.connection;
    this.#cancelHealth = clock.after(limits.healthIntervalMs, () => {
      // Asked again over the other connection: if that one answers, this one was the trouble.
      if (!healthy && reserve !== undefined && this.#seats[1]?.connection === reserve)
        this.#moveTo(reserve, "no answer");
      else void this.#checkHealth(connection);
    });
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
