import type {
  DescMessage,
  DescMethod,
  DescMethodStreaming,
  DescMethodUnary,
  MessageInitShape,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type StreamResponse, type Transport, type UnaryResponse } from "@connectrpc/connect";
import { createDeadlineSignal, createLinkedAbortController } from "@connectrpc/connect/protocol";
import {
  grpcStatusOk,
  requestHeader,
  validateResponseWithCompression,
  validateTrailer,
} from "@connectrpc/connect/protocol-grpc";
import type { Field, Frame, Head } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { ByteQueue } from "./byte-queue.js";
import { callError, lossError, resetCode } from "./call-failure.js";
import { encodeEnd, encodeHead, encodeMessage, FrameReader, fieldOf, headersOf } from "./frame-codec.js";
import { MessageAssembler } from "./message-assembler.js";
import { MessageReader } from "./message-reader.js";
import { serialize } from "./message-writer.js";
import { methodPath } from "./method-table.js";
import type { NetworkLimits } from "./network-limits.js";
import type { QuicStream, StreamConsumer, StreamLoss } from "./quic-stream.js";
import { TRAFFIC_CLASS_FIELD, type TrafficClass } from "./traffic-class.js";

/** Gives a stream for one call, waiting as long as the signal allows. */
export type StreamOpener = (trafficClass: TrafficClass, signal: AbortSignal | undefined) => Promise<QuicStream>;

const END = encodeEnd();

/** Header fields of a caller. */
type OwnHeader = Parameters<Transport["unary"]>[3];

/**
 * A Connect transport with gRPC semantics over streams that `open` gives. Connect's own gRPC transport would run over the same
 * streams; its pipeline of asynchronous iterators costs more than all the rest of a small call.
 */
export function quicTransport({
  open,
  trafficClass,
  limits,
}: {
  open: StreamOpener;
  trafficClass: TrafficClass;
  limits: NetworkLimits;
}): Transport {
  /** Heads of calls that have neither a time nor fields of their own. */
  const plainHeads = new Map<string, Uint8Array>();

  function headOf(method: DescMethod, timeoutMs: number | undefined, own: OwnHeader): Uint8Array {
    const path = methodPath(method);
    const isPlain = timeoutMs === undefined && own === undefined;
    const known = isPlain ? plainHeads.get(path) : undefined;
    if (known !== undefined) return known;
    const header = requestHeader(true, timeoutMs, own);
    if (trafficClass !== "control") header.set(TRAFFIC_CLASS_FIELD, trafficClass);
    const head = encodeHead({ path, header });
    if (isPlain) plainHeads.set(path, head);
    return head;
  }

  async function start(
    method: DescMethod,
    signal: AbortSignal | undefined,
    wantedMs: number | undefined,
    header: OwnHeader,
  ): Promise<ClientCall> {
    const timeoutMs = wantedMs === undefined || wantedMs <= 0 ? undefined : Math.ceil(wantedMs);
    const bound = boundOf(signal, timeoutMs);
    try {
      bound.signal?.throwIfAborted();
      const head = headOf(method, timeoutMs, header);
      return new ClientCall(await open(trafficClass, bound.signal), { limits, bound, head });
    } catch (error) {
      const reason = abortError(bound.signal) ?? callError(error);
      bound.release();
      throw reason;
    }
  }

  return {
    async unary(method, signal, timeoutMs, header, input) {
      const message = serialize(method.input, input, limits.streamBytes);
      const call = await start(method, signal, timeoutMs, header);
      return await call.unary(method, message);
    },
    async stream(method, signal, timeoutMs, header, input) {
      const call = await start(method, signal, timeoutMs, header);
      return await call.stream(method, input);
    },
  };
}

/** What ends a call from our side. */
interface CallBound {
  readonly signal: AbortSignal | undefined;
  release(): void;
}

/** The caller's signal, or one that also ends with the call's own time. */
function boundOf(signal: AbortSignal | undefined, timeoutMs: number | undefined): CallBound {
  if (timeoutMs === undefined) return { signal, release: () => {} };
  const deadline = createDeadlineSignal(timeoutMs);
  const both = createLinkedAbortController(signal, deadline.signal);
  return {
    signal: both.signal,
    release: () => {
      deadline.cleanup();
      both.abort();
    },
  };
}

function abortError(signal: AbortSignal | undefined): ConnectError | undefined {
  return signal?.aborted === true ? ConnectError.from(signal.reason, Code.Canceled) : undefined;
}

/** The calling side of one call on one stream. */
class ClientCall implements StreamConsumer {
  readonly #stream: QuicStream;
  readonly #limits: NetworkLimits;
  readonly #bound: CallBound;
  readonly #reader: FrameReader;
  readonly #messages: MessageAssembler;
  readonly #body: ByteQueue;
  #head: Head | undefined;
  #trailers: readonly Field[] = [];
  /** Waits for the head of the answer, or for what comes in its place. */
  #onHead: (() => void) | undefined;
  #onAbort: (() => void) | undefined;
  #requestSent = false;
  #leaveInput: (() => void) | undefined;
  #over = false;
  #error: ConnectError | undefined;

