import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Unavailable } from "../../src/crypto/fault.js";
import { BoundedCalls } from "../../src/wallet/bounded-calls.js";
import { ManualClock } from "../storage/manual-clock.js";

describe("bounded calls", () => {
  /** A call that ends with its signal only. */
  const endless = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => {
      if (signal.aborted) reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  const make = () => {
    const [clock, stop] = [new ManualClock(), new AbortController()];
    return { clock, stop, calls: new BoundedCalls({ timeoutMs: 100 }, { clock, stop: stop.signal }) };
  };

  it("end when their time is over, each its own", async () => {
    const { clock, calls } = make();
    const [short, long] = [calls.make(endless), calls.make(endless, 200)];
    const isLate = (error: unknown) => error instanceof Unavailable && error.code === "nodes-silent";
    const ended = assert.rejects(short, isLate);
    await clock.advance(100);
    await ended;
    const last = assert.rejects(long, isLate);
    await clock.advance(100);
    await last;
  });

  it("end when the caller shuts down, and none begins afterwards", async () => {
    const { stop, calls } = make();
    const ended = assert.rejects(calls.make(endless), /the end/);
    stop.abort(new Error("the end"));
    await ended;
    await assert.rejects(calls.make(endless), /the end/);
  });

  it("the first failure of several ends the others, and what is done leaves nothing behind", async () => {
    const { calls } = make();
    let others = 0;
    const several = calls.make((signal) => {
      const other = endless(signal).catch(() => void others++);
      return Promise.all([other, Promise.reject(new Error("one failed"))]);
    });
    await assert.rejects(several, /one failed/);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(others, 1);
    assert.equal(await calls.make(async () => 5), 5);
  });
});
