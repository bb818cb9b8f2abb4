import { create, type JsonObject, type Registry, toBinary, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { Bug, type Facts, InvalidInput, PeerFault, PeerSilent, Unavailable } from "../crypto/fault.js";

/** `ErrorInfo.domain` of every error that this gateway answers with. */
export const ERROR_DOMAIN = "mpc-wallet";

/** The five kinds of fault that a call can end with. */
type AnyFault = InvalidInput | Unavailable | PeerFault | PeerSilent | Bug;

/** Codes of `InvalidInput` that say more than "invalid argument"; every other one is invalid argument. */
const INVALID_INPUT: Readonly<Record<string, Code>> = {
  "wallet-unknown": Code.NotFound,
  "payment-unknown": Code.NotFound,
  "wallet-exists": Code.AlreadyExists,
  "request-id-reused": Code.AlreadyExists,
  "authority-unknown": Code.PermissionDenied,
  "request-forged": Code.PermissionDenied,
  "request-expired": Code.FailedPrecondition,
  "change-forged": Code.PermissionDenied,
  "change-expired": Code.FailedPrecondition,
  "change-running": Code.FailedPrecondition,
  "change-other-base": Code.FailedPrecondition,
  "insufficient-funds": Code.FailedPrecondition,
  "network-mismatch": Code.FailedPrecondition,
  "gap-limit": Code.FailedPrecondition,
};

function isFault(cause: unknown): cause is AnyFault {
  return (
    cause instanceof InvalidInput ||
    cause instanceof Unavailable ||
    cause instanceof PeerFault ||
    cause instanceof PeerSilent ||
    cause instanceof Bug
  );
}

/**
 * The one place where faults become Connect codes. Code and facts of a fault reach the client as `google.rpc.ErrorInfo`;
 * its cause, and everything about a bug or an unknown error, goes to `report` (the log) only.
 *
 * @param cause what a handler threw
 * @param report called with errors that operators must see
 */
export function toConnectError(cause: unknown, report: (cause: unknown) => void): ConnectError {
  if (cause instanceof ConnectError) return cause;
  if (!isFault(cause)) {
    if (cause instanceof Error && cause.name === "AbortError")
      return new ConnectError("the call was canceled", Code.Canceled);
    if (cause instanceof Error && cause.name === "TimeoutError") {
      return new ConnectError("the call took longer than the gateway allows", Code.DeadlineExceeded);
    }
    report(cause);
    return new ConnectError("internal error; the gateway's log has the cause", Code.Internal);
  }
  switch (cause.kind) {
    case "invalid-input":
      return refusal({
        code: INVALID_INPUT[cause.code] ?? Code.InvalidArgument,
        reason: cause.code,
        message: cause.message,
        facts: cause.facts,
      });
    case "unavailable":
      report(cause);
      return refusal({ code: Code.Unavailable, reason: cause.code, message: cause.message, facts: cause.facts });
    case "peer-fault":
      report(cause);
      return refusal({ code: Code.Aborted, reason: cause.code, message: cause.message, facts: cause.facts });
    case "peer-silent":
      report(cause);
      return refusal({ code: Code.DeadlineExceeded, reason: cause.code, message: cause.message, facts: cause.facts });
    case "bug":
      report(cause);
      return new ConnectError("internal error; the gateway's log has the cause", Code.Internal);
  }
}

/** Applies `toConnectError` to what handlers throw, before or while they stream. */
export function errorMapping(report: (cause: unknown) => void): Interceptor {
  async function* mapped<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
    } catch (cause) {
      throw toConnectError(cause, report);
    }
  }
  return (next) => async (request) => {
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: mapped(response.message) } : response;
    } catch (cause) {
      throw toConnectError(cause, report);
    }
  };
}

/** What a client is told when a call is refused. `reason` is machine-readable, `facts` are shown as they are. */
export interface Refusal {
  readonly code: Code;
  readonly reason: string;
  readonly message: string;
  readonly facts?: Facts;
  /** Answered as `google.rpc.RetryInfo` and as the header Retry-After. */
  readonly retryAfterMs?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Builds the error of a refused call, with `google.rpc.ErrorInfo` and what else is known. */
export function refusal({ code, reason, message, facts = {}, retryAfterMs, headers = {} }: Refusal): ConnectError {
  const metadata = Object.fromEntries(Object.entries(facts).map(([name, fact]) => [name, printed(fact)]));
  const details = [
    { desc: ErrorInfoSchema, value: { reason, domain: ERROR_DOMAIN, metadata } },
  ] satisfies ConstructorParameters<typeof ConnectError>[3];
  const error = new ConnectError(message, code, headers, details);
  if (retryAfterMs !== undefined) {
    const retryDelay = { seconds: BigInt(Math.floor(retryAfterMs / 1000)), nanos: (retryAfterMs % 1000) * 1_000_000 };
    error.details.push({ desc: RetryInfoSchema, value: create(RetryInfoSchema, { retryDelay }) });
    error.metadata.set("retry-after", String(Math.max(1, Math.ceil(retryAfterMs / 1000))));
  }
  return error;
}

function printed(fact: Facts[string]): string {
  return Array.isArray(fact) ? fact.join(", ") : String(fact);
}

/** HTTP status of an error code, as the Connect protocol defines it. */
export function httpStatusOf(code: Code): number {
  switch (code) {
    case Code.Canceled:
      return 499;
    case Code.InvalidArgument:
    case Code.FailedPrecondition:
    case Code.OutOfRange:
      return 400;
    case Code.Unauthenticated:
      return 401;
    case Code.PermissionDenied:
      return 403;
    case Code.NotFound:
      return 404;
    case Code.AlreadyExists:
    case Code.Aborted:
      return 409;
    case Code.ResourceExhausted:
      return 429;
    case Code.Unimplemented:
      return 501;
    case Code.Unavailable:
      return 503;
    case Code.DeadlineExceeded:
      return 504;
    case Code.Unknown:
    case Code.Internal:
    case Code.DataLoss:
      return 500;
  }
}

/** Name of a code in JSON, for example "not_found". */
export function codeName(code: Code): string {
  return (Code[code] ?? "Unknown").replace(/[a-z](?=[A-Z])/g, "$&_").toLowerCase();
}

/** An error as the Connect protocol writes it in JSON, which is also how REST answers. */
export function errorJson(error: ConnectError, registry: Registry): JsonObject {
  const details = error.details.flatMap((detail) => {
    if (!("desc" in detail)) return [];
    const message = create(detail.desc, detail.value);
    const value = Buffer.from(toBinary(detail.desc, message)).toString("base64").replace(/=+$/, "");
    return [{ type: detail.desc.typeName, value, debug: toJson(detail.desc, message, { registry }) }];
  });
  const { code, rawMessage: message } = error;
  return { code: codeName(code), message, ...(details.length === 0 ? {} : { details }) };
}
