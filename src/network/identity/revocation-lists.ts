import { verify } from "node:crypto";
import { InvalidInput } from "../../crypto/fault.js";
import type { Certificate } from "./certificate.js";
import {
  type IssuingContext,
  nameOf,
  type SigningAuthority,
  spkiOf,
  webCryptoSigner,
} from "./certificate-authority.js";
import { decodeDerInteger, encodeDerInteger, isOneSequence, splitSigned } from "./der.js";
import { x509 } from "./x509-library.js";

const DAY_MS = 24 * 60 * 60 * 1000;

/** A list promises its successor within this time. */
export const REVOCATION_LIST_LIFETIME_MS = 30 * DAY_MS;

/** How long an overdue list still counts, with a warning. A forgotten command must not stop five nodes overnight. */
export const STALE_GRACE_MS = 14 * DAY_MS;

/** The library's reader stops at 10,000 ASN.1 nodes, and an entry has eight. Expired certificates leave the list. */
export const MAX_REVOCATIONS = 1000;
export const MAX_REVOCATION_LIST_BYTES = 128 * 1024;

/** Publishers' clocks differ from ours by less than this. */
const CLOCK_SKEW_MS = 5 * 60 * 1000;

const CRL_NUMBER = "2.5.29.20";

export const REVOCATION_REASONS = {
  unspecified: x509.X509CrlReason.unspecified,
  "key-compromise": x509.X509CrlReason.keyCompromise,
  "affiliation-changed": x509.X509CrlReason.affiliationChanged,
  superseded: x509.X509CrlReason.superseded,
  "cessation-of-operation": x509.X509CrlReason.cessationOfOperation,
} as const;

export type RevocationReason = keyof typeof REVOCATION_REASONS;

export interface Revocation {
  readonly serialNumber: string;
  readonly revokedAtMs: number;
  readonly reason: RevocationReason;
}

export type ListRefusal =
  | "oversized"
  | "malformed"
  | "unknown-critical-extension"
  | "unknown-issuer"
  | "bad-signature"
  | "not-yet-valid"
  | "rollback";

export type RevocationStatus = { readonly state: "good" | "revoked" | "unknown" | "stale" };

/**
 * Signs an X.509 v2 revocation list. DER.
 * @param options.number strictly larger than of every list before; receivers refuse a lower one
 * @throws InvalidInput `too-many-revocations`
 */
export async function createRevocationList(
  options: {
    readonly issuer: SigningAuthority;
    readonly number: number;
    readonly revocations: readonly Revocation[];
    readonly lifetimeMs?: number;
  },
  { clock }: Pick<IssuingContext, "clock">,
): Promise<Uint8Array> {
  if (options.revocations.length > MAX_REVOCATIONS) {
    throw new InvalidInput("too-many-revocations", `a list holds at most ${MAX_REVOCATIONS} entries`, {
      revocations: options.revocations.length,
    });
  }
  const nowMs = Math.floor(clock.nowMs() / 1000) * 1000;
  const signer = await webCryptoSigner(options.issuer.privateKey);
  const list = await x509.X509CrlGenerator.create({
    issuer: nameOf(options.issuer.certificate),
    thisUpdate: new Date(nowMs),
    nextUpdate: new Date(nowMs + (options.lifetimeMs ?? REVOCATION_LIST_LIFETIME_MS)),
    entries: options.revocations.map((entry) => ({
      serialNumber: entry.serialNumber,
      revocationDate: new Date(Math.floor(entry.revokedAtMs / 1000) * 1000),
      reason: REVOCATION_REASONS[entry.reason],
    })),
    extensions: [
      await x509.AuthorityKeyIdentifierExtension.create(spkiOf(options.issuer.privateKey)),
      new x509.Extension(CRL_NUMBER, false, new Uint8Array(encodeDerInteger(options.number))),
    ],
    signingAlgorithm: signer.algorithm,
    signingKey: signer.key,
  });
  return new Uint8Array(list.rawData);
}

export function revocationListToPem(der: Uint8Array): string {
  return `${x509.PemConverter.encode(der, "CRL").replaceAll(" CRL-----", " X509 CRL-----")}\n`;
}

/** @throws InvalidInput `bad-revocation-list-file` */
export function revocationListFromPem(pem: string): Uint8Array {
  try {
    return new Uint8Array(x509.PemConverter.decodeFirst(pem));
  } catch {
    throw new InvalidInput("bad-revocation-list-file", "the file holds no revocation list in PEM form");
  }
}

/** The newest accepted list of one authority. */
export interface NewestList {
  /** Fingerprint of the authority that signed it. */
  readonly issuer: string;
  readonly der: Uint8Array;
  readonly number: number;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
}

interface AcceptedList extends NewestList {
  readonly serialNumbers: ReadonlySet<string>;
}

/**
 * The revocations that this node knows, by issuer. Lists arrive while it runs; a list counts only when its issuer is
 * one of our authorities, its signature holds and its number is not lower than the one before, so that an old list
 * cannot make a revoked certificate good again. The newest accepted list should be kept on disk: after a restart it is
 * what sets the lowest number.
 */