  constructor(
    stream: QuicStream,
    { limits, bound, head }: { readonly limits: NetworkLimits; readonly bound: CallBound; readonly head: Uint8Array },
  ) {
    this.#stream = stream;
    this.#limits = limits;
    this.#bound = bound;
    this.#reader = new FrameReader(limits);
    this.#messages = new MessageAssembler(limits.streamBytes);
    this.#body = new ByteQueue(limits.receiveBufferBytes, {
      full: () => stream.pause(),
      drained: () => stream.resume(),
      abandoned: () => this.#giveUp(new ConnectError("the caller left the call", Code.Canceled)),
    });
    stream.consumer = this;
    stream.write(head);
    const { signal } = bound;
    if (signal === undefined) return;
    this.#onAbort = () => this.#giveUp(abortError(signal));
    if (signal.aborted) this.#onAbort();
    else signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: Uint8Array,
  ): Promise<UnaryResponse<I, O>> {
    void this.#send([request]);
    const answer = new MessageReader(method.output, this.#body, { maxBytes: this.#limits.streamBytes });
    const message = await answer.only().catch((error: unknown) => {
      this.#giveUp(error);
      throw this.#error ?? error;
    });
    const headError = this.#checkHead();
    this.#checkTrailer();
    if (headError !== undefined && message !== undefined) {
      throw new ConnectError("the answer is an error and has a message", Code.Unknown);
    }
    if (headError !== undefined) throw headError;
    if (message === undefined) throw new ConnectError("the answer has no message", Code.Unimplemented);
    return { stream: false, service: method.parent, method, message, ...this.#headers() };
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    input: AsyncIterable<MessageInitShape<I>>,
  ): Promise<StreamResponse<I, O>> {
    const requests = input[Symbol.asyncIterator]();
    this.#leaveInput = () => void requests.return?.()?.catch(() => {});
    const messages = async function* (limits: NetworkLimits): AsyncGenerator<Uint8Array> {
      for (let next = await requests.next(); next.done !== true; next = await requests.next()) {
        yield serialize(method.input, next.value, limits.streamBytes);
      }
    };
    void this.#send(messages(this.#limits));
    await new Promise<void>((resolve) => {
      this.#onHead = resolve;
      if (this.#head !== undefined || this.#over) resolve();
    });
    if (this.#head === undefined) throw this.#error ?? new ConnectError("the answer has no head", Code.Internal);
    const headError = this.#checkHead();
    if (headError !== undefined) {
      this.#giveUp(headError);
      throw headError;
    }
    const message = new MessageReader(method.output, this.#body, {
      maxBytes: this.#limits.streamBytes,
      atEnd: () => this.#checkTrailer(),
    });
    return { stream: true, service: method.parent, method, message, ...this.#headers() };
  }

  received(bytes: Uint8Array): void {
    if (this.#over) return;
    try {
      if (this.#stream.receivedBytes > this.#limits.streamBytes + this.#limits.frameBytes) {
        throw new ConnectError(`the answer is over ${this.#limits.streamBytes} bytes`, Code.ResourceExhausted);
      }
      this.#reader.feed(bytes, (frame) => this.#take(frame));
    } catch (error) {
      this.#giveUp(error);
    }
  }

  ended(): void {
    if (!this.#over) this.#giveUp(new ConnectError("the answer has no end", Code.Internal));
  }

  failed(loss: StreamLoss): void {
    this.#settle(lossError(loss));
  }

  #take(frame: Frame["kind"]): void {
    if (frame.case === "head") {
      this.#head = frame.value;
      this.#onHead?.();
    } else if (frame.case === "data") {
      for (const bytes of this.#messages.push(frame.value)) this.#body.push(bytes);
    } else if (frame.case === "end") {
      this.#trailers = frame.value.trailers;
      for (const bytes of this.#messages.rest()) this.#body.push(bytes);
      this.#settle(undefined);
      this.#stream.stopReceiving(0);
      // The server has said all: what is left of the request interests nobody.
      if (!this.#requestSent) this.#stream.stopSending(0);
    }
  }

  async #send(messages: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
    const stream = this.#stream;
    try {
      for await (const message of messages) {
        for (const piece of encodeMessage(message, this.#limits.frameBytes)) {
          if (!stream.write(piece)) await stream.drained();
        }
        if (!stream.sending) return;
      }
      this.#requestSent = true;
      stream.end(END);
    } catch (error) {
      this.#giveUp(error);
    }
  }

  /** The error that the head of the answer carries, if any. @throws {ConnectError} when it is no answer of a gRPC server */
  #checkHead(): ConnectError | undefined {
    const { status = 0, fields = [] } = this.#head ?? {};
    if (status === 200 && isPlainHead(fields)) return undefined;
    return validateResponseWithCompression([], status, headersOf(fields)).headerError;
  }

  /** @throws {ConnectError} the error of the call */
  #checkTrailer(): void {
    const [first, ...more] = this.#trailers;
    if (first?.name === "grpc-status" && first.value === grpcStatusOk && more.length === 0) return;
    const { header, trailer } = this.#headers();
    validateTrailer(trailer, header);
  }

  /** Made when somebody looks at them, which our callers do not. */
  #headers(): { readonly header: Headers; readonly trailer: Headers } {
    const [fields, trailers] = [() => this.#head?.fields ?? [], () => this.#trailers];
    return {
      get header() {
        return headersOf(fields());
      },
      get trailer() {
        return headersOf(trailers());
      },
    };
  }

  #giveUp(reason: unknown): void {
    if (this.#over) return;
    this.#settle(reason);
    this.#stream.reset(resetCode(reason));
  }

  #settle(reason: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#error = reason === undefined ? undefined : callError(reason);
    if (this.#onAbort !== undefined) this.#bound.signal?.removeEventListener("abort", this.#onAbort);
    this.#bound.release();
    this.#body.end(this.#error);
    this.#onHead?.();
    this.#leaveInput?.();
  }
}

/** Neither an error nor a compression. */
function isPlainHead(fields: readonly Field[]): boolean {
  return fields.length === 1 && fieldOf(fields, "content-type") === "application/grpc+proto";
}
