import type { Command } from "commander";
import { coordinatorConfigurationSchema } from "../coordinator/configuration.js";
import { InvalidInput } from "../crypto/fault.js";
import { keepCompiledCode } from "../node/compiled-code.js";
import { nodeConfigurationSchema } from "../node/configuration.js";
import type { statePassphrase } from "../node/start.js";
import type { SecretBytes } from "../storage/secret-bytes.js";
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
      keepCompiledCode();
      const started = await startNode(configuration, terminal.environment);
      const told = untilToldToStop();
      terminal.print(JSON.stringify({ event: "ready", nodeId: started.nodeId, port: started.port }));
      await told;
      await started.close();
    });
  node
    .command("rotate-passphrase")
    .description("seal a stopped node's state under a new passphrase; safe to interrupt and to run again")
    .requiredOption("--config <file>", "configuration of the node; it says where the present passphrase is")
    .option("--new-passphrase-file <path>", "0600 file with the new passphrase")
    .option("--new-passphrase-env <name>", "environment variable with the new passphrase", NEW_PASSPHRASE)
    .action(async (options: RotationOptions) => {
      const { node: self, storage } = await loadConfiguration(options.config, nodeConfigurationSchema);
      const { statePassphrase } = await import("../node/start.js");
      const { rotatePassphrase } = await import("../node/passphrase-rotation.js");
      const current = statePassphrase(storage, terminal.environment);
      const { newPassphraseFile: passphraseFile, newPassphraseEnv: passphraseEnvironment } = options;
      const where = { passphraseEnvironment, ...(passphraseFile === undefined ? {} : { passphraseFile }) };
      const next = newPassphrase(where, terminal.environment, statePassphrase);
      const { nodeId, changed } = await rotatePassphrase(
        { folder: self.dataFolder, current, next },
        { random: terminal.random },
      );
      current.erase();
      next.erase();
      terminal.print(JSON.stringify({ event: "passphrase-rotated", nodeId, changed }));
      terminal.progress("put the new passphrase where the node's configuration looks for it before you start the node");
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
      keepCompiledCode();
      const started = await startCoordinator(configuration, terminal.environment);
      const { nodeId, gatewayPort } = started.coordinator;
      const told = untilToldToStop();
      terminal.print(JSON.stringify({ event: "ready", nodeId, gatewayPort }));
      await told;
      await started.close();
    });
}

const NEW_PASSPHRASE = "NEW_STATE_ENCRYPTION_KEY";

interface RotationOptions {
  readonly config: string;
  readonly newPassphraseFile?: string;
  readonly newPassphraseEnv: string;
}

/** From the two places named on the command line only: what the present one is found in must not pass for the new one. */
function newPassphrase(
  where: { readonly passphraseEnvironment: string; readonly passphraseFile?: string },
  environment: Readonly<Record<string, string | undefined>>,
  read: typeof statePassphrase,
): SecretBytes {
  const { passphraseEnvironment } = where;
  const value = environment[passphraseEnvironment];
  if (where.passphraseFile === undefined && (value === undefined || value === "")) {
    throw new InvalidInput(
      "passphrase-missing",
      `no new passphrase: set ${passphraseEnvironment} or name a file with --new-passphrase-file`,
    );
  }
  return read(where, { [passphraseEnvironment]: value });
}

/**
 * Resolves at the first SIGTERM or SIGINT; a second one ends the process at once. Keeps the process alive. Called before a
 * command says that it is ready, since whoever reads that may send a signal at once.
 */
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
