import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Unavailable } from "../../../src/crypto/fault.js";
import { createDevelopmentPki } from "../../../src/network/identity/development-pki.js";
import { PkiFolder } from "../../../src/network/identity/pki-folder.js";
import { withPkiLock } from "../../../src/network/identity/pki-lock.js";
import { readPassphraseFile } from "../../../src/network/identity/secret-file.js";
import { context, testRandom } from "./forged-chain.js";

const scratch = mkdtempSync(join(tmpdir(), "mpc-wallet-lock-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folder = "";
let run = 0;
beforeEach(() => {
  run += 1;
  folder = join(scratch, String(run));
});

const script = fileURLToPath(new URL("./pki-lock-holder.js", import.meta.url));
const locks = () => readdirSync(folder).filter((name) => name.startsWith("lock-"));
const quickly = { random: testRandom, patienceMs: 100 };

describe("the lock of a PKI folder", () => {
  it("lets one work at a time, of four processes that count in one file", async () => {
    await withPkiLock(folder, quickly, async () => writeFileSync(join(folder, "counter"), "0"));
    const children = Array.from({ length: 4 }, () => fork(script, [folder, "count", "15"], { execArgv: [] }));
    const codes = await Promise.all(children.map(async (child) => (await once(child, "exit"))[0]));
    assert.deepEqual(codes, [0, 0, 0, 0]);
    assert.equal(readFileSync(join(folder, "counter"), "utf8"), "60");
    assert.equal(locks().length, 1, "old lock files and drafts are tidied up");
  });

  it("says who holds it, and is free at once when the holder was killed", async () => {
    const child = fork(script, [folder, "hold"], { execArgv: [] });
    try {
      await once(child, "message");
      await assert.rejects(
        withPkiLock(folder, quickly, async () => assert.fail("two work in the folder")),
        (error) =>
          error instanceof Unavailable && error.code === "pki-folder-locked" && error.facts["pid"] === child.pid,
      );
    } finally {
      child.kill("SIGKILL");
    }
    await once(child, "exit");
    assert.equal(await withPkiLock(folder, quickly, async () => "worked"), "worked");
  });

  it("is not held by a process of another life, by a damaged file, or after work that failed", async () => {
    await withPkiLock(folder, quickly, async () => {});
    const holder = { pid: process.pid, host: hostname(), startedAt: "1", released: false };
    writeFileSync(join(folder, "lock-7"), JSON.stringify(holder));
    assert.equal(await withPkiLock(folder, quickly, async () => 1), 1, "our number, but started at another time");
    writeFileSync(join(folder, "lock-9"), "");
    assert.equal(await withPkiLock(folder, quickly, async () => 2), 2);
    await assert.rejects(
      withPkiLock(folder, quickly, async () => {
        throw new RangeError("work failed");
      }),
      RangeError,
    );
    assert.equal(await withPkiLock(folder, quickly, async () => 3), 3);
  });

  it("of another machine is never taken for stale", async () => {
    await withPkiLock(folder, quickly, async () => {});
    const holder = { pid: 1, host: `not-${hostname()}`, startedAt: "1", released: false };
    writeFileSync(join(folder, "lock-7"), JSON.stringify(holder));
    await assert.rejects(
      withPkiLock(folder, quickly, async () => {}),
      (error) => error instanceof Unavailable && error.code === "pki-folder-locked",
    );
  });

  it("keeps lists that are published at once apart", async () => {
    const pki = await createDevelopmentPki({ folder, nodeIds: ["node-1"] }, context);
    const passphrase = await readPassphraseFile(pki.passphrasePath);
    const intermediate = await new PkiFolder(folder, context).openIntermediate(passphrase);
    const made = await Promise.all(
      Array.from({ length: 5 }, () => new PkiFolder(folder, context).publishUnder(intermediate)),
    );
    assert.deepEqual(made.map(({ number }) => number).sort(), [2, 3, 4, 5, 6]);
  });
});
