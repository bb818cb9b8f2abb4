import type { TrafficClass } from "./traffic-class.js";

/** Every bound of the network layer. Values are per process unless a name says otherwise. */
export interface NetworkLimits {
  /** Connections, established or not. */
  readonly connections: number;
  /** Connections that have not passed the handshake and the hello. */
  readonly halfOpen: number;
  /** Bytes a connection may receive before its peer is authenticated. */
  readonly unauthenticatedBytes: number;
  /** Datagrams that are not of a known connection and cost us work, per second and source address. */
  readonly strangerPacketsPerSecond: number;
  /** Stateless answers (Retry, version negotiation, stateless reset) per second to everybody together. */
  readonly statelessRepliesPerSecond: number;

  /** Concurrent calls a peer may open on one connection; also the sum of `callsPerClass`. */
  readonly streams: number;
  /** Concurrent calls of one class that we open on one connection; more wait in a queue. */
  readonly callsPerClass: Readonly<Record<TrafficClass, number>>;
  /** Calls waiting for a stream, per connection and class. */
  readonly queuedCalls: number;
  /** Bytes of one direction of one call. */
  readonly streamBytes: number;
  /** One frame on the wire. Larger messages travel in several data frames. */
  readonly frameBytes: number;
  /** Head or End of a call. */
  readonly headBytes: number;
  readonly headFields: number;
  /**
   * Bytes of a peer's requests that are not answered yet, over all its connections; what would go beyond is refused. At least one
   * request of `streamBytes` passes.
   */
  readonly requestBytesPerPeer: number;
  /** Bytes received and not yet consumed by the application, per stream, before the peer is slowed down. */
  readonly receiveBufferBytes: number;
  /** Bytes written and not yet sent, per stream, before the writer is slowed down. */
  readonly sendBufferBytes: number;

  /** Bytes of a UDP datagram that we send, 1,200 to 16,383: over a network, and to a loopback address. */
  readonly pathDatagramBytes: number;
  readonly loopbackDatagramBytes: number;

  /** How long the head of a call may take after its stream was opened. */
  readonly headMs: number;
  /** How long the single message of a request may take, and how long an answer may wait for its reader. */
  readonly transferMs: number;

  readonly idleTimeoutMs: number;
  readonly keepAliveIntervalMs: number;
  /** A peer from which nothing came for so long, although it was pinged, is reported; looked at with every ping. */
  readonly silenceMs: number;
  readonly connectTimeoutMs: number;
  /** How long a call without a deadline waits for a connection. */
  readonly connectionWaitMs: number;
  readonly healthIntervalMs: number;
  readonly healthTimeoutMs: number;
  /** Waits between attempts to dial; the last one repeats. Each is jittered by a quarter. */
  readonly redialDelaysMs: readonly number[];
  /** How long close() waits for calls that run. */
  readonly drainMs: number;
  /** Keep a second connection with each peer that we dial, to which calls move at once when the first one dies. */
  readonly standby: boolean;
  /** A connection that we dialled is replaced after this time, so that both sides come to show their newest certificates. */
  readonly connectionMaxAgeMs: number;
  /** How long calls on a connection that was replaced may go on. */
  readonly retireMs: number;
}

export const DEFAULT_LIMITS: NetworkLimits = {
  connections: 256,
  halfOpen: 32,
  unauthenticatedBytes: 64 * 1024,
  strangerPacketsPerSecond: 200,
  statelessRepliesPerSecond: 2_000,

  streams: 100,
  callsPerClass: { control: 40, signing: 30, dkg: 20, presign: 10 },
  queuedCalls: 4_096,
  streamBytes: 10 * 1024 * 1024,
  frameBytes: 128 * 1024,
  headBytes: 16 * 1024,
  headFields: 64,
  requestBytesPerPeer: 64 * 1024 * 1024,
  receiveBufferBytes: 256 * 1024,
  sendBufferBytes: 256 * 1024,

  // Fits every path of 1,400 bytes and more after IPv6, UDP and tunnel headers.
  pathDatagramBytes: 1_350,
  loopbackDatagramBytes: 16_383,

  headMs: 10_000,
  transferMs: 60_000,

  idleTimeoutMs: 10_000,
  keepAliveIntervalMs: 1_000,
  silenceMs: 1_800,
  connectTimeoutMs: 10_000,
  connectionWaitMs: 10_000,
  healthIntervalMs: 5_000,
  healthTimeoutMs: 4_000,
  redialDelaysMs: [100, 1_000, 2_000, 4_000],
  drainMs: 5_000,
  standby: false,
  connectionMaxAgeMs: 12 * 3_600_000,
  retireMs: 10 * 60_000,
};
