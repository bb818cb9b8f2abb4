import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeerSilent } from "../../src/crypto/fault.js";
import type { PeerPresigning, PresignOrder } from "../../src/wallet/peer-presigning.js";
import { type PooledWallet, type PoolSize, PresignaturePool } from "../../src/wallet/presignature-pool.js";
import { seededRandom } from "../fixtures/parties.js";
import { realClock } from "../storage/manual-clock.js";
import { SampleCoordination } from "./sample-coordination.js";

const parties = ["node-1", "node-2", "node-3", "node-4", "node-5"];
const wallet = { walletId: "treasury", scheme: "cggmp24" as const, threshold: 3, parties };

/** Nodes that make presignatures out of nothing. */
class SampleNodes implements PeerPresigning {
  readonly down = new Set<string>();
  /** Wallets whose presigning never ends. */
  readonly slow = new Set<string>();
  readonly orders: PresignOrder[] = [];
  readonly #kept = new Map<string, Map<string, { readonly id: Uint8Array; readonly signers: readonly number[] }>>();

  async prepareAuxInfo(): Promise<void> {}
  async generateAuxInfo(): Promise<Uint8Array> {
    return new Uint8Array(32);
  }
  async progress() {
    return { primes: { ready: 1, found: 0, tested: 0 }, auxInfo: [] };
  }
  /** As after a restore of all nodes. */
  lose(): void {
    this.#kept.clear();
  }
  async presign(nodeId: string, order: PresignOrder, signal: AbortSignal): Promise<readonly Uint8Array[]> {
    this.#answer(nodeId);
    if (this.slow.has(order.walletId)) {
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    }
    if (order.signers.some((party) => this.down.has(parties[party - 1] ?? ""))) {
      throw new PeerSilent("session-timeout", "a signer is silent", [...this.down]);
    }
    if (parties[(order.signers[0] ?? 0) - 1] === nodeId) this.orders.push(order);
    const place = `${order.walletId}/${nodeId}`;
    const kept = this.#kept.get(place) ?? new Map();
    this.#kept.set(place, kept);
    return Array.from({ length: order.count }, (_, index) => {
      const id = new Uint8Array(32);
      id.set(order.sessionId);
      id[31] = index;
      kept.set(Buffer.from(id).toString("hex"), { id, signers: order.signers });
      return id;
    });
  }
  async waiting(nodeId: string, walletId: string) {
    this.#answer(nodeId);
    return [...(this.#kept.get(`${walletId}/${nodeId}`)?.values() ?? [])];
  }
  forget(nodeId: string): void {
    this.#kept.delete(`${wallet.walletId}/${nodeId}`);
  }
  #answer(nodeId: string): void {
    if (this.down.has(nodeId)) throw new PeerSilent("silent", "this node is down", [nodeId]);
  }
}

function poolOf(
  nodes: SampleNodes,
  change: Partial<PoolSize> = {},
  parts: { readonly coordination?: SampleCoordination; readonly wallets?: readonly PooledWallet[] } = {},
) {
  const errors: unknown[] = [];
  const size = { target: 20, minimum: 10, batch: 5, presignTimeoutMs: 500, ...change };
  const { wallets = [wallet], coordination = new SampleCoordination() } = parts;
  const options = {
    sizes: { cggmp24: size, frost: size },
    checkIntervalMs: 5,
    lockTtlMs: 1_000,
    callTimeoutMs: 500,
  };
  const pool = new PresignaturePool(options, {
    presigning: nodes,
    coordination,
    clock: realClock,
    random: seededRandom("pool"),
    wallets: async () => wallets,
    leads: () => true,
    onError: (error) => errors.push(error),
  });
  const filled = async (count: number): Promise<void> => {
    while ((await pool.status(wallet.walletId)).available < count) await new Promise((go) => setTimeout(go, 5));
  };
  return { pool, errors, filled };
}

describe("presignature pool, 3 of 5", () => {
  const never = new AbortController().signal;

  it("fills every signing set, each with its first before any with its second", async () => {
    const nodes = new SampleNodes();
    const { pool, filled, errors } = poolOf(nodes);
    await filled(20);
    await new Promise((go) => setTimeout(go, 30));
    assert.deepEqual(await pool.status("treasury"), {
      walletId: "treasury",
      available: 20,
      inUse: 0,
      failed: 0,
      target: 20,
      minimum: 10,
    });
    assert.equal(new Set(nodes.orders.slice(0, 10).map(({ signers }) => signers.join())).size, 10);
    assert.deepEqual(errors, []);
    await pool.close();
  });

  it("any two nodes may be down: the others have a presignature", async () => {
    const nodes = new SampleNodes();
    const { pool, filled } = poolOf(nodes);
    await filled(20);
    await pool.close();
    const idle = poolOf(nodes, { target: 0, minimum: 0 });
    for (const first of parties) {
      for (const second of parties.filter((other) => other > first)) {
        const willing = parties.filter((nodeId) => nodeId !== first && nodeId !== second);
        const reserved = await idle.pool.reserve({ wallet, count: 1, willing: () => willing }, never);
        assert.deepEqual(
          reserved.signers.map((party) => parties[party - 1]),
          willing,
        );
      }
    }
    await idle.pool.close();
  });

  it("goes on filling the other sets while a node is down", async () => {
    const nodes = new SampleNodes();
    nodes.down.add("node-5");
    const { pool, filled } = poolOf(nodes);
    await filled(8); // four sets without node-5, two each
    assert.ok(nodes.orders.every(({ signers }) => !signers.includes(5)));
    await pool.close();
  });

  it("hands a presignature out once, although the nodes still list it", async () => {
    const nodes = new SampleNodes();
    const { pool, filled } = poolOf(nodes);
    await filled(20);
    const seen = new Set<string>();
    for (let round = 0; round < 5; round++) {
      const { ids } = await pool.reserve({ wallet, count: 2, willing: () => parties }, never);
      await filled(0); // asks the nodes again
      for (const id of ids) {
        const name = Buffer.from(id).toString("hex");
        assert.ok(!seen.has(name));
        seen.add(name);
      }
    }
    await pool.close();
  });

  it("says who was silent when nothing waits and nothing can be made", async () => {
    const nodes = new SampleNodes();
    const { pool } = poolOf(nodes, { target: 0, minimum: 0 });
    nodes.down.add("node-2");
    await assert.rejects(
      pool.reserve({ wallet, count: 1, willing: () => parties }, never),
      (error) => error instanceof PeerSilent && error.silent.includes("node-2"),
    );
    await pool.close();
  });

  describe("nonces of a Taproot wallet", () => {
    const taproot = { ...wallet, walletId: "taproot", scheme: "frost" as const };
    const order = { wallet: taproot, count: 2, willing: () => ["node-5", "node-2", "node-1", "node-3"] };

    it("wait like presignatures, and are handed out once", async () => {
      const nodes = new SampleNodes();
      const { pool } = poolOf(nodes, {}, { wallets: [taproot] });
      while ((await pool.status("taproot")).available < 20) await new Promise((go) => setTimeout(go, 5));
      const first = await pool.reserve(order, never);
      assert.equal(first.ids.length, 2);
      assert.deepEqual(first.signers, [1, 2, 5], "the preferred set");
      assert.equal((await pool.status("taproot")).inUse, 2);
      pool.settle(first, "used");
      assert.equal((await pool.status("taproot")).inUse, 0);
      await pool.close();
    });

    it("are not waited for: without any the preferred signers sign all the same", async () => {
      const nodes = new SampleNodes();
      const { pool } = poolOf(nodes, { target: 0, minimum: 0 }, { wallets: [taproot] });
      assert.deepEqual(await pool.reserve(order, never), { walletId: "taproot", signers: [1, 2, 5], ids: [] });
      assert.equal(nodes.orders.length, 0);
      await pool.close();
    });

    it("are asked for again after a failure: nothing is handed out of a list that may be wrong", async () => {
      const nodes = new SampleNodes();
      const { pool } = poolOf(nodes, {}, { wallets: [taproot] });
      while ((await pool.status("taproot")).available < 20) await new Promise((go) => setTimeout(go, 5));
      const failed = await pool.reserve(order, never);
      nodes.lose();
      pool.settle(failed, "failed");
      assert.deepEqual((await pool.reserve(order, never)).ids, []);
      while ((await pool.status("taproot")).available < 20) await new Promise((go) => setTimeout(go, 5));
      assert.equal((await pool.reserve(order, never)).ids.length, 2);
      await pool.close();
    });

    it("do not stand behind presignatures, which take minutes", async () => {
      const nodes = new SampleNodes();
      nodes.slow.add("treasury");
      const { pool } = poolOf(nodes, { presignTimeoutMs: 60_000 }, { wallets: [wallet, taproot] });
      while ((await pool.status("taproot")).available < 20) await new Promise((go) => setTimeout(go, 5));
      assert.equal((await pool.status("treasury")).available, 0);
      await pool.close();
    });
  });

  it("counts what failed where a restarted coordinator finds it; in use is what is handed out now", async () => {
    const nodes = new SampleNodes();
    const coordination = new SampleCoordination();
    const first = poolOf(nodes, {}, { coordination });
    await first.filled(20);
    await first.pool.close();
    const { pool } = poolOf(nodes, { target: 0, minimum: 0 }, { coordination });
    const failing = await pool.reserve({ wallet, count: 2, willing: () => parties }, never);
    assert.equal((await pool.status("treasury")).inUse, 2);
    pool.settle(failing, "failed");
    const used = await pool.reserve({ wallet, count: 1, willing: () => parties }, never);
    pool.settle(used, "used");
    const { inUse, failed } = await pool.status("treasury");
    assert.deepEqual({ inUse, failed }, { inUse: 0, failed: 2 });
    await pool.reserve({ wallet, count: 1, willing: () => parties }, never); // under way when the coordinator ends
    await pool.close();
    const again = poolOf(nodes, { target: 0, minimum: 0 }, { coordination });
    const restarted = await again.pool.status("treasury");
    assert.deepEqual({ inUse: restarted.inUse, failed: restarted.failed }, { inUse: 0, failed: 2 });
    await again.pool.close();
  });

  it("asks the nodes again after a failure before it hands out more", async () => {
    const nodes = new SampleNodes();
    const { pool, filled } = poolOf(nodes);
    await filled(20);
    await pool.close();
    const idle = poolOf(nodes, { target: 0, minimum: 0 });
    const willing = ["node-1", "node-2", "node-3"];
    const reserved = await idle.pool.reserve({ wallet, count: 1, willing: () => willing }, never);
    nodes.forget("node-1"); // a node that was restored has burned its pool
    idle.pool.settle(reserved, "failed");
    const next = await idle.pool.reserve({ wallet, count: 1, willing: () => parties }, never);
    assert.ok(!next.signers.includes(1), "a presignature that node-1 has burned was handed out");
    await idle.pool.close();
  });

  it("leaves the filling to whoever holds the lock", async () => {
    const nodes = new SampleNodes();
    const coordination = new SampleCoordination();
    const lock = await coordination.tryLock("/locks/presig-generation");
    const { pool, filled } = poolOf(nodes, {}, { coordination });
    await new Promise((go) => setTimeout(go, 40));
    assert.equal(nodes.orders.length, 0);
    await lock?.release();
    await filled(20);
    await pool.close();
  });
});
