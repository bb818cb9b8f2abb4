import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join, relative } from "node:path";
import { importPKCS8, SignJWT } from "jose";
import { stringify } from "smol-toml";
import { InvalidInput } from "../crypto/fault.js";
import { createDevelopmentPki, type DevelopmentPki } from "../network/identity/development-pki.js";
import { systemClock, systemRandom } from "../node/ambient.js";

/** What a devnet is made of; written once, so that a restart finds its wallets and ports again. */
export interface DevnetPlan {
  readonly nodes: readonly string[];
  readonly coordinator: string;
  /** UDP port of each peer. */
  readonly peerPorts: Readonly<Record<string, number>>;
  readonly gatewayPort: number;
  readonly esploraPort: number;
  readonly rpcPort: number;
}

/** Places in a devnet folder. */
export interface DevnetPaths {
  readonly folder: string;
  readonly clientConfig: string;
  readonly coordinatorConfig: string;
  readonly chainFile: string;
  readonly rpcPassword: string;
  nodeConfig(nodeId: string): string;
  logFile(name: string): string;
}

export const AUTHORITY = "treasury";
const GATEWAY_NAME = "localhost";
const RPC_USER = "devnet";
const SCOPES = "wallet:read wallet:write payment:send metrics:read";
const TOKEN_LIFETIME_S = 23 * 3600;

export function devnetPaths(folder: string): DevnetPaths {
  return {
    folder,
    clientConfig: join(folder, "client.toml"),
    coordinatorConfig: join(folder, "coordinator-1", "coordinator.toml"),
    chainFile: join(folder, "chain", "blocks.jsonl"),
    rpcPassword: join(folder, "chain", "rpc-password"),
    nodeConfig: (nodeId) => join(folder, nodeId, "node.toml"),
    logFile: (name) => join(folder, "logs", `${name}.log`),
  };
}

/**
 * Makes the devnet's folder or completes it: certificates, identities, keys, passphrases, configurations. What is there stays,
 * except the client's token, which lives for a day and is made anew.
 */
export async function prepareDevnet(options: { readonly folder: string; readonly nodes: number }): Promise<DevnetPlan> {
  const { folder } = options;
  await mkdir(join(folder, "logs"), { recursive: true, mode: 0o700 });
  await mkdir(join(folder, "chain"), { recursive: true, mode: 0o700 });
  const planFile = join(folder, "devnet.json");
  const known = existsSync(planFile) ? (JSON.parse(await readFile(planFile, "utf8")) as DevnetPlan) : undefined;
  if (known !== undefined && known.nodes.length !== options.nodes) {
    throw new InvalidInput(
      "devnet-exists",
      `${folder} holds a devnet of ${known.nodes.length} nodes; use another folder`,
      {
        nodes: known.nodes.length,
      },
    );
  }
  const plan = known ?? (await planDevnet(options.nodes));
  const members = [...plan.nodes, plan.coordinator];
  const pki = await createDevelopmentPki(
    { folder: join(folder, "pki"), nodeIds: [...members, GATEWAY_NAME] },
    { clock: systemClock, random: systemRandom },
  );
  const keys = await clientKeys(folder);
  await writeOnce(devnetPaths(folder).rpcPassword, randomText(), 0o600);
  await writeConfigurations({ folder, plan, pki, keys });
  await writeToken(folder, keys.tokenKeyFile);
  if (known === undefined) await writeFile(planFile, `${JSON.stringify(plan, null, 2)}\n`);
  return plan;
}

async function planDevnet(count: number): Promise<DevnetPlan> {
  if (!Number.isInteger(count) || count < 2 || count > 20) {
    throw new InvalidInput("nodes-out-of-range", "a devnet has 2 to 20 nodes", { nodes: count });
  }
  const nodes = Array.from({ length: count }, (_, index) => `node-${index + 1}`);
  const coordinator = "coordinator-1";
  const udp = await freePorts(count + 1, "udp");
  const tcp = await freePorts(3, "tcp");
  return {
    nodes,
    coordinator,
    peerPorts: Object.fromEntries([...nodes, coordinator].map((name, index) => [name, udp[index] ?? 0])),
    gatewayPort: tcp[0] ?? 0,
    esploraPort: tcp[1] ?? 0,
    rpcPort: tcp[2] ?? 0,
  };
}

