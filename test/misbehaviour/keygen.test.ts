import { keygen } from "../../src/protocols/keygen.js";
import { keygen as table } from "./expectations.js";
import { describeScene } from "./scene.js";

describeScene({
  name: "key generation, 2-of-3,",
  table,
  cheat: 3,
  run: () => ({
    protocol: keygen,
    ids: [1, 2, 3],
    pub: { scheme: "cggmp24" as const, threshold: 2, walletId: "wallet" },
    secret: () => undefined,
    seed: "keygen cheats",
  }),
});
