import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { DevnetChild } from "./child.js";
import { type DevnetPaths, type DevnetPlan, devnetPaths, prepareDevnet } from "./devnet-folder.js";

export interface DevnetOptions {
  readonly folder: string;
  readonly nodes: number;
  /** False leaves the coordinator's place to whoever starts the devnet. */
  readonly coordinator?: boolean;
  /** Hears what is being started, for people. */
  readonly progress: (line: string) => void;
  /** Hears of a process that ended without being asked. */
  readonly onCrash: (name: string, why: string, logFile: string) => void;
}

const CLI = fileURLToPath(new URL("../cli/main.js", import.meta.url));
const CHAIN = fileURLToPath(new URL("./chain/main.js", import.meta.url));
const START_TIMEOUT_MS = 60_000;

/** A whole wallet on one machine: chain, nodes, coordinator with gateway, each its own process. */
export class Devnet {
  readonly plan: DevnetPlan;
  readonly paths: DevnetPaths;
  readonly #options: DevnetOptions;
  readonly #children = new Map<string, DevnetChild>();

  private constructor(plan: DevnetPlan, options: DevnetOptions) {
    this.plan = plan;
    this.paths = devnetPaths(options.folder);
    this.#options = options;
  }

  /** Prepares the folder and starts everything; when one process fails, the others are stopped again. */
  static async start(options: DevnetOptions): Promise<Devnet> {
    options.progress(`preparing ${options.folder}: certificates, keys, configurations`);
    const devnet = new Devnet(await prepareDevnet(options), options);
    try {
      options.progress("starting the chain");
      await devnet.#startChain();
      const { coordinator = true } = options;
      options.progress(`starting ${devnet.plan.nodes.length} nodes${coordinator ? " and a coordinator" : ""}`);
      const nodes = devnet.plan.nodes.map((nodeId) => devnet.startNode(nodeId));
      await Promise.all(coordinator ? [...nodes, devnet.startCoordinator()] : nodes);
      return devnet;
    } catch (error) {
      await devnet.stop();
      throw error;
    }
  }

  get esploraUrl(): string {
    return `http://127.0.0.1:${this.plan.esploraPort}`;
  }

  async startNode(nodeId: string): Promise<void> {
    await this.#startChild(nodeId, [CLI, "node", "start", "--config", this.paths.nodeConfig(nodeId)], "ready");
  }

  async startCoordinator(): Promise<void> {
    await this.#startChild(
      this.plan.coordinator,
      [CLI, "coordinator", "start", "--config", this.paths.coordinatorConfig],
      "ready",
    );
  }

  async stopCoordinator(): Promise<void> {
    await this.#children.get(this.plan.coordinator)?.stop();
    this.#children.delete(this.plan.coordinator);
  }

  /** Ends one process as a crash would. */
  async kill(name: string): Promise<void> {
    await this.#children.get(name)?.kill();
    this.#children.delete(name);
  }

  /** Names of processes that run. */
  running(): readonly string[] {
    return [...this.#children.values()].filter(({ running }) => running).map(({ name }) => name);
  }

  pid(name: string): number | undefined {
    return this.#children.get(name)?.pid;
  }

  /** Pays an address from the chain's faucet and mines the payment. */
  async faucet(address: string, amountSat: bigint): Promise<void> {
    await this.#post("/devnet/faucet", { address, amountSat: amountSat.toString(), blocks: 1 });
  }

  async mine(blocks: number): Promise<void> {
    await this.#post("/devnet/mine", { blocks });
  }

  /** Drains the coordinator first, so that no payment is cut, then the nodes, then the chain. */
  async stop(): Promise<void> {
    const stop = async (name: string): Promise<void> => {
      await this.#children.get(name)?.stop();
      this.#children.delete(name);
    };
    await stop(this.plan.coordinator);
    await Promise.all(this.plan.nodes.map(stop));
    await stop("chain");
  }

  async #startChain(): Promise<void> {
    const { esploraPort, rpcPort } = this.plan;
    const password = (await readFile(this.paths.rpcPassword, "utf8")).trim();
    const ports = ["--port", String(esploraPort), "--rpc-port", String(rpcPort)];
    await this.#startChild("chain", [CHAIN, ...ports, "--file", this.paths.chainFile], "listening", {
      DEVNET_RPC_PASSWORD: password,
    });
  }

  async #startChild(
    name: string,
    command: readonly string[],
    readyEvent: string,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const logFile = this.paths.logFile(name);
    const child = await DevnetChild.start({
      name,
      command,
      environment,
      logFile,
      readyEvent,
      startTimeoutMs: START_TIMEOUT_MS,
      onCrash: (crashed, why) => {
        this.#children.delete(crashed.name);
        this.#options.onCrash(crashed.name, why, logFile);
      },
    });
    this.#children.set(name, child);
  }

  async #post(path: string, body: unknown): Promise<void> {
    const response = await fetch(`${this.esploraUrl}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(30_000),
    });
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  }
}
