import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { connect, createServer, type DetailedPeerCertificate, type TLSSocket } from "node:tls";
import { parseCertificatesPem } from "../../../src/network/identity/certificate.js";
import type { IssuingContext } from "../../../src/network/identity/certificate-authority.js";
import { createDevelopmentPki, type DevelopmentPki } from "../../../src/network/identity/development-pki.js";
import { PeerIdentityVerifier, type PeerVerdict } from "../../../src/network/identity/peer-verifier.js";
import { PkiFolder } from "../../../src/network/identity/pki-folder.js";
import { RevocationLists, revocationListFromPem } from "../../../src/network/identity/revocation-lists.js";
import { readPassphraseFile } from "../../../src/network/identity/secret-file.js";
import { DAY_MS, MovableClock, testRandom } from "./forged-chain.js";

const NODE_IDS = ["node-1", "node-2", "coordinator-1"];
const clock = new MovableClock(Date.now());
const issuing: IssuingContext = { clock, random: testRandom };
const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

let folder: string;
let pki: DevelopmentPki;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "mpc-wallet-pki-"));
  pki = await createDevelopmentPki({ folder: join(folder, "pki"), nodeIds: NODE_IDS }, issuing);
});
after(() => rmSync(folder, { recursive: true, force: true }));

const read = (path: string) => readFileSync(path, "utf8");
const nodeOf = (nodeId: string) => {
  const node = pki.nodes.find((entry) => entry.nodeId === nodeId);
  assert.ok(node);
  return node;
};
const secretsOf = (nodeId: string) => ({
  key: read(nodeOf(nodeId).tlsKeyPath),
  cert: read(nodeOf(nodeId).tlsChainPath),
});

function makeVerifier(): PeerIdentityVerifier {
  const [root] = parseCertificatesPem(read(pki.paths.rootCertificate));
  const [intermediate] = parseCertificatesPem(read(pki.paths.intermediateCertificate));
  assert.ok(root && intermediate);
  const revocations = new RevocationLists({ authorities: [root, intermediate] });
  assert.equal(revocations.accept(revocationListFromPem(read(pki.paths.revocationList)), clock.nowMs()).ok, true);
  return new PeerIdentityVerifier({ roots: [root.der], roster: new Set(NODE_IDS), revocations }, { clock });
}

/** What came over the wire, leaf first; Node links issuers, and a root to itself. */
function chainOf(socket: TLSSocket): readonly Uint8Array[] {
  const chain: Uint8Array[] = [];
  let current: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
  while (current?.raw !== undefined && chain.length < 9) {
    chain.push(new Uint8Array(current.raw));
    current = current.issuerCertificate === current ? undefined : current.issuerCertificate;
  }
  return chain;
}

interface Handshake {
  readonly authorized: boolean;
  readonly client: PeerVerdict;
  readonly server: PeerVerdict;
}

