import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { Scheme } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { loadClientProfile } from "../../src/cli/client-profile.js";
import { loadConfiguration } from "../../src/cli/configuration-file.js";
import { type GatewayClient, openGateway } from "../../src/cli/gateway-client.js";
import { Devnet } from "../../src/devnet/devnet.js";
import { devnetPaths, prepareDevnet } from "../../src/devnet/devnet-folder.js";
import { systemRandom } from "../../src/node/ambient.js";
import { nodeConfigurationSchema } from "../../src/node/configuration.js";
import { decodeKeyShare } from "../../src/protocols/key-share.js";
import { KeyStore } from "../../src/storage/key-store.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";

describe("a devnet of processes", () => {
  let folder: string;
  let devnet: Devnet;
  const crashes: string[] = [];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-devnet-"));
    devnet = await Devnet.start({ folder, nodes: 3, progress: () => {}, onCrash: (name) => crashes.push(name) });
  });
  after(async () => {
    await devnet?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  async function withGateway<T>(use: (client: GatewayClient["wallet"]) => Promise<T>): Promise<T> {
    const gateway = await openGateway(await loadClientProfile(devnet.paths.clientConfig, { environment: {} }), {
      environment: {},
    });
    try {
      for (let attempt = 0; attempt < 100; attempt++) {
        const { healthy, leader } = await gateway.wallet.getHealth({});
        if (healthy && leader !== "") break;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      return await use(gateway.wallet);
    } finally {
      gateway.close();
    }
  }

  it("reports a process that ends by itself, and a coordinator that starts again knows its wallets", async () => {
    const created = await withGateway((client) =>
      client.createWallet({ name: "kept", scheme: Scheme.FROST, threshold: 2 }),
    );
    const pid = devnet.pid(devnet.plan.coordinator);
    assert.ok(pid !== undefined);
    process.kill(pid, "SIGKILL");
    for (let attempt = 0; crashes.length === 0 && attempt < 100; attempt++)
      await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(crashes, [devnet.plan.coordinator]);
    await devnet.startCoordinator();
    const { wallets } = await withGateway((client) => client.listWallets({}));
    assert.deepEqual(
      wallets.map(({ walletId }) => walletId),
      [created.wallet?.walletId],
    );
  });

  it("a node refuses to start with another passphrase, says so, and its state is untouched", async () => {
    await devnet.kill("node-3");
    const state = join(folder, "node-3", "data", "state.json");
    const before = await readFile(state);
    const passphraseFile = join(folder, "node-3", "passphrase");
    const passphrase = await readFile(passphraseFile, "utf8");
    await writeFile(passphraseFile, "not the passphrase of this node\n");
    const wrong = spawn(
      process.execPath,
      ["dist/src/cli/main.js", "node", "start", "--config", devnet.paths.nodeConfig("node-3")],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    let said = "";
    wrong.stderr.on("data", (chunk) => {
      said += String(chunk);
    });
    const [code] = await once(wrong, "exit");
    assert.notEqual(code, 0);
    assert.match(said, /passphrase/);
    assert.ok(!said.includes("not the passphrase of this node"), "a passphrase is never printed");
    assert.deepEqual(await readFile(state), before);
    await writeFile(passphraseFile, passphrase);
    await devnet.startNode("node-3");
    assert.equal((await stat(state)).mode & 0o777, 0o600);
  });
});

describe("a node's log at its most talkative", () => {
  it("has no passphrase, key share, identity or ledger key in it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "mpc-wallet-devnet-"));
    const options = { folder, nodes: 2, progress: () => {}, onCrash: (name: string) => assert.fail(name) };
    const plan = await prepareDevnet(options);
    const paths = devnetPaths(folder);
    for (const nodeId of plan.nodes) {
      const file = paths.nodeConfig(nodeId);
      await writeFile(file, `${await readFile(file, "utf8")}\n[logging]\nlevel = "trace"\n`);
    }
    const devnet = await Devnet.start(options);
    try {
      const gateway = await openGateway(await loadClientProfile(paths.clientConfig, { environment: {} }), {
        environment: {},
      });
      for (let attempt = 0; attempt < 200; attempt++) {
        const { healthy, leader } = await gateway.wallet.getHealth({});
        if (healthy && leader !== "") break;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      await gateway.wallet.createWallet({ name: "talked-about", scheme: Scheme.FROST, threshold: 2 });
      gateway.close();
    } finally {
      await devnet.stop();
    }
    for (const nodeId of plan.nodes) {
      const log = await readFile(paths.logFile(nodeId), "utf8");
      assert.match(log, /"level":20/, "the node logs at debug level");
      assert.match(log, /key share kept/);
      const words = (await readFile(join(folder, nodeId, "passphrase"), "utf8")).trim();
      assert.ok(!log.includes(words), "passphrase");
      const passphrase = SecretBytes.copyOf(new TextEncoder().encode(words));
      const store = await KeyStore.open({ folder: join(folder, nodeId, "data"), passphrase }, { random: systemRandom });
      const [wallet] = store.wallets();
      assert.ok(wallet !== undefined);
      const share = decodeKeyShare(wallet.keyShare.reveal());
      const scalar = share.secretShare.toString(16).padStart(64, "0");
      const secrets = { ledgerKey: Buffer.from(store.ledgerKey().reveal()), keyShare: Buffer.from(scalar, "hex") };
      for (const [name, bytes] of Object.entries(secrets)) {
        const forms = [
          bytes.toString("hex"),
          bytes.toString("base64").replace(/=+$/, ""),
          bytes.toString("base64url"),
          BigInt(`0x${bytes.toString("hex")}`).toString(),
          [...bytes.subarray(0, 12)].join(","),
          [...bytes.subarray(0, 8)].map((byte, index) => `"${index}":${byte}`).join(","),
        ];
        for (const form of forms) assert.ok(!log.toLowerCase().includes(form.toLowerCase()), `${nodeId}: ${name}`);
      }
      const configuration = await loadConfiguration(paths.nodeConfig(nodeId), nodeConfigurationSchema);
      const identity = (await readFile(configuration.security.identityKeyFile, "utf8")).split("\n")[1] ?? "";
      assert.equal(identity.length, 64);
      assert.ok(!log.includes(identity), `${nodeId}: identity key`);
      await store.close();
    }
    await rm(folder, { recursive: true, force: true });
  });
});

describe("mpc-wallet devnet", () => {
  it("drains everything at Ctrl-C and exits 0", async () => {
    const folder = await mkdtemp(join(tmpdir(), "mpc-wallet-devnet-"));
    const child = spawn(process.execPath, ["dist/src/cli/main.js", "devnet", "--folder", folder, "--nodes", "2"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    for await (const line of createInterface({ input: child.stdout })) if (line.includes("devnet is up")) break;
    child.kill("SIGINT");
    const [code] = await once(child, "exit");
    assert.equal(code, 0);
    // Ports are free again when every child is gone.
    const plan = JSON.parse(await readFile(join(folder, "devnet.json"), "utf8")) as { readonly esploraPort: number };
    await assert.rejects(fetch(`http://127.0.0.1:${plan.esploraPort}/blocks/tip/height`));
    await rm(folder, { recursive: true, force: true });
  });
});
