import { timingSafeEqual } from "node:crypto";
import { inspect } from "node:util";
import { Bug } from "../crypto/fault.js";

/**
 * Bytes that must not reach a log. They print as their length only; `reveal` is the one way to them, which makes every
 * use easy to find. Erasure is best effort: the runtime may have copied the bytes before.
 */
export class SecretBytes {
  readonly #bytes: Uint8Array;
  #erased = false;

  private constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Takes ownership: the caller's array is the one that `erase` zeroes. */
  static adopt(bytes: Uint8Array): SecretBytes {
    return new SecretBytes(bytes);
  }

  static copyOf(bytes: Uint8Array): SecretBytes {
    return new SecretBytes(Uint8Array.from(bytes));
  }

  get length(): number {
    return this.#bytes.length;
  }

  /** The bytes themselves, not a copy. Throws `Bug` after `erase`, so that zeros are never used as a key. */
  reveal(): Uint8Array {
    if (this.#erased) throw new Bug("secret used after it was erased");
    return this.#bytes;
  }

  /** Constant time for equal lengths. */
  equals(other: SecretBytes): boolean {
    return this.length === other.length && timingSafeEqual(this.reveal(), other.reveal());
  }

  erase(): void {
    this.#erased = true;
    this.#bytes.fill(0);
  }

  toJSON(): string {
    return this.toString();
  }

  toString(): string {
    return `[secret, ${this.#bytes.length} bytes]`;
  }

  [inspect.custom](): string {
    return this.toString();
  }
}
