import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { verifyTrail } from "../../src/coordinator/audit-verification.js";
import type { Coordinator } from "../../src/coordinator/coordinator.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import { EtcdCoordination } from "../../src/storage/etcd-coordination.js";
import type { PaymentView, WalletView } from "../../src/wallet/wallet-application.js";
import { TestCluster } from "../node/cluster.js";
import { RECIPIENT, startTestChain } from "../node/hand-coordinator.js";
import { etcdMissing, type PrivateEtcd, privateEtcd } from "../storage/private-etcd.js";
import { type PrivatePostgres, postgresMissing, privatePostgres } from "../storage/private-postgres.js";
import { clientRequest } from "./client-request.js";
import { startTestCoordinator } from "./test-coordinator.js";

const skip = etcdMissing ?? postgresMissing ?? false;
const ELECTION_TTL_MS = 5_000;

/** One of the coordinators with the connections that it has to what they share. */
interface Seat {
  readonly coordinator: Coordinator;
  readonly audit: DatabaseAuditTrail;
  close(): Promise<void>;
}

describe("two coordinators over etcd and PostgreSQL", { skip }, () => {
  let etcd: PrivateEtcd;
  let postgres: PrivatePostgres;
  let server: ChainServer;
  let cluster: TestCluster;
  let chain: EsploraChainSource;
  let wallet: WalletView;
  const seats = new Map<string, Seat>();

  before(async () => {
    [etcd, postgres, server] = await Promise.all([privateEtcd(), privatePostgres(), startTestChain()]);
    const owner = AuditDatabase.postgres({ url: postgres.url });
    await owner.migrate();
    await owner.close();
    chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({ nodes: 5, chain, coordinators: 2 });
    await start("coordinator-1");
    await elected("coordinator-1");
    await start("coordinator-2");
  });
  after(async () => {
    for (const seat of seats.values()) await seat.close();
    await cluster?.close();
    await server?.close();
    await Promise.all([etcd?.remove(), postgres?.remove()]);
  });

  async function start(nodeId: string): Promise<void> {
    const database = AuditDatabase.postgres({ url: postgres.url });
    const audit = new DatabaseAuditTrail({}, { database, clock: systemClock });
    const coordination = new EtcdCoordination({ hosts: [etcd.url] }, { clock: systemClock });
    const coordinator = await startTestCoordinator(
      cluster,
      { chain, audit, coordination, database },
      { member: await cluster.member(nodeId), electionTtlMs: ELECTION_TTL_MS },
    );
    const close = async (): Promise<void> => {
      seats.delete(nodeId);
      await coordinator.close();
      await audit.close();
      await database.close();
      await coordination.close();
    };
    seats.set(nodeId, { coordinator, audit, close });
  }
  function seat(nodeId: string): Seat {
    const found = seats.get(nodeId);
    assert.ok(found !== undefined, `${nodeId} does not run`);
    return found;
  }
  const application = (nodeId: string) => seat(nodeId).coordinator.application;
  async function elected(nodeId: string): Promise<void> {
    for (const untilMs = performance.now() + 30_000; performance.now() < untilMs; ) {
      if ((await application(nodeId).health()).leader === nodeId) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail(`${nodeId} was not elected`);
  }
  const request = () => clientRequest({ walletId: wallet.walletId, address: RECIPIENT, amountSat: 200_000n });
  async function reached(nodeId: string, paymentId: string, phases: readonly PaymentView["phase"][]) {
    let last: PaymentView | undefined;
    for await (const view of application(nodeId).watchPayment(paymentId, AbortSignal.timeout(60_000))) {
      last = view;
      if (phases.includes(view.phase)) return view;
    }
    throw new Error(`the payment ended as ${last?.phase}: ${last?.failure?.message}`);
  }

  it("one leads; the other knows the wallets and payments, and takes none", async () => {
    wallet = await application("coordinator-1").createWallet({
      name: "main",
      scheme: "frost",
      threshold: 3,
      parties: [],
    });
    for (let n = 0; n < 4; n++) {
      const { scriptPubKey } = await application("coordinator-1").newAddress(wallet.walletId);
      server.faucet.pay(scriptPubKey, 1_000_000n);
    }
    server.chain.mine(1, server.faucet.scriptPubKey);
    const paid = await application("coordinator-1").sendPaymentAndWait(request());
    assert.equal(paid.phase, "broadcast", JSON.stringify(paid.failure));
    assert.deepEqual(await application("coordinator-2").listWallets(), [wallet]);
    assert.equal((await application("coordinator-2").payment(paid.paymentId)).txid, paid.txid);
    assert.equal((await application("coordinator-2").health()).leader, "");
    await assert.rejects(application("coordinator-2").sendPayment(request()), { code: "not-leading" });
  });

  it("when the leader goes, the other leads, ends the payment that was under way, and pays", async () => {
    for (const nodeId of ["node-3", "node-4", "node-5"]) await cluster.stopNode(nodeId);
    const { paymentId } = await application("coordinator-1").sendPayment(request());
    await reached("coordinator-1", paymentId, ["voting"]);
    await seat("coordinator-1").close();
    for (const nodeId of ["node-3", "node-4", "node-5"]) await cluster.startNode(nodeId);
    await elected("coordinator-2");
    const resumed = await reached("coordinator-2", paymentId, ["broadcast", "confirmed"]);
    const next = await application("coordinator-2").sendPaymentAndWait(request());
    assert.equal(next.phase, "broadcast", JSON.stringify(next.failure));
    assert.notEqual(next.txid, resumed.txid);
  });

  it("a leader that etcd forgot stops, and the one that it elects goes on with the same trail", async () => {
    await start("coordinator-1");
    await etcd.crash();
    await new Promise((resolve) => setTimeout(resolve, 2 * ELECTION_TTL_MS));
    assert.equal((await application("coordinator-2").health()).leader, "", "who cannot renew leads no longer");
    await assert.rejects(application("coordinator-2").sendPayment(request()));
    await etcd.start();
    let leader = "";
    for (const untilMs = performance.now() + 30_000; leader === "" && performance.now() < untilMs; ) {
      for (const nodeId of seats.keys()) leader ||= (await application(nodeId).health()).leader;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.notEqual(leader, "", "nobody leads although etcd is back");
    server.chain.mine(1, server.faucet.scriptPubKey);
    const paid = await application(leader).sendPaymentAndWait(request());
    assert.equal(paid.phase, "broadcast", JSON.stringify(paid.failure));
    const { problems, entries } = await verifyTrail({ audit: seat(leader).audit, roster: cluster.roster, chain });
    assert.deepEqual(problems, []);
    assert.ok(entries > 0n);
  });
});
