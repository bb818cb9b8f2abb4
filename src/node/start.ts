import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { PaymentPolicy } from "../consensus/policy.js";
import { Bug, InvalidInput } from "../crypto/fault.js";
import { profiles } from "../crypto/security-profile.js";
import { MessageIdentity } from "../network/identity/message-identity.js";
import { Roster } from "../network/identity/roster.js";
import { readSecret } from "../network/identity/secret-file.js";
import { loadTlsCredentials, type TlsCredentials } from "../network/identity/tls-credentials.js";
import { TrustFiles } from "../network/identity/trust-files.js";
import type { NetworkLimits } from "../network/network-limits.js";
import { DEFAULT_HTTP_BOUNDS, type HttpBounds } from "../storage/chain/bounded-http.js";
import { CheckedChainSource, DEFAULT_CHECKED_OPTIONS } from "../storage/chain/checked.js";
import { CoreRpcChainSource } from "../storage/chain/core-rpc.js";
import { EsploraChainSource } from "../storage/chain/esplora.js";
import { KeyStore } from "../storage/key-store.js";
import { LevelVoteStore } from "../storage/level-vote-store.js";
import { LevelWitnessStore } from "../storage/level-witness-store.js";
import { OneUseLedger } from "../storage/one-use-ledger.js";
import { readPassphrase } from "../storage/passphrase.js";
import type { SecretBytes } from "../storage/secret-bytes.js";
import type { ChainSource } from "../wallet/chain-source.js";
import { systemClock, systemRandom } from "./ambient.js";
import type { OwnCertificate } from "./certificate-life.js";
import type { NodeConfiguration } from "./configuration.js";
import { keepMemoryOutOfCoreDumps } from "./core-dumps.js";
import { type Logger, processLog } from "./log.js";
import { ProcessMetrics } from "./metrics.js";
import { MpcNode } from "./node.js";
import { PrimePool } from "./prime-pool.js";
import { SessionLanes } from "./session-lanes.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** Opens what the configuration names and starts the node. A new node's state is created, sealed under the passphrase. */
export async function startNode(configuration: NodeConfiguration, environment: Environment): Promise<MpcNode> {
  const { node, network, security, storage, protocols, consensus, logging } = configuration;
  const log = processLog({ name: node.id, level: logging.level });
  keepMemoryOutOfCoreDumps(log);
  const metrics = new ProcessMetrics();
  const member = await openMembership(configuration, { nodeId: node.id, dataFolder: node.dataFolder, log, metrics });
  const passphrase = statePassphrase(storage, environment);
  const folder = node.dataFolder;
  const random = systemRandom;
  const store = (await KeyStore.exists(folder))
    ? await KeyStore.open({ folder, passphrase }, { random })
    : await KeyStore.create({ folder, nodeId: node.id, passphrase }, { random });
  passphrase.erase();
  if (store.formerHolder !== undefined) log.warn({ event: "unclean-stop" }, "the last process of this node was killed");
  // A thread or a lock that is left behind would keep a process that failed to start from ending.
  const opened: { close(): Promise<void> }[] = [store, metrics];
  try {
    if (configuration.metrics !== undefined) await metrics.listen(configuration.metrics);
    const { cggmp24, frost } = protocols;
    const profile = profiles.find(({ name }) => name === cggmp24.security);
    if (profile === undefined) throw new Bug("the configuration names an unknown profile");
    const ledgerKey = store.ledgerKey();
    const ledger = await OneUseLedger.open(
      { folder: join(folder, "ledger"), key: ledgerKey },
      { clock: systemClock, random },
    );
    ledgerKey.erase();
    opened.unshift(ledger);
    const votes = await LevelVoteStore.open(join(folder, "votes"));
    opened.unshift(votes);
    const witnesses = await LevelWitnessStore.open(join(folder, "witness"));
    opened.unshift(witnesses);
    const { roundTimeoutMs, sessionTimeoutMs } = cggmp24;
    const sessions = await SessionLanes.start(
      {
        workers: cggmp24.workers,
        identity: member.identity.privateKey,
        maxSessions: 256,
        patience: frost,
        presignPatience: { roundTimeoutMs, sessionTimeoutMs },
      },
      { clock: systemClock },
    );
    opened.unshift(sessions);
    const primes = new PrimePool({ profile, size: cggmp24.primePool }, { store, clock: systemClock, log });
    opened.unshift(primes);
    return await MpcNode.start(
      {
        ...member,
        listen: { host: network.listenHost, port: network.listenPort },
        network: configuration.bitcoin.network,
        policy: policyOf(consensus.policy),
        authorities: new Map(security.authorities.map(({ name, publicKey }) => [name, publicKey])),
        version: packageVersion(),
        security: cggmp24.security,
        // One age for the whole ledger: neither kind gets older than its own bound.
        presignatureLifetimeMs: Math.min(cggmp24.poolLifetimeMs, frost.poolLifetimeMs),
        ledgerConfirmationMs: storage.ledgerConfirmationMs,
        // It is a round like another.
        takePatienceMs: frost.roundTimeoutMs,
        maxRequestWindowMs: consensus.requestMaxWindowMs,
        clockSkewMs: consensus.clockSkewMs,
        trustReloadIntervalMs: security.trustReloadIntervalMs,
      },
      {
        clock: systemClock,
        random,
        log,
        store,
        votes,
        sessions,
        ledger,
        witnesses,
        primes,
        chain: await openChain(configuration.bitcoin, environment),
        metrics,
      },
    );
  } catch (error) {
    for (const part of opened) await part.close();
    throw error;
  }
}

