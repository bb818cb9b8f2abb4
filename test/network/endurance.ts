import { openFiles } from "./connection-flood.js";
import { TestAuthority } from "./test-certificates.js";
import { control, eventually, startNode, statusOf } from "./test-mesh.js";

/** What is open after many cycles, against what was open after the first few. */
export interface EnduranceSummary {
  readonly cycles: number;
  readonly fileDescriptors: { readonly before: number; readonly after: number };
  /** Sockets, timers and the like that keep Node's event loop. */
  readonly resources: { readonly before: number; readonly after: number };
  readonly rssGrowthMb: number;
}

const resources = () => process.getActiveResourcesInfo().length;

/** A connection that is idle but for its pings, over `cycles` of them, with a call now and then. */
export async function keepAlive(cycles: number): Promise<EnduranceSummary> {
  const intervalMs = 10;
  const limits = { keepAliveIntervalMs: intervalMs, healthIntervalMs: 200 };
  const authority = await TestAuthority.create("idle");
  const b = await startNode({ nodeId: "node-b", authority, limits, peers: [{ nodeId: "node-a" }] });
  const peers = [{ nodeId: "node-b", host: "127.0.0.1", port: b.mesh.port }];
  const a = await startNode({ nodeId: "node-a", authority, limits, peers });
  await a.mesh.ready(["node-b"], 20_000);
  const cycle = () => new Promise<void>((resolve) => setTimeout(resolve, intervalMs));
  for (let warm = 0; warm < 50; warm++) await cycle();
  const before = { files: openFiles(), resources: resources(), rss: process.memoryUsage().rss };
  for (let done = 0; done < cycles; done++) {
    await cycle();
    if (done % 50 === 0) await control(a, "node-b").ping({}, { timeoutMs: 20_000 });
  }
  if (statusOf(a, "node-b").connections !== 1) throw new Error("the idle connection was lost");
  const rssGrowthMb = (process.memoryUsage().rss - before.rss) / 2 ** 20;
  const summary = {
    cycles,
    fileDescriptors: { before: before.files, after: openFiles() },
    resources: { before: before.resources, after: resources() },
    rssGrowthMb,
  };
  await Promise.all([a.mesh.close(), b.mesh.close()]);
  return summary;
}

/** A peer that is added, connected, called, removed, `cycles` times. */
export async function connectAndClose(cycles: number): Promise<EnduranceSummary> {
  const authority = await TestAuthority.create("cycles");
  const b = await startNode({ nodeId: "node-b", authority, peers: [{ nodeId: "node-a" }] });
  const a = await startNode({ nodeId: "node-a", authority, peers: [] });
  const once = async () => {
    a.mesh.addPeer({ nodeId: "node-b", host: "127.0.0.1", port: b.mesh.port });
    await a.mesh.ready(["node-b"], 20_000);
    await control(a, "node-b").ping({ payload: new Uint8Array(100) }, { timeoutMs: 20_000 });
    a.mesh.removePeer("node-b");
    if (!(await eventually(() => statusOf(b, "node-a").remote === undefined, 20_000))) throw new Error("never closed");
  };
  for (let warm = 0; warm < 20; warm++) await once();
  globalThis.gc?.();
  const before = { files: openFiles(), resources: resources(), rss: process.memoryUsage().rss };
  for (let done = 0; done < cycles; done++) await once();
  // Closed connections repeat their CLOSE for a moment; their timers go with them.
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  globalThis.gc?.();
  const summary = {
    cycles,
    fileDescriptors: { before: before.files, after: openFiles() },
    resources: { before: before.resources, after: resources() },
    rssGrowthMb: (process.memoryUsage().rss - before.rss) / 2 ** 20,
  };
  await Promise.all([a.mesh.close(), b.mesh.close()]);
  return summary;
}
