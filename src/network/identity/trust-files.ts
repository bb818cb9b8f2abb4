import { InvalidInput } from "../../crypto/fault.js";
import { parseCertificatesPem } from "./certificate.js";
import { PeerIdentityVerifier, type PeerVerifierDependencies } from "./peer-verifier.js";
import { type ListRefusal, RevocationLists, revocationListFromPem } from "./revocation-lists.js";
import type { Roster } from "./roster.js";
import { readText } from "./secret-file.js";

/** Public files that a node judges its peers by. */
export interface TrustFileOptions {
  /** One or more roots, PEM. */
  readonly rootPath: string;
  /** Intermediates, PEM: they may sign revocation lists, and complete chains that peers send without them. */
  readonly intermediatePath: string;
  /** One list for each intermediate, PEM. */
  readonly revocationListPaths: readonly string[];
  readonly roster: Pick<Roster, "has">;
}

/**
 * A verifier made from files, and the lists behind it. `readRevocations` may be called while connections run: the next
 * verdict follows the new list, and a list that is refused changes nothing.
 */
export class TrustFiles {
  readonly verifier: PeerIdentityVerifier;
  readonly revocations: RevocationLists;
  readonly #paths: readonly string[];
  readonly #clock: PeerVerifierDependencies["clock"];

  private constructor(
    parts: Pick<TrustFiles, "verifier" | "revocations"> & { readonly paths: readonly string[] },
    { clock }: PeerVerifierDependencies,
  ) {
    this.verifier = parts.verifier;
    this.revocations = parts.revocations;
    this.#paths = parts.paths;
    this.#clock = clock;
  }

  /**
   * Reads everything once.
   * @throws InvalidInput `file-missing`, `bad-certificate-file`, `bad-trust-anchor`, `revocation-list-refused`
   */
  static async load(options: TrustFileOptions, dependencies: PeerVerifierDependencies): Promise<TrustFiles> {
    const roots = parseCertificatesPem(await readText(options.rootPath, "the root certificate"));
    const intermediates = parseCertificatesPem(
      await readText(options.intermediatePath, "the intermediate certificate"),
    );
    const revocations = new RevocationLists({ authorities: [...roots, ...intermediates] });
    const verifier = new PeerIdentityVerifier(
      {
        roots: roots.map(({ der }) => der),
        intermediates: intermediates.map(({ der }) => der),
        roster: options.roster,
        revocations,
      },
      dependencies,
    );
    const trust = new TrustFiles({ verifier, revocations, paths: options.revocationListPaths }, dependencies);
    for (const result of await trust.readRevocations()) {
      if (result.ok) continue;
      const { path, reason } = result;
      throw new InvalidInput("revocation-list-refused", `the revocation list ${path} is refused: ${reason}`, {
        path,
        reason,
      });
    }
    return trust;
  }

  /** Reads the lists again; each file's result is for the log. A missing file throws and changes nothing. */
  async readRevocations(): Promise<
    readonly (
      | { readonly ok: true; readonly path: string; readonly number: number }
      | { readonly ok: false; readonly path: string; readonly reason: ListRefusal }
    )[]
  > {
    const files = await Promise.all(
      this.#paths.map(async (path) => ({
        path,
        der: revocationListFromPem(await readText(path, "the revocation list")),
      })),
    );
    return files.map(({ path, der }) => ({ path, ...this.revocations.accept(der, this.#clock.nowMs()) }));
  }
}
