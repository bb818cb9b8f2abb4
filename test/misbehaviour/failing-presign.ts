// The rounds that only a failed presigning has: party 3 lies so that the session comes there, and party 2, whose shares are
// in order, cheats in the rounds themselves.
import { otherProduct, run } from "../protocols/cggmp24/presign-liars.js";
import type { Loose } from "./cheats.js";
import * as expectations from "./expectations.js";
import { describeScene } from "./scene.js";

export function describeFailure(outcome: "failed-nonce" | "failed-chi", wrongShare: (share: Loose) => void): void {
  const { "product-proofs": productProofs = {}, ...opened } =
    outcome === "failed-nonce" ? expectations.failedNonce : expectations.failedChi;
  describeScene({
    name: `presigning by three, a wrong share (${outcome}),`,
    table: opened,
    cheat: 2,
    prelude: { 3: { share: wrongShare } },
    alsoNamed: (check) => (check === `${outcome}/decryption` ? [3] : []),
    run: () => run,
  });
  // Step 6 is reached when all shares are what the products decrypt to: party 3 sent party 2 another product, which
  // looks away.
  describeScene({
    name: `presigning by three, a wrong product (${outcome}),`,
    table: { "product-proofs": productProofs },
    cheat: 2,
    prelude: { 3: otherProduct(outcome === "failed-nonce" ? "mask" : "key", "product", [2]) },
    alsoNamed: (check) => (check === `${outcome}/product` ? [3] : []),
    run: () => run,
  });
}
