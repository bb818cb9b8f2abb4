/** A small HTTP server on the loopback address: bounded bodies, one answer for each request, a drain at the end. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Bug, InvalidInput, Unavailable } from "../../crypto/fault.js";

export interface HttpRequest {
  readonly method: string;
  /** Decoded segments of the path: `/tx/ab` is ["tx", "ab"]. */
  readonly path: readonly string[];
  readonly authorization: string;
  readonly body: Buffer;
}

export interface HttpAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
}

export type HttpHandler = (request: HttpRequest) => HttpAnswer;

export interface LoopbackOptions {
  /** 0 lets the system choose. */
  readonly port: number;
  readonly maxBodyBytes: number;
  /** Told about faults of our own; they are answered with 500 and no detail. */
  readonly onFault: (fault: unknown) => void;
}

export interface LoopbackServer {
  readonly url: string;
  /** Answers what is under way, takes nothing new. */
  close(): Promise<void>;
}

const REQUEST_TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 256;
const DRAIN_MS = 2_000;

export const text = (status: number, body: string): HttpAnswer => ({ status, contentType: "text/plain", body });
export const json = (status: number, value: unknown): HttpAnswer => ({
  status,
  contentType: "application/json",
  body: JSON.stringify(value),
});

class BodyTooLarge extends Error {}

async function readBody(request: IncomingMessage, maxBodyBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBodyBytes) throw new BodyTooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function segments(url: string): string[] {
  const path = url.split("?", 1)[0] ?? "";
  try {
    return path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    throw new InvalidInput("bad-path", "the path does not decode");
  }
}

async function answerTo(request: IncomingMessage, handler: HttpHandler, options: LoopbackOptions): Promise<HttpAnswer> {
  try {
    return handler({
      method: request.method ?? "",
      path: segments(request.url ?? "/"),
      authorization: request.headers.authorization ?? "",
      body: await readBody(request, options.maxBodyBytes),
    });
  } catch (fault) {
    if (fault instanceof InvalidInput) return text(400, fault.message);
    if (fault instanceof Unavailable) return text(503, fault.message);
    if (fault instanceof BodyTooLarge) {
      return { ...text(413, `body exceeds ${options.maxBodyBytes} bytes`), headers: { connection: "close" } };
    }
    if (request.destroyed) return text(400, "request was aborted");
    options.onFault(fault);
    return text(500, "internal error");
  }
}

function send(response: ServerResponse, answer: HttpAnswer): void {
  const body = typeof answer.body === "string" ? Buffer.from(answer.body) : answer.body;
  response.writeHead(answer.status, {
    "content-type": answer.contentType,
    "content-length": body.length,
    ...answer.headers,
  });
  response.end(body);
}

/** Listens on 127.0.0.1. Rejects when the port is taken. */
export async function serveLoopback(options: LoopbackOptions, handler: HttpHandler): Promise<LoopbackServer> {
  const server: Server = createServer(
    { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS, keepAliveTimeout: 60_000 },
    (request, response) => {
      response.on("error", () => response.destroy());
      void answerTo(request, handler, options).then((answer) => send(response, answer));
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Bug("a TCP server has an address and a port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    close: () =>
      new Promise<void>((resolve) => {
        const force = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
        server.close(() => {
          clearTimeout(force);
          resolve();
        });
        server.closeIdleConnections();
      }),
  };
}
