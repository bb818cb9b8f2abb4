import assert from "node:assert/strict";
import { checkPrimeSync } from "node:crypto";
import { describe, it } from "node:test";
import { Unavailable } from "../../src/crypto/fault.js";
import { security112 } from "../../src/crypto/security-profile.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { processLog } from "../../src/node/log.js";
import { type DrawPrimes, PrimePool } from "../../src/node/prime-pool.js";
import { KeyStore } from "../../src/storage/key-store.js";
import { testPrimes } from "../fixtures/parties.js";
import { passphrase, scratchFolder, TEST_COST } from "../storage/scratch.js";

describe("prime pool", () => {
  const log = processLog({ name: "test", level: "silent" });
  const start = (store: KeyStore, size: number, draw: DrawPrimes) =>
    new PrimePool({ profile: security112, size }, { store, clock: systemClock, log, draw });

  it("gives every set once, also across a restart", async () => {
    const folder = scratchFolder();
    const options = { folder, passphrase: passphrase(), cost: TEST_COST };
    let drawn = 0;
    const draw: DrawPrimes = async () => testPrimes(security112, ++drawn);
    const store = await KeyStore.create({ ...options, nodeId: "node-1" }, { random: systemRandom });
    const pool = start(store, 0, draw);
    await assert.rejects(pool.take(), (error) => error instanceof Unavailable && error.code === "primes-missing");
    await Promise.all([pool.prepare(), pool.prepare()]);
    assert.equal(drawn, 1, "two that ask at once share one drawing");
    await pool.close();
    await store.close();

    const again = await KeyStore.open({ ...options, passphrase: passphrase() }, { random: systemRandom });
    const second = start(again, 0, draw);
    await second.prepare();
    assert.equal(drawn, 1, "the set outlived the restart");
    assert.deepEqual(await second.take(), testPrimes(security112, 1));
    await assert.rejects(second.take(), Unavailable);
    await second.close();
    await again.close();
    const third = await KeyStore.open({ ...options, passphrase: passphrase() }, { random: systemRandom });
    assert.deepEqual(third.secretNames("aux-primes/"), []);
    await third.close();
  });

  it("draws ahead until it holds as many sets as it shall", async () => {
    const options = { folder: scratchFolder(), passphrase: passphrase(), cost: TEST_COST, nodeId: "node-1" };
    const store = await KeyStore.create(options, { random: systemRandom });
    let drawn = 0;
    const pool = start(store, 2, async () => testPrimes(security112, ++drawn));
    while (store.secretNames("aux-primes/").length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(drawn, 2);
    await pool.take();
    while (drawn < 3) await new Promise((resolve) => setTimeout(resolve, 5));
    await pool.close();
    await store.close();
  });

  it("says how far a drawing is, and that none is under way before and after", async () => {
    const options = { folder: scratchFolder(), passphrase: passphrase(), cost: TEST_COST, nodeId: "node-1" };
    const store = await KeyStore.create(options, { random: systemRandom });
    const seen: unknown[] = [];
    const pool: PrimePool = start(store, 0, async (_, __, report) => {
      seen.push(pool.progress);
      report({ found: 3, tested: 128 });
      seen.push(pool.progress);
      return testPrimes(security112, 1);
    });
    assert.deepEqual(pool.progress, { ready: 0, drawing: undefined });
    await pool.prepare();
    assert.deepEqual(seen, [
      { ready: 0, drawing: { found: 0, tested: 0 } },
      { ready: 0, drawing: { found: 3, tested: 128 } },
    ]);
    assert.deepEqual(pool.progress, { ready: 1, drawing: undefined });
    await pool.close();
    await store.close();
  });

  it("draws in a process of its own and reports from there", { timeout: 120_000 }, async () => {
    const options = { folder: scratchFolder(), passphrase: passphrase(), cost: TEST_COST, nodeId: "node-1" };
    const store = await KeyStore.create(options, { random: systemRandom });
    const pool = new PrimePool({ profile: security112, size: 0 }, { store, clock: systemClock, log });
    const prepared = pool.prepare();
    let most = 0;
    const timer = setInterval(() => {
      most = Math.max(most, pool.progress.drawing?.found ?? 0);
    }, 1);
    await prepared.finally(() => clearInterval(timer));
    assert.ok(most > 0, "a prime was reported before the set was at hand");
    const { ringPedersen } = await pool.take();
    for (const p of [ringPedersen.p, ringPedersen.q]) {
      assert.ok(checkPrimeSync(p, { checks: 1 }) && checkPrimeSync((p - 1n) / 2n, { checks: 1 }));
    }
    await pool.close();
    await store.close();
  });
});
