import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { after, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { type LedgerStatement, WitnessService } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import { routeWitness, type WitnessHandlers } from "../../gen/router.js";
import { ledgerDesk } from "../../src/coordinator/ledger-desk.js";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import { faultFromWire } from "../../src/network/fault-wire.js";
import { MessageIdentity } from "../../src/network/identity/message-identity.js";
import { Roster } from "../../src/network/identity/roster.js";
import { memoryTransport } from "../../src/network/memory-transport.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { positionOf, signStatement } from "../../src/node/ledger-statement.js";
import { haveEnough, LedgerWitness } from "../../src/node/ledger-witness.js";
import { processLog } from "../../src/node/log.js";
import { positionMemory } from "../../src/node/position-memory.js";
import { LevelWitnessStore } from "../../src/storage/level-witness-store.js";
import { MemorySpace } from "../../src/storage/memory-coordination.js";
import { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import type { AuditEvent, AuditTrail } from "../../src/wallet/audit-trail.js";
import { realClock } from "../storage/manual-clock.js";
import { scratchFolder } from "../storage/scratch.js";

const NODES = ["node-1", "node-2", "node-3", "node-4", "node-5"];
const COORDINATOR = "coordinator-1";
const key = new Uint8Array(32).fill(5);
const identities = new Map(
  [...NODES, COORDINATOR].map((nodeId) => [nodeId, MessageIdentity.generate(nodeId, systemRandom)]),
);
const identity = (nodeId: string): MessageIdentity => {
  const found = identities.get(nodeId);
  assert.ok(found !== undefined);
  return found;
};
const roster = new Roster(
  [...NODES, COORDINATOR].map((nodeId, index) => ({
    nodeId,
    role: nodeId === COORDINATOR ? ("coordinator" as const) : ("node" as const),
    host: "127.0.0.1",
    port: 1000 + index,
    identityKey: identity(nodeId).publicKey,
  })),
);
const log = processLog({ name: "test", level: "silent" });
const fault = (code: string) => (error: unknown) =>
  (error instanceof Unavailable || error instanceof InvalidInput) && error.code === code;

let made = 0;
const items = (count: number) =>
  Array.from({ length: count }, () => ({
    kind: "presignature" as const,
    id: `item-${made++}`,
    walletId: "treasury",
    walletEpoch: 0,
    signers: ["node-1", "node-2", "node-3"],
    createdAtMs: 1,
    secret: SecretBytes.copyOf(Uint8Array.of(1)),
  }));

async function until(isSo: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let poll = 0; !(await isSo()); poll++) {
    assert.ok(poll < 400, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Node 1 of five with its ledger; the others and a coordinator remember for it. */
class Firm {
  readonly folder = scratchFolder();
  readonly down = new Set<string>();
  readonly stores = new Map<string, LevelWitnessStore>();
  readonly memories = new Map<string, WitnessHandlers>();
  readonly trail: AuditEvent[] = [];
  ledger: OneUseLedger | undefined;
  witness: LedgerWitness | undefined;
  burnsNoticed = 0;

  static async make(options: { readonly coordinator?: boolean } = {}): Promise<Firm> {
    const firm = new Firm();
    opened.push(firm);
    for (const nodeId of NODES.slice(1)) {
      const store = await LevelWitnessStore.open(scratchFolder());
      firm.stores.set(nodeId, store);
      const onBurn = async () => void firm.burnsNoticed++;
      firm.memories.set(nodeId, positionMemory({ roster, store, onBurn, report: () => undefined }));
    }
    const audit: Pick<AuditTrail, "append"> = { append: async (events) => void firm.trail.push(...events) };
    const coordination = new MemorySpace(realClock).connect();
    const desk = ledgerDesk(COORDINATOR, {
      roster,
      coordination,
      audit: audit as AuditTrail,
      log,
      onBurn: () => void firm.burnsNoticed++,
    });
    firm.memories.set(COORDINATOR, desk);
    if (options.coordinator === false) firm.down.add(COORDINATOR);
    return firm;
  }

  client(member: string, from = "node-1") {
    const memory = this.memories.get(member);
    assert.ok(memory !== undefined);
    const transport = memoryTransport({ from, setup: (router) => void routeWitness(router, memory) });
    return createClient(WitnessService, transport);
  }

  /** What a member remembers of node 1. */
  async remembered(member: string): Promise<bigint> {
    return (await this.client(member).recall({})).furthest?.sequence ?? -1n;
  }

  async openLedger(folder = this.folder): Promise<OneUseLedger> {
    await this.ledger?.close();
    const options = { folder, key: SecretBytes.copyOf(key) };
    this.ledger = await OneUseLedger.open(options, { clock: systemClock, random: systemRandom });
    return this.ledger;
  }

  /** The node comes up with this ledger. */
  async boot(options: { readonly folder?: string; readonly confirmationMs?: number } = {}) {
    await this.witness?.close();
    const ledger = await this.openLedger(options.folder);
    const guarded = async <T>(member: string, signal: AbortSignal, call: () => Promise<T>): Promise<T> => {
      if (this.down.has(member)) {
        return await new Promise<T>((_, reject) => {
          signal.addEventListener("abort", () => reject(new Unavailable("peer-down", member)), { once: true });
        });
      }
      return await call();
    };
    const witness = new LedgerWitness(
      {
        nodeId: "node-1",
        identityKey: identity("node-1").publicKey,
        members: roster.peers,
        confirmationMs: options.confirmationMs ?? 20_000,
        answerTimeoutMs: 300,
      },
      {
        ledger,
        calls: {
          announce: (member, announcement, signal) =>
            guarded(member, signal, async () => (await this.client(member).announce(announcement)).furthest),
          recall: (member, signal) =>
            guarded(member, signal, async () => (await this.client(member).recall({})).furthest),
        },
        sign: (message) => identity("node-1").sign(message),
        wallet: () => ({ parties: NODES, threshold: 3 }),
        clock: realClock,
        log,
      },
    );
    this.witness = witness;
    witness.start();
    return { ledger, witness };
  }

  /** One item is taken as a signer takes it. */
  async take(): Promise<void> {
    assert.ok(this.ledger !== undefined && this.witness !== undefined);
    const passage = this.witness.attend();
    assert.ok((await this.ledger.take({})) !== undefined, "nothing to take");
    passage.tell();
    await passage.requireNewest();
  }

  async close(): Promise<void> {
    await this.witness?.close();
    await this.ledger?.close();
    for (const store of this.stores.values()) await store.close();
  }
}

const opened: Firm[] = [];
after(async () => {
  for (const firm of opened) await firm.close();
});

describe("a node's ledger and its witnesses, 3 of 5", () => {
  it("a take is remembered durably by every other member soon", async () => {
    const firm = await Firm.make();
    const { ledger } = await firm.boot();
    await ledger.put(items(2));
    await firm.take();
    const { sequence } = ledger.position();
    for (const member of [...NODES.slice(1), COORDINATOR]) {
      await until(async () => (await firm.remembered(member)) >= sequence, `${member} is told`);
    }
    for (const [member, store] of firm.stores) {
      const statement = await store.load("node-1");
      assert.deepEqual(statement && positionOf(statement), ledger.position(), member);
    }
  });

  it("a member that was down is told when it is back", async () => {
    const firm = await Firm.make();
    const { ledger } = await firm.boot();
    await ledger.put(items(1));
    firm.down.add("node-5");
    await firm.take();
    const { sequence } = ledger.position();
    assert.equal(await firm.remembered("node-5"), -1n);
    firm.down.delete("node-5");
    await until(async () => (await firm.remembered("node-5")) >= sequence, "node-5 is told");
  });

  it("needs n-t+1 other parties: with two it waits, with three it goes on with what it has", async () => {
    const firm = await Firm.make();
    await (await firm.boot()).ledger.put(items(2));
    for (const member of ["node-4", "node-5"]) firm.down.add(member);
    const { ledger } = await firm.boot();
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(ledger.isConfirmed, false);
    await assert.rejects(ledger.take({}), fault("ledger-unconfirmed"));
    firm.down.delete("node-4");
    await until(() => ledger.isConfirmed, "the ledger is confirmed");
    assert.equal(firm.witness?.burn, undefined);
    await firm.take();
  });

  it("counts parties of the wallet, not members", () => {
    const wallet = { parties: NODES, threshold: 3 };
    const answered = (...names: readonly string[]) => haveEnough([wallet], "node-1", new Set(names));
    assert.equal(answered("node-2", "node-3", COORDINATOR, "node-9", "node-1"), false);
    assert.equal(answered("node-2", "node-3", "node-5"), true);
    assert.equal(haveEnough([wallet, { parties: ["node-1", "node-2"], threshold: 2 }], "node-1", new Set(NODES)), true);
    assert.equal(
      haveEnough([{ parties: ["node-1", "node-6"], threshold: 2 }], "node-1", new Set(NODES)),
      false,
      "another wallet's parties do not speak for this one's",
    );
  });

  it("waits for a coordinator, but not for ever", async () => {
    const firm = await Firm.make({ coordinator: false });
    await (await firm.boot()).ledger.put(items(1));
    const { ledger } = await firm.boot({ confirmationMs: 400 });
    await new Promise((resolve) => setTimeout(resolve, 150));
    assert.equal(ledger.isConfirmed, false);
    await until(() => ledger.isConfirmed, "the ledger is confirmed");
    assert.equal(ledger.counts().available, 1);
  });

  it("burns what it has when too few answered in time, tells the trail, and signs with what is new", async () => {
    const firm = await Firm.make();
    await (await firm.boot()).ledger.put(items(3));
    for (const member of ["node-4", "node-5"]) firm.down.add(member);
    const { ledger, witness } = await firm.boot({ confirmationMs: 100 });
    await until(() => witness.burn !== undefined, "the pool is burned");
    assert.equal(ledger.isConfirmed, true);
    assert.equal(ledger.counts().available, 0);
    assert.deepEqual({ ...witness.burn, atMs: 0n }, { reason: "ledger-unconfirmed", items: 3, atMs: 0n });
    await until(() => firm.trail.length === 1, "the trail has it");
    assert.deepEqual(
      firm.trail.map(({ kind, subject }) => ({ kind, subject })),
      [{ kind: "pool-burned", subject: "node-1" }],
    );
    assert.equal(firm.trail[0]?.payload["items"], 3);
    await ledger.put(items(1));
    await firm.take();
    assert.equal(firm.trail.length, 1, "a burning is told once");
  });

  it("one peer that remembers further is enough: the copy burns, and goes on beyond", async () => {
    const firm = await Firm.make();
    const copy = scratchFolder();
    const first = await firm.boot();
    await first.ledger.put(items(3));
    await first.ledger.close();
    cpSync(firm.folder, copy, { recursive: true });
    await firm.boot();
    await until(() => firm.ledger?.isConfirmed === true, "confirmed");
    await firm.take();
    const last = firm.ledger?.position();
    assert.ok(last !== undefined);
    await until(async () => (await firm.remembered("node-5")) >= last.sequence, "node-5 is told");
    // Everybody but node 5 has lost its memory, as if restored, too.
    for (const member of ["node-2", "node-3", "node-4"]) {
      const store = await LevelWitnessStore.open(scratchFolder());
      await firm.stores.get(member)?.close();
      firm.stores.set(member, store);
      firm.memories.set(
        member,
        positionMemory({ roster, store, onBurn: async () => undefined, report: () => undefined }),
      );
    }
    firm.down.add(COORDINATOR);
    firm.down.add("node-4");
    const { ledger, witness } = await firm.boot({ folder: copy });
    await until(() => witness.burn !== undefined, "the copy is found out");
    assert.equal(witness.burn?.reason, "ledger-behind");
    assert.equal(ledger.counts().available, 0);
    assert.ok(ledger.position().sequence > last.sequence && ledger.position().epoch > last.epoch);
    await ledger.put(items(1));
    await firm.take();
    await until(async () => (await firm.remembered("node-5")) > last.sequence, "node-5 believes the successor");
  });

  it("coordinators remember when all peers have forgotten", async () => {
    const firm = await Firm.make();
    const copy = scratchFolder();
    const first = await firm.boot();
    await first.ledger.put(items(2));
    await first.ledger.close();
    cpSync(firm.folder, copy, { recursive: true });
    await firm.boot();
    await until(() => firm.ledger?.isConfirmed === true, "confirmed");
    await firm.take();
    const last = firm.ledger?.position().sequence ?? 0n;
    await until(async () => (await firm.remembered(COORDINATOR)) >= last, "the coordinator is told");
    for (const member of NODES.slice(1)) {
      const store = await LevelWitnessStore.open(scratchFolder());
      await firm.stores.get(member)?.close();
      firm.stores.set(member, store);
      firm.memories.set(
        member,
        positionMemory({ roster, store, onBurn: async () => undefined, report: () => undefined }),
      );
    }
    const { witness } = await firm.boot({ folder: copy });
    await until(() => witness.burn !== undefined, "the copy is found out");
    assert.equal(witness.burn?.reason, "ledger-behind");
  });

  it("a copy that runs beside the original is found out by the first word about it", async () => {
    const firm = await Firm.make();
    const { ledger, witness } = await firm.boot();
    await ledger.put(items(4));
    await firm.take();
    // The same node went on elsewhere: a second process, or this one before its memory was set back.
    const { lineage, epoch, sequence } = ledger.position();
    const ahead = signStatement("node-1", { lineage, epoch, sequence: sequence + 9n }, (message) =>
      identity("node-1").sign(message),
    );
    await firm.client("node-3").announce({ statement: ahead });
    const passage = witness.attend();
    assert.ok((await ledger.take({})) !== undefined);
    passage.tell();
    await until(() => witness.burn !== undefined, "node-3 tells of the other copy");
    await assert.rejects(passage.requireNewest(), fault("ledger-behind"));
    assert.equal(ledger.counts().available, 0);
    assert.ok(ledger.position().sequence > sequence + 9n);
    await ledger.put(items(1));
    await firm.take();
  });

  it("a peer can neither make up a position nor pass for a witness with one", async () => {
    const firm = await Firm.make();
    await (await firm.boot()).ledger.put(items(1));
    const invented = (by: string, sequence: bigint): LedgerStatement =>
      signStatement("node-1", { lineage: "ab".repeat(16), epoch: 99n, sequence }, (message) =>
        identity(by).sign(message),
      );
    const liar: WitnessHandlers = {
      witness: {
        announce: () => ({ furthest: invented("node-2", 10n ** 9n) }),
        recall: () => ({ furthest: invented("node-2", 10n ** 9n) }),
      },
    };
    for (const member of ["node-2", "node-3"]) firm.memories.set(member, liar);
    const { ledger, witness } = await firm.boot({ confirmationMs: 60_000 });
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(ledger.isConfirmed, false, "two liars and two honest peers are two answers");
    assert.equal(witness.burn, undefined);
    await ledger.confirm();
    await firm.take();
    const { sequence } = ledger.position();
    await until(async () => (await firm.remembered("node-4")) >= sequence, "node-4 is told");
    assert.equal(witness.burn, undefined);
  });

  it("a member that remembers less than it was told is told again", async () => {
    const firm = await Firm.make();
    const { ledger } = await firm.boot();
    await ledger.put(items(1));
    const stale = signStatement("node-1", { ...ledger.position(), sequence: 0n }, (message) =>
      identity("node-1").sign(message),
    );
    let told = 0;
    firm.memories.set("node-3", {
      witness: {
        announce: () => {
          told++;
          return { furthest: stale };
        },
        recall: () => ({ furthest: stale }),
      },
    });
    await firm.take();
    await until(() => told >= 2, "node-3 is told again");
  });
});

describe("what a member remembers", () => {
  const statement = (position: { lineage?: string; epoch: bigint; sequence: bigint }, by = "node-1") =>
    signStatement("node-1", { lineage: "01".repeat(16), ...position }, (message) => identity(by).sign(message));

  for (const member of ["node-2", COORDINATOR]) {
    it(`is the furthest statement of the caller, signed by it (${member})`, async () => {
      const firm = await Firm.make();
      const client = firm.client(member);
      const announce = async (said: LedgerStatement, from = "node-1") => {
        try {
          return (await firm.client(member, from).announce({ statement: said })).furthest;
        } catch (error) {
          throw faultFromWire(error, member);
        }
      };
      assert.equal((await client.recall({})).furthest, undefined);
      const far = statement({ epoch: 4n, sequence: 50n });
      assert.equal((await announce(far))?.sequence, 50n);
      const refused = [
        statement({ epoch: 4n, sequence: 49n }),
        statement({ epoch: 3n, sequence: 60n }),
        statement({ lineage: "02".repeat(16), epoch: 5n, sequence: 50n }),
        statement({ lineage: "02".repeat(16), epoch: 4n, sequence: 60n }),
      ];
      for (const said of refused) assert.equal((await announce(said))?.sequence, 50n, "an older one is not believed");
      const successor = statement({ lineage: "02".repeat(16), epoch: 5n, sequence: 51n });
      assert.equal((await announce(successor))?.sequence, 51n);
      const forged = [
        statement({ epoch: 9n, sequence: 90n }, "node-2"),
        { ...statement({ epoch: 9n, sequence: 90n }), sequence: 91n },
        { ...statement({ epoch: 9n, sequence: 90n }), nodeId: "node-2" },
        statement({ epoch: 9n, sequence: (1n << 62n) + 1n }),
        statement({ lineage: "01", epoch: 9n, sequence: 90n }),
      ];
      for (const said of forged) await assert.rejects(announce(said), fault("statement-forged"));
      await assert.rejects(announce(statement({ epoch: 9n, sequence: 90n }), "node-3"), fault("statement-forged"));
      const usurped = statement({ epoch: 9n, sequence: 90n }, "node-3");
      await assert.rejects(announce(usurped, "node-3"), fault("statement-forged"), "in another node's place");
      await assert.rejects(announce(statement({ epoch: 9n, sequence: 90n }), COORDINATOR), fault("not-allowed"));
      assert.equal((await client.recall({})).furthest?.sequence, 51n);
      assert.equal((await firm.client(member, "node-4").recall({})).furthest, undefined, "each node its own");
    });
  }

  it("survives a restart of the member", async () => {
    const folder = scratchFolder();
    let store = await LevelWitnessStore.open(folder);
    await store.save(statement({ epoch: 1n, sequence: 7n }));
    await store.close();
    store = await LevelWitnessStore.open(folder);
    assert.equal((await store.load("node-1"))?.sequence, 7n);
    await assert.rejects(LevelWitnessStore.open(folder), fault("witness-unreadable"));
    await store.close();
  });
});
