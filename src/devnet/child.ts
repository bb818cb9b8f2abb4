import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { createInterface } from "node:readline";
import { Unavailable } from "../crypto/fault.js";

/** One process of the devnet. */
export interface ChildOptions {
  readonly name: string;
  /** Script and arguments for this Node. */
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Standard error goes here, appended. */
  readonly logFile: string;
  readonly startTimeoutMs: number;
  /** Event name in the line that says the process is ready. */
  readonly readyEvent: string;
  /** Hears of an end that nobody asked for. */
  readonly onCrash: (child: DevnetChild, why: string) => void;
}

const DRAIN_MS = 15_000;

/** A child that printed its ready line. Its end is either asked for or reported, never hidden. */
export class DevnetChild {
  readonly name: string;
  readonly ready: Readonly<Record<string, unknown>>;
  readonly #process: ChildProcess;
  readonly #ended: Promise<string>;
  #expected = false;

  private constructor(parts: {
    name: string;
    process: ChildProcess;
    ready: Record<string, unknown>;
    ended: Promise<string>;
  }) {
    this.name = parts.name;
    this.ready = parts.ready;
    this.#process = parts.process;
    this.#ended = parts.ended;
  }

  /** @throws Unavailable `child-failed` with the log's place when the process ends or is silent before it is ready */
  static async start(options: ChildOptions): Promise<DevnetChild> {
    const log = createWriteStream(options.logFile, { flags: "a", mode: 0o600 });
    const child = spawn(process.execPath, ["--enable-source-maps", ...options.command], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...options.environment },
      // Ctrl-C goes to the parent alone, which drains its children in order.
      detached: true,
    });
    child.stderr?.pipe(log);
    const ended = new Promise<string>((resolve) => {
      child.once("error", (error) => resolve(error.message));
      child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    });
    const failure = (why: string) =>
      new Unavailable("child-failed", `${options.name} did not start (${why}); its log is ${options.logFile}`, {
        name: options.name,
      });
    const readyLine = new Promise<Record<string, unknown>>((resolve) => {
      if (child.stdout === null) return;
      createInterface({ input: child.stdout }).on("line", (line) => {
        const said = parseLine(line);
        if (said?.["event"] === options.readyEvent) resolve(said);
      });
    });
    let timer: NodeJS.Timeout | undefined;
    try {
      const ready = await Promise.race([
        readyLine,
        ended.then((why) => Promise.reject(failure(why))),
        new Promise<never>((_, reject) => {
          timer = setTimeout(() => reject(failure("no word in time")), options.startTimeoutMs);
        }),
      ]);
      const started = new DevnetChild({ name: options.name, process: child, ready, ended });
      void ended.then((why) => {
        if (!started.#expected) options.onCrash(started, why);
      });
      return started;
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get running(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** Ends the process without warning, as a crash would. */
  async kill(): Promise<void> {
    this.#expected = true;
    this.#process.kill("SIGKILL");
    await this.#ended;
  }

  /** Asks the process to drain and waits; one that does not is killed. */
  async stop(): Promise<void> {
    this.#expected = true;
    if (!this.running) return;
    this.#process.kill("SIGTERM");
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), DRAIN_MS);
    await this.#ended;
    clearTimeout(timer);
  }
}

function parseLine(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
