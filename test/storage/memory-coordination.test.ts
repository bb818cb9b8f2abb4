import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Unavailable } from "../../src/crypto/fault.js";
import { MemorySpace } from "../../src/storage/memory-coordination.js";
import { coordinationContract } from "./coordination-contract.js";
import { ManualClock } from "./manual-clock.js";

describe("coordination in memory", () => {
  coordinationContract(async () => {
    const clock = new ManualClock();
    const space = new MemorySpace(clock);
    return {
      connect: async () => space.connect(),
      wait: (ms) => clock.advance(ms),
      remove: async () => undefined,
    };
  });

  it("a holder that stood still stops by its own clock before another one gets the lock", async () => {
    const clock = new ManualClock();
    const space = new MemorySpace(clock);
    const [first, second] = [space.connect(), space.connect()];
    const held = await first.tryLock("lock", 3_000);
    assert.ok(held);
    clock.freeze(2_600); // no timer ran: nothing was renewed
    assert.equal(held.held, false, "five sixths of the TTL are over");
    assert.equal(await second.tryLock("lock", 3_000), undefined, "the store still keeps it");
    assert.equal(await first.put("key", Uint8Array.of(1), { lease: held }), false);
    clock.freeze(500);
    const next = await second.tryLock("lock", 3_000);
    assert.ok(next && next.fencing > held.fencing);
    await clock.advance(1);
    assert.ok(held.lost.aborted);
    assert.ok(held.lost.reason instanceof Unavailable);
    assert.ok(next.held);
  });

  it("a candidate leads as soon as a dead leader's lease is over", async () => {
    const clock = new ManualClock();
    const space = new MemorySpace(clock);
    const signal = new AbortController().signal;
    const lead = await space.connect().campaign("coordinator", "one", { ttlMs: 3_000, signal });
    let led = false;
    const waiting = space.connect().campaign("coordinator", "two", { ttlMs: 3_000, signal });
    void waiting.then(() => {
      led = true;
    });
    clock.freeze(3_000);
    await clock.advance(1);
    assert.ok(led);
    assert.equal(lead.held, false);
    assert.ok((await waiting).held);
  });
});