interface ClientKeys {
  readonly authorityKeyFile: string;
  readonly authorityPublicKey: string;
  readonly tokenKeyFile: string;
  readonly tokenPublicKeyFile: string;
}

/** The payment authority's key and the key that signs tokens, both Ed25519. */
async function clientKeys(folder: string): Promise<ClientKeys> {
  const authorityKeyFile = join(folder, "authority-key.pem");
  const tokenKeyFile = join(folder, "token-key.pem");
  const tokenPublicKeyFile = join(folder, "token-public-key.pem");
  await writeOnce(authorityKeyFile, newEd25519Pem(), 0o600);
  await writeOnce(tokenKeyFile, newEd25519Pem(), 0o600);
  const publicOf = async (file: string) => createPublicKey(createPrivateKey(await readFile(file, "utf8")));
  await writeOnce(
    tokenPublicKeyFile,
    (await publicOf(tokenKeyFile)).export({ format: "pem", type: "spki" }) as string,
    0o644,
  );
  const authority = (await publicOf(authorityKeyFile)).export({ format: "der", type: "spki" });
  return {
    authorityKeyFile,
    authorityPublicKey: authority.subarray(-32).toString("hex"),
    tokenKeyFile,
    tokenPublicKeyFile,
  };
}

async function writeToken(folder: string, tokenKeyFile: string): Promise<void> {
  const key = await importPKCS8(await readFile(tokenKeyFile, "utf8"), "EdDSA");
  const issuedAt = Math.floor(systemClock.nowMs() / 1000);
  const token = await new SignJWT({ scope: SCOPES })
    .setProtectedHeader({ alg: "EdDSA" })
    .setSubject("devnet-operator")
    .setAudience("mpc-wallet")
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + TOKEN_LIFETIME_S)
    .sign(key);
  await writeFile(join(folder, "token"), `${token}\n`, { mode: 0o600 });
}

