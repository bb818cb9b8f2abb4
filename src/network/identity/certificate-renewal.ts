import type { Clock, Random } from "../../crypto/ambient.js";
import { InvalidInput } from "../../crypto/fault.js";
import type { NetworkEvent, NetworkLog } from "../network-log.js";
import { type Certificate, certificatesToPem, parseCertificate, parseCertificatesPem } from "./certificate.js";
import type { PeerVerdict } from "./peer-verifier.js";
import { renewAtMs, renewalState } from "./renewal.js";
import { loadTlsCredentials, prepareRenewal, type TlsCredentialPaths, type TlsCredentials } from "./tls-credentials.js";

const MINUTE_MS = 60_000;
const DAY_MS = 1440 * MINUTE_MS;

/** Waits between attempts that fail; the last one repeats. Each is jittered by a quarter. */
const RETRY_DELAYS_MS = [1, 2, 4, 8, 16, 32, 60].map((minutes) => minutes * MINUTE_MS);

/** The wall clock may be set, and an operator may put files in place: nothing is slept over for longer. */
const LOOK_INTERVAL_MS = 60 * MINUTE_MS;

/** Who may grant a renewal. */
export interface RenewalSource {
  readonly name: string;
  /** @returns the chain, leaf first, DER; throws a fault when it is not granted */
  renew(requestDer: Uint8Array): Promise<readonly Uint8Array[]>;
}

export type RenewalOutcome = "renewed" | "not-granted" | "refused-by-us";

export interface CertificateRenewalOptions {
  readonly paths: TlsCredentialPaths;
  readonly present: TlsCredentials;
  readonly retryDelaysMs?: readonly number[];
}

export interface CertificateRenewalDependencies {
  readonly clock: Clock;
  readonly random: Random;
  /** The verifier that peers are judged by: a certificate that we would refuse is not shown to others. */
  readonly verify: (chainDer: readonly Uint8Array[], nodeId: string) => PeerVerdict;
  /** In the order in which they are asked. */
  readonly sources: () => readonly RenewalSource[];
  /** Shows the new certificate from now on, without dropping a connection. */
  readonly install: (credentials: TlsCredentials) => void;
  readonly log: NetworkLog;
  readonly count?: (outcome: RenewalOutcome) => void;
}

/**
 * Keeps this process's certificate good: after two thirds of its life it asks for the next one, over a fresh key, and
 * goes on asking until it has it. The old certificate stays valid for the last third: connections that were made under
 * it go on, and there are weeks for whatever stands in the way. It also takes over a pair that an operator put in place.
 */
export class CertificateRenewal {
  readonly #options: CertificateRenewalOptions;
  readonly #dependencies: CertificateRenewalDependencies;
  #present: TlsCredentials;
  #failures = 0;
  #warnedMs = Number.NEGATIVE_INFINITY;
  #cancel: () => void = () => {};
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(options: CertificateRenewalOptions, dependencies: CertificateRenewalDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
    this.#present = options.present;
  }

  /** The certificate that this process shows. */
  get certificate(): Certificate {
    return this.#present.leaf;
  }

