import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import type { Clock } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";

/** A connection dies seldom; that the next one dies under the same call again is taken for an answer. */
const MAX_ATTEMPTS = 3;

/**
 * A transport on which a unary call whose method says that it is idempotent moves to the other connection when its own
 * one dies: it is made again within the same deadline. Without another connection it fails at once, and so does every
 * other call, since nobody knows whether it was executed.
 */
export function repeatingIdempotent(
  transport: Transport,
  { clock, hasConnection }: { readonly clock: Pick<Clock, "monotonicMs">; readonly hasConnection: () => boolean },
): Transport {
  return {
    stream: (...call) => transport.stream(...call),
    async unary(method, signal, timeoutMs, ...rest) {
      const deadlineMs = timeoutMs === undefined ? Number.POSITIVE_INFINITY : clock.monotonicMs() + timeoutMs;
      const mayRepeat = method.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
      let leftMs = timeoutMs;
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await transport.unary(method, signal, leftMs, ...rest);
        } catch (error) {
          if (!mayRepeat || attempt >= MAX_ATTEMPTS || !hasConnection() || !isLostConnection(error)) throw error;
          const untilMs = Math.ceil(deadlineMs - clock.monotonicMs());
          if (signal?.aborted === true || untilMs <= 0) throw error;
          if (timeoutMs !== undefined) leftMs = untilMs;
        }
      }
    },
  };
}

/** True for a call that ended with its connection; false for one that never found a connection, and for any answer. */
function isLostConnection(error: unknown): boolean {
  if (!(error instanceof ConnectError) || error.code !== Code.Unavailable) return false;
  return error.cause instanceof Unavailable && LOST.has(error.cause.code);
}

const LOST = new Set(["connection-closed", "connection-timed-out", "connection-reset"]);
