import { type ConnectRouter, createClient } from "@connectrpc/connect";
import { ControlService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { RouterSetup } from "../../src/network/method-table.js";
import type { NetworkLimits } from "../../src/network/network-limits.js";
import type { NetworkEvent } from "../../src/network/network-log.js";
import type { PeerAddress } from "../../src/network/peer-link.js";
import { PeerMesh } from "../../src/network/peer-mesh.js";
import type { PeerVerifier } from "../../src/network/peer-verifier.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { TestAuthority, testVerifier } from "./test-certificates.js";

export interface TestNodeOptions {
  nodeId: string;
  peers: readonly PeerAddress[];
  /** Whose certificates count, and who issues the node's own; either of the two may be given instead. */
  authority?: TestAuthority;
  port?: number;
  credentials?: TransportCredentials;
  router?: RouterSetup;
  limits?: Partial<NetworkLimits>;
  verifier?: PeerVerifier;
}

/** A mesh with its log. */
export interface TestNode {
  mesh: PeerMesh;
  events: NetworkEvent[];
}

export const pingRoutes = (router: ConnectRouter): void => {
  router.service(ControlService, { ping: ({ payload }) => ({ payload, timeMs: 1n }) });
};

export async function startNode(options: TestNodeOptions): Promise<TestNode> {
  const events: NetworkEvent[] = [];
  const { authority } = options;
  const credentials = options.credentials ?? (await authority?.issue(options.nodeId));
  const verifier = options.verifier ?? (authority && testVerifier(authority.rootDer));
  if (credentials === undefined || verifier === undefined) throw new Error("credentials or an authority are needed");
  const mesh = await PeerMesh.start(
    {
      nodeId: options.nodeId,
      listen: { host: "127.0.0.1", port: options.port ?? 0 },
      peers: options.peers,
      credentials,
      limits: options.limits ?? {},
    },
    {
      clock: systemClock,
      random: systemRandom,
      verifier,
      router: options.router ?? pingRoutes,
      log: (event) => {
        events.push(event);
      },
    },
  );
  opened.add(mesh);
  return { mesh, events };
}

const opened = new Set<PeerMesh>();

/** For an `after` hook: a failed test must not keep the process alive. Closing twice is nothing. */
export async function closeAll(): Promise<void> {
  await Promise.all([...opened].map((mesh) => mesh.close()));
}

export interface Pair {
  /** Dials. */
  a: TestNode;
  b: TestNode;
  close(): Promise<void>;
}

/** Two connected nodes, "node-a" and "node-b"; both offer the same routes. */
export async function startPair(
  options: {
    authority?: TestAuthority;
    router?: RouterSetup;
    limits?: Partial<NetworkLimits>;
    limitsA?: Partial<NetworkLimits>;
  } = {},
): Promise<Pair> {
  const authority = options.authority ?? (await TestAuthority.create("pair"));
  const shared = { authority, ...(options.router === undefined ? {} : { router: options.router }) };
  const limits = options.limits ?? {};
  const b = await startNode({ ...shared, limits, nodeId: "node-b", peers: [{ nodeId: "node-a" }] });
  const a = await startNode({
    ...shared,
    limits: { ...limits, ...options.limitsA },
    nodeId: "node-a",
    peers: [{ nodeId: "node-b", host: "127.0.0.1", port: b.mesh.port }],
  });
  await Promise.all([a.mesh.ready(["node-b"], 5_000), b.mesh.ready(["node-a"], 5_000)]);
  return {
    a,
    b,
    close: async () => {
      await Promise.all([a.mesh.close(), b.mesh.close()]);
    },
  };
}

export const control = (node: TestNode, peer: string) => createClient(ControlService, node.mesh.transport(peer));

/** Polls until `holds`, within a bound. */
export async function eventually(holds: () => boolean, timeoutMs = 5_000): Promise<boolean> {
  const endMs = performance.now() + timeoutMs;
  while (performance.now() < endMs) {
    if (holds()) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return holds();
}

export const statusOf = (node: TestNode, peer: string) => {
  const status = node.mesh.status().find(({ nodeId }) => nodeId === peer);
  if (status === undefined) throw new Error(`${peer} is no peer`);
  return status;
};
