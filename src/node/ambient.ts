import { randomBytes } from "node:crypto";
import type { Clock, Random } from "../crypto/ambient.js";

/** The operating system's entropy. */
export const systemRandom: Random = {
  bytes: (length) => new Uint8Array(randomBytes(length)),
};

/** The operating system's clocks and timers. Timers do not keep a process alive. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
