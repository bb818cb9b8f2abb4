import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { InvalidInput } from "../crypto/fault.js";
import { verificationKeys } from "../gateway/authentication.js";
import type { ServerCertificate } from "../gateway/gateway-server.js";
import { RenewalAuthority } from "../network/identity/renewal-authority.js";
import type { TrustFiles } from "../network/identity/trust-files.js";
import { systemClock, systemRandom } from "../node/ambient.js";
import { type Logger, networkLog, processLog } from "../node/log.js";
import { ProcessMetrics } from "../node/metrics.js";
import { openChain, openMembership, policyOf } from "../node/start.js";
import { AuditDatabase } from "../storage/audit-database.js";
import type { AuditQueueOptions } from "../storage/audit-queue.js";
import { AuditRecords } from "../storage/audit-records.js";
import { DatabaseAuditTrail } from "../storage/database-audit-trail.js";
import { DatabasePaymentStore } from "../storage/database-payment-store.js";
import { EtcdCoordination } from "../storage/etcd-coordination.js";
import { JournaledSpace } from "../storage/journaled-space.js";
import { readPassphrase } from "../storage/passphrase.js";
import type { Coordination } from "../wallet/coordination.js";
import type { PoolSize } from "../wallet/presignature-pool.js";
import type { CoordinatorConfiguration } from "./configuration.js";
import { Coordinator } from "./coordinator.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** A coordinator and what was opened for it. */
export interface RunningCoordinator {
  readonly coordinator: Coordinator;
  close(): Promise<void>;
}

/** Opens what the configuration names (embedded defaults where it names nothing) and starts the coordinator. */
export async function startCoordinator(
  configuration: CoordinatorConfiguration,
  environment: Environment,
): Promise<RunningCoordinator> {
  const { coordinator: self, gateway, network, security, consensus, bitcoin, logging } = configuration;
  const log = processLog({ name: self.id, level: logging.level });
  const clock = systemClock;
  const { cggmp24, frost } = configuration.protocols;
  const metrics = new ProcessMetrics();
  if (configuration.metrics !== undefined) await metrics.listen(configuration.metrics);
  const member = await openMembership(configuration, { nodeId: self.id, dataFolder: self.dataFolder, log, metrics });
  const authority = await openAuthority(configuration, { environment, trust: member.trust, log });
  const database = await openAudit(configuration, environment);
  const audit = new DatabaseAuditTrail(queueOptions(configuration), { database, clock });
  const { coordination, close: closeCoordination } = await openCoordination(configuration);
  const keys = await Promise.all(
    gateway.jwt.keyFiles.map(async (file) => await verificationKeys(await readFile(file, "utf8"), file)),
  );
  const { audience, issuer, clockToleranceMs, lifetimeMaxMs } = gateway.jwt;
  const gatewayCertificate = async (): Promise<ServerCertificate> => ({
    certificatePem: await readFile(gateway.certificateFile, "utf8"),
    privateKeyPem: await readFile(gateway.privateKeyFile, "utf8"),
  });
  const coordinator = await Coordinator.start(
    {
      ...member,
      listen: { host: network.listenHost, port: network.listenPort },
      network: bitcoin.network,
      policy: policyOf(consensus.policy),
      authorities: new Map(security.authorities.map(({ name, publicKey }) => [name, publicKey])),
      trustReloadIntervalMs: security.trustReloadIntervalMs,
      ...(authority === undefined ? {} : { authority }),
      electionTtlMs: consensus.electionTtlMs,
      confirmationPollMs: bitcoin.trackIntervalMs,
      utxoMaxAgeMs: bitcoin.syncIntervalMs,
      voteTimeoutMs: consensus.voteTimeoutMs,
      drain: { lameDuckMs: gateway.lameDuckMs, graceMs: gateway.drainGraceMs },
      maxRequestWindowMs: consensus.requestMaxWindowMs,
      clockSkewMs: consensus.clockSkewMs,
      pool: {
        sizes: { cggmp24: poolSize(cggmp24), frost: poolSize(frost) },
        checkIntervalMs: Math.min(cggmp24.poolCheckIntervalMs, frost.poolCheckIntervalMs),
      },
      gatewayCertificate,
      gateway: {
        host: gateway.host,
        port: gateway.port,
        tls: await gatewayCertificate(),
        authentication: {
          keys: keys.flat(),
          audience,
          ...(issuer === undefined ? {} : { issuer }),
          clockToleranceMs,
          lifetimeMaxMs,
        },
        limits: gateway.limits,
      },
    },
    {
      clock,
      random: systemRandom,
      log,
      audit,
      coordination,
      violations: new AuditRecords({ database, clock }),
      chain: await openChain(bitcoin, environment),
      payments: (lease) => new DatabasePaymentStore({ database, clock, lease }),
      metrics,
    },
  );
  return {
    coordinator,
    async close() {
      await coordinator.close();
      await metrics.close();
      await audit.close();
      await database.close();
      await closeCoordination();
    },
  };
}

