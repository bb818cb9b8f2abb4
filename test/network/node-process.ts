// A node in its own process, for tests that kill, stop, block or move one. Started by `NodeProcess.start`; told what to be by
// the first message, and what to do by those that follow.
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ControlService, type ExchangeRequest, SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Clock } from "../../src/crypto/ambient.js";
import type { NetworkLimits } from "../../src/network/network-limits.js";
import type { LinkState, PeerAddress } from "../../src/network/peer-link.js";
import { PeerMesh, type PeerMeshOptions } from "../../src/network/peer-mesh.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { type TestAuthority, testVerifier } from "./test-certificates.js";
import { type TestTrust, trustVerifier } from "./test-trust.js";

/** First message to the process. */
interface Setup {
  readonly mesh: PeerMeshOptions;
  /** What it judges peers by: a root, or all that a real member knows. */
  readonly judges: { readonly rootDerBase64: string } | { readonly trust: TestTrust };
  /** How far its wall clock is from the machine's. */
  readonly skewMs: number;
}

/** How a peer looks from the process. */
export interface PeerView {
  readonly state: LinkState;
  readonly connections: number;
  readonly fault: string | undefined;
}

/** What became of calls that a process made. */
export interface CallTally {
  readonly answered: number;
  /** Calls that were made again because the connection was lost under them. */
  readonly repeated: number;
  readonly failed: readonly string[];
  readonly latenciesMs: readonly number[];
}

/** Further messages; each is answered. */
type Order =
  | { readonly kind: "peer"; readonly peer: string }
  | { readonly kind: "call"; readonly peer: string; readonly text: string; readonly timeoutMs: number }
  /** Small calls, one after the other, for so long. */
  | { readonly kind: "calls"; readonly peer: string; readonly durationMs: number; readonly timeoutMs: number }
  | { readonly kind: "move"; readonly peer: PeerAddress }
  | { readonly kind: "memory" };

/** A payload that starts with this word and a number blocks the event loop for so many milliseconds. */
export const BUSY = "busy ";
/** A payload of this word is never answered. */
export const NEVER = "never";
/** A payload of this word closes the mesh; the process must then end by itself. */
export const LEAVE = "leave";
/** A payload of this word is answered with what is left of the call's deadline. */
export const REMAINING = "remaining";

/** Blocks the event loop. */
export function blockMs(durationMs: number): void {
  const endMs = performance.now() + durationMs;
  while (performance.now() < endMs);
}

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text));

/**
 * An idempotent call, made again within its own time when the connection was lost under it.
 *
 * @returns how often it was repeated
 */
export async function pingUntil(mesh: PeerMesh, peer: string, deadlineMs: number): Promise<number> {
  for (let repeated = 0; ; repeated++) {
    const timeoutMs = Math.max(1, Math.ceil(deadlineMs - performance.now()));
    try {
      await createClient(ControlService, mesh.transport(peer)).ping({ payload: bytesOf("again") }, { timeoutMs });
      return repeated;
    } catch (error) {
      if (!(error instanceof ConnectError) || error.code !== Code.Unavailable) throw error;
      if (performance.now() > deadlineMs - 50) throw error;
    }
  }
}

