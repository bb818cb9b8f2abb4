import {
  type DescField,
  type DescMethod,
  type DescService,
  getOption,
  type JsonObject,
  type JsonValue,
} from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import { http } from "../../gen/google/api/annotations_pb.js";
import { Bug } from "../crypto/fault.js";
import { refusal } from "./error-mapping.js";

/**
 * REST by the `google.api.http` annotations of the services: a request becomes the JSON of the method's input, which the
 * same handler then takes as a Connect call. Of the annotation's language, plain variables `{name}`, a verb `:name` and
 * the bodies "" and "*" are supported; anything else fails when the gateway starts.
 */
export interface RestRoute {
  readonly httpMethod: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly method: DescMethod;
  readonly path: RegExp;
  readonly variables: readonly DescField[];
  readonly takesBody: boolean;
}

const HTTP_METHOD = { get: "GET", post: "POST", put: "PUT", patch: "PATCH", delete: "DELETE" } as const;
const VARIABLE = /\{([a-z0-9_]+)\}/g;

/** The routes of every annotated method. */
export function restRoutes(services: readonly DescService[]): readonly RestRoute[] {
  return services.flatMap((service) => service.methods).flatMap((method) => routesOf(method));
}

function routesOf(method: DescMethod): RestRoute[] {
  const rule = getOption(method, http);
  return [rule, ...rule.additionalBindings].flatMap(({ pattern, body }) => {
    if (pattern.case === undefined) return [];
    const unsupported = () => new Bug("unsupported google.api.http annotation", { method: method.name });
    if (pattern.case === "custom" || (body !== "" && body !== "*")) throw unsupported();
    const variables = [...pattern.value.matchAll(VARIABLE)].map(([, name = ""]) => {
      const field = method.input.fields.find((one) => one.name === name);
      if (field === undefined) throw unsupported();
      return field;
    });
    const literal = pattern.value.split(VARIABLE).map((part, index) => (index % 2 === 1 ? "([^/:]+)" : escaped(part)));
    const path = new RegExp(`^${literal.join("")}$`);
    return [{ httpMethod: HTTP_METHOD[pattern.case], method, path, variables, takesBody: body === "*" }];
  });
}

function escaped(literal: string): string {
  return literal.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/**
 * The JSON of the method's input.
 *
 * @param url path with query, as requested
 * @param body parsed only when the route takes one
 * @throws ConnectError `invalid_argument`
 */
export function transcoded(route: RestRoute, url: URL, body: Uint8Array): JsonObject {
  const message = route.takesBody ? parsedBody(body) : {};
  if (!route.takesBody && body.length > 0 && !isEmptyObject(body)) {
    throw malformed(`${route.httpMethod} ${url.pathname} takes no body`);
  }
  for (const [name, value] of url.searchParams) {
    const field = route.method.input.fields.find((one) => one.name === name || one.jsonName === name);
    if (field === undefined || route.takesBody) throw malformed(`unknown query parameter '${name.slice(0, 64)}'`);
    message[field.jsonName] = queried(field, value, message[field.jsonName]);
  }
  const values = route.path.exec(url.pathname)?.slice(1) ?? [];
  for (const [index, field] of route.variables.entries()) message[field.jsonName] = decoded(values[index] ?? "");
  return message;
}

function parsedBody(body: Uint8Array): JsonObject {
  let value: JsonValue;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body)) as JsonValue;
  } catch {
    throw malformed("the body is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw malformed("the body must be a JSON object");
  return value;
}

/** Some clients send `{}` with every POST. */
function isEmptyObject(body: Uint8Array): boolean {
  return body.length <= 16 && new TextDecoder().decode(body).replace(/\s/g, "") === "{}";
}

function queried(field: DescField, value: string, before: JsonValue | undefined): JsonValue {
  if (field.fieldKind === "list") return [...(Array.isArray(before) ? before : []), value];
  if (field.fieldKind !== "scalar" && field.fieldKind !== "enum") {
    throw malformed(`'${field.name}' cannot be a query parameter`);
  }
  if (before !== undefined) throw malformed(`query parameter '${field.name}' is given twice`);
  // JSON of protobuf takes numbers and enums as strings, but not booleans.
  return value === "true" ? true : value === "false" ? false : value;
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw malformed("the path has a malformed percent-encoding");
  }
}

function malformed(message: string): ConnectError {
  return refusal({ code: Code.InvalidArgument, reason: "request-malformed", message });
}

const ENVELOPE_HEAD_BYTES = 5;
const END_STREAM = 0b10;

/** One message of a Connect stream in JSON. */
export interface StreamedJson {
  /** The last one: it holds the error, if any. */
  readonly end: boolean;
  readonly json: Uint8Array;
}

/** A JSON message as a Connect stream of one. */
export function* enveloped(message: JsonObject): Generator<Uint8Array> {
  const json = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(ENVELOPE_HEAD_BYTES);
  head.writeUInt32BE(json.length, 1);
  yield Buffer.concat([head, json]);
}

/** Splits a Connect stream, as our own handler wrote it, into its messages. */
export async function* unenveloped(stream: AsyncIterable<Uint8Array>): AsyncGenerator<StreamedJson> {
  let rest = Buffer.alloc(0);
  for await (const chunk of stream) {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= ENVELOPE_HEAD_BYTES) {
      const end = ENVELOPE_HEAD_BYTES + rest.readUInt32BE(1);
      if (rest.length < end) break;
      yield { end: (rest.readUInt8(0) & END_STREAM) !== 0, json: rest.subarray(ENVELOPE_HEAD_BYTES, end) };
      rest = rest.subarray(end);
    }
  }
}
