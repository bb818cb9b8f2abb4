import { rename } from "node:fs/promises";
import { join } from "node:path";
import { InvalidInput } from "../../crypto/fault.js";
import { type Certificate, certificatesToPem, parseCertificatesPem } from "./certificate.js";
import {
  AUTHORITY_CURVE,
  createIntermediate,
  createRoot,
  generateCertificateKey,
  INTERMEDIATE_LIFETIME_MS,
  type IssuingContext,
  issueNodeCertificate,
  NODE_CURVE,
  type SigningAuthority,
  signingAuthority,
} from "./certificate-authority.js";
import { CertificateRegister, type IssuedCertificate } from "./certificate-register.js";
import {
  type CertificateRequest,
  createCertificateRequest,
  requestToPem,
  verifyCertificateRequest,
} from "./certificate-request.js";
import { decryptPrivateKey, encryptPrivateKey } from "./encrypted-key.js";
import { withPkiLock } from "./pki-lock.js";
import { judgeRenewal, keyDigestOf, type RenewalRefusal } from "./renewal.js";
import { createRevocationList, type RevocationReason, revocationListToPem } from "./revocation-lists.js";
import { exists, makePrivateFolder, readText, replacePublic, writeNewPublic, writeNewSecret } from "./secret-file.js";

/** Where each part of a PKI lies. `root/` can be carried away after `initIntermediate`: nothing that runs reads its key. */
export interface PkiPaths {
  readonly folder: string;
  readonly rootFolder: string;
  readonly rootKey: string;
  readonly rootCertificate: string;
  /** Only there once an intermediate has been revoked. */
  readonly rootRevocationList: string;
  readonly intermediateFolder: string;
  readonly intermediateKey: string;
  readonly intermediateCertificate: string;
  readonly revocationList: string;
  readonly register: string;
}

export interface Issuance {
  readonly leaf: Certificate;
  /** Leaf, then intermediate: what a node presents. */
  readonly chainPem: string;
}

interface IntermediateOptions {
  readonly commonName: string;
  readonly rootPassphrase: string;
  readonly passphrase: string;
}

interface RevokeOptions {
  readonly which: { readonly serialNumber: string } | { readonly nodeId: string };
  readonly reason: RevocationReason;
  readonly passphrase: string;
}

/**
 * An authority's folder on disk and what can be done with it. The root key and the intermediate key are encrypted under
 * their own passphrases; the register remembers every certificate. Whatever writes holds the folder's lock: two commands
 * at once could give two lists the same number, and a renewal beside a revocation could escape it.
 */
export class PkiFolder {
  readonly paths: PkiPaths;
  readonly #context: IssuingContext;

  constructor(folder: string, context: IssuingContext) {
    const rootFolder = join(folder, "root");
    const intermediateFolder = join(folder, "intermediate");
    this.paths = {
      folder,
      rootFolder,
      rootKey: join(rootFolder, "root-key.pem"),
      rootCertificate: join(rootFolder, "root.pem"),
      rootRevocationList: join(rootFolder, "root-revocations.pem"),
      intermediateFolder,
      intermediateKey: join(intermediateFolder, "intermediate-key.pem"),
      intermediateCertificate: join(intermediateFolder, "intermediate.pem"),
      revocationList: join(intermediateFolder, "revocations.pem"),
      register: join(folder, "register.jsonl"),
    };
    this.#context = context;
  }

  /** Makes the root. @throws InvalidInput `file-exists`, `short-passphrase`; Unavailable `pki-folder-locked` */
  initRoot(options: { readonly commonName: string; readonly passphrase: string }): Promise<Certificate> {
    return this.#locked(() => this.#initRoot(options));
  }

