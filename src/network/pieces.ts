/** Below this, pieces are joined with their neighbours. */
const SMALL_BYTES = 2 * 1024;
const FIRST_BLOCK_BYTES = 256;
const BLOCK_BYTES = 16 * 1024;
const NO_BLOCK = Buffer.alloc(0);

/**
 * Bytes that wait, in the pieces in which they came. Large pieces are kept as they are; small ones are joined, or whoever sends
 * single bytes would make us keep an object a hundred times their size for each, and hand each one on.
 */
export class Pieces {
  #pieces: Uint8Array[] = [];
  /** The newest small piece, or several in `#block`. */
  #tail: Uint8Array | undefined;
  #block: Buffer = NO_BLOCK;
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** Keeps a piece; its bytes must not change afterwards. */
  add(piece: Uint8Array): void {
    this.#bytes += piece.length;
    const isSmall = piece.length < SMALL_BYTES;
    if (!isSmall || (this.#tail?.length ?? 0) + piece.length > BLOCK_BYTES) this.#seal();
    if (!isSmall) this.#pieces.push(piece);
    // One alone is not worth a copy: most calls are one piece.
    else this.#tail = this.#tail === undefined ? piece : this.#joined(this.#tail, piece);
  }

  /** Gives the first piece away. */
  shift(): Uint8Array | undefined {
    if (this.#pieces.length === 0) this.#seal();
    const piece = this.#pieces.shift();
    this.#bytes -= piece?.length ?? 0;
    return piece;
  }

  /** Gives all pieces away. */
  takeAll(): Uint8Array[] {
    this.#seal();
    const all = this.#pieces;
    this.#pieces = [];
    this.#bytes = 0;
    return all;
  }

  /** Gives all bytes away as one piece. */
  takeJoined(): Uint8Array {
    const { bytes } = this;
    const all = this.takeAll();
    return all.length === 1 && all[0] !== undefined ? all[0] : Buffer.concat(all, bytes);
  }

  /** What was given away may not be written into again, so a block ends with its piece. */
  #seal(): void {
    if (this.#tail !== undefined) this.#pieces.push(this.#tail);
    this.#tail = undefined;
    this.#block = NO_BLOCK;
  }

  #joined(tail: Uint8Array, piece: Uint8Array): Uint8Array {
    const length = tail.length + piece.length;
    if (this.#block.length < length) {
      // Not from Node's pool, of which a few bytes would hold 8 KB.
      this.#block = Buffer.allocUnsafeSlow(Math.min(BLOCK_BYTES, Math.max(FIRST_BLOCK_BYTES, 2 * length)));
      this.#block.set(tail);
    }
    this.#block.set(piece, tail.length);
    return this.#block.subarray(0, length);
  }
}
