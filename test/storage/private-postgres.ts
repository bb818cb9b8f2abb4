import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";

/** A PostgreSQL of the test's own, on a loopback port in a folder that is removed at the end. */
export interface PrivatePostgres {
  /** URL for the superuser `owner`. */
  readonly url: string;
  readonly port: number;
  start(): Promise<void>;
  /** Stops at once, as a crash would. */
  crash(): Promise<void>;
  remove(): Promise<void>;
}

function binaries(): string | undefined {
  const root = "/usr/lib/postgresql";
  if (!existsSync(root)) return undefined;
  const versions = readdirSync(root).map(Number).filter(Number.isInteger);
  const newest = Math.max(...versions);
  const folder = join(root, String(newest), "bin");
  return newest >= 15 && existsSync(join(folder, "postgres")) ? folder : undefined;
}

/** Why there is no PostgreSQL here, or undefined when there is one. */
export const postgresMissing: string | undefined =
  binaries() === undefined ? "no PostgreSQL 15 or later in /usr/lib/postgresql" : undefined;

export async function privatePostgres(): Promise<PrivatePostgres> {
  const bin = binaries();
  if (bin === undefined) throw new Error(postgresMissing);
  const folder = mkdtempSync(join(tmpdir(), "mpc-wallet-postgres-"));
  const data = join(folder, "data");
  const port = await freePort();
  // PostgreSQL refuses to run as root.
  const asRoot = process.getuid?.() === 0;
  const command = (name: string, args: readonly string[]): [string, string[]] =>
    asRoot ? ["runuser", ["-u", "postgres", "--", join(bin, name), ...args]] : [join(bin, name), [...args]];
  if (asRoot) {
    chmodSync(folder, 0o755);
    execFileSync("chown", ["postgres", folder]);
  }
  execFileSync(...command("initdb", ["-D", data, "-U", "owner", "--auth=trust", "--no-sync", "-E", "UTF8"]), {
    stdio: "ignore",
    cwd: folder,
  });
  const url = `postgres://owner@127.0.0.1:${port}/postgres`;
  let server: ChildProcess | undefined;

  async function start(): Promise<void> {
    const settings = ["-c", "listen_addresses=127.0.0.1", "-c", `unix_socket_directories=${folder}`];
    const [file, args] = command("postgres", ["-D", data, "-p", String(port), ...settings]);
    server = spawn(file, args, { stdio: "ignore", cwd: folder });
    for (let attempt = 0; attempt < 100; attempt++) {
      const client = new pg.Client({ connectionString: url });
      client.on("error", () => undefined);
      try {
        await client.connect();
        await client.end();
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    throw new Error("PostgreSQL did not start");
  }

  async function crash(): Promise<void> {
    if (server === undefined) return;
    const gone = new Promise((resolve) => server?.once("exit", resolve));
    execFileSync(...command("pg_ctl", ["-D", data, "stop", "-m", "immediate", "-w"]), { stdio: "ignore" });
    await gone;
    server = undefined;
  }

  await start();
  return {
    url,
    port,
    start,
    crash,
    async remove() {
      await crash();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
