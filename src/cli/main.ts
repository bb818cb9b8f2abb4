#!/usr/bin/env node
import { Command, CommanderError } from "commander";
import { systemClock, systemRandom } from "../node/ambient.js";
import { packageVersion } from "../node/start.js";
import { addDevnetCommand } from "./devnet-command.js";
import { failureOf } from "./failure.js";
import { addPkiCommands } from "./pki.js";
import { addProcessCommands } from "./process-commands.js";
import type { Terminal } from "./terminal.js";

const terminal: Terminal = {
  print: (line) => void process.stdout.write(`${line}\n`),
  progress: (line) => void process.stderr.write(`${line}\n`),
  environment: process.env,
  clock: systemClock,
  random: systemRandom,
};
const program = new Command("mpc-wallet").version(packageVersion()).exitOverride();
addProcessCommands(program, terminal);
addDevnetCommand(program, terminal);
addPkiCommands(program, terminal);
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError && error.exitCode === 0) process.exit(0);
  const { message, next, exitCode } = failureOf(error);
  process.stderr.write(`mpc-wallet: ${message}${next === "" ? "" : ` (${next})`}\n`);
  process.exitCode = exitCode;
}
