import type { Clock } from "../crypto/ambient.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import { databaseUnavailable } from "./audit-database.js";

const RETRY_DELAYS_MS: readonly number[] = [50, 200, 800];

/**
 * Runs a statement that may be run twice without harm, again after a pause when the database does not answer.
 *
 * @throws Unavailable "database-unavailable"; verdicts of our own pass through at once
 */
export async function withRetries<Result>(clock: Clock, call: () => Promise<Result>): Promise<Result> {
  let last: unknown;
  for (const delayMs of [0, ...RETRY_DELAYS_MS]) {
    if (delayMs > 0) await new Promise<void>((resolve) => clock.after(delayMs, resolve));
    try {
      return await call();
    } catch (cause) {
      if (cause instanceof InvalidInput || cause instanceof Unavailable || cause instanceof Bug) throw cause;
      last = cause;
    }
  }
  throw databaseUnavailable(last);
}