/** A real loopback handshake: Node's own verification against the root alone, and ours on both sides. */
async function handshake(options: {
  readonly server: string;
  readonly client: string;
  readonly dialled: string;
}): Promise<Handshake> {
  const verifier = makeVerifier();
  const ca = read(pki.paths.rootCertificate);
  let accept: (verdict: PeerVerdict) => void = () => {};
  const accepted = new Promise<PeerVerdict>((resolve) => {
    accept = resolve;
  });
  const server = createServer(
    { ...secretsOf(options.server), ca, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3" },
    (socket) => {
      accept(verifier.verify(chainOf(socket), undefined));
      socket.end();
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const socket = connect({
      host: "127.0.0.1",
      port,
      ca,
      ...secretsOf(options.client),
      servername: options.dialled,
      minVersion: "TLSv1.3",
      rejectUnauthorized: false,
    });
    await new Promise<void>((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
    const client = verifier.verify(chainOf(socket), options.dialled);
    const { authorized } = socket;
    const verdict = await accepted;
    socket.destroy();
    return { authorized, client, server: verdict };
  } finally {
    server.close();
  }
}

describe("a development PKI", () => {
  it("stands up in a real TLS 1.3 handshake with client certificates, judged by Node and by us alike", async () => {
    const result = await handshake({ server: "node-1", client: "node-2", dialled: "node-1" });
    assert.equal(result.authorized, true);
    assert.equal(result.client.ok && result.client.nodeId, "node-1");
    assert.equal(result.server.ok && result.server.nodeId, "node-2");
  });

  it("shows a node that answers under another node's address", async () => {
    const result = await handshake({ server: "node-1", client: "node-2", dialled: "coordinator-1" });
    assert.equal(result.authorized, false);
    assert.deepEqual(result.client, { ok: false, reason: "unexpected-node" });
  });

  it("passes 'openssl verify' for both purposes, and its list is one that openssl reads", { skip: !hasOpenssl }, () => {
    const { tlsChainPath } = nodeOf("node-1");
    for (const purpose of ["sslserver", "sslclient"]) {
      const run = spawnSync("openssl", [
        "verify",
        "-x509_strict",
        "-purpose",
        purpose,
        "-CAfile",
        pki.paths.rootCertificate,
        "-untrusted",
        pki.paths.intermediateCertificate,
        "-crl_check",
        "-CRLfile",
        pki.paths.revocationList,
        "-verify_hostname",
        "node-1",
        tlsChainPath,
      ]);
      assert.equal(run.status, 0, run.stderr.toString());
    }
  });

  it("keeps its secrets to its owner", () => {
    const secrets = [
      pki.paths.rootKey,
      pki.paths.intermediateKey,
      pki.passphrasePath,
      ...pki.nodes.flatMap(({ tlsKeyPath, identityKeyPath }) => [tlsKeyPath, identityKeyPath]),
    ];
    for (const path of secrets) assert.equal(statSync(path).mode & 0o777, 0o600, path);
    for (const path of [pki.paths.rootFolder, pki.paths.intermediateFolder, nodeOf("node-1").folder]) {
      assert.equal(statSync(path).mode & 0o777, 0o700, path);
    }
    assert.match(read(pki.paths.rootKey), /ENCRYPTED/);
    assert.match(read(pki.paths.intermediateKey), /ENCRYPTED/);
  });

  it("made again: keeps what is good, adds a node, renews what is due, mends a broken pair", async () => {
    const started = new Map(pki.nodes.map(({ nodeId, tlsChainPath }) => [nodeId, read(tlsChainPath)]));
    const root = read(pki.paths.rootCertificate);
    const again = await createDevelopmentPki({ folder: pki.paths.folder, nodeIds: [...NODE_IDS, "node-3"] }, issuing);
    assert.equal(again.nodes.length, 4);
    for (const [nodeId, chain] of started) assert.equal(read(nodeOf(nodeId).tlsChainPath), chain);
    assert.deepEqual(again.nodes[0]?.identityKey, nodeOf("node-1").identityKey);

    writeFileSync(nodeOf("node-1").tlsKeyPath, read(nodeOf("node-2").tlsKeyPath));
    await createDevelopmentPki({ folder: pki.paths.folder, nodeIds: NODE_IDS }, issuing);
    assert.notEqual(read(nodeOf("node-1").tlsChainPath), started.get("node-1"));
    assert.equal(read(nodeOf("node-2").tlsChainPath), started.get("node-2"));

    clock.timeMs += 61 * DAY_MS;
    try {
      await createDevelopmentPki({ folder: pki.paths.folder, nodeIds: NODE_IDS }, issuing);
      assert.notEqual(read(nodeOf("node-2").tlsChainPath), started.get("node-2"));
      assert.equal(read(pki.paths.rootCertificate), root);
    } finally {
      clock.timeMs -= 61 * DAY_MS;
    }
  });

  it("a revoked node is refused by us and by openssl after the new list", async () => {
    const fresh = await createDevelopmentPki({ folder: join(folder, "other"), nodeIds: NODE_IDS }, issuing);
    const passphrase = await readPassphraseFile(fresh.passphrasePath);
    const authority = new PkiFolder(fresh.paths.folder, issuing);
    const revoked = await authority.revoke({ which: { nodeId: "node-2" }, reason: "key-compromise", passphrase });
    assert.deepEqual(
      revoked.map(({ nodeId }) => nodeId),
      ["node-2"],
    );
    const node = fresh.nodes[1];
    assert.ok(node);
    if (hasOpenssl) {
      const files = ["-CAfile", fresh.paths.rootCertificate, "-untrusted", fresh.paths.intermediateCertificate];
      const run = spawnSync("openssl", [
        "verify",
        ...files,
        "-crl_check",
        "-CRLfile",
        fresh.paths.revocationList,
        node.tlsChainPath,
      ]);
      assert.match(run.stderr.toString() + run.stdout.toString(), /certificate revoked/);
    }
    const authorities = [fresh.paths.rootCertificate, fresh.paths.intermediateCertificate].flatMap((path) =>
      parseCertificatesPem(read(path)),
    );
    const lists = new RevocationLists({ authorities });
    lists.accept(revocationListFromPem(read(fresh.paths.revocationList)), clock.nowMs());
    const roots = authorities.slice(0, 1).map(({ der }) => der);
    const verifier = new PeerIdentityVerifier({ roots, roster: new Set(NODE_IDS), revocations: lists }, { clock });
    const chain = parseCertificatesPem(read(node.tlsChainPath)).map(({ der }) => der);
    assert.deepEqual(verifier.verify(chain, "node-2"), { ok: false, reason: "revoked" });
  });
});
