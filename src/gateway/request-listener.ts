import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { JsonObject, Registry } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter, createContextValues } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { SpanContext } from "@opentelemetry/api";
import type { Logger } from "pino";
import type { Clock, Random } from "../crypto/ambient.js";
import { ADMISSION, type Admission, type Gate, scopeOf } from "./admission.js";
import { codeName, errorJson, httpStatusOf, refusal } from "./error-mapping.js";
import type { Readiness } from "./health.js";
import { CALL_RECORD, type CallRecord, logCall, noteError } from "./request-log.js";
import { enveloped, type RestRoute, transcoded, unenveloped } from "./rest-transcoder.js";
import { spanOf, traceparentOf, withSpan } from "./trace-context.js";

export type NodeRequest = IncomingMessage | Http2ServerRequest;
export type NodeResponse = ServerResponse | Http2ServerResponse;

export interface ListenerOptions {
  /** Names and values of a request's headers together. */
  readonly headerMaxBytes: number;
  /** Bytes of a request's body; one message is all that a body holds, except on a reflection stream. */
  readonly bodyMaxBytes: number;
  /** A body that has not arrived by then is abandoned: slow senders hold nothing for long. */
  readonly bodyMaxMs: number;
  /** A request of any kind is ended by then. */
  readonly requestMaxMs: number;
}

export interface ListenerParts {
  readonly router: ConnectRouter;
  readonly restRoutes: readonly RestRoute[];
  /** Messages that error details are made of. */
  readonly registry: Registry;
  readonly gate: Gate;
  readonly readiness: Readiness;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Body of GET /metrics, which needs the scope metrics:read; without it the path does not exist. */
  readonly metrics: (() => Promise<{ readonly contentType: string; readonly body: string }>) | undefined;
  readonly onCall: ((record: Readonly<CallRecord>) => void) | undefined;
}

/** One request on its way through the gateway. */
interface Exchange {
  readonly request: NodeRequest;
  readonly response: NodeResponse;
  readonly url: URL;
  readonly record: CallRecord;
}

/**
 * Answers every HTTP request of the gateway's port. Total: whatever a request holds, it gets an answer or its stream is
 * closed; nothing is thrown. (Connect's own adapter throws out of the listener for a request without a Host header or
 * with a path that is no URL, which would end the process.)
 */
export class RequestListener {
  readonly #options: ListenerOptions;
  readonly #parts: ListenerParts;
  readonly #handlers: ReadonlyMap<string, UniversalHandler>;

  constructor(options: ListenerOptions, parts: ListenerParts) {
    this.#options = options;
    this.#parts = parts;
    this.#handlers = new Map(parts.router.handlers.map((handler) => [handler.requestPath, handler]));
  }

