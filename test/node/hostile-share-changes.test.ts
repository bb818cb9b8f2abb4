import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type SwitchCertificate, SwitchCertificateSchema } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { signAbandoned } from "../../src/consensus/switch-certificate.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { TestCluster } from "./cluster.js";
import { HandChange } from "./hand-change.js";
import { HandCoordinator, startTestChain, timeout } from "./hand-coordinator.js";

const PARTIES = ["node-1", "node-2", "node-3"];
const code = (wanted: string) => ({ code: wanted });

/** A coordinator that does what it likes, between 2-of-3 wallets of four nodes. */
describe("a hostile coordinator that changes shares", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let hand: HandChange;
  let other: HandChange;
  let firm: HandCoordinator;

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({ nodes: 4, chain });
    const mesh = await cluster.mesh("coordinator-1");
    const calls = cluster.callsOver(mesh);
    const open = async (walletId: string, coins: number) => {
      const made = await HandCoordinator.open({ calls, server, parties: PARTIES }, { walletId, coins, threshold: 2 });
      const base = { publicKeyPackage: made.publicKeyPackage, parties: PARTIES, epoch: 0 };
      return { made, changes: new HandChange(mesh, walletId, base) };
    };
    const first = await open("hostile", 2);
    firm = first.made;
    hand = first.changes;
    other = (await open("another", 0)).changes;
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });

  const prepareAt = (nodeId: string, change: Parameters<HandChange["prepareAt"]>[1], attempt = 1) =>
    hand.prepareAt(nodeId, change, { sessionId: systemRandom.bytes(16), attempt });

  it("gets no node to take part without an order of the authority, or with another one than it signed", async () => {
    const forged = { seed: new Uint8Array(32).fill(9) };
    await assert.rejects(prepareAt("node-1", hand.sign({}, forged)), code("change-forged"));
    await assert.rejects(prepareAt("node-1", hand.sign({}, { authority: "nobody" })), code("authority-unknown"));
    const honest = hand.sign({ kind: "reshare", threshold: 3 });
    const lowered = hand.sign({ kind: "reshare", threshold: 2 });
    const mixed = { ...honest, request: lowered.request };
    await assert.rejects(prepareAt("node-1", mixed), code("change-forged"), "a lowered threshold");
    // What the authority signed as a payment is no order, though the bytes may decode as one.
    const payment = firm.request();
    const played = { ...honest, request: payment.request, signature: payment.signature };
    await assert.rejects(prepareAt("node-1", played), code("change-forged"));
  });

  it("gets no node to prepare other terms than a key can have, another base, an expired order or a stranger", async () => {
    const cases: [Parameters<HandChange["sign"]>[0], string][] = [
      [{ kind: "reshare", threshold: 1 }, "threshold-out-of-range"],
      [{ kind: "reshare", threshold: 4 }, "threshold-out-of-range"],
      [{ kind: "reshare", parties: ["node-1"], threshold: 1 }, "parties-out-of-range"],
      [{ kind: "reshare", parties: ["node-1", "node-1", "node-2"] }, "parties-out-of-range"],
      [{ kind: "reshare", parties: ["node-1", "node-9"] }, "party-unknown"],
      [{ kind: "reshare", parties: ["node-1", "coordinator-1"] }, "party-unknown"],
      [{ threshold: 3 }, "refresh-differs"],
      [{ parties: ["node-2", "node-1", "node-3"] }, "refresh-differs"],
      [{ baseEpoch: 1 }, "change-other-base"],
      [{ baseKeyDigest: new Uint8Array(32) }, "change-other-base"],
      [{ baseKeyDigest: new Uint8Array(31) }, "change-base-invalid"],
      [{ createdAtMs: Date.now() - 60_000, expiresAtMs: Date.now() - 1 }, "change-expired"],
      [{ createdAtMs: Date.now() + 60_000, expiresAtMs: Date.now() + 120_000 }, "change-from-future"],
      [{ expiresAtMs: Date.now() + 7_200_000 }, "change-window-too-long"],
      [{ requestId: "not a uuid" }, "change-id-invalid"],
      [{ kind: "reshare", threshold: 3, changeCount: 40 }, "change-count-far"],
    ];
    for (const [order, wanted] of cases) {
      await assert.rejects(prepareAt("node-1", hand.sign(order)), code(wanted), JSON.stringify(order, bigintText));
    }
    const change = hand.sign();
    const session = { sessionId: systemRandom.bytes(16) };
    for (const dealers of [[1], [2, 1], [1, 4], [1, 2, 3], [0, 1]]) {
      await assert.rejects(hand.prepareAt("node-1", change, { ...session, dealers }), code("dealers"));
    }
    for (const attempt of [0, 9]) {
      await assert.rejects(hand.prepareAt("node-1", change, { ...session, attempt }), code("attempt-out-of-range"));
    }
    // A node that joins believes no key but the one that the order names.
    const joins = hand.sign({ kind: "reshare", parties: [...PARTIES, "node-4"] });
    const wrongKey = { ...session, base: other.base };
    await assert.rejects(hand.prepareAt("node-4", joins, wrongKey), code("change-base-differs"));
    const missing = { ...session, base: { ...hand.base, parties: ["node-1", "node-2"] } };
    await assert.rejects(hand.prepareAt("node-4", joins, missing), code("change-base-differs"));
    await assert.rejects(prepareAt("node-4", change), code("not-a-party"));
    for (const nodeId of PARTIES) assert.equal((await hand.status(nodeId)).pending, undefined);
  });

  it("gets nobody to switch by anything but the statements of all parties about this change", async () => {
    const change = hand.sign({ kind: "reshare", threshold: 3 });
    for (const { status } of await hand.prepare(change)) assert.equal(status, "fulfilled");
    const whole = await hand.certificate(change);
    const [one, two, three] = whole.statements;
    assert.ok(one !== undefined && two !== undefined && three !== undefined);

    const elsewhere = other.sign({ kind: "reshare", threshold: 3 });
    for (const { status } of await other.prepare(elsewhere)) assert.equal(status, "fulfilled");
    const foreign = await other.certificate(elsewhere);

    const lowered = hand.sign({ kind: "reshare", threshold: 2 });
    const seed = { seed: new Uint8Array(32).fill(9) };
    const cases: [Partial<SwitchCertificate>, string][] = [
      [{ statements: [one, two] }, "statement-missing"],
      [{ statements: [] }, "statement-missing"],
      [{ statements: [one, two, two] }, "statement-duplicate"],
      [{ statements: [one, two, three, three] }, "statement-duplicate"],
      [{ statements: Array.from({ length: 7 }, () => one) }, "too-many-statements"],
      [{ statements: [one, two, { ...three, party: "node-4" }] }, "statement-party"],
      [{ statements: [one, two, { ...three, party: "coordinator-1" }] }, "statement-party"],
      [{ statements: [one, two, { ...two, party: "node-3" }] }, "statement-forged"],
      [{ statements: [one, two, { ...three, signature: new Uint8Array(64) }] }, "statement-forged"],
      [{ statements: [one, two, { ...three, signature: new Uint8Array(63) }] }, "statement-malformed"],
      [{ statements: [one, two, { ...three, attempt: 2 }] }, "statement-disagrees"],
      [{ statements: [one, two, { ...three, keyDigest: new Uint8Array(32) }] }, "statement-disagrees"],
      [{ statements: [one, two, { ...three, epochId: new Uint8Array(32) }] }, "statement-disagrees"],
      [{ statements: [one, two, { ...three, epoch: 2 }] }, "statement-other-change"],
      [{ statements: foreign.statements }, "statement-other-wallet"],
      [{ change: lowered }, "statement-other-change"],
      [{ change: hand.sign({ kind: "reshare", threshold: 2 }, seed) }, "change-forged"],
      [{ publicKeyPackage: foreign.publicKeyPackage }, "certificate-key"],
      [{ publicKeyPackage: hand.base.publicKeyPackage }, "certificate-key"],
    ];
    for (const [wrong, wanted] of cases) {
      const certificate = create(SwitchCertificateSchema, { ...whole, ...wrong });
      await assert.rejects(hand.switchAt("node-1", certificate), code(wanted), wanted);
    }
    // A whole certificate of another wallet says nothing about this one, and no stranger of the wallet takes one.
    await assert.rejects(hand.switchAt("node-4", whole), code("not-a-party"));
    for (const nodeId of PARTIES) assert.equal((await hand.status(nodeId)).epoch, 0);

    // Two changes at once: what a node prepared, it neither drops nor abandons, whatever it is asked.
    const fork = hand.sign({ kind: "reshare", threshold: 2, parties: ["node-1", "node-2", "node-4"] });
    await assert.rejects(prepareAt("node-1", fork), code("change-pending"));
    await assert.rejects(prepareAt("node-1", change, 2), code("change-pending"));
    // Only the authority can give an unfinished order up, by another one: not by a further try of the same.
    const same = hand.sign({ supersedes: true });
    await hand.calls.checkChange("node-1", { change: same, base: hand.base }, timeout());
    await assert.rejects(hand.abandonAt("node-1", change), code("change-prepared"));
    await assert.rejects(hand.abandonAt("node-4", change), code("not-a-party"));
    const statement = await other.abandonAt("node-2", other.sign());
    await assert.rejects(hand.dropAt("node-1", change, statement), code("statement-forged"));
    const own = { ...statement, walletId: "hostile", requestDigest: one.requestDigest };
    await assert.rejects(hand.dropAt("node-1", change, own), code("statement-forged"));
    // The same attempt again answers the same, without another session.
    await prepareAt("node-1", change);
    assert.deepEqual((await hand.certificate(change)).statements, whole.statements);

    for (const nodeId of PARTIES) await hand.switchAt(nodeId, whole);
    await hand.switchAt("node-2", whole);
    hand.base = { publicKeyPackage: whole.publicKeyPackage, parties: PARTIES, epoch: 1 };
    for (const nodeId of PARTIES) assert.equal((await hand.status(nodeId)).epoch, 1);
    // Replayed, all of it comes too late.
    await assert.rejects(prepareAt("node-1", change), code("change-other-base"));
    await assert.rejects(hand.abandonAt("node-1", change), code("change-over"));
    await assert.rejects(prepareAt("node-1", lowered), code("change-other-base"));
  });

  it("an attempt that one node abandoned is never prepared there, and a later one is", async () => {
    const change = hand.sign();
    const statement = await hand.abandonAt("node-3", change);
    await assert.rejects(prepareAt("node-3", change), code("change-superseded"));
    // The others take part in vain: the session misses one party, and nothing is kept.
    const older = hand.sign({ createdAtMs: Date.now() - 60_000 });
    await assert.rejects(prepareAt("node-3", older), code("change-superseded"));
    await hand.dropAt("node-1", change, statement);
    for (const { status } of await hand.prepare(change, { attempt: 2, dealers: [1, 2, 3] })) {
      assert.equal(status, "fulfilled");
    }
    // A lie: somebody signs that it never prepared what it prepared. The others may go on to a later attempt, and
    // then they no longer switch to the earlier one, so no two of them end at different keys.
    const early = await hand.certificate(change);
    const lie = await lying("node-3", change, 2);
    for (const nodeId of ["node-1", "node-2"]) await hand.dropAt(nodeId, change, lie);
    await hand.dropAt("node-3", change, lie);
    for (const { status } of await hand.prepare(change, { attempt: 3, dealers: [1, 2, 3] })) {
      assert.equal(status, "fulfilled");
    }
    for (const nodeId of PARTIES) await assert.rejects(hand.switchAt(nodeId, early), code("change-superseded"));
    const late = await hand.certificate(change);
    for (const nodeId of PARTIES) await hand.switchAt(nodeId, late);
    for (const nodeId of PARTIES) assert.equal((await hand.status(nodeId)).epoch, 2);
    hand.base = { publicKeyPackage: late.publicKeyPackage, parties: PARTIES, epoch: 2 };
  });

  it("signs no payment with shares of an epoch that the coordinator does not name", async () => {
    const voted = await firm.vote(firm.propose(firm.request(), firm.build().psbt));
    const stale = await firm.sign({ ...firm.order(voted, [1, 2, 3]), walletEpoch: 1 });
    for (const outcome of stale) {
      assert.ok(outcome.status === "rejected");
      assert.equal((outcome.reason as { code?: string }).code, "wallet-epoch-differs");
    }
    await firm.pay(voted, [1, 2, 3]);
  });

  it("only a coordinator may ask", async () => {
    await cluster.stopNode("node-4");
    const mesh = await cluster.mesh("node-4");
    const asNode = new HandChange(mesh, "hostile", hand.base);
    await assert.rejects(asNode.status("node-1"), code("not-allowed"));
    await assert.rejects(
      asNode.calls.checkChange("node-1", { change: hand.sign(), base: hand.base }, timeout()),
      code("not-allowed"),
    );
  });

  /** What a party with its own identity key can sign. */
  async function lying(nodeId: string, change: ReturnType<HandChange["sign"]>, attempt: number) {
    const { walletId, digest: requestDigest } = hand.verified(change);
    const identity = await cluster.identityOf(nodeId);
    return signAbandoned({ walletId, requestDigest, attempt, party: nodeId }, (message) => identity.sign(message));
  }
});

const bigintText = (_: string, value: unknown) => (value instanceof Uint8Array ? value.length : value);
