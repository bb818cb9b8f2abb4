import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Unavailable } from "../../src/crypto/fault.js";
import { createDevelopmentPki, type DevelopmentPki } from "../../src/network/identity/development-pki.js";
import { PkiFolder } from "../../src/network/identity/pki-folder.js";
import { Roster } from "../../src/network/identity/roster.js";
import { loadTlsCredentials } from "../../src/network/identity/tls-credentials.js";
import { TrustFiles } from "../../src/network/identity/trust-files.js";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { freeUdpPorts } from "./cluster.js";

const DAY_MS = 86_400_000;

describe("the certificate verifier over real QUIC", () => {
  let folder: string;
  let roster: Roster;
  let pki: DevelopmentPki;
  let trust: TrustFiles;
  let server: PeerMesh;
  const refusals: string[] = [];

  const context = { clock: systemClock, random: systemRandom };
  const credentialsIn = (from: string, nodeId: string): Promise<TransportCredentials> =>
    loadTlsCredentials({ nodeId, keyPath: join(from, "tls-key.pem"), chainPath: join(from, "tls-chain.pem") });
  const folderOf = (of: DevelopmentPki, nodeId: string): string =>
    of.nodes.find((node) => node.nodeId === nodeId)?.folder ?? "";

  async function start(nodeId: string, credentials: TransportCredentials): Promise<PeerMesh> {
    const peers = roster.peers.filter((peer) => peer.nodeId !== nodeId);
    return await PeerMesh.start(
      {
        nodeId,
        listen: { host: "127.0.0.1", port: roster.get(nodeId)?.port ?? 0 },
        peers: peers.map((peer) => ({ ...peer, dial: nodeId === "node-1" ? ("them" as const) : ("us" as const) })),
        credentials,
      },
      {
        clock: systemClock,
        random: systemRandom,
        verifier: (chain, expected) => {
          const verdict = trust.verifier.verify(chain, expected);
          if (!verdict.ok) refusals.push(verdict.reason);
          return verdict;
        },
        router: () => {},
        log: () => {},
      },
    );
  }

  /** Dials node-1 as node-2 with these credentials and says why it was refused; undefined when it was let in. */
  async function refusalOf(credentials: TransportCredentials): Promise<string | undefined> {
    refusals.length = 0;
    const mesh = await start("node-2", credentials);
    try {
      await mesh.ready(["node-1"], 1_500);
      return undefined;
    } catch (fault) {
      assert.ok(fault instanceof Unavailable && fault.code === "peers-not-ready");
      return refusals[0];
    } finally {
      await mesh.close();
    }
  }

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "mpc-wallet-certificates-"));
    const longAgo = { ...context, clock: { ...systemClock, nowMs: () => Date.now() - 100 * DAY_MS } };
    const old = await createDevelopmentPki({ folder: join(folder, "pki"), nodeIds: ["node-2"] }, longAgo);
    await cp(folderOf(old, "node-2"), join(folder, "expired"), { recursive: true });
    pki = await createDevelopmentPki(
      { folder: join(folder, "pki"), nodeIds: ["node-1", "node-2", "stranger"] },
      context,
    );
    const ports = await freeUdpPorts(2);
    roster = new Roster(
      ["node-1", "node-2"].map((nodeId, index) => ({
        nodeId,
        role: "node" as const,
        host: "127.0.0.1",
        port: ports[index] ?? 0,
        identityKey: pki.nodes.find((node) => node.nodeId === nodeId)?.identityKey ?? new Uint8Array(),
      })),
    );
    const { rootCertificate, intermediateCertificate, revocationList } = pki.paths;
    trust = await TrustFiles.load(
      {
        rootPath: rootCertificate,
        intermediatePath: intermediateCertificate,
        revocationListPaths: [revocationList],
        roster,
      },
      { clock: systemClock },
    );
    server = await start("node-1", await credentialsIn(folderOf(pki, "node-1"), "node-1"));
  });
  after(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("lets in a roster member with its own valid certificate", async () => {
    assert.equal(await refusalOf(await credentialsIn(folderOf(pki, "node-2"), "node-2")), undefined);
  });

  it("refuses an expired certificate", async () => {
    assert.equal(await refusalOf(await credentialsIn(join(folder, "expired"), "node-2")), "expired");
  });

  it("refuses a certificate of another authority", async () => {
    const other = await createDevelopmentPki({ folder: join(folder, "other"), nodeIds: ["node-2"] }, context);
    assert.equal(await refusalOf(await credentialsIn(folderOf(other, "node-2"), "node-2")), "wrong-authority");
  });

  it("refuses a certificate of our authority for somebody who is not in the roster", async () => {
    assert.equal(await refusalOf(await credentialsIn(folderOf(pki, "stranger"), "stranger")), "not-in-roster");
  });

  it("refuses to greet under another name than the certificate's", async () => {
    // The verifier lets node-1's certificate in, as it is a member's; the hello that says node-2 is what gives it away.
    const mesh = await start("node-2", await credentialsIn(folderOf(pki, "node-1"), "node-1"));
    await assert.rejects(
      mesh.ready(["node-1"], 1_500),
      (fault) => fault instanceof Unavailable && fault.code === "peers-not-ready",
    );
    await mesh.close();
  });

  // Last: node-2 stays revoked.
  it("cuts a live connection off once its certificate is revoked, and does not let it in again", async () => {
    const credentials = await credentialsIn(folderOf(pki, "node-2"), "node-2");
    const mesh = await start("node-2", credentials);
    try {
      await mesh.ready(["node-1"], 3_000);
      const state = () => server.status().find(({ nodeId }) => nodeId === "node-2")?.state;
      server.reverifyPeers();
      assert.equal(state(), "active", "a good certificate stays");
      const passphrase = (await readFile(pki.passphrasePath, "utf8")).trim();
      const authority = new PkiFolder(join(folder, "pki"), context);
      await authority.revoke({ which: { nodeId: "node-2" }, reason: "key-compromise", passphrase });
      await trust.readRevocations();
      refusals.length = 0;
      server.reverifyPeers();
      assert.deepEqual(refusals, ["revoked"]);
      assert.notEqual(state(), "active");
      // The close is on its way; from then on every attempt of node-2 ends in a refusal.
      for (let wait = 0; mesh.status()[0]?.state === "active" && wait < 100; wait++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await assert.rejects(mesh.ready(["node-1"], 1_500));
      assert.notEqual(state(), "active");
    } finally {
      await mesh.close();
    }
  });
});
