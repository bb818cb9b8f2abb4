import { readFile, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import { InvalidInput } from "../crypto/fault.js";

const FILE_MAX_BYTES = 1 << 20;
/** Problems that one message lists. */
const PROBLEMS_MAX = 8;

/**
 * Reads a TOML file and checks it. Messages name the file, the key and what is allowed.
 *
 * @param file path
 * @param schemaOf makes the schema, given the folder of the file
 * @throws InvalidInput "configuration-unreadable", "configuration-invalid"
 */
export async function loadConfiguration<Schema extends z.ZodType>(
  file: string,
  schemaOf: (folder: string) => Schema,
): Promise<z.output<Schema>> {
  const text = await readBounded(file);
  return parseConfiguration(text, { file, schema: schemaOf(dirname(resolve(file))) });
}

async function readBounded(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > FILE_MAX_BYTES) throw new Error(`the file has more than ${FILE_MAX_BYTES} bytes`);
    return await readFile(file, "utf8");
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code === "ENOENT" ? "there is no such file" : (cause as Error).message;
    throw new InvalidInput("configuration-unreadable", `${file}: ${why}`, { file }, cause);
  }
}

/** The part of `loadConfiguration` that needs no file. */
export function parseConfiguration<Schema extends z.ZodType>(
  text: string,
  { file, schema }: { file: string; schema: Schema },
): z.output<Schema> {
  let table: unknown;
  try {
    table = parse(text, { integersAsBigInt: "asNeeded" });
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const why = cause.message.split("\n")[0] ?? "";
    const message = `${file}, line ${cause.line}, column ${cause.column}: ${why}`;
    throw new InvalidInput("configuration-invalid", message, { file, line: cause.line });
  }
  const result = schema.safeParse(table);
  if (result.success) return result.data;
  const problems = result.error.issues.slice(0, PROBLEMS_MAX).map((issue) => `${file}: ${described(issue, schema)}`);
  const more = result.error.issues.length - problems.length;
  if (more > 0) problems.push(`${file}: and ${more} more`);
  throw new InvalidInput("configuration-invalid", problems.join("\n"), { file });
}

function described(issue: z.core.$ZodIssue, schema: z.ZodType): string {
  const where = keyName(issue.path);
  if (issue.code === "unrecognized_keys") {
    const allowed = keysAt(schema, issue.path);
    const unknown = issue.keys.map((key) => `'${key.slice(0, 64)}'`).join(", ");
    const list = allowed.length === 0 ? "" : `; allowed are ${allowed.join(", ")}`;
    return `${where === "" ? "the file" : `[${where}]`} has the unknown key ${unknown}${list}`;
  }
  if (issue.code === "invalid_type" && issue.input === undefined && issue.message.includes("received undefined")) {
    return `${where} is missing`;
  }
  return `${where}: ${issue.message}`;
}

function keyName(path: readonly PropertyKey[]): string {
  return path.reduce<string>((name, part) => {
    if (typeof part === "number") return `${name}[${part}]`;
    return name === "" ? String(part) : `${name}.${String(part)}`;
  }, "");
}

/** Names of the keys that the table at `path` may have. */
function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): readonly string[] {
  let here = unwrapped(schema);
  for (const part of path) {
    const next =
      here instanceof z.ZodArray ? here.element : here instanceof z.ZodObject ? here.shape[String(part)] : undefined;
    if (next === undefined) return [];
    here = unwrapped(next as z.ZodType);
  }
  return here instanceof z.ZodObject ? Object.keys(here.shape) : [];
}

function unwrapped(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional || schema instanceof z.ZodPrefault) {
    return unwrapped(schema.unwrap() as z.ZodType);
  }
  return schema instanceof z.ZodPipe ? unwrapped(schema.in as z.ZodType) : schema;
}
