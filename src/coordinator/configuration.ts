import { z } from "zod";
import {
  authorityEntries,
  bitcoinSection,
  count,
  environment,
  etcdSection,
  host,
  loggingSection,
  metricsSection,
  ms,
  networkSection,
  path,
  policySection,
  port,
  postgresSection,
  processSection,
  protocolsSection,
  securitySection,
  storageSection,
  votingKeys,
} from "../node/configuration.js";

/** Section [gateway]: the port that clients call. */
const gatewaySection = (folder: string) =>
  z.strictObject({
    host: host().default("0.0.0.0"),
    port: port().default(8443),
    certificateFile: path(folder),
    privateKeyFile: path(folder),
    drainGraceMs: ms(0, 600_000).default(10_000),
    lameDuckMs: ms(0, 600_000).default(5000),
    jwt: z.strictObject({
      keyFiles: z.array(path(folder)).min(1).max(16),
      audience: z.string().min(1).max(256).default("mpc-wallet"),
      issuer: z.string().min(1).max(256).optional(),
      clockToleranceMs: ms(0, 300_000).default(5000),
      lifetimeMaxMs: ms(1000, 366 * 86_400_000).default(86_400_000),
    }),
    limits: z
      .strictObject({
        callsPerSecond: count(1, 100_000).default(10),
        connectionsMax: count(1, 100_000).default(1000),
        streamsPerConnectionMax: count(1, 10_000).default(100),
        headerMaxBytes: count(1024, 1 << 20).default(16_384),
        bodyMaxBytes: count(1024, 64 << 20).default(65_536),
        handshakeMaxMs: ms(100, 60_000).default(10_000),
        bodyMaxMs: ms(100, 600_000).default(10_000),
        idleMaxMs: ms(1000, 3_600_000).default(120_000),
        callMaxMs: ms(1000, 3_600_000).default(300_000),
        watchMaxMs: ms(1000, 3_600_000).default(600_000),
        watchesMax: count(1, 100_000).default(1000),
      })
      .prefault({}),
  });

/** Section [ca]: the intermediate, kept by this coordinator to renew certificates. */
const caSection = (folder: string) =>
  z
    .strictObject({
      folder: path(folder),
      passphraseEnvironment: environment().default("MPC_WALLET_INTERMEDIATE_PASSPHRASE"),
      passphraseFile: path(folder).optional(),
      certificateLifetimeMs: ms(3_600_000, 90 * 86_400_000).default(90 * 86_400_000),
    })
    .optional();

/**
 * Configuration of a coordinator: the sections of a node, without a policy, since a coordinator decides nothing, and with
 * [gateway]. Each key is documented in deploy/config/coordinator.toml.
 *
 * @param folder folder of the configuration file
 */
export function coordinatorConfigurationSchema(folder: string) {
  return z.strictObject({
    coordinator: processSection(folder),
    gateway: gatewaySection(folder),
    network: networkSection(),
    security: securitySection(folder).extend({ authorities: authorityEntries() }),
    ca: caSection(folder),
    storage: storageSection(folder),
    postgres: postgresSection(folder),
    etcd: etcdSection(folder),
    bitcoin: bitcoinSection(folder),
    protocols: protocolsSection(),
    consensus: z
      .strictObject({
        ...votingKeys,
        electionTtlMs: ms(1000, 60_000).default(3000),
        // What payments are built within. Nodes judge them by their own policy, of the same version.
        policy: policySection(),
      })
      .prefault({}),
    logging: loggingSection(),
    metrics: metricsSection(),
  });
}

export type CoordinatorConfiguration = z.output<ReturnType<typeof coordinatorConfigurationSchema>>;
