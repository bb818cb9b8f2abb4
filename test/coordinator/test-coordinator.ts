import { generateKeyPairSync } from "node:crypto";
import { DEFAULT_POLICY } from "../../src/consensus/policy.js";
import { Coordinator, type CoordinatorOptions } from "../../src/coordinator/coordinator.js";
import { ed25519PublicKey } from "../../src/crypto/ed25519.js";
import { verificationKeys } from "../../src/gateway/authentication.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import type { AuditDatabase } from "../../src/storage/audit-database.js";
import { AuditRecords } from "../../src/storage/audit-records.js";
import { DatabasePaymentStore } from "../../src/storage/database-payment-store.js";
import type { AuditTrail } from "../../src/wallet/audit-trail.js";
import type { ChainSource } from "../../src/wallet/chain-source.js";
import type { Coordination } from "../../src/wallet/coordination.js";
import type { PoolSize } from "../../src/wallet/presignature-pool.js";
import type { Scheme } from "../../src/wallet/wallet-application.js";
import { type ClusterMember, TEST_AUTHORITY, type TestCluster } from "../node/cluster.js";

const HOUR_MS = 3_600_000;

const EMPTY: PoolSize = { target: 0, minimum: 0, batch: 1, presignTimeoutMs: 60_000 };

/** Pools of the sizes given; where none is given, what a payment needs is made when it needs it. */
export const testPools = (sizes: Partial<Record<Scheme, PoolSize>>): CoordinatorOptions["pool"] => ({
  sizes: { frost: EMPTY, cggmp24: EMPTY, ...sizes },
  checkIntervalMs: 60_000,
});

/** A coordinator of a test cluster, connected to all of its nodes. */
export async function startTestCoordinator(
  cluster: TestCluster,
  stores: {
    readonly chain: ChainSource;
    readonly audit: AuditTrail;
    readonly coordination: Coordination;
    readonly database: AuditDatabase;
  },
  options: {
    readonly pool?: CoordinatorOptions["pool"];
    /** Which of the roster's coordinators; the first when left out. */
    readonly member?: ClusterMember;
    /** Nodes, coordinator and their cryptography share one event loop here, so it is long when left out. */
    readonly electionTtlMs?: number;
  } = {},
): Promise<Coordinator> {
  const { chain, audit, coordination, database } = stores;
  const { pool = testPools({}), member = cluster.coordinator, electionTtlMs = 30_000 } = options;
  const { publicKey } = generateKeyPairSync("ed25519");
  const tokenKey = publicKey.export({ format: "pem", type: "spki" }) as string;
  const { certificateChainPem: certificatePem, privateKeyPem } = member.credentials;
  const keys = await verificationKeys(tokenKey, "token key");
  const coordinator = await Coordinator.start(
    {
      ...member,
      network: "regtest",
      policy: DEFAULT_POLICY,
      authorities: new Map([[TEST_AUTHORITY.name, ed25519PublicKey(TEST_AUTHORITY.seed)]]),
      trustReloadIntervalMs: 60_000,
      electionTtlMs,
      confirmationPollMs: 50,
      utxoMaxAgeMs: 60_000,
      voteTimeoutMs: 30_000,
      drain: { lameDuckMs: 0, graceMs: 10_000 },
      maxRequestWindowMs: HOUR_MS,
      clockSkewMs: 5_000,
      pool,
      gateway: {
        host: "127.0.0.1",
        port: 0,
        tls: { certificatePem, privateKeyPem },
        authentication: { keys, audience: "mpc-wallet", clockToleranceMs: 5_000, lifetimeMaxMs: HOUR_MS },
      },
    },
    {
      clock: systemClock,
      random: systemRandom,
      log: cluster.log,
      chain,
      audit,
      coordination,
      violations: new AuditRecords({ database, clock: systemClock }),
      payments: (lease) => new DatabasePaymentStore({ database, clock: systemClock, lease }),
    },
  );
  await coordinator.ready([...cluster.nodes.keys()], 10_000);
  return coordinator;
}
