// What `node start` and `coordinator start` open, with the configuration that a devnet writes: certificates and metrics.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Command } from "commander";
import { loadConfiguration } from "../../src/cli/configuration-file.js";
import { addPkiCommands } from "../../src/cli/pki.js";
import { coordinatorConfigurationSchema } from "../../src/coordinator/configuration.js";
import { type RunningCoordinator, startCoordinator } from "../../src/coordinator/start.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import { devnetPaths, prepareDevnet } from "../../src/devnet/devnet-folder.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { nodeConfigurationSchema } from "../../src/node/configuration.js";
import type { MpcNode } from "../../src/node/node.js";
import { startNode } from "../../src/node/start.js";

const quiet = { logging: { level: "fatal" as const } };

async function freeTcpPort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return typeof address === "object" && address !== null ? address.port : 0;
}

describe("processes and their certificates", () => {
  let folder: string;
  let nodes: MpcNode[] = [];
  let coordinator: RunningCoordinator | undefined;
  const ports = new Map<string, number>();

  async function metrics(of: string): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${ports.get(of)}/metrics`);
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/);
    return await response.text();
  }
  const reading = (text: string, line: string): number =>
    Number(
      text
        .split("\n")
        .find((each) => each.startsWith(`${line} `))
        ?.slice(line.length + 1) ?? Number.NaN,
    );

  async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
    for (let n = 0; n < 400; n += 1) {
      if (await holds()) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail(`not in time: ${what}`);
  }

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-processes-"));
    const plan = await prepareDevnet({ folder, nodes: 2 });
    const paths = devnetPaths(folder);
    for (const nodeId of [...plan.nodes, plan.coordinator]) ports.set(nodeId, await freeTcpPort());
    const endpoint = (nodeId: string) => ({ metrics: { host: "127.0.0.1", port: ports.get(nodeId) ?? 0 } });
    nodes = await Promise.all(
      plan.nodes.map(async (nodeId) => {
        const configuration = await loadConfiguration(paths.nodeConfig(nodeId), nodeConfigurationSchema);
        return await startNode({ ...configuration, ...quiet, ...endpoint(nodeId) }, {});
      }),
    );
    const configuration = await loadConfiguration(paths.coordinatorConfig, coordinatorConfigurationSchema);
    coordinator = await startCoordinator({ ...configuration, ...quiet, ...endpoint(plan.coordinator) }, {});
    await coordinator.coordinator.ready([...plan.nodes], 20_000);
  });
  after(async () => {
    await coordinator?.close();
    await Promise.all(nodes.map((node) => node.close()));
    await rm(folder, { recursive: true, force: true });
  });

  it("show on loopback how peers and certificates are; anything else is not there", async () => {
    const ready = 'mpc_wallet_peer_state{peer="node-2",state="active"}';
    await eventually("connected", async () => reading(await metrics("node-1"), ready) === 1);
    await eventually("a ping", async () =>
      Number.isFinite(reading(await metrics("node-1"), 'mpc_wallet_peer_ping_seconds{peer="node-2",quantile="0.99"}')),
    );
    await eventually(
      "a standby",
      async () => reading(await metrics("node-1"), 'mpc_wallet_peer_standby{peer="node-2"}') === 1,
    );
    for (const nodeId of ["node-1", "coordinator-1"]) {
      const text = await metrics(nodeId);
      assert.ok(reading(text, 'mpc_wallet_certificate_verdicts_total{outcome="accepted"}') > 0);
      assert.equal(reading(text, 'mpc_wallet_certificate_verdicts_total{outcome="expired"}'), 0);
      const left = reading(text, "mpc_wallet_certificate_left_seconds");
      assert.ok(left > 89 * 86_400 && left <= 90 * 86_400, `${left} s`);
      assert.equal(reading(text, "mpc_wallet_certificate_expires_soon"), 0);
      assert.equal(reading(text, 'mpc_wallet_peer_loss_ratio{peer="node-2"}') >= 0, true);
      // One of the first few may come while the peer is still starting, on a machine that does much else.
      const answered = reading(text, 'mpc_wallet_peer_ping_success_ratio{peer="node-2"}');
      assert.ok(answered > 0.5 && answered <= 1, `${answered}`);
      const heard = reading(text, 'mpc_wallet_peer_last_message_timestamp_seconds{peer="node-2"}');
      assert.ok(Math.abs(Date.now() / 1_000 - heard) < 60);
      assert.match(text, /^mpc_wallet_revocation_list_number\{issuer="[0-9a-f]{16}"\} [1-9]/m);
      assert.doesNotMatch(text, /PRIVATE|passphrase/i);
    }
    const base = `http://127.0.0.1:${ports.get("node-1")}`;
    assert.equal(await (await fetch(`${base}/healthz`)).text(), "ok\n");
    assert.equal((await fetch(`${base}/`)).status, 404);
    assert.equal((await fetch(`${base}/metrics`, { method: "POST", body: "x" })).status, 404);
  });

  it("'mpc-wallet pki revoke' on the coordinator's folder cuts a node off everywhere; no file is copied", async () => {
    const program = new Command("mpc-wallet").exitOverride();
    addPkiCommands(program, { clock: systemClock, random: systemRandom, environment: {}, print: () => {} });
    const authority = [
      "--folder",
      join(folder, "pki"),
      "--passphrase-file",
      join(folder, "pki", "development-passphrase"),
    ];
    await program.parseAsync(["pki", "revoke", "--node-id", "node-2", ...authority], { from: "user" });
    for (const nodeId of ["node-1", "coordinator-1"]) {
      await eventually(`${nodeId} refuses node-2`, async () => {
        const text = await metrics(nodeId);
        return (
          reading(text, 'mpc_wallet_peer_state{peer="node-2",state="active"}') === 0 &&
          reading(text, 'mpc_wallet_certificate_verdicts_total{outcome="revoked"}') > 0
        );
      });
    }
  });

  it("a coordinator with a [ca] section does not start without its passphrase", async () => {
    const configuration = await loadConfiguration(
      devnetPaths(folder).coordinatorConfig,
      coordinatorConfigurationSchema,
    );
    const { passphraseFile: _, ...ca } =
      configuration.ca ?? assert.fail("the devnet's coordinator holds the intermediate");
    await assert.rejects(
      startCoordinator({ ...configuration, ...quiet, ca }, {}),
      (error) =>
        error instanceof InvalidInput &&
        error.code === "passphrase-missing" &&
        /MPC_WALLET_INTERMEDIATE_PASSPHRASE/.test(error.message),
    );
  });
});
