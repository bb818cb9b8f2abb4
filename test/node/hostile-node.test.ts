import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { judgeKeyGeneration, judgeSigning } from "../../src/coordinator/evidence-judge.js";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { InvalidInput, PeerFault } from "../../src/crypto/fault.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import type { PeerMesh } from "../../src/network/peer-mesh.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { decodeEnvelope, encodeEnvelope, signEnvelope } from "../../src/session/envelope.js";
import { partyId } from "../../src/session/party.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import type { KeyGenerationOrder } from "../../src/wallet/key-generation.js";
import { TestCluster } from "./cluster.js";
import { HandCoordinator, startTestChain, timeout } from "./hand-coordinator.js";
import { badKeyShare, badSignatureShare, type Cheat, flipLast, HostileSessions } from "./hostile-sessions.js";

const LIAR = "node-2";

describe("a dishonest node over QUIC is named with proof", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let mesh: PeerMesh;
  let calls: PeerCalls;
  let wallet: HandCoordinator;
  let liar: HostileSessions;
  let parties: readonly string[];

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({
      nodes: 5,
      chain,
      sessions: (identity) => {
        if (identity.nodeId !== LIAR) return undefined;
        liar = new HostileSessions(identity);
        return liar;
      },
    });
    mesh = await cluster.mesh("coordinator-1");
    calls = cluster.callsOver(mesh);
    parties = cluster.roster.nodes.map(({ nodeId }) => nodeId);
    wallet = await HandCoordinator.open({ calls, server, parties }, { walletId: "wallet-1", coins: 1 });
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });
  const identityKeys = () => new Map(cluster.roster.nodes.map((node) => [node.nodeId, node.identityKey]));

  /** A key generation in which the liar cheats; the faults of all nodes by name. */
  async function generate(cheat: Cheat): Promise<{ order: KeyGenerationOrder; faults: Map<string, unknown> }> {
    const order: KeyGenerationOrder = {
      sessionId: systemRandom.bytes(16),
      walletId: `wallet-${Buffer.from(systemRandom.bytes(4)).toString("hex")}`,
      name: "spoiled",
      scheme: "frost",
      threshold: 3,
      parties,
      network: "regtest",
    };
    liar.cheat = cheat;
    const answers = await Promise.allSettled(parties.map((nodeId) => calls.generate(nodeId, order, timeout())));
    liar.cheat = undefined;
    const faults = answers.map((answer, at): [string, unknown] => {
      assert.equal(answer.status, "rejected", `${parties[at]} kept a key`);
      return [parties[at] ?? "", answer.status === "rejected" ? answer.reason : undefined];
    });
    return { order, faults: new Map(faults) };
  }

  function assertProven(
    { order, faults }: Awaited<ReturnType<typeof generate>>,
    accusers: readonly string[],
    check: string,
  ): void {
    for (const nodeId of accusers) {
      const fault = faults.get(nodeId);
      assert.ok(fault instanceof PeerFault, `${nodeId}: ${String(fault)}`);
      assert.deepEqual(fault.culprits, [LIAR]);
      const evidence = fault.evidence as readonly Evidence[];
      const proven = judgeKeyGeneration(order, identityKeys(), evidence);
      assert.deepEqual(
        proven.map((one) => [one.nodeId, one.check]),
        [[LIAR, check]],
      );
      // The same words about another session, another wallet or another party prove nothing.
      for (const other of [
        { ...order, sessionId: systemRandom.bytes(16) },
        { ...order, walletId: "other" },
        { ...order, threshold: 2 },
      ]) {
        assert.deepEqual(judgeKeyGeneration(other, identityKeys(), evidence), []);
      }
      const framed = evidence.map((one) => ({ ...one, accused: one.accused === 5 ? 4 : 5 }));
      assert.deepEqual(judgeKeyGeneration(order, identityKeys(), framed), []);
    }
  }
  const honest = () => parties.filter((nodeId) => nodeId !== LIAR);

  it("for a bad share of a key, by everyone who got one", async () => {
    assertProven(await generate(badKeyShare()), honest(), "share-on-polynomial");
  });

  it("for a bad share of a key that only one node got", async () => {
    const outcome = await generate(badKeyShare(4));
    assertProven(outcome, ["node-4"], "share-on-polynomial");
  });

  it("for telling parties different things in a key generation", async () => {
    const tamper: Cheat["tamper"] = ({ to, bytes }) => {
      const envelope = decodeEnvelope(bytes);
      if (envelope?.round !== "commitment" || envelope.content.case !== "payload") return [{ to, bytes }];
      const { ssid, round, echo } = envelope;
      const payload = Uint8Array.from(envelope.content.value);
      flipLast(payload);
      const fields = { ssid, round, sender: partyId(envelope.sender), recipient: 0 as const, echo, payload };
      const second = encodeEnvelope(signEnvelope(fields, (message) => liar.identity.sign(message)));
      return [1, 3, 4, 5].map((party) => ({ to: party, bytes: party < 4 ? bytes : second }));
    };
    assertProven(await generate({ tamper }), honest(), "equivocation");
  });

  it("and its ballot counts no more at those who saw it, not even after a restart", async () => {
    const voted = await wallet.vote(wallet.propose(wallet.request(), wallet.build().psbt));
    for (const nodeId of ["node-1", "node-3"]) {
      await assert.rejects(calls.sign(nodeId, wallet.order(voted), timeout()), banned);
    }
    await cluster.stopNode("node-1");
    await cluster.startNode("node-1");
    await mesh.ready(["node-1"], 10_000);
    await assert.rejects(calls.sign("node-1", wallet.order(voted), timeout()), banned);
    const ballots = voted.certificate.ballots.filter(({ voter }) => voter !== LIAR);
    await wallet.pay({ ...voted, certificate: { ...voted.certificate, ballots } }, [1, 3, 4]);
  });

  const banned = (fault: unknown) => fault instanceof InvalidInput && fault.code === "banned-voter";
});