async function calls(mesh: PeerMesh, order: Extract<Order, { kind: "calls" }>): Promise<CallTally> {
  const endMs = performance.now() + order.durationMs;
  const failed: string[] = [];
  const latenciesMs: number[] = [];
  let [answered, repeated] = [0, 0];
  while (performance.now() < endMs) {
    const startMs = performance.now();
    try {
      repeated += await pingUntil(mesh, order.peer, performance.now() + order.timeoutMs);
      answered += 1;
      latenciesMs.push(performance.now() - startMs);
    } catch (error) {
      failed.push(String(error));
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return { answered, repeated, failed, latenciesMs };
}

function peerView(mesh: PeerMesh, peer: string): PeerView {
  const status = mesh.status().find(({ nodeId }) => nodeId === peer);
  if (status === undefined) throw new Error(`${peer} is no peer`);
  return { state: status.state, connections: status.connections, fault: status.lastFault?.code };
}

async function obey(mesh: PeerMesh, order: Order): Promise<unknown> {
  switch (order.kind) {
    case "peer":
      return peerView(mesh, order.peer);
    case "call": {
      const client = createClient(ControlService, mesh.transport(order.peer));
      const { payload } = await client.ping({ payload: bytesOf(order.text) }, { timeoutMs: order.timeoutMs });
      return Buffer.from(payload).toString();
    }
    case "calls":
      return await calls(mesh, order);
    case "move":
      mesh.removePeer(order.peer.nodeId);
      mesh.addPeer(order.peer);
      return null;
    case "memory":
      return process.memoryUsage().rss;
  }
}

async function run({ mesh: options, judges, skewMs }: Setup): Promise<void> {
  const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + skewMs };
  let leaving = false;
  // The test is gone, and with it the reason to run.
  process.once("disconnect", () => leaving || process.exit(1));
  const mesh: PeerMesh = await PeerMesh.start(options, {
    clock,
    random: systemRandom,
    verifier:
      "trust" in judges
        ? trustVerifier(judges.trust, clock)
        : testVerifier(Buffer.from(judges.rootDerBase64, "base64"), clock),
    log: () => {},
    router: (router) => {
      router.service(SessionService, {
        async *exchange(requests: AsyncIterable<ExchangeRequest>) {
          for await (const { frame } of requests) yield frame === undefined ? {} : { frame };
        },
      });
      router.service(ControlService, {
        ping({ payload }, context) {
          const word = Buffer.from(payload.subarray(0, 32)).toString();
          if (word.startsWith(BUSY)) blockMs(Number(word.slice(BUSY.length)));
          if (word === NEVER) return new Promise<never>(() => {});
          if (word === LEAVE) {
            leaving = true;
            setImmediate(() => void mesh.close().then(() => process.disconnect?.()));
          }
          if (word === REMAINING)
            return { payload: bytesOf(String(context.timeoutMs())), timeMs: BigInt(clock.nowMs()) };
          return { payload, timeMs: BigInt(clock.nowMs()) };
        },
      });
    },
  });
  process.on("message", async ({ id, order }: { id: number; order: Order }) => {
    const reply = await obey(mesh, order).then(
      (value) => ({ id, value }),
      (error: unknown) => ({ id, error: error instanceof Error ? error.message : String(error) }),
    );
    process.send?.(reply);
  });
  process.send?.({ port: mesh.port });
}

const started = new Set<ChildProcess>();

/** For an `after` hook. */
export function killAll(): void {
  for (const child of started) child.kill("SIGKILL");
}

/** The process, seen from the test. */
export class NodeProcess {
  readonly process: ChildProcess;
  readonly port: number;
  readonly exited: Promise<number | null>;
  #orders = 0;

  private constructor(process: ChildProcess, port: number, exited: Promise<number | null>) {
    this.process = process;
    this.port = port;
    this.exited = exited;
  }

  static async start(options: {
    nodeId: string;
    peers: readonly PeerAddress[];
    /** Whose certificates count, and who issues this process's own when none is given. */
    authority?: TestAuthority;
    /** In place of an authority. */
    trust?: TestTrust;
    credentials?: TransportCredentials;
    host?: string;
    port?: number;
    limits?: Partial<NetworkLimits>;
    skewMs?: number;
    /** A network namespace of this machine. */
    namespace?: string;
  }): Promise<NodeProcess> {
    const { authority, trust } = options;
    const credentials = options.credentials ?? (await authority?.issue(options.nodeId));
    if (credentials === undefined) throw new Error("credentials or an authority are needed");
    const inside = options.namespace === undefined ? [] : ["ip", "netns", "exec", options.namespace];
    const [command = process.execPath, ...words] = [...inside, process.execPath, fileURLToPath(import.meta.url)];
    const child = spawn(command, [...words, "--node-process"], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    child.setMaxListeners(100);
    started.add(child);
    const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
    const ready = new Promise<{ port: number }>((resolve, reject) => {
      child.once("message", (message) => resolve(message as { port: number }));
      child.once("exit", () => reject(new Error("the node's process ended")));
    });
    child.send({
      mesh: {
        nodeId: options.nodeId,
        listen: { host: options.host ?? "127.0.0.1", port: options.port ?? 0 },
        peers: options.peers,
        credentials,
        limits: options.limits ?? {},
      },
      judges:
        trust === undefined ? { rootDerBase64: Buffer.from(authority?.rootDer ?? []).toString("base64") } : { trust },
      skewMs: options.skewMs ?? 0,
    } satisfies Setup);
    return new NodeProcess(child, (await ready).port, exited);
  }

  peer(peer: string): Promise<PeerView> {
    return this.#order<PeerView>({ kind: "peer", peer });
  }

  call(peer: string, text: string, timeoutMs = 5_000): Promise<string> {
    return this.#order<string>({ kind: "call", peer, text, timeoutMs });
  }

  calls(peer: string, durationMs: number, timeoutMs: number): Promise<CallTally> {
    return this.#order<CallTally>({ kind: "calls", peer, durationMs, timeoutMs });
  }

  move(peer: PeerAddress): Promise<null> {
    return this.#order<null>({ kind: "move", peer });
  }

  /** Bytes of memory that its process has. */
  memory(): Promise<number> {
    return this.#order<number>({ kind: "memory" });
  }

  kill(): Promise<number | null> {
    this.process.kill("SIGKILL");
    return this.exited;
  }

  #order<T>(order: Order): Promise<T> {
    const id = this.#orders++;
    return new Promise<T>((resolve, reject) => {
      const lost = () => reject(new Error("the node's process ended"));
      const take = (message: unknown) => {
        const reply = message as { id: number; value?: T; error?: string };
        if (reply.id !== id) return;
        this.process.off("message", take);
        this.process.off("exit", lost);
        if (reply.error === undefined) resolve(reply.value as T);
        else reject(new Error(reply.error));
      };
      this.process.on("message", take);
      this.process.once("exit", lost);
      this.process.send({ id, order });
    });
  }
}

if (process.argv.includes("--node-process")) process.once("message", (setup) => void run(setup as Setup));
