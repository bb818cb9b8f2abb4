import type { Command } from "commander";
import { coordinatorConfigurationSchema } from "../coordinator/configuration.js";
import { nodeConfigurationSchema } from "../node/configuration.js";
import { loadConfiguration } from "./configuration-file.js";
import type { Terminal } from "./terminal.js";

/** Adds `node start` and `coordinator start`: long-running processes that say on standard output when they are ready. */
export function addProcessCommands(program: Command, terminal: Terminal): void {
  const node = program.command("node").description("an MPC node: holds key shares, checks payments, signs");
  node
    .command("start")
    .description("run a node until it is told to stop (SIGTERM or Ctrl-C drains it)")
    .requiredOption("--config <file>", "configuration of the node (TOML); see deploy/config/node.toml")
    .action(async ({ config }: { readonly config: string }) => {
      const configuration = await loadConfiguration(config, nodeConfigurationSchema);
      // Loaded when needed: the other commands start four times as fast without QUIC and databases.
      const { startNode } = await import("../node/start.js");
      const started = await startNode(configuration, terminal.environment);
      terminal.print(JSON.stringify({ event: "ready", nodeId: started.nodeId, port: started.port }));
      await untilToldToStop();
      await started.close();
    });
  const coordinator = program
    .command("coordinator")
    .description("a coordinator: leads payments and serves clients, holds no key share");
  coordinator
    .command("start")
    .description("run a coordinator with its gateway until it is told to stop (SIGTERM or Ctrl-C drains it)")
    .requiredOption("--config <file>", "configuration of the coordinator (TOML); see deploy/config/coordinator.toml")
    .action(async ({ config }: { readonly config: string }) => {
      const configuration = await loadConfiguration(config, coordinatorConfigurationSchema);
      const { startCoordinator } = await import("../coordinator/start.js");
      const started = await startCoordinator(configuration, terminal.environment);
      const { nodeId, gatewayPort } = started.coordinator;
      terminal.print(JSON.stringify({ event: "ready", nodeId, gatewayPort }));
      await untilToldToStop();
      await started.close();
    });
}

/** Resolves at the first SIGTERM or SIGINT; a second one ends the process at once. Keeps the process alive. */
export async function untilToldToStop(): Promise<void> {
  const alive = setInterval(() => {}, 1 << 30);
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.once(signal, () => {
        for (const again of ["SIGTERM", "SIGINT"] as const) process.once(again, () => process.exit(1));
        resolve();
      });
    }
  });
  clearInterval(alive);
}
