import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { MESSAGE_PREFIX_BYTES as PREFIX_BYTES } from "./frame-codec.js";

const NOTHING = new Uint8Array(0);

/**
 * The messages in the body of a gRPC call, as they are asked for. One reader; it owns the bytes that it decodes.
 *
 * @source gRPC over HTTP/2, "Length-Prefixed-Message"
 */
export class MessageReader<Desc extends DescMessage> implements AsyncIterableIterator<MessageShape<Desc>> {
  readonly #desc: Desc;
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #maxBytes: number;
  readonly #atEnd: () => void;
  /** Read and not decoded, in the pieces in which it came. */
  #pieces: Uint8Array[] = [];
  #bytes = 0;

  /** @param atEnd runs when the body has ended; what it throws is the end */
  constructor(
    desc: Desc,
    source: AsyncIterator<Uint8Array>,
    { maxBytes, atEnd = () => {} }: { readonly maxBytes: number; readonly atEnd?: () => void },
  ) {
    this.#desc = desc;
    this.#source = source;
    this.#maxBytes = maxBytes;
    this.#atEnd = atEnd;
  }

  /**
   * @throws {ConnectError} ResourceExhausted for a message over the limit; InvalidArgument for one that is cut off; Internal for
   *   one that is compressed or does not decode; and what the source throws
   */
  async next(): Promise<IteratorResult<MessageShape<Desc>>> {
    for (;;) {
      const message = this.#take();
      if (message !== undefined) return { done: false, value: message };
      const chunk = await this.#source.next();
      if (chunk.done === true) {
        if (this.#bytes > 0) throw new ConnectError("a message is cut off", Code.InvalidArgument);
        this.#atEnd();
        return { done: true, value: undefined };
      }
      this.#pieces.push(chunk.value);
      this.#bytes += chunk.value.length;
    }
  }

  /** The only message of a body, or undefined when there is none. @throws {ConnectError} as `next`; Unimplemented for a second one */
  async only(): Promise<MessageShape<Desc> | undefined> {
    const first = await this.next();
    if (first.done === true) return undefined;
    const second = await this.next();
    if (second.done !== true) throw new ConnectError("more than the one message of this call", Code.Unimplemented);
    return first.value;
  }

  async return(): Promise<IteratorResult<MessageShape<Desc>>> {
    await this.#source.return?.();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The first message, when it is whole. */
  #take(): MessageShape<Desc> | undefined {
    if (this.#bytes < PREFIX_BYTES) return undefined;
    let bytes = this.#first(PREFIX_BYTES);
    if (bytes[0] !== 0) throw new ConnectError("a message is compressed", Code.Internal);
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
    if (length > this.#maxBytes) {
      throw new ConnectError(`a message is ${length} bytes, the limit is ${this.#maxBytes}`, Code.ResourceExhausted);
    }
    const end = PREFIX_BYTES + length;
    if (this.#bytes < end) return undefined;
    bytes = this.#first(end);
    this.#pieces[0] = bytes.subarray(end);
    if (this.#pieces[0].length === 0) this.#pieces.shift();
    this.#bytes -= end;
    return decoded(this.#desc, new Uint8Array(bytes.buffer, bytes.byteOffset + PREFIX_BYTES, length));
  }

  /** Joins the first pieces until the first one has so many bytes. */
  #first(length: number): Uint8Array {
    const first = this.#pieces[0] ?? NOTHING;
    if (first.length >= length) return first;
    let count = 0;
    for (let held = 0; held < length; count++) held += this.#pieces[count]?.length ?? 0;
    const joined = Buffer.concat(this.#pieces.slice(0, count));
    this.#pieces.splice(0, count, joined);
    return joined;
  }
}

/** What is decoded has views of these bytes, so they are no Buffer, whose slices are views, too. */
function decoded<Desc extends DescMessage>(desc: Desc, bytes: Uint8Array): MessageShape<Desc> {
  try {
    return fromBinary(desc, bytes);
  } catch {
    throw new ConnectError(`the message is not a ${desc.typeName}`, Code.Internal);
  }
}
