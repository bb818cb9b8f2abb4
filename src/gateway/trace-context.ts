import { AsyncLocalStorage } from "node:async_hooks";
import {
  type Context,
  type ContextManager,
  context,
  ROOT_CONTEXT,
  type SpanContext,
  TraceFlags,
  trace,
} from "@opentelemetry/api";
import type { Random } from "../crypto/ambient.js";

/**
 * W3C trace context. The context of a call travels through the process by the OpenTelemetry API, so any code below can
 * ask for it with `trace.getSpanContext(context.active())`, whether or not an OpenTelemetry SDK is installed.
 */

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

/**
 * The caller's trace continued with a span of our own, or a new trace when the header is missing or malformed.
 *
 * @param traceparent header of the request
 */
export function spanOf(traceparent: string | undefined, random: Random): SpanContext {
  const [, version, traceId, parentId, flags, rest] = TRACEPARENT.exec(traceparent ?? "") ?? [];
  const spanId = Buffer.from(random.bytes(8)).toString("hex");
  const known = version === "00" ? rest === undefined : version !== "ff";
  if (!known || traceId === undefined || parentId === undefined || flags === undefined || isZero(traceId, parentId)) {
    return { traceId: Buffer.from(random.bytes(16)).toString("hex"), spanId, traceFlags: TraceFlags.SAMPLED };
  }
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & TraceFlags.SAMPLED, isRemote: false };
}

function isZero(...ids: readonly string[]): boolean {
  return ids.some((id) => /^0+$/.test(id));
}

/** Header `traceparent` that names the span as parent. */
export function traceparentOf({ traceId, spanId, traceFlags }: SpanContext): string {
  return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`;
}

/** Runs `work` with the span as the active one. */
export function withSpan<T>(span: SpanContext, work: () => T): T {
  return context.with(trace.setSpanContext(context.active(), span), work);
}

/** Makes `context.with` work when no SDK has been installed; does nothing when one has. */
export function installContextManager(): void {
  context.setGlobalContextManager(new AsyncContextManager());
}

class AsyncContextManager implements ContextManager {
  readonly #storage = new AsyncLocalStorage<Context>();

  active(): Context {
    return this.#storage.getStore() ?? ROOT_CONTEXT;
  }

  with<A extends unknown[], F extends (...args: A) => ReturnType<F>>(
    active: Context,
    work: F,
    thisArg?: ThisParameterType<F>,
    ...args: A
  ): ReturnType<F> {
    return this.#storage.run(active, () => work.call(thisArg, ...args));
  }

  bind<T>(active: Context, target: T): T {
    if (typeof target !== "function") return target;
    return ((...args: unknown[]) => this.#storage.run(active, () => target(...args))) as T;
  }

  enable(): this {
    return this;
  }

  disable(): this {
    this.#storage.disable();
    return this;
  }
}
