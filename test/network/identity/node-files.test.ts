import assert from "node:assert/strict";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { InvalidInput } from "../../../src/crypto/fault.js";
import { parseCertificatesPem } from "../../../src/network/identity/certificate.js";
import { createDevelopmentPki, type DevelopmentPki } from "../../../src/network/identity/development-pki.js";
import { PkiFolder } from "../../../src/network/identity/pki-folder.js";
import { readPassphraseFile } from "../../../src/network/identity/secret-file.js";
import { loadTlsCredentials, prepareRenewal } from "../../../src/network/identity/tls-credentials.js";
import { TrustFiles } from "../../../src/network/identity/trust-files.js";
import { context, MovableClock } from "./forged-chain.js";

const isCode = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;
const roster = new Set(["node-1", "node-2"]);
const clock = new MovableClock();

let folder: string;
let pki: DevelopmentPki;
let authority: PkiFolder;
let passphrase: string;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "mpc-wallet-files-"));
  pki = await createDevelopmentPki({ folder: join(folder, "pki"), nodeIds: ["node-1", "node-2"] }, context);
  authority = new PkiFolder(pki.paths.folder, context);
  passphrase = await readPassphraseFile(pki.passphrasePath);
});
after(() => rmSync(folder, { recursive: true, force: true }));

function pathsOf(nodeId: string) {
  const node = pki.nodes.find((entry) => entry.nodeId === nodeId);
  assert.ok(node);
  return { nodeId, keyPath: node.tlsKeyPath, chainPath: node.tlsChainPath };
}

const load = () =>
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
  const { certificateChainPem } = await loadTlsCredentials(pathsOf(nodeId));
  return parseCertificatesPem(certificateChainPem).map(({ der }) => der);
}

describe("trust files", () => {
  it("make a verifier whose lists are read again while it runs; an old list changes nothing", async () => {
    const trust = await load();
    const chain = await chainOf("node-2");
    assert.equal(trust.verifier.verify(chain, "node-2").ok, true);
    const old = readFileSync(pki.paths.revocationList);
    await authority.revoke({ which: { nodeId: "node-2" }, reason: "superseded", passphrase });
    const [renewed] = await trust.readRevocations();
    assert.equal(renewed?.ok && renewed.number, 2);
    const refused = { ok: false, reason: "revoked" };
    assert.deepEqual(trust.verifier.verify(chain, "node-2"), refused);

    const current = readFileSync(pki.paths.revocationList);
    writeFileSync(pki.paths.revocationList, old);
    const path = pki.paths.revocationList;
    assert.deepEqual(await trust.readRevocations(), [{ path, ok: false, reason: "rollback" }]);
    assert.deepEqual(trust.verifier.verify(chain, "node-2"), refused);
    writeFileSync(pki.paths.revocationList, current);
  });

  it("one unreadable list holds up no other, and its last good one stays in force", async () => {
    const spare = join(folder, "spare-list.pem");
    copyFileSync(pki.paths.revocationList, spare);
    const trust = await TrustFiles.load(
      {
        rootPath: pki.paths.rootCertificate,
        intermediatePath: pki.paths.intermediateCertificate,
        revocationListPaths: [spare, pki.paths.revocationList],
        roster,
      },
      { clock },
    );
    const known = trust.revocations.all()[0]?.number ?? 0;
    const { number } = await authority.publishRevocations({ passphrase });
    for (const damage of ["not a list", undefined]) {
      rmSync(spare);
      if (damage !== undefined) writeFileSync(spare, damage);
      const [bad, good] = await trust.readRevocations();
      assert.deepEqual([bad?.ok, bad?.path, bad?.ok === false && bad.reason], [false, spare, "unreadable"]);
      assert.deepEqual(good, { path: pki.paths.revocationList, ok: true, number });
      writeFileSync(spare, "");
    }
    assert.ok(known < number);
    assert.equal(trust.verifier.verify(await chainOf("node-1"), "node-1").ok, true);
  });

  it("keep the newest list: after a restart an older file does not make a revoked certificate good", async () => {
    const keepFolder = join(folder, "kept");
    const stale = join(folder, "stale-list.pem");
    copyFileSync(pki.paths.revocationList, stale);
    const options = {
      rootPath: pki.paths.rootCertificate,
      intermediatePath: pki.paths.intermediateCertificate,
      revocationListPaths: [stale],
      keepFolder,
      roster,
    };
    const trust = await TrustFiles.load(options, { clock });
    const { der, number } = await authority.publishRevocations({ passphrase });
    assert.deepEqual(trust.offer(der), { ok: true, number });
    await trust.keepRevocations();
    const numberOf = async (): Promise<number | undefined> =>
      (await TrustFiles.load(options, { clock })).revocations.all()[0]?.number;
    assert.equal(await numberOf(), number);
    // What is kept counts for its signature: damage in it brings nobody in, and stops nobody.
    const [kept = ""] = readdirSync(keepFolder);
    writeFileSync(join(keepFolder, kept), "damaged");
    assert.ok(((await numberOf()) ?? 0) < number);
  });

  it("name the file that is missing or wrong", async () => {
    const broken = async (changes: Partial<Parameters<typeof TrustFiles.load>[0]>) =>
      TrustFiles.load(
        {
          rootPath: pki.paths.rootCertificate,
          intermediatePath: pki.paths.intermediateCertificate,
          revocationListPaths: [pki.paths.revocationList],
          roster,
          ...changes,
        },
        { clock },
      );
    const nowhere = join(folder, "nowhere.pem");
    await assert.rejects(broken({ rootPath: nowhere }), isCode("file-missing"));
    await assert.rejects(broken({ revocationListPaths: [nowhere] }), isCode("file-missing"));
    await assert.rejects(broken({ rootPath: pki.paths.intermediateCertificate }), isCode("bad-trust-anchor"));
    await assert.rejects(broken({ intermediatePath: pathsOf("node-1").chainPath }), isCode("bad-trust-anchor"));
    await assert.rejects(broken({ intermediatePath: pki.paths.revocationList }), isCode("bad-certificate-file"));
    await assert.rejects(
      broken({ revocationListPaths: [pki.paths.rootCertificate] }),
      isCode("revocation-list-refused"),
    );
  });
});