  async #initRoot(options: { readonly commonName: string; readonly passphrase: string }): Promise<Certificate> {
    const privateKey = await generateCertificateKey(AUTHORITY_CURVE);
    const root = await createRoot({ commonName: options.commonName, privateKey }, this.#context);
    const keyPem = await encryptPrivateKey(privateKey, options.passphrase, this.#context.random);
    await makePrivateFolder(this.paths.rootFolder);
    await writeNewSecret(this.paths.rootKey, keyPem);
    await writeNewPublic(this.paths.rootCertificate, certificatesToPem([root.certificate]));
    return root.certificate;
  }

  /** Makes the intermediate and its first, empty revocation list. @throws InvalidInput `file-exists`, `file-missing` */
  initIntermediate(options: IntermediateOptions): Promise<Certificate> {
    return this.#locked(() => this.#initIntermediate(options));
  }

  async #initIntermediate(options: IntermediateOptions): Promise<Certificate> {
    const root = await this.#open("root", options.rootPassphrase);
    const privateKey = await generateCertificateKey(AUTHORITY_CURVE);
    const made = await createIntermediate({ commonName: options.commonName, root, privateKey }, this.#context);
    const keyPem = await encryptPrivateKey(privateKey, options.passphrase, this.#context.random);
    await makePrivateFolder(this.paths.intermediateFolder);
    await writeNewSecret(this.paths.intermediateKey, keyPem);
    await writeNewPublic(this.paths.intermediateCertificate, certificatesToPem([made.certificate]));
    const register = await this.#register();
    const { serialNumber, notBeforeMs, notAfterMs } = made.certificate;
    const issuer = root.certificate.fingerprint;
    const atMs = this.#context.clock.nowMs();
    await register.append({ kind: "intermediate", atMs, serialNumber, issuer, notBeforeMs, notAfterMs });
    await this.#publish(made, this.paths.revocationList);
    return made.certificate;
  }

  /**
   * Revokes the intermediate itself, with everything below it: the answer to a stolen intermediate key. The root signs
   * a list of its own, and the folder is moved aside so that a new intermediate can be made at once.
   * @returns where the old intermediate lies now
   */
  revokeIntermediate(options: {
    readonly reason: RevocationReason;
    readonly rootPassphrase: string;
  }): Promise<{ readonly movedTo: string; readonly serialNumber: string }> {
    return this.#locked(() => this.#revokeIntermediate(options));
  }

  async #revokeIntermediate(options: {
    readonly reason: RevocationReason;
    readonly rootPassphrase: string;
  }): Promise<{ readonly movedTo: string; readonly serialNumber: string }> {
    const root = await this.#open("root", options.rootPassphrase);
    const pem = await readText(this.paths.intermediateCertificate, "the intermediate certificate");
    const [intermediate] = parseCertificatesPem(pem);
    if (intermediate?.native.verify(root.certificate.native.publicKey) !== true) {
      throw new InvalidInput("nothing-to-revoke", "the intermediate in this folder is not of this root");
    }
    const { serialNumber } = intermediate;
    const register = await this.#register();
    const issuer = root.certificate.fingerprint;
    const atMs = this.#context.clock.nowMs();
    await register.append({ kind: "revoked", atMs, serialNumber, issuer, reason: options.reason });
    // The root comes out of its safe seldom: its list promises no successor before an intermediate's life is over.
    await this.#publish(root, this.paths.rootRevocationList, INTERMEDIATE_LIFETIME_MS);
    const movedTo = join(this.paths.folder, `intermediate-revoked-${serialNumber.slice(0, 16)}`);
    await rename(this.paths.intermediateFolder, movedTo);
    return { movedTo, serialNumber };
  }

  /**
   * Issues from a request that an operator has accepted.
   * @param options.nodeId for whom the operator means it; a request for another id is refused
   * @throws InvalidInput `request-refused` with the reason
   */
  async issue(options: {
    readonly nodeId: string;
    readonly requestDer: Uint8Array;
    readonly passphrase: string;
    readonly lifetimeMs?: number;
  }): Promise<Issuance> {
    acceptRequest(options.requestDer, options.nodeId);
    return this.issueUnder(await this.#open("intermediate", options.passphrase), options);
  }

  /** Like `issue`, with the intermediate already open: opening costs 0.2 s. */
  issueUnder(
    intermediate: SigningAuthority,
    options: { readonly nodeId: string; readonly requestDer: Uint8Array; readonly lifetimeMs?: number },
  ): Promise<Issuance> {
    const request = acceptRequest(options.requestDer, options.nodeId);
    return this.#locked(async () =>
      this.#grant(await this.#register(), { intermediate, request, lifetimeMs: options.lifetimeMs }),
    );
  }

