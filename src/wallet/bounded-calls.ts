import type { Clock } from "../crypto/ambient.js";
import { Unavailable } from "../crypto/fault.js";

/** Calls to nodes that end when their time is over or when their caller shuts down, whatever the node does. */
export class BoundedCalls {
  readonly #timeoutMs: number;
  readonly #clock: Clock;
  readonly #stop: AbortSignal;

  constructor(
    options: { readonly timeoutMs: number },
    dependencies: { readonly clock: Clock; readonly stop: AbortSignal },
  ) {
    this.#timeoutMs = options.timeoutMs;
    this.#clock = dependencies.clock;
    this.#stop = dependencies.stop;
  }

  /** @throws what the call throws when its signal is aborted, with "nodes-silent" as the reason when the time is over */
  async make<T>(call: (signal: AbortSignal) => Promise<T>, timeoutMs = this.#timeoutMs): Promise<T> {
    const abort = new AbortController();
    const late = new Unavailable("nodes-silent", "a node did not answer in time", { timeoutMs });
    const cancel = this.#clock.after(timeoutMs, () => abort.abort(late));
    try {
      return await call(AbortSignal.any([this.#stop, abort.signal]));
    } finally {
      cancel();
      abort.abort(); // of several calls the first failure ends the others
    }
  }
}
