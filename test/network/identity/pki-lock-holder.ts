// Works in a PKI folder in its own process, for tests that run two or kill one. Arguments: folder, "count" or "hold", times.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { withPkiLock } from "../../../src/network/identity/pki-lock.js";
import { testRandom } from "./forged-chain.js";

const [, , folder = "", task = "", times = "1"] = process.argv;

if (task === "hold") {
  await withPkiLock(folder, { random: testRandom }, async () => {
    process.send?.("held");
    await wait(600_000);
  });
} else if (task === "count") {
  const path = join(folder, "counter");
  for (let n = 0; n < Number(times); n += 1) {
    await withPkiLock(folder, { random: testRandom, patienceMs: 60_000 }, async () => {
      const value = Number(await readFile(path, "utf8"));
      await wait(2);
      await writeFile(path, String(value + 1));
    });
  }
}
