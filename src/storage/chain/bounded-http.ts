/** HTTP to a chain source that may be slow, down or hostile: bounded attempts, time and answer size, no redirects. */
import type { Clock, Random } from "../../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../../crypto/fault.js";

export interface HttpBounds {
  readonly attempts: number;
  /** For one call with all its attempts and pauses. */
  readonly timeoutMs: number;
  /** For one attempt; a server that hangs is tried again while time is left. */
  readonly attemptTimeoutMs: number;
  /** First pause; it doubles each time, and a random part of up to half is taken off. */
  readonly backoffMs: number;
  readonly maxAnswerBytes: number;
}

/** The blueprint's bounds; 16 MiB holds every block and every answer that the wallet asks for. */
export const DEFAULT_HTTP_BOUNDS: HttpBounds = {
  attempts: 3,
  timeoutMs: 30_000,
  attemptTimeoutMs: 10_000,
  backoffMs: 250,
  maxAnswerBytes: 16_777_216,
};

export interface HttpDependencies {
  readonly clock: Clock;
  readonly random: Random;
  /** Global fetch when left out. */
  readonly fetch?: typeof fetch;
}

export interface HttpCall {
  readonly method: "GET" | "POST";
  /** Appended to the base URL; begins with "/" or is empty. */
  readonly path: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Statuses that another attempt may cure. */
  readonly retryStatus: (status: number) => boolean;
}

export interface HttpReply {
  readonly status: number;
  readonly body: Uint8Array;
}

/** Overload and gateway trouble; a plain 500 too, since Esplora uses it for trouble with its own node. */
export const isTransient = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** Checks a base URL. @throws InvalidInput "bad-chain-source-url" */
export function baseUrl(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  const plain = parsed !== undefined && parsed.username === "" && parsed.password === "" && parsed.search === "";
  if (!plain || !/^https?:$/.test(parsed.protocol)) {
    throw new InvalidInput("bad-chain-source-url", "a chain source's URL is http(s), without credentials and query");
  }
  return url.replace(/\/+$/, "");
}

class AnswerTooLarge extends Error {}

/** Why calls are given up. Made once: an exception with its stack for every call is what made calls slow. */
const LATE = new Error("given up");

async function readBounded(response: Response, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  // A declared length is not trusted; it only lets us give up early.
  if (Number(response.headers.get("content-length") ?? 0) > maxBytes) throw new AnswerTooLarge();
  for await (const chunk of response.body ?? []) {
    const bytes = chunk as Uint8Array;
    size += bytes.length;
    if (size > maxBytes) throw new AnswerTooLarge();
    chunks.push(bytes);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

export class BoundedHttp {
  readonly #source: string;
  readonly #url: string;
  readonly #bounds: HttpBounds;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #fetch: typeof fetch;

  /** @param source - names the source in errors; never a URL, which may hold a secret path */
  constructor(options: { source: string; url: string; bounds: HttpBounds }, dependencies: HttpDependencies) {
    this.#source = options.source;
    this.#url = baseUrl(options.url);
    this.#bounds = options.bounds;
    this.#clock = dependencies.clock;
    this.#random = dependencies.random;
    this.#fetch = dependencies.fetch ?? fetch;
  }

  /**
   * Sends a call until it is answered with a status that is not transient.
   *
   * @throws Unavailable "chain-source-timeout", "chain-source-unreachable", "chain-source-overloaded" or
   *   "chain-source-answer-too-large"
   */
  async send(call: HttpCall): Promise<HttpReply> {
    const { attempts, timeoutMs } = this.#bounds;
    const deadline = new AbortController();
    const cancel = this.#clock.after(timeoutMs, () => deadline.abort(LATE));
    try {
      for (let attempt = 1; ; attempt++) {
        const outcome = await this.#attempt(call, deadline.signal);
        if (!(outcome instanceof Unavailable)) return outcome;
        if (deadline.signal.aborted) throw this.#timeout(outcome);
        if (attempt >= attempts || outcome.code === "chain-source-answer-too-large") throw outcome;
        await this.#pause(attempt, deadline.signal);
        if (deadline.signal.aborted) throw this.#timeout(outcome);
      }
    } finally {
      cancel();
    }
  }

  #timeout(cause: unknown): Unavailable {
    const facts = { source: this.#source, timeoutMs: this.#bounds.timeoutMs };
    return new Unavailable("chain-source-timeout", `${this.#source} did not answer in time`, facts, cause);
  }

  async #attempt(call: HttpCall, deadline: AbortSignal): Promise<HttpReply | Unavailable> {
    const facts = { source: this.#source };
    const attempt = new AbortController();
    const cancel = this.#clock.after(this.#bounds.attemptTimeoutMs, () => attempt.abort(LATE));
    const signal = AbortSignal.any([attempt.signal, deadline]);
    let isRead = false;
    try {
      const response = await this.#fetch(this.#url + call.path, {
        method: call.method,
        redirect: "error",
        signal,
        ...(call.headers === undefined ? {} : { headers: call.headers }),
        ...(call.body === undefined ? {} : { body: call.body }),
      });
      const body = await readBounded(response, this.#bounds.maxAnswerBytes);
      isRead = true;
      if (!call.retryStatus(response.status)) return { status: response.status, body };
      const status = { ...facts, status: response.status };
      return new Unavailable("chain-source-overloaded", `${this.#source} answered ${response.status}`, status);
    } catch (cause) {
      if (cause instanceof AnswerTooLarge) {
        const limit = { ...facts, maxAnswerBytes: this.#bounds.maxAnswerBytes };
        return new Unavailable("chain-source-answer-too-large", `${this.#source} answered too much`, limit);
      }
      if (attempt.signal.aborted) return this.#timeout(cause);
      return new Unavailable("chain-source-unreachable", `${this.#source} cannot be reached`, facts, cause);
    } finally {
      cancel();
      // Frees the socket. To abort a call that is over would cost as much as the call.
      if (!isRead) attempt.abort(LATE);
    }
  }

  #pause(attempt: number, signal: AbortSignal): Promise<void> {
    const fraction = new DataView(this.#random.bytes(4).slice().buffer).getUint32(0) / 2 ** 32;
    const delayMs = this.#bounds.backoffMs * 2 ** (attempt - 1) * (1 - fraction / 2);
    return new Promise((resolve) => {
      const end = (): void => {
        cancel();
        signal.removeEventListener("abort", end);
        resolve();
      };
      const cancel = this.#clock.after(delayMs, end);
      signal.addEventListener("abort", end);
    });
  }
}
