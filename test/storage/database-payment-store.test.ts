import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { signBallot } from "../../src/consensus/ballot.js";
import type { Violation } from "../../src/consensus/byzantine-detector.js";
import type { Phase } from "../../src/consensus/transaction-state.js";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { AuditRecords } from "../../src/storage/audit-records.js";
import { DatabasePaymentStore } from "../../src/storage/database-payment-store.js";
import type { Lease } from "../../src/wallet/coordination.js";
import { newPaymentRecord, type PaymentRecord } from "../../src/wallet/payment-record.js";
import { MemoryPaymentStore } from "../../src/wallet/payment-store.js";
import { sampleNode } from "../consensus/electorate.js";
import { NOW_MS, samplePayment, signedRequest, verifiedRequest } from "../wallet/sample-payment.js";
import { realClock } from "./manual-clock.js";
import { type PrivatePostgres, postgresMissing, privatePostgres } from "./private-postgres.js";

const code = (expected: string) => (error: unknown) =>
  (error instanceof InvalidInput || error instanceof Unavailable) && error.code === expected;

let payments = 0;
function newRecord(fields: { walletId?: string; createdAtMs?: number } = {}): PaymentRecord {
  const requestId = `0b1e8d0a-6f0d-4f6e-9d1c-${String(payments++).padStart(12, "0")}`;
  const changes = { requestId, walletId: fields.walletId ?? "wallet-1", metadataJson: '{"invoice":"7"}' };
  const record = newPaymentRecord(signedRequest(changes), verifiedRequest(changes), fields.createdAtMs ?? NOW_MS);
  return { ...record, revision: 1n };
}

function next(record: PaymentRecord, phase: Phase, fields: Partial<PaymentRecord> = {}): PaymentRecord {
  const state = { ...record.state, phase, changedAtMs: record.state.changedAtMs + 1_000 };
  return { ...record, state, ...fields, revision: record.revision + 1n };
}

/** The record with a real proposal and two ballots. */
function voted(record: PaymentRecord): PaymentRecord {
  const { built } = samplePayment({ request: { requestId: record.paymentId, metadataJson: '{"invoice":"7"}' } });
  const proposalDigest = new Uint8Array(32).fill(Number(record.revision));
  const ballots = ["node-1", "node-2"].map((voter, index) => ({
    ballot: signBallot(
      {
        walletId: record.walletId,
        proposalDigest,
        policyVersion: 3n,
        expiresAtMs: BigInt(NOW_MS + 30_000),
        verdict: index === 0 ? Verdict.APPROVE : Verdict.REJECT,
        reasons: index === 0 ? [] : ["fee-rate-too-high"],
        voter,
      },
      sampleNode(voter).sign,
    ),
    receivedAtMs: NOW_MS + 10,
    durationMs: 1.5,
  }));
  const voting = next(record, "voting", { proposalDigest, ballots, approvalsNeeded: 2, policyVersion: 3n });
  return { ...voting, state: { ...voting.state, txid: built.txid, psbt: built.psbt, feeSat: 432n } };
}

function lease(fencing: bigint): Lease & { held: boolean } {
  return { fencing, held: true, lost: new AbortController().signal, release: async () => undefined };
}

