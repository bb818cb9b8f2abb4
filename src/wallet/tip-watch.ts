import type { Clock } from "../crypto/ambient.js";
import type { ChainSource } from "./chain-source.js";

export interface TipWatchOptions {
  readonly pollMs: number;
  /** Looks at the tip after which a waiter is told although it has not moved. */
  readonly looksMax: number;
}

interface Waiter {
  looks: number;
  readonly tell: () => void;
}

/**
 * Tells when asking about transactions is worthwhile again. Whatever number of payments wait for their confirmation, the
 * chain source is asked one question in each interval: how high the chain is.
 */
export class TipWatch {
  readonly #options: TipWatchOptions;
  readonly #parts: { readonly chain: Pick<ChainSource, "tipHeight">; readonly clock: Clock };
  readonly #waiters = new Set<Waiter>();
  #height: number | undefined;
  #isWatching = false;

  constructor(
    options: TipWatchOptions,
    dependencies: { readonly chain: Pick<ChainSource, "tipHeight">; readonly clock: Clock },
  ) {
    this.#options = options;
    this.#parts = dependencies;
  }

  /**
   * Resolves when the tip has moved, after `looksMax` looks in any case (a transaction may have been dropped, a block
   * replaced by another of its height), and at once when the signal aborts.
   */
  moved(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const tell = (): void => {
        this.#waiters.delete(waiter);
        signal.removeEventListener("abort", tell);
        resolve();
      };
      const waiter: Waiter = { looks: 0, tell };
      this.#waiters.add(waiter);
      signal.addEventListener("abort", tell);
      if (signal.aborted) tell();
      this.#watch();
    });
  }

  #watch(): void {
    if (this.#isWatching || this.#waiters.size === 0) return;
    this.#isWatching = true;
    this.#parts.clock.after(this.#options.pollMs, () => {
      void this.#look().finally(() => {
        this.#isWatching = false;
        this.#watch();
      });
    });
  }

  async #look(): Promise<void> {
    // Those who come while the answer is on its way are told by the next one.
    const waiters = [...this.#waiters];
    const height = await this.#parts.chain.tipHeight().catch(() => undefined);
    const hasMoved = height !== undefined && height !== this.#height;
    this.#height = height ?? this.#height;
    for (const waiter of waiters) {
      waiter.looks += 1;
      if (hasMoved || waiter.looks >= this.#options.looksMax) waiter.tell();
    }
  }
}
