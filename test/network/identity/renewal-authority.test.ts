import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Clock } from "../../../src/crypto/ambient.js";
import { InvalidInput } from "../../../src/crypto/fault.js";
import { parseCertificate, parseCertificatesPem } from "../../../src/network/identity/certificate.js";
import { generateCertificateKey } from "../../../src/network/identity/certificate-authority.js";
import { createCertificateRequest, MAX_REQUEST_BYTES } from "../../../src/network/identity/certificate-request.js";
import { createDevelopmentPki, type DevelopmentPki } from "../../../src/network/identity/development-pki.js";
import { PkiFolder } from "../../../src/network/identity/pki-folder.js";
import { RenewalAuthority } from "../../../src/network/identity/renewal-authority.js";
import { readPassphraseFile, readText } from "../../../src/network/identity/secret-file.js";
import { TrustFiles } from "../../../src/network/identity/trust-files.js";
import { DAY_MS, MovableClock, testRandom } from "./forged-chain.js";

const roster = new Set(["node-1", "node-2", "node-3", "node-4"]);
const moved = new MovableClock();
const clock: Clock = { nowMs: () => moved.timeMs, monotonicMs: () => moved.timeMs, after: () => () => {} };
const context = { clock, random: testRandom };

let scratch: string;
let pki: DevelopmentPki;
let passphrase: string;
let trust: TrustFiles;
let authority: RenewalAuthority;

const loadTrust = () =>
  TrustFiles.load(
    {
      rootPath: pki.paths.rootCertificate,
      intermediatePath: pki.paths.intermediateCertificate,
      revocationListPaths: [pki.paths.revocationList],
      roster,
    },
    { clock },
  );

async function chainOf(nodeId: string): Promise<readonly Uint8Array[]> {
  const path = pki.nodes.find((node) => node.nodeId === nodeId)?.tlsChainPath ?? "";
  return parseCertificatesPem(await readText(path, "the chain")).map(({ der }) => der);
}

const requestOf = async (nodeId: string) => createCertificateRequest(nodeId, await generateCertificateKey("P-256"));

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), "mpc-wallet-authority-"));
  pki = await createDevelopmentPki({ folder: join(scratch, "pki"), nodeIds: [...roster, "stranger"] }, context);
  passphrase = await readPassphraseFile(pki.passphrasePath);
  trust = await loadTrust();
  const options = { folder: pki.paths.folder, passphrase };
  authority = await RenewalAuthority.open(options, { ...context, trust, log: () => {} });
});
after(() => rmSync(scratch, { recursive: true, force: true }));

