import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Unavailable } from "../../src/crypto/fault.js";
import { DiskValues } from "../../src/storage/disk-coordination.js";
import { MemorySpace, MemoryValues } from "../../src/storage/memory-coordination.js";
import { coordinationContract } from "./coordination-contract.js";
import { ManualClock } from "./manual-clock.js";
import { scratchFolder } from "./scratch.js";

const code = (wanted: string) => (fault: unknown) => fault instanceof Unavailable && fault.code === wanted;

describe("coordination on disk", () => {
  coordinationContract(async () => {
    const clock = new ManualClock();
    const values = await DiskValues.open({ folder: scratchFolder() });
    const space = new MemorySpace(clock, values);
    return {
      connect: async () => space.connect(),
      wait: (ms) => clock.advance(ms),
      remove: () => values.close(),
    };
  });

  it("remembers values and counters, forgets what has a TTL, and lets go of locks", async () => {
    const folder = scratchFolder();
    const open = async () => {
      const values = await DiskValues.open({ folder });
      return { values, coordination: new MemorySpace(new ManualClock(), values).connect() };
    };
    const first = await open();
    await first.coordination.put("/wallets/a", Uint8Array.of(1));
    await first.coordination.put("/wallets/b", Uint8Array.of(2));
    await first.coordination.delete("/wallets/b");
    await first.coordination.put("/heartbeat", Uint8Array.of(3), { ttlMs: 60_000 });
    await first.coordination.put("/was-kept", Uint8Array.of(4));
    await first.coordination.put("/was-kept", Uint8Array.of(5), { ttlMs: 60_000 });
    assert.equal(await first.coordination.add("index", 7n), 7n);
    const held = await first.coordination.tryLock("lock", 60_000);
    assert.ok(held);
    await first.coordination.close();
    await first.values.close();

    const second = await open();
    assert.deepEqual([...(await second.coordination.list("")).keys()], ["/wallets/a"]);
    assert.equal(await second.coordination.add("index", 1n), 8n);
    const next = await second.coordination.tryLock("lock", 60_000);
    assert.ok(next && next.fencing > held.fencing, "fencing never goes back");
    await assert.rejects(DiskValues.open({ folder }), code("coordination-unreadable"));
    await second.coordination.close();
    await second.values.close();
  });

  it("holds as many keys as it may, counted across a restart", async () => {
    const folder = scratchFolder();
    const first = await DiskValues.open({ folder, maxKeys: 3 });
    for (const key of ["a", "b", "c"]) await first.put(key, Uint8Array.of(1));
    await first.put("c", Uint8Array.of(2));
    await assert.rejects(first.put("d", Uint8Array.of(1)), code("coordination-full"));
    await first.close();
    const second = await DiskValues.open({ folder, maxKeys: 3 });
    await assert.rejects(second.put("d", Uint8Array.of(1)), code("coordination-full"));
    await second.delete("a");
    await second.delete("a");
    await second.put("d", Uint8Array.of(1));
    for (const counter of ["x", "y", "z"]) await second.add(counter, 1n);
    await assert.rejects(second.add("w", 1n), code("coordination-full"));
    assert.equal(await second.add("x", 1n), 2n);
    await second.close();
  });

  it("lists a prefix and no neighbour, in the order of keys, as memory does", async () => {
    const disk = await DiskValues.open({ folder: scratchFolder() });
    const memory = new MemoryValues();
    const keys = ["/a", "/a/1", "/a/10", "/a/2", "/a/é", "/a/\u{10ffff}", "/a0", "/b/1", "b", "/", "~"];
    for (const key of keys) for (const values of [disk, memory]) await values.put(key, Buffer.from(key));
    for (const prefix of ["", "/", "/a", "/a/", "/a/1", "/a/\u{10ffff}", "/b/", "nothing", "~"]) {
      const wanted = keys.filter((key) => key.startsWith(prefix)).sort();
      assert.deepEqual([...(await memory.list(prefix)).keys()], wanted, prefix);
      assert.deepEqual([...(await disk.list(prefix)).keys()].sort(), wanted, prefix);
    }
    await memory.delete("/a/1");
    await memory.delete("/a/1");
    assert.deepEqual([...(await memory.list("/a/1")).keys()], ["/a/10"]);
    await disk.close();
  });

  it("a list costs what it finds, not what there is", async () => {
    const disk = await DiskValues.open({ folder: scratchFolder() });
    const memory = new MemoryValues();
    for (let n = 0; n < 3_000; n++) await memory.put(`/payments/${n}`, new Uint8Array(1_000));
    await Promise.all(Array.from({ length: 3_000 }, (_, n) => disk.put(`/payments/${n}`, new Uint8Array(1_000))));
    for (const values of [disk, memory]) {
      await values.put("/open-payments/1", new Uint8Array(0));
      const time = async (prefix: string) => {
        const startedMs = performance.now();
        for (let round = 0; round < 20; round++) await values.list(prefix);
        return performance.now() - startedMs;
      };
      await time("/open-payments/");
      const [few, all] = [await time("/open-payments/"), await time("/payments/")];
      assert.ok(few * 5 < all, `${values.constructor.name}: ${few} ms against ${all} ms`);
    }
    await disk.close();
  });

  it("in 25 kills no index, fencing number or kept value is lost or given twice", { timeout: 120_000 }, async () => {
    const folder = scratchFolder();
    const indices = new Set<string>();
    const kept = new Set<string>();
    let [lastIndex, lastFencing] = [0n, 0n];
    for (let round = 0; round < 25; round++) {
      const output = await runAndKill(folder);
      const beforeFencing = lastFencing;
      for (const line of output.split("\n").slice(0, -1)) {
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
    const values = await DiskValues.open({ folder });
    const stored = await values.list("/payments/");
    for (const key of kept) assert.equal(`/payments/${Buffer.from(stored.get(key) ?? [])}`, key);
    assert.ok((await values.add("/wallet-index/w/0", 1n)) > lastIndex);
    assert.ok(values.fencing >= lastFencing);
    console.log(`# ${indices.size} indices, ${kept.size} values, fencing up to ${lastFencing} in 25 kills`);
    await values.close();
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
