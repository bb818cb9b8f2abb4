import type { Clock } from "../../crypto/ambient.js";
import { InvalidInput } from "../../crypto/fault.js";
import { type Certificate, MAX_CERTIFICATE_BYTES, parseCertificate } from "./certificate.js";
import { isNodeId } from "./node-id.js";
import type { RevocationLists } from "./revocation-lists.js";
import type { Roster } from "./roster.js";
import { x509 } from "./x509-library.js";

/** Leaf, intermediate, root, and one to spare. A longer chain is refused before anything in it is read. */
export const MAX_CHAIN_CERTIFICATES = 4;

/** Warn this early: two weeks of failing renewals are visible before a node drops out. */
export const EXPIRY_WARNING_MS = 14 * 24 * 60 * 60 * 1000;

/** Why a peer is not let in. Closed: metrics count by it, and whoever adds one decides what an operator reads. */
export const REFUSAL_REASONS = [
  "no-certificate",
  "too-many-certificates",
  "oversized",
  "malformed",
  "unacceptable-algorithm",
  "unknown-critical-extension",
  "out-of-order",
  "missing-intermediate",
  "self-signed",
  "wrong-authority",
  "bad-signature",
  "not-an-authority",
  "path-length-exceeded",
  "wrong-key-usage",
  "wrong-extended-key-usage",
  "not-yet-valid",
  "expired",
  "revoked",
  "revocation-unknown",
  "revocation-stale",
  "name-mismatch",
  "not-in-roster",
  "unexpected-node",
  "verifier-failed",
] as const;

export type RefusalReason = (typeof REFUSAL_REASONS)[number];

export type PeerWarning = "expires-soon" | "revocation-list-stale";

export type PeerVerdict =
  | {
      readonly ok: true;
      readonly nodeId: string;
      readonly notAfterMs: number;
      /** Never a reason to refuse: renewal is due, or the revocation list was not renewed in time. */
      readonly warnings: readonly PeerWarning[];
    }
  | { readonly ok: false; readonly reason: RefusalReason };

export interface PeerVerifierOptions {
  /** DER. Trusted without further question, except for their validity. */
  readonly roots: readonly Uint8Array[];
  /** DER. Known authorities: they complete a chain that a peer sends without them, and spare their verification. */
  readonly intermediates?: readonly Uint8Array[];
  readonly roster: Pick<Roster, "has">;
  readonly revocations: RevocationLists;
}

export interface PeerVerifierDependencies {
  readonly clock: Pick<Clock, "nowMs">;
  /** Counts each verdict, for metrics. */
  readonly count?: (outcome: "accepted" | RefusalReason) => void;
}

/** As many as a roster has peers. */
const ACCEPTED_LEAVES_MAX = 64;

/**
 * The one certificate verifier: the same on the listening and on the dialling side, since `verifyCallback` replaces
 * whatever TLS would check by itself. Synchronous and total: every input gets a verdict, nothing throws.
 *
 * It proves that the holder of the leaf's key is the roster member named in the verdict. That the peer holds the key
 * is proved by the TLS handshake, not here.
 * @source RFC 5280 section 6, restricted to one name per leaf and no policies or name constraints
 */
export class PeerIdentityVerifier {
  readonly #roots: readonly Certificate[];
  readonly #intermediates: readonly Certificate[];
  readonly #roster: Pick<Roster, "has">;
  readonly #revocations: RevocationLists;
  readonly #clock: Pick<Clock, "nowMs">;
  readonly #count: (outcome: "accepted" | RefusalReason) => void;
  /** Fingerprints of (child, issuer) whose signature was verified: of our own authorities, and of accepted leaves. */
  readonly #verifiedLinks = new Set<string>();
  /** Leaves that were accepted, oldest first: a peer that stays connected is judged again every few seconds. */
  readonly #acceptedLeaves: { readonly certificate: Certificate; readonly link: string }[] = [];

