import { resolve } from "node:path";
import { z } from "zod";

/**
 * Configuration of a node, and the sections that a coordinator has too. Every key has a bound, unknown keys are refused,
 * and files are found relative to the configuration file. Secrets are never in it: it names the environment variable or
 * the file (mode 0600) that holds one. Each key is documented in deploy/config/node.toml.
 */

export const NODE_ID = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
const ENVIRONMENT = /^[A-Z_][A-Z0-9_]{0,63}$/;
const MINUTE_MS = 60_000;
const DAY_MS = 1440 * MINUTE_MS;

export const nodeId = () => z.string().regex(NODE_ID, "must be one DNS label: 1 to 63 of a-z, 0-9 and '-'");
export const host = () => z.string().min(1).max(253);
export const port = () => z.int().min(0).max(65_535);
export const environment = () => z.string().regex(ENVIRONMENT, "must be the name of an environment variable");
/** A time with its bounds. */
export const ms = (least: number, most: number) => z.int().min(least).max(most);
export const count = (least: number, most: number) => z.int().min(least).max(most);
/** An amount; TOML integers past 2^53 arrive as bigint. */
export const amountSat = () =>
  z
    .union([z.int(), z.bigint()])
    .transform((value) => BigInt(value))
    .refine((value) => value >= 0n && value <= 2_100_000_000_000_000n, "must be 0 to 2100000000000000 satoshi");
/** A file or folder, relative to the folder of the configuration file. */
export const path = (folder: string) =>
  z
    .string()
    .min(1)
    .max(1024)
    .transform((given) => resolve(folder, given));
export const ed25519PublicKey = () =>
  z
    .string()
    .regex(/^[0-9a-f]{64}$/, "must be an Ed25519 public key: 64 lower-case hexadecimal digits")
    .transform((text) => new Uint8Array(Buffer.from(text, "hex")));

/** Section [node] or [coordinator]: who this process is and where it keeps its state. */
export const processSection = (folder: string) =>
  z.strictObject({
    id: nodeId(),
    dataFolder: path(folder).prefault("data"),
  });

/** Section [network]: QUIC between members, and who they are. */
export const networkSection = () =>
  z.strictObject({
    listenHost: host().default("0.0.0.0"),
    listenPort: port(),
    connectTimeoutMs: ms(100, MINUTE_MS).default(10_000),
    idleTimeoutMs: ms(1000, 10 * MINUTE_MS).default(10_000),
    pingIntervalMs: ms(100, MINUTE_MS).default(1000),
    callTimeoutMs: ms(100, 10 * MINUTE_MS).default(30_000),
    messageMaxBytes: count(1024, 64 << 20).default(10 << 20),
    // Of one peer's calls that are not answered yet, together.
    peerRequestsMaxBytes: count(1 << 20, 2 ** 32).default(64 << 20),
    // A second connection with each peer that this process dials.
    hotStandby: z.boolean().default(true),
    connectionMaxAgeMs: ms(MINUTE_MS, 30 * DAY_MS).default(DAY_MS / 2),
    roster: z
      .array(
        z.strictObject({
          nodeId: nodeId(),
          role: z.enum(["node", "coordinator"]),
          host: host(),
          port: count(1, 65_535),
          identityKey: ed25519PublicKey(),
        }),
      )
      .min(2)
      .max(64),
  });

/** Section [security]: certificates, the message identity, and whose payment requests are obeyed. */
export const securitySection = (folder: string) =>
  z.strictObject({
    rootCertificateFile: path(folder),
    intermediateCertificateFile: path(folder),
    certificateFile: path(folder),
    privateKeyFile: path(folder),
    revocationListFiles: z.array(path(folder)).max(16).default([]),
    identityKeyFile: path(folder),
    trustReloadIntervalMs: ms(1000, DAY_MS).default(5_000),
  });

/** Keys of `[[security.authorities]]`. */
export const authorityEntries = () =>
  z
    .array(z.strictObject({ name: z.string().regex(NAME), publicKey: ed25519PublicKey() }))
    .min(1)
    .max(64);

