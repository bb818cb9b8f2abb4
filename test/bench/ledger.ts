// What a take costs: one synced batch, one at a time and eight at a time. `npm run bench -- ledger [items]`.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";

const count = Math.min(9_000, Number(process.argv[2] ?? 2_000));
const folder = mkdtempSync(join(tmpdir(), "mpc-wallet-bench-"));
const key = SecretBytes.copyOf(systemRandom.bytes(32));
const ledger = await OneUseLedger.open({ folder, key }, { clock: systemClock, random: systemRandom });
let ids = 0;

async function fill(): Promise<void> {
  for (let put = 0; put < count; put += 500) {
    const items = Array.from({ length: Math.min(500, count - put) }, () => ({
      kind: "presignature" as const,
      id: `item-${ids++}`,
      walletId: "treasury",
      walletEpoch: 1,
      signers: ["node-1", "node-2", "node-3"],
      createdAtMs: Date.now(),
      secret: SecretBytes.copyOf(systemRandom.bytes(200)),
    }));
    await ledger.put(items);
  }
}

async function measure(workers: number): Promise<void> {
  await fill();
  const samplesUs: number[] = [];
  const startedMs = performance.now();
  const work = async () => {
    for (;;) {
      const takeMs = performance.now();
      if ((await ledger.take({})) === undefined) return;
      samplesUs.push((performance.now() - takeMs) * 1000);
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
  const tookMs = performance.now() - startedMs;
  samplesUs.sort((left, right) => left - right);
  const at = (share: number) => Math.round(samplesUs[Math.floor(samplesUs.length * share)] ?? 0);
  console.log(
    `${workers} at a time: take median ${at(0.5)} µs, p99 ${at(0.99)} µs, ${Math.round((count / tookMs) * 1000)} takes/s`,
  );
}

await measure(1);
await measure(8);
const openMs = performance.now();
await ledger.close();
const again = await OneUseLedger.open({ folder, key }, { clock: systemClock, random: systemRandom });
console.log(`close and open with ${ids} tombstones: ${Math.round(performance.now() - openMs)} ms`);
await again.close();
rmSync(folder, { recursive: true });
