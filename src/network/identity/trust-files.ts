import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { InvalidInput } from "../../crypto/fault.js";
import { parseCertificatesPem } from "./certificate.js";
import { PeerIdentityVerifier, type PeerVerifierDependencies } from "./peer-verifier.js";
import { type ListRefusal, RevocationLists, revocationListFromPem, revocationListToPem } from "./revocation-lists.js";
import type { Roster } from "./roster.js";
import { isMissing, makePrivateFolder, readText, replacePublic } from "./secret-file.js";

/** Public files that a node judges its peers by. */
export interface TrustFileOptions {
  /** One or more roots, PEM. */
  readonly rootPath: string;
  /** Intermediates, PEM: they may sign revocation lists, and complete chains that peers send without them. */
  readonly intermediatePath: string;
  /** One list for each intermediate, PEM. */
  readonly revocationListPaths: readonly string[];
  /**
   * Where the newest accepted list of each authority is kept, wherever it came from: after a restart an older file
   * cannot make a revoked certificate good again. Without it only the files are known.
   */
  readonly keepFolder?: string;
  readonly roster: Pick<Roster, "has">;
}

/** What became of one list file. `rollback`: peers have brought a newer one than the file holds. */
export type ListFileResult =
  | { readonly ok: true; readonly path: string; readonly number: number }
  | {
      readonly ok: false;
      readonly path: string;
      readonly reason: ListRefusal | "unreadable";
      readonly cause?: unknown;
    };

const KEPT = /^[0-9a-f]{64}\.pem$/;

/**
 * A verifier made from files, and the lists behind it. Lists may be read again or offered while connections run: the next
 * verdict follows the new list, and a list that is refused changes nothing.
 */
export class TrustFiles {
  readonly verifier: PeerIdentityVerifier;
  readonly revocations: RevocationLists;
  readonly #paths: readonly string[];
  readonly #keepFolder: string | undefined;
  readonly #clock: PeerVerifierDependencies["clock"];
  /** Number of the list of each issuer that is on disk in `keepFolder`. */
  readonly #kept = new Map<string, number>();
  #keeping: Promise<void> = Promise.resolve();

  private constructor(
    parts: Pick<TrustFiles, "verifier" | "revocations"> & {
      readonly paths: readonly string[];
      readonly keepFolder: string | undefined;
    },
    { clock }: PeerVerifierDependencies,
  ) {
    this.verifier = parts.verifier;
    this.revocations = parts.revocations;
    this.#paths = parts.paths;
    this.#keepFolder = parts.keepFolder;
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
    const { keepFolder, revocationListPaths: paths } = options;
    const trust = new TrustFiles({ verifier, revocations, paths, keepFolder }, dependencies);
    for (const result of await trust.readRevocations()) {
      if (result.ok) continue;
      const { path, reason } = result;
      if (reason === "unreadable" && result.cause instanceof InvalidInput && result.cause.code === "file-missing") {
        throw result.cause;
      }
      throw new InvalidInput("revocation-list-refused", `the revocation list ${path} is refused: ${reason}`, {
        path,
        reason,
      });
    }
    await trust.#readKept();
    return trust;
  }

  /**
   * Reads the list files again. Each stands alone: one that is missing, unreadable or refused is reported, its issuer's
   * last good list stays in force, and the others are taken over.
   */
  readRevocations(): Promise<readonly ListFileResult[]> {
    return Promise.all(
      this.#paths.map(async (path): Promise<ListFileResult> => {
        let der: Uint8Array;
        try {
          der = revocationListFromPem(await readText(path, "the revocation list"));
        } catch (cause) {
          return { ok: false, path, reason: "unreadable", cause };
        }
        return { path, ...this.revocations.accept(der, this.#clock.nowMs()) };
      }),
    );
  }

  /** Takes a list that somebody sent, or says why not. Total. */
  offer(der: Uint8Array): ReturnType<RevocationLists["accept"]> {
    return this.revocations.accept(der, this.#clock.nowMs());
  }

  /** Writes lists that are newer than the kept ones to `keepFolder`. @throws what writing throws */
  keepRevocations(): Promise<void> {
    const run = this.#keeping.catch(() => {}).then(() => this.#keep());
    this.#keeping = run;
    return run;
  }

  async #keep(): Promise<void> {
    if (this.#keepFolder === undefined) return;
    await makePrivateFolder(this.#keepFolder);
    for (const { issuer, number, der } of this.revocations.all()) {
      if ((this.#kept.get(issuer) ?? -1) >= number) continue;
      await replacePublic(join(this.#keepFolder, `${issuer}.pem`), revocationListToPem(der));
      this.#kept.set(issuer, number);
    }
  }

  /**
   * A kept list is a copy of one that was accepted; what does not count any more, of an authority that is not ours now or
   * damaged, is passed over, since the files above are the ones that an operator answers for.
   */
  async #readKept(): Promise<void> {
    if (this.#keepFolder === undefined) return;
    let names: string[];
    try {
      names = await readdir(this.#keepFolder);
    } catch (error) {
      if (isMissing(error)) return;
      throw error;
    }
    for (const name of names.filter((candidate) => KEPT.test(candidate))) {
      try {
        this.offer(revocationListFromPem(await readText(join(this.#keepFolder, name), "a kept revocation list")));
      } catch (error) {
        if (!(error instanceof InvalidInput)) throw error;
      }
    }
  }
}
