import { createHmac } from "node:crypto";
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { isIPv6 } from "node:net";
import type { Config, SendInfo } from "@matrixai/quic/native/types.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import { datagramBytes, MAX_DATAGRAM_BYTES } from "./datagram-size.js";
import type { NetworkLimits } from "./network-limits.js";
import { PacketBudget } from "./packet-budget.js";
import { CONNECTION_ID_BYTES, MIN_INITIAL_BYTES, type PacketHeader, parsePacketHeader } from "./packet-header.js";
import type { PeerVerifier } from "./peer-verifier.js";
import { loadQuicBinding, type QuicBinding } from "./quic-binding.js";
import { type ConnectionEvents, type ConnectionHost, QuicConnection } from "./quic-connection.js";
import { RetryTokens } from "./retry-token.js";

/** Certificate chain, leaf first, and its private key (PKCS #8), both PEM. */
export interface TransportCredentials {
  readonly certificateChainPem: string;
  readonly privateKeyPem: string;
}

export interface EndpointOptions {
  readonly nodeId: string;
  readonly listen: { readonly host: string; readonly port: number };
  readonly credentials: TransportCredentials;
  readonly limits: NetworkLimits;
}

export interface EndpointDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly verifier: PeerVerifier;
  readonly events: ConnectionEvents;
}

const APPLICATION_PROTOCOL = "mpc-wallet/1";
/** Retry, version negotiation: a stranger is never answered with more than it sent. */
const STATELESS_REPLY_BYTES = MIN_INITIAL_BYTES;
const INCARNATION_BYTES = 8;
const READ_SCRATCH_BYTES = 64 * 1024;
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024;
/** Smallest stateless reset (RFC 9000, section 10.3). A reset is shorter than what it answers, so no two resets loop. */
const MIN_RESET_BYTES = 21;
const MAX_RESET_BYTES = 42;
const STREAM_WINDOW_BYTES = 512 * 1024;
/**
 * The connection's own window never closes: quiche 0.18 does not return the credit of bytes that were dropped with a
 * reset stream, so a real one would leak shut. Memory is bounded by streams times their windows.
 */
const UNLIMITED_BYTES = 2 ** 50;

const SIGNATURE_ALGORITHMS = [
  "ecdsa_secp256r1_sha256",
  "ecdsa_secp384r1_sha384",
  "ecdsa_secp521r1_sha512",
  "ed25519",
  "rsa_pss_rsae_sha256",
  "rsa_pss_rsae_sha384",
  "rsa_pss_rsae_sha512",
].join(":");

/**
 * One UDP socket that listens and dials. Datagrams are routed by connection id; strangers cost no memory until their
 * address is proved, and no datagram of whatever content can throw out of here.
 */
export class QuicEndpoint {
  readonly port: number;
  readonly #options: EndpointOptions;
  readonly #dependencies: EndpointDependencies;
  readonly #socket: Socket;
  readonly #local: { readonly host: string; readonly port: number };
  readonly #host: ConnectionHost;
  readonly #connections = new Map<string, QuicConnection>();
  readonly #dirty = new Set<QuicConnection>();
  readonly #tokens: RetryTokens;
  readonly #retryBudget: PacketBudget;
  readonly #strayBudget: PacketBudget;
  #credentials: TransportCredentials;
  #resetKey: Buffer;
  #flushScheduled = false;
  #sendBuffer = Buffer.allocUnsafeSlow(MAX_DATAGRAM_BYTES);
  #accepting = true;
  #closed = false;

