import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Scheme, WalletView } from "../../src/wallet/wallet-application.js";
import { STEPS, type Step } from "../node/dying-node.js";
import { changed, funded, order, pays } from "./ordering.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

const isFull = process.env["FULL_SWEEP"] === "1";
/** Every step takes some seconds: `npm run test:kill` dies at all of them, `npm test` at those that differ most. */
const steps: readonly Step[] = isFull ? STEPS : ["before prepared write", "before switch write", "before burn"];

describe("kill -9 of a node at every step of a change of shares: Taproot", () => killEverywhere("frost"));

// In each try all nodes prove their moduli anew, for seconds.
describe("kill -9 of a node at every step of a change of shares: SegWit", { skip: !isFull }, () =>
  killEverywhere("cggmp24"),
);

/** Nodes are processes; one dies at each step of a change, and comes back. */
function killEverywhere(scheme: Scheme): void {
  let firm: PayingFirm;
  let wallet: WalletView;

  before(async () => {
    firm = await PayingFirm.start({ pool: testPools({}), nodes: 4, processes: true });
    const parties = ["node-1", "node-2", "node-3"];
    wallet = await firm.application.createWallet({ name: "w", scheme, threshold: 2, parties });
    await funded(firm, wallet.walletId);
  });
  after(async () => {
    await firm?.close();
  });

  /** Whoever holds a share holds the next epoch and nothing else, and the wallet pays. */
  async function assertSwitched(): Promise<void> {
    const { walletId } = wallet;
    const now = await firm.application.getWallet(walletId);
    assert.deepEqual(now.groupKey, wallet.groupKey);
    assert.equal(now.epoch, wallet.epoch + 1);
    wallet = now;
    assert.deepEqual(await holdings(now), expected(now));
    await pays(firm, walletId, 20_000n);
  }

  /** Of each node: the epoch of its share, and how many shares it holds that are only prepared. */
  async function holdings({ walletId }: WalletView): Promise<readonly unknown[]> {
    const all: unknown[] = [];
    for (const { nodeId } of firm.cluster.roster.nodes) {
      const held = await firm.cluster.stolenFrom(nodeId, walletId);
      all.push([nodeId, held.wallet?.epoch, held.prepared.length]);
    }
    return all;
  }

  const expected = ({ parties, epoch }: WalletView): readonly unknown[] =>
    firm.cluster.roster.nodes.map(({ nodeId }) => [nodeId, parties.includes(nodeId) ? epoch : undefined, 0]);

  async function hasSwitched(): Promise<boolean> {
    const now = await firm.application.getWallet(wallet.walletId);
    return JSON.stringify(await holdings(now)) === JSON.stringify(expected(now));
  }

  async function dies(step: Step, victim: string, bytes: Uint8Array): Promise<void> {
    const dying = firm.cluster.process(victim);
    dying.dieAt(step);
    await firm.application.changeWallet(bytes);
    await dying.ended;
    await firm.cluster.stopNode(victim);
  }

  async function survives(step: Step, victim: string, bytes: Uint8Array): Promise<void> {
    await dies(step, victim, bytes);
    // The others go on paying, with old or with new shares.
    await pays(firm, wallet.walletId, 20_000n);
    await firm.cluster.startNode(victim);
    const done = await changed(firm, wallet.walletId);
    assert.equal(done.state, "switched", JSON.stringify(done));
    await assertSwitched();
  }

  for (const [place, step] of steps.entries()) {
    it(`a party of a refresh dies ${step}`, async () => {
      await survives(step, wallet.parties[place % wallet.parties.length] ?? "", order(wallet));
    });
  }

  it("one that leaves dies before it erases, one that joins after it prepared", async () => {
    const parties = ["node-1", "node-2", "node-4"];
    await dies("before switch write", "node-3", order(wallet, { threshold: 2, parties }));
    await firm.cluster.startNode("node-3");
    await changed(firm, wallet.walletId);
    await assertSwitched();
    if (!isFull) return;
    const back = ["node-3", "node-2", "node-4"];
    await survives("after prepared write", "node-3", order(wallet, { threshold: 2, parties: back }));
  });

  it("a node that dies for good before it has prepared is reshared away by an order that supersedes", async () => {
    const { walletId } = wallet;
    const victim = "node-2";
    await dies("before prepared write", victim, order(wallet));
    const parties = ["node-1", "node-4", "node-3"];
    const without = { threshold: 2, parties };
    await assert.rejects(firm.application.changeWallet(order(wallet, without)), { code: "change-running" });
    await firm.application.changeWallet(order(wallet, { ...without, supersedes: true }));
    let { epoch } = wallet;
    for (let wait = 0; epoch === wallet.epoch && wait < 1_200; wait++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      ({ epoch } = await firm.application.getWallet(walletId));
    }
    await pays(firm, walletId, 20_000n);
    // It comes back after all, is told, and erases.
    await firm.cluster.startNode(victim);
    assert.equal((await changed(firm, walletId)).state, "switched");
    await assertSwitched();
  });

  it("a coordinator that goes in the middle and has lost its records goes on from what the nodes know", async () => {
    const [victim = ""] = wallet.parties;
    await dies("soon after prepared write", victim, order(wallet));
    await firm.stopCoordinator(["/wallet-changes/", "/wallet-switches/"]);
    await firm.cluster.startNode(victim);
    await firm.startCoordinator();
    let { epoch } = wallet;
    for (let wait = 0; epoch === wallet.epoch && wait < 600; wait++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      ({ epoch } = await firm.application.getWallet(wallet.walletId));
    }
    // The nodes told of the switch, not of the order: when all of them had switched there is no change left to show.
    for (let wait = 0; !(await hasSwitched()) && wait < 300; wait++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await assertSwitched();
  });
}