  /**
   * Issues the next certificate of a node that is connected under its present one. Whether that one is revoked is asked
   * of the register, in one step with the issuing: a revocation whose list has reached nobody yet counts already.
   */
  renewUnder(
    intermediate: SigningAuthority,
    options: {
      readonly nodeId: string;
      readonly present: Certificate;
      readonly requestDer: Uint8Array;
      readonly lifetimeMs?: number;
    },
  ): Promise<
    { readonly ok: true; readonly issuance: Issuance } | { readonly ok: false; readonly reason: RenewalRefusal }
  > {
    const { nodeId, present, requestDer, lifetimeMs } = options;
    return this.#locked(async () => {
      const register = await this.#register();
      if (register.isRevoked(present.serialNumber)) return { ok: false, reason: "certificate-revoked" };
      const hasCertified = (keyDigest: string): boolean => register.hasCertified(keyDigest);
      const judged = judgeRenewal({ present, nodeId, requestDer, hasCertified });
      if (!judged.ok) return judged;
      return { ok: true, issuance: await this.#grant(register, { intermediate, request: judged.request, lifetimeMs }) };
    });
  }

  /** The certificate is in the register before anybody has it: what was issued can be found and revoked. */
  async #grant(
    register: CertificateRegister,
    grant: {
      readonly intermediate: SigningAuthority;
      readonly request: CertificateRequest;
      readonly lifetimeMs: number | undefined;
    },
  ): Promise<Issuance> {
    const { intermediate, request, lifetimeMs } = grant;
    const leaf = await issueNodeCertificate(
      { intermediate, request, ...(lifetimeMs === undefined ? {} : { lifetimeMs }) },
      this.#context,
    );
    await register.append({
      kind: "issued",
      atMs: this.#context.clock.nowMs(),
      serialNumber: leaf.serialNumber,
      issuer: intermediate.certificate.fingerprint,
      nodeId: request.nodeId,
      notBeforeMs: leaf.notBeforeMs,
      notAfterMs: leaf.notAfterMs,
      keyDigest: keyDigestOf(request.publicKey),
    });
    return { leaf, chainPem: certificatesToPem([leaf, intermediate.certificate]) };
  }

  /**
   * Revokes one certificate, or every good one of a node, and publishes a new list.
   * @returns the revoked certificates
   * @throws InvalidInput `nothing-to-revoke`
   */
  revoke(options: RevokeOptions): Promise<readonly IssuedCertificate[]> {
    return this.#locked(() => this.#revoke(options));
  }

  async #revoke(options: RevokeOptions): Promise<readonly IssuedCertificate[]> {
    const intermediate = await this.#open("intermediate", options.passphrase);
    const register = await this.#register();
    const issuer = intermediate.certificate.fingerprint;
    const { which } = options;
    const nowMs = this.#context.clock.nowMs();
    const chosen = register.issued.filter(
      (entry) =>
        entry.issuer === issuer &&
        entry.revoked === undefined &&
        entry.notAfterMs >= nowMs &&
        ("nodeId" in which ? entry.nodeId === which.nodeId : entry.serialNumber === which.serialNumber),
    );
    if (chosen.length === 0) {
      throw new InvalidInput("nothing-to-revoke", "no valid certificate matches: see what there is with 'pki list'", {
        ...which,
      });
    }
    for (const { serialNumber } of chosen) {
      await register.append({ kind: "revoked", atMs: nowMs, serialNumber, issuer, reason: options.reason });
    }
    await this.#publish(intermediate, this.paths.revocationList);
    return chosen;
  }

  /** Signs a new list, with a higher number and a later next update. */
  async publishRevocations(options: {
    readonly passphrase: string;
    readonly lifetimeMs?: number;
  }): Promise<{ readonly number: number; readonly der: Uint8Array }> {
    return this.publishUnder(await this.#open("intermediate", options.passphrase), options.lifetimeMs);
  }

  /** Like `publishRevocations`, with the intermediate already open. */
  publishUnder(
    intermediate: SigningAuthority,
    lifetimeMs?: number,
  ): Promise<{ readonly number: number; readonly der: Uint8Array }> {
    return this.#locked(() => this.#publish(intermediate, this.paths.revocationList, lifetimeMs));
  }

  async list(): Promise<readonly IssuedCertificate[]> {
    return (await this.#register()).issued;
  }

  /** The intermediate with its key, for a service that renews certificates. */
  openIntermediate(passphrase: string): Promise<SigningAuthority> {
    return this.#open("intermediate", passphrase);
  }

  #register(): Promise<CertificateRegister> {
    return CertificateRegister.open(this.paths.register);
  }

  #locked<T>(work: () => Promise<T>): Promise<T> {
    return withPkiLock(this.paths.folder, { random: this.#context.random }, work);
  }

  async #publish(
    issuer: SigningAuthority,
    path: string,
    lifetimeMs?: number,
  ): Promise<{ readonly number: number; readonly der: Uint8Array }> {
    const register = await this.#register();
    const { fingerprint } = issuer.certificate;
    const number = register.nextListNumber(fingerprint);
    const revocations = register.revocationsOf(fingerprint, this.#context.clock.nowMs());
    const der = await createRevocationList(
      { issuer, number, revocations, ...(lifetimeMs === undefined ? {} : { lifetimeMs }) },
      this.#context,
    );
    // The number is used up before the list can leave.
    await register.append({ kind: "list", atMs: this.#context.clock.nowMs(), issuer: fingerprint, number });
    await replacePublic(path, revocationListToPem(der));
    return { number, der };
  }

  async #open(kind: "root" | "intermediate", passphrase: string): Promise<SigningAuthority> {
    const [keyPath, certificatePath] =
      kind === "root"
        ? [this.paths.rootKey, this.paths.rootCertificate]
        : [this.paths.intermediateKey, this.paths.intermediateCertificate];
    const hint = `the ${kind} (make it with 'pki init-${kind}', or name the right --folder)`;
    const [certificate] = parseCertificatesPem(await readText(certificatePath, hint));
    const keyPem = await readText(keyPath, `the ${kind} key (it may be kept offline; put it back for this command)`);
    if (certificate === undefined)
      throw new InvalidInput("bad-certificate-file", `no certificate in ${certificatePath}`);
    return signingAuthority(certificate, decryptPrivateKey(keyPem, passphrase));
  }
}

/** Makes a node's TLS key (0600) and the request for its certificate, next to each other in `folder`. */
export async function createNodeRequest(options: {
  readonly nodeId: string;
  readonly folder: string;
}): Promise<{ readonly keyPath: string; readonly requestPath: string; readonly requestDer: Uint8Array }> {
  const keyPath = join(options.folder, "tls-key.pem");
  const requestPath = join(options.folder, "tls-request.pem");
  for (const path of [keyPath, requestPath]) {
    if (await exists(path)) {
      throw new InvalidInput("file-exists", `${path} exists already and is not overwritten: move it away first`, {
        path,
      });
    }
  }
  const privateKey = await generateCertificateKey(NODE_CURVE);
  const requestDer = await createCertificateRequest(options.nodeId, privateKey);
  await makePrivateFolder(options.folder);
  await writeNewSecret(keyPath, privateKey.export({ type: "pkcs8", format: "pem" }) as string);
  await writeNewPublic(requestPath, requestToPem(requestDer));
  return { keyPath, requestPath, requestDer };
}

const REFUSAL_HINTS = {
  oversized: "it is larger than any request of ours",
  malformed: "it is not a PKCS#10 request",
  "unacceptable-key": "its key is neither P-256 nor P-384",
  "bad-signature": "its signature does not verify: whoever made it does not hold the key",
  "bad-node-id": "its common name and DNS name are not one valid node id",
} as const;

function acceptRequest(der: Uint8Array, nodeId: string): CertificateRequest {
  const verified = verifyCertificateRequest(der);
  if (!verified.ok) {
    const { reason } = verified;
    throw new InvalidInput("request-refused", `the request is refused: ${REFUSAL_HINTS[reason]}`, { reason });
  }
  if (verified.request.nodeId !== nodeId) {
    throw new InvalidInput("request-refused", `the request is for ${verified.request.nodeId}, not for ${nodeId}`, {
      reason: "another-node",
      requested: verified.request.nodeId,
      nodeId,
    });
  }
  return verified.request;
}
