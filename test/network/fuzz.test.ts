import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { fuzzNetwork } from "./network-fuzz.js";
import { killAll } from "./node-process.js";
import { floodStreams } from "./stream-flood.js";
import { fuzzStreams } from "./stream-fuzz.js";
import { closeAll } from "./test-mesh.js";

after(async () => {
  killAll();
  await closeAll();
});

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

describe("variations of recorded calls, as streams of an authenticated peer", () => {
  // `npm run fuzz -- network` sends 20,000.
  it("600: each ends, no honest call fails, every stream is given back", async () => {
    const summary = await fuzzStreams({ seed: 3, start: 0, count: 600, limitMs: 120_000 });
    assert.ok(summary.streams >= 200, JSON.stringify(summary));
    const ended = Object.values(summary.ends).reduce((sum, count) => sum + count, 0);
    assert.equal(ended + summary.cancelled + summary.leftOpen, summary.streams);
    // Not all of them end at the first check.
    for (const end of ["status 0", "http 404", "reset Internal", "reset ResourceExhausted", "reset DeadlineExceeded"]) {
      assert.ok((summary.ends[end] ?? 0) > 0, `${end}: ${JSON.stringify(summary.ends)}`);
    }
    assert.ok(summary.calls > 0);
    assert.ok(summary.rssGrowthMb < 150, `memory grew by ${summary.rssGrowthMb} MB`);
  });
});

describe("floods of streams", () => {
  // `npm run fuzz -- network` runs each for 12 s and prints latencies.
  it("of eight kinds: no honest call fails, memory is bounded", async () => {
    const phases = await floodStreams({ attackMs: 700, aloneMs: 200 });
    assert.equal(phases.length, 8);
    for (const { attack, opened, during, rssGrowthMb } of phases) {
      assert.ok(opened > 0, attack);
      assert.ok(during.calls > 0, attack);
      assert.ok(rssGrowthMb < 400, `${attack}: memory grew by ${rssGrowthMb} MB`);
    }
  });
});
