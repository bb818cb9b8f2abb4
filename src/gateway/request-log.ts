import { type Code, ConnectError, createContextKey, type Interceptor } from "@connectrpc/connect";
import type { SpanContext } from "@opentelemetry/api";
import type { Logger } from "pino";
import { codeName } from "./error-mapping.js";

/** What became of one request, for the log and for metrics. */
export interface CallRecord {
  /** "grpc", "grpc-web", "connect", "rest" or "http". */
  protocol: string;
  /** For example "mpcwallet.wallet.v1.WalletService/GetBalance", "/healthz", or "unknown". */
  method: string;
  /** "ok" or the name of an error code, for example "not_found". */
  outcome: string;
  httpStatus: number;
  durationMs: number;
  requestBytes: number;
  address: string;
  /** Empty without a valid token. */
  subject: string;
  /** Machine-readable reason of a refusal. */
  reason: string;
}

/** Carries the record of a request to the interceptor below. */
export const CALL_RECORD = createContextKey<CallRecord | undefined>(undefined, { description: "call record" });

/** Notes how a call ended; outermost, so that it sees the error as the client does. */
export function outcomeRecording(): Interceptor {
  return (next) => async (request) => {
    const record = request.contextValues.get(CALL_RECORD);
    async function* watched<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
      try {
        yield* messages;
      } catch (error) {
        noteError(record, error);
        throw error;
      }
    }
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: watched(response.message) } : response;
    } catch (error) {
      noteError(record, error);
      throw error;
    }
  };
}

/** Notes an error that a request is answered with. */
export function noteError(record: CallRecord | undefined, error: unknown): void {
  if (record === undefined) return;
  const { code, details } = ConnectError.from(error);
  record.outcome = codeName(code satisfies Code);
  for (const detail of details) {
    if ("desc" in detail && detail.desc.typeName === "google.rpc.ErrorInfo") {
      const { reason } = detail.value as { reason?: unknown };
      if (typeof reason === "string") record.reason = reason;
    }
  }
}

/** Writes one line for a request: never its body, its token or its query. */
export function logCall(log: Logger, record: CallRecord, { traceId, spanId }: SpanContext): void {
  const { reason, subject, ...rest } = record;
  const line = {
    ...rest,
    durationMs: Math.round(record.durationMs * 1000) / 1000,
    traceId,
    spanId,
    ...(subject === "" ? {} : { subject }),
    ...(reason === "" ? {} : { reason }),
  };
  if (record.httpStatus >= 500 || record.outcome === "internal" || record.outcome === "unknown")
    log.error(line, "call");
  else log.info(line, "call");
}