describe("a dishonest signer over QUIC is named with proof", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let wallet: HandCoordinator;
  let liar: HostileSessions;

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({
      nodes: 5,
      chain,
      sessions: (identity) => {
        if (identity.nodeId !== LIAR) return undefined;
        liar = new HostileSessions(identity);
        return liar;
      },
    });
    const calls = await cluster.connect();
    const parties = cluster.roster.nodes.map(({ nodeId }) => nodeId);
    wallet = await HandCoordinator.open({ calls, server, parties }, { walletId: "wallet-1", coins: 1 });
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });

  it("for a bad signature share, and the payment goes on without it", async () => {
    const voted = await wallet.vote(wallet.propose(wallet.request(), wallet.build().psbt));
    const order = wallet.order(voted, [1, 2, 3]);
    liar.cheat = badSignatureShare;
    const answers = await wallet.sign(order);
    liar.cheat = undefined;
    const roster = new Map(cluster.roster.nodes.map((node) => [node.nodeId, node.identityKey]));
    const { account, publicKeyPackage } = wallet;
    const judged = { account, roster, publicKeyPackage };
    for (const [at, reporter] of [
      [0, "node-1"],
      [2, "node-3"],
    ] as const) {
      const answer = answers[at];
      assert.ok(answer?.status === "rejected" && answer.reason instanceof PeerFault, reporter);
      const { culprits, evidence } = answer.reason;
      assert.deepEqual(culprits, [LIAR]);
      const proven = judgeSigning({ reporter, order, wallet: judged, evidence, exhibits: [] });
      assert.deepEqual(
        proven.map((one) => [one.nodeId, one.check]),
        [[LIAR, "signature-share"]],
      );
      const ask = (change: object, about: object = {}) =>
        judgeSigning({
          reporter,
          order: { ...order, ...change },
          wallet: { ...judged, ...about },
          evidence,
          exhibits: [],
        });
      assert.deepEqual(ask({ sessionId: systemRandom.bytes(16) }), []);
      assert.deepEqual(ask({ signers: [1, 2, 4] }), []);
      assert.deepEqual(ask({ certificate: { ...order.certificate, ballots: [] } }), []);
      assert.deepEqual(ask({ proposal: { ...order.proposal, psbt: new Uint8Array() } }), []);
      assert.deepEqual(ask({}, { publicKeyPackage: new Uint8Array() }), []);
      assert.deepEqual(ask({}, { roster: new Map([...roster].reverse()) }), []);
      assert.deepEqual(
        judgeSigning({
          reporter,
          order,
          wallet: judged,
          evidence: [{}, undefined, "evidence", ...evidence],
          exhibits: [],
        }).length,
        1,
      );
    }
    // The liar's own report names everyone else, and proves nothing.
    const lie = answers[1];
    assert.ok(lie?.status === "rejected" && lie.reason instanceof PeerFault);
    assert.deepEqual(lie.reason.culprits, ["node-1", "node-3"]);
    assert.deepEqual(
      judgeSigning({ reporter: LIAR, order, wallet: judged, evidence: lie.reason.evidence, exhibits: [] }),
      [],
    );

    const ballots = voted.certificate.ballots.filter(({ voter }) => voter !== LIAR);
    await wallet.pay({ ...voted, certificate: { ...voted.certificate, ballots } }, [1, 3, 5]);
  });
});
