import { isIPv6 } from "node:net";
import { Code, type ConnectError } from "@connectrpc/connect";
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import { refusal } from "./error-mapping.js";

/**
 * Calls a second, counted in this process's memory. A caller with a valid token is counted by the token's subject,
 * everyone else by address, so that strangers behind one proxy cannot use up a client's calls.
 */
export class RateLimit {
  readonly #limiter: RateLimiterMemory;
  readonly #callsPerSecond: number;

  /** @param callsPerSecond 1 or more, for each key */
  constructor(callsPerSecond: number) {
    this.#callsPerSecond = callsPerSecond;
    this.#limiter = new RateLimiterMemory({ points: callsPerSecond, duration: 1 });
  }

  /** Counts one call of a token's subject; returns the refusal when it is one too many. */
  countSubject(subject: string): Promise<ConnectError | undefined> {
    return this.#count(`subject ${subject}`);
  }

  /** Counts one call from an address without a valid token; an IPv6 network of 64 bits counts as one address. */
  countAddress(address: string): Promise<ConnectError | undefined> {
    return this.#count(`address ${networkOf(address)}`);
  }

  async #count(key: string): Promise<ConnectError | undefined> {
    try {
      await this.#limiter.consume(key);
      return undefined;
    } catch (cause) {
      if (!(cause instanceof RateLimiterRes)) throw cause;
      return refusal({
        code: Code.ResourceExhausted,
        reason: "rate-limited",
        message: `more than ${this.#callsPerSecond} calls a second; slow down`,
        facts: { callsPerSecond: this.#callsPerSecond },
        retryAfterMs: Math.max(1, cause.msBeforeNext),
      });
    }
  }
}

/** The first 64 bits of an IPv6 address, since one host usually owns all of them; an IPv4 address as it is. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!isIPv6(address)) return address;
  const [head = "", tail] = address.split("%")[0]?.split("::") ?? [];
  const first = head === "" ? [] : head.split(":");
  const last = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length);
  const groups = [...first, ...Array<string>(zeros).fill("0"), ...last].slice(0, 4);
  return groups.map((group) => Number.parseInt(group, 16).toString(16)).join(":");
}
