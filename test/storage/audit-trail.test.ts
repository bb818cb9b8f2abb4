import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { sql } from "kysely";
import pg from "pg";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { auditHash, follows } from "../../src/storage/audit-hash.js";
import { DatabaseAuditTrail } from "../../src/storage/database-audit-trail.js";
import type { AuditEvent } from "../../src/wallet/audit-trail.js";
import { realClock } from "./manual-clock.js";
import { type PrivatePostgres, postgresMissing, privatePostgres } from "./private-postgres.js";
import { scratchFolder } from "./scratch.js";

const code = (expected: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === expected;

function event(subject: string, payload: Record<string, unknown> = {}): AuditEvent {
  return { kind: "payment-created", walletId: "treasury", subject, payload };
}

const events = (count: number) => Array.from({ length: count }, (_, index) => event(`request-${index}`, { index }));

/** The same suite runs on every database. `open` answers an empty, migrated one. */
function suite(open: () => Promise<AuditDatabase>): void {
  let database: AuditDatabase;
  let trail: DatabaseAuditTrail;
  before(async () => {
    database = await open();
  });
  after(async () => {
    await database.close();
  });
  const fresh = async () => {
    await withoutTriggers(database, async () => {
      await sql`delete from audit_log`.execute(database.kysely);
      await sql`update audit_head set sequence = 0, hash = decode(repeat('00', 32), 'hex')`.execute(database.kysely);
    });
    trail = new DatabaseAuditTrail({}, { database, clock: realClock });
  };

  it("keeps what was appended, in order, chained, and verifies it", async () => {
    await fresh();
    const payload = {
      text: "ünïcode ☂ \u2028",
      number: 1e21,
      small: 1e-7,
      zero: -0,
      nested: [{ b: 1, a: [true, null] }],
    };
    await trail.append([event("first", payload), event("second", { amountSat: 21n, txid: Uint8Array.of(1, 255) })]);
    await trail.append([event("third")]);
    const entries = await trail.read({ fromSequence: 1n, limit: 10 });
    assert.deepEqual(
      entries.map(({ sequence, subject }) => [sequence, subject]),
      [
        [1n, "first"],
        [2n, "second"],
        [3n, "third"],
      ],
    );
    assert.deepEqual(entries[1]?.payload, { amountSat: "21", txid: "01ff" });
    assert.deepEqual(await trail.verify(), { entries: 3n, firstBroken: undefined });
    for (const [index, entry] of entries.entries()) assert.ok(follows(entry, entries[index - 1]));
    const head = await trail.head();
    assert.equal(Buffer.compare(head.hash, entries[2]?.hash ?? head.hash), 0);
  });

  it("an outsider recomputes a hash from the columns alone", async () => {
    await fresh();
    await trail.append([event("first"), event("second", { b: 2, a: [1, "x"] })]);
    const { rows } = await sql<{ hash: string; previous: string; time_ms: string }>`
      select encode(hash, 'hex') as hash, encode(previous_hash, 'hex') as previous, time_ms::text as time_ms
      from audit_log where sequence = 2`.execute(database.kysely);
    const row = rows[0];
    assert.ok(row);
    const hash = createHash("sha256")
      .update("mpc-wallet/audit/v1\n")
      .update(Buffer.from(row.previous, "hex"))
      .update(
        `{"kind":"payment-created","payload":{"a":[1,"x"],"b":2},"sequence":"2","subject":"second",` +
          `"timeMs":${row.time_ms},"walletId":"treasury"}`,
      )
      .digest("hex");
    assert.equal(hash, row.hash);
  });

  it("reads in pages and by subject", async () => {
    await fresh();
    await trail.append([...events(5), event("request-1", { again: true })]);
    const page = await trail.read({ fromSequence: 3n, limit: 2 });
    assert.deepEqual(
      page.map(({ sequence }) => sequence),
      [3n, 4n],
    );
    const about = await trail.read({ fromSequence: 1n, limit: 10, subject: "request-1" });
    assert.deepEqual(
      about.map(({ sequence }) => sequence),
      [2n, 6n],
    );
    await assert.rejects(trail.read({ fromSequence: 1n, limit: 1001 }), code("read-limit"));
  });

  it("an awaited append does not wait for the batch timer", async () => {
    await fresh();
    const startedMs = performance.now();
    await trail.append(events(1));
    assert.ok(performance.now() - startedMs < 2_000);
  });

  it("concurrent appends share batches, keep their order and stay whole", async () => {
    await fresh();
    const calls = Array.from({ length: 60 }, (_, call) =>
      trail.append(Array.from({ length: 5 }, (_, part) => event(`call-${call}`, { call, part }))),
    );
    await Promise.all(calls);
    const entries = await trail.read({ fromSequence: 1n, limit: 1000 });
    const order = entries.map(({ payload }) => Number(payload["call"]) * 5 + Number(payload["part"]));
    assert.deepEqual(
      order,
      Array.from({ length: 300 }, (_, index) => index),
    );
    assert.deepEqual(await trail.verify(), { entries: 300n, firstBroken: undefined });
  });

  it("two coordinators append to one chain", async () => {
    await fresh();
    const other = new DatabaseAuditTrail({}, { database, clock: realClock });
    await Promise.all(Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? trail : other).append(events(3))));
    assert.deepEqual(await trail.verify(), { entries: 60n, firstBroken: undefined });
  });

  it("closing writes what nobody waited for", async () => {
    await fresh();
    trail.enqueue(events(3));
    await trail.close();
    assert.equal((await trail.head()).sequence, 3n);
    await assert.rejects(trail.append(events(1)), code("audit-closed"));
  });

  it("refuses what cannot be hashed the same way again", async () => {
    await fresh();
    const circle: Record<string, unknown> = {};
    circle["circle"] = circle;
    const wrong: Record<string, unknown>[] = [
      { value: Number.NaN },
      { value: "\0" },
      { value: "\ud800" },
      { value: () => 1 },
      { value: new Date(0) },
      circle,
    ];
    for (const payload of wrong)
      await assert.rejects(trail.append([event("x", payload)]), code("json-unrepresentable"));
    await assert.rejects(trail.append([event("x", { value: "y".repeat(65_600) })]), code("audit-event"));
    await assert.rejects(trail.append([event("y".repeat(257))]), code("audit-event"));
    await trail.append([event("y".repeat(256), { value: "y".repeat(65_000) })]);
    assert.deepEqual(await trail.verify(), { entries: 1n, firstBroken: undefined });
  });

  it("refuses UPDATE, DELETE and TRUNCATE", async () => {
    await fresh();
    await trail.append(events(2));
    for (const statement of [
      "update audit_log set subject = 'x'",
      "update audit_log set subject = 'x' where false",
      "delete from audit_log where sequence = 1",
      "truncate audit_log",
      "delete from audit_head",
      "update audit_head set sequence = 1",
      "delete from transactions",
      "truncate transactions, voting_rounds",
      "delete from byzantine_violations",
      "update presignature_usage set txid = ''",
    ]) {
      await assert.rejects(sql.raw(statement).execute(database.kysely), /append-only|only moves forward/, statement);
    }
    assert.deepEqual(await trail.verify(), { entries: 2n, firstBroken: undefined });
  });

  const tampering: readonly [string, string, bigint][] = [
    ["an altered payload", `update audit_log set payload = '{"index": 7}' where sequence = 3`, 3n],
    ["an altered column", "update audit_log set wallet_id = 'mine' where sequence = 2", 2n],
    ["an altered time", "update audit_log set time_ms = time_ms + 1 where sequence = 6", 6n],
    ["a deleted row", "delete from audit_log where sequence = 4", 4n],
    ["the first row deleted", "delete from audit_log where sequence = 1", 1n],
    ["the end cut off", "delete from audit_log where sequence > 4", 5n],
    [
      "two rows in each other's place",
      `update audit_log set sequence = case sequence when 2 then -5 else -2 end where sequence in (2, 5);
       update audit_log set sequence = -sequence where sequence < 0`,
      2n,
    ],
    [
      "a row added at the end",
      "insert into audit_log select 7, time_ms, kind, wallet_id, subject, payload, hash, hash from audit_log where sequence = 6",
      7n,
    ],
    ["another head", "update audit_head set hash = decode(repeat('11', 32), 'hex')", 6n],
  ];
  for (const [what, statement, firstBroken] of tampering) {
    it(`verification finds ${what}`, async () => {
      await fresh();
      await trail.append(events(6));
      await withoutTriggers(database, async () => {
        await sql`alter table audit_log drop constraint audit_log_sequence_check`.execute(database.kysely);
        for (const part of statement.split(";")) await sql.raw(part).execute(database.kysely);
        await sql`alter table audit_log add constraint audit_log_sequence_check check (sequence > 0)`.execute(
          database.kysely,
        );
      });
      assert.equal((await trail.verify()).firstBroken, firstBroken);
    });
  }

  it("migrating again changes nothing", async () => {
    await fresh();
    await trail.append(events(1));
    await database.migrate();
    assert.deepEqual(await trail.verify(), { entries: 1n, firstBroken: undefined });
  });
}

