import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type MethodImplSpec } from "@connectrpc/connect";
import { contentTypeProto, grpcStatusOk, parseContentType, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import type { Frame, Head } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { ByteQueue } from "./byte-queue.js";
import { CallContext } from "./call-context.js";
import { lossError, resetCode } from "./call-failure.js";
import { encodeEnd, encodeHead, encodeMessage, FrameReader, fieldOf } from "./frame-codec.js";
import { MessageAssembler } from "./message-assembler.js";
import { MessageReader } from "./message-reader.js";
import { serialize } from "./message-writer.js";
import { methodTable, type RouterSetup } from "./method-table.js";
import type { NetworkLimits } from "./network-limits.js";
import type { NetworkLog } from "./network-log.js";
import type { QuicConnection } from "./quic-connection.js";
import type { QuicStream, StreamConsumer, StreamLoss } from "./quic-stream.js";
import { RequestMemory } from "./request-memory.js";
import { TRAFFIC_CLASS_FIELD, trafficRank } from "./traffic-class.js";

/** Answers the calls that peers open, with gRPC semantics, by the handlers that are registered on it. */
export class RpcServer {
  readonly #methods: ReadonlyMap<string, MethodImplSpec>;
  readonly #limits: NetworkLimits;
  readonly #log: NetworkLog;
  readonly #clock: Clock;
  readonly #memory: RequestMemory;
  readonly #calls = new Set<ServerCall>();
  #cancelSweep: (() => void) | undefined;
  #idle: (() => void) | undefined;
  #draining = false;

  constructor(options: { setup: RouterSetup; limits: NetworkLimits; clock: Clock; log: NetworkLog }) {
    this.#methods = methodTable(options.setup);
    this.#limits = options.limits;
    this.#clock = options.clock;
    this.#log = options.log;
    const { requestBytesPerPeer, streamBytes, frameBytes } = options.limits;
    const limitBytes = Math.max(requestBytesPerPeer, streamBytes + frameBytes);
    this.#memory = new RequestMemory(limitBytes, (peer) =>
      options.log({ level: "warn", event: "peer-requests-too-large", facts: { peer, limitBytes } }),
    );
  }

  get runningCalls(): number {
    return this.#calls.size;
  }

  /** Paths of all calls that a peer may make. */
  get paths(): readonly string[] {
    return [...this.#methods.keys()];
  }

  /** Takes a stream that a peer opened. */
  serve(stream: QuicStream, connection: QuicConnection): void {
    if (this.#draining) {
      stream.reset(Code.Unavailable);
      return;
    }
    const call = new ServerCall(stream, connection, {
      methods: this.#methods,
      limits: this.#limits,
      clock: this.#clock,
      log: this.#log,
      memory: this.#memory,
      done: () => {
        this.#calls.delete(call);
        if (this.#calls.size === 0) this.#idle?.();
      },
    });
    this.#calls.add(call);
    this.#cancelSweep ??= this.#clock.after(SWEEP_MS, () => this.#sweep());
  }

  /** Ends the calls that keep us waiting. One look at all of them now and then is cheaper than timers for each. */
  #sweep(): void {
    this.#cancelSweep = undefined;
    for (const call of [...this.#calls]) {
      const overdue = call.overdue();
      if (overdue !== undefined) call.giveUp(new ConnectError(overdue, Code.DeadlineExceeded));
    }
    if (this.#calls.size > 0) this.#cancelSweep = this.#clock.after(SWEEP_MS, () => this.#sweep());
  }

  /** Refuses new calls and resolves when the running ones are answered. */
  drained(): Promise<void> {
    this.#draining = true;
    if (this.#calls.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle = resolve;
    });
  }

  /** Aborts what still runs. */
  abort(): void {
    this.#draining = true;
    this.#cancelSweep?.();
    for (const call of [...this.#calls]) call.giveUp(new ConnectError("this node is closing", Code.Unavailable));
  }
}

interface ServerCallHost {
  readonly methods: ReadonlyMap<string, MethodImplSpec>;
  readonly limits: NetworkLimits;
  readonly clock: Clock;
  readonly log: NetworkLog;
  readonly memory: RequestMemory;
  done(): void;
}

const SWEEP_MS = 500;
const ONE_MESSAGE_IN: ReadonlySet<MethodImplSpec["kind"]> = new Set(["unary", "server_streaming"]);
/** Head and end of an answer to which the handler has added nothing. */
const PLAIN_HEAD = encodeHead({ status: 200, header: new Headers({ "content-type": contentTypeProto }) });
const PLAIN_END = encodeEnd(new Headers({ "grpc-status": grpcStatusOk }));

/** The answering side of one call on one stream. */
class ServerCall implements StreamConsumer {
  readonly #stream: QuicStream;
  readonly #connection: QuicConnection;
  readonly #host: ServerCallHost;
  readonly #reader: FrameReader;
  readonly #messages: MessageAssembler;
  readonly #body: ByteQueue;
  #context: CallContext | undefined;
  /** What is waited for, since when, and how long at most; undefined while it is our turn. */
  #awaited: { readonly what: string; readonly sinceMs: number; readonly limitMs: number } | undefined;
  #requestOver = false;
  #handling = false;
  /** The handler takes one message after the other, so what it has taken is not the request's any more. */
  #isConversation = false;
  /** Of the peer's allowance. */
  #heldBytes = 0;

  constructor(stream: QuicStream, connection: QuicConnection, host: ServerCallHost) {
    this.#stream = stream;
    this.#connection = connection;
    this.#host = host;
    this.#reader = new FrameReader(host.limits);
    this.#messages = new MessageAssembler(host.limits.streamBytes);
    this.#body = new ByteQueue(host.limits.receiveBufferBytes, {
      full: () => stream.pause(),
      drained: () => stream.resume(),
      abandoned: () => {},
      emptied: () => this.#settle(),
    });
    stream.consumer = this;
    stream.onClosed = () => {
      if (!this.#handling) this.#done();
    };
    this.#await("the head of the call", host.limits.headMs);
  }

  /** What the peer keeps us waiting for beyond its time. */
  overdue(): string | undefined {
    if (this.#awaited === undefined) return undefined;
    const { what, sinceMs, limitMs } = this.#awaited;
    return this.#host.clock.monotonicMs() - sinceMs > limitMs ? `${what} took more than ${limitMs} ms` : undefined;
  }

  #await(what: string, limitMs: number): void {
    this.#awaited = { what, limitMs, sinceMs: this.#host.clock.monotonicMs() };
  }

  received(bytes: Uint8Array): void {
    if (this.#requestOver && this.#reader.over) return;
    try {
      if (this.#stream.receivedBytes > this.#host.limits.streamBytes + this.#host.limits.frameBytes) {
        throw new ConnectError(`the request is over ${this.#host.limits.streamBytes} bytes`, Code.ResourceExhausted);
      }
      if (!this.#host.memory.take(this.#connection.peerNodeId, bytes.length)) {
        throw new ConnectError(
          "the requests of this peer that wait for their end are too large",
          Code.ResourceExhausted,
        );
      }
      this.#heldBytes += bytes.length;
      this.#reader.feed(bytes, (frame) => this.#take(frame));
      this.#settle();
    } catch (error) {
      this.giveUp(error);
    }
  }

  ended(): void {
    if (!this.#requestOver) this.giveUp(new ConnectError("the request has no end", Code.Internal));
  }

  failed(loss: StreamLoss): void {
    const error = lossError(loss);
    this.#requestOver = true;
    this.#awaited = undefined;
    this.#body.end(error);
    this.#context?.end(error);
  }

  #take(frame: Frame["kind"]): void {
    if (frame.case === "head") void this.#handle(frame.value);
    else if (frame.case === "data") this.#pushBody(this.#messages.push(frame.value));
    else if (frame.case === "end") {
      this.#requestOver = true;
      this.#awaited = undefined;
      this.#pushBody(this.#messages.rest());
      this.#body.end();
    }
  }

  #pushBody(pieces: readonly Uint8Array[]): void {
    for (const bytes of pieces) this.#body.push(bytes);
  }

  /**
   * The bytes of a single message count until its handler is through, since that one holds the message. Those of a
   * conversation count until nothing of them is left here.
   */
  #settle(): void {
    const isHeld = this.#reader.heldBytes > 0 || this.#messages.heldBytes > 0 || !this.#body.isEmpty;
    if (this.#isConversation && !isHeld) this.#giveBack();
  }

  #giveBack(): void {
    this.#host.memory.giveBack(this.#connection.peerNodeId, this.#heldBytes);
    this.#heldBytes = 0;
  }

  #done(): void {
    this.#giveBack();
    this.#host.done();
  }

  /** Ends the call with an error; the peer sees its code. */
  giveUp(reason: unknown): void {
    const error = ConnectError.from(reason);
    this.#requestOver = true;
    this.#awaited = undefined;
    this.#body.end(error);
    this.#context?.end(error);
    this.#stream.reset(resetCode(error));
  }

  async #handle(head: Head): Promise<void> {
    this.#handling = true;
    try {
      this.#connection.setRank(this.#stream, trafficRank(fieldOf(head.fields, TRAFFIC_CLASS_FIELD) ?? "control"));
      const spec = this.#host.methods.get(head.path);
      const isGrpc = parseContentType(fieldOf(head.fields, "content-type") ?? null)?.binary === true;
      // A request of many messages is a conversation and may pause.
      this.#awaited = undefined;
      this.#isConversation = spec !== undefined && !ONE_MESSAGE_IN.has(spec.kind);
      if (spec !== undefined && !this.#isConversation) this.#await("the request", this.#host.limits.transferMs);
      if (spec !== undefined && isGrpc) await this.#answer(spec, head);
      else this.#refuse(spec === undefined ? 404 : 415);
    } catch (cause) {
      this.#host.log({ level: "warn", event: "call-broken", facts: { path: head.path.slice(0, 200) }, cause });
      this.giveUp(new ConnectError("the call broke", Code.Internal));
    } finally {
      this.#handling = false;
      this.#giveBack();
      if (this.#stream.closed) this.#done();
      else this.#await("the end of the call", this.#host.limits.transferMs);
    }
  }

  /** An answer of HTTP and not of a method. */
  #refuse(status: number): void {
    this.#stream.write(encodeHead({ status, header: new Headers() }));
    this.#finish(encodeEnd());
  }

  async #answer(spec: MethodImplSpec, head: Head): Promise<void> {
    const { peerNodeId: nodeId, peerChain: chain } = this.#connection;
    const call = { method: spec.method, fields: head.fields, peer: { nodeId, chain } };
    const context = new CallContext(call, this.#host.clock);
    this.#context = context;
    let failure: ConnectError | undefined;
    let isBegun = false;
    const begin = (): void => {
      if (isBegun) return;
      isBegun = true;
      const { header } = context.setHeaders;
      header?.set("content-type", contentTypeProto);
      this.#stream.write(header === undefined ? PLAIN_HEAD : encodeHead({ status: 200, header }));
    };
    const emit = async (message: MessageInitShape<DescMessage>): Promise<void> => {
      const bytes = serialize(spec.method.output, message, this.#host.limits.streamBytes);
      begin();
      await this.#write(bytes);
    };
    try {
      requireIdentity(head);
      context.start();
      await this.#invoke(spec, context, emit);
    } catch (error) {
      const isMeant = error instanceof ConnectError;
      failure = isMeant ? error : new ConnectError("internal error", Code.Internal, undefined, undefined, error);
    }
    context.end(failure);
    begin();
    const { trailer } = context.setHeaders;
    const isPlain = failure === undefined && trailer === undefined;
    this.#finish(isPlain ? PLAIN_END : this.#end(setTrailerStatus(trailer ?? new Headers(), failure)));
  }

  /** Hands the request to its handler, and what that answers to `emit`. */
  async #invoke(
    spec: MethodImplSpec,
    context: CallContext,
    emit: (message: MessageInitShape<DescMessage>) => Promise<void>,
  ): Promise<void> {
    const requests = new MessageReader(spec.method.input, this.#body, { maxBytes: this.#host.limits.streamBytes });
    switch (spec.kind) {
      case "unary":
        return await emit(await spec.impl(await only(requests), context));
      case "client_streaming":
        return await emit(await spec.impl(requests, context));
      case "server_streaming":
        return await this.#emitAll(spec.impl(await only(requests), context), emit);
      case "bidi_streaming":
        return await this.#emitAll(spec.impl(requests, context), emit);
    }
  }

  async #emitAll<T>(messages: AsyncIterable<T>, emit: (message: T) => Promise<void>): Promise<void> {
    for await (const message of messages) {
      if (!this.#stream.sending) return;
      await emit(message);
    }
  }

  async #write(message: Uint8Array): Promise<void> {
    for (const piece of encodeMessage(message, this.#host.limits.frameBytes)) {
      if (this.#stream.write(piece)) continue;
      this.#await("the reader of the answer", this.#host.limits.transferMs);
      await this.#stream.drained();
      this.#awaited = undefined;
    }
  }

  #finish(end: Uint8Array): void {
    this.#stream.end(end);
    // The handler may answer without reading the whole request.
    if (!this.#requestOver) this.#stream.stopReceiving(0);
  }

  /** The trailers, without what makes them more than the other side reads: first the details, then all but the status. */
  #end(trailer: Headers): Uint8Array {
    const { headBytes, headFields } = this.#host.limits;
    const whole = encodeEnd(trailer);
    const fits = (end: Uint8Array, fields: Headers) =>
      end.length <= headBytes && [...fields.keys()].length <= headFields;
    if (fits(whole, trailer)) return whole;
    trailer.delete("grpc-status-details-bin");
    const withoutDetails = encodeEnd(trailer);
    if (fits(withoutDetails, trailer)) return withoutDetails;
    // Percent-encoded; a cut escape would not decode at all.
    const message = (trailer.get("grpc-message") ?? "").slice(0, 1_024).replace(/%[0-9a-f]{0,2}/gi, "?");
    return encodeEnd(new Headers({ "grpc-status": trailer.get("grpc-status") ?? "13", "grpc-message": message }));
  }
}

/** @throws {ConnectError} Unimplemented for a body that is compressed */
function requireIdentity({ fields }: Head): void {
  const encoding = fieldOf(fields, "grpc-encoding") ?? "identity";
  if (encoding !== "identity") throw new ConnectError("this peer takes no compressed messages", Code.Unimplemented);
}

async function only<Desc extends DescMessage>(requests: MessageReader<Desc>) {
  const request = await requests.only();
  if (request === undefined) throw new ConnectError("the request has no message", Code.Unimplemented);
  return request;
}
