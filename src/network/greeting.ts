import { create, fromBinary } from "@bufbuild/protobuf";
import { sizeDelimitedEncode, sizeDelimitedPeek } from "@bufbuild/protobuf/wire";
import { HelloSchema } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { CLOSE, type QuicConnection } from "./quic-connection.js";
import type { QuicStream, StreamConsumer } from "./quic-stream.js";

const VERSION = 1;
const MAX_HELLO_BYTES = 256;
const MAX_INCARNATION_BYTES = 32;

/** Who greets. */
export interface Self {
  readonly nodeId: string;
  readonly incarnation: Uint8Array;
}

/**
 * The hello on a connection's first stream, both ways. A client is "connected" before the server has looked at its
 * certificate; the server's hello is the proof that it did.
 */
export class Greeting implements StreamConsumer {
  readonly #connection: QuicConnection;
  readonly #self: Self;
  #peerIncarnation = "";
  #reply: QuicStream | undefined;
  #bytes = Buffer.alloc(0);

  constructor(connection: QuicConnection, self: Self) {
    this.#connection = connection;
    this.#self = self;
  }

  /** The dialling side speaks first. */
  open(stream: QuicStream): void {
    stream.consumer = this;
    stream.end(this.#hello());
  }

  /** The accepting side answers after it has read a hello that fits the certificate. */
  answer(stream: QuicStream): void {
    stream.consumer = this;
    this.#reply = stream;
  }

  received(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    if (this.#bytes.length > MAX_HELLO_BYTES) this.#refuse("hello is too long");
  }

  ended(): void {
    const refusal = this.#judge();
    if (refusal !== undefined) {
      this.#refuse(refusal);
      return;
    }
    this.#reply?.end(this.#hello());
    this.#connection.greeted(this.#peerIncarnation);
  }

  failed(): void {
    this.#refuse("hello was broken off");
  }

  #judge(): string | undefined {
    try {
      const { eof, size, offset } = sizeDelimitedPeek(this.#bytes);
      if (eof || offset + size !== this.#bytes.length) return "hello does not decode";
      const hello = fromBinary(HelloSchema, this.#bytes.subarray(offset));
      if (hello.version !== VERSION) return `hello of version ${hello.version}, this is version ${VERSION}`;
      if (hello.nodeId !== this.#connection.peerNodeId) return "hello of another node than the certificate's";
      if (hello.incarnation.length > MAX_INCARNATION_BYTES) return "hello does not decode";
      this.#peerIncarnation = Buffer.from(hello.incarnation).toString("hex");
      return undefined;
    } catch {
      return "hello does not decode";
    }
  }

  #refuse(reason: string): void {
    this.#connection.close(CLOSE.protocol, reason);
  }

  #hello(): Uint8Array {
    const { nodeId, incarnation } = this.#self;
    return sizeDelimitedEncode(HelloSchema, create(HelloSchema, { version: VERSION, nodeId, incarnation }));
  }
}
