// A firm of five whose nodes come back with folders of an earlier time. What counts as used is what peers received on the
// wire, whatever a node says of itself.
import assert from "node:assert/strict";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createClient } from "@connectrpc/connect";
import { ControlService, SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { WitnessService } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import { assembleCertificate } from "../../src/consensus/approval-certificate.js";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { InvalidInput, Unavailable } from "../../src/crypto/fault.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import type { RouterSetup } from "../../src/network/method-table.js";
import type { PeerMesh } from "../../src/network/peer-mesh.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import type { SessionRunner } from "../../src/node/session-pool.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { TestCluster } from "./cluster.js";
import { HandCoordinator, RECIPIENT, startTestChain, timeout, type Voted } from "./hand-coordinator.js";

const PATIENCE_MS = 180_000;
const parties = ["node-1", "node-2", "node-3", "node-4", "node-5"];
const signers = [1, 2, 3];
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** Session ids in which somebody received a message. */
class WireLog {
  readonly sessions = new Set<string>();

  observe(inner: SessionRunner): SessionRunner {
    return {
      run: (job, seat, wire) => {
        const handle = inner.run(job, seat, wire);
        return {
          receive: (bytes) => {
            if (job.kind === "cggmp24-sign") this.sessions.add(hex(seat.sessionId));
            handle.receive(bytes);
          },
          lost: (party) => handle.lost(party),
          drop: () => handle.drop(),
          release: () => handle.release(),
          result: handle.result,
        };
      },
      close: () => inner.close(),
    };
  }

  /** A peer that notes what it is sent, says that it used up and remembers whatever it is told, and tells nobody. */
  get liar(): RouterSetup {
    const log = this;
    return (router) =>
      void router
        .service(SessionService, {
          async *exchange(requests) {
            let sessionId = "";
            for await (const { frame } of requests) {
              if (frame?.kind.case === "opening") sessionId = hex(frame.kind.value.sessionId);
              else if (frame?.kind.case === "take") yield { frame };
              else log.sessions.add(sessionId);
            }
          },
        })
        .service(WitnessService, {
          announce: ({ statement }) => (statement === undefined ? {} : { furthest: statement }),
          recall: () => ({}),
        });
  }
}

describe("nodes that were restored from a backup, 3 of 5", () => {
  const wire = new WireLog();
  let server: ChainServer;
  let cluster: TestCluster;
  let mesh: PeerMesh;
  let calls: PeerCalls;
  let wallet: HandCoordinator;
  /** Made before the backup. */
  let ids: readonly Uint8Array[];
  let confirmationMs = 60_000;

  const folder = (nodeId: string): string => join(cluster.folder, nodeId);
  const backup = (nodeId: string): string => join(cluster.folder, `${nodeId}.backup`);
  const each = <T>(nodeIds: readonly string[], work: (nodeId: string) => Promise<T>): Promise<T[]> =>
    Promise.all(nodeIds.map(work));
  const start = async (nodeIds: readonly string[]): Promise<void> => {
    await each(nodeIds, (nodeId) => cluster.startNode(nodeId));
    await mesh.ready(nodeIds, 60_000);
  };
  const stop = (nodeIds: readonly string[]) => each(nodeIds, (nodeId) => cluster.stopNode(nodeId));
  const restore = (nodeId: string): void => {
    rmSync(folder(nodeId), { recursive: true });
    cpSync(backup(nodeId), folder(nodeId), { recursive: true });
  };
  const presign = async (count: number): Promise<readonly Uint8Array[]> => {
    const order = { sessionId: systemRandom.bytes(16), walletId: "segwit", signers, count };
    const made = await each(parties.slice(0, 3), (nodeId) => calls.presign(nodeId, order, timeout(PATIENCE_MS)));
    assert.equal(made[0]?.length, count);
    return made[0] ?? [];
  };
  const approve = async (coin: number, amountSat: bigint, voters: readonly string[] = parties): Promise<Voted> => {
    const recipients = [{ address: RECIPIENT, amountSat }];
    const { psbt } = wallet.build({ recipients, coins: wallet.coins.slice(coin, coin + 1) });
    const proposal = wallet.propose(wallet.request({ recipients }), psbt);
    const ballots = await each(voters, (nodeId) => calls.vote(nodeId, proposal, timeout()));
    return { proposal, ballots, certificate: assembleCertificate(ballots) };
  };
  const orderOf = (voted: Voted, id: Uint8Array | undefined): SigningOrder => {
    assert.ok(id !== undefined);
    return { ...wallet.order(voted, signers), presignatureIds: [id] };
  };
  /** Orders one signature of these nodes, again while their ledgers are unconfirmed; returns the codes of refusals. */
  const insist = async (
    nodeIds: readonly string[],
    voted: Voted,
    id: Uint8Array | undefined,
  ): Promise<{ readonly codes: readonly string[]; readonly sessions: readonly string[] }> => {
    const sessions: string[] = [];
    for (let attempt = 0; attempt < 300; attempt++) {
      const order = orderOf(voted, id);
      sessions.push(hex(order.sessionId));
      const outcomes = await Promise.allSettled(nodeIds.map((nodeId) => calls.sign(nodeId, order, timeout())));
      const codes = outcomes.map((outcome) => {
        if (outcome.status === "fulfilled") return "signed";
        const { reason } = outcome;
        return reason instanceof InvalidInput || reason instanceof Unavailable ? reason.code : String(reason);
      });
      if (!codes.some((code) => code === "ledger-unconfirmed" || code === "peer-unavailable"))
        return { codes, sessions };
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error("the ledgers stay unconfirmed");
  };
  const ledgerOf = async (nodeId: string) => {
    const { ledger } = await createClient(ControlService, mesh.transport(nodeId)).getStatus({}, { timeoutMs: 5_000 });
    assert.ok(ledger !== undefined);
    return ledger;
  };
  /** A node that takes while another one is not confirmed yet has used a presignature up for nothing. */
  const confirmed = async (nodeIds: readonly string[]): Promise<void> => {
    for (const nodeId of nodeIds) {
      for (let poll = 0; !(await ledgerOf(nodeId)).confirmed; poll++) {
        assert.ok(poll < 300, `${nodeId} stays unconfirmed`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  };
  const nobodyReceived = (sessions: readonly string[]): void =>
    assert.deepEqual(
      sessions.filter((sessionId) => wire.sessions.has(sessionId)),
      [],
    );

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({
      nodes: 5,
      chain,
      ledgerConfirmationMs: () => confirmationMs,
      observe: (_, sessions) => wire.observe(sessions),
    });
    mesh = await cluster.mesh("coordinator-1");
    calls = cluster.callsOver(mesh);
    wallet = await HandCoordinator.open(
      { calls, server, parties },
      { walletId: "segwit", coins: 4, scheme: "cggmp24" },
    );
    const order = { sessionId: systemRandom.bytes(16), walletId: "segwit" };
    await each(parties, (nodeId) => calls.generateAuxInfo(nodeId, order, timeout(PATIENCE_MS)));
    ids = await presign(2);
    await stop(parties.slice(0, 3));
    for (const nodeId of parties.slice(0, 3)) cpSync(folder(nodeId), backup(nodeId), { recursive: true });
    await start(parties.slice(0, 3));
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });

  it("an ordinary restart keeps the pool: a payment is signed from it, and all members note how far its ledgers are", async () => {
    await confirmed(parties.slice(0, 3));
    const { codes, sessions } = await insist(parties.slice(0, 3), await approve(0, 300_000n), ids[0]);
    assert.deepEqual(codes, ["signed", "signed", "signed"]);
    assert.ok(wire.sessions.has(sessions.at(-1) ?? ""), "the wire log does not see what is signed");
    for (const witness of parties) {
      for (const signer of parties.slice(0, 3).filter((nodeId) => nodeId !== witness)) {
        for (let poll = 0; (await cluster.witnesses.get(witness)?.load(signer)) === undefined; poll++) {
          assert.ok(poll < 100, `${witness} was never told of the ledger of ${signer}`);
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
    }
  });

  it("one restored node gives nothing to two signers that lie for it: the others know its ledger", async () => {
    await stop(parties.slice(0, 3));
    restore("node-1");
    const liars = await each(["node-2", "node-3"], (nodeId) => cluster.mesh(nodeId, wire.liar));
    await start(["node-1"]);
    const voted = await approve(1, 200_000n, ["node-1", "node-4", "node-5"]);
    for (const id of ids) {
      const { codes, sessions } = await insist(["node-1"], voted, id);
      nobodyReceived(sessions);
      assert.deepEqual(codes, ["presignature-unknown"]);
    }
    const { confirmed, available, burnedReason } = await ledgerOf("node-1");
    assert.deepEqual(
      { confirmed, available, burnedReason },
      { confirmed: true, available: 0, burnedReason: "ledger-behind" },
    );
    await Promise.all(liars.map((liar) => liar.close()));
    await stop(["node-1"]);
  });

  it("three restored nodes, all that signed, reuse nothing; their pools burn, and fresh presignatures pay", async () => {
    for (const nodeId of parties.slice(0, 3)) restore(nodeId);
    await start(parties.slice(0, 3));
    const voted = await approve(1, 200_000n);
    for (const id of ids) {
      const { codes, sessions } = await insist(parties.slice(0, 3), voted, id);
      nobodyReceived(sessions);
      assert.deepEqual(codes, ["presignature-unknown", "presignature-unknown", "presignature-unknown"]);
    }
    for (const nodeId of parties.slice(0, 3)) {
      const { burnedReason, available } = await ledgerOf(nodeId);
      assert.deepEqual({ burnedReason, available }, { burnedReason: "ledger-behind", available: 0 }, nodeId);
    }
    const [fresh] = await presign(1);
    const { codes } = await insist(parties.slice(0, 3), voted, fresh);
    assert.deepEqual(codes, ["signed", "signed", "signed"]);
  });

  it("one restored node gives nothing although everybody forgot its ledger: its co-signers use nothing up twice", async () => {
    const [first, second, fresh] = await presign(3);
    await stop(["node-1"]);
    rmSync(backup("node-1"), { recursive: true });
    cpSync(folder("node-1"), backup("node-1"), { recursive: true });
    await start(["node-1"]);
    await confirmed(["node-1"]);
    for (const [id, amountSat] of [
      [first, 210_000n],
      [second, 220_000n],
    ] as const) {
      const { codes } = await insist(parties.slice(0, 3), await approve(1, amountSat), id);
      assert.deepEqual(codes, ["signed", "signed", "signed"]);
    }
    await stop(parties);
    restore("node-1");
    for (const nodeId of parties) rmSync(join(folder(nodeId), "witness"), { recursive: true });
    await start(parties);
    await confirmed(parties);
    assert.equal((await ledgerOf("node-1")).available, 3, "node-1 does not know better");
    const voted = await approve(1, 230_000n);
    const sign = async (ids: readonly (Uint8Array | undefined)[]): Promise<readonly string[]> => {
      const { sessionId } = orderOf(voted, fresh);
      const outcomes = await Promise.allSettled(
        ids.map((id, index) => calls.sign(parties[index] ?? "", { ...orderOf(voted, id), sessionId }, timeout())),
      );
      nobodyReceived([hex(sessionId)]);
      return outcomes.map((outcome) => (outcome.status === "rejected" ? String(outcome.reason.code) : "signed"));
    };
    const refused = await sign([first, first, first]);
    assert.deepEqual(refused, ["take-unconfirmed", "presignature-unknown", "presignature-unknown"]);
    // Nor does a coordinator that gives the others one that they have.
    assert.equal((await sign([second, fresh, fresh]))[0], "take-differs");
  });

  it("a ledger folder that was deleted counts as behind, and its successor is believed", async () => {
    const [waiting] = await presign(1);
    await stop(["node-1"]);
    rmSync(join(folder("node-1"), "ledger"), { recursive: true });
    await start(["node-1"]);
    for (let poll = 0; (await ledgerOf("node-1")).burnedReason !== "ledger-behind"; poll++) {
      assert.ok(poll < 100, "nobody told node-1 of its ledger");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const voted = await approve(2, 200_000n);
    assert.deepEqual((await insist(["node-1"], voted, waiting)).codes, ["presignature-unknown"]);
    const [fresh] = await presign(1);
    assert.deepEqual((await insist(parties.slice(0, 3), voted, fresh)).codes, ["signed", "signed", "signed"]);
  });

  it("with two nodes down a restarted one hears too few: it burns its pool and signs with fresh presignatures", async () => {
    const [waiting] = await presign(1);
    await stop(["node-1", "node-4", "node-5"]);
    confirmationMs = 6_000;
    await start(["node-1"]);
    const voted = await approve(3, 200_000n, parties.slice(0, 3));
    await assert.rejects(calls.sign("node-1", orderOf(voted, waiting), timeout()), (error: unknown) => {
      assert.ok(error instanceof Unavailable && error.code === "ledger-unconfirmed", String(error));
      return true;
    });
    assert.deepEqual((await insist(["node-1"], voted, waiting)).codes, ["presignature-unknown"]);
    assert.equal((await ledgerOf("node-1")).burnedReason, "ledger-unconfirmed");
    const [fresh] = await presign(1);
    assert.deepEqual((await insist(parties.slice(0, 3), voted, fresh)).codes, ["signed", "signed", "signed"]);
  });
});