const CA_CREDENTIAL = "intermediate-passphrase";

/** The intermediate of section [ca]; without that section this coordinator renews nobody's certificate. */
async function openAuthority(
  { ca }: CoordinatorConfiguration,
  known: { readonly environment: Environment; readonly trust: TrustFiles; readonly log: Logger },
): Promise<RenewalAuthority | undefined> {
  if (ca === undefined) return undefined;
  const { folder, passphraseEnvironment: variable, passphraseFile: file, certificateLifetimeMs } = ca;
  const passphrase = readPassphrase(known.environment, {
    names: { variable, credential: CA_CREDENTIAL },
    ...(file === undefined ? {} : { file }),
  });
  try {
    return await RenewalAuthority.open(
      { folder, passphrase: new TextDecoder().decode(passphrase.reveal()), lifetimeMs: certificateLifetimeMs },
      { clock: systemClock, random: systemRandom, trust: known.trust, log: networkLog(known.log) },
    );
  } finally {
    passphrase.erase();
  }
}

const poolSize = (section: {
  readonly poolTarget: number;
  readonly poolMinimum: number;
  readonly poolBatch: number;
  readonly sessionTimeoutMs: number;
}): PoolSize => ({
  target: section.poolTarget,
  minimum: section.poolMinimum,
  batch: section.poolBatch,
  presignTimeoutMs: section.sessionTimeoutMs,
});

/** How the trail batches; the defaults of the adapter where the configuration has no [postgres]. */
/** The steps of a payment come within this time, and a transaction for each would cost more than the payment. */
const AUDIT_GATHER_MS = 100;

function queueOptions({ postgres }: CoordinatorConfiguration): AuditQueueOptions {
  if (postgres === undefined) return { gatherMs: AUDIT_GATHER_MS };
  const { batchRows, batchIntervalMs, queueMaxRows } = postgres;
  return { batchRows, flushAfterMs: batchIntervalMs, gatherMs: AUDIT_GATHER_MS, maxQueuedRows: queueMaxRows };
}

/** The audit database that the configuration names; the embedded one is locked while a coordinator runs on it. */
export async function openAudit(
  { postgres, coordinator }: CoordinatorConfiguration,
  environment: Environment,
): Promise<AuditDatabase> {
  const database =
    postgres === undefined
      ? await AuditDatabase.embedded({ folder: join(coordinator.dataFolder, "audit") })
      : AuditDatabase.postgres(await postgresOptions(postgres, environment));
  await database.migrate();
  return database;
}

async function postgresOptions(postgres: NonNullable<CoordinatorConfiguration["postgres"]>, environment: Environment) {
  const { urlFile, urlEnvironment, poolSize, caCertificateFile } = postgres;
  const url = urlFile === undefined ? environment[urlEnvironment] : (await readFile(urlFile, "utf8")).trim();
  if (url === undefined) throw new InvalidInput("postgres-url-missing", `set ${urlEnvironment} or postgres.urlFile`);
  const caCertificate = caCertificateFile === undefined ? undefined : await readFile(caCertificateFile, "utf8");
  return { url, poolSize, ...(caCertificate === undefined ? {} : { caCertificate }) };
}

/** etcd where the configuration names it; otherwise a journal in the data folder, for one coordinator alone. */
/** The store that coordinators share; the embedded one is locked while a coordinator runs on it. */
export async function openCoordination({ etcd, coordinator }: CoordinatorConfiguration): Promise<{
  readonly coordination: Coordination;
  close(): Promise<void>;
}> {
  if (etcd === undefined) {
    const journal = await JournaledSpace.open(
      { folder: join(coordinator.dataFolder, "coordination") },
      { clock: systemClock },
    );
    const coordination = journal.space.connect();
    return {
      coordination,
      async close() {
        await coordination.close();
        await journal.close();
      },
    };
  }
  const { caCertificateFile, certificateFile, privateKeyFile } = etcd;
  const read = async (file: string | undefined) => (file === undefined ? undefined : await readFile(file));
  const [rootCertificate, certChain, privateKey] = await Promise.all(
    [caCertificateFile, certificateFile, privateKeyFile].map(read),
  );
  const coordination = new EtcdCoordination(
    {
      hosts: etcd.endpoints,
      prefix: `/${etcd.namespace}/`,
      ...(rootCertificate === undefined
        ? {}
        : {
            credentials: {
              rootCertificate,
              ...(certChain === undefined ? {} : { certChain }),
              ...(privateKey === undefined ? {} : { privateKey }),
            },
          }),
    },
    { clock: systemClock },
  );
  return { coordination, close: () => coordination.close() };
}