function suite(open: () => Promise<AuditDatabase>): void {
  let database: AuditDatabase;
  let store: DatabasePaymentStore;
  let records: AuditRecords;
  before(async () => {
    database = await open();
    store = new DatabasePaymentStore({ database, clock: realClock });
    records = new AuditRecords({ database, clock: realClock });
  });
  after(async () => {
    await database.close();
  });

  it("gives back what was put, through every phase", async () => {
    let record = newRecord();
    assert.equal(await store.get(record.paymentId), undefined);
    await store.put(record);
    assert.deepEqual(await store.get(record.paymentId), await memoryCopy(record));
    record = voted(record);
    await store.put(record);
    const phases: Phase[] = ["approved", "signing", "signed", "broadcasting", "broadcast", "confirmed", "timed-out"];
    for (const phase of phases) {
      record = next(record, phase);
      await store.put(record);
      assert.deepEqual(await store.get(record.paymentId), await memoryCopy(record));
    }
  });

  it("an older revision does not replace a newer one", async () => {
    const first = newRecord();
    const second = next(first, "voting");
    await store.put(second);
    await store.put(first);
    assert.equal((await store.get(first.paymentId))?.state.phase, "voting");
  });

  it("lists as the store in memory does", async () => {
    const memory = new MemoryPaymentStore();
    const all = Array.from({ length: 12 }, (_, n) =>
      newRecord({ walletId: n % 3 === 0 ? "other" : "listed", createdAtMs: NOW_MS + Math.floor(n / 2) }),
    ).map((record, n) => (n % 4 === 0 ? next(record, "confirmed") : record));
    for (const record of all) {
      await memory.put(record);
      await store.put(record);
    }
    const ids = (found: readonly PaymentRecord[]) => found.map(({ paymentId }) => paymentId);
    let before = "";
    for (let page = 0; page < 4; page++) {
      const query = { walletId: "listed", limit: 3, before };
      const found = ids(await store.list(query));
      assert.deepEqual(found, ids(await memory.list(query)));
      before = found.at(-1) ?? before;
    }
    const mine = new Set(ids(all));
    const open = ids(await store.unfinished()).filter((id) => mine.has(id));
    assert.deepEqual(open, ids(await memory.unfinished()));
    await assert.rejects(store.list({ walletId: "listed", limit: 3, before: "unknown" }), code("cursor-unknown"));
    const foreign = all.find(({ walletId }) => walletId === "other")?.paymentId ?? "";
    await assert.rejects(store.list({ walletId: "listed", limit: 3, before: foreign }), code("cursor-unknown"));
    await assert.rejects(store.list({ walletId: "listed", limit: 0, before: "" }), code("page-limit"));
  });

  it("shows people the transaction, its OP_RETURN and the amounts", async () => {
    const record = voted(newRecord());
    await store.put(record);
    const { rows } = await sql<Record<string, unknown>>`
      select status::text as status, txid, encode(unsigned_transaction, 'hex') as unsigned,
        encode(op_return, 'hex') as op_return, amount_sat::text as amount, fee_sat::text as fee,
        details->'recipients'->0->>'amountSat' as first, signed_transaction as signed
      from transactions where request_id = ${record.paymentId}`.execute(database.kysely);
    const [row] = rows;
    assert.ok(row);
    assert.equal(row["status"], "voting");
    assert.equal(row["txid"], record.state.txid);
    assert.match(String(row["op_return"]), /^6a4c504d504357/);
    assert.ok(String(row["unsigned"]).includes(String(row["op_return"])));
    assert.deepEqual([row["amount"], row["fee"], row["first"], row["signed"]], ["150000", "432", "150000", null]);
  });

  it("keeps the votes of each proposal, late ones too, and their first outcome", async () => {
    const record = voted(newRecord());
    const [early] = record.ballots;
    assert.ok(early);
    await store.put({ ...record, ballots: [early] });
    const [open] = await records.votingRounds(record.paymentId);
    assert.equal(open?.outcome, "open");
    assert.equal(open.endedAtMs, undefined);
    const approved = next(record, "approved", { ballots: [early] });
    await store.put(approved);
    await store.put(next({ ...approved, ballots: record.ballots }, "failed"));
    const [round, ...others] = await records.votingRounds(record.paymentId);
    assert.deepEqual(others, []);
    assert.equal(round?.outcome, "approved");
    assert.equal(round.endedAtMs, approved.state.changedAtMs);
    const votes = round.votes as { voter: string; verdict: string; reasons: string[]; signature: string }[];
    assert.deepEqual(
      votes.map(({ voter, verdict, reasons }) => [voter, verdict, reasons]),
      [
        ["node-1", "approve", []],
        ["node-2", "reject", ["fee-rate-too-high"]],
      ],
    );
    assert.equal(votes[0]?.signature, Buffer.from(early.ballot.signature).toString("hex"));
  });

  it("refuses an earlier leader, even one that believes in its lease", async () => {
    const [old, young] = [lease(2n ** 63n + 5n), lease(2n ** 63n + 9n)];
    const oldStore = new DatabasePaymentStore({ database, clock: realClock, lease: () => old });
    const youngStore = new DatabasePaymentStore({ database, clock: realClock, lease: () => young });
    const record = newRecord();
    await oldStore.put(record);
    await youngStore.put(next(record, "voting"));
    await assert.rejects(oldStore.put(next(next(record, "voting"), "approved")), code("not-leading"));
    await assert.rejects(oldStore.put(newRecord()), code("not-leading"));
    assert.equal((await store.get(record.paymentId))?.state.phase, "voting");
    young.held = false;
    await assert.rejects(youngStore.put(newRecord()), code("not-leading"));
    const nobody = new DatabasePaymentStore({ database, clock: realClock, lease: () => undefined });
    await assert.rejects(nobody.put(newRecord()), code("not-leading"));
  });

  it("records a violation once, with its evidence, and finds it by node", async () => {
    const violation: Violation = {
      kind: "double-vote",
      nodeId: "node-4",
      atMs: NOW_MS,
      detail: "two verdicts on one proposal",
      evidence: [Uint8Array.of(1, 2), Uint8Array.of(3)],
      proven: true,
    };
    await records.recordViolation({ violation, sessionId: "proposal", banned: true });
    await records.recordViolation({
      violation: { ...violation, atMs: NOW_MS + 1 },
      sessionId: "proposal",
      banned: true,
    });
    const unproven = { ...violation, kind: "invalid-signature" as const, evidence: [], proven: false };
    await records.recordViolation({ violation: unproven, sessionId: "", banned: false });
    await records.recordViolation({ violation: { ...unproven, atMs: NOW_MS + 1 }, sessionId: "", banned: false });
    const found = await records.violations({ nodeId: "node-4", limit: 10 });
    assert.deepEqual(
      found.map(({ kind, banned }) => [kind, banned]),
      [
        ["invalid-signature", false],
        ["invalid-signature", false],
        ["double-vote", true],
      ],
    );
    assert.deepEqual(found[2]?.evidence, {
      detail: "two verdicts on one proposal",
      evidence: ["0102", "03"],
      proven: true,
    });
    assert.deepEqual(await records.violations({ nodeId: "node-1", limit: 10 }), []);
    await assert.rejects(records.violations({ limit: 1001 }), code("page-limit"));
    const large = { ...violation, evidence: [new Uint8Array(1024 * 1024)] };
    await assert.rejects(
      records.recordViolation({ violation: large, sessionId: "", banned: true }),
      code("evidence-too-large"),
    );
  });

  it("records each presignature's use once", async () => {
    const use = {
      presignatureId: "presignature-1",
      walletId: "wallet-1",
      walletEpoch: 2,
      requestId: "request-1",
      txid: "",
      signers: ["node-1", "node-3"],
      outcome: "failed" as const,
      usedAtMs: NOW_MS,
    };
    await records.recordPresignatureUse(use);
    await records.recordPresignatureUse({ ...use, requestId: "another", outcome: "used" });
    assert.deepEqual(await records.presignatureUses("request-1"), [use]);
    assert.deepEqual(await records.presignatureUses("another"), []);
  });
}

