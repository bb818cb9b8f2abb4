import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Command } from "commander";
import { addBanCommands } from "../../src/cli/ban-commands.js";
import { loadConfiguration } from "../../src/cli/configuration-file.js";
import type { Ban } from "../../src/consensus/vote-ledger.js";
import { coordinatorConfigurationSchema } from "../../src/coordinator/configuration.js";
import { openAudit, openCoordination } from "../../src/coordinator/start.js";
import { StoredBans } from "../../src/coordinator/stored-bans.js";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { devnetPaths, prepareDevnet } from "../../src/devnet/devnet-folder.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import { LevelVoteStore } from "../../src/storage/level-vote-store.js";

const code = (wanted: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === wanted;
const ban = (nodeId: string): Ban => ({
  nodeId,
  kind: "session-evidence",
  detail: "signature-share",
  bannedAtMs: 1_790_000_000_000,
  evidence: [Uint8Array.of(1, 2, 3)],
});

describe("mpc-wallet node and coordinator: bans", () => {
  let folder = "";
  let nodeConfig = "";
  let coordinatorConfig = "";
  let votes = "";

  /** Runs a command; `answer` is what the person says who is asked. */
  async function run(args: readonly string[], answer?: boolean): Promise<string[]> {
    const lines: string[] = [];
    const program = new Command("mpc-wallet").exitOverride();
    for (const role of ["node", "coordinator"]) program.command(role);
    addBanCommands(program, {
      print: (line) => void lines.push(line),
      progress: () => {},
      confirm: async () => answer,
      environment: process.env,
      clock: systemClock,
      random: systemRandom,
    });
    await program.parseAsync([...args], { from: "user" });
    return lines;
  }

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-bans-"));
    const { nodes } = await prepareDevnet({ folder, nodes: 3 });
    const paths = devnetPaths(folder);
    nodeConfig = paths.nodeConfig(nodes[0] ?? "");
    coordinatorConfig = paths.coordinatorConfig;
    votes = join(dirname(nodeConfig), "data", "votes");
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it("of a node: lists them, and lifts one when a person says so", async () => {
    const config = ["--config", nodeConfig];
    const store = await LevelVoteStore.open(votes);
    await store.ban(ban("node-2"));
    await store.ban(ban("node-3"));
    await assert.rejects(run(["node", "bans", ...config]), code("votes-unreadable"), "the node runs");
    await store.close();
    const listed = await run(["node", "bans", ...config]);
    assert.equal(listed.length, 3);
    assert.match(listed[1] ?? "", /^node-2 +2026-09-21T\S+ +session-evidence +signature-share$/);
    await assert.rejects(run(["node", "lift-ban", "node-2", ...config]), code("option-invalid"));
    await assert.rejects(run(["node", "lift-ban", "node-2", ...config], false), code("not-confirmed"));
    await assert.rejects(run(["node", "lift-ban", "node-9", "--yes", ...config]), code("ban-unknown"));
    assert.deepEqual(await run(["node", "lift-ban", "node-2", ...config], true), [
      JSON.stringify({ event: "ban-lifted", nodeId: "node-2" }),
    ]);
    const left = JSON.parse((await run(["node", "bans", "--json", ...config])).join("")) as unknown;
    assert.deepEqual(left, [{ ...ban("node-3"), evidence: ["010203"] }]);
    await run(["node", "lift-ban", "node-3", "--yes", ...config]);
    assert.deepEqual(await run(["node", "bans", ...config]), ["nobody is banned"]);
  });

  it("of the coordinators: lifts one and says so in the audit trail", async () => {
    const config = ["--config", coordinatorConfig];
    const configuration = await loadConfiguration(coordinatorConfig, coordinatorConfigurationSchema);
    const opened = await openCoordination(configuration);
    await new StoredBans(opened.coordination).ban(ban("node-2"));
    await opened.close();
    assert.equal((await run(["coordinator", "bans", ...config])).length, 2);
    await run(["coordinator", "lift-ban", "node-2", "--yes", ...config]);
    assert.deepEqual(await run(["coordinator", "bans", ...config]), ["nobody is banned"]);
    const database = await openAudit(configuration, process.env);
    const audit = new DatabaseAuditTrail({}, { database, clock: systemClock });
    const entries = await audit.read({ fromSequence: 1n, limit: 10 });
    await audit.close();
    await database.close();
    assert.deepEqual(
      entries.map(({ kind, subject, payload }) => [kind, subject, payload["detail"]]),
      [["ban-lifted", "node-2", "signature-share"]],
    );
  });
});
