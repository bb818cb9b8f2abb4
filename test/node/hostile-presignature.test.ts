import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { ControlService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { InvalidInput, PeerSilent, Unavailable } from "../../src/crypto/fault.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import type { PeerMesh } from "../../src/network/peer-mesh.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { LevelDisk } from "../../src/storage/ledger-disk.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { TestCluster } from "./cluster.js";
import { HandCoordinator, startTestChain, timeout, type Voted } from "./hand-coordinator.js";

const code = (wanted: string) => (error: unknown) => error instanceof InvalidInput && error.code === wanted;
const PATIENCE_MS = 90_000;

describe("a compromised coordinator uses a presignature once, 3 of 4", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let mesh: PeerMesh;
  let calls: PeerCalls;
  let wallet: HandCoordinator;
  let ids: readonly Uint8Array[];
  /** Nodes that began a session which makes shares, in order. */
  const signings: string[] = [];
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
    cluster = await TestCluster.start({
      nodes: 4,
      chain,
      coordinators: 2,
      observe: (nodeId, inner) => ({
        run: (job, seat, wire) => {
          if (job.kind === "cggmp24-sign") signings.push(nodeId);
          return inner.run(job, seat, wire);
        },
        close: () => inner.close(),
      }),
    });
    mesh = await cluster.mesh("coordinator-1");
    calls = cluster.callsOver(mesh);
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

  it("two coordinators that order the same one at the same moment for two payments: each node obeys one of them", async () => {
    const [, second] = ids;
    assert.ok(second !== undefined);
    const rival = cluster.callsOver(await cluster.mesh("coordinator-2"));
    const orders = await Promise.all(
      [310_000n, 320_000n].map(async (amountSat) => ({
        ...wallet.order(await approve(amountSat), signers),
        presignatureIds: [second],
      })),
    );
    signings.length = 0;
    const outcomes = await Promise.all(
      signers.map((index) =>
        Promise.allSettled(
          [calls, rival].map((coordinator, place) => {
            const order = orders[place];
            assert.ok(order !== undefined);
            return coordinator.sign(parties[index - 1] ?? "", order, timeout());
          }),
        ),
      ),
    );
    for (const pair of outcomes) {
      const refused = pair.filter(
        ({ status, ...rest }) =>
          status === "rejected" && code("presignature-unknown")((rest as { reason?: unknown }).reason),
      );
      assert.equal(refused.length, 1);
    }
    assert.deepEqual([...signings].sort(), ["node-1", "node-2", "node-3"], "one session a node");
    const complete = orders.filter((_, place) => outcomes.some((pair) => pair[place]?.status === "fulfilled"));
    assert.ok(complete.length <= 1, "two payments were signed with one presignature");
  });

  describe("trouble with a ledger's disk", () => {
    const ledgerFolder = (nodeId: string): string => join(cluster.folder, nodeId, "ledger");
    const presign = async (count: number): Promise<readonly Uint8Array[]> => {
      const order = { sessionId: systemRandom.bytes(16), walletId: "segwit", signers, count };
      const made = await together(signers, (nodeId) => calls.presign(nodeId, order, timeout(PATIENCE_MS)));
      assert.equal(made[0]?.length, count);
      return made[0] ?? [];
    };
    const restart = async (nodeId: string): Promise<void> => {
      await cluster.startNode(nodeId);
      await mesh.ready([nodeId], 60_000);
      const control = createClient(ControlService, mesh.transport(nodeId));
      for (let poll = 0; (await control.getStatus({}, { timeoutMs: 5_000 })).ledger?.confirmed !== true; poll++) {
        assert.ok(poll < 300, `${nodeId} stays unconfirmed`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    const reasons = (outcomes: readonly PromiseSettledResult<unknown>[]): readonly string[] =>
      outcomes.map((outcome) => {
        if (outcome.status === "fulfilled") return "signed";
        const { reason } = outcome as { readonly reason: unknown };
        return reason instanceof InvalidInput || reason instanceof Unavailable || reason instanceof PeerSilent
          ? reason.code
          : String(reason);
      });

    it("a row that was damaged signs nothing, and the next presignature pays", async () => {
      const [damaged, next] = await presign(2);
      assert.ok(damaged !== undefined && next !== undefined);
      await cluster.stopNode("node-3");
      const disk = await LevelDisk.open(ledgerFolder("node-3"));
      const key = `live/presignature/${Buffer.from(damaged).toString("hex")}`;
      const row = Uint8Array.from((await disk.get(key)) ?? []);
      row[50] = (row[50] ?? 0) ^ 1;
      await disk.write([{ key, value: row }]);
      await disk.close();
      await restart("node-3");
      const voted = await approve(330_000n);
      const failed = reasons(await wallet.sign({ ...wallet.order(voted, signers), presignatureIds: [damaged] }));
      assert.equal(failed[2], "presignature-unknown");
      assert.ok(!failed.includes("signed"), failed.join());
      const paid = reasons(await wallet.sign({ ...wallet.order(voted, signers), presignatureIds: [next] }));
      assert.deepEqual(paid, ["signed", "signed", "signed"]);
    });

    it("a disk that is full while a presignature is taken fails the payment; it makes no share, and no signature later", async (context) => {
      const [lost, next] = await presign(2);
      assert.ok(lost !== undefined && next !== undefined);
      await cluster.stopNode("node-2");
      const folder = ledgerFolder("node-2");
      const aside = `${folder}.aside`;
      renameSync(folder, aside);
      mkdirSync(folder);
      let isMounted = true;
      try {
        execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], { stdio: "ignore" });
      } catch {
        isMounted = false;
      }
      cpSync(aside, folder, { recursive: true });
      await restart("node-2");
      try {
        if (!isMounted) {
          context.skip("no right to mount a small file system");
          return;
        }
        const ballast = join(folder, "ballast");
        for (let size = 4 << 20; size >= 1; size >>= 1) {
          try {
            writeFileSync(ballast, Buffer.alloc(size), { flag: "a" });
          } catch {
            // full for this size
          }
        }
        // The last page of the ledger's log has room for a few rows yet: they are written until one does not fit.
        const ledger = cluster.ledgers.get("node-2");
        const fill = async (): Promise<void> => {
          for (let row = 0; row < 200; row++) await ledger?.burnAll({ walletId: `row-${row}`, belowEpoch: 1 }, "test");
        };
        await assert.rejects(fill(), (error) => error instanceof Unavailable && error.code === "ledger-write-failed");
        signings.length = 0;
        const voted = await approve(340_000n);
        const failed = reasons(await wallet.sign({ ...wallet.order(voted, signers), presignatureIds: [lost] }));
        assert.equal(failed[1], "ledger-write-failed");
        assert.ok(!signings.includes("node-2"), "no share without a mark on the disk");
        rmSync(ballast);
        const again = reasons(await wallet.sign({ ...wallet.order(voted, signers), presignatureIds: [lost] }));
        // Node 2 never touched its part, so it may offer that once; the others have used theirs up.
        assert.deepEqual([again[0], again[2]], ["presignature-unknown", "presignature-unknown"]);
        assert.notEqual(again[1], "signed");
        const paid = reasons(await wallet.sign({ ...wallet.order(voted, signers), presignatureIds: [next] }));
        assert.deepEqual(paid, ["signed", "signed", "signed"]);
      } finally {
        await cluster.stopNode("node-2");
        if (isMounted) execFileSync("umount", ["-l", folder]);
      }
    });
  });
});
