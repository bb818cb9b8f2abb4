import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import {
  type Bulk,
  bulkRoutes,
  percentile,
  slowDownload,
  smallCalls,
  stalledDownload,
  stalledUpload,
  wholeDownload,
} from "./bulk-service.js";
import { closeAll, control, type Pair, startPair } from "./test-mesh.js";

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Messages of 16 KB between two applications of which one does not read: the receiver's buffer, the stream's window in its
 * largest size, the sender's buffer, and what Connect has in hand.
 */
const UNDER_WAY_MESSAGES = (256 + 1_024 + 256 + 64) / 16;

after(closeAll);

describe("a stalled stream of 8 MB", () => {
  let pair: Pair;

  before(async () => {
    pair = await startPair({ router: bulkRoutes });
  });

  after(() => pair.close());

  const transport = () => pair.a.mesh.transport("node-b");

  for (const [name, start] of [
    ["nobody reads here", stalledDownload],
    ["the peer does not read", stalledUpload],
  ] as const) {
    it(`${name}: it holds its window, and the connection has room for everything else`, async () => {
      const bulk = await start(transport());
      await smallCalls(transport(), 100);
      const payload = new Uint8Array(8_000_000);
      assert.equal(
        (await control(pair.a, "node-b").ping({ payload }, { timeoutMs: 60_000 })).payload.length,
        8_000_000,
      );
      assert.equal(await wholeDownload(transport(), 64), 64);
      const sent = bulk.sent() - (start === stalledDownload ? 64 : 0);
      assert.ok(sent > 1 && sent <= UNDER_WAY_MESSAGES, `${sent} of 512 messages are under way`);
      await bulk.stop();
    });
  }

  it("twenty of them hold twenty windows, and small calls pass", async () => {
    const bulks = await Promise.all(Array.from({ length: 20 }, () => stalledUpload(transport())));
    await pause(100);
    await smallCalls(transport(), 100);
    for (const bulk of bulks) assert.ok(bulk.sent() <= UNDER_WAY_MESSAGES, `${bulk.sent()} messages are under way`);
    await Promise.all(bulks.map((bulk) => bulk.stop()));
  });

  // `npm run bench -- hol` measures p99 with enough samples; here a coarse bound on medians, taken in turns.
  for (const [name, start] of [
    ["stalled", stalledDownload],
    ["slowly read", slowDownload],
  ] as const) {
    it(`${name}: the median of small calls stays within four times what it is without`, async () => {
      const alone: number[] = [];
      const beside: number[] = [];
      await smallCalls(transport(), 50);
      for (let round = 0; round < 5; round++) {
        alone.push(...(await smallCalls(transport(), 40)));
        const bulk: Bulk = await start(transport());
        beside.push(...(await smallCalls(transport(), 40)));
        await bulk.stop();
      }
      const ratio = percentile(beside, 0.5) / percentile(alone, 0.5);
      assert.ok(ratio <= 4, `the median is ${ratio.toFixed(2)} times`);
    });
  }
});
