import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Unavailable } from "../../src/crypto/fault.js";
import { TipWatch } from "../../src/wallet/tip-watch.js";
import { realClock } from "../storage/manual-clock.js";

const OPTIONS = { pollMs: 5, looksMax: 4 };

/** A chain whose height the test sets; counts the questions. */
class Chain {
  height = 100;
  asked = 0;
  isDown = false;
  async tipHeight(): Promise<number> {
    this.asked += 1;
    if (this.isDown) throw new Unavailable("chain-silent", "no source answers");
    return this.height;
  }
}

const never = new AbortController().signal;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("watching the tip", () => {
  it("asks one question an interval, however many wait, and none when nobody does", async () => {
    const chain = new Chain();
    const tips = new TipWatch({ ...OPTIONS, looksMax: 1_000 }, { chain, clock: realClock });
    await tips.moved(never); // the first height that is seen
    const before = chain.asked;
    let told = 0;
    const waiting = Array.from({ length: 500 }, () => tips.moved(never).then(() => void told++));
    await pause(60);
    assert.equal(told, 0);
    assert.ok(chain.asked - before <= 13, `${chain.asked - before} questions in 60 ms`);
    chain.height += 1;
    await Promise.all(waiting);
    const after = chain.asked;
    await pause(30);
    assert.equal(chain.asked, after);
  });

  it("tells a waiter after some looks although the tip stands, and when the chain source is silent", async () => {
    const chain = new Chain();
    const tips = new TipWatch(OPTIONS, { chain, clock: realClock });
    await tips.moved(never);
    const before = chain.asked;
    await tips.moved(never);
    assert.equal(chain.asked - before, OPTIONS.looksMax);
    chain.isDown = true;
    await tips.moved(never);
    assert.equal(chain.asked - before, 2 * OPTIONS.looksMax);
  });

  it("a height that went back has moved, too", async () => {
    const chain = new Chain();
    const tips = new TipWatch({ ...OPTIONS, looksMax: 1_000 }, { chain, clock: realClock });
    await tips.moved(never);
    const waiting = tips.moved(never);
    chain.height -= 1;
    await waiting;
    assert.equal(chain.height, 99);
  });

  it("an aborted wait is over at once", async () => {
    const chain = new Chain();
    const tips = new TipWatch({ pollMs: 60_000, looksMax: 4 }, { chain, clock: realClock });
    const stop = new AbortController();
    const waiting = tips.moved(stop.signal);
    stop.abort();
    await waiting;
    await tips.moved(stop.signal);
    assert.equal(chain.asked, 0);
  });
});
