import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Unavailable } from "../../src/crypto/fault.js";
import { JournaledSpace } from "../../src/storage/journaled-space.js";
import { coordinationContract } from "./coordination-contract.js";
import { ManualClock } from "./manual-clock.js";
import { scratchFolder } from "./scratch.js";

describe("coordination in memory with a journal", () => {
  coordinationContract(async () => {
    const clock = new ManualClock();
    const journaled = await JournaledSpace.open({ folder: scratchFolder() }, { clock });
    return {
      connect: async () => journaled.space.connect(),
      wait: (ms) => clock.advance(ms),
      remove: () => journaled.close(),
    };
  });

  it("values and counters outlive the process, leases and values with a TTL do not, fencing goes on", async () => {
    const folder = scratchFolder();
    const clock = new ManualClock();
    let journaled = await JournaledSpace.open({ folder }, { clock });
    let coordination = journaled.space.connect();
    await coordination.put("/wallets/one", Uint8Array.of(1, 2));
    await coordination.put("/wallets/two", Uint8Array.of(3));
    await coordination.put("/wallets/two", Uint8Array.of(4));
    await coordination.put("/deleted", Uint8Array.of(1));
    await coordination.delete("/deleted");
    await coordination.put("/heartbeat", Uint8Array.of(1), { ttlMs: 3_000 });
    await coordination.put("/was-lasting", Uint8Array.of(1));
    await coordination.put("/was-lasting", Uint8Array.of(2), { ttlMs: 3_000 });
    await Promise.all(Array.from({ length: 20 }, () => coordination.add("index", 1n)));
    const held = await coordination.tryLock("lock", 60_000);
    assert.ok(held);
    await assert.rejects(
      JournaledSpace.open({ folder }, { clock }),
      (error) => error instanceof Unavailable && error.code === "coordination-locked",
    );
    await journaled.close(); // the connection is left open, as in a crash

    journaled = await JournaledSpace.open({ folder }, { clock });
    coordination = journaled.space.connect();
    const listed = [...(await coordination.list("/"))].map(([key, value]) => [key, ...value]);
    assert.deepEqual(listed, [
      ["/wallets/one", 1, 2],
      ["/wallets/two", 4],
    ]);
    assert.equal(await coordination.add("index", 0n), 20n);
    const next = await coordination.tryLock("lock", 60_000);
    assert.ok(next && next.fencing > held.fencing);
    await coordination.close();
    await journaled.close();
  });

  it("a change that cannot be written is a typed error", async () => {
    const journaled = await JournaledSpace.open({ folder: scratchFolder() }, { clock: new ManualClock() });
    const coordination = journaled.space.connect();
    await journaled.close();
    await assert.rejects(
      coordination.put("key", Uint8Array.of(1)),
      (error) => error instanceof Unavailable && error.code === "coordination-unwritten",
    );
  });
});
