import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Devnet } from "../../src/devnet/devnet.js";
import { Operator } from "./operator.js";

/** The whole product as a user has it; with SegWit, whose primes take a while: npm run test:long -- devnet */
describe("mpc-wallet wallet refresh and reshare on a devnet of processes: Taproot", () => {
  let folder: string;
  let devnet: Devnet;
  let operator: Operator;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-devnet-"));
    devnet = await Devnet.start({ folder, nodes: 5, progress: () => {}, onCrash: (name) => assert.fail(name) });
    operator = new Operator(devnet);
    await operator.whenReady();
  });
  after(async () => {
    await devnet?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it("the same coins are spent by new shares, and then by other nodes at another threshold", async () => {
    const three = ["--scheme", "frost", "--threshold", "2", "--nodes", "node-1,node-2,node-3"];
    const wallet = await operator.makesWallet("main", ...three);
    await operator.pays("main");

    const refreshed = await operator.runs("wallet", "refresh", "main", "--yes");
    assert.match(String(refreshed["state"]), /SWITCHED$/);
    await operator.pays("main");

    const terms = ["--threshold", "3", "--nodes", "node-5,node-2,node-4,node-3"];
    const reshared = await operator.runs("wallet", "reshare", "main", ...terms, "--yes");
    assert.deepEqual([reshared["epoch"], reshared["threshold"]], [2, 3]);
    assert.match(String(reshared["state"]), /SWITCHED$/);
    await operator.pays("main");

    const now = await operator.runs("wallet", "show", "--wallet", "main");
    assert.deepEqual(now["parties"], ["node-5", "node-2", "node-4", "node-3"]);
    assert.equal(now["epoch"], 2);
    assert.equal(now["groupKey"], wallet["groupKey"]);
    assert.deepEqual((await operator.runs("wallet", "change", "main"))["owing"], []);

    // One that left is not needed, and of the four that hold it now one may be away.
    await devnet.kill("node-1");
    await devnet.kill("node-4");
    await operator.pays("main");
  });
});