/** What only a superuser can do, and what the hash chain is there to show. */
async function withoutTriggers(database: AuditDatabase, act: () => Promise<void>): Promise<void> {
  for (const table of ["audit_log", "audit_head"]) {
    await sql.raw(`alter table ${table} disable trigger user`).execute(database.kysely);
  }
  await act();
  for (const table of ["audit_log", "audit_head"]) {
    await sql.raw(`alter table ${table} enable trigger user`).execute(database.kysely);
  }
}

describe("audit trail in PGlite", () => {
  suite(async () => {
    const database = await AuditDatabase.embedded();
    await database.migrate();
    return database;
  });

  it("survives a restart and keeps a second opener out", async () => {
    const folder = scratchFolder();
    const first = await AuditDatabase.embedded({ folder });
    await first.migrate();
    const trail = new DatabaseAuditTrail({}, { database: first, clock: realClock });
    await trail.append(events(3));
    await assert.rejects(AuditDatabase.embedded({ folder }), code("folder-locked"));
    await first.close();
    const second = await AuditDatabase.embedded({ folder });
    await second.migrate();
    const again = new DatabaseAuditTrail({}, { database: second, clock: realClock });
    await again.append(events(2));
    assert.deepEqual(await again.verify(), { entries: 5n, firstBroken: undefined });
    await second.close();
  });
});

