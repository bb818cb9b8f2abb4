import type { DescMethod } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextKey,
  type ContextValues,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from "@connectrpc/connect";
import { parseTimeout } from "@connectrpc/connect/protocol-grpc";
import type { Field } from "../../gen/mpcwallet/transport/v1/frame_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { fieldOf, headersOf } from "./frame-codec.js";

/** Context value of every call: node id in the verified certificate of the caller. Empty only outside a mesh. */
export const peerNodeId: ContextKey<string> = createContextKey("", { description: "node id of the calling peer" });

/** Context value of every call: the certificate chain that the caller showed, leaf first, DER. */
export const peerChain: ContextKey<readonly Uint8Array[]> = createContextKey<readonly Uint8Array[]>([], {
  description: "certificate chain of the calling peer",
});

/** 24 days. For more a timer of Node's warns and fires at once. */
const MAX_TIMEOUT_MS = 2_147_483_000;

/** Given to the signals of calls that ended well: one for all, since making an error costs more than a small call. */
const ANSWERED = new ConnectError("the call was answered", Code.Canceled);

/** What a handler learns of its call. Headers are made when somebody asks for them, which our handlers do not. */
export class CallContext implements HandlerContext {
  readonly requestMethod = "POST";
  readonly protocolName = "grpc";
  readonly method: DescMethod;
  readonly values: ContextValues;
  readonly #fields: readonly Field[];
  readonly #clock: Clock;
  /** Made when a handler asks for it: most do not, and to abort one costs more than a small call. */
  #abort: AbortController | undefined;
  #end: { readonly reason: unknown } | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #deadlineMs: number | undefined;
  #cancelDeadline: (() => void) | undefined;

  constructor(
    call: {
      readonly method: DescMethod;
      readonly fields: readonly Field[];
      readonly peer: { readonly nodeId: string; readonly chain: readonly Uint8Array[] };
    },
    clock: Clock,
  ) {
    this.method = call.method;
    this.#fields = call.fields;
    this.#clock = clock;
    this.values = createContextValues().set(peerNodeId, call.peer.nodeId).set(peerChain, call.peer.chain);
  }

  /** Lets the call's own time begin. @throws {ConnectError} InvalidArgument for a timeout that is none */
  start(): void {
    const { timeoutMs, error } = parseTimeout(fieldOf(this.#fields, "grpc-timeout") ?? null, Number.MAX_SAFE_INTEGER);
    if (error !== undefined) throw error;
    if (timeoutMs === undefined) return;
    const leftMs = Math.min(timeoutMs, MAX_TIMEOUT_MS);
    this.#deadlineMs = this.#clock.monotonicMs() + leftMs;
    this.#cancelDeadline = this.#clock.after(leftMs, () =>
      this.end(new ConnectError("the operation timed out", Code.DeadlineExceeded)),
    );
  }

  get service() {
    return this.method.parent;
  }

  get url(): string {
    return `https://self/${this.method.parent.typeName}/${this.method.name}`;
  }

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.#end !== undefined) this.#abort.abort(this.#end.reason ?? ANSWERED);
    return this.#abort.signal;
  }

  readonly timeoutMs = (): number | undefined =>
    this.#deadlineMs === undefined ? undefined : Math.ceil(this.#deadlineMs - this.#clock.monotonicMs());

  get requestHeader(): Headers {
    this.#requestHeader ??= headersOf(this.#fields);
    return this.#requestHeader;
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get responseTrailer(): Headers {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }

  /** What the handler has set, if anything. */
  get setHeaders(): { readonly header: Headers | undefined; readonly trailer: Headers | undefined } {
    return { header: this.#responseHeader, trailer: this.#responseTrailer };
  }

  /** The call is over, well or with a reason: whoever listens to its signal hears of it. */
  end(reason?: unknown): void {
    this.#cancelDeadline?.();
    this.#end ??= { reason };
    this.#abort?.abort(reason ?? ANSWERED);
  }
}
