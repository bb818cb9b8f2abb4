import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { before, describe, it } from "node:test";
import { certificatesToPem } from "../../../src/network/identity/certificate.js";
import type { CertificateCurve } from "../../../src/network/identity/certificate-authority.js";
import { PeerIdentityVerifier, type PeerVerdict } from "../../../src/network/identity/peer-verifier.js";
import { createRevocationList, RevocationLists } from "../../../src/network/identity/revocation-lists.js";
import { context, type Hierarchy, issueTo, MovableClock, makeHierarchy, NOW_MS } from "./forged-chain.js";

const binding = await import("@matrixai/quic/native/quiche.js").then(
  (module) => module.default,
  () => undefined,
);
const CLIENT = { host: "127.0.0.1", port: 40001 };
const SERVER = { host: "127.0.0.1", port: 40002 };

let hierarchy: Hierarchy;
let verifier: PeerIdentityVerifier;

before(async () => {
  hierarchy = await makeHierarchy();
  const { root, intermediate } = hierarchy;
  const revocations = new RevocationLists({ authorities: [root.certificate, intermediate.certificate] });
  revocations.accept(await createRevocationList({ issuer: intermediate, number: 1, revocations: [] }, context), NOW_MS);
  const roster = new Set(["node-1", "node-2"]);
  verifier = new PeerIdentityVerifier(
    { roots: [root.certificate.der], roster, revocations },
    { clock: new MovableClock() },
  );
});

interface Outcome {
  readonly client: PeerVerdict;
  readonly server: PeerVerdict;
  readonly lengths: readonly number[];
}

/** Two quiche connections in one process, their datagrams handed over in memory; no native verification. */
async function handshake(native: NonNullable<typeof binding>, curve: CertificateCurve): Promise<Outcome> {
  const configOf = async (nodeId: string) => {
    const { leaf, privateKey } = await issueTo(nodeId, hierarchy.intermediate, { curve });
    const key = Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" }));
    const chain = Buffer.from(certificatesToPem([leaf, hierarchy.intermediate.certificate]));
    const config = native.Config.withBoringSslCtx(true, true, null, [key], [chain], null);
    config.setApplicationProtos(["test"]);
    config.setInitialMaxData(100_000);
    config.setInitialMaxStreamsBidi(1);
    return config;
  };
  const clientId = randomBytes(20);
  const client = native.Connection.connect("node-2", clientId, CLIENT, SERVER, await configOf("node-1"));
  const server = native.Connection.accept(randomBytes(20), null, SERVER, CLIENT, await configOf("node-2"));
  const datagram = Buffer.alloc(1500);
  const pass = (from: typeof client, to: typeof client, info: { from: typeof CLIENT; to: typeof CLIENT }): boolean => {
    const sent = from.send(datagram);
    if (sent === null) return false;
    to.recv(datagram.subarray(0, sent[0]), info);
    return true;
  };
  for (let step = 0; step < 40; step += 1) {
    const moved = pass(client, server, { from: CLIENT, to: SERVER });
    if (!pass(server, client, { from: SERVER, to: CLIENT }) && !moved) break;
  }
  assert.deepEqual([client.isEstablished(), server.isEstablished()], [true, true]);
  const seenByClient = client.peerCertChain() ?? [];
  const seenByServer = server.peerCertChain() ?? [];
  return {
    client: verifier.verify(seenByClient, "node-2"),
    server: verifier.verify(seenByServer, undefined),
    lengths: [seenByClient.length, seenByServer.length],
  };
}

describe("quiche's BoringSSL", () => {
  for (const curve of ["P-256", "P-384"] as const) {
    it(`shakes hands under ${curve} node keys and hands the verifier leaf and intermediate`, async (test) => {
      if (binding === undefined) return test.skip("no QUIC binding for this platform");
      const { client, server, lengths } = await handshake(binding, curve);
      assert.deepEqual(lengths, [2, 2]);
      assert.equal(client.ok && client.nodeId, "node-2");
      assert.equal(server.ok && server.nodeId, "node-1");
    });
  }
});
