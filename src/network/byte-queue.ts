import { Pieces } from "./pieces.js";

/** What a ByteQueue tells the stream that fills it. */
export interface ByteQueueEvents {
  /** More than the limit is waiting: stop reading. */
  full(): void;
  /** The reader caught up: read on. */
  drained(): void;
  /** The reader left before the end. */
  abandoned(): void;
  /** The reader has taken all that was waiting. */
  emptied?(): void;
}

/**
 * Bytes of one direction of a call, pushed by the driver and pulled by the reader of its messages. One reader. An error
 * is delivered after the bytes that came before it. How the bytes are cut is not kept: small pieces that wait are joined.
 */
export class ByteQueue implements AsyncIterableIterator<Uint8Array> {
  readonly #events: ByteQueueEvents;
  readonly #limitBytes: number;
  readonly #pieces = new Pieces();
  #full = false;
  #over = false;
  #error: unknown;
  #waiting: { resolve: (result: IteratorResult<Uint8Array>) => void; reject: (error: unknown) => void } | undefined;

  constructor(limitBytes: number, events: ByteQueueEvents) {
    this.#limitBytes = limitBytes;
    this.#events = events;
  }

  get isEmpty(): boolean {
    return this.#pieces.bytes === 0;
  }

  push(chunk: Uint8Array): void {
    if (this.#over || chunk.length === 0) return;
    const reader = this.#waiting;
    if (reader !== undefined) {
      this.#waiting = undefined;
      reader.resolve({ done: false, value: chunk });
      return;
    }
    this.#pieces.add(chunk);
    if (!this.#full && this.#pieces.bytes > this.#limitBytes) {
      this.#full = true;
      this.#events.full();
    }
  }

  /** Nothing follows; with an error the reader is told after the bytes. */
  end(error?: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#error = error;
    const reader = this.#waiting;
    this.#waiting = undefined;
    if (reader === undefined) return;
    if (error === undefined) reader.resolve({ done: true, value: undefined });
    else reader.reject(error);
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    const chunk = this.#pieces.shift();
    if (chunk !== undefined) {
      if (this.#full && this.#pieces.bytes <= this.#limitBytes / 2) {
        this.#full = false;
        this.#events.drained();
      }
      if (this.#pieces.bytes === 0) this.#events.emptied?.();
      return Promise.resolve({ done: false, value: chunk });
    }
    if (this.#over) {
      return this.#error === undefined
        ? Promise.resolve({ done: true, value: undefined })
        : Promise.reject(this.#error);
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  return(): Promise<IteratorResult<Uint8Array>> {
    this.#leave();
    return Promise.resolve({ done: true, value: undefined });
  }

  throw(error?: unknown): Promise<IteratorResult<Uint8Array>> {
    this.#leave();
    return Promise.reject(error);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #leave(): void {
    this.#pieces.takeAll();
    if (this.#over) return;
    this.end();
    this.#events.abandoned();
  }
}
