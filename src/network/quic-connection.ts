import type { RecvInfo, SendInfo } from "@matrixai/quic/native/types.js";
import type { Clock } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";
import { Greeting } from "./greeting.js";
import type { NetworkLimits } from "./network-limits.js";
import { type PeerVerifier, verifyPeer } from "./peer-verifier.js";
import type { NativeConnection, QuicBinding } from "./quic-binding.js";
import { QuicStream } from "./quic-stream.js";
import { streamUrgency, TRAFFIC_CLASSES, type TrafficClass } from "./traffic-class.js";

/** Application codes of CONNECTION_CLOSE. */
export const CLOSE = { done: 0, refused: 1, superseded: 2, protocol: 3, timeout: 4 } as const;

/** Where a connection stands: TLS, then hello both ways, then calls. */
export type ConnectionPhase = "handshake" | "greeting" | "active" | "closed";

/** What the owner of a connection is told. */
export interface ConnectionEvents {
  /** The peer is authenticated and has accepted us. */
  active(connection: QuicConnection): void;
  /** A peer opened a stream; the owner sets its consumer before returning. */
  stream(stream: QuicStream, connection: QuicConnection): void;
  /** Nothing has come from the peer for `silenceMs`: it is gone, stopped, busy or cut off. The connection waits on. */
  silent(connection: QuicConnection): void;
  /** A silent peer is heard again. */
  heard(connection: QuicConnection): void;
  closed(connection: QuicConnection, fault: Unavailable): void;
}

/** What the endpoint lends to its connections. */
export interface ConnectionHost {
  readonly binding: QuicBinding;
  readonly limits: NetworkLimits;
  readonly clock: Clock;
  readonly nodeId: string;
  /** Random at each start of this process. */
  readonly incarnation: Uint8Array;
  readonly verifier: PeerVerifier;
  /** Scratch space for stream reads, shared because reads are synchronous. */
  readonly readScratch: Buffer;
  /** Asks for a flush at the end of this turn of the event loop. */
  scheduleFlush(connection: QuicConnection): void;
  /** Writes packets until `next` returns null. */
  transmit(next: (buffer: Buffer) => [number, SendInfo] | null): void;
  /** The connection needs no packets any more. */
  forget(connection: QuicConnection): void;
}

interface Waiting {
  readonly resolve: (stream: QuicStream) => void;
  readonly reject: (fault: Unavailable) => void;
}

const STOP_SCAN_INTERVAL_MS = 10;
const ASK_AT_MOST_STREAMS = 40;

/** How long an acknowledgement waits for bytes that go the same way; a peer allows 25 ms. */
const ACKNOWLEDGEMENT_DELAY_MS = 3;
/** So many datagrams are acknowledged at once: RFC 9000, 13.2.2, says two packets, and some only acknowledge themselves. */
const ACKNOWLEDGED_AT_LEAST = 3;

/**
 * One QUIC connection over the native binding: hands datagrams to quiche synchronously, flushes once a turn, runs the
 * timers, opens streams only while the peer allows it, and never lets an exception of the binding out of a packet path.
 */
