import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./private-postgres.js";

/** Why there is no etcd here, or undefined when there is one. */
export const etcdMissing: string | undefined =
  spawnSync("etcd", ["--version"], { stdio: "ignore" }).status === 0 ? undefined : "no etcd on PATH";

/** An etcd of the test's own, on loopback ports in a folder that is removed at the end. */
export interface PrivateEtcd {
  readonly url: string;
  /** Stands still without closing a connection, as behind a broken network. */
  freeze(): void;
  thaw(): void;
  crash(): Promise<void>;
  start(): Promise<void>;
  remove(): Promise<void>;
}

export async function privateEtcd(): Promise<PrivateEtcd> {
  const folder = mkdtempSync(join(tmpdir(), "mpc-wallet-etcd-"));
  const [clientPort, peerPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${clientPort}`;
  const peer = `http://127.0.0.1:${peerPort}`;
  let server: ChildProcess | undefined;

  async function start(): Promise<void> {
    const args = ["--data-dir", join(folder, "data"), "--listen-client-urls", url, "--advertise-client-urls", url];
    args.push(
      "--listen-peer-urls",
      peer,
      "--initial-advertise-peer-urls",
      peer,
      "--initial-cluster",
      `default=${peer}`,
    );
    args.push("--grpc-keepalive-min-time", "1s", "--logger", "zap", "--log-level", "error");
    server = spawn("etcd", args, { stdio: "ignore" });
    for (let attempt = 0; attempt < 100; attempt++) {
      const healthy = await fetch(`${url}/health`).then(
        (response) => response.ok,
        () => false,
      );
      if (healthy) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("etcd did not start");
  }

  async function crash(): Promise<void> {
    if (server === undefined) return;
    const gone = once(server, "exit");
    server.kill("SIGKILL");
    await gone;
    server = undefined;
  }

  await start();
  return {
    url,
    freeze: () => void server?.kill("SIGSTOP"),
    thaw: () => void server?.kill("SIGCONT"),
    crash,
    start,
    async remove() {
      await crash();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
