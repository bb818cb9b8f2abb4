// One node of a test cluster, from plain values, so that it runs in the test's process or in one of its own.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { DEFAULT_POLICY, type PaymentPolicy } from "../../src/consensus/policy.js";
import { ed25519PublicKey } from "../../src/crypto/ed25519.js";
import { security112 } from "../../src/crypto/security-profile.js";
import type { DevelopmentNode } from "../../src/network/identity/development-pki.js";
import { MessageIdentity } from "../../src/network/identity/message-identity.js";
import { parseRoster, type Roster } from "../../src/network/identity/roster.js";
import { loadTlsCredentials } from "../../src/network/identity/tls-credentials.js";
import { TrustFiles } from "../../src/network/identity/trust-files.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { processLog } from "../../src/node/log.js";
import { MpcNode } from "../../src/node/node.js";
import type { PrimeSource } from "../../src/node/prime-pool.js";
import { SessionLanes } from "../../src/node/session-lanes.js";
import type { SessionRunner } from "../../src/node/session-pool.js";
import { KeyStore } from "../../src/storage/key-store.js";
import { LevelVoteStore } from "../../src/storage/level-vote-store.js";
import { LevelWitnessStore } from "../../src/storage/level-witness-store.js";
import { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import type { ChainSource } from "../../src/wallet/chain-source.js";
import { testPrimes } from "../fixtures/parties.js";

/** On a machine that others keep busy, rounds take longer: TEST_SLOWNESS=5 waits five times as long. */
export const SLOWNESS = Number(process.env["TEST_SLOWNESS"] ?? 1);

export const TEST_AUTHORITY = { name: "treasury", seed: new Uint8Array(32).fill(7) };
export const quickHash = { memoryKib: 64, passes: 1, lanes: 1 };
export const testPassphrase = (nodeId: string): SecretBytes =>
  SecretBytes.copyOf(new TextEncoder().encode(`passphrase of ${nodeId}`));

/** Plain values: they cross into another process. */
export interface TestNodeSetup {
  readonly folder: string;
  readonly node: DevelopmentNode;
  /** Index of the fixture's primes, from 1. */
  readonly party: number;
  /** Entries as a configuration has them. */
  readonly roster: readonly unknown[];
  readonly trust: { readonly root: string; readonly intermediate: string; readonly revocationList: string };
}

export interface TestNodeParts {
  readonly chain: ChainSource;
  readonly sessions?: SessionRunner | undefined;
  /** Stands between the node and its session threads. */
  readonly observe?: (sessions: SessionRunner) => SessionRunner;
  readonly policy?: PaymentPolicy | undefined;
  readonly ledgerConfirmationMs?: number | undefined;
  /** Gets hold of what the node stores with, before the node does. */
  readonly tamper?: (stores: {
    readonly store: KeyStore;
    readonly ledger: OneUseLedger;
    readonly witnesses: LevelWitnessStore;
  }) => void;
}

/** The fixture's primes of one party; drawing some takes half a minute of this machine. */
function fixturePrimes(party: number): PrimeSource {
  return {
    prepare: async () => undefined,
    take: async () => testPrimes(security112, party),
    progress: { ready: 0, drawing: undefined },
    close: async () => undefined,
  };
}

export function testTrust({ trust }: Pick<TestNodeSetup, "trust">, roster: Roster): Promise<TrustFiles> {
  return TrustFiles.load(
    {
      rootPath: trust.root,
      intermediatePath: trust.intermediate,
      revocationListPaths: [trust.revocationList],
      roster,
    },
    { clock: systemClock },
  );
}

export async function startTestNode(setup: TestNodeSetup, parts: TestNodeParts): Promise<MpcNode> {
  const { node, folder } = setup;
  const { nodeId } = node;
  const roster = parseRoster(setup.roster);
  const stateFolder = join(folder, nodeId);
  const options = { folder: stateFolder, passphrase: testPassphrase(nodeId), cost: quickHash };
  const store = (await KeyStore.exists(stateFolder))
    ? await KeyStore.open(options, { random: systemRandom })
    : await KeyStore.create({ ...options, nodeId }, { random: systemRandom });
  const identity = MessageIdentity.fromPem(nodeId, await readFile(node.identityKeyPath, "utf8"));
  const patience = { roundTimeoutMs: 3_000 * SLOWNESS, sessionTimeoutMs: 10_000 * SLOWNESS };
  const presignPatience = { roundTimeoutMs: 20_000 * SLOWNESS, sessionTimeoutMs: 60_000 * SLOWNESS };
  const sessions =
    parts.sessions ??
    (await SessionLanes.start(
      { workers: 1, identity: identity.privateKey, maxSessions: 256, patience, presignPatience },
      { clock: systemClock },
    ));
  const ledger = await OneUseLedger.open(
    { folder: join(stateFolder, "ledger"), key: store.ledgerKey() },
    { clock: systemClock, random: systemRandom },
  );
  const witnesses = await LevelWitnessStore.open(join(stateFolder, "witness"));
  parts.tamper?.({ store, ledger, witnesses });
  return await MpcNode.start(
    {
      identity,
      listen: { host: "127.0.0.1", port: roster.get(nodeId)?.port ?? 0 },
      roster,
      network: "regtest",
      credentials: await loadTlsCredentials({ nodeId, keyPath: node.tlsKeyPath, chainPath: node.tlsChainPath }),
      trust: await testTrust(setup, roster),
      trustReloadIntervalMs: 60_000,
      policy: parts.policy ?? DEFAULT_POLICY,
      authorities: new Map([[TEST_AUTHORITY.name, ed25519PublicKey(TEST_AUTHORITY.seed)]]),
      version: "test",
      security: "security112",
      presignatureLifetimeMs: 3_600_000,
      takePatienceMs: 3_000,
      ledgerConfirmationMs: parts.ledgerConfirmationMs ?? 30_000,
      maxRequestWindowMs: 3_600_000,
      clockSkewMs: 5_000,
    },
    {
      clock: systemClock,
      random: systemRandom,
      log: processLog({ name: "test", level: process.env["TEST_LOG"] ?? "silent" }).child({ nodeId }),
      store,
      votes: await LevelVoteStore.open(join(stateFolder, "votes")),
      sessions: parts.observe?.(sessions) ?? sessions,
      witnesses,
      ledger,
      primes: fixturePrimes(setup.party),
      chain: parts.chain,
    },
  );
}
