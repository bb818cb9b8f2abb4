import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Point } from "../../src/crypto/curve.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { decodeKeyShare, type KeyShare } from "../../src/protocols/key-share.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import type { HeldWallet } from "../../src/storage/key-store.js";
import { TestCluster } from "./cluster.js";
import { HandChange } from "./hand-change.js";
import { HandCoordinator, startTestChain } from "./hand-coordinator.js";
import { mixtures, opened, subsets } from "./opened-shares.js";

const WALLET = "changing";
const named = (...indices: number[]): string[] => indices.map((index) => `node-${index}`);

describe("a Taproot wallet's shares change over QUIC", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let firm: HandCoordinator;
  let hand: HandChange;

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({ nodes: 7, chain });
    const mesh = await cluster.mesh("coordinator-1");
    const parties = named(1, 2, 3, 4, 5);
    firm = await HandCoordinator.open(
      { calls: cluster.callsOver(mesh), server, parties },
      { walletId: WALLET, coins: 5 },
    );
    hand = new HandChange(mesh, WALLET, { publicKeyPackage: firm.publicKeyPackage, parties, epoch: 0 });
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });

  const stolen = (nodeId: string): Promise<HeldWallet> => cluster.stolenFrom(nodeId, WALLET);
  const shareOf = async (nodeId: string): Promise<KeyShare> => {
    const { wallet } = await stolen(nodeId);
    assert.ok(wallet !== undefined);
    return decodeKeyShare(wallet.keyShare.reveal());
  };
  const shares = (parties: readonly string[]): Promise<KeyShare[]> => Promise.all(parties.map(shareOf));

  /** Spends the coin of this index with these signers of the parties; the chain's interpreter judges. */
  async function pay(coin: number, parties: readonly string[], signers: readonly number[]): Promise<void> {
    const holders = firm.heldBy(parties);
    const coins = holders.coins.slice(coin, coin + 1);
    const voted = await holders.vote(holders.propose(holders.request(), holders.build({ coins }).psbt));
    await holders.pay(voted, signers, coins);
  }

  it("refresh 3 of 5: payments go on while it is prepared and after the switch, under the same key", async () => {
    const parties = named(1, 2, 3, 4, 5);
    const before = await shares(parties);
    const change = hand.sign();
    for (const outcome of await hand.prepare(change))
      assert.deepEqual(outcome, { status: "fulfilled", value: undefined });
    await pay(0, parties, [2, 3, 5]);
    const certificate = await hand.certificate(change);
    for (const nodeId of parties) await hand.switchAt(nodeId, certificate);
    await pay(1, parties, [1, 3, 4]);

    const after = await shares(parties);
    const key = before[0]?.groupKey ?? Point.identity;
    assert.ok(opened(before.slice(0, 3)).equals(key), "three old shares opened the key");
    assert.ok(opened(after.slice(2)).equals(key), "three new shares open it");
    // 180 ways to mix them, 3 old shares with 2 new ones among them.
    const mixed = [...mixtures(before, after)];
    assert.equal(mixed.length, 180);
    assert.ok(mixed.some((some) => some.filter((share) => before.includes(share)).length === 3 && some.length === 5));
    for (const some of mixed) assert.ok(!opened(some).equals(key), "shares of two epochs open nothing together");
    for (const nodeId of parties) {
      const { prepared, wallet } = await stolen(nodeId);
      assert.deepEqual([prepared.length, wallet?.epoch], [0, 1], "nothing of the old epoch is left");
      assert.ok((await hand.status(nodeId)).switched !== undefined, "everybody can hand the certificate on");
    }
    hand.base = { publicKeyPackage: certificate.publicKeyPackage, parties, epoch: 1 };
  });

  it("reshare 3 of 5 to 4 of 7: two nodes join, four sign", async () => {
    const old = await shares(named(1, 2, 3, 4, 5));
    const parties = named(1, 2, 3, 4, 5, 6, 7);
    await hand.complete(hand.sign({ kind: "reshare", threshold: 4, parties }), { dealers: [1, 3, 5] });
    await assert.rejects(pay(2, parties, [1, 6, 7]), { code: "signers" });
    await pay(2, parties, [2, 4, 6, 7]);
    const fresh = await shares(parties);
    const key = fresh[0]?.groupKey ?? Point.identity;
    assert.ok(key.equals(old[0]?.groupKey ?? Point.identity));
    assert.ok(opened(fresh.slice(3)).equals(key));
    for (const three of subsets(fresh, 3)) assert.ok(!opened(three).equals(key), "three no longer suffice");
    const mixed = [...mixtures(old, fresh)];
    assert.ok(mixed.length > 800);
    for (const some of mixed) assert.ok(!opened(some).equals(key), "shares of two epochs open nothing together");
    for (const nodeId of parties) assert.equal((await stolen(nodeId)).wallet?.threshold, 4);
  });

  it("reshare 4 of 7 to 2 of 3 in another order: those who leave erase, the others get other indices", async () => {
    const parties = named(6, 2, 4);
    await hand.complete(hand.sign({ kind: "reshare", threshold: 2, parties }), { dealers: [1, 3, 5, 7] });
    for (const nodeId of named(1, 3, 5, 7)) {
      const { wallet, prepared } = await stolen(nodeId);
      assert.deepEqual([wallet, prepared.length], [undefined, 0]);
      assert.equal((await hand.status(nodeId)).holds, false);
    }
    assert.deepEqual(
      (await shares(parties)).map(({ self }) => self),
      [1, 2, 3],
    );
    await pay(3, parties, [1, 3]);
    await assert.rejects(
      firm.calls.vote("node-1", firm.propose(firm.request(), firm.build().psbt), AbortSignal.timeout(9_000)),
      {
        code: "wallet-unknown",
      },
    );
  });
});