async function memoryCopy(record: PaymentRecord): Promise<PaymentRecord | undefined> {
  const memory = new MemoryPaymentStore();
  await memory.put(record);
  return await memory.get(record.paymentId);
}

describe("payments in PGlite", () => {
  suite(async () => {
    const database = await AuditDatabase.embedded();
    await database.migrate();
    return database;
  });
});

describe("payments in PostgreSQL", { skip: postgresMissing ?? false }, () => {
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

  it("the writer's role can keep payments", async () => {
    const owner = AuditDatabase.postgres({ url: postgres.url });
    await sql`create role payment_writer login`.execute(owner.kysely);
    await owner.grantWriter("payment_writer");
    const writer = AuditDatabase.postgres({ url: postgres.url.replace("owner@", "payment_writer@") });
    const lead = lease(2n ** 63n + 20n);
    const store = new DatabasePaymentStore({ database: writer, clock: realClock, lease: () => lead });
    const record = voted(newRecord());
    await store.put(record);
    assert.equal((await store.get(record.paymentId))?.state.phase, "voting");
    await writer.close();
    await owner.close();
  });

  it("survives a restart of the server in the middle of puts", async () => {
    const database = AuditDatabase.postgres({ url: postgres.url });
    const store = new DatabasePaymentStore({ database, clock: realClock });
    const all = Array.from({ length: 10 }, () => newRecord());
    const puts = Promise.allSettled(all.map((record) => store.put(record).then(() => record)));
    await postgres.crash();
    await postgres.start();
    const outcomes = await puts;
    for (const outcome of outcomes) {
      if (outcome.status === "fulfilled") assert.ok(await store.get(outcome.value.paymentId));
      else assert.ok(code("database-unavailable")(outcome.reason), String(outcome.reason));
    }
    await database.close();
  });
});
