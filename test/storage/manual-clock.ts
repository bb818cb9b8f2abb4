import type { Clock } from "../../src/crypto/ambient.js";

/** A clock that stands still until a test moves it. */
export class ManualClock implements Clock {
  #ms = 0;
  readonly #timers = new Map<number, { atMs: number; callback: () => void }>();
  #next = 0;
  readonly #epochMs = 1_750_000_000_000;

  nowMs(): number {
    return this.#epochMs + this.#ms;
  }

  monotonicMs(): number {
    return this.#ms;
  }

  after(delayMs: number, callback: () => void): () => void {
    const id = this.#next++;
    this.#timers.set(id, { atMs: this.#ms + delayMs, callback });
    return () => this.#timers.delete(id);
  }

  /** Moves time and runs what is due, in order, with promises settled in between. */
  async advance(ms: number): Promise<void> {
    const end = this.#ms + ms;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter(([, timer]) => timer.atMs <= end).sort((a, b) => a[1].atMs - b[1].atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due[0]);
      this.#ms = Math.max(this.#ms, due[1].atMs);
      due[1].callback();
    }
    this.#ms = end;
    await settled();
  }

  /** Moves time without running a timer, as when a process was stopped. */
  freeze(ms: number): void {
    this.#ms += ms;
  }
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** The real clock with timers that keep the test alive. */
export const realClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
