import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, type FSWatcher, readdirSync, readFileSync, watch, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { keepMemoryOutOfCoreDumps } from "../../src/node/core-dumps.js";
import type { Logger } from "../../src/node/log.js";
import { rotatePassphrase } from "../../src/node/passphrase-rotation.js";
import { KeyStore } from "../../src/storage/key-store.js";
import { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import { passphrase, scratchFolder, TEST_COST } from "../storage/scratch.js";

const OLD = "ponies of last year";
const NEW = "herons of this year";
const random = systemRandom;
const code = (expected: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === expected;
const open = (folder: string, words: string) =>
  KeyStore.open({ folder, passphrase: passphrase(words), cost: TEST_COST }, { random });
const rotate = (folder: string, from: string, to: string) =>
  rotatePassphrase({ folder, current: passphrase(from), next: passphrase(to), cost: TEST_COST }, { random });

/** A node's folder with a stock of primes, and a ledger with an item. */
async function nodeFolder(cost = TEST_COST): Promise<string> {
  const folder = scratchFolder();
  const store = await KeyStore.create({ folder, nodeId: "node-1", passphrase: passphrase(OLD), cost }, { random });
  await store.putSecret("aux-primes/security112/1", SecretBytes.copyOf(new Uint8Array(300_000).fill(3)));
  const ledger = await OneUseLedger.open(
    { folder: join(folder, "ledger"), key: store.ledgerKey() },
    { clock: systemClock, random },
  );
  await ledger.put([
    {
      kind: "presignature",
      id: "waiting",
      walletId: "treasury",
      walletEpoch: 0,
      signers: ["node-1"],
      createdAtMs: 1,
      secret: SecretBytes.copyOf(Uint8Array.of(1)),
    },
  ]);
  await ledger.close();
  await store.close();
  return folder;
}

/** Everything that was sealed is still there. */
async function checkContent(store: KeyStore, folder: string): Promise<void> {
  assert.equal(store.secret("aux-primes/security112/1")?.length, 300_000);
  const ledger = await OneUseLedger.open(
    { folder: join(folder, "ledger"), key: store.ledgerKey() },
    { clock: systemClock, random },
  );
  assert.equal(ledger.damage, undefined);
  assert.equal(ledger.items().length, 1);
  await ledger.close();
}

describe("rotation of a node's passphrase", () => {
  it("seals everything under the new one: the old one opens nothing any more, the ledger's key stays", async () => {
    const folder = await nodeFolder();
    assert.deepEqual(await rotate(folder, OLD, NEW), { nodeId: "node-1", changed: true });
    await assert.rejects(open(folder, OLD), code("wrong-passphrase"));
    const store = await open(folder, NEW);
    await checkContent(store, folder);
    await store.close();
  });

  it("finishes what an interrupted run had done, and refuses what is no rotation", async () => {
    const folder = await nodeFolder();
    await rotate(folder, OLD, NEW);
    assert.deepEqual(await rotate(folder, OLD, NEW), { nodeId: "node-1", changed: false });
    const before = readFileSync(join(folder, "state.json"));
    await assert.rejects(rotate(folder, NEW, NEW), code("passphrase-unchanged"));
    await assert.rejects(rotate(folder, OLD, "a third passphrase"), code("wrong-passphrase"));
    await assert.rejects(rotate(scratchFolder(), OLD, NEW), code("state-missing"));
    const running = await open(folder, NEW);
    await assert.rejects(rotate(folder, NEW, OLD), code("folder-locked"));
    await running.close();
    assert.deepEqual(readFileSync(join(folder, "state.json")), before);
  });

  it("killed in 20 rotations, exactly one of the two opens the state, and nothing is lost", {
    timeout: 120_000,
  }, async () => {
    const folder = await nodeFolder();
    const script = fileURLToPath(new URL("passphrase-rotator.js", import.meta.url));
    let current = OLD;
    let interrupted = 0;
    for (let round = 0; round < 20; round++) {
      const child = spawn(process.execPath, [script, folder, current, current === OLD ? NEW : OLD], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      // Once a rotation is done, at some moment of one of the next: right when it writes, or anywhere.
      const kill = () => void setTimeout(() => child.kill("SIGKILL"), Math.random() * 4);
      let watcher: FSWatcher | undefined;
      child.stdout.once("data", () => {
        if (round % 4 === 0) setTimeout(kill, Math.random() * 60);
        else watcher = watch(folder, (_, name) => void (name === "state.json.new" && kill()));
      });
      await once(child, "close");
      watcher?.close();
      if (readdirSync(folder).includes("state.json.new")) interrupted++;
      const outcomes = [];
      for (const words of [OLD, NEW]) {
        try {
          const store = await open(folder, words);
          await checkContent(store, folder);
          await store.close();
          outcomes.push(words);
        } catch (error) {
          assert.ok(code("wrong-passphrase")(error), String(error));
        }
      }
      assert.equal(outcomes.length, 1, `round ${round}`);
      current = outcomes[0] ?? "";
    }
    assert.ok(interrupted > 0, "no kill hit a write: the test proves nothing");
  });
});

describe("mpc-wallet node rotate-passphrase", () => {
  const MAIN = resolve("dist/src/cli/main.js");
  const run = async (args: readonly string[], environment: Record<string, string>) => {
    const child = spawn(process.execPath, [MAIN, "node", "rotate-passphrase", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH: process.env["PATH"] ?? "", ...environment },
    });
    let [out, said] = ["", ""];
    child.stdout.on("data", (chunk) => {
      out += String(chunk);
    });
    child.stderr.on("data", (chunk) => {
      said += String(chunk);
    });
    const [exit] = await once(child, "close");
    assert.ok(!`${out}${said}`.includes(OLD) && !`${out}${said}`.includes(NEW), "a passphrase is never printed");
    return { exit: exit as number, out, said };
  };
  /** The real cost of a guess: this is the program as it is shipped. */
  const prepared = async (passphraseFile: string | undefined): Promise<{ folder: string; config: string }> => {
    const folder = await nodeFolder({ memoryKib: 19 * 1024, passes: 2, lanes: 1 });
    const config = join(folder, "node.toml");
    const member = (nodeId: string, role: string, fill: string) =>
      `[[network.roster]]\nnodeId = "${nodeId}"\nrole = "${role}"\nhost = "h"\nport = 1\nidentityKey = "${fill.repeat(32)}"\n`;
    const files = ["rootCertificate", "intermediateCertificate", "certificate", "privateKey", "identityKey"];
    writeFileSync(
      config,
      `[node]\nid = "node-1"\ndataFolder = "."\n[network]\nlistenPort = 1\n${member("node-1", "node", "ab")}${member("c", "coordinator", "cd")}[security]\n${files
        .map((name) => `${name}File = "x"\n`)
        .join("")}[[security.authorities]]\nname = "a"\npublicKey = "${"ab".repeat(32)}"\n[storage]\n${
        passphraseFile === undefined ? "" : `passphraseFile = "${passphraseFile}"\n`
      }[bitcoin]\nnetwork = "regtest"\nesploraUrl = "http://127.0.0.1:1"\n`,
    );
    return { folder, config };
  };

  it("finds the present one in the environment, the configured file and systemd's credential", async () => {
    const credentials = scratchFolder();
    writeFileSync(join(credentials, "state-encryption-key"), `${OLD}\n`, { mode: 0o600 });
    const sources: readonly (readonly [string | undefined, Record<string, string>])[] = [
      [undefined, { STATE_ENCRYPTION_KEY: OLD }],
      [undefined, { STATE_ENCRYPTION_KEY_FILE: join(credentials, "state-encryption-key") }],
      [join(credentials, "state-encryption-key"), {}],
      [undefined, { CREDENTIALS_DIRECTORY: credentials }],
    ];
    for (const [passphraseFile, environment] of sources) {
      const { folder, config } = await prepared(passphraseFile);
      const { exit, out, said } = await run(["--config", config], { ...environment, NEW_STATE_ENCRYPTION_KEY: NEW });
      assert.equal(exit, 0, said);
      assert.deepEqual(JSON.parse(out), { event: "passphrase-rotated", nodeId: "node-1", changed: true });
      const store = await KeyStore.open({ folder, passphrase: passphrase(NEW) }, { random });
      await checkContent(store, folder);
      await store.close();
    }
  });

  it("takes the new one from a file, and says what is missing or wrong", async () => {
    const { folder, config } = await prepared(undefined);
    const credentials = scratchFolder();
    writeFileSync(join(credentials, "state-encryption-key"), NEW, { mode: 0o600 });
    const missing = await run(["--config", config], {
      STATE_ENCRYPTION_KEY: OLD,
      CREDENTIALS_DIRECTORY: credentials,
    });
    assert.equal(missing.exit, 1, "the credential is not taken for the new passphrase");
    assert.match(missing.said, /NEW_STATE_ENCRYPTION_KEY/);
    const wrong = await run(["--config", config], {
      STATE_ENCRYPTION_KEY: "neither of the two",
      NEW_STATE_ENCRYPTION_KEY: NEW,
    });
    assert.equal(wrong.exit, 1);
    assert.match(wrong.said, /does not open/);
    const file = join(credentials, "state-encryption-key");
    const { exit, said } = await run(["--config", config, "--new-passphrase-file", file], {
      STATE_ENCRYPTION_KEY: OLD,
    });
    assert.equal(exit, 0, said);
    await (await KeyStore.open({ folder, passphrase: passphrase(NEW) }, { random })).close();
  });
});

describe("core dumps", () => {
  const SECRET_FILL = 0x5d;
  const script = fileURLToPath(new URL("../../src/node/core-dumps.js", import.meta.url));
  const logModule = fileURLToPath(new URL("../../src/node/log.js", import.meta.url));
  /** Runs a process that holds 4 KiB of a pattern and dies; undefined when this system writes no core file here. */
  const coreOf = async (guarded: boolean): Promise<Buffer | undefined> => {
    const folder = scratchFolder();
    const guard = guarded
      ? `const { keepMemoryOutOfCoreDumps } = await import(${JSON.stringify(script)});
         const { processLog } = await import(${JSON.stringify(logModule)});
         keepMemoryOutOfCoreDumps(processLog({ name: "t", level: "warn" }));`
      : "";
    const body = `${guard} globalThis.share = Buffer.alloc(4096, ${SECRET_FILL}); process.abort();`;
    const child = spawn(
      "sh",
      ["-c", 'ulimit -c unlimited && exec "$0" --input-type=module -e "$1"', process.execPath, body],
      {
        cwd: folder,
        stdio: "ignore",
      },
    );
    await once(child, "close");
    const name = readdirSync(folder).find((entry) => entry.startsWith("core"));
    return name === undefined ? undefined : readFileSync(join(folder, name));
  };

  it("hold none of the process's memory", async (context) => {
    const pattern = Buffer.alloc(4096, SECRET_FILL);
    const unguarded = await coreOf(false);
    if (unguarded?.includes(pattern) !== true) {
      context.skip("this system writes no core file into the working folder");
      return;
    }
    const guarded = await coreOf(true);
    assert.equal(guarded?.includes(pattern) ?? false, false);
  });

  it("are warned of where the process cannot say so", () => {
    const said: unknown[] = [];
    const log = { warn: (facts: unknown) => said.push(facts) } as unknown as Logger;
    keepMemoryOutOfCoreDumps(log, join(scratchFolder(), "missing", "coredump_filter"));
    assert.deepEqual(said, [{ event: "core-dumps-possible" }]);
    if (existsSync("/proc/self/coredump_filter")) {
      keepMemoryOutOfCoreDumps(log);
      assert.equal(said.length, 1);
      assert.match(readFileSync("/proc/self/coredump_filter", "utf8"), /^0+\n$/);
    }
  });
});
