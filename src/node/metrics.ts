import { createServer, type Server, type ServerResponse } from "node:http";
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { Clock } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";
import type { RenewalOutcome } from "../network/identity/certificate-renewal.js";
import { EXPIRY_WARNING_MS, REFUSAL_REASONS, type RefusalReason } from "../network/identity/peer-verifier.js";
import type { TrustFiles } from "../network/identity/trust-files.js";
import type { LinkState, PeerLinkStatus } from "../network/peer-link.js";

const LINK_STATES: readonly LinkState[] = ["idle", "connecting", "active", "degraded", "dead"];
const RENEWAL_OUTCOMES: readonly RenewalOutcome[] = ["renewed", "not-granted", "refused-by-us"];
const MAX_HEADER_BYTES = 8 * 1024;
const REQUEST_TIMEOUT_MS = 5_000;

/** What metrics are read from when they are asked for. */
export interface MetricsSubject {
  readonly links: () => readonly PeerLinkStatus[];
  readonly certificates: { readonly notAfterMs: number | undefined };
  readonly trust: TrustFiles;
  readonly clock: Pick<Clock, "nowMs">;
}

/**
 * Metrics of one process in Prometheus' text form, and the port on which they are read. Names of peers, states and
 * reasons are the only labels: nothing in here is secret, but it shows who is in trouble, so the port is on loopback
 * unless the configuration names another address.
 */
export class ProcessMetrics {
  readonly #registry = new Registry();
  readonly #verdicts: Counter<"outcome">;
  readonly #renewals: Counter<"outcome">;
  #server: Server | undefined;

