// Child of one-use-ledger.test.ts: puts items and takes them, several at a time, until it is killed. Prints each id
// after the take has returned, which is when a signature share could leave.
import { writeSync } from "node:fs";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";

const [folder = ""] = process.argv.slice(2);
const key = SecretBytes.adopt(new Uint8Array(32).fill(7));
const ledger = await OneUseLedger.open({ folder, key }, { clock: systemClock, random: systemRandom });
await ledger.confirm();
if (ledger.damage !== undefined) writeSync(1, "damaged\n");
writeSync(1, `open ${ledger.epoch()}\n`);

async function takeAll(): Promise<void> {
  for (;;) {
    const item = await ledger.take({ kind: "presignature" });
    if (item === undefined) return;
    writeSync(1, `took ${item.id} ${Buffer.from(item.secret.reveal()).toString("hex")}\n`);
  }
}

for (let batch = 0; ; batch++) {
  const items = Array.from({ length: 20 }, (_, n) => ({
    kind: "presignature" as const,
    id: `${ledger.epoch()}-${batch}-${n}`,
    walletId: "treasury",
    walletEpoch: 1,
    signers: ["node-1", "node-2"],
    createdAtMs: systemClock.nowMs(),
    secret: SecretBytes.copyOf(systemRandom.bytes(100)),
  }));
  await ledger.put(items);
  await Promise.all([takeAll(), takeAll(), takeAll()]);
}
