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

/** A firm's few nodes renew six times a year; this is a century of them, and a bound on what is read. */
const MAX_REGISTER_ENTRIES = 100_000;

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

  async append(entry: RegisterEntry): Promise<void> {
    await appendDurably(this.#path, `${JSON.stringify(entry)}\n`);
    this.#entries.push(entry);
  }

  /** Oldest first. */
  get issued(): readonly IssuedCertificate[] {
    const revoked = new Map(
      this.#entries
        .filter((entry) => entry.kind === "revoked")
        .map((entry) => [`${entry.issuer}/${entry.serialNumber}`, entry]),
    );
    return this.#entries
      .filter((entry) => entry.kind === "issued")
      .map((entry) => ({ ...entry, revoked: toRevocation(revoked.get(`${entry.issuer}/${entry.serialNumber}`)) }));
  }

  /**
   * What a list of this issuer must name now. A certificate leaves the list a whole list lifetime after it expired, when
   * it is refused anyway and every receiver has seen its revocation (RFC 5280, 3.3).
   */
  revocationsOf(issuer: string, nowMs: number): readonly Revocation[] {
    return this.issued
      .filter((entry) => entry.issuer === issuer && entry.notAfterMs + REVOCATION_LIST_LIFETIME_MS >= nowMs)
      .map((entry) => entry.revoked)
      .filter((revocation) => revocation !== undefined);
  }

  /** Number for the next list: higher than every one that may have left this folder. */
  nextListNumber(issuer: string): number {
    const numbers = this.#entries.map((entry) => (entry.kind === "list" && entry.issuer === issuer ? entry.number : 0));
    return numbers.reduce((highest, number) => Math.max(highest, number), 0) + 1;
  }
}

function toRevocation(entry: Extract<RegisterEntry, { kind: "revoked" }> | undefined): Revocation | undefined {
  if (entry === undefined) return undefined;
  return { serialNumber: entry.serialNumber, revokedAtMs: entry.atMs, reason: entry.reason };
}

function readEntry(line: string, where: { readonly path: string; readonly line: number }): RegisterEntry {
  try {
    return entrySchema.parse(JSON.parse(line));
  } catch (error) {
    throw new InvalidInput("bad-register", `${where.path}, line ${where.line}: not an entry of ours`, where, error);
  }
}
