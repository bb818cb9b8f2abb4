import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { floodConnections } from "./connection-flood.js";
import { connectAndClose, type EnduranceSummary, keepAlive } from "./endurance.js";
import { closeAll } from "./test-mesh.js";

after(closeAll);

// `npm run fuzz -- endurance` runs 10,000 attempts and 1,000 cycles.
describe("a long life in short", () => {
  const leaksNothing = ({ fileDescriptors, resources, rssGrowthMb }: EnduranceSummary) => {
    assert.ok(fileDescriptors.after <= fileDescriptors.before + 2, JSON.stringify(fileDescriptors));
    assert.ok(resources.after <= resources.before + 4, JSON.stringify(resources));
    assert.ok(rssGrowthMb < 100, `memory grew by ${rssGrowthMb} MB`);
  };

  it("300 keep-alive cycles leave nothing behind", async () => leaksNothing(await keepAlive(300)));

  it("60 connections that come and go leave nothing behind", async () => leaksNothing(await connectAndClose(60)));

  it("1,000 attempts to connect from 40 addresses: a peer still gets in, lines and memory are bounded", async () => {
    const { proved, calls, lines, joinedMs, rssGrowthMb } = await floodConnections(1_000);
    assert.ok(proved > 100, `${proved} attempts proved their address`);
    assert.ok(calls > 0);
    // Silent clients hold their places for the connect timeout of 10 s; nobody has to wait for that.
    assert.ok(joinedMs < 8_000, `a new peer needed ${joinedMs} ms`);
    assert.ok(lines < 200, `${lines} lines in the log`);
    assert.ok(rssGrowthMb < 200, `memory grew by ${rssGrowthMb} MB`);
  });
});