/** Who this process is among its peers, and how it tells them from strangers. */
export async function openMembership(
  { network, security }: Pick<NodeConfiguration, "network" | "security">,
  member: {
    readonly nodeId: string;
    readonly dataFolder: string;
    readonly log: Logger;
    readonly metrics: Pick<ProcessMetrics, "countVerdict">;
  },
): Promise<{
  readonly identity: MessageIdentity;
  readonly roster: Roster;
  readonly credentials: TlsCredentials;
  readonly ownCertificate: OwnCertificate;
  readonly trust: TrustFiles;
  readonly limits: Partial<NetworkLimits>;
}> {
  const { nodeId, dataFolder, log, metrics } = member;
  const roster = new Roster(network.roster);
  const trust = await TrustFiles.load(
    {
      rootPath: security.rootCertificateFile,
      intermediatePath: security.intermediateCertificateFile,
      revocationListPaths: security.revocationListFiles,
      keepFolder: join(dataFolder, "revocations"),
      roster,
    },
    { clock: systemClock, count: (outcome) => metrics.countVerdict(outcome) },
  );
  const paths = { nodeId, keyPath: security.privateKeyFile, chainPath: security.certificateFile };
  const credentials = await loadTlsCredentials(paths);
  const identity = MessageIdentity.fromPem(nodeId, await readSecret(security.identityKeyFile, "the identity key"));
  const limits = {
    connectTimeoutMs: network.connectTimeoutMs,
    idleTimeoutMs: network.idleTimeoutMs,
    keepAliveIntervalMs: network.pingIntervalMs,
    streamBytes: network.messageMaxBytes,
    requestBytesPerPeer: network.peerRequestsMaxBytes,
    connectionWaitMs: Math.min(network.callTimeoutMs, network.connectTimeoutMs),
    standby: network.hotStandby,
    connectionMaxAgeMs: network.connectionMaxAgeMs,
  };
  log.debug({ event: "membership", nodeId, peers: roster.peers.length });
  return { identity, roster, credentials, ownCertificate: { paths, present: credentials }, trust, limits };
}

/** Esplora, Bitcoin Core, or both cross-checked. */
export async function openChain(bitcoin: NodeConfiguration["bitcoin"], environment: Environment): Promise<ChainSource> {
  const dependencies = { clock: systemClock, random: systemRandom };
  const bounds: HttpBounds = { ...DEFAULT_HTTP_BOUNDS, attempts: bitcoin.attempts, timeoutMs: bitcoin.callTimeoutMs };
  const esplora =
    bitcoin.esploraUrl === undefined
      ? undefined
      : new EsploraChainSource({ url: bitcoin.esploraUrl, bounds }, dependencies);
  const core =
    bitcoin.coreRpc === undefined
      ? undefined
      : new CoreRpcChainSource(await coreOptions(bitcoin.coreRpc, environment, bounds), dependencies);
  if (esplora !== undefined && core !== undefined) {
    const options = { ...DEFAULT_CHECKED_OPTIONS, requireBoth: bitcoin.requireBoth };
    return new CheckedChainSource(options, { clock: systemClock, primary: esplora, secondary: core });
  }
  const only = esplora ?? core;
  if (only === undefined) throw new InvalidInput("chain-source-missing", "[bitcoin] needs esploraUrl or coreRpc");
  return only;
}

async function coreOptions(
  rpc: NonNullable<NodeConfiguration["bitcoin"]["coreRpc"]>,
  environment: Environment,
  bounds: HttpBounds,
) {
  const { url, user, passwordFile, passwordEnvironment } = rpc;
  const password =
    passwordFile === undefined ? environment[passwordEnvironment] : (await readFile(passwordFile, "utf8")).trim();
  if (password === undefined) {
    throw new InvalidInput("rpc-password-missing", `set ${passwordEnvironment} or bitcoin.coreRpc.passwordFile`);
  }
  return { url, user, password, bounds };
}

/** The passphrase of the state: a file that the configuration names, or the environment. */
export function statePassphrase(
  storage: { readonly passphraseEnvironment: string; readonly passphraseFile?: string | undefined },
  environment: Environment,
): SecretBytes {
  const { passphraseFile, passphraseEnvironment } = storage;
  const known = { ...environment, STATE_ENCRYPTION_KEY: environment[passphraseEnvironment] };
  return readPassphrase(known, passphraseFile === undefined ? {} : { file: passphraseFile });
}

/** The policy section in the consensus layer's words. */
export function policyOf(section: NodeConfiguration["consensus"]["policy"]): PaymentPolicy {
  const { addressTypes, allowList, maxDailySat, maxDailyPayments, ...rest } = section;
  return {
    ...rest,
    maxDailySat,
    maxDailyPayments,
    addressTypes: new Set(addressTypes),
    allowList: allowList === undefined ? undefined : new Set(allowList),
  };
}

/** Version in package.json. */
export function packageVersion(): string {
  const require = createRequire(import.meta.url);
  return (require("../../../package.json") as { readonly version: string }).version;
}
