import { Scalar } from "../../src/crypto/curve.js";
import { Presignature } from "../../src/protocols/cggmp24/presignature.js";
import { ceremony, makePresignatures, signRun } from "../protocols/cggmp24/ceremony.js";
import { SeededRandom } from "../session/simulation.js";
import { sign as table } from "./expectations.js";
import { describeScene } from "./scene.js";

const wallet = ceremony({ threshold: 3, n: 3 }, "sign cheats");
const stored = [0, 1].map((index) =>
  [...makePresignatures(wallet, [1, 2, 3], `sign cheats ${index}`)].map(
    ([party, presignature]) => [party, presignature.encode()] as const,
  ),
);
const random = new SeededRandom("sign cheats");
const messages = [0, 1].map(() => ({ digest: { bytes: random.bytes(32) }, bip32Tweak: Scalar.random(random) }));

describeScene({
  name: "CGGMP24 signing, 3-of-3,",
  table,
  cheat: 3,
  run: () => {
    const decoded = stored.map(
      (set) => new Map(set.map(([party, bytes]) => [party, Presignature.decode(bytes, wallet.key.groupKey)])),
    );
    return signRun(wallet, decoded, messages, "sign cheats");
  },
});
