import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { fuzzNetwork } from "./network-fuzz.js";
import { closeAll } from "./test-mesh.js";

after(closeAll);

describe("variations of recorded datagrams and frames", () => {
  // `npm run fuzz -- network` runs a million.
  it("50,000: no exception, no failed call, the connection lives, a new peer gets in", async () => {
    const summary = await fuzzNetwork({ seed: 2, start: 0, count: 50_000, limitMs: 120_000 });
    assert.ok(summary.datagrams + summary.frames >= 5_000, JSON.stringify(summary));
    assert.equal(summary.connections, 1);
    assert.ok(summary.calls > 0);
    assert.ok(summary.framesRead > 0 && summary.framesRefused > 0);
    assert.ok(summary.rssGrowthMb < 150, `memory grew by ${summary.rssGrowthMb} MB`);
  });
});