  /** The function for `http2.createSecureServer`. */
  readonly listen = (request: NodeRequest, response: NodeResponse): void => {
    const { clock, random, log, onCall } = this.#parts;
    const startedMs = clock.monotonicMs();
    const span = spanOf(single(request.headers["traceparent"]), random);
    const record: CallRecord = {
      protocol: "http",
      method: "unknown",
      outcome: "ok",
      httpStatus: 0,
      durationMs: 0,
      requestBytes: 0,
      address: request.socket?.remoteAddress ?? "",
      subject: "",
      reason: "",
    };
    const cancelDeadlines = this.#limitTime(request, response);
    request.on("error", () => {}); // a peer that resets is no news
    response.on("error", () => {});
    response.once("close", () => {
      cancelDeadlines();
      record.httpStatus = response.headersSent ? response.statusCode : 0;
      if (record.httpStatus === 0 && record.outcome === "ok") record.outcome = "canceled";
      record.durationMs = clock.monotonicMs() - startedMs;
      logCall(log, record, span);
      onCall?.(record);
    });
    withSpan(span, () => this.#answer({ request, response, record, span })).catch((cause: unknown) => {
      log.error({ err: cause, traceId: span.traceId }, "request could not be answered");
      noteError(record, new ConnectError("internal error", Code.Internal));
      abandon(request, response);
    });
  };

  /** Ends requests that arrive or take too slowly. */
  #limitTime(request: NodeRequest, response: NodeResponse): () => void {
    const { clock } = this.#parts;
    const cancelBody = clock.after(this.#options.bodyMaxMs, () => {
      const streams = this.#handlers.get(request.url ?? "")?.method.methodKind === "bidi_streaming";
      if (!request.complete && !streams) abandon(request, response);
    });
    const cancelAll = clock.after(this.#options.requestMaxMs, () => abandon(request, response));
    return () => {
      cancelBody();
      cancelAll();
    };
  }

  async #answer(arrived: {
    request: NodeRequest;
    response: NodeResponse;
    record: CallRecord;
    span: SpanContext;
  }): Promise<void> {
    const { request, response, record, span } = arrived;
    response.setHeader("traceparent", traceparentOf(span));
    response.setHeader("x-content-type-options", "nosniff");
    response.setHeader("cache-control", "no-store");
    const url = urlOf(request);
    if (url === undefined) {
      const message = "the request has no valid path or host";
      return this.#refuse(
        { request, response, record },
        refusal({ code: Code.InvalidArgument, reason: "http-malformed", message }),
      );
    }
    // HTTP/2 promises this limit to clients, but Node enforces it only after the client has acknowledged it.
    if (headerBytes(request) > this.#options.headerMaxBytes) {
      const message = `the headers have more than ${this.#options.headerMaxBytes} bytes`;
      const error = refusal({ code: Code.ResourceExhausted, reason: "headers-too-large", message });
      return this.#refuse({ request, response, record }, error, 431);
    }
    const exchange: Exchange = { request, response, record, url };
    const handler = this.#handlers.get(url.pathname);
    if (handler !== undefined) return this.#call(handler, exchange);
    const routes = this.#parts.restRoutes.filter(({ path }) => path.test(url.pathname));
    if (routes.length > 0) return this.#rest(routes, exchange);
    return this.#plain(exchange);
  }

  /** Connect, gRPC and gRPC-web. */
  async #call(handler: UniversalHandler, exchange: Exchange): Promise<void> {
    const { request, response, record } = exchange;
    record.protocol = protocolOf(single(request.headers["content-type"]) ?? "");
    const admission = await this.#admit(handler, exchange);
    const universal = this.#universalRequest(exchange, admission);
    const streams = handler.method.methodKind === "bidi_streaming";
    universal.body = admission.admitted
      ? this.#counted(universal.body, {
          record,
          maxBytes: streams ? Number.POSITIVE_INFINITY : this.#options.bodyMaxBytes,
        })
      : refusedBody(admission.error);
    await this.#write(await handler(universal), { request, response, record });
  }

  async #admit(handler: UniversalHandler, { request, record }: Exchange): Promise<Admission> {
    const { method } = handler;
    record.method = `${method.parent.typeName}/${method.name}`;
    const admission = await this.#parts.gate.decide({
      scope: scopeOf(method),
      authorization: single(request.headers.authorization),
      address: record.address,
    });
    if (!admission.admitted) noteError(record, admission.error);
    else record.subject = admission.caller?.subject ?? "";
    return admission;
  }

  #universalRequest({ request, response, record }: Exchange, admission: Admission): UniversalServerRequest {
    const values = createContextValues().set(ADMISSION, admission).set(CALL_RECORD, record);
    return universalRequestFromNodeRequest(request, response as ServerResponse, undefined, values);
  }

  /** Counts a body and stops at the limit. */
  async *#counted(
    body: UniversalServerRequest["body"],
    { record, maxBytes }: { record: CallRecord; maxBytes: number },
  ): AsyncGenerator<Uint8Array> {
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      record.requestBytes += chunk.byteLength;
      if (record.requestBytes > maxBytes) {
        const error = bodyTooLarge(maxBytes);
        noteError(record, error);
        throw error;
      }
      yield chunk;
    }
  }

  /** The same handlers as REST. */
  async #rest(routes: readonly RestRoute[], exchange: Exchange): Promise<void> {
    const { request, response, record, url } = exchange;
    record.protocol = "rest";
    const route = routes.find(({ httpMethod }) => httpMethod === request.method);
    if (route === undefined) {
      response.setHeader("allow", routes.map(({ httpMethod }) => httpMethod).join(", "));
      const error = refusal({ code: Code.Unimplemented, reason: "method-not-allowed", message: "method not allowed" });
      return this.#refuse(exchange, await this.#charged(exchange, error), 405);
    }
    const handler = this.#handlers.get(`/${route.method.parent.typeName}/${route.method.name}`);
    if (handler === undefined) throw new Error(`no handler for ${route.method.name}`);
    const admission = await this.#admit(handler, exchange);
    if (!admission.admitted) return this.#refuse(exchange, admission.error);
    let message: JsonObject;
    try {
      message = transcoded(route, url, await this.#wholeBody(exchange));
    } catch (error) {
      const refused = ConnectError.from(error);
      return this.#refuse(exchange, refused, refused.code === Code.ResourceExhausted ? 413 : undefined);
    }
    const streams = route.method.methodKind === "server_streaming";
    const universal = this.#universalRequest(exchange, admission);
    universal.method = "POST";
    universal.header.set("content-type", streams ? "application/connect+json" : "application/json");
    universal.header.delete("content-encoding");
    universal.header.delete("connect-content-encoding");
    universal.body = streams ? iterable(enveloped(message)) : message;
    if (!streams) return this.#write(await handler(universal), exchange);
    universal.header.delete("connect-accept-encoding");
    return this.#restStream(await handler(universal), exchange);
  }

  async #wholeBody({ request, record }: Exchange): Promise<Uint8Array> {
    const encoding = single(request.headers["content-encoding"]) ?? "identity";
    if (encoding !== "identity") {
      const message = "a REST body must not be compressed";
      throw refusal({ code: Code.InvalidArgument, reason: "encoding-unsupported", message });
    }
    const chunks: Uint8Array[] = [];
    const body = request as AsyncIterable<Uint8Array>;
    for await (const chunk of this.#counted(body, { record, maxBytes: this.#options.bodyMaxBytes })) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /** One JSON object a line; an error after the first line is a last line `{"error": …}`. */
  async #restStream(streamed: UniversalServerResponse, exchange: Exchange): Promise<void> {
    const messages = unenveloped(streamed.body ?? iterable([]));
    const first = await messages.next();
    const headers = new Headers({ "content-type": "application/x-ndjson" });
    const failed = first.done === true || !first.value.end ? undefined : endError(first.value.json);
    if (failed !== undefined)
      return this.#writeJson(exchange, { status: httpStatusOf(failed.code), json: failed.json });
    async function* lines(): AsyncGenerator<Uint8Array> {
      for (let next = first; next.done !== true; next = await messages.next()) {
        if (!next.value.end) yield Buffer.concat([next.value.json, Buffer.from("\n")]);
        else if (endError(next.value.json) !== undefined) yield Buffer.concat([next.value.json, Buffer.from("\n")]);
      }
    }
    await this.#write({ status: 200, header: headers, body: lines() }, exchange);
  }

  /** Paths that are no calls. */
  async #plain(exchange: Exchange): Promise<void> {
    const { request, record, url } = exchange;
    const known = ["/healthz", "/readyz", ...(this.#parts.metrics === undefined ? [] : ["/metrics"])];
    if (!known.includes(url.pathname)) {
      const error = refusal({ code: Code.Unimplemented, reason: "path-unknown", message: "no such path" });
      return this.#refuse(exchange, await this.#charged(exchange, error), 404);
    }
    record.method = url.pathname;
    if (request.method !== "GET" && request.method !== "HEAD") {
      const error = refusal({ code: Code.Unimplemented, reason: "method-not-allowed", message: "method not allowed" });
      return this.#refuse(exchange, error, 405);
    }
    if (url.pathname === "/metrics") return this.#metrics(exchange);
    const ready = url.pathname === "/healthz" || (await this.#parts.readiness.ready());
    const status = url.pathname === "/healthz" ? "alive" : ready ? "ready" : "not-ready";
    if (!ready) record.outcome = "unavailable";
    await this.#writeJson(exchange, { status: ready ? 200 : 503, json: { status } });
  }

  async #metrics(exchange: Exchange): Promise<void> {
    const { request, record } = exchange;
    const authorization = single(request.headers.authorization);
    const admission = await this.#parts.gate.decide({ scope: "metrics:read", authorization, address: record.address });
    if (!admission.admitted) return this.#refuse(exchange, admission.error);
    record.subject = admission.caller?.subject ?? "";
    const { contentType, body } = (await this.#parts.metrics?.()) ?? { contentType: "text/plain", body: "" };
    const header = new Headers({ "content-type": contentType });
    await this.#write({ status: 200, header, body: iterable([Buffer.from(body)]) }, exchange);
  }

  /** Requests that lead nowhere are counted too; returns the error to answer with. */
  async #charged({ record }: Exchange, error: ConnectError): Promise<ConnectError> {
    const decision = await this.#parts.gate.decide({
      scope: undefined,
      authorization: undefined,
      address: record.address,
    });
    return decision.admitted ? error : decision.error;
  }

  async #refuse(
    exchange: Pick<Exchange, "request" | "response" | "record">,
    error: ConnectError,
    status?: number,
  ): Promise<void> {
    noteError(exchange.record, error);
    for (const [name, value] of error.metadata) exchange.response.setHeader(name, value);
    const limited = error.code === Code.ResourceExhausted && status !== 413 && status !== 431;
    const httpStatus = limited || status === undefined ? httpStatusOf(error.code) : status;
    await this.#writeJson(exchange, { status: httpStatus, json: errorJson(error, this.#parts.registry) });
  }

  async #writeJson(
    exchange: Pick<Exchange, "request" | "response" | "record">,
    { status, json }: { status: number; json: JsonObject },
  ): Promise<void> {
    const header = new Headers({ "content-type": "application/json" });
    await this.#write({ status, header, body: iterable([Buffer.from(JSON.stringify(json))]) }, exchange);
  }

  /** Writes the answer; what is left of an unread body is not waited for. */
  async #write(
    answer: UniversalServerResponse,
    { request, response, record }: Pick<Exchange, "request" | "response" | "record">,
  ): Promise<void> {
    if (answer.status >= 400 && record.outcome === "ok") record.outcome = `http ${answer.status}`;
    if (request.httpVersionMajor === 1 && !request.complete) response.setHeader("connection", "close");
    response.once("finish", () => {
      if ("stream" in request && !request.complete) setImmediate(() => abandon(request, response));
    });
    try {
      await universalResponseToNodeResponse(answer, response as ServerResponse);
    } catch (cause) {
      // The client went away, or its stream was ended by a limit: there is nobody left to tell.
      noteError(record, cause);
      abandon(request, response);
    }
  }
}