export class QuicConnection {
  readonly key: string;
  readonly role: "client" | "server";
  readonly remote: { readonly host: string; readonly port: number };
  readonly expectedNodeId: string | undefined;
  /** `address:port` of the peer. */
  readonly source: string;
  /** Monotonic time of the last datagram. */
  lastReceivedMs: number;
  #phase: ConnectionPhase = "handshake";
  #peerNodeId = "";
  #peerIncarnation = "";
  /** DER, as the peer showed it in the handshake. */
  #peerChain: readonly Uint8Array[] | undefined;
  readonly #native: NativeConnection;
  readonly #host: ConnectionHost;
  readonly #events: ConnectionEvents;
  readonly #arrival: RecvInfo;
  readonly #streams = new Map<number, QuicStream>();
  readonly #pending: readonly Set<QuicStream>[] = TRAFFIC_CLASSES.map(() => new Set<QuicStream>());
  readonly #queues: readonly Waiting[][] = TRAFFIC_CLASSES.map(() => []);
  readonly #openCalls: number[] = TRAFFIC_CLASSES.map(() => 0);
  #queued = 0;
  #nextStreamId: number;
  /** Above every stream that the peer has opened. */
  #nextPeerStreamId: number;
  /** Streams of the peer whose request is complete: only STOP_SENDING can still cancel them. */
  readonly #answering = new Set<QuicStream>();
  #stopScanMs = 0;
  #cancelStopScan: (() => void) | undefined;
  #receivedBytes = 0;
  /** Packets that authenticated, as of the last look, and when the last of them came. */
  #authentic = 0;
  #heardMs = 0;
  #silent = false;
  #lookedThisTurn = false;
  #unseen = false;
  /** Datagrams received since the last transmission. */
  #unacknowledged = 0;
  /** Whether there is more to transmit than streams' bytes and acknowledgements. */
  #mustTransmit = false;
  #cancelAcknowledgement: (() => void) | undefined;
  #lost: Unavailable | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #cancelTimer: (() => void) | undefined;
  #cancelKeepAlive: (() => void) | undefined;
  #cancelDeadline: (() => void) | undefined;
  #closeReason: Unavailable | undefined;
  #disposed = false;

