import { Unavailable } from "../crypto/fault.js";

/** A bounded queue between a producer that cannot wait and one async reader. */
export class FrameQueue<T> implements AsyncIterable<T> {
  readonly #capacity: number;
  readonly #items: T[] = [];
  #wake: (() => void) | undefined;
  #ended = false;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** @throws Unavailable `frame-queue-full` when the reader is too slow */
  push(item: T): void {
    if (this.#ended) return;
    if (this.#items.length >= this.#capacity) {
      this.end();
      throw new Unavailable("frame-queue-full", "a peer reads too slowly", { capacity: this.#capacity });
    }
    this.#items.push(item);
    this.#wake?.();
  }

  /** No more items; the reader sees what was pushed, then the end. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const item = this.#items.shift();
      if (item !== undefined) yield item;
      else if (this.#ended) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    }
  }
}
