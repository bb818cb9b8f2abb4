import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, describe, it } from "node:test";
import { killAll, NodeProcess } from "./node-process.js";
import { TestAuthority } from "./test-certificates.js";

after(killAll);

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Two networks of one machine with a router between them, each a namespace of its own. */
class Networks {
  readonly names: { readonly a: string; readonly b: string; readonly router: string };

  private constructor(prefix: string) {
    this.names = { a: `${prefix}-a`, b: `${prefix}-b`, router: `${prefix}-r` };
  }

  /** @returns undefined, with the reason, where namespaces may not be made */
  static make(): Networks | string {
    const networks = new Networks(`mpcw${process.pid}`);
    const { a, b, router } = networks.names;
    try {
      for (const name of [a, b, router]) ip("netns", "add", name);
      for (const [name, net] of [
        [a, 1],
        [b, 2],
      ] as const) {
        ip("-n", router, "link", "add", `to${net}`, "type", "veth", "peer", "name", "out", "netns", name);
        ip("-n", router, "address", "add", `10.203.${net}.1/30`, "dev", `to${net}`);
        ip("-n", router, "link", "set", `to${net}`, "up");
        ip("-n", name, "address", "add", `10.203.${net}.2/30`, "dev", "out");
        ip("-n", name, "link", "set", "out", "up");
        ip("-n", name, "route", "add", "default", "via", `10.203.${net}.1`);
      }
      networks.forward(true);
      return networks;
    } catch (error) {
      networks.remove();
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Off, packets vanish without a word. */
  forward(on: boolean): void {
    ip("netns", "exec", this.names.router, "sh", "-c", `echo ${on ? 1 : 0} > /proc/sys/net/ipv4/ip_forward`);
  }

  /** Down, the sender's own kernel refuses. */
  linkOfA(state: "up" | "down"): void {
    ip("-n", this.names.a, "link", "set", "out", state);
    if (state === "up") ip("-n", this.names.a, "route", "replace", "default", "via", "10.203.1.1");
  }

  remove(): void {
    for (const name of Object.values(this.names)) spawnSync("ip", ["netns", "delete", name]);
  }
}

function ip(...args: string[]): void {
  const { status, stderr, error } = spawnSync("ip", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`ip ${args.join(" ")}: ${error?.message ?? stderr.trim()}`);
}

describe("a partition between two networks", () => {
  const networks = Networks.make();
  const skip = typeof networks === "string" ? `no network namespaces here: ${networks}` : false;

  after(() => {
    if (networks instanceof Networks) networks.remove();
  });

  for (const [name, seconds, cut, heal] of [
    ["packets vanish for 4 s", 4, (n: Networks) => n.forward(false), (n: Networks) => n.forward(true)],
    // Longer than the idle timeout: connections die, and a new one is made.
    ["the link is down for 6 s", 6, (n: Networks) => n.linkOfA("down"), (n: Networks) => n.linkOfA("up")],
  ] as const) {
    it(`${name}: it is noticed, and after it has healed no idempotent call has failed`, { skip }, async () => {
      assert.ok(networks instanceof Networks);
      const authority = await TestAuthority.create("partition");
      const { a: inA, b: inB } = networks.names;
      const host = "10.203.2.2";
      const shared = { authority, limits: { idleTimeoutMs: 5_000 } };
      const ofB = { nodeId: "node-b", peers: [{ nodeId: "node-a" }], host, namespace: inB };
      const b = await NodeProcess.start({ ...shared, ...ofB });
      const peers = [{ nodeId: "node-b", host, port: b.port }];
      const a = await NodeProcess.start({ ...shared, nodeId: "node-a", peers, host: "10.203.1.2", namespace: inA });
      assert.equal(await a.call("node-b", "before", 20_000), "before");
      const tally = Promise.all([
        a.calls("node-b", (seconds + 4) * 1_000, 60_000),
        b.calls("node-a", (seconds + 4) * 1_000, 60_000),
      ]);
      await pause(500);
      cut(networks);
      await pause(seconds * 1_000 - 1_000);
      for (const state of [(await a.peer("node-b")).state, (await b.peer("node-a")).state]) {
        assert.notEqual(state, "active");
      }
      await pause(1_000);
      heal(networks);
      for (const { answered, failed } of await tally) {
        assert.deepEqual(failed, []);
        assert.ok(answered > 0);
      }
      assert.equal(await a.call("node-b", "after", 20_000), "after");
      assert.equal(await b.call("node-a", "after", 20_000), "after");
      await Promise.all([a.kill(), b.kill()]);
    });
  }
});
