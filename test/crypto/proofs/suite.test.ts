import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";

describe("the proofs", () => {
  it("are nine, and each runs the whole suite", () => {
    const shared = ["context.ts", "encoding.ts", "openings.ts"];
    const proofs = readdirSync("src/crypto/proofs").filter((file) => file.endsWith(".ts") && !shared.includes(file));
    assert.equal(proofs.length, 9);
    for (const file of proofs) {
      const test = readFileSync(`test/crypto/proofs/${file.replace(".ts", ".test.ts")}`, "utf8");
      assert.match(test, /^describeProof\(\{/m, file);
    }
  });
});
