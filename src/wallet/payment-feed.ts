import type { PaymentView } from "./wallet-application.js";

/** Newest state of each payment for whoever watches it. A slow reader misses states in between, never the newest. */
export class PaymentFeed {
  readonly #watchers = new Map<string, Set<() => void>>();
  readonly #limit: number;
  #count = 0;

  constructor(options: { readonly watchersMax: number }) {
    this.#limit = options.watchersMax;
  }

  /** True when one more may watch. */
  get hasRoom(): boolean {
    return this.#count < this.#limit;
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
          yield view;
          if (isLast(view)) return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
            if (dirty || signal?.aborted === true) resolve();
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
