// A SegWit wallet on a devnet of processes, with primes that the nodes draw themselves at the default profile.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Devnet } from "../../src/devnet/devnet.js";
import { Operator } from "./operator.js";

describe("mpc-wallet wallet refresh and reshare on a devnet of processes: SegWit", () => {
  let folder: string;
  let devnet: Devnet;
  let operator: Operator;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-devnet-"));
    devnet = await Devnet.start({ folder, nodes: 4, progress: () => {}, onCrash: (name) => assert.fail(name) });
    operator = new Operator(devnet);
    await operator.whenReady();
  });
  after(async () => {
    await devnet?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it("is paid from before, after a refresh, and after a reshare to other nodes and another threshold", async () => {
    const startedMs = performance.now();
    const tell = (what: string): void =>
      console.log(`# ${what}: ${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
    const three = ["--scheme", "cggmp24", "--threshold", "2", "--nodes", "node-1,node-2,node-3"];
    const wallet = await operator.makesWallet("main", ...three);
    await operator.pays("main");
    tell("created, paid");
    assert.match(String((await operator.runs("wallet", "refresh", "main", "--yes"))["state"]), /SWITCHED$/);
    await operator.pays("main");
    tell("refreshed, paid");
    const terms = ["--threshold", "3", "--nodes", "node-4,node-2,node-3"];
    const reshared = await operator.runs("wallet", "reshare", "main", ...terms, "--yes");
    assert.deepEqual([reshared["epoch"], reshared["threshold"]], [2, 3]);
    assert.match(String(reshared["state"]), /SWITCHED$/);
    await devnet.kill("node-1");
    await operator.pays("main");
    tell("reshared, paid");
    const now = await operator.runs("wallet", "show", "--wallet", "main");
    assert.deepEqual(now["parties"], ["node-4", "node-2", "node-3"]);
    assert.equal(now["groupKey"], wallet["groupKey"]);
  });
});