  /** @throws InvalidInput `bad-trust-anchor` when a configured certificate cannot be used */
  constructor(options: PeerVerifierOptions, { clock, count }: PeerVerifierDependencies) {
    this.#roots = options.roots.map((der) => readAnchor(der, "root"));
    if (this.#roots.length === 0) throw new InvalidInput("bad-trust-anchor", "at least one root is needed");
    for (const root of this.#roots) {
      if (!root.native.verify(root.native.publicKey)) {
        throw new InvalidInput("bad-trust-anchor", "a root does not verify under its own key");
      }
    }
    this.#intermediates = (options.intermediates ?? []).map((der) => readAnchor(der, "intermediate"));
    for (const child of this.#intermediates) {
      for (const root of this.#roots) {
        if (isNamedIssuer(root, child) && child.native.verify(root.native.publicKey)) {
          this.#verifiedLinks.add(linkOf(child, root));
        }
      }
    }
    this.#roster = options.roster;
    this.#revocations = options.revocations;
    this.#clock = clock;
    this.#count = count ?? (() => {});
  }

  /**
   * Judges a peer's chain.
   * @param chainDer what the peer sent, leaf first, each below the next; the root may be left out
   * @param expectedNodeId the node that was dialled; undefined when listening
   */
  verify(chainDer: readonly Uint8Array[], expectedNodeId: string | undefined): PeerVerdict {
    let verdict: PeerVerdict;
    try {
      verdict = this.#judge(chainDer, expectedNodeId);
    } catch {
      // A TLS callback that throws is an unhandled rejection: whatever broke, the peer stays out.
      verdict = refuse("verifier-failed");
    }
    try {
      this.#count(verdict.ok ? "accepted" : verdict.reason);
    } catch {
      // A counter must not decide who gets in.
    }
    return verdict;
  }

  #judge(chainDer: readonly Uint8Array[], expectedNodeId: string | undefined): PeerVerdict {
    if (chainDer.length === 0) return refuse("no-certificate");
    if (chainDer.length > MAX_CHAIN_CERTIFICATES) return refuse("too-many-certificates");
    if (chainDer.some((der) => der.length > MAX_CERTIFICATE_BYTES)) return refuse("oversized");
    const sent = chainDer.map((der) => this.#known(der) ?? parseCertificate(der));
    const chain = sent.filter((certificate) => certificate !== undefined);
    const [leaf] = chain;
    if (leaf === undefined || chain.length !== sent.length) return refuse("malformed");

    const built = this.#buildPath(leaf, chain);
    if (!built.ok) return built;
    const reason =
      this.#brokenLink(built.path) ??
      misusedLeaf(leaf) ??
      outsideValidity(built.path, this.#clock.nowMs()) ??
      this.#revoked(built.path);
    if (reason !== undefined) return refuse(reason);
    const verdict = this.#judgeIdentity(leaf, built.path, expectedNodeId);
    if (verdict.ok) this.#remember(built.path);
    return verdict;
  }

  /** @param path of an accepted peer, leaf first; every signature in it was verified */
  #remember([leaf, issuer]: readonly Certificate[]): void {
    if (
      leaf === undefined ||
      issuer === undefined ||
      this.#acceptedLeaves.some(({ certificate }) => certificate === leaf)
    )
      return;
    const link = linkOf(leaf, issuer);
    this.#verifiedLinks.add(link);
    if (this.#acceptedLeaves.push({ certificate: leaf, link }) <= ACCEPTED_LEAVES_MAX) return;
    const gone = this.#acceptedLeaves.shift();
    if (gone !== undefined) this.#verifiedLinks.delete(gone.link);
  }

  /**
   * Parsing costs more than verifying P-256; what was parsed before is recognised by its bytes. Usage, dates, revocation
   * and roster are judged each time.
   */
  #known(der: Uint8Array): Certificate | undefined {
    return [...this.#intermediates, ...this.#roots, ...this.#acceptedLeaves.map(({ certificate }) => certificate)].find(
      (known) => known.der.length === der.length && Buffer.compare(known.der, der) === 0,
    );
  }

  /** Orders what was sent into leaf, …, root by names and key identifiers. No signature is checked yet. */
  #buildPath(
    leaf: Certificate,
    chain: readonly Certificate[],
  ):
    | { readonly ok: true; readonly path: readonly Certificate[] }
    | { readonly ok: false; readonly reason: RefusalReason } {
    const path: Certificate[] = [leaf];
    let top = leaf;
    for (const next of chain.slice(1)) {
      if (!isNamedIssuer(next, top)) return refuse("out-of-order");
      path.push(next);
      top = next;
    }
    while (!this.#isRoot(top)) {
      const child = top;
      const issuer =
        this.#roots.find((root) => isNamedIssuer(root, child)) ??
        this.#intermediates.find((known) => isNamedIssuer(known, child) && !path.includes(known));
      if (issuer === undefined || path.length >= MAX_CHAIN_CERTIFICATES) return refuse(unanchored(path, top));
      path.push(issuer);
      top = issuer;
    }
    return path.length === 1 ? refuse("self-signed") : { ok: true, path };
  }

