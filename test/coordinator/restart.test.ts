import assert from "node:assert/strict";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Coordinator } from "../../src/coordinator/coordinator.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { JournaledSpace } from "../../src/storage/journaled-space.js";
import type { PaymentView, WalletApplication, WalletView } from "../../src/wallet/wallet-application.js";
import { TestCluster } from "../node/cluster.js";
import { RECIPIENT, startTestChain } from "../node/hand-coordinator.js";
import { SampleTrail } from "../wallet/sample-firm.js";
import { clientRequest } from "./client-request.js";
import { startTestCoordinator } from "./test-coordinator.js";

describe("a lone coordinator that starts again", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let chain: EsploraChainSource;
  let coordinator: Coordinator;
  let space: JournaledSpace;
  let database: AuditDatabase;
  let application: WalletApplication;
  let wallet: WalletView;

  before(async () => {
    server = await startTestChain();
    chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({ nodes: 5, chain });
    await start(join(cluster.folder, "data"));
  });
  after(async () => {
    await stop();
    await cluster?.close();
    await server?.close();
  });

  async function start(folder: string): Promise<void> {
    space = await JournaledSpace.open({ folder: join(folder, "coordination") }, { clock: systemClock });
    database = await AuditDatabase.embedded({ folder: join(folder, "audit") });
    await database.migrate();
    const coordination = space.space.connect();
    coordinator = await startTestCoordinator(cluster, { chain, audit: new SampleTrail(), coordination, database });
    ({ application } = coordinator);
  }
  async function stop(): Promise<void> {
    await coordinator?.close();
    await database?.close();
    await space?.close();
  }
  const request = () => clientRequest({ walletId: wallet.walletId, address: RECIPIENT, amountSat: 200_000n });
  async function reached(paymentId: string, phases: readonly PaymentView["phase"][]): Promise<PaymentView> {
    let last: PaymentView | undefined;
    for await (const view of application.watchPayment(paymentId, AbortSignal.timeout(30_000))) {
      last = view;
      if (phases.includes(view.phase)) return view;
    }
    throw new Error(`the payment ended as ${last?.phase}: ${last?.failure?.message}`);
  }

  it("knows its wallets, goes on with an unfinished payment, and never gives an address index again", async () => {
    wallet = await application.createWallet({ name: "main", scheme: "frost", threshold: 3, parties: [] });
    const addresses = [];
    for (let n = 0; n < 3; n++) addresses.push(await application.newAddress(wallet.walletId));
    for (const { scriptPubKey } of addresses) server.faucet.pay(scriptPubKey, 1_000_000n);
    server.chain.mine(1, server.faucet.scriptPubKey);
    const paid = await application.sendPaymentAndWait(request());
    assert.equal(paid.phase, "broadcast", JSON.stringify(paid.failure));

    // Two nodes are too few to approve: the payment waits for votes when the coordinator goes away.
    for (const nodeId of ["node-3", "node-4", "node-5"]) await cluster.stopNode(nodeId);
    const { paymentId } = await application.sendPayment(request());
    await reached(paymentId, ["voting"]);
    // What is on disk now is what a process that is killed here leaves behind.
    const left = join(cluster.folder, "left");
    await cp(join(cluster.folder, "data"), left, { recursive: true });
    await stop();
    for (const nodeId of ["node-3", "node-4", "node-5"]) await cluster.startNode(nodeId);
    await start(left);

    assert.deepEqual(await application.listWallets(), [wallet]);
    const resumed = await reached(paymentId, ["broadcast", "confirmed"]);
    assert.equal(resumed.paymentId, paymentId);
    assert.equal((await application.payment(paid.paymentId)).txid, paid.txid);
    const next = await application.newAddress(wallet.walletId);
    assert.equal(next.index, 3);
    assert.ok(addresses.every(({ address }) => address !== next.address));
    const third = await application.sendPaymentAndWait(request());
    assert.equal(third.phase, "broadcast", JSON.stringify(third.failure));
    const change = [paid, resumed, third].flatMap(({ rawTransaction }) => changeScripts(rawTransaction));
    assert.equal(change.length, 3);
    assert.equal(new Set(change).size, 3, "every payment has a change address of its own");
    await assert.rejects(application.createWallet({ name: "main", scheme: "frost", threshold: 3, parties: [] }), {
      code: "wallet-exists",
    });
  });
});

/** Taproot outputs in hex: the recipient of these tests has another type. */
function changeScripts(transaction: Uint8Array | undefined): string[] {
  return (
    Buffer.from(transaction ?? [])
      .toString("hex")
      .match(/225120[0-9a-f]{64}/g)
      ?.slice() ?? []
  );
}
