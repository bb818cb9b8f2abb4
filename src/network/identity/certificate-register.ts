import { readFile } from "node:fs/promises";
import { z } from "zod";
import { InvalidInput } from "../../crypto/fault.js";
import {
  REVOCATION_LIST_LIFETIME_MS,
  REVOCATION_REASONS,
  type Revocation,
  type RevocationReason,
} from "./revocation-lists.js";
import { appendDurably, isMissing } from "./secret-file.js";

/** 64 members that renew six times a year for fifty years; a bound on what is read. */
export const MAX_REGISTER_ENTRIES = 20_000;

const serialNumber = z.string().regex(/^[0-9a-f]{2,40}$/);
const fingerprint = z.string().regex(/^[0-9a-f]{64}$/);
const reasons = Object.keys(REVOCATION_REASONS) as [RevocationReason, ...RevocationReason[]];

const entrySchema = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("issued"),
    atMs: z.int(),
    serialNumber,
    issuer: fingerprint,
    nodeId: z.string().max(63),
    notBeforeMs: z.int(),
    notAfterMs: z.int(),
    // SHA-256 of the SubjectPublicKeyInfo; entries of the first release have none.
    keyDigest: fingerprint.optional(),
  }),
  z.strictObject({
    kind: z.literal("intermediate"),
    atMs: z.int(),
    serialNumber,
    issuer: fingerprint,
    notBeforeMs: z.int(),
    notAfterMs: z.int(),
  }),
  z.strictObject({
    kind: z.literal("revoked"),
    atMs: z.int(),
    serialNumber,
    issuer: fingerprint,
    reason: z.enum(reasons),
  }),
  z.strictObject({ kind: z.literal("list"), atMs: z.int(), issuer: fingerprint, number: z.int().min(1) }),
]);

export type RegisterEntry = z.infer<typeof entrySchema>;

export interface IssuedCertificate {
  readonly serialNumber: string;
  readonly nodeId: string;
  /** Fingerprint of the authority that signed it. */
  readonly issuer: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly revoked: Revocation | undefined;
}

/**
 * What an authority has done: one JSON line for each certificate, revocation and list, only ever appended, so that
 * an interrupted command loses nothing and history stays.
 */
export class CertificateRegister {
  readonly #path: string;
  readonly #entries: RegisterEntry[];

  private constructor(path: string, entries: RegisterEntry[]) {
    this.#path = path;
    this.#entries = entries;
  }

  /** @throws InvalidInput `bad-register` naming the line */
  static async open(path: string): Promise<CertificateRegister> {
    let text = "";
    try {
      text = await readFile(path, "utf8");
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    const lines = text.split("\n").filter((line) => line.trim() !== "");
    if (lines.length > MAX_REGISTER_ENTRIES) {
      throw new InvalidInput("bad-register", "the register is larger than any real one", { path, lines: lines.length });
    }
    return new CertificateRegister(
      path,
      lines.map((line, index) => readEntry(line, { path, line: index + 1 })),
    );
  }

  /** @throws InvalidInput `register-full` */
  async append(entry: RegisterEntry): Promise<void> {
    if (this.#entries.length >= MAX_REGISTER_ENTRIES) {
      throw new InvalidInput("register-full", `${this.#path} is full: begin a new folder with a new intermediate`, {
        path: this.#path,
      });
    }
    await appendDurably(this.#path, `${JSON.stringify(entry)}\n`);
    this.#entries.push(entry);
  }

  /** Nodes' certificates, oldest first. */
  get issued(): readonly IssuedCertificate[] {
    const revocations = this.#revocations();
    return this.#entries
      .filter((entry) => entry.kind === "issued")
      .map((entry) => ({ ...entry, revoked: revocations.get(keyOf(entry)) }));
  }

  /**
   * What a list of this issuer must name now. A certificate leaves the list a whole list lifetime after it expired, when
   * it is refused anyway and every receiver has seen its revocation (RFC 5280, 3.3).
   */
  revocationsOf(issuer: string, nowMs: number): readonly Revocation[] {
    const revocations = this.#revocations();
    return this.#entries
      .filter((entry) => entry.kind === "issued" || entry.kind === "intermediate")
      .filter((entry) => entry.issuer === issuer && entry.notAfterMs + REVOCATION_LIST_LIFETIME_MS >= nowMs)
      .map((entry) => revocations.get(keyOf(entry)))
      .filter((revocation) => revocation !== undefined);
  }

  /** True when a certificate was issued here for this very key, to whomever. */
  hasCertified(keyDigest: string): boolean {
    return this.#entries.some((entry) => entry.kind === "issued" && entry.keyDigest === keyDigest);
  }

  /** Serial numbers are random: one of two authorities is not expected, and refusing it would be right. */
  isRevoked(serialNumber: string): boolean {
    return this.#entries.some((entry) => entry.kind === "revoked" && entry.serialNumber === serialNumber);
  }

  /** Number for the next list: higher than every one that may have left this folder. */
  nextListNumber(issuer: string): number {
    const numbers = this.#entries.map((entry) => (entry.kind === "list" && entry.issuer === issuer ? entry.number : 0));
    return numbers.reduce((highest, number) => Math.max(highest, number), 0) + 1;
  }

  #revocations(): ReadonlyMap<string, Revocation> {
    const revocations = new Map<string, Revocation>();
    for (const entry of this.#entries) {
      if (entry.kind !== "revoked" || revocations.has(keyOf(entry))) continue;
      const { serialNumber, atMs, reason } = entry;
      revocations.set(keyOf(entry), { serialNumber, revokedAtMs: atMs, reason });
    }
    return revocations;
  }
}

function keyOf({ issuer, serialNumber }: { readonly issuer: string; readonly serialNumber: string }): string {
  return `${issuer}/${serialNumber}`;
}

function readEntry(line: string, where: { readonly path: string; readonly line: number }): RegisterEntry {
  try {
    return entrySchema.parse(JSON.parse(line));
  } catch (error) {
    throw new InvalidInput(
      "bad-register",
      `${where.path}, line ${where.line}: not an entry of ours (a last line that a crash cut short counted nowhere: remove it)`,
      where,
      error,
    );
  }
}