  constructor(
    options: {
      key: string;
      role: "client" | "server";
      native: NativeConnection;
      local: { host: string; port: number };
      remote: { host: string; port: number };
      expectedNodeId: string | undefined;
    },
    host: ConnectionHost,
    events: ConnectionEvents,
  ) {
    this.key = options.key;
    this.role = options.role;
    this.remote = options.remote;
    this.expectedNodeId = options.expectedNodeId;
    this.#native = options.native;
    this.#host = host;
    this.#events = events;
    this.#arrival = { from: options.remote, to: options.local };
    this.source = `${options.remote.host}:${options.remote.port}`;
    this.#nextStreamId = options.role === "client" ? 0 : 1;
    this.#nextPeerStreamId = options.role === "client" ? 1 : 0;
    this.lastReceivedMs = host.clock.monotonicMs();
    this.#cancelDeadline = host.clock.after(host.limits.connectTimeoutMs, () =>
      this.close(CLOSE.timeout, "connection was not accepted in time"),
    );
    host.scheduleFlush(this);
  }

  get phase(): ConnectionPhase {
    return this.#phase;
  }

  /** Node id of the verified certificate; empty before. */
  get peerNodeId(): string {
    return this.#peerNodeId;
  }

  /** Certificate chain that the peer showed in the handshake, leaf first, DER; empty before. */
  get peerChain(): readonly Uint8Array[] {
    return this.#peerChain ?? [];
  }

  /** Differs between two lives of the peer's process; empty before the hello, and from peers that do not tell. */
  get peerIncarnation(): string {
    return this.#peerIncarnation;
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  /** Packets sent and lost, and the smoothed round-trip time, as quiche counts them. */
  pathStatistics(): { sent: number; lost: number; rttMs: number } {
    try {
      const { sent, lost } = this.#native.stats();
      const [path] = this.#native.pathStats();
      return { sent, lost, rttMs: (path?.rtt ?? 0) / 1_000_000 };
    } catch {
      return { sent: 0, lost: 0, rttMs: 0 };
    }
  }

  /**
   * Takes a datagram. Total: a datagram that quiche refuses closes the connection at most.
   *
   * Migration is off: quiche 0.18 follows a peer to a new address, but of what was in flight to the old one it repairs two
   * packets and no more, so that streams hang. The dialling side connects again when the peer falls silent.
   *
   * @param source `address:port`; from another source it is not this connection's
   */
  receive(datagram: Buffer, source: string): void {
    if (source !== this.source || this.#lost !== undefined) return;
    this.#receivedBytes += datagram.length;
    if (this.#phase !== "active" && this.#receivedBytes > this.#host.limits.unauthenticatedBytes) {
      this.close(CLOSE.protocol, "too much data before the hello");
      return;
    }
    this.lastReceivedMs = this.#host.clock.monotonicMs();
    this.#absorb(datagram);
    if (this.#silent) this.#noticeLife();
    // Looking through the streams costs more than the packet. The first packet of a turn is looked at right away, so that
    // a lone call is answered in this turn; the rest of a burst is looked at together, before the flush.
    if (this.#lookedThisTurn) this.#unseen = true;
    else this.#advance();
    this.#lookedThisTurn = true;
    this.#unacknowledged += 1;
    this.#host.scheduleFlush(this);
  }

  /** Takes a datagram that may be the peer's stateless reset; only the peer of this connection knows the token. */
  receiveReset(datagram: Buffer): void {
    if (this.#lost !== undefined) return;
    this.#absorb(datagram);
    this.#checkClosed();
  }

  /**
   * Opens a stream for a call of a class, waiting in a bounded queue while the class or the peer has no room.
   *
   * @throws {Unavailable} `queue-full`, or why the connection is lost
   */
  openStream(trafficClass: TrafficClass, signal?: AbortSignal): Promise<QuicStream> {
    const rank = TRAFFIC_CLASSES.indexOf(trafficClass);
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    const queue = this.#queueOf(rank);
    if (queue.length === 0 && this.#hasRoom(rank)) return Promise.resolve(this.#open(rank));
    if (queue.length >= this.#host.limits.queuedCalls) {
      return Promise.reject(
        new Unavailable("queue-full", `too many ${trafficClass} calls wait for ${this.#peerNodeId}`, {
          peer: this.#peerNodeId,
          limit: this.#host.limits.queuedCalls,
        }),
      );
    }
    return new Promise((resolve, reject) => this.#enqueue(queue, { resolve, reject }, signal));
  }

  /** The hello travels on the first stream, before any call and outside the classes. */
  openGreetingStream(): QuicStream {
    return this.#openLocal(0);
  }

  /** The greeting is over: calls may flow. */
  greeted(peerIncarnation: string): void {
    if (this.#phase !== "greeting") return;
    this.#peerIncarnation = peerIncarnation;
    this.#phase = "active";
    this.#cancelDeadline?.();
    this.#heardMs = this.lastReceivedMs;
    this.#keepAlive();
    this.#events.active(this);
    this.#readStreams();
    this.#transmitSoon();
  }

  /** Closes with a reason that the peer is shown. Streams and waiting calls fail at once. */
  close(code: number, reason: string): void {
    if (this.#lost !== undefined) return;
    this.#closeReason = new Unavailable("connection-closed", reason, { peer: this.#peerName(), side: "local" });
    this.#attempt(() => this.#native.close(true, code, Buffer.from(reason.slice(0, 200))));
    this.#lose(this.#closeReason);
    this.flush();
  }

  /**
   * Forgets a connection in its handshake or after its close, without a word: whoever holds it was not let in yet, or has
   * been told, and its owner knows nothing of it, or has been told too.
   */
  abandon(): void {
    this.#lost ??= new Unavailable("connection-closed", "its place was needed", { peer: this.source, side: "local" });
    this.#phase = "closed";
    this.#cancelDeadline?.();
    this.dispose();
    this.#host.forget(this);
  }

  /** Stops every timer: the endpoint goes away and with it this connection. */
  dispose(): void {
    this.#cancelTimer?.();
    this.#cancelAcknowledgement?.();
    this.#disposed = true;
  }

  /** Called by the endpoint once a turn, and at close. */
  flush(): void {
    const look = this.#unseen && this.#lost === undefined;
    this.#lookedThisTurn = false;
    this.#unseen = false;
    if (look) this.#advance();
    const hasBytes = this.#pending.some((streams) => streams.size > 0);
    if (this.#lost === undefined) this.#drainStreams();
    if (hasBytes || this.#mustTransmit || !this.#mayAcknowledgeLater()) this.#transmitAll();
    this.#checkClosed();
    this.#armTimer();
  }

  // ---- what streams ask of their connection

  wantsToSend(stream: QuicStream): void {
    this.#pending[stream.rank]?.add(stream);
    this.#host.scheduleFlush(this);
  }

  wantsToReceive(stream: QuicStream): void {
    if (this.#lost !== undefined) return;
    this.#readStream(stream);
    this.#transmitSoon(); // the peer waits for room
  }

  shutdown(stream: QuicStream, direction: "read" | "write", code: number): void {
    if (this.#lost !== undefined) return;
    const { Shutdown } = this.#host.binding;
    this.#attempt(() =>
      this.#native.streamShutdown(stream.id, direction === "read" ? Shutdown.Read : Shutdown.Write, code),
    );
    this.#transmitSoon();
  }

  streamClosed(stream: QuicStream): void {
    this.#pending[stream.rank]?.delete(stream);
    this.#answering.delete(stream);
    if (!this.#streams.delete(stream.id)) return;
    if (this.#isLocal(stream.id) && stream.id !== 0) {
      this.#openCalls[stream.rank] = (this.#openCalls[stream.rank] ?? 1) - 1;
      this.#admitQueued();
    }
  }

  /** The class of a peer's stream is known once its head is read. */
  setRank(stream: QuicStream, rank: number): void {
    if (stream.rank === rank) return;
    if (this.#pending[stream.rank]?.delete(stream)) this.#pending[rank]?.add(stream);
    stream.rank = rank;
    this.#attempt(() => this.#native.streamPriority(stream.id, streamUrgency(rank), true));
  }

  // ---- opening

  #isLocal(streamId: number): boolean {
    return (streamId & 1) === (this.role === "client" ? 0 : 1);
  }

  #queueOf(rank: number): Waiting[] {
    return this.#queues[rank] ?? [];
  }

  #hasRoom(rank: number): boolean {
    const name = TRAFFIC_CLASSES[rank];
    if (name === undefined || this.#phase !== "active") return false;
    return (
      (this.#openCalls[rank] ?? 0) < this.#host.limits.callsPerClass[name] && this.#native.peerStreamsLeftBidi() > 0
    );
  }

  #open(rank: number): QuicStream {
    this.#openCalls[rank] = (this.#openCalls[rank] ?? 0) + 1;
    return this.#openLocal(rank);
  }

  #openLocal(rank: number): QuicStream {
    const stream = this.#track(this.#nextStreamId, rank);
    this.#nextStreamId += 4;
    this.#attempt(() => this.#native.streamPriority(stream.id, streamUrgency(rank), true));
    return stream;
  }

  #track(id: number, rank: number): QuicStream {
    const stream = new QuicStream(this, { id, rank, sendBufferBytes: this.#host.limits.sendBufferBytes });
    this.#streams.set(id, stream);
    return stream;
  }

  #enqueue(queue: Waiting[], { resolve, reject }: Waiting, signal: AbortSignal | undefined): void {
    const leave = () => {
      const at = queue.indexOf(waiting);
      if (at < 0) return;
      queue.splice(at, 1);
      this.#queued -= 1;
      reject(new Unavailable("call-abandoned", "the call ended before it had a stream"));
    };
    const waiting: Waiting = {
      resolve: (stream) => {
        signal?.removeEventListener("abort", leave);
        resolve(stream);
      },
      reject: (fault) => {
        signal?.removeEventListener("abort", leave);
        reject(fault);
      },
    };
    queue.push(waiting);
    this.#queued += 1;
    signal?.addEventListener("abort", leave, { once: true });
    if (signal?.aborted === true) leave();
  }

  #admitQueued(): void {
    if (this.#queued === 0 || this.#lost !== undefined) return;
    for (const [rank, queue] of this.#queues.entries()) {
      while (queue.length > 0 && this.#hasRoom(rank)) {
        const next = queue.shift();
        this.#queued -= 1;
        next?.resolve(this.#open(rank));
      }
    }
  }

  // ---- receiving

  #absorb(datagram: Buffer): void {
    this.#attempt(() => this.#native.recv(datagram, this.#arrival));
  }

  /** What a datagram may have changed: handshake, streams, room for new streams, death. */
  #advance(): void {
    if (this.#phase === "handshake" && this.#native.isEstablished()) this.#authenticate();
    if (this.#phase === "closed") return;
    if (this.#phase !== "handshake") this.#readStreams();
    this.#admitQueued();
    this.#scanForStops();
  }

  #authenticate(): void {
    // A resumed session would not show its certificate again; we never resume, so nobody else has reason to.
    const chain = this.#native.isResumed() ? null : this.#native.peerCertChain();
    const verdict = verifyPeer(this.#host.verifier, chain, this.expectedNodeId);
    if (!verdict.ok) {
      // A client finishes its handshake first: the server cannot read a close before that, and would wait for a timeout.
      this.#transmitAll();
      this.close(CLOSE.refused, `certificate refused: ${verdict.reason}`);
      return;
    }
    this.#peerNodeId = verdict.nodeId;
    this.#peerChain = chain?.map((der) => Uint8Array.from(der));
    this.#phase = "greeting";
    if (this.role === "client") new Greeting(this, this.#host).open(this.openGreetingStream());
  }

  /** Judges the peer's certificate again: what was good at the handshake may be revoked or have expired since. */
  reverify(): void {
    if (this.#peerChain === undefined || this.#phase === "closed") return;
    const verdict = verifyPeer(this.#host.verifier, this.#peerChain, this.expectedNodeId);
    if (!verdict.ok) this.close(CLOSE.refused, `certificate refused: ${verdict.reason}`);
  }

  #readStreams(): void {
    while (this.#lost === undefined && this.#native.isReadable()) {
      const found = this.#findReadable();
      // What is left may be paused, or not what the short search looks for: then the whole list, once.
      for (const id of found.length > 0 ? found : this.#native.readable()) this.#readById(id);
      if (found.length === 0) return;
    }
  }

  #readById(id: number): void {
    if (this.#lost !== undefined || (this.#phase === "greeting" && id !== 0)) return;
    const stream = this.#streams.get(id) ?? this.#acceptStream(id);
    if (stream !== undefined && !stream.paused) this.#readStream(stream);
  }

  /**
   * Streams that have something to read, or none when asking one by one would cost more than the binding's list, which costs as
   * much as sixty such questions.
   */
  #findReadable(): number[] {
    const found: number[] = [];
    if (this.#phase !== "active" || this.#streams.size > ASK_AT_MOST_STREAMS) return found;
    for (const [id, stream] of this.#streams) {
      if (stream.receiving && !stream.paused && this.#native.streamReadable(id)) found.push(id);
    }
    // Streams that the peer has opened since; those that came out of order are for the list.
    for (let next = this.#nextPeerStreamId; this.#native.streamReadable(next); next += 4) found.push(next);
    return found;
  }

  #acceptStream(id: number): QuicStream | undefined {
    if (this.#isLocal(id)) {
      // A stream of ours that is over on our side and still has bytes: nobody wants them.
      this.#attempt(() => this.#native.streamShutdown(id, this.#host.binding.Shutdown.Read, 0));
      return undefined;
    }
    const stream = this.#track(id, TRAFFIC_CLASSES.length - 1);
    this.#nextPeerStreamId = Math.max(this.#nextPeerStreamId, id + 4);
    if (id === 0) new Greeting(this, this.#host).answer(stream);
    else this.#events.stream(stream, this);
    return stream;
  }

  #readStream(stream: QuicStream): void {
    const scratch = this.#host.readScratch;
    while (stream.receiving && !stream.paused) {
      let result: [number, boolean] | null;
      try {
        result = this.#native.streamRecv(stream.id, scratch);
      } catch (error) {
        const code = peerCode(error) ?? 0;
        const { consumer } = stream;
        // The peer gave up its direction; a call that lost one direction is over.
        stream.receivingOver();
        stream.stopSending(code);
        consumer?.failed({ kind: "reset", code });
        return;
      }
      if (result === null) return;
      const [length, fin] = result;
      this.#deliver(stream, scratch.subarray(0, length), fin);
      // quiche fills what it is given, so there is no more.
      if (length < scratch.length) return;
    }
  }

  #deliver(stream: QuicStream, bytes: Buffer, fin: boolean): void {
    stream.receivedBytes += bytes.length;
    const { consumer } = stream;
    if (fin) {
      if (stream.sending && !this.#isLocal(stream.id)) this.#answering.add(stream);
      stream.receivingOver();
    }
    if (bytes.length > 0) consumer?.received(bytes);
    if (fin) consumer?.ended();
  }

  /**
   * After the request's FIN a cancellation shows only as STOP_SENDING, which quiche tells on asking about that stream.
   * The question costs a call into the binding for each stream, so it is asked at most every 10 ms.
   */
  #scanForStops(): void {
    if (this.#answering.size === 0 || this.#cancelStopScan !== undefined) return;
    const now = this.#host.clock.monotonicMs();
    const waitMs = this.#stopScanMs + STOP_SCAN_INTERVAL_MS - now;
    if (waitMs > 0) {
      this.#cancelStopScan = this.#host.clock.after(waitMs, () => {
        this.#cancelStopScan = undefined;
        this.#scanForStops();
      });
      return;
    }
    this.#stopScanMs = now;
    for (const stream of this.#answering) {
      try {
        this.#native.streamCapacity(stream.id);
      } catch (error) {
        this.#stoppedByPeer(stream, error);
      }
    }
  }

  #stoppedByPeer(stream: QuicStream, error: unknown): void {
    const { consumer } = stream;
    stream.sendingOver();
    // A client that sees the whole answer before its request is out may stop us without harm; a server's reader is told.
    if (!this.#isLocal(stream.id)) consumer?.failed({ kind: "reset", code: peerCode(error) ?? 0 });
  }

  // ---- sending

  #drainStreams(): void {
    for (const streams of this.#pending) {
      for (const stream of streams) {
        try {
          const all = stream.drainInto((bytes, fin) => this.#sendPiece(stream.id, bytes, fin));
          if (all) streams.delete(stream);
        } catch (error) {
          streams.delete(stream);
          this.#stoppedByPeer(stream, error);
        }
      }
    }
  }

  /**
   * Null when the window is full. quiche says the same of a stream that it has forgotten, because the peer stopped it and
   * all of it is over; asking for the capacity tells the two apart, and throws for the latter.
   */
  #sendPiece(id: number, bytes: Uint8Array, fin: boolean): number | null {
    const taken = this.#native.streamSend(id, bytes, fin);
    if (taken === null) this.#native.streamCapacity(id);
    return taken;
  }

  #transmitSoon(): void {
    this.#mustTransmit = true;
    this.#host.scheduleFlush(this);
  }

  /**
   * Whether all that could be transmitted is an acknowledgement that waits a moment: a call's answer usually follows, and
   * takes it along. quiche writes one whenever it is asked, which was a third of all datagrams of a payment.
   */
  #mayAcknowledgeLater(): boolean {
    if (this.#phase !== "active" || this.#unacknowledged >= ACKNOWLEDGED_AT_LEAST) return false;
    if (this.#unacknowledged > 0) {
      this.#cancelAcknowledgement ??= this.#host.clock.after(ACKNOWLEDGEMENT_DELAY_MS, () => {
        this.#cancelAcknowledgement = undefined;
        this.#transmitSoon();
      });
    }
    return true;
  }

  #transmitAll(): void {
    this.#unacknowledged = 0;
    this.#mustTransmit = false;
    this.#cancelAcknowledgement?.();
    this.#cancelAcknowledgement = undefined;
    this.#attempt(() => this.#host.transmit((buffer) => this.#native.send(buffer)));
  }

  // ---- timers and death

  #armTimer(): void {
    if (this.#disposed) return;
    const delayMs = this.#native.timeout();
    if (delayMs === null) return;
    const dueMs = this.#host.clock.monotonicMs() + delayMs;
    // A timer that fires early asks again; moving it at every packet would cost more.
    if (this.#cancelTimer !== undefined && this.#timerDueMs <= dueMs) return;
    this.#cancelTimer?.();
    this.#timerDueMs = dueMs;
    this.#cancelTimer = this.#host.clock.after(delayMs + 1, () => this.#timerFired());
  }

  #timerFired(): void {
    this.#cancelTimer = undefined;
    // After a busy stretch of the event loop the peer's packets wait in the socket. They are read before this immediate
    // runs, so a connection is not declared dead while the proof of its life waits to be read.
    setImmediate(() => {
      if (this.#disposed || this.#native.isClosed()) return;
      const delayMs = this.#native.timeout();
      if (delayMs !== null && delayMs <= 0) this.#attempt(() => this.#native.onTimeout());
      this.#mustTransmit = true;
      this.flush();
    });
  }

  #keepAlive(): void {
    this.#cancelKeepAlive = this.#host.clock.after(this.#host.limits.keepAliveIntervalMs, () => {
      if (this.#lost !== undefined) return;
      this.#attempt(() => this.#native.sendAckEliciting());
      this.#transmitSoon();
      // After a busy stretch of the event loop the packets that wait in the socket are read before this immediate.
      setImmediate(() => this.#noticeSilence());
      this.#keepAlive();
    });
  }

  /** Only packets that authenticate count, or whoever knows the connection id could make a dead peer look alive. */
  #noticeSilence(): void {
    if (this.#lost !== undefined || this.#silent) return;
    const authentic = this.#native.stats().recv;
    if (authentic !== this.#authentic) {
      this.#authentic = authentic;
      this.#heardMs = this.lastReceivedMs;
      return;
    }
    if (this.#host.clock.monotonicMs() - this.#heardMs < this.#host.limits.silenceMs) return;
    this.#silent = true;
    this.#events.silent(this);
  }

  #noticeLife(): void {
    if (this.#native.stats().recv === this.#authentic) return;
    this.#silent = false;
    this.#events.heard(this);
  }

  #checkClosed(): void {
    if (this.#native.isClosed()) {
      this.#lose(this.#deathCause());
      this.#cancelTimer?.();
      this.#host.forget(this);
    } else if (this.#lost === undefined && this.#native.isDraining()) {
      this.#lose(this.#deathCause());
    }
  }

  #deathCause(): Unavailable {
    if (this.#closeReason !== undefined) return this.#closeReason;
    const peer = this.#peerName();
    const failure = this.#native.peerError() ?? this.#native.localError();
    if (failure !== null) {
      const side = this.#native.peerError() === null ? "local" : "peer";
      const text = Buffer.from(failure.reason).toString("utf8").replace(UNPRINTABLE, "?").slice(0, 200);
      const reason = text === "" ? closeCodeName(failure.isApp, failure.errorCode) : text;
      return new Unavailable("connection-closed", reason, { peer, side, closeCode: failure.errorCode });
    }
    if (this.#native.isTimedOut()) return new Unavailable("connection-timed-out", `no packets from ${peer}`, { peer });
    return new Unavailable("connection-reset", `${peer} no longer knows this connection`, { peer });
  }

  #lose(fault: Unavailable): void {
    if (this.#lost !== undefined) return;
    this.#lost = fault;
    this.#phase = "closed";
    for (const cancel of [this.#cancelKeepAlive, this.#cancelDeadline, this.#cancelStopScan]) cancel?.();
    for (const queue of this.#queues) for (const waiting of queue.splice(0)) waiting.reject(fault);
    this.#queued = 0;
    for (const stream of [...this.#streams.values()]) {
      const { consumer } = stream;
      const over = stream.closed;
      stream.sendingOver();
      stream.receivingOver();
      if (!over) consumer?.failed({ kind: "lost", fault });
    }
    this.#events.closed(this, fault);
  }

  #peerName(): string {
    return this.#peerNodeId || this.expectedNodeId || this.source;
  }

  /** quiche throws strings for what is a verdict about the peer; the connection's state tells the rest. */
  #attempt(action: () => unknown): void {
    try {
      action();
    } catch {
      // #checkClosed asks quiche whether the connection survived.
    }
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: exactly these must not reach a terminal or a log
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f]/g;

/** The code in `StreamReset(5)` or `StreamStopped(5)`. */
function peerCode(error: unknown): number | undefined {
  const match = error instanceof Error ? /^Stream(?:Reset|Stopped)\((\d+)\)$/.exec(error.message) : null;
  return match?.[1] === undefined ? undefined : Number(match[1]);
}

const TLS_ALERTS: Readonly<Record<number, string>> = {
  298: "bad certificate",
  301: "certificate expired",
  304: "unknown certificate authority",
  372: "certificate required",
  376: "no common application protocol",
};

function closeCodeName(isApp: boolean, code: number): string {
  if (isApp) return `closed with application code ${code}`;
  return TLS_ALERTS[code] ?? `closed with transport code ${code}`;
}
