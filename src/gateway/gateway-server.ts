import { createSecureServer, type Http2SecureServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { createRegistry, type DescFile } from "@bufbuild/protobuf";
import { createConnectRouter, type ServiceImpl } from "@connectrpc/connect";
import { compressionGzip } from "@connectrpc/connect-node";
import type { JWK } from "jose";
import type { Logger } from "pino";
import { file_google_rpc_error_details } from "../../gen/google/rpc/error_details_pb.js";
import { Health } from "../../gen/grpc/health/v1/health_pb.js";
import { ServerReflection } from "../../gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionV1alpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.js";
import { WalletService } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { routeHealth, routeReflection, routeReflectionV1alpha, routeWallet } from "../../gen/router.js";
import type { Clock, Random } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import type { WalletApplication } from "../wallet/wallet-application.js";
import { admission, Gate } from "./admission.js";
import { type AuthenticationOptions, Authenticator } from "./authentication.js";
import { errorMapping } from "./error-mapping.js";
import { healthHandlers, Readiness } from "./health.js";
import { RateLimit } from "./rate-limit.js";
import { Reflection } from "./reflection.js";
import { type NodeRequest, type NodeResponse, RequestListener } from "./request-listener.js";
import { type CallRecord, outcomeRecording } from "./request-log.js";
import { restRoutes } from "./rest-transcoder.js";
import { installContextManager } from "./trace-context.js";
import { validation } from "./validation.js";
import { walletHandlers } from "./wallet-handlers.js";

/** Every bound of the gateway. */
export interface GatewayLimits {
  /** Calls a second, for each token subject and for each address without a token. */
  readonly callsPerSecond: number;
  readonly connectionsMax: number;
  readonly streamsPerConnectionMax: number;
  readonly headerMaxBytes: number;
  readonly bodyMaxBytes: number;
  /** TLS handshake; also the headers of an HTTP/1 request, from the connection's start or the response before. */
  readonly handshakeMaxMs: number;
  readonly bodyMaxMs: number;
  /** An HTTP/2 connection without a running request for this long is closed. */
  readonly idleMaxMs: number;
  readonly callMaxMs: number;
  readonly watchMaxMs: number;
  readonly watchesMax: number;
}

export const GATEWAY_LIMITS: GatewayLimits = {
  callsPerSecond: 10,
  connectionsMax: 1000,
  streamsPerConnectionMax: 100,
  headerMaxBytes: 16_384,
  bodyMaxBytes: 65_536,
  handshakeMaxMs: 10_000,
  bodyMaxMs: 10_000,
  idleMaxMs: 120_000,
  callMaxMs: 300_000,
  watchMaxMs: 600_000,
  watchesMax: 1000,
};

/** PEM of the server's certificate, followed by its intermediates, and of its private key. */
export interface ServerCertificate {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
}

export interface GatewayOptions {
  readonly host: string;
  /** 0 chooses a free one. */
  readonly port: number;
  readonly tls: ServerCertificate;
  readonly authentication: AuthenticationOptions;
  /** What differs from `GATEWAY_LIMITS`. */
  readonly limits?: Partial<GatewayLimits>;
}

export interface GatewayDependencies {
  readonly application: WalletApplication;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Body of GET /metrics; without it the path does not exist. */
  readonly metrics?: () => Promise<{ readonly contentType: string; readonly body: string }>;
  /** Called once for each finished request, for metrics. */
  readonly onCall?: (record: Readonly<CallRecord>) => void;
}

/**
 * Starts the gateway: one TLS port that serves Connect, gRPC, gRPC-web, REST, GET /healthz, /readyz and /metrics,
 * grpc.health.v1 and server reflection, over HTTP/2 and HTTP/1.1.
 *
 * @throws InvalidInput "tls-certificate-unusable"; Unavailable "port-unavailable"
 */
export async function startGateway(options: GatewayOptions, dependencies: GatewayDependencies): Promise<Gateway> {
  const gateway = new Gateway(options, dependencies);
  await gateway.listen();
  return gateway;
}

/** A running gateway; made by `startGateway`. */
export class Gateway {
  readonly #options: GatewayOptions;
  readonly #limits: GatewayLimits;
  readonly #dependencies: GatewayDependencies;
  readonly #authenticator: Authenticator;
  readonly #server: Http2SecureServer;
  readonly #draining = new AbortController();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #sockets = new Set<Socket>();
  /** HTTP/1 connections between requests, and how to stop waiting for the next one. */
  readonly #waiting = new WeakMap<Socket, () => void>();
  #drained: Promise<void> | undefined;

  constructor(options: GatewayOptions, dependencies: GatewayDependencies) {
    this.#options = options;
    this.#limits = { ...GATEWAY_LIMITS, ...options.limits };
    this.#dependencies = dependencies;
    this.#authenticator = new Authenticator(options.authentication, dependencies);
    installContextManager();
    this.#server = this.#createServer(this.#createListener());
  }

  #createListener(): RequestListener {
    const { application, clock, random, log, metrics, onCall } = this.#dependencies;
    const draining = this.#draining.signal;
    const report = (cause: unknown) => log.error({ err: describe(cause) }, "call failed");
    const services = [WalletService, Health, ServerReflection, ServerReflectionV1alpha];
    const registry = createRegistry(...filesOf([...services.map(({ file }) => file), file_google_rpc_error_details]));
    const readiness = new Readiness({ draining }, { clock, application });
    const reflection = new Reflection(services, registry);
    const router = createConnectRouter({
      interceptors: [outcomeRecording(), errorMapping(report), admission(), validation()],
      acceptCompression: [compressionGzip],
      readMaxBytes: this.#limits.bodyMaxBytes,
      // A misspelt field of a payment must not be ignored.
      jsonOptions: { registry, ignoreUnknownFields: false },
    });
    const { callMaxMs, watchMaxMs, watchesMax } = this.#limits;
    routeWallet(router, { wallet: walletHandlers({ callMaxMs, watchMaxMs, watchesMax, draining }, { application }) });
    const names = services.map(({ typeName }) => typeName);
    routeHealth(router, { health: healthHandlers(readiness, { services: names, clock, draining }) });
    const serverReflectionInfo = (requests: Parameters<Reflection["answers"]>[0]) => reflection.answers(requests);
    routeReflection(router, { serverReflection: { serverReflectionInfo } });
    routeReflectionV1alpha(router, {
      serverReflection: { serverReflectionInfo } as unknown as ServiceImpl<typeof ServerReflectionV1alpha>,
    });
    const gate = new Gate({
      authenticator: this.#authenticator,
      rateLimit: new RateLimit(this.#limits.callsPerSecond),
      report,
    });
    const { headerMaxBytes, bodyMaxBytes, bodyMaxMs } = this.#limits;
    return new RequestListener(
      // One second more than the handlers' own limits, so that a client is told before its stream is closed.
      { headerMaxBytes, bodyMaxBytes, bodyMaxMs, requestMaxMs: Math.max(callMaxMs, watchMaxMs) + 1000 },
      { router, restRoutes: restRoutes(services), registry, gate, readiness, clock, random, log, metrics, onCall },
    );
  }

  #createServer(listener: RequestListener): Http2SecureServer {
    const { headerMaxBytes, streamsPerConnectionMax, handshakeMaxMs, connectionsMax } = this.#limits;
    const { log } = this.#dependencies;
    const server = secureServer({
      ...credentials(this.#options.tls),
      minVersion: "TLSv1.3",
      allowHTTP1: true,
      handshakeTimeout: handshakeMaxMs,
      maxSessionMemory: 4,
      maxSessionRejectedStreams: 20,
      maxSessionInvalidFrames: 20,
      settings: {
        enablePush: false,
        maxConcurrentStreams: streamsPerConnectionMax,
        maxHeaderListSize: headerMaxBytes,
      },
    });
    server.maxConnections = connectionsMax;
    // Read by the HTTP/1 parser of this server; the HTTP/2 server has no option for it.
    Object.assign(server, { maxHeaderSize: headerMaxBytes });
    server.on("request", (request, response) => {
      if (request.httpVersionMajor === 1) this.#awaitRequest(request.socket, response as NodeResponse);
      listener.listen(request as NodeRequest, response as NodeResponse);
    });
    server.on("session", (session) => this.#adopt(session));
    server.on("secureConnection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      socket.on("error", (error: Error) => log.debug({ err: describe(error) }, "connection failed"));
      if (socket.alpnProtocol !== "h2") this.#awaitRequest(socket, undefined);
    });
    const quiet = (event: string) => (error: unknown) => log.debug({ err: describe(error) }, event);
    server.on("sessionError", quiet("session failed"));
    server.on("tlsClientError", (error: Error, socket: Socket) => {
      log.debug({ err: describe(error) }, "TLS handshake failed");
      // After a handshake timeout Node leaves the socket to us.
      socket.destroy();
    });
    server.on("clientError", (error: Error & { code?: string }, socket: Socket) => {
      log.debug({ err: describe(error) }, "malformed HTTP/1 request");
      const status = error.code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
      if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
      else socket.destroy();
    });
    return server;
  }

  /**
   * Closes an HTTP/1 connection that does not finish the headers of a request in time, from its start or from the end of
   * the response before. Node's own timeouts for this do not work on an HTTP/2 server.
   */
  #awaitRequest(socket: Socket, response: NodeResponse | undefined): void {
    this.#waiting.get(socket)?.();
    this.#waiting.delete(socket);
    const wait = () => {
      const cancel = this.#dependencies.clock.after(this.#limits.handshakeMaxMs, () => socket.destroy());
      this.#waiting.set(socket, cancel);
      socket.once("close", cancel);
    };
    if (response === undefined) wait();
    else response.once("finish", () => socket.destroyed || wait());
  }

  /** An HTTP/2 session is closed when it has been idle; one with running calls is bounded by their own limits. */
  #adopt(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    let streams = 0;
    session.on("stream", (stream) => {
      streams += 1;
      stream.once("close", () => {
        streams -= 1;
      });
    });
    session.on("error", () => {});
    session.setTimeout(this.#limits.idleMaxMs, () => {
      if (streams === 0) session.close();
    });
    session.once("close", () => this.#sessions.delete(session));
    if (this.#draining.signal.aborted) session.close();
  }

  /** Binds the port. */
  async listen(): Promise<void> {
    const { host, port } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (cause) =>
        reject(new Unavailable("port-unavailable", `cannot listen on ${host}:${port}`, { host, port }, cause)),
      );
      this.#server.listen(port, host, () => {
        this.#server.removeAllListeners("error");
        this.#server.on("error", (error) => this.#dependencies.log.error({ err: describe(error) }, "server failed"));
        resolve();
      });
    });
    this.#dependencies.log.info({ host, port: this.port }, "gateway listens");
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? this.#options.port;
  }

  /** New connections get this certificate; running ones go on. @throws InvalidInput "tls-certificate-unusable" */
  replaceCertificate(certificate: ServerCertificate): void {
    try {
      this.#server.setSecureContext({ ...credentials(certificate), minVersion: "TLSv1.3" });
    } catch (cause) {
      throw unusableCertificate(cause);
    }
  }

  /** Replaces the public keys of token issuers; from `verificationKeys`. */
  replaceKeys(keys: readonly JWK[]): void {
    this.#authenticator.replaceKeys(keys);
  }

  /**
   * Graceful end: not ready at once, so that load balancers turn away; after `lameDuckMs` no new connection is taken and
   * running watches end; calls may finish until `graceMs` later, then every connection is closed. Never rejects.
   */
  drain({ lameDuckMs = 0, graceMs = 10_000 }: { lameDuckMs?: number; graceMs?: number } = {}): Promise<void> {
    this.#drained ??= this.#drain({ lameDuckMs, graceMs });
    return this.#drained;
  }

  async #drain({ lameDuckMs, graceMs }: { lameDuckMs: number; graceMs: number }): Promise<void> {
    const { clock, log } = this.#dependencies;
    this.#draining.abort();
    if (lameDuckMs > 0) await new Promise<void>((resolve) => clock.after(lameDuckMs, resolve));
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const session of this.#sessions) session.close();
    const cancel = clock.after(graceMs, () => {
      log.warn({ connections: this.#sockets.size }, "connections closed before they finished");
      for (const session of this.#sessions) session.destroy();
      for (const socket of this.#sockets) socket.destroy();
    });
    await closed;
    cancel();
    log.info("gateway stopped");
  }
}

function credentials({ certificatePem, privateKeyPem }: ServerCertificate): { cert: string; key: string } {
  return { cert: certificatePem, key: privateKeyPem };
}

function secureServer(options: Parameters<typeof createSecureServer>[0]): Http2SecureServer {
  try {
    return createSecureServer(options);
  } catch (cause) {
    throw unusableCertificate(cause);
  }
}

function unusableCertificate(cause: unknown): InvalidInput {
  const message = "the gateway's TLS certificate or its private key cannot be used";
  return new InvalidInput("tls-certificate-unusable", message, {}, cause);
}

/** A file and everything it imports. */
function filesOf(files: readonly DescFile[]): DescFile[] {
  const found = new Set<DescFile>();
  const add = (file: DescFile): void => {
    if (found.has(file)) return;
    found.add(file);
    file.dependencies.forEach(add);
  };
  files.forEach(add);
  return [...found];
}

/** What the log shows of an error: not its other fields, which may be large. */
function describe(cause: unknown): Record<string, unknown> {
  if (!(cause instanceof Error)) return { message: String(cause) };
  const { name, message, stack } = cause;
  const { code, facts } = cause as { code?: unknown; facts?: unknown };
  return {
    type: name,
    message,
    stack,
    ...(code === undefined ? {} : { code }),
    ...(facts === undefined ? {} : { facts }),
    ...(cause.cause === undefined ? {} : { cause: describe(cause.cause) }),
  };
}
