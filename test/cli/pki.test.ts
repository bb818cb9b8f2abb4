import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import { Command, CommanderError } from "commander";
import { addPkiCommands } from "../../src/cli/pki.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import { parseCertificatesPem } from "../../src/network/identity/certificate.js";
import { PeerIdentityVerifier } from "../../src/network/identity/peer-verifier.js";
import { RevocationLists, revocationListFromPem } from "../../src/network/identity/revocation-lists.js";
import { MovableClock, testRandom } from "../network/identity/forged-chain.js";

const ROOT_PASSPHRASE = "root passphrase of the test";
const INTERMEDIATE_PASSPHRASE = "intermediate passphrase of the test";
const isCode = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

const scratch = mkdtempSync(join(tmpdir(), "mpc-wallet-cli-pki-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folder = "";
let run = 0;
beforeEach(() => {
  run += 1;
  folder = join(scratch, String(run));
});

const clock = new MovableClock();

async function pki(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {
    MPC_WALLET_ROOT_PASSPHRASE: ROOT_PASSPHRASE,
    MPC_WALLET_INTERMEDIATE_PASSPHRASE: INTERMEDIATE_PASSPHRASE,
  },
): Promise<string> {
  const lines: string[] = [];
  const program = new Command("mpc-wallet").exitOverride().configureOutput({ writeErr: () => {}, writeOut: () => {} });
  addPkiCommands(program, { clock, random: testRandom, environment, print: (line) => lines.push(line) });
  await program.parseAsync(["pki", ...args], { from: "user" });
  return lines.join("\n");
}

const authority = () => ["--folder", join(folder, "pki")];
const node = (nodeId: string) => join(folder, "nodes", nodeId);

async function initialise(): Promise<void> {
  await pki(["init-root", ...authority()]);
  await pki(["init-intermediate", ...authority()]);
}

async function issueTo(nodeId: string): Promise<string> {
  await pki(["csr", "--node-id", nodeId, "--out", node(nodeId)]);
  const request = join(node(nodeId), "tls-request.pem");
  const printed = await pki(["issue", ...authority(), "--node-id", nodeId, "--request", request, "--json"]);
  return (JSON.parse(printed) as { serialNumber: string }).serialNumber;
}

describe("mpc-wallet pki", () => {
  it("end to end: authorities, request, certificate, revocation, list; the verifier agrees at each step", async () => {
    await initialise();
    const serialNumber = await issueTo("node-1");
    await issueTo("node-2");

    const read = (path: string) => readFileSync(path, "utf8");
    const [root] = parseCertificatesPem(read(join(folder, "pki", "root", "root.pem")));
    const [intermediate] = parseCertificatesPem(read(join(folder, "pki", "intermediate", "intermediate.pem")));
    assert.ok(root && intermediate);
    const revocations = new RevocationLists({ authorities: [root, intermediate] });
    const readList = () =>
      revocations.accept(
        revocationListFromPem(read(join(folder, "pki", "intermediate", "revocations.pem"))),
        clock.nowMs(),
      );
    assert.deepEqual(readList(), { ok: true, number: 1 });
    const roster = new Set(["node-1", "node-2"]);
    const verifier = new PeerIdentityVerifier({ roots: [root.der], roster, revocations }, { clock });
    const verify = (nodeId: string) => {
      const chain = parseCertificatesPem(read(join(node(nodeId), "tls-chain.pem"))).map(({ der }) => der);
      const verdict = verifier.verify(chain, nodeId);
      return verdict.ok ? verdict.nodeId : verdict.reason;
    };
    assert.deepEqual([verify("node-1"), verify("node-2")], ["node-1", "node-2"]);

    await pki(["revoke", ...authority(), "--serial", serialNumber.toUpperCase(), "--reason", "key-compromise"]);
    assert.deepEqual(readList(), { ok: true, number: 2 });
    assert.deepEqual([verify("node-1"), verify("node-2")], ["revoked", "node-2"]);
    await pki(["revoke", ...authority(), "--node-id", "node-2"]);
    assert.match(await pki(["crl", ...authority()]), /^list 4: /);
    assert.deepEqual(readList(), { ok: true, number: 4 });
    assert.equal(verify("node-2"), "revoked");

    const listed = await pki(["list", ...authority()]);
    assert.match(listed, new RegExp(`node-1  ${serialNumber}  until .* {2}revoked \\(key-compromise\\)`));
    assert.match(listed, /node-2 .* revoked \(unspecified\)/);
    const shown = JSON.parse(await pki(["show", join(node("node-1"), "tls-chain.pem"), "--json"])) as {
      certificates: { nodeId?: string; role: string }[];
    };
    assert.deepEqual(
      shown.certificates.map(({ nodeId, role }) => [nodeId, role]),
      [
        ["node-1", "node"],
        [undefined, "authority"],
      ],
    );
    assert.match(await pki(["show", join(folder, "pki", "root", "root.pem")]), /^subject +mpc-wallet root$/m);
  });

  it("renews by hand: a fresh key, the same node, both certificates listed; nothing without a present one", async () => {
    await initialise();
    const first = await issueTo("node-1");
    const renew = (nodeId: string) =>
      pki(["renew", ...authority(), "--node-id", nodeId, "--node-folder", node(nodeId), "--json"]);
    const keyPath = join(node("node-1"), "tls-key.pem");
    const oldKey = readFileSync(keyPath, "utf8");
    const { serialNumber } = JSON.parse(await renew("node-1")) as { serialNumber: string };
    assert.notEqual(serialNumber, first);
    assert.notEqual(readFileSync(keyPath, "utf8"), oldKey);
    assert.equal(statSync(keyPath).mode & 0o777, 0o600);
    const [leaf] = parseCertificatesPem(readFileSync(join(node("node-1"), "tls-chain.pem"), "utf8"));
    assert.equal(leaf?.serialNumber, serialNumber);
    const listed = await pki(["list", ...authority()]);
    for (const serial of [first, serialNumber]) assert.match(listed, new RegExp(serial));
    await assert.rejects(renew("node-2"), isCode("file-missing"));
  });

  it("the running system never needs the root key", async () => {
    await initialise();
    rmSync(join(folder, "pki", "root"), { recursive: true });
    await issueTo("node-1");
    await pki(["revoke", ...authority(), "--node-id", "node-1"]);
    await assert.rejects(pki(["init-root", ...authority()], {}), isCode("passphrase-missing"));
  });

  it("a stolen intermediate: revoked by the root with all below it, replaced at once", async () => {
    await initialise();
    await issueTo("node-1");
    const authorityFile = (...names: string[]) => join(folder, "pki", ...names);
    const readPem = (path: string) => parseCertificatesPem(readFileSync(path, "utf8"));
    const [old] = readPem(authorityFile("intermediate", "intermediate.pem"));
    assert.ok(old);
    const oldList = revocationListFromPem(readFileSync(authorityFile("intermediate", "revocations.pem"), "utf8"));
    const printed = await pki(["revoke-intermediate", ...authority(), "--reason", "key-compromise"]);
    assert.match(printed, /pki init-intermediate/);
    await pki(["init-intermediate", ...authority(), "--name", "mpc-wallet intermediate 2"]);
    await pki(["csr", "--node-id", "node-1", "--out", join(node("node-1"), "next")]);
    const request = join(node("node-1"), "next", "tls-request.pem");
    await pki(["issue", ...authority(), "--node-id", "node-1", "--request", request]);

    const [root] = readPem(authorityFile("root", "root.pem"));
    const [next] = readPem(authorityFile("intermediate", "intermediate.pem"));
    assert.ok(root && next);
    const revocations = new RevocationLists({ authorities: [root, old, next] });
    const rootList = revocationListFromPem(readFileSync(authorityFile("root", "root-revocations.pem"), "utf8"));
    const nextList = revocationListFromPem(readFileSync(authorityFile("intermediate", "revocations.pem"), "utf8"));
    for (const list of [oldList, nextList, rootList]) assert.equal(revocations.accept(list, clock.nowMs()).ok, true);
    const roster = new Set(["node-1"]);
    const verifier = new PeerIdentityVerifier({ roots: [root.der], roster, revocations }, { clock });
    const chain = (...names: string[]) => readPem(join(node("node-1"), ...names)).map(({ der }) => der);
    assert.deepEqual(verifier.verify(chain("tls-chain.pem"), "node-1"), { ok: false, reason: "revoked" });
    assert.equal(verifier.verify(chain("next", "tls-chain.pem"), "node-1").ok, true);
  });

  it("prints no secret and leaves no secret readable by others", async () => {
    const printed = [
      await pki(["init-root", ...authority()]),
      await pki(["init-intermediate", ...authority(), "--json"]),
      await pki(["csr", "--node-id", "node-1", "--out", node("node-1")]),
      await pki(["identity", "--node-id", "node-1", "--out", node("node-1")]),
    ].join("\n");
    for (const secret of ["PRIVATE", ROOT_PASSPHRASE, INTERMEDIATE_PASSPHRASE]) assert.ok(!printed.includes(secret));
    assert.match(printed, /identityKey = "[0-9a-f]{64}"/);
    const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => join(folder, name));
    for (const path of files) {
      const { mode } = statSync(path);
      if (statSync(path).isDirectory()) assert.equal(mode & 0o077, 0, path);
      else if (readFileSync(path, "utf8").includes("PRIVATE")) assert.equal(mode & 0o777, 0o600, path);
    }
    const register = readFileSync(join(folder, "pki", "register.jsonl"), "utf8");
    assert.ok(!register.includes(ROOT_PASSPHRASE) && !register.includes(INTERMEDIATE_PASSPHRASE));
  });

  it("takes passphrases from a 0600 file; refuses one that others may read", async () => {
    const path = join(scratch, `passphrase-${run}`);
    writeFileSync(path, "a passphrase from a file\nsecond line\n", { mode: 0o600 });
    await pki(["init-root", ...authority(), "--passphrase-file", path], {});
    await pki(["init-intermediate", ...authority(), "--root-passphrase-file", path, "--passphrase-env", "OTHER"], {
      OTHER: "an intermediate passphrase",
    });
    chmodSync(path, 0o644);
    await assert.rejects(
      pki(["init-root", "--folder", join(folder, "b"), "--passphrase-file", path], {}),
      isCode("secret-readable-by-others"),
    );
    await assert.rejects(
      pki(["init-root", "--folder", join(folder, "b"), "--passphrase-file", `${path}-missing`], {}),
      isCode("file-missing"),
    );
  });

  it("overwrites nothing", async () => {
    await initialise();
    await issueTo("node-1");
    const before = snapshot();
    await assert.rejects(pki(["init-root", ...authority()]), isCode("file-exists"));
    await assert.rejects(pki(["init-intermediate", ...authority()]), isCode("file-exists"));
    await assert.rejects(pki(["csr", "--node-id", "node-1", "--out", node("node-1")]), isCode("file-exists"));
    const request = join(node("node-1"), "tls-request.pem");
    const again = ["issue", ...authority(), "--node-id", "node-1", "--request", request];
    await assert.rejects(pki(again), isCode("file-exists"));
    assert.deepEqual(snapshot(), before);
    await pki([...again, "--out", join(node("node-1"), "next-chain.pem"), "--days", "30"]);
  });

  it("says what to do next when a step is missing or wrong", async () => {
    await assert.rejects(pki(["init-intermediate", ...authority()]), /pki init-root/);
    await assert.rejects(pki(["init-root", ...authority()], {}), /MPC_WALLET_ROOT_PASSPHRASE/);
    await assert.rejects(
      pki(["init-root", ...authority()], { MPC_WALLET_ROOT_PASSPHRASE: "short" }),
      isCode("short-passphrase"),
    );
    assert.equal(existsSync(join(folder, "pki", "root", "root-key.pem")), false);
    await pki(["init-root", ...authority()]);
    await pki(["csr", "--node-id", "node-1", "--out", node("node-1")]);
    const request = join(node("node-1"), "tls-request.pem");
    const issue = (nodeId: string, path = request) => ["issue", ...authority(), "--node-id", nodeId, "--request", path];
    await assert.rejects(pki(issue("node-1")), /pki init-intermediate/);
    await assert.rejects(
      pki(["init-intermediate", ...authority()], {
        MPC_WALLET_ROOT_PASSPHRASE: "not the passphrase",
        MPC_WALLET_INTERMEDIATE_PASSPHRASE: INTERMEDIATE_PASSPHRASE,
      }),
      isCode("wrong-passphrase"),
    );
    await pki(["init-intermediate", ...authority()]);
    await assert.rejects(pki(issue("node-2")), /the request is for node-1, not for node-2/);
    await assert.rejects(pki(issue("node-1", join(folder, "none.pem"))), isCode("file-missing"));
    await assert.rejects(pki(issue("node-1", join(folder, "pki", "root", "root.pem"))), isCode("request-refused"));
    await assert.rejects(pki(["revoke", ...authority(), "--node-id", "node-7"]), /pki list/);
    await assert.rejects(pki(["revoke", ...authority()]), isCode("nothing-to-revoke"));
    for (const days of ["0", "91", "1.5", "x"]) {
      await assert.rejects(pki([...issue("node-1"), "--days", days]), (error) => error instanceof CommanderError);
    }
    await assert.rejects(pki(["csr", "--node-id", "Node 1"]), (error) => error instanceof CommanderError);
    assert.equal(await pki(["list", ...authority()]), "no certificate issued yet");
  });

  it("a damaged register is named by its line", async () => {
    await initialise();
    const path = join(folder, "pki", "register.jsonl");
    writeFileSync(path, `${readFileSync(path, "utf8")}{"kind":"iss`);
    await assert.rejects(
      pki(["list", ...authority()]),
      (error) => isCode("bad-register")(error) && /line 3/.test(String(error)),
    );
  });
});

function snapshot(): Record<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" })
    // Each command takes the lock of the folder and leaves a mark that it gave it back.
    .filter((name) => !/^lock-\d+$/.test(basename(name)))
    .map((name) => join(folder, name));
  return Object.fromEntries(
    names.filter((name) => statSync(name).isFile()).map((name) => [name, readFileSync(name, "utf8")]),
  );
}
