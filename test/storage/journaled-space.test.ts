import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
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

  it("in 25 kills no index, fencing number or kept value is lost or given twice", { timeout: 120_000 }, async () => {
    const folder = scratchFolder();
    const indices = new Set<string>();
    const kept = new Set<string>();
    let [lastIndex, lastFencing] = [0n, 0n];
    for (let round = 0; round < 25; round++) {
      const beforeFencing = lastFencing;
      for (const line of (await runAndKill(folder)).split("\n").slice(0, -1)) {
        const [word = "", value = ""] = line.split(" ");
        if (word === "index") {
          assert.ok(!indices.has(value), `index ${value} was given twice`);
          indices.add(value);
          if (BigInt(value) > lastIndex) lastIndex = BigInt(value);
        } else if (word === "fencing") {
          assert.ok(BigInt(value) > beforeFencing, "a fencing number went back");
          if (BigInt(value) > lastFencing) lastFencing = BigInt(value);
        } else if (word === "kept") kept.add(value);
      }
    }
    assert.ok(indices.size > 25 && kept.size > 25, `${indices.size} indices, ${kept.size} values`);
    const journaled = await JournaledSpace.open({ folder }, { clock: new ManualClock() });
    const coordination = journaled.space.connect();
    const stored = await coordination.list("/payments/");
    for (const key of kept) assert.equal(`/payments/${Buffer.from(stored.get(key) ?? [])}`, key);
    assert.ok((await coordination.add("/wallet-index/w/0", 1n)) > lastIndex);
    const next = await coordination.tryLock("lock", 60_000);
    assert.ok(next && next.fencing > lastFencing);
    console.log(`# ${indices.size} indices, ${kept.size} values in 25 kills`);
    await coordination.close();
    await journaled.close();
  });
});

async function runAndKill(folder: string): Promise<string> {
  const program = fileURLToPath(new URL("./coordination-writer.js", import.meta.url));
  const child = spawn(process.execPath, [program, folder], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    if (output === "") setTimeout(() => child.kill("SIGKILL"), Math.random() * 40);
    output += chunk;
  });
  await once(child, "close");
  return output;
}
