import { X509Certificate } from "node:crypto";
import type { Clock } from "../crypto/ambient.js";
import type { Gateway, ServerCertificate } from "../gateway/gateway-server.js";
import type { Logger } from "../node/log.js";

export interface GatewayCertificateDependencies {
  readonly clock: Clock;
  readonly log: Logger;
  /** Reads what the files hold now. */
  readonly read: () => Promise<ServerCertificate>;
  readonly gateway: Pick<Gateway, "replaceCertificate">;
}

/**
 * Has the gateway show what its certificate files hold: whoever renews them, an ACME client or an operator, need not restart
 * the coordinator. New connections get the new certificate, running ones go on. Files that cannot be used, such as a new
 * certificate whose key is not there yet, change nothing.
 */
export class GatewayCertificate {
  readonly #intervalMs: number;
  readonly #dependencies: GatewayCertificateDependencies;
  #shown: ServerCertificate;
  /** What was last complained about, so that each complaint is made once. */
  #complaint = "";
  #cancel: () => void = () => {};
  #running: Promise<void> = Promise.resolve();
  #stopped = false;

  /** @param options.shown what the gateway was started with */
  constructor(
    options: { readonly intervalMs: number; readonly shown: ServerCertificate },
    dependencies: GatewayCertificateDependencies,
  ) {
    this.#intervalMs = options.intervalMs;
    this.#shown = options.shown;
    this.#dependencies = dependencies;
  }

  start(): void {
    this.#cancel = this.#dependencies.clock.after(this.#intervalMs, () => {
      this.#running = this.look().then(() => {
        if (!this.#stopped) this.start();
      });
    });
  }

  /** Resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#running;
  }

  /** Reads the files now, instead of at the next look. Never rejects. */
  async look(): Promise<void> {
    const { log, read, gateway } = this.#dependencies;
    try {
      const found = await read();
      const { certificatePem, privateKeyPem } = this.#shown;
      if (found.certificatePem !== certificatePem || found.privateKeyPem !== privateKeyPem) {
        gateway.replaceCertificate(found);
        this.#shown = found;
        log.info({ event: "gateway-certificate", notAfter: new X509Certificate(found.certificatePem).validTo });
      }
      this.#complaint = "";
    } catch (error) {
      const complaint = error instanceof Error ? error.message : String(error);
      if (complaint === this.#complaint) return;
      this.#complaint = complaint;
      log.warn(
        { event: "gateway-certificate-unusable", err: error },
        "the gateway goes on with the certificate it has",
      );
    }
  }
}
