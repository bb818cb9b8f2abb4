// Child of journaled-space.test.ts: counts, writes and locks until it is killed. Prints each answer after it came,
// which is when a coordinator could have shown it to anybody.
import { writeSync } from "node:fs";
import { systemClock } from "../../src/node/ambient.js";
import { JournaledSpace } from "../../src/storage/journaled-space.js";

const [folder = ""] = process.argv.slice(2);
const { space } = await JournaledSpace.open({ folder }, { clock: systemClock });
const coordination = space.connect();
writeSync(1, "open\n");

async function count(): Promise<void> {
  for (;;) writeSync(1, `index ${await coordination.add("/wallet-index/w/0", 1n)}\n`);
}
async function pay(): Promise<void> {
  for (let round = 0; ; round++) {
    const lease = await coordination.tryLock(`payment-${round}`, 30_000);
    if (lease === undefined) continue;
    writeSync(1, `fencing ${lease.fencing}\n`);
    const key = `/payments/${lease.fencing}`;
    if (await coordination.put(key, Buffer.from(String(lease.fencing)), { lease })) writeSync(1, `kept ${key}\n`);
    await lease.release();
  }
}
await Promise.all([count(), pay(), pay()]);