describe("audit trail in PGlite and kill -9", () => {
  it("in 8 kills no entry that was reported as written is lost", { timeout: 120_000 }, async () => {
    const folder = scratchFolder();
    const script = fileURLToPath(new URL("audit-appender.js", import.meta.url));
    let written = 0;
    for (let round = 0; round < 8; round++) {
      const child = spawn(process.execPath, [script, folder], { stdio: ["ignore", "pipe", "inherit"] });
      let output = "";
      child.stdout.on("data", (chunk: Buffer) => {
        if (output === "") setTimeout(() => child.kill("SIGKILL"), Math.random() * 200);
        output += chunk.toString();
      });
      await once(child, "close");
      const last = Number(output.split("\n").at(-2) ?? 0);
      assert.ok(last > written, `entry ${last} came after ${written}`);
      written = last;
    }
    const database = await AuditDatabase.embedded({ folder });
    const trail = new DatabaseAuditTrail({}, { database, clock: realClock });
    const { entries, firstBroken } = await trail.verify();
    assert.equal(firstBroken, undefined);
    assert.ok(entries === BigInt(written) || entries === BigInt(written) + 1n, `${entries} of ${written}`);
    await database.close();
  });
});

describe("audit trail in PostgreSQL", { skip: postgresMissing ?? false }, () => {
  let postgres: PrivatePostgres;
  before(async () => {
    postgres = await privatePostgres();
  });
  after(async () => {
    await postgres.remove();
  });
  suite(async () => {
    const database = AuditDatabase.postgres({ url: postgres.url });
    await database.migrate();
    return database;
  });

  it("the writer's role can record and nothing else", async () => {
    const owner = AuditDatabase.postgres({ url: postgres.url });
    await sql`create role trail_writer login`.execute(owner.kysely);
    await owner.grantWriter("trail_writer");
    const writer = AuditDatabase.postgres({ url: postgres.url.replace("owner@", "trail_writer@") });
    const trail = new DatabaseAuditTrail({}, { database: writer, clock: realClock });
    await trail.append(events(2));
    assert.equal((await trail.verify()).firstBroken, undefined);
    for (const statement of [
      "update audit_log set subject = 'x'",
      "delete from audit_log",
      "truncate audit_log",
      "alter table audit_log disable trigger user",
      "drop table audit_log",
      "set session_replication_role = replica",
      "delete from transactions",
      "insert into audit_head values (1, 0, '')",
    ]) {
      await assert.rejects(sql.raw(statement).execute(writer.kysely), /permission denied|must be owner/, statement);
    }
    await assert.rejects(owner.grantWriter("x; drop table audit_log"), code("role-name"));
    await writer.close();
    await owner.close();
  });

  it("a crash of the server loses nothing, repeats nothing and keeps the order", { timeout: 60_000 }, async () => {
    const database = AuditDatabase.postgres({ url: postgres.url });
    const options = { retryDelaysMs: [50, 100, 200], pauseMs: 100 };
    const trail = new DatabaseAuditTrail(options, { database, clock: realClock });
    const start = (await trail.head()).sequence;
    const outcomes: string[] = [];
    let sent = 0;
    const send = () =>
      trail.append([event("outage", { number: sent++ })]).then(
        () => outcomes.push("written"),
        (error: unknown) => outcomes.push(error instanceof Unavailable ? error.code : String(error)),
      );
    const waiting: Promise<unknown>[] = [];
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 20; n++) {
        waiting.push(send());
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const crash = postgres.crash();
      for (let n = 0; n < 20; n++) waiting.push(send());
      await crash;
      await new Promise((resolve) => setTimeout(resolve, 600));
      await postgres.start();
    }
    waiting.push(send());
    await Promise.all(waiting);
    await trail.close();
    assert.ok(outcomes.includes("written") && outcomes.includes("audit-delayed"), `outcomes: ${new Set(outcomes)}`);
    assert.ok(outcomes.every((outcome) => outcome === "written" || outcome === "audit-delayed"));
    const entries = await trail.read({ fromSequence: start + 1n, limit: 1000, subject: "outage" });
    assert.deepEqual(
      entries.map(({ payload }) => payload["number"]),
      Array.from({ length: sent }, (_, number) => number),
    );
    assert.equal((await trail.verify()).firstBroken, undefined);
    await database.close();
  });

  it("a commit whose answer was lost is not repeated", async () => {
    const database = AuditDatabase.postgres({ url: postgres.url });
    const trail = new DatabaseAuditTrail({ retryDelaysMs: [1, 1] }, { database, clock: realClock });
    const start = (await trail.head()).sequence;
    const original = pg.Client.prototype.query;
    let cut = 0;
    // The driver commits and then reports a broken connection, once.
    pg.Client.prototype.query = function (this: pg.Client, ...args: never[]) {
      const result: unknown = Reflect.apply(original, this, args);
      const text: unknown = args[0];
      const isCommit = text === "commit" || (text as { text?: string })?.text === "commit";
      if (!isCommit || cut++ > 0) return result;
      return Promise.resolve(result).then(() => Promise.reject(new Error("Connection terminated unexpectedly")));
    } as typeof original;
    try {
      await trail.append(events(4));
    } finally {
      pg.Client.prototype.query = original;
    }
    assert.ok(cut >= 1, "the commit was intercepted");
    assert.equal((await trail.head()).sequence, start + 4n);
    await database.close();
  });
});

describe("audit hash", () => {
  it("every field counts", () => {
    const entry = {
      ...event("subject", { a: 1 }),
      sequence: 1n,
      timeMs: 1_750_000_000_000,
      previousHash: new Uint8Array(32),
    };
    const hash = Buffer.from(auditHash(entry)).toString("hex");
    assert.equal(hash, "5e46b7ae877177634f557c1894dd7ff146b8a7a43371cf1dccf7d13eaf2254d1");
    const changes: Partial<typeof entry>[] = [
      { sequence: 2n },
      { timeMs: 1_750_000_000_001 },
      { previousHash: new Uint8Array(32).fill(1) },
      { kind: "other" },
      { walletId: "other" },
      { subject: "other" },
      { payload: { a: 2 } },
    ];
    for (const change of changes) {
      assert.notEqual(Buffer.from(auditHash({ ...entry, ...change })).toString("hex"), hash);
    }
  });
});
