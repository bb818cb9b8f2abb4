import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import type { Coordination, Lease } from "../../src/wallet/coordination.js";

/** What a contract run needs of an adapter. */
export interface Space {
  connect(): Promise<Coordination>;
  /** Waits that long by the clock that the adapter uses. */
  wait(ms: number): Promise<void>;
  remove(): Promise<void>;
}

const code = (expected: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === expected;
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array | undefined) => (value === undefined ? undefined : new TextDecoder().decode(value));

/** Everything that the port promises; each adapter runs the same suite. */
export function coordinationContract(open: () => Promise<Space>): void {
  let space: Space;
  let first: Coordination;
  let second: Coordination;
  let names = 0;
  const fresh = () => `name-${names++}`;
  const ttlMs = 3_000;

  before(async () => {
    space = await open();
    first = await space.connect();
    second = await space.connect();
  });
  after(async () => {
    await first.close();
    await second.close();
    await space.remove();
  });

  it("one lock at a time, and the next one has a higher fencing number", async () => {
    const name = fresh();
    const held = await first.tryLock(name, ttlMs);
    assert.ok(held?.held);
    assert.equal(await second.tryLock(name, ttlMs), undefined);
    assert.equal(await first.tryLock(name, ttlMs), undefined, "not even for its holder");
    await held.release();
    assert.equal(held.held, false);
    assert.equal(held.lost.aborted, false, "letting go is not losing");
    const next = await second.tryLock(name, ttlMs);
    assert.ok(next && next.fencing > held.fencing);
    await next.release();
  });

  it("100 concurrent attempts have one winner", async () => {
    const name = fresh();
    const attempts = Array.from({ length: 100 }, (_, n) => (n % 2 === 0 ? first : second).tryLock(name, ttlMs));
    const winners = (await Promise.all(attempts)).filter((lease) => lease !== undefined);
    assert.equal(winners.length, 1);
    await winners[0]?.release();
  });

  it("a lock renews itself", async () => {
    const name = fresh();
    const held = await first.tryLock(name, ttlMs);
    await space.wait(ttlMs * 2);
    assert.ok(held?.held);
    assert.equal(await second.tryLock(name, ttlMs), undefined);
    await held.release();
  });

  it("releasing twice or late harms nobody", async () => {
    const name = fresh();
    const held = await first.tryLock(name, ttlMs);
    await held?.release();
    const next = await second.tryLock(name, ttlMs);
    await held?.release();
    assert.ok(next?.held);
    assert.equal(await first.tryLock(name, ttlMs), undefined);
    await next.release();
  });

  it("a closed connection loses its locks, and says so", async () => {
    const name = fresh();
    const third = await space.connect();
    const held = await third.tryLock(name, ttlMs);
    assert.ok(held);
    await third.close();
    assert.equal(held.held, false);
    assert.ok(held.lost.aborted);
    const next = await first.tryLock(name, ttlMs);
    assert.ok(next?.held);
    await next.release();
    await assert.rejects(third.get("x"), code("coordination-closed"));
    await third.close();
  });

  it("candidates lead one after another", async () => {
    const election = fresh();
    const order: string[] = [];
    assert.equal(await first.leader(election), undefined);
    const { signal } = new AbortController();
    const lead = await first.campaign(election, "one", { ttlMs, signal });
    assert.equal(await second.leader(election), "one");
    const turn = async (coordination: Coordination, candidate: string) => {
      const lease = await coordination.campaign(election, candidate, { ttlMs, signal });
      order.push(candidate);
      assert.equal(await first.leader(election), candidate);
      assert.ok(lease.fencing > lead.fencing);
      await lease.release();
    };
    const waiting = [turn(second, "two"), turn(first, "three")];
    await space.wait(200);
    assert.deepEqual(order, []);
    await lead.release();
    await Promise.all(waiting);
    assert.deepEqual(order.sort(), ["three", "two"]);
    assert.equal(await first.leader(election), undefined);
  });

  it("a candidate can give up", async () => {
    const election = fresh();
    const lead = await first.campaign(election, "one", { ttlMs, signal: new AbortController().signal });
    const giveUp = new AbortController();
    const waiting = second.campaign(election, "two", { ttlMs, signal: giveUp.signal });
    const reason = new Error("no longer wanted");
    setImmediate(() => giveUp.abort(reason));
    await assert.rejects(waiting, reason);
    await lead.release();
    const third = await first.campaign(election, "three", { ttlMs, signal: new AbortController().signal });
    assert.equal(await second.leader(election), "three", "the one that gave up does not hold the place");
    await third.release();
  });

  it("the next candidate leads when the leader's connection closes", async () => {
    const election = fresh();
    const third = await space.connect();
    const signal = new AbortController().signal;
    const lead = await third.campaign(election, "one", { ttlMs, signal });
    const waiting = second.campaign(election, "two", { ttlMs, signal });
    await space.wait(100);
    await third.close();
    const next = await waiting;
    assert.equal(lead.held, false);
    assert.ok(next.held);
    await next.release();
  });

  it("counts without losing an addition", async () => {
    const counter = fresh();
    assert.equal(await first.add(counter, 0n), 0n);
    const sums = await Promise.all(
      Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? first : second).add(counter, 1n)),
    );
    assert.equal(new Set(sums).size, 40);
    assert.equal(await first.add(counter, -2n), 38n);
    assert.equal(await first.add(counter, 2n ** 70n), 38n + 2n ** 70n);
  });

  it("keeps, overwrites, lists and deletes values", async () => {
    const prefix = `${fresh()}/`;
    assert.equal(await first.get(`${prefix}a`), undefined);
    assert.equal(await first.put(`${prefix}a`, bytes("1")), true);
    await second.put(`${prefix}b`, bytes("2"));
    await second.put(`${prefix}b`, bytes("3"));
    await first.put(`${prefix}empty`, new Uint8Array(0));
    await first.put("other", bytes("x"));
    assert.equal(text(await second.get(`${prefix}a`)), "1");
    assert.deepEqual(
      [...(await first.list(prefix))].map(([key, value]) => [key, text(value)]),
      [
        [`${prefix}a`, "1"],
        [`${prefix}b`, "3"],
        [`${prefix}empty`, ""],
      ],
    );
    await second.delete(`${prefix}a`);
    await second.delete(`${prefix}never`);
    assert.equal(await first.get(`${prefix}a`), undefined);
  });

  it("what was read or stored does not change with the caller's array", async () => {
    const key = fresh();
    const value = bytes("before");
    await first.put(key, value);
    value.fill(0);
    const read = await first.get(key);
    read?.fill(0);
    assert.equal(text(await first.get(key)), "before");
  });

  it("a value with a TTL disappears, and without one it stays", async () => {
    const prefix = `${fresh()}/`;
    await first.put(`${prefix}heartbeat`, bytes("1"), { ttlMs: 1_000 });
    await first.put(`${prefix}kept`, bytes("1"));
    await first.put(`${prefix}kept-later`, bytes("1"), { ttlMs: 1_000 });
    await first.put(`${prefix}kept-later`, bytes("2"));
    assert.equal((await second.list(prefix)).size, 3);
    await space.wait(4_000);
    assert.deepEqual([...(await second.list(prefix)).keys()], [`${prefix}kept`, `${prefix}kept-later`]);
    assert.equal(await first.get(`${prefix}heartbeat`), undefined);
  });

  it("a write with a lease is refused once the lock was granted again or let go", async () => {
    const [name, key] = [fresh(), fresh()];
    const old = await first.tryLock(name, ttlMs);
    assert.ok(old);
    assert.equal(await first.put(key, bytes("by the holder"), { lease: old }), true);
    await old.release();
    assert.equal(await first.put(key, bytes("after letting go"), { lease: old }), false);
    const next = await second.tryLock(name, ttlMs);
    assert.ok(next);
    assert.equal(await first.put(key, bytes("too late"), { lease: old }), false);
    assert.equal(await second.put(key, bytes("by the next"), { lease: next, ttlMs: 60_000 }), true);
    assert.equal(text(await first.get(key)), "by the next");
    await next.release();
  });

  it("a write with a leader's lease is fenced too", async () => {
    const [election, key] = [fresh(), fresh()];
    const signal = new AbortController().signal;
    const lead = await first.campaign(election, "one", { ttlMs, signal });
    assert.equal(await first.put(key, bytes("1"), { lease: lead }), true);
    await lead.release();
    assert.equal(await first.put(key, bytes("2"), { lease: lead }), false);
  });

  it("a lease of another connection is the caller's mistake", async () => {
    const held = await first.tryLock(fresh(), ttlMs);
    assert.ok(held);
    await assert.rejects(second.put("x", bytes("x"), { lease: held }), code("lease-foreign"));
    const forged: Lease = { fencing: 1n, held: true, lost: new AbortController().signal, release: async () => {} };
    await assert.rejects(first.put("x", bytes("x"), { lease: forged }), code("lease-foreign"));
    await held.release();
  });

  it("locks, elections, counters and values do not share names", async () => {
    const name = fresh();
    const held = await first.tryLock(name, ttlMs);
    await first.put(name, bytes("value"));
    assert.equal(await first.add(name, 3n), 3n);
    const lead = await first.campaign(name, "one", { ttlMs, signal: new AbortController().signal });
    assert.equal(text(await first.get(name)), "value");
    assert.equal((await first.list("")).get(name)?.length, 5);
    await lead.release();
    await held?.release();
  });

  it("bounds TTLs, keys and values", async () => {
    for (const wrong of [999, 3_600_001, 1_500.5, Number.NaN]) {
      await assert.rejects(first.tryLock("x", wrong), code("ttl-range"));
    }
    await assert.rejects(first.put("x", bytes("x"), { ttlMs: 999 }), code("ttl-range"));
    await assert.rejects(first.get(""), code("key-range"));
    await assert.rejects(first.put("k".repeat(513), bytes("x")), code("key-range"));
    await assert.rejects(first.put("x", new Uint8Array(512 * 1024 + 1)), code("value-range"));
    assert.equal(await first.put("k".repeat(512), new Uint8Array(512 * 1024)), true);
    await first.delete("k".repeat(512));
  });
}
