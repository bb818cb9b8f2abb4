// A chain, five nodes and a coordinator in one process, over real QUIC: what tests of whole payments start from.
import assert from "node:assert/strict";
import { type AuditVerdict, verifyTrail } from "../../src/coordinator/audit-verification.js";
import type { Coordinator, CoordinatorOptions } from "../../src/coordinator/coordinator.js";
import { type ChainServer, startChainServer } from "../../src/devnet/chain/server.js";
import type { MessageIdentity } from "../../src/network/identity/message-identity.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import type { SessionRunner } from "../../src/node/session-pool.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import { MemorySpace } from "../../src/storage/memory-coordination.js";
import type { AuditEntry, AuditTrail } from "../../src/wallet/audit-trail.js";
import type { ChainSource } from "../../src/wallet/chain-source.js";
import type { PaymentView, WalletApplication } from "../../src/wallet/wallet-application.js";
import { TestCluster } from "../node/cluster.js";
import { clientRequest } from "./client-request.js";
import { startTestCoordinator } from "./test-coordinator.js";

export class PayingFirm {
  readonly cluster: TestCluster;
  readonly server: ChainServer;
  coordinator: Coordinator;
  readonly #space: MemorySpace;
  readonly #lead: () => Promise<Coordinator>;
  readonly #chain: ChainSource;
  readonly #database: AuditDatabase;
  readonly #audit: DatabaseAuditTrail;

  private constructor(parts: {
    cluster: TestCluster;
    server: ChainServer;
    chain: ChainSource;
    space: MemorySpace;
    lead: () => Promise<Coordinator>;
    coordinator: Coordinator;
    database: AuditDatabase;
    audit: DatabaseAuditTrail;
  }) {
    this.#chain = parts.chain;
    this.#space = parts.space;
    this.#lead = parts.lead;
    this.cluster = parts.cluster;
    this.server = parts.server;
    this.coordinator = parts.coordinator;
    this.#database = parts.database;
    this.#audit = parts.audit;
  }

  get application(): WalletApplication {
    return this.coordinator.application;
  }

  static async start(options: {
    readonly pool: CoordinatorOptions["pool"];
    readonly nodes?: number;
    /** Each node a process of its own. */
    readonly processes?: boolean;
    readonly observe?: (nodeId: string, sessions: SessionRunner) => SessionRunner;
    readonly sessions?: (identity: MessageIdentity) => SessionRunner;
  }): Promise<PayingFirm> {
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
    const { observe, sessions } = options;
    const cluster = await TestCluster.start({
      nodes: options.nodes ?? 5,
      chain,
      ...(options.processes === true ? { chainUrl: server.esploraUrl } : {}),
      ...(observe === undefined ? {} : { observe }),
      ...(sessions === undefined ? {} : { sessions }),
    });
    const database = await AuditDatabase.embedded();
    await database.migrate();
    const audit = new DatabaseAuditTrail({}, { database, clock: systemClock });
    const space = new MemorySpace(systemClock);
    const lead = () =>
      startTestCoordinator(cluster, { chain, audit, coordination: space.connect(), database }, { pool: options.pool });
    return new PayingFirm({ cluster, server, chain, space, lead, coordinator: await lead(), database, audit });
  }

  /** The coordinator goes; what it kept under these prefixes is lost. */
  async stopCoordinator(lost: readonly string[]): Promise<void> {
    await this.coordinator.close();
    const coordination = this.#space.connect();
    for (const prefix of lost) {
      for (const key of (await coordination.list(prefix)).keys()) await coordination.delete(key);
    }
    await coordination.close();
  }

  async startCoordinator(): Promise<void> {
    this.coordinator = await this.#lead();
  }

  /** The first thousand entries. */
  trail(): Promise<readonly AuditEntry[]> {
    return this.#audit.read({ fromSequence: 1n, limit: 1_000 });
  }

  /** What an outsider with public keys and a view of the chain finds. */
  verifiedTrail(forge: (entry: AuditEntry) => AuditEntry = (entry) => entry): Promise<AuditVerdict> {
    const audit: AuditTrail = {
      append: (events) => this.#audit.append(events),
      read: async (options) => (await this.#audit.read(options)).map(forge),
      verify: () => this.#audit.verify(),
    };
    return verifyTrail({ audit, roster: this.cluster.roster, chain: this.#chain });
  }

  /** Serialized, as clients send it. */
  request(change: { readonly walletId: string; readonly address: string; readonly amountSat: bigint }): Uint8Array {
    return clientRequest(change);
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