const storageKeys = (folder: string) => ({
  passphraseEnvironment: environment().default("STATE_ENCRYPTION_KEY"),
  passphraseFile: path(folder).optional(),
});

/** Section [storage]: how state is sealed at rest. */
export const storageSection = (folder: string) => z.strictObject(storageKeys(folder)).prefault({});

const nodeStorageSection = (folder: string) =>
  z
    .strictObject({
      ...storageKeys(folder),
      // How long a started node waits for its peers to say that its ledger is the newest, before it burns its pool.
      ledgerConfirmationMs: ms(1000, DAY_MS).default(30_000),
    })
    .prefault({});

/** Section [postgres]; without it the audit trail is kept in an embedded database. */
export const postgresSection = (folder: string) =>
  z
    .strictObject({
      urlEnvironment: environment().default("POSTGRES_URL"),
      urlFile: path(folder).optional(),
      caCertificateFile: path(folder).optional(),
      poolSize: count(1, 100).default(10),
      batchRows: count(1, 1000).default(100),
      batchIntervalMs: ms(1, MINUTE_MS).default(5000),
      queueMaxRows: count(100, 1_000_000).default(10_000),
    })
    .optional();

/** Section [etcd]; without it coordination happens in the coordinator's memory. */
export const etcdSection = (folder: string) =>
  z
    .strictObject({
      endpoints: z
        .array(z.url({ protocol: /^https?$/ }))
        .min(1)
        .max(9),
      namespace: z
        .string()
        .regex(/^[a-z0-9/-]{1,64}$/)
        .default("mpc-wallet"),
      caCertificateFile: path(folder).optional(),
      certificateFile: path(folder).optional(),
      privateKeyFile: path(folder).optional(),
    })
    .optional();

/** Section [bitcoin]: the network and where the chain is read. */
export const bitcoinSection = (folder: string) =>
  z
    .strictObject({
      network: z.enum(["mainnet", "testnet", "signet", "regtest"]),
      esploraUrl: z.url({ protocol: /^https?$/ }).optional(),
      coreRpc: z
        .strictObject({
          url: z.url({ protocol: /^https?$/ }),
          user: z.string().min(1).max(128),
          passwordEnvironment: environment().default("BITCOIN_RPC_PASSWORD"),
          passwordFile: path(folder).optional(),
        })
        .optional(),
      requireBoth: z.boolean().default(false),
      callTimeoutMs: ms(100, 5 * MINUTE_MS).default(30_000),
      attempts: count(1, 10).default(3),
      syncIntervalMs: ms(100, DAY_MS).default(60_000),
      trackIntervalMs: ms(100, DAY_MS).default(10_000),
    })
    .refine(
      ({ esploraUrl, coreRpc }) => esploraUrl !== undefined || coreRpc !== undefined,
      "needs esploraUrl or [bitcoin.coreRpc]",
    )
    .refine(
      ({ esploraUrl, coreRpc, requireBoth }) => !requireBoth || (esploraUrl !== undefined && coreRpc !== undefined),
      "requireBoth needs esploraUrl and [bitcoin.coreRpc]",
    );

const pool = {
  poolTarget: count(0, 10_000).default(100),
  /** Of 20 and the target the lower one, if it is not named. */
  poolMinimum: count(0, 10_000).optional(),
  poolBatch: count(1, 1000).default(10),
  poolCheckIntervalMs: ms(100, DAY_MS).default(10_000),
  poolLifetimeMs: ms(MINUTE_MS, 30 * DAY_MS).default(DAY_MS),
};
interface PoolKeys {
  readonly poolTarget: number;
  readonly poolMinimum?: number | undefined;
}
const poolInOrder = ({ poolTarget, poolMinimum = 0 }: PoolKeys) => poolMinimum <= poolTarget;
const POOL_ORDER = "poolMinimum must not be above poolTarget";
const withMinimum = <Section extends PoolKeys>(section: Section) => ({
  ...section,
  poolMinimum: section.poolMinimum ?? Math.min(20, section.poolTarget),
});

