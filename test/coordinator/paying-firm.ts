// A chain, five nodes and a coordinator in one process, over real QUIC: what tests of whole payments start from.
import assert from "node:assert/strict";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { SignedPaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { signPaymentRequest } from "../../src/consensus/payment-request.js";
import { DEFAULT_POLICY } from "../../src/consensus/policy.js";
import { Coordinator, type CoordinatorOptions } from "../../src/coordinator/coordinator.js";
import { ed25519PublicKey, signEd25519 } from "../../src/crypto/ed25519.js";
import { type ChainServer, startChainServer } from "../../src/devnet/chain/server.js";
import { verificationKeys } from "../../src/gateway/authentication.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import { DatabasePaymentStore } from "../../src/storage/database-payment-store.js";
import { MemorySpace } from "../../src/storage/memory-coordination.js";
import type { PaymentView, WalletApplication } from "../../src/wallet/wallet-application.js";
import { TEST_AUTHORITY, TestCluster } from "../node/cluster.js";

const HOUR_MS = 3_600_000;

export class PayingFirm {
  readonly cluster: TestCluster;
  readonly server: ChainServer;
  readonly coordinator: Coordinator;
  readonly #database: AuditDatabase;
  readonly #audit: DatabaseAuditTrail;

  private constructor(parts: {
    cluster: TestCluster;
    server: ChainServer;
    coordinator: Coordinator;
    database: AuditDatabase;
    audit: DatabaseAuditTrail;
  }) {
    this.cluster = parts.cluster;
    this.server = parts.server;
    this.coordinator = parts.coordinator;
    this.#database = parts.database;
    this.#audit = parts.audit;
  }

  get application(): WalletApplication {
    return this.coordinator.application;
  }

  static async start(options: { readonly pool: CoordinatorOptions["pool"] }): Promise<PayingFirm> {
    const server = await startChainServer(
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
    const cluster = await TestCluster.start({ nodes: 5, chain });
    const database = await AuditDatabase.embedded();
    await database.migrate();
    const audit = new DatabaseAuditTrail({}, { database, clock: systemClock });
    const tokenKey = generateKeyPairSync("ed25519").publicKey.export({ format: "pem", type: "spki" }) as string;
    const { certificateChainPem: certificatePem, privateKeyPem } = cluster.coordinator.credentials;
    const coordinator = await Coordinator.start(
      {
        ...cluster.coordinator,
        network: "regtest",
        policy: DEFAULT_POLICY,
        authorities: new Map([[TEST_AUTHORITY.name, ed25519PublicKey(TEST_AUTHORITY.seed)]]),
        trustReloadIntervalMs: 60_000,
        electionTtlMs: 3_000,
        confirmationPollMs: 50,
        maxRequestWindowMs: HOUR_MS,
        clockSkewMs: 5_000,
        pool: options.pool,
        gateway: {
          host: "127.0.0.1",
          port: 0,
          tls: { certificatePem, privateKeyPem },
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
        coordination: new MemorySpace(systemClock).connect(),
        payments: (lease) => new DatabasePaymentStore({ database, clock: systemClock, lease }),
      },
    );
    await coordinator.ready([...cluster.nodes.keys()], 10_000);
    return new PayingFirm({ cluster, server, coordinator, database, audit });
  }

  /** Serialized, as clients send it. */
  request(change: { readonly walletId: string; readonly address: string; readonly amountSat: bigint }): Uint8Array {
    const { walletId, address, amountSat } = change;
    return toBinary(
      SignedPaymentRequestSchema,
      signPaymentRequest(
        {
          requestId: randomUUID(),
          walletId,
          recipients: [{ address, amountSat }],
          maxFeeRateSatPerKvb: 50_000n,
          metadataJson: "",
          createdAtMs: BigInt(Date.now()),
          expiresAtMs: BigInt(Date.now() + HOUR_MS / 2),
        },
        { authority: TEST_AUTHORITY.name, sign: (message) => signEd25519(TEST_AUTHORITY.seed, message) },
      ),
    );
  }

  async mine(blocks: number): Promise<void> {
    const response = await fetch(`${this.server.esploraUrl}/devnet/mine`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ blocks }),
    });
    assert.equal(response.status, 200);
  }

  async finalState(paymentId: string): Promise<PaymentView> {
    let last: PaymentView | undefined;
    for await (const view of this.application.watchPayment(paymentId, AbortSignal.timeout(20_000))) last = view;
    assert.ok(last !== undefined);
    return last;
  }

  async close(): Promise<void> {
    await this.coordinator.close();
    await this.cluster.close();
    await this.#audit.close();
    await this.#database.close();
    await this.server.close();
  }
}