  private constructor(
    options: EndpointOptions,
    dependencies: EndpointDependencies,
    wiring: { binding: QuicBinding; socket: Socket },
  ) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#credentials = options.credentials;
    this.#resetKey = resetKey(options.credentials);
    this.#socket = wiring.socket;
    const { address, port } = wiring.socket.address();
    this.#local = { host: address, port };
    this.port = port;
    this.#tokens = new RetryTokens(dependencies.random.bytes(32));
    const budget = {
      perSourcePerSecond: options.limits.strangerPacketsPerSecond,
      perSecond: options.limits.statelessRepliesPerSecond,
      nowMs: dependencies.clock.monotonicMs(),
    };
    this.#retryBudget = new PacketBudget(budget);
    this.#strayBudget = new PacketBudget(budget);
    this.#host = {
      binding: wiring.binding,
      limits: options.limits,
      clock: dependencies.clock,
      nodeId: options.nodeId,
      incarnation: dependencies.random.bytes(INCARNATION_BYTES),
      verifier: dependencies.verifier,
      readScratch: Buffer.allocUnsafeSlow(READ_SCRATCH_BYTES),
      scheduleFlush: (connection) => this.#scheduleFlush(connection),
      transmit: (next) => this.#transmit(next),
      forget: (connection) => this.#forget(connection),
    };
    this.#socket.on("message", (datagram, remote) => this.#receive(datagram, remote));
    // ICMP errors and a full send buffer look like packet loss, which QUIC repairs.
    this.#socket.on("error", () => {});
  }

  /**
   * Binds the socket.
   *
   * @throws {Unavailable} `quic-platform-unsupported`; `listen-failed` when the address is taken or not ours
   * @throws {InvalidInput} `credentials-invalid` when certificate and key do not load
   */
  static async start(options: EndpointOptions, dependencies: EndpointDependencies): Promise<QuicEndpoint> {
    const binding = await loadQuicBinding();
    const family = isIPv6(options.listen.host) ? "udp6" : "udp4";
    const socket = createSocket({
      type: family,
      recvBufferSize: SOCKET_BUFFER_BYTES,
      sendBufferSize: SOCKET_BUFFER_BYTES,
      // Addresses are numeric here; Node would otherwise go through its resolver for every datagram.
      lookup: (host, _options, callback) => callback(null, host, family === "udp6" ? 6 : 4),
    });
    const host = await numericAddress(options.listen.host, family);
    await new Promise<void>((resolve, reject) => {
      socket.once("error", (cause) =>
        reject(
          new Unavailable(
            "listen-failed",
            `cannot listen on ${options.listen.host}:${options.listen.port}`,
            { host: options.listen.host, port: options.listen.port },
            cause,
          ),
        ),
      );
      socket.bind(options.listen.port, host, resolve);
    });
    socket.removeAllListeners("error");
    const endpoint = new QuicEndpoint(options, dependencies, { binding, socket });
    try {
      endpoint.#config(host);
      return endpoint;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /** Judges every live peer's certificate again and closes the connections of those that are refused by now. */
  reverify(): void {
    for (const connection of [...this.#connections.values()]) connection.reverify();
  }

  /**
   * New connections show the new certificate; live ones stay.
   *
   * @throws {InvalidInput} `credentials-invalid`; the old credentials stay in use
   */
  useCredentials(credentials: TransportCredentials): void {
    const previous = this.#credentials;
    this.#credentials = credentials;
    try {
      this.#config(this.#local.host);
    } catch (error) {
      this.#credentials = previous;
      throw error;
    }
    this.#resetKey = resetKey(credentials);
  }

  /**
   * Starts a connection; the events tell what becomes of it.
   *
   * @throws {Unavailable} `address-unknown`, `too-many-connections`, `endpoint-closed`
   */
  async dial(peer: { nodeId: string; host: string; port: number }): Promise<QuicConnection> {
    const family = isIPv6(this.#local.host) ? "udp6" : "udp4";
    const host = await numericAddress(peer.host, family);
    if (this.#closed) throw new Unavailable("endpoint-closed", "this endpoint is closing");
    if (this.#connections.size >= this.#options.limits.connections) {
      throw new Unavailable("too-many-connections", "no room for another connection");
    }
    const scid = this.#dependencies.random.bytes(CONNECTION_ID_BYTES);
    const remote = { host, port: peer.port };
    const native = this.#host.binding.Connection.connect(null, scid, this.#local, remote, this.#config(host));
    return this.#adopt(
      new QuicConnection(
        {
          key: connectionKey(Buffer.from(scid)),
          role: "client",
          native,
          local: this.#local,
          remote,
          expectedNodeId: peer.nodeId,
        },
        this.#host,
        this.#dependencies.events,
      ),
    );
  }

  /** Refuses new connections from now on. */
  stopAccepting(): void {
    this.#accepting = false;
  }

  /** Closes every connection with a reason, then the socket. */
  async close(code: number, reason: string): Promise<void> {
    if (this.#closed) return;
    this.#accepting = false;
    for (const connection of [...this.#connections.values()]) connection.close(code, reason);
    this.#closed = true;
    for (const connection of this.#connections.values()) connection.dispose();
    this.#connections.clear();
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()));
  }

  // ---- receiving

  #receive(datagram: Buffer, { address, port }: RemoteInfo): void {
    if (this.#closed) return;
    const header = parsePacketHeader(datagram);
    if (header === undefined) return;
    const source = `${address}:${port}`;
    const connection = this.#connections.get(connectionKey(header.dcid));
    if (connection !== undefined) {
      connection.receive(datagram, source);
    } else if (header.kind === "short") {
      this.#answerStray(datagram, header, { address, port, source });
    } else if (this.#accepting && datagram.length >= MIN_INITIAL_BYTES) {
      this.#answerStranger(datagram, header, { address, port, source });
    }
  }

  #answerStranger(
    datagram: Buffer,
    header: Exclude<PacketHeader, { kind: "short" }>,
    from: { address: string; port: number; source: string },
  ): void {
    const nowMs = this.#dependencies.clock.monotonicMs();
    const { binding } = this.#host;
    if (header.version !== binding.PROTOCOL_VERSION) {
      // Version 0 is itself a version negotiation; answering one would make a loop.
      if (header.version === 0 || !this.#strayBudget.take(from.address, nowMs)) return;
      this.#reply(from, (out) => binding.negotiateVersion(header.scid, header.dcid, out));
      return;
    }
    // 0-RTT, Handshake and Retry of unknown connections end here; so do Initials whose id is too short to be random.
    if (header.kind !== "initial" || header.dcid.length < 8) return;
    const { source } = from;
    if (header.token.length === 0) {
      if (!this.#retryBudget.take(from.address, nowMs)) return;
      const claim = { source, originalDcid: header.dcid };
      const token = this.#tokens.mint(claim, nowMs);
      const id = this.#tokens.connectionId(claim);
      this.#reply(from, (out) => binding.retry(header.scid, header.dcid, id, token, header.version, out));
      return;
    }
    const originalDcid = this.#tokens.redeem(header.token, { source, dcid: header.dcid, nowMs });
    if (originalDcid !== undefined) this.#accept(datagram, { header, originalDcid, from });
  }

  #accept(
    datagram: Buffer,
    proved: {
      header: PacketHeader;
      originalDcid: Buffer;
      from: { address: string; port: number; source: string };
    },
  ): void {
    if (!this.#makeRoom()) return;
    const { dcid } = proved.header;
    const remote = { host: proved.from.address, port: proved.from.port };
    let connection: QuicConnection;
    try {
      const config = this.#config(remote.host, resetToken(this.#resetKey, dcid));
      const native = this.#host.binding.Connection.accept(dcid, proved.originalDcid, this.#local, remote, config);
      connection = new QuicConnection(
        { key: connectionKey(dcid), role: "server", native, local: this.#local, remote, expectedNodeId: undefined },
        this.#host,
        this.#dependencies.events,
      );
    } catch {
      // An address that quiche cannot parse, such as one with an IPv6 zone. The client sees silence and gives up.
      return;
    }
    this.#adopt(connection).receive(datagram, proved.from.source);
  }

  /**
   * A packet of a connection that we do not know. From a peer that we dialled it may be a stateless reset, whose id is
   * random: quiche knows the token. From anybody else it is usually of a connection from before our restart: a reset tells the
   * peer, so that it need not wait for a timeout.
   */
  #answerStray(datagram: Buffer, header: PacketHeader, from: { address: string; port: number; source: string }): void {
    if (datagram.length <= MIN_RESET_BYTES) return;
    if (!this.#strayBudget.take(from.address, this.#dependencies.clock.monotonicMs())) return;
    for (const connection of this.#connections.values()) {
      if (connection.role === "client" && connection.source === from.source) connection.receiveReset(datagram);
    }
    const token = resetToken(this.#resetKey, header.dcid);
    const length = Math.min(datagram.length - 1, MAX_RESET_BYTES);
    const packet = Buffer.from(this.#dependencies.random.bytes(length));
    packet[0] = ((packet[0] ?? 0) & 0x3f) | 0x40;
    token.copy(packet, length - token.length);
    this.#socket.send(packet, from.port, from.address);
  }

  #reply(to: { address: string; port: number }, write: (out: Buffer) => number): void {
    const out = Buffer.allocUnsafe(STATELESS_REPLY_BYTES);
    try {
      this.#socket.send(out, 0, write(out), to.port, to.address);
    } catch {
      // Ids that quiche refuses: a stranger's problem.
    }
  }

  /**
   * Makes room for a half-open connection, false when there is none. A peer is through with its handshake in milliseconds,
   * who only holds a place stays for the whole connect timeout. So a newcomer takes the place that is held longest, by the
   * address that holds most: a flood costs itself its places. Whoever has shown a certificate that we accept stays.
   */
  #makeRoom(): boolean {
    const { connections, halfOpen } = this.#options.limits;
    let count = 0;
    const waiting = new Map<string, QuicConnection[]>();
    for (const connection of this.#connections.values()) {
      const { phase, role, remote } = connection;
      if (role !== "server" || (phase !== "handshake" && phase !== "greeting")) continue;
      count += 1;
      if (phase === "greeting") continue;
      const ofAddress = waiting.get(remote.host);
      if (ofAddress === undefined) waiting.set(remote.host, [connection]);
      else ofAddress.push(connection);
    }
    if (count >= halfOpen) {
      let most: QuicConnection[] = [];
      for (const ofAddress of waiting.values()) if (ofAddress.length > most.length) most = ofAddress;
      if (most[0] === undefined) return false;
      most[0].abandon();
    }
    if (this.#connections.size < connections) return true;
    // Those that are closed only repeat their CLOSE for a moment.
    for (const connection of this.#connections.values()) {
      if (connection.phase !== "closed") continue;
      connection.abandon();
      return true;
    }
    return false;
  }

  // ---- sending

  #scheduleFlush(connection: QuicConnection): void {
    this.#dirty.add(connection);
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      const dirty = [...this.#dirty];
      this.#dirty.clear();
      for (const each of dirty) each.flush();
    });
  }

  #transmit(next: (buffer: Buffer) => [number, SendInfo] | null): void {
    if (this.#closed) return;
    for (;;) {
      const packet = next(this.#sendBuffer);
      if (packet === null) return;
      const [length, { to }] = packet;
      this.#socket.send(this.#sendBuffer, 0, length, to.port, to.host);
      // Node sends at once and copies; only when the kernel's buffer is full it keeps our bytes, which then stay theirs.
      if (this.#socket.getSendQueueCount() > 0) this.#sendBuffer = Buffer.allocUnsafeSlow(MAX_DATAGRAM_BYTES);
    }
  }

  // ---- bookkeeping

  #adopt(connection: QuicConnection): QuicConnection {
    this.#connections.set(connection.key, connection);
    return connection;
  }

  #forget(connection: QuicConnection): void {
    if (this.#connections.get(connection.key) === connection) this.#connections.delete(connection.key);
    this.#dirty.delete(connection);
  }

  /** @param remote address of the peer, which decides how large datagrams are */
  #config(remote: string, statelessResetToken?: Buffer): Config {
    const { binding } = this.#host;
    const { limits } = this.#options;
    let config: Config;
    try {
      config = binding.Config.withBoringSslCtx(
        true,
        // The chain is judged by our verifier after the handshake; natively only its presence and key are.
        true,
        null,
        [Buffer.from(this.#credentials.privateKeyPem)],
        [Buffer.from(this.#credentials.certificateChainPem)],
        SIGNATURE_ALGORITHMS,
      );
    } catch (cause) {
      // The binding's message may quote what it was given, and that is a private key.
      throw new InvalidInput(
        "credentials-invalid",
        "certificate chain or private key does not load",
        {},
        causeName(cause),
      );
    }
    config.setApplicationProtos([APPLICATION_PROTOCOL]);
    config.setMaxIdleTimeout(limits.idleTimeoutMs);
    config.setMaxRecvUdpPayloadSize(MAX_DATAGRAM_BYTES);
    config.setMaxSendUdpPayloadSize(datagramBytes(remote, limits));
    config.setInitialMaxData(UNLIMITED_BYTES);
    config.setMaxConnectionWindow(UNLIMITED_BYTES);
    config.setInitialMaxStreamDataBidiLocal(STREAM_WINDOW_BYTES);
    config.setInitialMaxStreamDataBidiRemote(STREAM_WINDOW_BYTES);
    config.setMaxStreamWindow(2 * STREAM_WINDOW_BYTES);
    config.setInitialMaxStreamDataUni(0);
    config.setInitialMaxStreamsBidi(limits.streams);
    config.setInitialMaxStreamsUni(0);
    config.setDisableActiveMigration(true);
    config.setActiveConnectionIdLimit(2);
    config.setCcAlgorithm(binding.CongestionControlAlgorithm.BBR);
    config.enablePacing(false);
    config.grease(false);
    if (statelessResetToken !== undefined) {
      config.setStatelessResetToken(BigInt(`0x${statelessResetToken.toString("hex")}`));
    }
    return config;
  }
}

function connectionKey(id: Buffer): string {
  return id.toString("latin1");
}

/** From the private key, so that a node that crashed and came back can reset the connections of its former life. */
function resetKey(credentials: TransportCredentials): Buffer {
  return createHmac("sha256", credentials.privateKeyPem).update("mpc-wallet stateless reset").digest();
}

function resetToken(key: Buffer, connectionId: Uint8Array): Buffer {
  return createHmac("sha256", key).update(connectionId).digest().subarray(0, 16);
}

function causeName(cause: unknown): string {
  return cause instanceof Error ? cause.name : "unknown";
}

async function numericAddress(host: string, family: "udp4" | "udp6"): Promise<string> {
  try {
    const { address } = await lookup(host, family === "udp6" ? { family: 6, hints: 0x0008 } : { family: 4 });
    return address;
  } catch (cause) {
    throw new Unavailable("address-unknown", `cannot resolve ${host}`, { host }, cause);
  }
}
