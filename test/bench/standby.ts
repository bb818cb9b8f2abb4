// What a second connection a peer costs: memory and CPU of a process that keeps 20 peers, idle, with and without.
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { ControlService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { TestAuthority, testVerifier } from "../network/test-certificates.js";

const PEERS = 20;
const IDLE_MS = 20_000;

interface Setup {
  readonly rootDerBase64: string;
  readonly credentials: TransportCredentials;
  readonly standby: boolean;
}

const ping = (credentials: TransportCredentials, rootDer: Uint8Array) => ({
  credentials,
  dependencies: {
    clock: systemClock,
    random: systemRandom,
    verifier: testVerifier(rootDer),
    log: () => {},
    router: (router: Parameters<Parameters<typeof PeerMesh.start>[1]["router"]>[0]) => {
      router.service(ControlService, { ping: ({ payload }) => ({ payload, timeMs: 1n }) });
    },
  },
});

/** One peer of the twenty; all live in one process, so that the measured one is alone in its own. */
async function peers(authority: TestAuthority): Promise<{ ports: number[]; meshes: PeerMesh[] }> {
  const meshes = await Promise.all(
    Array.from({ length: PEERS }, async (_, index) => {
      const { credentials, dependencies } = ping(await authority.issue(`peer-${index}`), authority.rootDer);
      return await PeerMesh.start(
        {
          nodeId: `peer-${index}`,
          listen: { host: "127.0.0.1", port: 0 },
          peers: [{ nodeId: "measured", dial: "them" }],
          credentials,
        },
        dependencies,
      );
    }),
  );
  return { ports: meshes.map(({ port }) => port), meshes };
}

async function measured({ rootDerBase64, credentials, standby }: Setup, ports: readonly number[]): Promise<void> {
  const { dependencies } = ping(credentials, Buffer.from(rootDerBase64, "base64"));
  const ids = ports.map((_, index) => `peer-${index}`);
  const mesh = await PeerMesh.start(
    {
      nodeId: "measured",
      listen: { host: "127.0.0.1", port: 0 },
      peers: ids.map((nodeId, index) => ({ nodeId, host: "127.0.0.1", port: ports[index] ?? 0, dial: "us" as const })),
      credentials,
      limits: { standby },
    },
    dependencies,
  );
  await mesh.ready(ids, 30_000);
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  const standing = mesh.status().filter((link) => link.standby).length;
  globalThis.gc?.();
  const before = process.cpuUsage();
  const rssBefore = process.memoryUsage.rss();
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const { user, system } = process.cpuUsage(before);
  globalThis.gc?.();
  const rssMb = Math.min(rssBefore, process.memoryUsage.rss()) / 2 ** 20;
  process.send?.({ standing, rssMb, cpuMs: (user + system) / 1_000 });
  await mesh.close();
  process.disconnect?.();
}

async function run(): Promise<void> {
  const authority = await TestAuthority.create("standby");
  const { ports, meshes } = await peers(authority);
  const rows: { standby: boolean; rssMb: number; cpuMs: number }[] = [];
  for (const standby of [false, true, false, true, false, true]) {
    const child = fork(fileURLToPath(import.meta.url), ["--measured"], { execArgv: ["--expose-gc"] });
    const setup: Setup = {
      rootDerBase64: Buffer.from(authority.rootDer).toString("base64"),
      credentials: await authority.issue("measured"),
      standby,
    };
    child.send({ setup, ports });
    const [row] = (await once(child, "message")) as [{ standing: number; rssMb: number; cpuMs: number }];
    rows.push({ standby, ...row });
    console.log(
      `standby ${standby}: ${row.standing} of ${PEERS} stand by, RSS ${row.rssMb.toFixed(1)} MB, ${((row.cpuMs / IDLE_MS) * 1_000).toFixed(1)} CPU ms a second`,
    );
    await once(child, "exit");
  }
  const median = (standby: boolean, value: "rssMb" | "cpuMs") =>
    rows
      .filter((row) => row.standby === standby)
      .map((row) => row[value])
      .sort((a, b) => a - b)[1] ?? 0;
  const extra = (value: "rssMb" | "cpuMs") => (median(true, value) - median(false, value)) / PEERS;
  console.log(
    `a second connection costs ${(extra("rssMb") * 1_024).toFixed(0)} KB and ${((extra("cpuMs") / IDLE_MS) * 1e6).toFixed(0)} CPU µs a second`,
  );
  await Promise.all(meshes.map((mesh) => mesh.close()));
}

if (process.argv.includes("--measured")) {
  process.once("message", (message) => {
    const { setup, ports } = message as { setup: Setup; ports: number[] };
    void measured(setup, ports);
  });
} else {
  await run();
}