describe("TLS credentials", () => {
  it("are refused when they do not belong together, to this node, or are readable by others", async () => {
    const [one, two] = [pathsOf("node-1"), pathsOf("node-2")];
    assert.equal((await loadTlsCredentials(one)).leaf.commonNames[0], "node-1");
    await assert.rejects(loadTlsCredentials({ ...one, keyPath: two.keyPath }), isCode("bad-tls-credentials"));
    await assert.rejects(loadTlsCredentials({ ...one, nodeId: "node-2" }), isCode("bad-tls-credentials"));
    await assert.rejects(loadTlsCredentials({ ...one, keyPath: `${one.keyPath}-` }), isCode("file-missing"));
    chmodSync(one.keyPath, 0o640);
    await assert.rejects(loadTlsCredentials(one), isCode("secret-readable-by-others"));
    chmodSync(one.keyPath, 0o600);
  });

  it("are renewed over the network: a new key, the same node, both certificates good meanwhile", async () => {
    const paths = pathsOf("node-1");
    const old = await loadTlsCredentials(paths);
    const oldChain = await chainOf("node-1");
    const renewal = await prepareRenewal(paths);
    const intermediate = await authority.openIntermediate(passphrase);
    const issued = await authority.renewUnder(intermediate, {
      nodeId: "node-1",
      present: old.leaf,
      requestDer: renewal.requestDer,
    });
    assert.ok(issued.ok);

    await assert.rejects(renewal.complete(old.certificateChainPem), isCode("bad-tls-credentials"));
    assert.deepEqual(await chainOf("node-1"), oldChain);
    const made = await renewal.complete(issued.issuance.chainPem);
    assert.deepEqual(await loadTlsCredentials(paths), made);
    assert.equal(statSync(paths.keyPath).mode & 0o777, 0o600);
    assert.notEqual(made.privateKeyPem, old.privateKeyPem);

    const { verifier } = await load();
    for (const chain of [oldChain, await chainOf("node-1")]) assert.equal(verifier.verify(chain, "node-1").ok, true);
    const listed = (await authority.list()).filter(({ nodeId }) => nodeId === "node-1");
    assert.equal(listed.length, 2);
  });

  it("open after a renewal that stopped at any point", async () => {
    const paths = pathsOf("node-1");
    const next = `${paths.keyPath}.next`;
    const old = await loadTlsCredentials(paths);
    const renewal = await prepareRenewal(paths);
    const { chainPem } = await authority.issue({ nodeId: "node-1", requestDer: renewal.requestDer, passphrase });
    const made = await renewal.complete(chainPem);
    const write = (path: string, content: string) => writeFileSync(path, content, { mode: 0o600 });

    // Stopped after the new key was written: the old pair still counts.
    write(paths.keyPath, old.privateKeyPem);
    write(paths.chainPath, old.certificateChainPem);
    write(next, made.privateKeyPem);
    assert.deepEqual(await loadTlsCredentials(paths), old);
    assert.equal(existsSync(next), false);
    // Stopped after the new chain was written: the new pair counts.
    write(paths.chainPath, made.certificateChainPem);
    write(next, made.privateKeyPem);
    assert.deepEqual(await loadTlsCredentials(paths), made);
    assert.equal(existsSync(next), false);
    assert.equal(readFileSync(paths.keyPath, "utf8"), made.privateKeyPem);
    // Neither key belongs: said, not guessed.
    copyFileSync(pathsOf("node-2").keyPath, next);
    copyFileSync(pathsOf("node-2").keyPath, paths.keyPath);
    await assert.rejects(loadTlsCredentials(paths), isCode("bad-tls-credentials"));
  });
});
