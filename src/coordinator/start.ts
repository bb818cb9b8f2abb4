import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { InvalidInput } from "../crypto/fault.js";
import { verificationKeys } from "../gateway/authentication.js";
import { systemClock, systemRandom } from "../node/ambient.js";
import { processLog } from "../node/log.js";
import { openChain, openMembership, policyOf } from "../node/start.js";
import { AuditDatabase } from "../storage/audit-database.js";
import { DatabaseAuditTrail } from "../storage/database-audit-trail.js";
import { DiskValues } from "../storage/disk-coordination.js";
import { MemorySpace } from "../storage/memory-coordination.js";
import type { Coordination } from "../wallet/coordination.js";
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
  const member = await openMembership(configuration, self.id, log);
  const database = await openAudit(configuration, environment);
  const audit = new DatabaseAuditTrail({}, { database, clock });
  const { coordination, closeCoordination } = await openCoordination(configuration);
  const keys = await Promise.all(
    gateway.jwt.keyFiles.map(async (file) => await verificationKeys(await readFile(file, "utf8"), file)),
  );
  const { audience, issuer, clockToleranceMs, lifetimeMaxMs } = gateway.jwt;
  const coordinator = await Coordinator.start(
    {
      ...member,
      listen: { host: network.listenHost, port: network.listenPort },
      network: bitcoin.network,
      policy: policyOf(consensus.policy),
      authorities: new Map(security.authorities.map(({ name, publicKey }) => [name, publicKey])),
      trustReloadIntervalMs: security.trustReloadIntervalMs,
      electionTtlMs: consensus.electionTtlMs,
      confirmationPollMs: bitcoin.trackIntervalMs,
      maxRequestWindowMs: consensus.requestMaxWindowMs,
      clockSkewMs: consensus.clockSkewMs,
      gateway: {
        host: gateway.host,
        port: gateway.port,
        tls: {
          certificatePem: await readFile(gateway.certificateFile, "utf8"),
          privateKeyPem: await readFile(gateway.privateKeyFile, "utf8"),
        },
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
    { clock, random: systemRandom, log, audit, coordination, chain: await openChain(bitcoin, environment) },
  );
  return {
    coordinator,
    async close() {
      await coordinator.close();
      await audit.close();
      await database.close();
      await closeCoordination();
    },
  };
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

/** Without etcd: a lone coordinator keeps wallets, payments and counters in its own data folder. */
async function openCoordination({ etcd, coordinator }: CoordinatorConfiguration): Promise<{
  readonly coordination: Coordination;
  closeCoordination(): Promise<void>;
}> {
  if (etcd !== undefined)
    throw new InvalidInput("etcd-unsupported", "this build coordinates in its own data folder only: remove [etcd]");
  const values = await DiskValues.open({ folder: join(coordinator.dataFolder, "coordination") });
  const coordination = new MemorySpace(systemClock, values).connect();
  return {
    coordination,
    async closeCoordination() {
      await coordination.close();
      await values.close();
    },
  };
}
