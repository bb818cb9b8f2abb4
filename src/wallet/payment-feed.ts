import type { Clock } from "../crypto/ambient.js";
import type { PaymentView } from "./wallet-application.js";

/**
 * Newest state of each payment for whoever watches it. A slow reader misses states in between, never the newest.
 * Payments that another coordinator runs send no word of a change here, so every watched payment is also polled.
 */
export interface PaymentFeedOptions {
  readonly watchersMax: number;
  readonly pollMs: number;
}

export class PaymentFeed {
  readonly #watchers = new Map<string, Set<() => void>>();
  readonly #options: PaymentFeedOptions;
  readonly #clock: Clock;
  #count = 0;

  constructor(options: PaymentFeedOptions, dependencies: { readonly clock: Clock }) {
    this.#options = options;
    this.#clock = dependencies.clock;
  }

  /** True when one more may watch. */
  get hasRoom(): boolean {
    return this.#count < this.#options.watchersMax;
  }

  changed(paymentId: string): void {
    for (const wake of this.#watchers.get(paymentId) ?? []) wake();
  }

  /** Yields `read()` now and after each change, until `isLast` or abort. */
  async *watch(
    paymentId: string,
    read: () => Promise<PaymentView>,
    isLast: (view: PaymentView) => boolean,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<PaymentView> {
    let dirty = true;
    let shown = "";
    let wake: () => void = () => undefined;
    const notice = (): void => {
      dirty = true;
      wake();
    };
    const watchers = this.#watchers.get(paymentId) ?? new Set();
    this.#watchers.set(paymentId, watchers.add(notice));
    this.#count += 1;
    const abort = (): void => wake();
    signal?.addEventListener("abort", abort);
    try {
      while (signal?.aborted !== true) {
        if (dirty) {
          dirty = false;
          const view = await read();
          const state = `${view.phase}/${view.updatedAtMs}/${view.timeline.length}`;
          if (state !== shown) yield view;
          shown = state;
          if (isLast(view)) return;
        } else {
          await new Promise<void>((resolve) => {
            const cancel = this.#clock.after(this.#options.pollMs, notice);
            wake = () => {
              cancel();
              resolve();
            };
            if (dirty || signal?.aborted === true) wake();
          });
        }
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      watchers.delete(notice);
      if (watchers.size === 0) this.#watchers.delete(paymentId);
      this.#count -= 1;
    }
  }
}
