import { Bug, type Unavailable } from "../crypto/fault.js";
import type { QuicConnection } from "./quic-connection.js";

/** Why a stream ended before its FIN: the peer gave up with a code, or the connection died. */
export type StreamLoss =
  | { readonly kind: "reset"; readonly code: number }
  | { readonly kind: "lost"; readonly fault: Unavailable };

/** Whoever reads a stream. Calls come in order; nothing follows `ended` or `failed`. */
export interface StreamConsumer {
  /** The next bytes; they are the driver's and change after the call. */
  received(bytes: Uint8Array): void;
  /** The peer's FIN. */
  ended(): void;
  failed(loss: StreamLoss): void;
}

/**
 * One bidirectional stream. Writing only queues; the connection sends at its next flush, so that the head, body and end of
 * a small call share a packet. Back-pressure: `drained()` for the writer, `pause()` and `resume()` for the reader.
 */
export class QuicStream {
  readonly id: number;
  /** Index into TRAFFIC_CLASSES. */
  rank: number;
  consumer: StreamConsumer | undefined;
  /** Called once when both directions are over. */
  onClosed: (() => void) | undefined;
  receivedBytes = 0;
  readonly #connection: QuicConnection;
  readonly #sendBufferBytes: number;
  #outgoing: Uint8Array[] = [];
  #outgoingBytes = 0;
  #finQueued = false;
  #sending = true;
  #receiving = true;
  #paused = false;
  #drainWaiters: (() => void)[] = [];

  constructor(connection: QuicConnection, options: { id: number; rank: number; sendBufferBytes: number }) {
    this.#connection = connection;
    this.id = options.id;
    this.rank = options.rank;
    this.#sendBufferBytes = options.sendBufferBytes;
  }

  get sending(): boolean {
    return this.#sending;
  }

  get receiving(): boolean {
    return this.#receiving;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get closed(): boolean {
    return !this.#sending && !this.#receiving;
  }

  /** Queues bytes; false when the writer should wait for `drained()`. Bytes for a closed direction are dropped. */
  write(bytes: Uint8Array): boolean {
    if (!this.#sending || this.#finQueued || bytes.length === 0) return true;
    this.#outgoing.push(bytes);
    this.#outgoingBytes += bytes.length;
    this.#connection.wantsToSend(this);
    return this.#outgoingBytes < this.#sendBufferBytes;
  }

  /** Queues the last bytes. quiche 0.18 loses an empty FIN when the congestion window is full, so there must be some. */
  end(lastBytes: Uint8Array): void {
    if (lastBytes.length === 0) throw new Bug("a FIN must travel with bytes", { stream: this.id });
    this.write(lastBytes);
    this.#finQueued = true;
  }

  /** Resolves when the writer may go on, also when the direction is closed. */
  drained(): Promise<void> {
    if (!this.#sending || this.#outgoingBytes < this.#sendBufferBytes) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (this.#receiving) this.#connection.wantsToReceive(this);
  }

  /** Gives up both directions; the peer sees `code`. */
  reset(code: number): void {
    this.stopSending(code);
    this.stopReceiving(code);
  }

  stopSending(code: number): void {
    if (!this.#sending) return;
    this.#connection.shutdown(this, "write", code);
    this.sendingOver();
  }

  stopReceiving(code: number): void {
    if (!this.#receiving) return;
    this.#connection.shutdown(this, "read", code);
    this.receivingOver();
  }

  /**
   * Moves queued bytes into quiche; `send` returns how many it took, or null when the window is full. True when all is
   * taken. Called by the connection only.
   */
  drainInto(send: (bytes: Uint8Array, fin: boolean) => number | null): boolean {
    while (this.#outgoingBytes > 0) {
      const bytes = this.#nextPiece();
      const fin = this.#finQueued && bytes.length === this.#outgoingBytes;
      const taken = send(bytes, fin) ?? 0;
      this.#outgoingBytes -= taken;
      if (taken < bytes.length) {
        this.#outgoing[0] = bytes.subarray(taken);
        this.#wakeWriters();
        return false;
      }
      this.#outgoing.shift();
      if (fin) this.sendingOver();
    }
    this.#wakeWriters();
    return true;
  }

  /** The send direction is over: FIN taken, reset, or refused by the peer. Called by the connection only. */
  sendingOver(): void {
    if (!this.#sending) return;
    this.#sending = false;
    this.#outgoing = [];
    this.#outgoingBytes = 0;
    this.#wakeWriters();
    if (this.closed) this.#close();
  }

  /** The receive direction is over. Called by the connection only. */
  receivingOver(): void {
    if (!this.#receiving) return;
    this.#receiving = false;
    if (this.closed) this.#close();
  }

  #close(): void {
    this.#connection.streamClosed(this);
    this.onClosed?.();
  }

  /** First queued chunk, joined with its small followers, so that a small call costs one call into the binding. */
  #nextPiece(): Uint8Array {
    const [first, second] = this.#outgoing;
    if (first === undefined) throw new Bug("stream accounts for bytes that it does not have", { stream: this.id });
    if (second === undefined || first.length + second.length > JOINED_BYTES) return first;
    let count = 0;
    let length = 0;
    for (const piece of this.#outgoing) {
      if (length + piece.length > JOINED_BYTES) break;
      length += piece.length;
      count += 1;
    }
    const joined = Buffer.concat(this.#outgoing.slice(0, count), length);
    this.#outgoing.splice(0, count, joined);
    return joined;
  }

  #wakeWriters(): void {
    if (this.#drainWaiters.length === 0 || (this.#sending && this.#outgoingBytes >= this.#sendBufferBytes)) return;
    const waiters = this.#drainWaiters;
    this.#drainWaiters = [];
    for (const wake of waiters) wake();
  }
}

const JOINED_BYTES = 16 * 1024;
