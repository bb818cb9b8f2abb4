import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { systemRandom } from "../../src/node/ambient.js";
import { KeyStore, type StoredWallet } from "../../src/storage/key-store.js";
import { readPassphrase } from "../../src/storage/passphrase.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import { passphrase, scratchFolder, TEST_COST } from "./scratch.js";

const random = systemRandom;
const code = (expected: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === expected;
const options = (folder: string, words?: string) => ({ folder, passphrase: passphrase(words), cost: TEST_COST });
const newStore = (folder: string) => KeyStore.create({ ...options(folder), nodeId: "node-1" }, { random });

function wallet(fields: Partial<StoredWallet> = {}): StoredWallet {
  return {
    walletId: "treasury",
    scheme: "cggmp24",
    threshold: 2,
    parties: ["node-1", "node-2", "node-3"],
    epoch: 1,
    keyShare: SecretBytes.copyOf(Buffer.from("share-of-the-key")),
    publicKeyPackage: Uint8Array.of(2, 3),
    chainCode: new Uint8Array(32).fill(7),
    auxInfo: SecretBytes.copyOf(Buffer.from("paillier-factors")),
    epochId: new Uint8Array(32).fill(5),
    nextExternalIndex: 0,
    nextChangeIndex: 0,
    createdAtMs: 1_750_000_000_000,
    ...fields,
  };
}

describe("key store", () => {
  it("keeps wallets and secrets across a restart", async () => {
    const folder = scratchFolder();
    const store = await newStore(folder);
    await store.putWallet(wallet());
    await store.putSecret("identity-key", SecretBytes.copyOf(Buffer.from("ed25519 seed")));
    const ledgerKey = store.ledgerKey();
    await store.close();

    const again = await KeyStore.open(options(folder), { random });
    assert.equal(again.nodeId, "node-1");
    assert.equal(again.formerHolder, undefined);
    assert.ok(again.ledgerKey().equals(ledgerKey));
    const found = again.wallet("treasury");
    assert.ok(found);
    assert.ok(found.keyShare.equals(SecretBytes.copyOf(Buffer.from("share-of-the-key"))));
    assert.deepEqual({ ...found, keyShare: 0, auxInfo: 0 }, { ...wallet(), keyShare: 0, auxInfo: 0 });
    assert.equal(Buffer.from(again.secret("identity-key")?.reveal() ?? []).toString(), "ed25519 seed");
    assert.equal(again.secret("constructor"), undefined);
    await again.close();
  });

  it("writes nothing in the clear, readable by the owner only", async () => {
    const folder = scratchFolder();
    const store = await newStore(folder);
    await store.putWallet(wallet());
    const path = join(folder, "state.json");
    const text = readFileSync(path);
    for (const secret of ["share-of-the-key", "paillier-factors", "treasury"]) assert.ok(!text.includes(secret));
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.doesNotMatch(inspect(store, { depth: 9 }) + inspect(store.wallet("treasury"), { depth: 9 }), /115, 104/);
    await store.close();
  });

  it("a wrong passphrase changes nothing", async () => {
    const folder = scratchFolder();
    await (await newStore(folder)).close();
    const before = readFileSync(join(folder, "state.json"));
    await assert.rejects(KeyStore.open(options(folder, "not the passphrase"), { random }), code("wrong-passphrase"));
    assert.deepEqual(readFileSync(join(folder, "state.json")), before);
    await (await KeyStore.open(options(folder), { random })).close();
  });

  it("creates once and opens only what exists", async () => {
    const folder = scratchFolder();
    await assert.rejects(KeyStore.open(options(folder), { random }), code("state-missing"));
    await (await newStore(folder)).close();
    await assert.rejects(newStore(folder), code("state-exists"));
  });

  it("keeps a second opener out, with the pid of the first", async () => {
    const folder = scratchFolder();
    const store = await newStore(folder);
    await assert.rejects(KeyStore.open(options(folder), { random }), (error) => {
      assert.ok(error instanceof Unavailable);
      assert.equal(error.code, "folder-locked");
      assert.equal(error.facts["pid"], process.pid);
      return true;
    });
    await store.close();
  });

  it("rotates the passphrase", async () => {
    const folder = scratchFolder();
    const store = await newStore(folder);
    await store.putWallet(wallet());
    await store.rekey(passphrase("a new passphrase"));
    await store.putSecret("after", SecretBytes.copyOf(Uint8Array.of(1)));
    await store.close();
    await assert.rejects(KeyStore.open(options(folder), { random }), code("wrong-passphrase"));
    const again = await KeyStore.open(options(folder, "a new passphrase"), { random });
    assert.ok(again.wallet("treasury") !== undefined && again.secret("after") !== undefined);
    await again.close();
  });

  it("hands out each address index once, also to concurrent callers and after a refresh", async () => {
    const folder = scratchFolder();
    const store = await newStore(folder);
    await store.putWallet(wallet());
    const indices = await Promise.all(Array.from({ length: 8 }, () => store.nextAddressIndex("treasury", "external")));
    assert.deepEqual(
      indices.sort((a, b) => a - b),
      [0, 1, 2, 3, 4, 5, 6, 7],
    );
    await store.putWallet(wallet({ epoch: 2 }));
    assert.equal(await store.nextAddressIndex("treasury", "external"), 8);
    assert.equal(await store.nextAddressIndex("treasury", "change"), 0);
    await assert.rejects(store.nextAddressIndex("unknown", "change"), code("wallet-unknown"));
    await assert.rejects(store.putWallet(wallet({ epoch: 1 })), code("wallet-epoch"));
    await store.close();
  });

  it("refuses wallets that cannot be", async () => {
    const store = await newStore(scratchFolder());
    const wrong: Partial<StoredWallet>[] = [
      { threshold: 0 },
      { threshold: 4 },
      { parties: [] },
      { parties: ["a", "a"] },
      { epoch: -1 },
      { chainCode: new Uint8Array(31) },
      { keyShare: SecretBytes.copyOf(new Uint8Array(0)) },
      { nextChangeIndex: 2 ** 32 },
    ];
    for (const fields of wrong) await assert.rejects(store.putWallet(wallet(fields)), code("wallet-invalid"));
    await assert.rejects(store.putWallet(wallet({ walletId: "a b" })), code("name-invalid"));
    await assert.rejects(store.putSecret("__proto__", passphrase()), code("name-invalid"));
    assert.equal(store.revision, 1n);
    await store.close();
  });

  it("a write that fails changes nothing and the next one works", async () => {
    const folder = scratchFolder();
    const store = await newStore(folder);
    mkdirSync(join(folder, "state.json.new")); // the temporary file's name is taken by a folder
    await assert.rejects(store.putWallet(wallet()), code("write-failed"));
    assert.equal(store.wallet("treasury"), undefined);
    assert.equal(store.revision, 1n);
    const { rmdirSync } = await import("node:fs");
    rmdirSync(join(folder, "state.json.new"));
    await store.putWallet(wallet());
    await store.close();
  });

  it("a damaged file is refused and left as it is", async () => {
    const folder = scratchFolder();
    await (await newStore(folder)).close();
    const path = join(folder, "state.json");
    const text = readFileSync(path, "utf8");
    writeFileSync(path, text.slice(0, text.length / 2));
    await assert.rejects(KeyStore.open(options(folder), { random }), code("envelope-corrupted"));
    assert.equal(readFileSync(path, "utf8").length, Math.floor(text.length / 2));
  });

  it("killed 40 times, every other time in a write, it always opens, with the old or the new state", async () => {
    const folder = scratchFolder();
    const store = await newStore(folder);
    await store.putWallet(wallet());
    let written = store.revision;
    await store.close();
    let interrupted = 0;
    for (let round = 0; round < 40; round++) {
      written = await killWhileWriting(folder, { before: written, when: round % 2 === 0 ? "any time" : "in a write" });
      if (readdirSync(folder).includes("state.json.new")) interrupted++;
      const opened = await KeyStore.open(options(folder), { random });
      assert.equal(opened.formerHolder !== undefined, true, "the killed holder is noticed");
      assert.ok(opened.revision === written || opened.revision === written + 1n, "the old or the new state");
      assert.ok(opened.wallet("treasury"));
      assert.ok(!readdirSync(folder).includes("state.json.new"));
      written = opened.revision;
      await opened.close();
    }
    assert.ok(interrupted >= 5, `${interrupted} kills hit a write: the test proves little`);
  });
});

/** Returns the last revision that the child reported as written. */
async function killWhileWriting(
  folder: string,
  { before, when }: { readonly before: bigint; readonly when: "any time" | "in a write" },
): Promise<bigint> {
  const script = fileURLToPath(new URL("key-store-writer.js", import.meta.url));
  const child: ChildProcess = spawn(process.execPath, [script, folder], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  const killInWrite = (): void => {
    if (child.exitCode !== null) return;
    if (readdirSync(folder).includes("state.json.new")) child.kill("SIGKILL");
    else setImmediate(killInWrite);
  };
  child.stdout?.on("data", (chunk: Buffer) => {
    if (output === "" && when === "in a write") killInWrite();
    else if (output === "") setTimeout(() => child.kill("SIGKILL"), Math.random() * 60);
    output += chunk.toString();
  });
  await once(child, "close");
  const lines = output.split("\n").slice(0, -1);
  return BigInt(lines.at(-1) ?? before);
}

describe("passphrase", () => {
  it("comes from the variable, a file or systemd's credential", () => {
    const folder = scratchFolder();
    const file = join(folder, "state-encryption-key");
    writeFileSync(file, "from a mounted file\n");
    const text = (secret: SecretBytes) => Buffer.from(secret.reveal()).toString();
    assert.equal(text(readPassphrase({ STATE_ENCRYPTION_KEY: "from the variable" })), "from the variable");
    assert.equal(text(readPassphrase({ STATE_ENCRYPTION_KEY_FILE: file })), "from a mounted file");
    assert.equal(text(readPassphrase({ CREDENTIALS_DIRECTORY: folder })), "from a mounted file");
    assert.equal(text(readPassphrase({ STATE_ENCRYPTION_KEY: "from the variable" }, { file })), "from a mounted file");
  });

  it("is refused when missing, unreadable, too short or too long", () => {
    assert.throws(() => readPassphrase({}), code("passphrase-missing"));
    assert.throws(() => readPassphrase({ STATE_ENCRYPTION_KEY_FILE: "/nowhere" }), code("passphrase-unreadable"));
    assert.throws(() => readPassphrase({ STATE_ENCRYPTION_KEY: "x".repeat(11) }), code("passphrase-length"));
    assert.throws(() => readPassphrase({ STATE_ENCRYPTION_KEY: "x".repeat(1025) }), code("passphrase-length"));
    assert.equal(readPassphrase({ STATE_ENCRYPTION_KEY: "x".repeat(12) }).length, 12);
  });
});
