/** The chain on disk: one JSON line for each block, transaction and invalidated tip, appended and never rewritten. */
import { appendFileSync, existsSync, readFileSync, truncateSync } from "node:fs";
import { z } from "zod";
import { InvalidInput } from "../../crypto/fault.js";

/** What happened to the chain. */
export type ChainRecord =
  | { readonly block: Uint8Array }
  | { readonly transaction: Uint8Array }
  | { readonly invalidated: string };

export interface ChainJournal {
  /** Everything that was appended, oldest first. */
  records(): Iterable<ChainRecord>;
  append(record: ChainRecord): void;
}

const hex = z.string().regex(/^([0-9a-f]{2})+$/);
const line = z.union([
  z.strictObject({ block: hex }).transform(({ block }) => ({ block: Buffer.from(block, "hex") })),
  z
    .strictObject({ transaction: hex })
    .transform(({ transaction }) => ({ transaction: Buffer.from(transaction, "hex") })),
  z.strictObject({ invalidated: hex }),
]);

/** A journal in one file. A last line that was torn by a crash is cut off; any other damage is an error. */
export class FileJournal implements ChainJournal {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws InvalidInput "chain-file-damaged" */
  *records(): Iterable<ChainRecord> {
    if (!existsSync(this.#path)) return;
    const text = readFileSync(this.#path, "utf8");
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    if (whole.length < text.length) truncateSync(this.#path, Buffer.byteLength(whole));
    for (const [index, content] of whole.split("\n").slice(0, -1).entries()) {
      let record: ChainRecord;
      try {
        record = line.parse(JSON.parse(content));
      } catch (cause) {
        const facts = { path: this.#path, line: index + 1 };
        throw new InvalidInput("chain-file-damaged", `${this.#path}: line ${index + 1} is damaged`, facts, cause);
      }
      yield record;
    }
  }

  append(record: ChainRecord): void {
    const text = Object.entries(record).map(([kind, value]) => [
      kind,
      typeof value === "string" ? value : Buffer.from(value).toString("hex"),
    ]);
    appendFileSync(this.#path, `${JSON.stringify(Object.fromEntries(text))}\n`);
  }
}
