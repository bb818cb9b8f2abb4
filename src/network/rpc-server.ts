import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  type ContextKey,
  createConnectRouter,
  createContextKey,
  createContextValues,
} from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import type { Frame, Head } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { ByteQueue } from "./byte-queue.js";
import { lossError, resetCode } from "./call-failure.js";
import { encodeData, encodeEnd, encodeHead, FrameReader, headersOf } from "./frame-codec.js";
import { MessageAssembler } from "./message-assembler.js";
import type { NetworkLimits } from "./network-limits.js";
import type { NetworkLog } from "./network-log.js";
import type { QuicConnection } from "./quic-connection.js";
import type { QuicStream, StreamConsumer, StreamLoss } from "./quic-stream.js";
import { RequestMemory } from "./request-memory.js";
import { TRAFFIC_CLASS_FIELD, trafficRank } from "./traffic-class.js";

/** Context value of every call: node id in the verified certificate of the caller. Empty only outside a mesh. */
export const peerNodeId: ContextKey<string> = createContextKey("", { description: "node id of the calling peer" });

/** Context value of every call: the certificate chain that the caller showed, leaf first, DER. */
export const peerChain: ContextKey<readonly Uint8Array[]> = createContextKey<readonly Uint8Array[]>([], {
  description: "certificate chain of the calling peer",
});

/** Registers services on a router, as `routePeer(router, handlers)` does. */
export type RouterSetup = (router: ConnectRouter) => void;

/** Answers the calls that peers open, by the gRPC handlers of Connect's router. */
export class RpcServer {
  readonly #handlers: ReadonlyMap<string, UniversalHandler>;
  readonly #limits: NetworkLimits;
  readonly #log: NetworkLog;
  readonly #clock: Clock;
  readonly #memory: RequestMemory;
  readonly #calls = new Set<ServerCall>();
  #cancelSweep: (() => void) | undefined;
  #idle: (() => void) | undefined;
  #draining = false;

  constructor(options: {
    setup: RouterSetup;
    limits: NetworkLimits;
    clock: Clock;
    log: NetworkLog;
    router?: ConnectRouterOptions;
  }) {
    const router = createConnectRouter({
      ...options.router,
      connect: false,
      grpcWeb: false,
      readMaxBytes: options.limits.streamBytes,
      writeMaxBytes: options.limits.streamBytes,
    });
    options.setup(router);
    this.#handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
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
    return [...this.#handlers.keys()];
  }

  /** Takes a stream that a peer opened. */
  serve(stream: QuicStream, connection: QuicConnection): void {
    if (this.#draining) {
      stream.reset(Code.Unavailable);
      return;
    }
    const call = new ServerCall(stream, connection, {
      handlers: this.#handlers,
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
  readonly handlers: ReadonlyMap<string, UniversalHandler>;
  readonly limits: NetworkLimits;
  readonly clock: Clock;
  readonly log: NetworkLog;
  readonly memory: RequestMemory;
  done(): void;
}

const SWEEP_MS = 500;
/** 24 days. For more a timer of Node's warns and fires at once. */
const MAX_TIMEOUT_S = 2_147_483;
const SECONDS_OF: Readonly<Record<string, number>> = { H: 3_600, M: 60, S: 1 };

function shortenTimeout(header: Headers): void {
  const [, digits, unit = ""] = /^(\d{1,8})([HMS])$/.exec(header.get("grpc-timeout") ?? "") ?? [];
  if (Number(digits) * (SECONDS_OF[unit] ?? 0) > MAX_TIMEOUT_S) header.set("grpc-timeout", `${MAX_TIMEOUT_S}S`);
}

const ONE_MESSAGE_IN: ReadonlySet<string> = new Set(["unary", "server_streaming"]);

/** The answering side of one call on one stream. */
class ServerCall implements StreamConsumer {
  readonly #stream: QuicStream;
  readonly #connection: QuicConnection;
  readonly #host: ServerCallHost;
  readonly #reader: FrameReader;
  readonly #messages: MessageAssembler;
  readonly #body: ByteQueue;
  readonly #abort = new AbortController();
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
    this.#abort.abort(error);
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
    this.#abort.abort(error);
    this.#stream.reset(resetCode(error));
  }

  async #handle(head: Head): Promise<void> {
    this.#handling = true;
    try {
      const header = headersOf(head.fields);
      shortenTimeout(header);
      this.#connection.setRank(this.#stream, trafficRank(header.get(TRAFFIC_CLASS_FIELD) ?? "control"));
      const handler = this.#host.handlers.get(head.path);
      // A request of many messages is a conversation and may pause.
      this.#awaited = undefined;
      this.#isConversation = handler !== undefined && !ONE_MESSAGE_IN.has(handler.method.methodKind);
      if (handler !== undefined && !this.#isConversation) this.#await("the request", this.#host.limits.transferMs);
      const response =
        handler === undefined
          ? { status: 404 }
          : await handler({
              httpVersion: "2.0",
              method: "POST",
              url: `https://self${head.path}`,
              header,
              body: this.#body,
              signal: this.#abort.signal,
              contextValues: createContextValues()
                .set(peerNodeId, this.#connection.peerNodeId)
                .set(peerChain, this.#connection.peerChain),
            });
      await this.#answer(response);
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

  async #answer(response: UniversalServerResponse): Promise<void> {
    const stream = this.#stream;
    const { frameBytes } = this.#host.limits;
    stream.write(encodeHead({ status: response.status, header: response.header ?? new Headers() }));
    for await (const message of response.body ?? []) {
      if (!stream.sending) break;
      for (const frame of encodeData(message, frameBytes)) {
        if (stream.write(frame)) continue;
        this.#await("the reader of the answer", this.#host.limits.transferMs);
        await stream.drained();
        this.#awaited = undefined;
      }
    }
    stream.end(this.#end(response.trailer));
    // The handler may answer without reading the whole request.
    if (!this.#requestOver) this.#stream.stopReceiving(0);
  }

  /** The trailers, without what makes them more than the other side reads: first the details, then all but the status. */
  #end(trailer: Headers | undefined): Uint8Array {
    const { headBytes, headFields } = this.#host.limits;
    const whole = encodeEnd(trailer);
    const fits = (end: Uint8Array, fields: Headers) =>
      end.length <= headBytes && [...fields.keys()].length <= headFields;
    if (trailer === undefined || fits(whole, trailer)) return whole;
    trailer.delete("grpc-status-details-bin");
    const withoutDetails = encodeEnd(trailer);
    if (fits(withoutDetails, trailer)) return withoutDetails;
    // Percent-encoded; a cut escape would not decode at all.
    const message = (trailer.get("grpc-message") ?? "").slice(0, 1_024).replace(/%[0-9a-f]{0,2}/gi, "?");
    return encodeEnd(new Headers({ "grpc-status": trailer.get("grpc-status") ?? "13", "grpc-message": message }));
  }
}