/** Ends a request at once, without an answer. */
function abandon(request: NodeRequest, response: NodeResponse): void {
  if ("stream" in request) request.stream.close();
  else response.destroy();
}

function single(header: string | readonly string[] | undefined): string | undefined {
  return typeof header === "string" ? header : header?.[0];
}

function headerBytes(request: NodeRequest): number {
  return request.rawHeaders.reduce((bytes, text) => bytes + text.length, 0);
}

/** Undefined when the request names no host or its path is no URL. */
function urlOf(request: NodeRequest): URL | undefined {
  const authority = "authority" in request ? request.authority : request.headers.host;
  const path = request.url ?? "";
  if (authority === undefined || authority === "" || !path.startsWith("/")) return undefined;
  try {
    return new URL(path, `https://${authority}`);
  } catch {
    return undefined;
  }
}

function protocolOf(contentType: string): string {
  if (contentType.startsWith("application/grpc-web")) return "grpc-web";
  return contentType.startsWith("application/grpc") ? "grpc" : "connect";
}

/** Each protocol reads the body first and answers what that throws in its own way; so the refusal is the body. */
async function* refusedBody(error: ConnectError): AsyncGenerator<Uint8Array> {
  yield* [];
  throw error;
}

async function* iterable<T>(items: Iterable<T>): AsyncGenerator<T> {
  yield* items;
}

function bodyTooLarge(maxBytes: number): ConnectError {
  const message = `the body has more than ${maxBytes} bytes`;
  return refusal({ code: Code.ResourceExhausted, reason: "body-too-large", message, facts: { maxBytes } });
}

/** The error at the end of a Connect stream, if any. */
function endError(json: Uint8Array): { code: Code; json: JsonObject } | undefined {
  const { error } = JSON.parse(Buffer.from(json).toString()) as { error?: JsonObject };
  if (error === undefined) return undefined;
  const code = Object.values(Code).find(
    (one): one is Code => typeof one === "number" && codeName(one) === error["code"],
  );
  return { code: code ?? Code.Unknown, json: error };
}
