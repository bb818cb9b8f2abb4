import { readFileSync, writeFileSync } from "node:fs";
import type { Logger } from "./log.js";

/**
 * Keeps key shares out of core files. Node cannot lower its own limit of core files, and that limit does not hold for
 * dumps that the kernel pipes to a collector anyway. But a process on Linux chooses itself which of its memory a dump
 * has: none. Children and threads inherit that. Elsewhere the limits of whatever starts the process must do
 * (LimitCORE=0 in deploy/systemd, `ulimit -c 0`).
 */
export function keepMemoryOutOfCoreDumps(log: Logger, file = "/proc/self/coredump_filter"): void {
  try {
    writeFileSync(file, "0");
    if (/^0+$/.test(readFileSync(file, "utf8").trim())) return;
  } catch {
    // said below
  }
  log.warn(
    { event: "core-dumps-possible" },
    "a core dump of this process would hold key shares: turn core dumps off where it is started",
  );
}
