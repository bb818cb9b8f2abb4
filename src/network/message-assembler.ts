import { Code, ConnectError } from "@connectrpc/connect";
import { MESSAGE_PREFIX_BYTES as PREFIX_BYTES } from "./frame-codec.js";
import { Pieces } from "./pieces.js";

/** A sender cuts a message where a frame is full. Smaller parts of one are refused after so many, as each costs us a frame's work. */
const FRAGMENT_BYTES = 1_024;
const MAX_FRAGMENTS = 64;

/**
 * Follows the messages in the body of a gRPC call and hands each one on when it is whole, so that what
 * waits for its reader (`MessageReader`) is whole messages, and what does not is counted here. No memory is set aside for what a
 * prefix claims, and a message in small frames is refused: a peer that claims ten megabytes, or sends them by the byte, would
 * cost us far more than itself.
 *
 * @source gRPC over HTTP/2, "Length-Prefixed-Message"
 */
export class MessageAssembler {
  readonly #maxBytes: number;
  readonly #pieces = new Pieces();
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  #prefixBytes = 0;
  /** Of the message under way, after its prefix. */
  #missingBytes = 0;
  #isRefused = false;
  /** Small parts that ended no message. */
  #fragments = 0;

  /** @param maxBytes the reader's own limit: it sees a message that claims more at once, and refuses it */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Of the message that is not whole yet. */
  get heldBytes(): number {
    return this.#pieces.bytes;
  }

  /**
   * Takes the next bytes of the body; returns what may go on, in order.
   *
   * @throws {ConnectError} ResourceExhausted for messages in small parts
   */
  push(bytes: Uint8Array): Uint8Array[] {
    const whole = this.#follow(bytes);
    if (whole === bytes.length && this.#pieces.bytes === 0) return [bytes];
    if (whole === 0) {
      if (bytes.length < FRAGMENT_BYTES) this.#fragments += 1;
      if (this.#fragments > MAX_FRAGMENTS) {
        throw new ConnectError(`a message in more than ${MAX_FRAGMENTS} small frames`, Code.ResourceExhausted);
      }
      this.#pieces.add(bytes);
      return [];
    }
    const out = [...this.#pieces.takeAll(), bytes.subarray(0, whole)];
    if (whole < bytes.length) this.#pieces.add(bytes.subarray(whole));
    return out;
  }

  /** At the end of the body: what is left of a message that never became whole. The reader says so to the peer. */
  rest(): Uint8Array[] {
    return this.#pieces.takeAll();
  }

  /** @returns up to where the bytes end a message */
  #follow(bytes: Uint8Array): number {
    if (this.#isRefused) return bytes.length;
    let whole = 0;
    for (let at = 0; at < bytes.length; ) {
      if (this.#missingBytes > 0) {
        const step = Math.min(this.#missingBytes, bytes.length - at);
        this.#missingBytes -= step;
        at += step;
      } else {
        const step = Math.min(PREFIX_BYTES - this.#prefixBytes, bytes.length - at);
        this.#prefix.set(bytes.subarray(at, at + step), this.#prefixBytes);
        this.#prefixBytes += step;
        at += step;
        if (this.#prefixBytes < PREFIX_BYTES) break;
        this.#prefixBytes = 0;
        this.#missingBytes = this.#prefix.readUInt32BE(1);
        this.#isRefused = this.#missingBytes > this.#maxBytes;
        if (this.#isRefused) return bytes.length;
      }
      if (this.#missingBytes === 0) whole = at;
    }
    return whole;
  }
}
