import type { HealthView, PartHealth, PoolStatusView } from "./wallet-application.js";

/** Supply of presignatures or nonces, as nodes report it. Adapter: coordinator/. */
export interface PoolMonitor {
  /** The scarcest supply among the wallet's nodes. */
  status(walletId: string): Promise<PoolStatusView>;
}

/** One part of the system that can be asked whether it works. */
export interface HealthProbe {
  /** For example "chain" or "node:node-3". */
  readonly name: string;
  /** Resolves with a word for people; rejects when the part does not work. */
  probe(signal: AbortSignal): Promise<string>;
}

async function ask(probe: HealthProbe, signal: AbortSignal): Promise<PartHealth> {
  try {
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(new Error("no answer in time")));
    });
    return { name: probe.name, healthy: true, detail: await Promise.race([probe.probe(signal), aborted]) };
  } catch (error) {
    return { name: probe.name, healthy: false, detail: error instanceof Error ? error.message : "failed" };
  }
}

/** Asks every part at once. Nodes may be missing as long as `nodesNeeded` answer; everything else must answer. */
export async function checkHealth(
  probes: readonly HealthProbe[],
  facts: { readonly nodesNeeded: number; readonly leader: string; readonly timeMs: number },
  signal: AbortSignal,
): Promise<Omit<HealthView, "preparations">> {
  const parts = await Promise.all(probes.map((probe) => ask(probe, signal)));
  const isNode = ({ name }: PartHealth): boolean => name.startsWith("node:");
  const nodes = parts.filter((part) => isNode(part) && part.healthy).length;
  const others = parts.every((part) => part.healthy || isNode(part));
  return { healthy: others && nodes >= facts.nodesNeeded, parts, leader: facts.leader, timeMs: facts.timeMs };
}
