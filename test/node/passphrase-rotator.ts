// Child of passphrase-rotation.test.ts: rotates between two passphrases until it is killed.
import { systemRandom } from "../../src/node/ambient.js";
import { rotatePassphrase } from "../../src/node/passphrase-rotation.js";
import { passphrase, TEST_COST } from "../storage/scratch.js";

const [folder = "", first = "", second = ""] = process.argv.slice(2);
for (let [current, next] = [first, second]; ; [current, next] = [next, current]) {
  await rotatePassphrase(
    { folder, current: passphrase(current), next: passphrase(next), cost: TEST_COST },
    { random: systemRandom },
  );
  process.stdout.write(".");
}
