import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Clock } from "../../src/crypto/ambient.js";
import { Unavailable } from "../../src/crypto/fault.js";
import { EtcdCoordination } from "../../src/storage/etcd-coordination.js";
import { coordinationContract } from "./coordination-contract.js";
import { realClock } from "./manual-clock.js";
import { etcdMissing, type PrivateEtcd, privateEtcd } from "./private-etcd.js";

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const skip = etcdMissing ?? false;
const code = (expected: string) => (error: unknown) => error instanceof Unavailable && error.code === expected;

/** The real clock of a process whose timers stop when `stopped` is set. */
function stoppable(): Clock & { stopped: boolean } {
  return {
    ...realClock,
    stopped: false,
    after(delayMs, callback) {
      return realClock.after(delayMs, () => {
        if (!this.stopped) callback();
      });
    },
  };
}

describe("coordination in etcd", { skip }, () => {
  coordinationContract(async () => {
    const etcd = await privateEtcd();
    return {
      connect: async () => new EtcdCoordination({ hosts: [etcd.url] }, { clock: realClock }),
      wait: sleep,
      remove: () => etcd.remove(),
    };
  });
});

describe("coordination in etcd that fails", { skip }, () => {
  let etcd: PrivateEtcd;
  const connect = (clock: Clock = realClock) => new EtcdCoordination({ hosts: [etcd.url] }, { clock });
  const campaign = { ttlMs: 3_000, signal: new AbortController().signal };
  before(async () => {
    etcd = await privateEtcd();
  });
  after(async () => {
    await etcd.remove();
  });

  it("another one leads within 5 seconds of a leader that stands still, which has stopped before", async (context) => {
    const clock = stoppable();
    const [first, second] = [connect(clock), connect()];
    const lead = await first.campaign("coordinator", "one", campaign);
    const waiting = second.campaign("coordinator", "two", campaign);
    await sleep(1_500);
    clock.stopped = true; // nothing renews any more, and no timer tells the leader
    const stoppedMs = performance.now();
    let heldUntilMs = stoppedMs;
    const watch = setInterval(() => {
      if (lead.held) heldUntilMs = performance.now();
    }, 5);
    const next = await waiting;
    const tookMs = performance.now() - stoppedMs;
    clearInterval(watch);
    assert.ok(!lead.held && next.held);
    assert.ok(heldUntilMs < performance.now() - 100, "the old leader still acted when the new one began");
    assert.ok(tookMs < 5_000, `failover took ${tookMs} ms`);
    assert.ok(next.fencing > lead.fencing);
    assert.equal(await first.put("state", Uint8Array.of(1), { lease: lead }), false);
    context.diagnostic(`failover ${Math.round(tookMs)} ms after the last renewal stopped`);
    await first.close();
    await second.close();
  });

  it("a holder that cannot reach etcd stops by its own clock", async () => {
    const coordination = connect();
    const lead = await coordination.campaign("frozen", "one", campaign);
    etcd.freeze();
    const frozenMs = performance.now();
    await new Promise((resolve) => lead.lost.addEventListener("abort", resolve, { once: true }));
    const tookMs = performance.now() - frozenMs;
    assert.equal(lead.held, false);
    assert.ok(tookMs < 3_000, `stopped after ${tookMs} ms`);
    await assert.rejects(coordination.get("x"), code("coordination-unavailable"));
    etcd.thaw();
    await sleep(2_000);
    assert.equal(await coordination.get("x"), undefined, "works again");
    await coordination.close();
  });

  it("survives a crash of etcd: values stay, candidates go on waiting, leases that were renewed stay held", async () => {
    const coordination = connect();
    await coordination.put("kept", Uint8Array.of(7));
    const other = connect();
    const lock = await coordination.tryLock("long", 60_000);
    assert.ok(lock);
    await etcd.crash();
    const waiting = other.campaign("after-crash", "two", campaign);
    await assert.rejects(coordination.add("counter", 1n), code("coordination-unavailable"));
    await etcd.start();
    const lead = await waiting;
    assert.ok(lead.held && lock.held);
    assert.deepEqual(await coordination.get("kept"), Uint8Array.of(7));
    assert.equal(await coordination.put("fenced", Uint8Array.of(1), { lease: lock }), true);
    await coordination.close();
    await other.close();
  });

  it("an unreachable server is a typed error within bounds", async () => {
    const nowhere = new EtcdCoordination({ hosts: ["http://127.0.0.1:1"] }, { clock: realClock });
    const startedMs = performance.now();
    await assert.rejects(nowhere.tryLock("x", 3_000), code("coordination-unavailable"));
    assert.ok(performance.now() - startedMs < 6_000);
    const giveUp = new AbortController();
    const waiting = nowhere.campaign("x", "one", { ttlMs: 3_000, signal: giveUp.signal });
    setTimeout(() => giveUp.abort(new Error("enough")), 100);
    await assert.rejects(waiting, /enough/);
    await nowhere.close();
  });
});
