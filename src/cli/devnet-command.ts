import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { InvalidInput } from "../crypto/fault.js";
import type { Devnet } from "../devnet/devnet.js";
import { untilToldToStop } from "./process-commands.js";
import type { Terminal } from "./terminal.js";

interface DevnetCommandOptions {
  readonly folder: string;
  readonly nodes: string;
}

/** Adds `devnet`: a whole wallet on this machine, for development. */
export function addDevnetCommand(program: Command, terminal: Terminal): void {
  program
    .command("devnet")
    .description("run a chain, nodes and a coordinator on this machine, each its own process; Ctrl-C drains them")
    .option("--folder <path>", "where keys, state and logs are kept; an existing devnet goes on", ".devnet")
    .addOption(new Option("--nodes <count>", "number of nodes, 2 to 20").default("5"))
    .action(async (options: DevnetCommandOptions) => {
      const nodes = Number(options.nodes);
      if (!Number.isInteger(nodes)) throw new InvalidInput("option-invalid", "--nodes takes a whole number");
      const { Devnet } = await import("../devnet/devnet.js");
      const devnet = await Devnet.start({
        folder: resolve(options.folder),
        nodes,
        progress: (line) => terminal.progress(line),
        onCrash: (name, why, logFile) => terminal.print(`${name} ended by itself (${why}); its log is ${logFile}`),
      });
      const told = untilToldToStop();
      for (const line of introduction(devnet)) terminal.print(line);
      await told;
      terminal.progress("draining");
      await devnet.stop();
    });
}

/** What to do with a devnet that runs. */
export function introduction({ paths, plan, esploraUrl }: Devnet): readonly string[] {
  return [
    `devnet is up: ${plan.nodes.length} nodes, ${plan.coordinator}, chain ${esploraUrl}`,
    `gateway:  https://localhost:${plan.gatewayPort}`,
    `logs:     ${paths.folder}/logs`,
    "in another terminal:",
    `  export MPC_WALLET_CONFIG=${paths.clientConfig}`,
    "  npx mpc-wallet wallet create --name main --scheme frost",
    "  npx mpc-wallet address --wallet main",
    `  curl -d '{"address":"ADDRESS","amountSat":"10000000","blocks":1}' ${esploraUrl}/devnet/faucet`,
    "  npx mpc-wallet send --wallet main --to ADDRESS --amount-btc 0.01 --wait",
  ];
}
