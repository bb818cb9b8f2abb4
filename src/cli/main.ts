#!/usr/bin/env node
import { createInterface } from "node:readline/promises";
import { CommanderError } from "commander";
import { systemClock, systemRandom } from "../node/ambient.js";
import { failureOf } from "./failure.js";
import { createProgram } from "./program.js";
import type { Terminal } from "./terminal.js";

const terminal: Terminal = {
  print: (line) => void process.stdout.write(`${line}\n`),
  progress: (line) => void process.stderr.write(`${line}\n`),
  async confirm(question) {
    if (!process.stdin.isTTY || !process.stderr.isTTY) return undefined;
    const asking = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return /^(y|yes)$/i.test((await asking.question(question)).trim());
    } finally {
      asking.close();
    }
  },
  environment: process.env,
  clock: systemClock,
  random: systemRandom,
};
const HELP = new Set(["commander.help", "commander.helpDisplayed", "commander.version"]);
// A reader that stops early, for example `head`, is no error.
process.stdout.on("error", () => process.exit(0));
try {
  await createProgram(terminal).parseAsync();
} catch (error) {
  // Help was printed: because it was asked for, or because no command was given.
  if (error instanceof CommanderError && HELP.has(error.code)) process.exit(error.exitCode === 0 ? 0 : 2);
  const { message, next, code, exitCode } = failureOf(error);
  if (process.argv.includes("--json")) terminal.print(JSON.stringify({ error: { code, message, next } }));
  process.stderr.write(`mpc-wallet: ${message}${next === "" ? "" : ` (${next})`}\n`);
  process.exitCode = exitCode;
}
