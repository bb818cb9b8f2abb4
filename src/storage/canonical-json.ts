import { InvalidInput } from "../crypto/fault.js";

const MAX_DEPTH = 16;

/**
 * The one JSON text of a value (RFC 8785): no spaces, keys sorted by UTF-16 code units, numbers as ECMAScript prints
 * them. A `bigint` becomes its decimal string and a byte array its hex string; members that are undefined are left out.
 *
 * @throws InvalidInput "json-unrepresentable" for what has no JSON form or would not survive PostgreSQL's jsonb: NaN,
 *   infinities, functions, lone surrogates, U+0000, more than 16 levels
 */
export function canonicalJson(value: unknown): string {
  return write(value, 0);
}

function write(value: unknown, depth: number): string {
  if (depth > MAX_DEPTH) throw unrepresentable("depth");
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw unrepresentable("number");
    return JSON.stringify(value);
  }
  if (typeof value === "bigint") return `"${value}"`;
  if (typeof value === "string") return text(value);
  if (value instanceof Uint8Array) return `"${Buffer.from(value).toString("hex")}"`;
  if (Array.isArray(value)) return `[${value.map((item) => write(item, depth + 1)).join(",")}]`;
  if (typeof value !== "object") throw unrepresentable(typeof value);
  const prototype: unknown = Object.getPrototypeOf(value);
  // Class instances are refused rather than flattened: their fields were not meant for the trail.
  if (prototype !== Object.prototype && prototype !== null) throw unrepresentable("class instance");
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, member]) => `${text(key)}:${write(member, depth + 1)}`);
  return `{${members.join(",")}}`;
}

function text(value: string): string {
  if (/[\0\p{Surrogate}]/u.test(value)) throw unrepresentable("string");
  return JSON.stringify(value);
}

function unrepresentable(what: string): InvalidInput {
  return new InvalidInput("json-unrepresentable", "the value has no canonical JSON form", { what });
}
