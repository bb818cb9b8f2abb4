import type { Transport } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import type { UniversalClientRequest, UniversalClientResponse } from "@connectrpc/connect/protocol";
import { createTransport } from "@connectrpc/connect/protocol-grpc";
import type { Frame } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import { ByteQueue } from "./byte-queue.js";
import { callError, lossError, resetCode } from "./call-failure.js";
import { encodeData, encodeEnd, encodeHead, FrameReader, headersOf } from "./frame-codec.js";
import { MessageAssembler } from "./message-assembler.js";
import type { NetworkLimits } from "./network-limits.js";
import type { QuicStream, StreamConsumer, StreamLoss } from "./quic-stream.js";
import { TRAFFIC_CLASS_FIELD, type TrafficClass } from "./traffic-class.js";

const BASE_URL = "https://peer";

/** Gives a stream for one call, waiting as long as the signal allows. */
export type StreamOpener = (trafficClass: TrafficClass, signal: AbortSignal | undefined) => Promise<QuicStream>;

/** A Connect transport with gRPC semantics over streams that `open` gives. */
export function quicTransport(options: {
  open: StreamOpener;
  trafficClass: TrafficClass;
  limits: NetworkLimits;
}): Transport {
  const { open, trafficClass, limits } = options;
  return createTransport({
    baseUrl: BASE_URL,
    httpClient: async (request) => {
      const stream = await open(trafficClass, request.signal).catch((error: unknown) => {
        throw callError(error);
      });
      return new ClientCall(stream, limits).start(request, trafficClass);
    },
    useBinaryFormat: true,
    interceptors: [],
    acceptCompression: [],
    sendCompression: null,
    compressMinBytes: Number.MAX_SAFE_INTEGER,
    readMaxBytes: limits.streamBytes,
    writeMaxBytes: limits.streamBytes,
  });
}

/** The calling side of one call on one stream. */
class ClientCall implements StreamConsumer {
  readonly #stream: QuicStream;
  readonly #limits: NetworkLimits;
  readonly #reader: FrameReader;
  readonly #messages: MessageAssembler;
  readonly #body: ByteQueue;
  readonly #trailer = new Headers();
  #answered: ((response: UniversalClientResponse) => void) | undefined;
  #refused: ((error: unknown) => void) | undefined;
  #signal: AbortSignal | undefined;
  #onAbort: (() => void) | undefined;
  #over = false;

  constructor(stream: QuicStream, limits: NetworkLimits) {
    this.#stream = stream;
    this.#limits = limits;
    this.#reader = new FrameReader(limits);
    this.#messages = new MessageAssembler(limits.streamBytes);
    this.#body = new ByteQueue(limits.receiveBufferBytes, {
      full: () => stream.pause(),
      drained: () => stream.resume(),
      abandoned: () => this.#giveUp(new ConnectError("the caller left the call", Code.Canceled)),
    });
    stream.consumer = this;
  }

  start(request: UniversalClientRequest, trafficClass: TrafficClass): Promise<UniversalClientResponse> {
    const answer = new Promise<UniversalClientResponse>((resolve, reject) => {
      this.#answered = resolve;
      this.#refused = reject;
    });
    const { signal } = request;
    if (signal !== undefined) {
      this.#signal = signal;
      this.#onAbort = () => this.#giveUp(signal.reason);
      if (signal.aborted) this.#onAbort();
      else signal.addEventListener("abort", this.#onAbort, { once: true });
    }
    if (trafficClass !== "control") request.header.set(TRAFFIC_CLASS_FIELD, trafficClass);
    this.#stream.write(encodeHead({ path: request.url.slice(BASE_URL.length), header: request.header }));
    void this.#send(request.body);
    return answer;
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
      const { status, fields } = frame.value;
      this.#answered?.({ status, header: headersOf(fields), body: this.#body, trailer: this.#trailer });
    } else if (frame.case === "data") {
      for (const bytes of this.#messages.push(frame.value)) this.#body.push(bytes);
    } else if (frame.case === "end") {
      for (const { name, value } of frame.value.trailers) this.#trailer.append(name, value);
      for (const bytes of this.#messages.rest()) this.#body.push(bytes);
      this.#settle(undefined);
      this.#stream.stopReceiving(0);
      // The server has said all: what is left of the request interests nobody.
      if (!this.#requestSent) this.#stream.stopSending(0);
    }
  }

  #requestSent = false;

  async #send(body: AsyncIterable<Uint8Array> | undefined): Promise<void> {
    const stream = this.#stream;
    try {
      for await (const message of body ?? []) {
        for (const frame of encodeData(message, this.#limits.frameBytes)) {
          if (!stream.write(frame)) await stream.drained();
        }
        if (!stream.sending) return;
      }
      this.#requestSent = true;
      stream.end(encodeEnd());
    } catch (error) {
      this.#giveUp(error);
    }
  }

  #giveUp(reason: unknown): void {
    if (this.#over) return;
    this.#settle(reason);
    this.#stream.reset(resetCode(reason));
  }

  #settle(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#onAbort !== undefined) this.#signal?.removeEventListener("abort", this.#onAbort);
    if (error !== undefined) this.#refused?.(callError(error));
    this.#body.end(error === undefined ? undefined : callError(error));
  }
}