  constructor() {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#verdicts = new Counter({
      name: "mpc_wallet_certificate_verdicts_total",
      help: "Verdicts about certificates of peers, at handshakes and whenever live peers are judged again, by result",
      labelNames: ["outcome"],
      registers,
    });
    for (const outcome of ["accepted", ...REFUSAL_REASONS]) this.#verdicts.inc({ outcome }, 0);
    this.#renewals = new Counter({
      name: "mpc_wallet_certificate_renewals_total",
      help: "Answers to this process's own requests for a certificate, by result",
      labelNames: ["outcome"],
      registers,
    });
    for (const outcome of RENEWAL_OUTCOMES) this.#renewals.inc({ outcome }, 0);
  }

  countVerdict(outcome: "accepted" | RefusalReason): void {
    this.#verdicts.inc({ outcome });
  }

  countRenewal(outcome: RenewalOutcome): void {
    this.#renewals.inc({ outcome });
  }

  /** Adds what is read at the time of asking. Once for each process. */
  follow(subject: MetricsSubject): void {
    this.#followCertificates(subject);
    this.#followLinks(subject);
  }

  /** The text that Prometheus reads. */
  async exposition(): Promise<{ readonly contentType: string; readonly body: string }> {
    return { contentType: this.#registry.contentType, body: await this.#registry.metrics() };
  }

  /** Serves GET /metrics and GET /healthz over plain HTTP. @throws Unavailable `listen-failed` */
  async listen(where: { readonly host: string; readonly port: number }): Promise<number> {
    const server = createServer(
      { maxHeaderSize: MAX_HEADER_BYTES, requestTimeout: REQUEST_TIMEOUT_MS },
      (request, response) => {
        void this.#answer(`${request.method} ${request.url}`, response);
      },
    );
    server.maxConnections = 16;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause) =>
        reject(new Unavailable("listen-failed", `cannot listen on ${where.host}:${where.port}`, { ...where }, cause)),
      );
      server.listen(where.port, where.host, resolve);
    });
    server.unref();
    this.#server = server;
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : where.port;
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  async #answer(request: string, response: ServerResponse): Promise<void> {
    const send = (status: number, contentType: string, body: string): void => {
      response.writeHead(status, { "content-type": contentType, "content-length": Buffer.byteLength(body) }).end(body);
    };
    if (request === "GET /healthz") return send(200, "text/plain", "ok\n");
    if (request !== "GET /metrics") return send(404, "text/plain", "GET /metrics or GET /healthz\n");
    try {
      const { contentType, body } = await this.exposition();
      send(200, contentType, body);
    } catch {
      send(500, "text/plain", "metrics failed\n");
    }
  }

  #followCertificates({ certificates, trust, clock }: MetricsSubject): void {
    const registers = [this.#registry];
    const leftMs = (): number => (certificates.notAfterMs ?? Number.NaN) - clock.nowMs();
    new Gauge({
      name: "mpc_wallet_certificate_left_seconds",
      help: "Life left of the certificate that this process shows; negative when it has expired",
      registers,
      collect() {
        this.set(leftMs() / 1_000);
      },
    });
    new Gauge({
      name: "mpc_wallet_certificate_expires_soon",
      help: "1 when the certificate that this process shows has less than 14 days left: renewals have been failing",
      registers,
      collect() {
        this.set(leftMs() < EXPIRY_WARNING_MS ? 1 : 0);
      },
    });
    const list = { labelNames: ["issuer"] as const, registers };
    new Gauge({
      ...list,
      name: "mpc_wallet_revocation_list_number",
      help: "Number of the newest revocation list of each authority, by the start of its fingerprint",
      collect() {
        for (const { issuer, number } of trust.revocations.all()) this.set({ issuer: issuer.slice(0, 16) }, number);
      },
    });
    new Gauge({
      ...list,
      name: "mpc_wallet_revocation_list_left_seconds",
      help: "Time until the next revocation list of each authority is due; negative when it is overdue",
      collect() {
        for (const { issuer, nextUpdateMs } of trust.revocations.all()) {
          this.set({ issuer: issuer.slice(0, 16) }, (nextUpdateMs - clock.nowMs()) / 1_000);
        }
      },
    });
  }

  #followLinks({ links }: MetricsSubject): void {
    const perPeer = (name: string, help: string, value: (link: PeerLinkStatus) => number | undefined): void => {
      new Gauge({
        name,
        help,
        labelNames: ["peer"],
        registers: [this.#registry],
        collect() {
          this.reset();
          for (const link of links()) {
            const reading = value(link);
            if (reading !== undefined) this.set({ peer: link.nodeId }, reading);
          }
        },
      });
    };
    new Gauge({
      name: "mpc_wallet_peer_state",
      help: "1 for the state of the connection with each peer, 0 for the others",
      labelNames: ["peer", "state"],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const link of links()) {
          for (const state of LINK_STATES) this.set({ peer: link.nodeId, state }, link.state === state ? 1 : 0);
        }
      },
    });
    new Gauge({
      name: "mpc_wallet_peer_ping_seconds",
      help: "Latency of the last 128 health checks of each peer, through the whole RPC path",
      labelNames: ["peer", "quantile"],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const { nodeId: peer, latencyP50Us, latencyP99Us } of links()) {
          if (latencyP50Us !== undefined) this.set({ peer, quantile: "0.5" }, latencyP50Us / 1e6);
          if (latencyP99Us !== undefined) this.set({ peer, quantile: "0.99" }, latencyP99Us / 1e6);
        }
      },
    });
    perPeer(
      "mpc_wallet_peer_ping_success_ratio",
      "Share of the last 128 health checks that were answered",
      (link) => link.successRatio,
    );
    perPeer(
      "mpc_wallet_peer_loss_ratio",
      "Packets lost of those sent on the connection in use",
      (link) => link.lossRatio,
    );
    perPeer(
      "mpc_wallet_peer_last_message_timestamp_seconds",
      "When the last packet of each peer came, Unix time",
      (link) => (link.lastMessageMs === undefined ? undefined : link.lastMessageMs / 1_000),
    );
    perPeer("mpc_wallet_peer_connections", "Connections with each peer since the start", (link) => link.connections);
    perPeer("mpc_wallet_peer_standby", "1 when a second connection stands by", (link) => (link.standby ? 1 : 0));
  }
}