describe("the online intermediate", () => {
  it("renews the node that is connected, and enters the certificate into the register", async () => {
    const chainDer = await chainOf("node-1");
    const answer = await authority.renew({ nodeId: "node-1", chainDer, requestDer: await requestOf("node-1") });
    assert.ok(answer.ok);
    assert.equal(trust.verifier.verify(answer.chainDer, "node-1").ok, true);
    const leaf = parseCertificate(answer.chainDer[0] ?? new Uint8Array());
    assert.equal(leaf?.notAfterMs, Math.floor(clock.nowMs() / 1000) * 1000 + 90 * DAY_MS);
    const listed = await new PkiFolder(pki.paths.folder, context).list();
    assert.ok(listed.some(({ serialNumber }) => serialNumber === leaf?.serialNumber));
  });

  it("refuses another node's id, a key that had a certificate, garbage, and what is too large", async () => {
    const chainDer = await chainOf("node-2");
    const ask = async (requestDer: Uint8Array, nodeId = "node-2") => {
      // Attempts are bounded; each of these has a minute to itself.
      moved.timeMs += 60_000;
      const answer = await authority.renew({ nodeId, chainDer, requestDer });
      return answer.ok ? "granted" : answer.reason;
    };
    const before = (await new PkiFolder(pki.paths.folder, context).list()).length;
    assert.equal(await ask(await requestOf("node-1")), "another-node");
    assert.equal(await ask(await requestOf("node-1"), "node-1"), "unexpected-node");
    assert.equal(await ask(new Uint8Array(300).fill(0x30)), "malformed");
    assert.equal(await ask(new Uint8Array()), "malformed");
    assert.equal(await ask(new Uint8Array(MAX_REQUEST_BYTES + 1)), "oversized");
    const changed = await requestOf("node-2");
    changed[changed.length - 3] = (changed[changed.length - 3] ?? 0) ^ 1;
    assert.equal(await ask(changed), "bad-signature");
    assert.equal((await new PkiFolder(pki.paths.folder, context).list()).length, before, "nothing was issued");

    const key = await generateCertificateKey("P-256");
    const requestDer = await createCertificateRequest("node-2", key);
    assert.equal(await ask(requestDer), "granted");
    assert.equal(await ask(requestDer), "key-reused");
    assert.equal(await ask(await createCertificateRequest("node-2", key)), "key-reused");
  });

  it("refuses who is revoked in the register, although no list says so yet; and then by the list", async () => {
    const chainDer = await chainOf("node-3");
    const folder = new PkiFolder(pki.paths.folder, context);
    await folder.revoke({ which: { nodeId: "node-3" }, reason: "key-compromise", passphrase });
    assert.equal(trust.verifier.verify(chainDer, "node-3").ok, true, "the list was not read again");
    const ask = async () => authority.renew({ nodeId: "node-3", chainDer, requestDer: await requestOf("node-3") });
    assert.deepEqual(await ask(), { ok: false, reason: "certificate-revoked" });
    await trust.readRevocations();
    assert.deepEqual(await ask(), { ok: false, reason: "revoked" });
  });

  it("bounds certificates and attempts of one node; others are not touched by it", async () => {
    const chainDer = await chainOf("node-4");
    const ask = async (requestDer: Uint8Array) => {
      const answer = await authority.renew({ nodeId: "node-4", chainDer, requestDer });
      return answer.ok ? "granted" : answer.reason;
    };
    const grants: string[] = [];
    for (let n = 0; n < 5; n += 1) grants.push(await ask(await requestOf("node-4")));
    assert.deepEqual(grants, ["granted", "granted", "granted", "granted", "too-many-renewals"]);
    const attempts: string[] = [];
    for (let n = 0; n < 6; n += 1) attempts.push(await ask(new Uint8Array(9)));
    assert.deepEqual(attempts.slice(0, 5), Array(5).fill("malformed"));
    assert.equal(attempts[5], "too-many-renewals");
    const other = { nodeId: "node-1", chainDer: await chainOf("node-1"), requestDer: await requestOf("node-1") };
    assert.equal((await authority.renew(other)).ok, true);
    moved.timeMs += 3_600_000;
    assert.equal(await ask(await requestOf("node-4")), "granted", "one more after an hour");
    assert.equal(await ask(await requestOf("node-4")), "too-many-renewals");
  });

  it("signs the revocation list anew when half of its life is over, not before", async () => {
    const fresh = await loadTrust();
    const options = { folder: pki.paths.folder, passphrase };
    const again = await RenewalAuthority.open(options, { ...context, trust: fresh, log: () => {} });
    const { thisUpdateMs, number } = fresh.revocations.all()[0] ?? assert.fail("a list");
    moved.timeMs = thisUpdateMs + 15 * DAY_MS - 1_000;
    assert.equal(await again.refreshRevocations(), false);
    moved.timeMs = thisUpdateMs + 15 * DAY_MS;
    assert.equal(await again.refreshRevocations(), true);
    const [renewed] = fresh.revocations.all();
    assert.ok((renewed?.number ?? 0) > number);
    assert.equal(fresh.verifier.verify(await chainOf("node-3"), "node-3").ok, false, "who was revoked stays revoked");
  });

  it("does not start with an intermediate that this process itself would not believe, or the wrong passphrase", async () => {
    const other = await createDevelopmentPki({ folder: join(scratch, "other"), nodeIds: ["node-1"] }, context);
    const foreign = { folder: other.paths.folder, passphrase: await readPassphraseFile(other.passphrasePath) };
    const dependencies = { ...context, trust, log: () => {} };
    const isCode = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;
    await assert.rejects(RenewalAuthority.open(foreign, dependencies), isCode("authority-unknown"));
    const wrong = { folder: pki.paths.folder, passphrase: "not the passphrase" };
    await assert.rejects(RenewalAuthority.open(wrong, dependencies), isCode("wrong-passphrase"));
  });

  it("refuses an expired certificate, and a chain of somebody who is no member", async () => {
    const chainDer = await chainOf("stranger");
    const stranger = { nodeId: "stranger", chainDer, requestDer: await requestOf("stranger") };
    assert.deepEqual(await authority.renew(stranger), { ok: false, reason: "not-in-roster" });
    moved.timeMs += 91 * DAY_MS;
    // In that time it has signed new lists, else the answer would be that the list is stale.
    assert.equal(await authority.refreshRevocations(), true);
    const late = { nodeId: "node-1", chainDer: await chainOf("node-1"), requestDer: await requestOf("node-1") };
    assert.deepEqual(await authority.renew(late), { ok: false, reason: "expired" });
  });
});
