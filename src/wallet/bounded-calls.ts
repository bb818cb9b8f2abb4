import type { Clock } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";

/**
 * Calls to nodes that end when their time is over or when their caller shuts down, whatever the node does. One listener
 * on the caller's signal serves all of them: Node 20 never forgets what `AbortSignal.any` hangs on a signal that lives on.
 */
export class BoundedCalls {
  readonly #timeoutMs: number;
  readonly #clock: Clock;
  readonly #stop: AbortSignal;
  readonly #running = new Set<AbortController>();

  constructor(
    options: { readonly timeoutMs: number },
    dependencies: { readonly clock: Clock; readonly stop: AbortSignal },
  ) {
    this.#timeoutMs = options.timeoutMs;
    this.#clock = dependencies.clock;
    this.#stop = dependencies.stop;
    this.#stop.addEventListener("abort", () => {
      for (const abort of this.#running) abort.abort(this.#stop.reason);
    });
  }

  /** @throws what the call throws when its signal is aborted, with "nodes-silent" as the reason when the time is over */
  async make<T>(call: (signal: AbortSignal) => Promise<T>, timeoutMs = this.#timeoutMs): Promise<T> {
    const abort = new AbortController();
    if (this.#stop.aborted) abort.abort(this.#stop.reason);
    const late = new Unavailable("nodes-silent", "a node did not answer in time", { timeoutMs });
    const cancel = this.#clock.after(timeoutMs, () => abort.abort(late));
    this.#running.add(abort);
    try {
      return await call(abort.signal);
    } finally {
      cancel();
      this.#running.delete(abort);
      abort.abort(); // of several calls the first failure ends the others
    }
  }
}