async function writeConfigurations(parts: {
  readonly folder: string;
  readonly plan: DevnetPlan;
  readonly pki: DevelopmentPki;
  readonly keys: ClientKeys;
}): Promise<void> {
  const { folder, plan, pki, keys } = parts;
  const paths = devnetPaths(folder);
  const roster = pki.nodes
    .filter(({ nodeId }) => nodeId !== GATEWAY_NAME)
    .map(({ nodeId, identityKey }) => ({
      nodeId,
      role: nodeId === plan.coordinator ? "coordinator" : "node",
      host: "127.0.0.1",
      port: plan.peerPorts[nodeId] ?? 0,
      identityKey: Buffer.from(identityKey).toString("hex"),
    }));
  const find = (nodeId: string) => {
    const node = pki.nodes.find((candidate) => candidate.nodeId === nodeId);
    if (node === undefined) throw new InvalidInput("devnet-incomplete", `no certificate for ${nodeId}`, { nodeId });
    return node;
  };
  const shared = (nodeId: string) => {
    const from = (path: string): string => relative(join(folder, nodeId), path);
    const { tlsChainPath, tlsKeyPath, identityKeyPath } = find(nodeId);
    return {
      network: { listenHost: "127.0.0.1", listenPort: plan.peerPorts[nodeId] ?? 0, roster },
      security: {
        rootCertificateFile: from(pki.paths.rootCertificate),
        intermediateCertificateFile: from(pki.paths.intermediateCertificate),
        revocationListFiles: [from(pki.paths.revocationList)],
        certificateFile: from(tlsChainPath),
        privateKeyFile: from(tlsKeyPath),
        identityKeyFile: from(identityKeyPath),
        authorities: [{ name: AUTHORITY, publicKey: keys.authorityPublicKey }],
      },
      storage: { passphraseFile: "passphrase" },
      // Primes are drawn when a SegWit wallet is created: five nodes that each draw some ahead would keep a small
      // machine busy for a minute although nobody wants any. One presignature for each signing set of three of five.
      protocols: { cggmp24: { primePool: 0, poolTarget: 10, poolMinimum: 10, poolBatch: 2, ...PATIENCE } },
      bitcoin: {
        network: "regtest",
        esploraUrl: `http://127.0.0.1:${plan.esploraPort}`,
        trackIntervalMs: 250,
        coreRpc: { url: `http://127.0.0.1:${plan.rpcPort}`, user: RPC_USER, passwordFile: from(paths.rpcPassword) },
      },
    };
  };
  for (const nodeId of plan.nodes) {
    await mkdir(join(folder, nodeId), { recursive: true, mode: 0o700 });
    await writeOnce(join(folder, nodeId, "passphrase"), randomText(), 0o600);
    await writeOnce(
      paths.nodeConfig(nodeId),
      stringify({ node: { id: nodeId, dataFolder: "data" }, ...shared(nodeId) }),
      0o600,
    );
  }
  const { coordinator } = plan;
  const from = (path: string): string => relative(join(folder, coordinator), path);
  const gateway = find(GATEWAY_NAME);
  await mkdir(join(folder, coordinator), { recursive: true, mode: 0o700 });
  await writeOnce(join(folder, coordinator, "passphrase"), randomText(), 0o600);
  const gatewaySection = {
    host: "127.0.0.1",
    port: plan.gatewayPort,
    certificateFile: from(gateway.tlsChainPath),
    privateKeyFile: from(gateway.tlsKeyPath),
    jwt: { keyFiles: [from(keys.tokenPublicKeyFile)] },
    limits: { callsPerSecond: 1000 },
    // Nothing stands in front of it that would have to notice first.
    lameDuckMs: 0,
  };
  const coordinatorConfig = {
    coordinator: { id: coordinator, dataFolder: "data" },
    gateway: gatewaySection,
    ca: { folder: from(pki.paths.folder), passphraseFile: from(pki.passphrasePath) },
    ...shared(coordinator),
  };
  await writeOnce(paths.coordinatorConfig, stringify(coordinatorConfig), 0o600);
  const client = {
    gateway: {
      url: `https://localhost:${plan.gatewayPort}`,
      caFile: relative(folder, pki.paths.rootCertificate),
      tokenFile: "token",
    },
    authority: { name: AUTHORITY, keyFile: relative(folder, keys.authorityKeyFile) },
  };
  await writeOnce(paths.clientConfig, stringify(client), 0o600);
}

/** All processes share one machine's cores. */
const PATIENCE = { roundTimeoutMs: 30_000, sessionTimeoutMs: 120_000 };

async function writeOnce(path: string, content: string, mode: number): Promise<void> {
  if (!existsSync(path)) await writeFile(path, content.endsWith("\n") ? content : `${content}\n`, { mode, flag: "wx" });
}

const randomText = (): string => Buffer.from(systemRandom.bytes(24)).toString("base64url");

function newEd25519Pem(): string {
  return generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }) as string;
}

/** Ports of the loopback interface that are free now; all are held until all are chosen. */
async function freePorts(count: number, kind: "udp" | "tcp"): Promise<number[]> {
  const holders = await Promise.all(Array.from({ length: count }, () => (kind === "udp" ? holdUdp() : holdTcp())));
  await Promise.all(holders.map(({ release }) => release()));
  return holders.map(({ port }) => port);
}

async function holdUdp() {
  const socket = createSocket("udp4");
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  return { port: socket.address().port, release: () => new Promise<void>((resolve) => socket.close(() => resolve())) };
}

async function holdTcp() {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return { port, release: () => new Promise<void>((resolve) => server.close(() => resolve())) };
}
