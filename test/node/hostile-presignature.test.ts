import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { TestCluster } from "./cluster.js";
import { HandCoordinator, startTestChain, timeout, type Voted } from "./hand-coordinator.js";

const code = (wanted: string) => (error: unknown) => error instanceof InvalidInput && error.code === wanted;
const PATIENCE_MS = 90_000;

describe("a compromised coordinator uses a presignature once, 3 of 4", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let calls: PeerCalls;
  let wallet: HandCoordinator;
  let ids: readonly Uint8Array[];
  const parties = ["node-1", "node-2", "node-3", "node-4"];
  const signers = [1, 2, 3];
  const together = <T>(indices: readonly number[], ask: (nodeId: string) => Promise<T>): Promise<readonly T[]> =>
    Promise.all(indices.map((index) => ask(parties[index - 1] ?? "")));
  const approve = (amountSat: bigint): Promise<Voted> => {
    const recipients = [{ address: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", amountSat }];
    return wallet.vote(wallet.propose(wallet.request({ recipients }), wallet.build({ recipients }).psbt));
  };
  const refusedByAll = async (wanted: string, order: SigningOrder): Promise<void> => {
    for (const index of order.signers) {
      await assert.rejects(calls.sign(parties[index - 1] ?? "", order, timeout()), code(wanted), wanted);
    }
  };

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({ nodes: 4, chain });
    calls = cluster.callsOver(await cluster.mesh("coordinator-1"));
    wallet = await HandCoordinator.open(
      { calls, server, parties },
      { walletId: "segwit", coins: 1, scheme: "cggmp24" },
    );
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });

  it("without auxiliary info nothing is made or signed, and the refusal says so", async () => {
    const order = { sessionId: systemRandom.bytes(16), walletId: "segwit", signers, count: 1 };
    await assert.rejects(calls.presign("node-1", order, timeout()), code("aux-info-missing"));
    await assert.rejects(calls.waiting("node-1", "segwit", timeout()), code("aux-info-missing"));
    await refusedByAll("aux-info-missing", { ...wallet.order(await approve(300_000n), signers), presignatureIds: [] });
  });

  it("makes auxiliary info once, and presignatures that all signers know by the same id", async () => {
    const auxOrder = { sessionId: systemRandom.bytes(16), walletId: "segwit" };
    const all = [1, 2, 3, 4];
    const epochs = await together(all, (nodeId) => calls.generateAuxInfo(nodeId, auxOrder, timeout(PATIENCE_MS)));
    assert.equal(new Set(epochs.map((epoch) => Buffer.from(epoch).toString("hex"))).size, 1);
    const again = { ...auxOrder, sessionId: systemRandom.bytes(16) };
    await assert.rejects(calls.generateAuxInfo("node-1", again, timeout()), code("aux-info-exists"));
    const order = { sessionId: systemRandom.bytes(16), walletId: "segwit", signers, count: 2 };
    const made = await together(signers, (nodeId) => calls.presign(nodeId, order, timeout(PATIENCE_MS)));
    const names = made.map((list) => list.map((id) => Buffer.from(id).toString("hex")).sort());
    assert.equal(names[0]?.length, 2);
    assert.deepEqual(names[1], names[0]);
    assert.deepEqual(names[2], names[0]);
    ids = made[0] ?? [];
  });

  it("signs with one, and never again: not another payment, not the same", async () => {
    const [first] = ids;
    assert.ok(first !== undefined);
    const voted = await approve(300_000n);
    const foreign = { ...wallet.order(voted, [1, 2, 4]), presignatureIds: [first] };
    await assert.rejects(calls.sign("node-1", foreign, timeout()), code("presignature-signers"));
    await assert.rejects(calls.sign("node-2", foreign, timeout()), code("presignature-signers"));
    await assert.rejects(calls.sign("node-4", foreign, timeout()), code("presignature-unknown"));
    await refusedByAll("presignature-count", wallet.order(voted, signers));
    await refusedByAll("presignature-count", { ...wallet.order(voted, signers), presignatureIds: [...ids] });
    const answers = await wallet.sign({ ...wallet.order(voted, signers), presignatureIds: [first] });
    assert.ok(
      answers.every(({ status }) => status === "fulfilled"),
      JSON.stringify(answers),
    );
    await refusedByAll("presignature-unknown", { ...wallet.order(voted, signers), presignatureIds: [first] });
    const next = await approve(200_000n);
    await refusedByAll("presignature-unknown", { ...wallet.order(next, signers), presignatureIds: [first] });
    const left = await together(signers, (nodeId) => calls.waiting(nodeId, "segwit", timeout()));
    assert.deepEqual(
      left.map((waiting) => waiting.length),
      [1, 1, 1],
    );
  });
});
