import type { Clock, Random } from "../../crypto/ambient.js";
import { InvalidInput } from "../../crypto/fault.js";
import { CallBudget } from "../call-budget.js";
import type { NetworkLog } from "../network-log.js";
import { parseCertificate, parseCertificatesPem } from "./certificate.js";
import type { SigningAuthority } from "./certificate-authority.js";
import type { RefusalReason } from "./peer-verifier.js";
import { PkiFolder } from "./pki-folder.js";
import { judgeRenewal, type RenewalRefusal } from "./renewal.js";
import type { TrustFiles } from "./trust-files.js";

/** Attempts of one node: ten at once, then one every six seconds. Each costs a chain's verification and a request's. */
const ATTEMPTS = { burst: 10, refillMs: 6_000 };

/** Certificates of one node: four at once, then one an hour, so that nobody fills the register. */
const GRANTS = { burst: 4, refillMs: 3_600_000 };

export type RenewalAnswer =
  | { readonly ok: true; readonly chainDer: readonly Uint8Array[]; readonly notAfterMs: number }
  | { readonly ok: false; readonly reason: RenewalRefusal | RefusalReason | "too-many-renewals" };

export interface RenewalAuthorityOptions {
  /** A PKI folder with the intermediate and the register; the root is not needed and should not be there. */
  readonly folder: string;
  /** Opens the intermediate key. */
  readonly passphrase: string;
  readonly lifetimeMs?: number;
}

export interface RenewalAuthorityDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly trust: TrustFiles;
  readonly log: NetworkLog;
}

/**
 * The intermediate, online: it renews the certificate of a node that is connected under a good one of the same id, and
 * keeps the revocation list from going stale. It issues nothing else: a node's first certificate, and that of a node
 * whose certificate has expired or was revoked, needs an operator with the folder's passphrase.
 */
export class RenewalAuthority {
  readonly #folder: PkiFolder;
  readonly #intermediate: SigningAuthority;
  readonly #lifetimeMs: number | undefined;
  readonly #dependencies: RenewalAuthorityDependencies;
  readonly #attempts = new CallBudget(ATTEMPTS);
  readonly #grants = new CallBudget(GRANTS);

  private constructor(
    parts: { folder: PkiFolder; intermediate: SigningAuthority; lifetimeMs: number | undefined },
    dependencies: RenewalAuthorityDependencies,
  ) {
    this.#folder = parts.folder;
    this.#intermediate = parts.intermediate;
    this.#lifetimeMs = parts.lifetimeMs;
    this.#dependencies = dependencies;
  }

  /**
   * Opens the folder.
   * @throws InvalidInput `file-missing`, `wrong-passphrase`, `authority-unknown` when this process itself would not
   * believe what the intermediate signs
   */
  static async open(
    options: RenewalAuthorityOptions,
    dependencies: RenewalAuthorityDependencies,
  ): Promise<RenewalAuthority> {
    const { clock, random, trust } = dependencies;
    const folder = new PkiFolder(options.folder, { clock, random });
    const intermediate = await folder.openIntermediate(options.passphrase);
    if (trust.revocations.newest(intermediate.certificate) === undefined) {
      throw new InvalidInput(
        "authority-unknown",
        `the intermediate in ${options.folder} is not in security.intermediateCertificateFile, or its list is not in security.revocationListFiles`,
        { folder: options.folder },
      );
    }
    return new RenewalAuthority({ folder, intermediate, lifetimeMs: options.lifetimeMs }, dependencies);
  }

  /**
   * The next certificate of a node.
   * @param asker.nodeId and `chainDer` who is connected and what it showed in the handshake, never what the request says
   * @throws Unavailable `pki-folder-locked`; InvalidInput `authority-expired`, `register-full`
   */
  async renew(asker: {
    readonly nodeId: string;
    readonly chainDer: readonly Uint8Array[];
    readonly requestDer: Uint8Array;
  }): Promise<RenewalAnswer> {
    const answer = await this.#judge(asker);
    const { log } = this.#dependencies;
    const { nodeId } = asker;
    if (answer.ok) {
      log({ level: "info", event: "certificate-renewed", facts: { peer: nodeId, notAfterMs: answer.notAfterMs } });
    } else {
      log({ level: "warn", event: "renewal-refused", facts: { peer: nodeId, reason: answer.reason } });
    }
    return answer;
  }

  async #judge(asker: Parameters<RenewalAuthority["renew"]>[0]): Promise<RenewalAnswer> {
    const { clock, trust } = this.#dependencies;
    const { nodeId, chainDer, requestDer } = asker;
    if (!this.#attempts.take(nodeId, clock.monotonicMs())) return { ok: false, reason: "too-many-renewals" };
    // Good at the handshake is not enough: it may have been revoked or have expired since.
    const verdict = trust.verifier.verify(chainDer, nodeId);
    if (!verdict.ok) return verdict;
    const present = parseCertificate(chainDer[0] ?? new Uint8Array());
    if (present === undefined) return { ok: false, reason: "malformed" };
    // Once without the register and once with it: what is refused here costs no certificate of the budget.
    const judged = judgeRenewal({ present, nodeId, requestDer, hasCertified: () => false });
    if (!judged.ok) return judged;
    if (!this.#grants.take(nodeId, clock.monotonicMs())) return { ok: false, reason: "too-many-renewals" };
    const granted = await this.#folder.renewUnder(this.#intermediate, {
      nodeId,
      present,
      requestDer,
      ...(this.#lifetimeMs === undefined ? {} : { lifetimeMs: this.#lifetimeMs }),
    });
    if (!granted.ok) return granted;
    const { chainPem, leaf } = granted.issuance;
    const chain = parseCertificatesPem(chainPem).map(({ der }) => der);
    return { ok: true, chainDer: chain, notAfterMs: leaf.notAfterMs };
  }

  /**
   * Signs the revocation list anew when half of its life is over: a list that nobody renews would stop everybody.
   * @returns whether there is a new list
   */
  async refreshRevocations(): Promise<boolean> {
    const { clock, trust, log } = this.#dependencies;
    const newest = trust.revocations.newest(this.#intermediate.certificate);
    if (newest === undefined || clock.nowMs() * 2 < newest.thisUpdateMs + newest.nextUpdateMs) return false;
    const { number, der } = await this.#folder.publishUnder(this.#intermediate);
    const accepted = trust.offer(der);
    log({ level: "info", event: "revocation-list-signed", facts: { number, accepted: accepted.ok } });
    return accepted.ok;
  }
}