  /** The chain that this process shows, DER. */
  get chainDer(): readonly Uint8Array[] {
    return parseCertificatesPem(this.#present.certificateChainPem).map(({ der }) => der);
  }

  start(): void {
    this.#look();
  }

  /** Resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#running;
  }

  #look(): void {
    this.#running = this.#act()
      .catch((cause: unknown) => {
        this.#log("error", "renewal-broken", {}, cause);
        return this.#retryMs();
      })
      .then((waitMs) => {
        if (this.#stopped) return;
        this.#cancel = this.#dependencies.clock.after(Math.min(waitMs, LOOK_INTERVAL_MS), () => this.#look());
      });
  }

  /** @returns how long to wait before looking again */
  async #act(): Promise<number> {
    await this.#takeOverFiles();
    if (renewalState(this.certificate, this.#nowMs()) !== "fresh") {
      this.#warn();
      if (!(await this.#renew())) return this.#retryMs();
    }
    this.#failures = 0;
    return Math.max(1_000, renewAtMs(this.certificate) - this.#nowMs());
  }

  async #renew(): Promise<boolean> {
    const { paths } = this.#options;
    const { log, count } = this.#dependencies;
    const renewal = await prepareRenewal(paths);
    for (const source of this.#dependencies.sources()) {
      if (this.#stopped) return false;
      let chainDer: readonly Uint8Array[];
      try {
        chainDer = await source.renew(renewal.requestDer);
      } catch (cause) {
        const facts = { from: source.name, why: cause instanceof Error ? cause.message : "unknown" };
        log({ level: "warn", event: "renewal-not-granted", facts });
        count?.("not-granted");
        continue;
      }
      const refusal = this.#refusalOf(chainDer);
      if (refusal !== undefined) {
        this.#log("error", "renewal-refused-by-us", { from: source.name, reason: refusal });
        count?.("refused-by-us");
        continue;
      }
      const chain = chainDer.map((der) => parseCertificate(der)).filter((certificate) => certificate !== undefined);
      this.#show(await renewal.complete(certificatesToPem(chain)));
      count?.("renewed");
      return true;
    }
    return false;
  }

  /** What peers would say of the chain; and a certificate that does not last longer would be asked for again at once. */
  #refusalOf(chainDer: readonly Uint8Array[]): string | undefined {
    const verdict = this.#dependencies.verify(chainDer, this.#options.paths.nodeId);
    if (!verdict.ok) return verdict.reason;
    const [leaf] = chainDer;
    const certificate = leaf && parseCertificate(leaf);
    return certificate !== undefined && certificate.notAfterMs > this.certificate.notAfterMs ? undefined : "not-longer";
  }

  /** An operator may have put a new pair in place; a pair that is half there or refused changes nothing. */
  async #takeOverFiles(): Promise<void> {
    const { paths } = this.#options;
    let found: TlsCredentials;
    try {
      found = await loadTlsCredentials(paths);
    } catch (cause) {
      if (!(cause instanceof InvalidInput)) throw cause;
      this.#log("warn", "certificate-files-unusable", { code: cause.code }, cause);
      return;
    }
    if (found.leaf.fingerprint === this.certificate.fingerprint) return;
    const chainDer = parseCertificatesPem(found.certificateChainPem).map(({ der }) => der);
    const verdict = this.#dependencies.verify(chainDer, paths.nodeId);
    if (verdict.ok) this.#show(found);
    else this.#log("error", "certificate-files-refused", { reason: verdict.reason });
  }

  #show(credentials: TlsCredentials): void {
    this.#dependencies.install(credentials);
    this.#present = credentials;
    const { serialNumber, notAfterMs } = credentials.leaf;
    this.#log("info", "certificate-installed", { serialNumber, notAfterMs });
  }

  /** Once a day, and from the last 14 days on. Before expiry nobody refuses the certificate for it. */
  #warn(): void {
    const nowMs = this.#nowMs();
    const state = renewalState(this.certificate, nowMs);
    if (state !== "urgent" && state !== "expired") return;
    if (nowMs - this.#warnedMs < DAY_MS) return;
    this.#warnedMs = nowMs;
    const { notAfterMs } = this.certificate;
    const daysLeft = Math.floor((notAfterMs - nowMs) / DAY_MS);
    this.#log(state === "expired" ? "error" : "warn", `own-certificate-${state}`, { notAfterMs, daysLeft });
  }

  #retryMs(): number {
    const delays = this.#options.retryDelaysMs ?? RETRY_DELAYS_MS;
    const delayMs = delays[Math.min(this.#failures, delays.length - 1)] ?? MINUTE_MS;
    this.#failures += 1;
    const [byte = 128] = this.#dependencies.random.bytes(1);
    return delayMs * (0.75 + byte / 512);
  }

  #nowMs(): number {
    return this.#dependencies.clock.nowMs();
  }

  #log(level: NetworkEvent["level"], event: string, facts: NetworkEvent["facts"], cause?: unknown): void {
    const { nodeId } = this.#options.paths;
    this.#dependencies.log({ level, event, facts: { nodeId, ...facts }, ...(cause === undefined ? {} : { cause }) });
  }
}