/** Sections [protocols.cggmp24] and [protocols.frost]. */
export const protocolsSection = () =>
  z
    .strictObject({
      cggmp24: z
        .strictObject({
          ...pool,
          security: z.enum(["security128", "security112"]).default("security128"),
          // Sets of primes drawn ahead for new wallets; with 0 they are drawn when a wallet is created.
          primePool: count(0, 16).default(1),
          workers: count(1, 64).default(1),
          roundTimeoutMs: ms(100, 10 * MINUTE_MS).default(10_000),
          sessionTimeoutMs: ms(100, 60 * MINUTE_MS).default(60_000),
        })
        .refine(poolInOrder, POOL_ORDER)
        .transform(withMinimum)
        .prefault({}),
      frost: z
        .strictObject({
          ...pool,
          // Nonces made ahead save a round, but before it all signers tell each other that theirs are used up: both take
          // as long, and a session that draws its own costs no writes.
          poolTarget: count(0, 10_000).default(0),
          // A round takes milliseconds; three seconds after it began, the missing party is down and others sign.
          roundTimeoutMs: ms(100, 10 * MINUTE_MS).default(3_000),
          sessionTimeoutMs: ms(100, 60 * MINUTE_MS).default(60_000),
        })
        .refine(poolInOrder, POOL_ORDER)
        .transform(withMinimum)
        .prefault({}),
    })
    .prefault({});

/** Keys of [consensus] that nodes and coordinators share. */
export const votingKeys = {
  voteTimeoutMs: ms(100, 10 * MINUTE_MS).default(30_000),
  requestMaxWindowMs: ms(1000, 7 * DAY_MS).default(DAY_MS),
  clockSkewMs: ms(0, 10 * MINUTE_MS).default(MINUTE_MS),
};

/** Section [consensus.policy]: what this node approves, whoever asks. */
export const policySection = () =>
  z
    .strictObject({
      version: z.int().min(1).default(1).transform(BigInt),
      maxPaymentSat: amountSat().prefault(2_100_000_000_000_000),
      maxDailySat: amountSat().optional(),
      maxDailyPayments: count(1, 1_000_000).optional(),
      minFeeRateSatPerKvb: amountSat().prefault(1000),
      maxFeeRateSatPerKvb: amountSat().prefault(1_000_000),
      maxFeeSat: amountSat().prefault(10_000_000),
      maxFeeSharePermille: count(0, 1000).default(100),
      feeShareFloorSat: amountSat().prefault(20_000),
      addressTypes: z
        .array(z.enum(["p2pkh", "p2sh", "p2wpkh", "p2wsh", "p2tr"]))
        .min(1)
        .default(["p2pkh", "p2sh", "p2wpkh", "p2wsh", "p2tr"]),
      allowList: z.array(z.string().min(1).max(100)).min(1).max(10_000).optional(),
      maxInputs: count(1, 1000).default(100),
      maxOutputs: count(1, 100).default(22),
      opReturn: z.enum(["never", "with-metadata", "always"]).default("with-metadata"),
      minConfirmations: count(0, 1000).default(1),
    })
    .prefault({});

/** Section [logging]. */
export const loggingSection = () =>
  z
    .strictObject({
      level: z.enum(["fatal", "error", "warn", "info", "debug", "trace"]).default("info"),
    })
    .prefault({});

/** Section [metrics]: Prometheus and health over plain HTTP, on loopback unless told otherwise. */
export const metricsSection = () =>
  z
    .strictObject({
      host: host().default("127.0.0.1"),
      port: count(1, 65_535),
    })
    .optional();

/** @param folder folder of the configuration file */
export function nodeConfigurationSchema(folder: string) {
  return z.strictObject({
    node: processSection(folder),
    network: networkSection(),
    security: securitySection(folder).extend({ authorities: authorityEntries() }),
    storage: nodeStorageSection(folder),
    bitcoin: bitcoinSection(folder),
    protocols: protocolsSection(),
    consensus: z.strictObject({ ...votingKeys, policy: policySection() }).prefault({}),
    logging: loggingSection(),
    metrics: metricsSection(),
  });
}

export type NodeConfiguration = z.output<ReturnType<typeof nodeConfigurationSchema>>;
