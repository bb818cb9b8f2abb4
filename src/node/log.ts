import { type Logger, pino } from "pino";
import type { NetworkLog } from "../network/network-log.js";

export type { Logger };

/** JSON lines on standard error, so that standard output stays for what a command prints. */
export function processLog(options: { readonly name: string; readonly level: string }): Logger {
  return pino({ name: options.name, level: options.level, base: { name: options.name } }, pino.destination(2));
}

/** The network layer's events as log lines. */
export function networkLog(log: Logger): NetworkLog {
  return ({ level, event, facts, cause }) =>
    log[level]({ event, ...printable(facts), ...(cause === undefined ? {} : { cause }) });
}

function printable(facts: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(facts).map(([k, v]) => [k, typeof v === "bigint" ? v.toString() : v]));
}
