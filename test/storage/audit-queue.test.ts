import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { AuditQueue, type AuditQueueOptions } from "../../src/storage/audit-queue.js";
import { ManualClock } from "./manual-clock.js";

const code = (expected: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === expected;

/** A queue in front of a database that a test switches off, and that can be slow. */
function queueWith(options: AuditQueueOptions = {}) {
  const clock = new ManualClock();
  const database = { down: false, slowMs: 0, written: [] as number[], batches: [] as number[], attempts: 0 };
  const write = async (rows: readonly number[]) => {
    database.attempts++;
    if (database.slowMs > 0) await new Promise<void>((resolve) => clock.after(database.slowMs, resolve));
    if (database.down) throw new Error("connection refused");
    database.written.push(...rows);
    database.batches.push(rows.length);
  };
  return { clock, database, queue: new AuditQueue<number>(options, { write, clock }) };
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);

describe("audit queue", () => {
  it("writes what nobody waits for after 5 seconds", async () => {
    const { clock, database, queue } = queueWith();
    queue.enqueue([1]);
    await clock.advance(4_999);
    queue.enqueue([2]);
    assert.deepEqual(database.written, []);
    await clock.advance(1);
    assert.deepEqual(database.written, [1, 2]);
    assert.equal(queue.queuedRows, 0);
  });

  it("writes with 100 rows at once", async () => {
    const { clock, database, queue } = queueWith();
    for (const row of range(0, 99)) queue.enqueue([row]);
    await clock.advance(0);
    assert.deepEqual(database.written, []);
    queue.enqueue([99]);
    await clock.advance(0);
    assert.deepEqual(database.batches, [100]);
  });

  it("an awaited row takes earlier ones along, at once and in order", async () => {
    const { database, queue } = queueWith();
    queue.enqueue([1, 2]);
    await queue.append([3]);
    assert.deepEqual(database.written, [1, 2, 3]);
  });

  it("what comes while a batch is written shares the next one, and no group is split", async () => {
    const { clock, database, queue } = queueWith({ batchRows: 10 });
    database.slowMs = 10;
    const waiting = [queue.append(range(0, 1)), ...range(0, 6).map((n) => queue.append(range(1 + n * 4, 5 + n * 4)))];
    await clock.advance(100);
    await Promise.all(waiting);
    assert.deepEqual(database.batches, [1, 8, 8, 8]);
    assert.deepEqual(database.written, range(0, 25));
    const large = queue.append(range(100, 150));
    await clock.advance(100);
    await large;
    assert.equal(database.batches.at(-1), 50, "a group larger than a batch goes whole");
  });

  it("gathers for a while what is waited for, unless a batch is full or the queue closes", async () => {
    const { clock, database, queue } = queueWith({ gatherMs: 100, batchRows: 10 });
    queue.enqueue([1]);
    const first = queue.append([2]);
    await clock.advance(99);
    const second = queue.append([3]);
    assert.deepEqual(database.batches, []);
    await clock.advance(1);
    await Promise.all([first, second]);
    assert.deepEqual(database.batches, [3]);
    database.slowMs = 10;
    const full = queue.append(range(10, 20));
    await clock.advance(5);
    const late = queue.append([20]); // comes while the batch is written
    await clock.advance(5);
    await full;
    await clock.advance(99);
    assert.deepEqual(database.batches, [3, 10]);
    await clock.advance(11);
    await late;
    const last = queue.append([21]);
    const closing = queue.close();
    await clock.advance(10);
    await Promise.all([last, closing]);
    assert.deepEqual(database.written, [1, 2, 3, ...range(10, 22)]);
  });

  it("refuses rows beyond its bound and accepts again when there is room", async () => {
    const { clock, database, queue } = queueWith({ maxQueuedRows: 5, retryDelaysMs: [], pauseMs: 100 });
    database.down = true;
    queue.enqueue([1, 2, 3, 4]);
    assert.throws(() => queue.enqueue([5, 6]), code("audit-queue-full"));
    queue.enqueue([5]);
    assert.throws(() => queue.append([6]), code("audit-queue-full"));
    assert.throws(() => queue.enqueue([1, 2, 3, 4, 5, 6]), code("audit-append-size"));
    database.down = false;
    await clock.advance(5_100);
    await queue.append([6]);
    assert.deepEqual(database.written, [1, 2, 3, 4, 5, 6]);
  });

  it("keeps rows while the database is down, tells whoever waits, and writes them in order when it is back", async () => {
    const { clock, database, queue } = queueWith({ retryDelaysMs: [50, 200], pauseMs: 1_000 });
    database.down = true;
    const first = assert.rejects(queue.append([1]), code("audit-delayed"));
    const second = assert.rejects(queue.append([2]), code("audit-delayed"));
    await clock.advance(250);
    await Promise.all([first, second]);
    assert.equal(database.attempts, 3);
    queue.enqueue([3]);
    await clock.advance(10_000);
    assert.equal(queue.queuedRows, 3);
    database.down = false;
    await clock.advance(1_500);
    assert.deepEqual(database.written, [1, 2, 3]);
  });

  it("the very same batch is tried again, whatever came in meanwhile", async () => {
    const { clock, database, queue } = queueWith({ retryDelaysMs: [], pauseMs: 100 });
    database.down = true;
    queue.append([1]).catch(() => undefined);
    await clock.advance(0);
    queue.enqueue([2]);
    database.down = false;
    await clock.advance(10_000);
    assert.deepEqual(database.batches, [1, 1]);
  });

  it("closing writes the rest, or says how much is lost", async () => {
    const good = queueWith();
    good.queue.enqueue([1, 2]);
    await good.queue.close();
    assert.deepEqual(good.database.written, [1, 2]);
    assert.throws(() => good.queue.enqueue([3]), code("audit-closed"));

    const bad = queueWith({ retryDelaysMs: [] });
    bad.database.down = true;
    bad.queue.enqueue([1, 2]);
    await assert.rejects(bad.queue.close(), (error) => {
      assert.ok(error instanceof Unavailable);
      return error.code === "audit-unwritten" && error.facts["rows"] === 2;
    });
  });
});
