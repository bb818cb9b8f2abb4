// Child of key-store.test.ts: rewrites the state in a loop until it is killed.
import { systemRandom } from "../../src/node/ambient.js";
import { KeyStore } from "../../src/storage/key-store.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import { passphrase, TEST_COST } from "./scratch.js";

const [folder = ""] = process.argv.slice(2);
const store = await KeyStore.open({ folder, passphrase: passphrase(), cost: TEST_COST }, { random: systemRandom });
for (;;) {
  // A large secret makes a write long enough to be hit.
  await store.putSecret("padding", SecretBytes.adopt(new Uint8Array(200_000).fill(Number(store.revision % 251n))));
  process.stdout.write(`${store.revision}\n`);
}