  #isRoot(certificate: Certificate): boolean {
    return this.#roots.some(({ fingerprint }) => fingerprint === certificate.fingerprint);
  }

  /** Checks each authority's right to sign, then its signature, from the root down. */
  #brokenLink(path: readonly Certificate[]): RefusalReason | undefined {
    if (path.some((certificate) => certificate.hasUnknownCriticalExtension)) return "unknown-critical-extension";
    // Before any signature: a hostile key must not buy an expensive verification.
    if (path.some((certificate) => !certificate.hasAcceptableAlgorithms)) return "unacceptable-algorithm";
    for (let index = path.length - 1; index >= 1; index -= 1) {
      const [child, issuer] = [path[index - 1], path[index]];
      if (child === undefined || issuer === undefined) return "verifier-failed";
      if (!issuer.isAuthority) return "not-an-authority";
      if (!hasUsage(issuer, x509.KeyUsageFlags.keyCertSign)) return "wrong-key-usage";
      // Authorities between this one and the leaf: path[1] … path[index - 1].
      if (issuer.pathLength !== undefined && index - 1 > issuer.pathLength) return "path-length-exceeded";
      if (!this.#verifiedLinks.has(linkOf(child, issuer)) && !child.native.verify(issuer.native.publicKey)) {
        return "bad-signature";
      }
    }
    return undefined;
  }

  #revoked(path: readonly Certificate[]): RefusalReason | undefined {
    for (const [index, certificate] of path.slice(0, -1).entries()) {
      const issuer = path[index + 1];
      if (issuer === undefined) return "verifier-failed";
      const status = this.#revocations.statusOf(issuer, certificate.serialNumber, this.#clock.nowMs());
      if (status.state === "revoked") return "revoked";
      // The root is offline and signs a list only when an intermediate falls; the list of leaves is always there.
      if (status.state === "unknown" && index === 0) return "revocation-unknown";
      if (status.state === "stale" && index === 0) return "revocation-stale";
    }
    return undefined;
  }

  #judgeIdentity(leaf: Certificate, path: readonly Certificate[], expectedNodeId: string | undefined): PeerVerdict {
    const nodeId = nodeIdOf(leaf);
    if (nodeId === undefined) return refuse("name-mismatch");
    if (!this.#roster.has(nodeId)) return refuse("not-in-roster");
    if (expectedNodeId !== undefined && expectedNodeId !== nodeId) return refuse("unexpected-node");

    const notAfterMs = Math.min(...path.map((certificate) => certificate.notAfterMs));
    const [, issuer] = path;
    const nowMs = this.#clock.nowMs();
    const warnings: PeerWarning[] = [];
    if (notAfterMs - nowMs < EXPIRY_WARNING_MS) warnings.push("expires-soon");
    if (issuer !== undefined && this.#revocations.isPastNextUpdate(issuer, nowMs))
      warnings.push("revocation-list-stale");
    return { ok: true, nodeId, notAfterMs, warnings };
  }
}

/** The node id of a leaf: one common name, one DNS name, both the same valid id. Anything else is nobody. */
export function nodeIdOf(leaf: Certificate): string | undefined {
  const [commonName] = leaf.commonNames;
  const [name] = leaf.alternativeNames;
  const single = leaf.commonNames.length === 1 && leaf.alternativeNames.length === 1;
  if (!single || commonName === undefined || name?.type !== "dns" || name.value !== commonName) return undefined;
  return isNodeId(commonName) ? commonName : undefined;
}

function misusedLeaf(leaf: Certificate): RefusalReason | undefined {
  const mayOnlySign =
    hasUsage(leaf, x509.KeyUsageFlags.digitalSignature) && !hasUsage(leaf, x509.KeyUsageFlags.keyCertSign);
  if (leaf.isAuthority || !mayOnlySign) return "wrong-key-usage";
  // A peer dials and listens: each certificate serves both sides, so one that lacks a side was not made for this.
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const both = [serverAuth, clientAuth].every((usage) => leaf.extendedKeyUsage?.includes(usage) === true);
  return both ? undefined : "wrong-extended-key-usage";
}

function outsideValidity(path: readonly Certificate[], nowMs: number): RefusalReason | undefined {
  if (path.some(({ notAfterMs }) => nowMs > notAfterMs)) return "expired";
  if (path.some(({ notBeforeMs }) => nowMs < notBeforeMs)) return "not-yet-valid";
  return undefined;
}

/** Says why a path found no root. */
function unanchored(path: readonly Certificate[], top: Certificate): RefusalReason {
  const selfIssued = top.subjectName === top.issuerName;
  if (path.length === 1) return selfIssued ? "self-signed" : "missing-intermediate";
  // Somebody's complete chain, or an authority whose own issuer is a stranger.
  return "wrong-authority";
}

/** Names match exactly; the key identifier, when both have it, tells apart two authorities of one name. */
function isNamedIssuer(issuer: Certificate, child: Certificate): boolean {
  if (issuer.subjectName !== child.issuerName) return false;
  const { authorityKeyId } = child;
  return authorityKeyId === undefined || issuer.subjectKeyId === undefined || authorityKeyId === issuer.subjectKeyId;
}

function hasUsage(certificate: Certificate, flag: x509.KeyUsageFlags): boolean {
  return certificate.keyUsage !== undefined && (certificate.keyUsage & flag) !== 0;
}

function linkOf(child: Certificate, issuer: Certificate): string {
  return `${child.fingerprint}<${issuer.fingerprint}`;
}

function readAnchor(der: Uint8Array, kind: string): Certificate {
  const certificate = parseCertificate(der);
  if (certificate?.isAuthority !== true || !certificate.hasAcceptableAlgorithms) {
    throw new InvalidInput("bad-trust-anchor", `a configured ${kind} is not a usable authority certificate`);
  }
  return certificate;
}

function refuse(reason: RefusalReason): { readonly ok: false; readonly reason: RefusalReason } {
  return { ok: false, reason };
}
