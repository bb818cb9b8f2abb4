import assert from "node:assert/strict";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { toBinary } from "@bufbuild/protobuf";
import { Transaction } from "bitcoinjs-lib";
import { verifySchnorr } from "tiny-secp256k1";
import { SignedPaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";
import { DEFAULT_POLICY } from "../../src/consensus/policy.js";
import { Coordinator } from "../../src/coordinator/coordinator.js";
import { ed25519PublicKey, signEd25519 } from "../../src/crypto/ed25519.js";
import { scriptFailure } from "../../src/devnet/chain/script-check.js";
import { type ChainServer, startChainServer } from "../../src/devnet/chain/server.js";
import { verificationKeys } from "../../src/gateway/authentication.js";
import type { ServerCertificate } from "../../src/gateway/gateway-server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { AuditRecords } from "../../src/storage/audit-records.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import { DatabasePaymentStore } from "../../src/storage/database-payment-store.js";
import { MemorySpace } from "../../src/storage/memory-coordination.js";
import type { PaymentView, WalletApplication, WalletView } from "../../src/wallet/wallet-application.js";
import { certificates } from "../gateway/gateway-fixture.js";
import { http } from "../gateway/http-request.js";
import { TEST_AUTHORITY, TestCluster } from "../node/cluster.js";
import { testPools } from "./test-coordinator.js";

const HOUR_MS = 3_600_000;

describe("a Taproot wallet of five nodes pays over QUIC", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let database: AuditDatabase;
  let audit: DatabaseAuditTrail;
  let coordinator: Coordinator;
  let application: WalletApplication;
  let wallet: WalletView;
  /** What the files of the gateway's certificate hold. */
  let gatewayFiles: ServerCertificate;

  before(async () => {
    server = await startChainServer(
      {
        port: 0,
        rpcPort: 0,
        rpcUser: "u",
        rpcPassword: "p",
        matureCoinbases: 20,
        blockIntervalMs: 0,
        feeRateSatPerKvb: 2_000,
      },
      { clock: systemClock, onFault: (fault) => assert.fail(String(fault)) },
    );
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({ nodes: 5, chain });
    database = await AuditDatabase.embedded();
    await database.migrate();
    audit = new DatabaseAuditTrail({}, { database, clock: systemClock });
    const { publicKey } = generateKeyPairSync("ed25519");
    const tokenKey = publicKey.export({ format: "pem", type: "spki" }) as string;
    gatewayFiles = {
      certificatePem: cluster.coordinator.credentials.certificateChainPem,
      privateKeyPem: cluster.coordinator.credentials.privateKeyPem,
    };
    coordinator = await Coordinator.start(
      {
        ...cluster.coordinator,
        network: "regtest",
        policy: DEFAULT_POLICY,
        authorities: new Map([[TEST_AUTHORITY.name, ed25519PublicKey(TEST_AUTHORITY.seed)]]),
        trustReloadIntervalMs: 1_000,
        gatewayCertificate: async () => gatewayFiles,
        electionTtlMs: 3_000,
        confirmationPollMs: 50,
        utxoMaxAgeMs: 60_000,
        voteTimeoutMs: 30_000,
        drain: { lameDuckMs: 0, graceMs: 10_000 },
        maxRequestWindowMs: HOUR_MS,
        clockSkewMs: 5_000,
        pool: testPools({}),
        gateway: {
          host: "127.0.0.1",
          port: 0,
          tls: gatewayFiles,
          authentication: {
            keys: await verificationKeys(tokenKey, "token key"),
            audience: "mpc-wallet",
            clockToleranceMs: 5_000,
            lifetimeMaxMs: HOUR_MS,
          },
        },
      },
      {
        clock: systemClock,
        random: systemRandom,
        log: cluster.log,
        chain,
        audit,
        violations: new AuditRecords({ database, clock: systemClock }),
        coordination: new MemorySpace(systemClock).connect(),
        payments: (lease) => new DatabasePaymentStore({ database, clock: systemClock, lease }),
      },
    );
    ({ application } = coordinator);
    await coordinator.ready([...cluster.nodes.keys()], 10_000);
  });
  after(async () => {
    await coordinator?.close();
    await cluster?.close();
    await audit?.close();
    await database?.close();
    await server?.close();
  });

  const request = (change: {
    address: string;
    amountSat: bigint;
    metadataJson?: string;
    requestId?: string;
  }): Uint8Array =>
    toBinary(
      SignedPaymentRequestSchema,
      signPaymentRequest(
        {
          requestId: change.requestId ?? randomUUID(),
          walletId: wallet.walletId,
          recipients: [{ address: change.address, amountSat: change.amountSat }],
          maxFeeRateSatPerKvb: 50_000n,
          metadataJson: change.metadataJson ?? "",
          createdAtMs: BigInt(Date.now()),
          expiresAtMs: BigInt(Date.now() + HOUR_MS / 2),
        },
        { authority: TEST_AUTHORITY.name, sign: (message) => signEd25519(TEST_AUTHORITY.seed, message) },
      ),
    );

  it("offers to peers what a coordinator must, and no call more", () => {
    assert.deepEqual([...coordinator.peerCalls].sort(), [
      "/mpcwallet.pki.v1.CertificateService/Renew",
      "/mpcwallet.pki.v1.CertificateService/SyncRevocations",
      "/mpcwallet.witness.v1.WitnessService/Announce",
      "/mpcwallet.witness.v1.WitnessService/Recall",
    ]);
  });

  it("shows clients a renewed certificate without a restart", async () => {
    const { caPem, ...renewed } = await certificates();
    const url = `https://localhost:${coordinator.gatewayPort}`;
    const shows = () =>
      http({ url, caPem }, "/healthz").then(
        ({ status }) => status === 200,
        () => false,
      );
    assert.equal(await shows(), false);
    gatewayFiles = renewed;
    const endMs = performance.now() + 20_000;
    while (!(await shows()) && performance.now() < endMs) await new Promise((resolve) => setTimeout(resolve, 100));
    assert.ok(await shows());
  });

  it("creates a wallet by distributed key generation", async () => {
    wallet = await application.createWallet({ name: "main", scheme: "frost", threshold: 3, parties: [] });
    assert.equal(wallet.parties.length, 5);
    assert.equal(wallet.groupKey.length, 33);
  });

  it("pays a funded payment that the chain's independent interpreter accepts", async () => {
    const { address, scriptPubKey } = await application.newAddress(wallet.walletId);
    server.faucet.pay(scriptPubKey, 10_000_000n);
    await mine(1);
    assert.match(address, /^bcrt1p/);
    const sent = await application.sendPaymentAndWait(
      request({
        address: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        amountSat: 1_000_000n,
        metadataJson: '{"order":7}',
      }),
    );
    assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
    await mine(1);
    const final = await finalState(sent.paymentId);
    assert.equal(final.phase, "confirmed");
    for (const { step, nodeId, durationMs } of final.timeline)
      console.log(`# ${step} ${nodeId} ${durationMs.toFixed(1)} ms`);
    const { entries, firstBroken } = await audit.verify();
    assert.equal(firstBroken, undefined);
    assert.ok(entries > 3n);
    const balance = await application.balance(wallet.walletId);
    assert.ok(balance.confirmedSat < 9_000_000n && balance.confirmedSat > 8_990_000n);
    await readFile(join(cluster.folder, "node-1", "state.json"), "utf8").then((text) =>
      assert.ok(!text.includes("keyShare")),
    );
  });

  it("every changed byte of the transaction is refused by the interpreter and by a second library", async () => {
    const sent = await application.sendPaymentAndWait(
      request({ address: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", amountSat: 500_000n }),
    );
    assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
    const raw = sent.rawTransaction;
    assert.ok(raw !== undefined);
    const spent = Transaction.fromBuffer(raw).ins.map(({ hash, index }) => {
      const output = server.chain.transaction(Buffer.from(hash).reverse().toString("hex"))?.transaction.outs[index];
      assert.ok(output !== undefined, "the chain knows what is spent");
      return output;
    });
    /** bitcoinjs-lib's sighash and libsecp256k1, on the coins that the untouched transaction spends. */
    const secondLibraryAccepts = (bytes: Uint8Array): boolean => {
      try {
        const transaction = Transaction.fromBuffer(bytes);
        const [scripts, values] = [spent.map(({ script }) => script), spent.map(({ value }) => value)];
        if (transaction.ins.length !== spent.length) return false;
        return transaction.ins.every(({ witness }, index) => {
          const sighash = transaction.hashForWitnessV1(index, scripts, values, 0);
          const [signature] = witness;
          const key = scripts[index]?.subarray(2) ?? new Uint8Array();
          return witness.length === 1 && signature?.length === 64 && verifySchnorr(sighash, key, signature);
        });
      } catch {
        return false;
      }
    };
    assert.ok(secondLibraryAccepts(raw));
    const coins = spent.map(({ script, value }) => ({ scriptPubKey: script, valueSat: value }));
    const interpreterAccepts = (bytes: Uint8Array): boolean => scriptFailure(bytes, coins) === undefined;
    assert.ok(interpreterAccepts(raw));
    for (let position = 0; position < raw.length; position++) {
      const changed: Uint8Array = Uint8Array.from(raw);
      changed[position] = (changed[position] ?? 0) ^ 1;
      assert.equal(secondLibraryAccepts(changed), false, `byte ${position}`);
      assert.equal(interpreterAccepts(changed), false, `byte ${position}`);
    }
    await mine(1);
    await finalState(sent.paymentId);
  });

  async function mine(blocks: number): Promise<void> {
    const response = await fetch(`${server.esploraUrl}/devnet/mine`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ blocks }),
    });
    assert.equal(response.status, 200);
  }

  async function finalState(paymentId: string): Promise<PaymentView> {
    let last: PaymentView | undefined;
    for await (const view of application.watchPayment(paymentId, AbortSignal.timeout(20_000))) last = view;
    assert.ok(last !== undefined);
    return last;
  }
});
