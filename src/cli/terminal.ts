import type { Clock, Random } from "../crypto/ambient.js";

/** What commands use of the world; main.ts makes the real one. */
export interface Terminal {
  /** Writes a line of the result. */
  print(line: string): void;
  /** Shows what is going on; never part of the result. On a terminal the next one replaces it. */
  progress(line: string): void;
  /** Asks a person for a yes; undefined when nobody can be asked. */
  confirm(question: string): Promise<boolean | undefined>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
}

/** Columns padded to their widest cell; the first row is the heading. */
export function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows.reduce<number[]>(
    (known, row) => row.map((cell, column) => Math.max(cell.length, known[column] ?? 0)),
    [],
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

/** Names and values, one a line; empty values are left out. */
export function listed(entries: readonly (readonly [name: string, value: string])[]): string[] {
  return aligned(entries.filter(([, value]) => value !== ""));
}
