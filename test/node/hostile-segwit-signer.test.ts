import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { judgeSigning } from "../../src/coordinator/evidence-judge.js";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { Point, Scalar, scalar } from "../../src/crypto/curve.js";
import { InvalidInput, PeerFault } from "../../src/crypto/fault.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { decodePublicPresignature, encodePublicPresignature } from "../../src/protocols/cggmp24/presignature.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { TestCluster } from "./cluster.js";
import { HandCoordinator, startTestChain, timeout } from "./hand-coordinator.js";
import { badEcdsaShare, HostileSessions } from "./hostile-sessions.js";

const LIAR = "node-2";
const PARTIES = ["node-1", "node-2", "node-3", "node-4"];
const PATIENCE_MS = 120_000;

describe("a dishonest signer of a SegWit wallet is named with proof, 3 of 4", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let calls: PeerCalls;
  let wallet: HandCoordinator;
  let liar: HostileSessions;

  const presign = async (signers: readonly number[]): Promise<Uint8Array> => {
    const order = { sessionId: systemRandom.bytes(16), walletId: "segwit", signers, count: 1 };
    const [made] = await Promise.all(
      signers.map((index) => calls.presign(PARTIES[index - 1] ?? "", order, timeout(PATIENCE_MS))),
    );
    const [id] = made ?? [];
    assert.ok(id !== undefined);
    return id;
  };

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({
      nodes: 4,
      chain,
      // What takes seconds runs in the liar's threads, too: all nodes share this process.
      sessions: (identity) => {
        if (identity.nodeId === LIAR) liar = new HostileSessions(identity);
        return undefined;
      },
      observe: (nodeId, inner) => ({
        run: (job, seat, wire) => (nodeId === LIAR && job.kind === "cggmp24-sign" ? liar : inner).run(job, seat, wire),
        close: () => inner.close(),
      }),
    });
    calls = await cluster.connect();
    const about = { walletId: "segwit", coins: 1, scheme: "cggmp24" as const };
    wallet = await HandCoordinator.open({ calls, server, parties: PARTIES }, about);
    const order = { sessionId: systemRandom.bytes(16), walletId: "segwit" };
    await Promise.all(PARTIES.map((nodeId) => calls.generateAuxInfo(nodeId, order, timeout(PATIENCE_MS))));
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });

  it("for a bad share: whoever ordered the session judges it, and the payment goes on with other signers", async () => {
    const [withLiar, without] = [await presign([1, 2, 3]), await presign([1, 3, 4])];
    const voted = await wallet.vote(wallet.propose(wallet.request(), wallet.build().psbt));
    const order: SigningOrder = { ...wallet.order(voted, [1, 2, 3]), presignatureIds: [withLiar] };
    liar.cheat = badEcdsaShare;
    const answers = await wallet.sign(order);
    liar.cheat = undefined;
    const roster = new Map(cluster.roster.nodes.map((node) => [node.nodeId, node.identityKey]));
    const judged = { account: wallet.account, roster, publicKeyPackage: wallet.publicKeyPackage };
    for (const [at, reporter] of [
      [0, "node-1"],
      [2, "node-3"],
    ] as const) {
      const answer = answers[at];
      assert.ok(answer?.status === "rejected" && answer.reason instanceof PeerFault, reporter);
      const { culprits, evidence, exhibits } = answer.reason;
      assert.deepEqual(culprits, [LIAR]);
      const report = { reporter, order, wallet: judged, evidence, exhibits };
      assert.deepEqual(
        judgeSigning(report).map(({ nodeId, check }) => [nodeId, check]),
        [[LIAR, "signature-share"]],
      );
      const [exhibit] = exhibits;
      assert.ok(exhibit !== undefined);
      const shown = decodePublicPresignature(exhibit);
      // Of two parties one is moved forth and one back: still sound, and each share would seem wrong.
      const back = Point.base.timesPublic(Scalar.negate(scalar(1n)));
      const moved = new Map(
        [...shown.commitments].map(([party, { nonce, key }]) => {
          const by = party === 1 ? Point.base : party === 3 ? back : Point.identity;
          return [party, { nonce: nonce.plus(by), key }];
        }),
      );
      const convicts = (change: Partial<typeof report>) => judgeSigning({ ...report, ...change }).length > 0;
      const forged = encodePublicPresignature({ ...shown, commitments: moved });
      const { id } = decodePublicPresignature(forged);
      assert.ok(convicts({ exhibits: [forged], order: { ...order, presignatureIds: [id] } }) === false);
      assert.ok(!convicts({ exhibits: [] }));
      assert.ok(!convicts({ exhibits: [exhibit, exhibit] }));
      assert.ok(!convicts({ exhibits: [new Uint8Array([1, 2, 3])] }));
      assert.ok(!convicts({ exhibits: [forged] }));
      assert.ok(!convicts({ order: { ...order, presignatureIds: [without] } }));
      assert.ok(!convicts({ order: { ...order, presignatureIds: [] } }));
      assert.ok(!convicts({ order: { ...order, sessionId: systemRandom.bytes(16) } }));
      assert.ok(!convicts({ order: { ...order, signers: [1, 2, 4] } }));
      assert.ok(!convicts({ wallet: { ...judged, publicKeyPackage: new Uint8Array() } }));
    }
    const lie = answers[1];
    assert.ok(lie?.status === "rejected" && lie.reason instanceof PeerFault);
    const { evidence, exhibits } = lie.reason;
    assert.deepEqual(judgeSigning({ reporter: LIAR, order, wallet: judged, evidence, exhibits }), []);
    // Those whom it cheated make nothing with it any more, and say why.
    const order123 = { sessionId: systemRandom.bytes(16), walletId: "segwit", signers: [1, 2, 3], count: 1 };
    const banned = (error: unknown) => error instanceof InvalidInput && error.code === "party-banned";
    await assert.rejects(calls.presign("node-1", order123, timeout()), banned);
    const ballots = voted.certificate.ballots.filter(({ voter }) => voter !== LIAR);
    const withoutBallot = { ...voted, certificate: { ...voted.certificate, ballots } };
    const presignatureIds = [withLiar];
    await assert.rejects(
      calls.sign("node-3", { ...wallet.order(withoutBallot, [1, 2, 3]), presignatureIds }, timeout()),
      banned,
    );
    const again = wallet.order(withoutBallot, [1, 3, 4]);
    const signed = await wallet.sign({ ...again, presignatureIds: [without] });
    assert.ok(
      signed.every(({ status }) => status === "fulfilled"),
      JSON.stringify(signed),
    );
  });
});
