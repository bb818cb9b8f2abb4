import type { Clock } from "../crypto/ambient.js";
import { InvalidInput, PeerFault, PeerSilent } from "../crypto/fault.js";
import type { PeerSigning, SigningAnswer, SigningOrder } from "./peer-signing.js";

/** One signing session from the coordinator's side: all signers are asked, the first good answer is enough. */

export interface AttemptOptions {
  readonly timeoutMs: number;
  /** After the first failure the others get this long to report theirs, so that blame is complete. */
  readonly graceMs: number;
}

export interface AttemptFailure {
  readonly nodeId: string;
  readonly error: unknown;
}

export type AttemptResult<Out> =
  | { readonly signed: true; readonly output: Out; readonly nodeId: string }
  | { readonly signed: false; readonly failures: readonly AttemptFailure[] };

/** Thrown into a call that took too long; blame without proof. */
export function silence(nodeId: string): PeerSilent {
  return new PeerSilent("signer-silent", "a signer did not answer in time", [nodeId]);
}

/**
 * `accept` turns an answer into the result and throws when its signatures do not hold: an answer is a claim like any
 * other, and a bad one counts as that node's failure.
 */
export function attemptSigning<Out>(
  order: SigningOrder,
  signers: readonly string[],
  options: AttemptOptions,
  parts: {
    readonly signing: PeerSigning;
    readonly clock: Clock;
    readonly signal: AbortSignal;
    readonly accept: (answer: SigningAnswer) => Out;
  },
): Promise<AttemptResult<Out>> {
  const { signing, clock, accept } = parts;
  const abort = new AbortController();
  const waiting = new Set(signers);
  const failures: AttemptFailure[] = [];
  return new Promise((resolve) => {
    const timers: (() => void)[] = [];
    const finish = (result: AttemptResult<Out>): void => {
      waiting.clear();
      for (const cancel of timers) cancel();
      parts.signal.removeEventListener("abort", giveUp);
      // After a success the other calls end by themselves: their sessions are complete, too.
      if (!result.signed) abort.abort();
      resolve(result);
    };
    const giveUp = (): void => {
      for (const nodeId of waiting) failures.push({ nodeId, error: silence(nodeId) });
      finish({ signed: false, failures });
    };
    // Who merely had not answered when the grace ended is not to blame for anything.
    const closeAfterGrace = (): void => finish({ signed: false, failures });
    const fail = (nodeId: string, error: unknown): void => {
      failures.push({ nodeId, error });
      if (waiting.size === 0) finish({ signed: false, failures });
      else if (failures.length === 1) timers.push(clock.after(options.graceMs, closeAfterGrace));
    };
    timers.push(clock.after(options.timeoutMs, giveUp));
    parts.signal.addEventListener("abort", giveUp);
    for (const nodeId of signers) {
      signing.sign(nodeId, order, abort.signal).then(
        (answer) => {
          if (!waiting.delete(nodeId)) return;
          try {
            finish({ signed: true, output: accept(answer), nodeId });
          } catch (error) {
            fail(nodeId, error);
          }
        },
        (error: unknown) => {
          if (waiting.delete(nodeId)) fail(nodeId, error);
        },
      );
    }
    if (parts.signal.aborted) giveUp();
  });
}

/** One line about a failure for people and the timeline. */
export function failureCode(error: unknown): string {
  if (error instanceof PeerFault || error instanceof PeerSilent || error instanceof InvalidInput) return error.code;
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return "unexpected-error";
}
