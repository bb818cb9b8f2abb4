import { readFileSync } from "node:fs";
import { Command } from "commander";
import { addAccessCommands } from "./access-commands.js";
import { addBanCommands } from "./ban-commands.js";
import { addDevnetCommand } from "./devnet-command.js";
import { addPkiCommands } from "./pki.js";
import { addProcessCommands } from "./process-commands.js";
import type { Terminal } from "./terminal.js";
import { addWalletCommands } from "./wallet-commands.js";

/** The program `mpc-wallet`. It throws `CommanderError` instead of ending the process. */
export function createProgram(terminal: Terminal): Command {
  const program = new Command("mpc-wallet")
    .description(
      "Bitcoin wallet whose key never exists: nodes hold shares, check every payment themselves and sign together",
    )
    .version(packageVersion())
    .option("--config <file>", "client profile of commands that call a gateway")
    .option("--json", "print one JSON object, for commands that call a gateway")
    // Options stand where they belong: `--config` of `node start` is another one.
    .enablePositionalOptions();
  addWalletCommands(program, terminal);
  addAccessCommands(program, terminal);
  addProcessCommands(program, terminal);
  addBanCommands(program, terminal);
  addDevnetCommand(program, terminal);
  addPkiCommands(program, terminal);
  quietErrors(program);
  return program;
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
}

/** Commander prints usage errors itself; main.ts prints every error, once and in one line. */
function quietErrors(command: Command): void {
  command.exitOverride().configureOutput({ outputError: () => {} });
  for (const child of command.commands) quietErrors(child);
}