export class RevocationLists {
  readonly #authorities: readonly Certificate[];
  readonly #accepted = new Map<string, AcceptedList>();
  readonly #staleGraceMs: number;

  constructor(options: { readonly authorities: readonly Certificate[]; readonly staleGraceMs?: number }) {
    this.#authorities = options.authorities.filter(
      ({ isAuthority, keyUsage }) => isAuthority && ((keyUsage ?? 0) & x509.KeyUsageFlags.cRLSign) !== 0,
    );
    this.#staleGraceMs = options.staleGraceMs ?? STALE_GRACE_MS;
  }

  /**
   * Takes a list over, or says why not; then everything stays as it was. Total.
   * @returns the list's number; the same list again is accepted and changes nothing
   */
  accept(
    der: Uint8Array,
    nowMs: number,
  ): { readonly ok: true; readonly number: number } | { readonly ok: false; readonly reason: ListRefusal } {
    if (der.length > MAX_REVOCATION_LIST_BYTES) return { ok: false, reason: "oversized" };
    if (!isOneSequence(der)) return { ok: false, reason: "malformed" };
    try {
      return this.#acceptParsed(new Uint8Array(der), nowMs);
    } catch {
      return { ok: false, reason: "malformed" };
    }
  }

  /** What the lists say about a certificate. "stale": the issuer's list is overdue beyond the grace. */
  statusOf(issuer: Certificate, serialNumber: string, nowMs: number): RevocationStatus {
    const list = this.#accepted.get(issuer.fingerprint);
    if (list === undefined) return { state: "unknown" };
    if (list.serialNumbers.has(serialNumber)) return { state: "revoked" };
    return { state: nowMs > list.nextUpdateMs + this.#staleGraceMs ? "stale" : "good" };
  }

  isPastNextUpdate(issuer: Certificate, nowMs: number): boolean {
    const list = this.#accepted.get(issuer.fingerprint);
    return list !== undefined && nowMs > list.nextUpdateMs;
  }

  /** The newest accepted list of an issuer. */
  newest(issuer: Certificate): NewestList | undefined {
    return this.#accepted.get(issuer.fingerprint);
  }

  /** The newest accepted list of every authority that has one, for keeping and for passing on. */
  all(): readonly NewestList[] {
    return [...this.#accepted.values()];
  }

  #acceptParsed(der: Uint8Array<ArrayBuffer>, nowMs: number): ReturnType<RevocationLists["accept"]> {
    const parsed = new x509.X509Crl(der);
    const issuerName = Buffer.from(parsed.issuerName.toArrayBuffer()).toString("hex");
    const keyId = parsed.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId;
    const issuer = this.#authorities.find(
      ({ subjectName, subjectKeyId }) =>
        subjectName === issuerName && (keyId === undefined || subjectKeyId === undefined || keyId === subjectKeyId),
    );
    if (issuer === undefined) return { ok: false, reason: "unknown-issuer" };
    const parts = splitSigned(der);
    const { publicKey } = issuer.native;
    if (parts === undefined || parts.keyType !== publicKey.asymmetricKeyType) return { ok: false, reason: "malformed" };
    if (!verify(parts.digest, parts.signed, publicKey, parts.signature)) return { ok: false, reason: "bad-signature" };

    const list = readList(der, parsed, issuer.fingerprint);
    if (list === undefined) return { ok: false, reason: "malformed" };
    // An indirect, partial or delta list marks itself by a critical extension: reading it as complete would be wrong.
    const extensions = [parsed.extensions, ...parsed.entries.map((entry) => entry.extensions)].flat();
    if (extensions.some(({ critical }) => critical)) return { ok: false, reason: "unknown-critical-extension" };
    if (parsed.thisUpdate.getTime() > nowMs + CLOCK_SKEW_MS) return { ok: false, reason: "not-yet-valid" };
    const current = this.#accepted.get(issuer.fingerprint);
    const isSame = current !== undefined && Buffer.compare(current.der, der) === 0;
    if (current !== undefined && !isSame && list.number <= current.number) return { ok: false, reason: "rollback" };
    this.#accepted.set(issuer.fingerprint, list);
    return { ok: true, number: list.number };
  }
}

function readList(der: Uint8Array, parsed: x509.X509Crl, issuer: string): AcceptedList | undefined {
  const nextUpdateMs = parsed.nextUpdate?.getTime() ?? Number.NaN;
  const numbers = parsed.getExtensions(CRL_NUMBER);
  const [extension] = numbers;
  const number = extension === undefined ? undefined : decodeDerInteger(new Uint8Array(extension.value));
  const usable = numbers.length === 1 && number !== undefined && Number.isFinite(nextUpdateMs);
  if (!usable || Number.isNaN(parsed.thisUpdate.getTime()) || parsed.entries.length > MAX_REVOCATIONS) return undefined;
  const serialNumbers = new Set(
    parsed.entries.map((entry) => entry.serialNumber.toLowerCase().replace(/^(00)+(?=..)/, "")),
  );
  return { issuer, der, number, thisUpdateMs: parsed.thisUpdate.getTime(), nextUpdateMs, serialNumbers };
}
