import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { judgeSigning } from "../../src/coordinator/evidence-judge.js";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { InvalidInput, PeerFault } from "../../src/crypto/fault.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { decodeProposedTransaction } from "../../src/wallet/proposed-transaction.js";
import { finalizeTransaction } from "../../src/wallet/transaction-finalizer.js";
import { TestCluster } from "./cluster.js";
import { HandCoordinator, RECIPIENT, startTestChain, timeout, type Voted } from "./hand-coordinator.js";
import { badPreparedShare, HostileSessions } from "./hostile-sessions.js";

const code = (wanted: string) => (error: unknown) => error instanceof InvalidInput && error.code === wanted;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
/** More than are signed in the main thread. */
const COINS = 6;
const LIAR = "node-2";

describe("a compromised coordinator uses FROST nonces once, 3 of 4", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let calls: PeerCalls;
  let wallet: HandCoordinator;
  let liar: HostileSessions;
  let ids: Uint8Array[];
  const parties = ["node-1", "node-2", "node-3", "node-4"];
  const signers = [1, 2, 3];
  const at = (index: number): Uint8Array => ids[index] ?? assert.fail("too few nonces");
  const approve = (amountSat: bigint, coins = 1): Promise<Voted> => {
    const recipients = [{ address: RECIPIENT, amountSat }];
    const { psbt } = wallet.build({ recipients, coins: wallet.coins.slice(0, coins) });
    return wallet.vote(wallet.propose(wallet.request({ recipients }), psbt));
  };
  const orderOf = (voted: Voted, presignatureIds: readonly Uint8Array[], set = signers): SigningOrder => ({
    ...wallet.order(voted, set),
    presignatureIds,
  });
  const refusedByAll = async (wanted: string, order: SigningOrder): Promise<void> => {
    for (const index of order.signers) {
      await assert.rejects(calls.sign(parties[index - 1] ?? "", order, timeout()), code(wanted), wanted);
    }
  };
  /** Signed by all, and what the coordinator's own code verifies. */
  const signed = async (order: SigningOrder, coins = 1): Promise<void> => {
    const answers = await wallet.sign(order);
    const proposed = decodeProposedTransaction(order.proposal.psbt);
    assert.ok(proposed !== undefined);
    for (const answer of answers) {
      assert.ok(answer.status === "fulfilled", String(answer.status === "rejected" && answer.reason));
      const keys = wallet.coins.slice(0, coins).map(({ path }) => wallet.account.derive(path));
      finalizeTransaction(proposed, answer.value.signatures, keys);
    }
  };

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({
      nodes: 4,
      chain,
      sessions: (identity) => {
        if (identity.nodeId !== LIAR) return undefined;
        liar = new HostileSessions(identity);
        return liar;
      },
    });
    calls = cluster.callsOver(await cluster.mesh("coordinator-1"));
    wallet = await HandCoordinator.open({ calls, server, parties }, { walletId: "taproot", coins: COINS });
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });

  it("makes nonces that all signers know by the same id, and refuses too many at once", async () => {
    const order = { sessionId: systemRandom.bytes(16), walletId: "taproot", signers, count: 12 };
    const made = await Promise.all(signers.map((index) => calls.presign(parties[index - 1] ?? "", order, timeout())));
    const names = made.map((list) => list.map(hex).sort().join());
    assert.equal(new Set(names).size, 1);
    ids = [...(made[0] ?? [])];
    assert.equal(ids.length, 12);
    const waiting = await calls.waiting("node-3", "taproot", timeout());
    assert.deepEqual(waiting.map(({ id }) => hex(id)).sort(), ids.map(hex).sort());
    assert.deepEqual(await calls.waiting("node-4", "taproot", timeout()), []);
    const many = { ...order, sessionId: systemRandom.bytes(16), count: 101 };
    await assert.rejects(calls.presign("node-1", many, timeout()), code("batch"));
    const few = { ...order, sessionId: systemRandom.bytes(16), signers: [1, 2] };
    await assert.rejects(calls.presign("node-1", few, timeout()), code("signers"));
  });

  it("signs with one, and never again: not another payment, not the same", async () => {
    const voted = await approve(300_000n);
    await assert.rejects(
      calls.sign("node-1", orderOf(voted, [at(0)], [1, 2, 4]), timeout()),
      code("presignature-signers"),
    );
    await refusedByAll("presignature-count", orderOf(voted, [at(0), at(1)]));
    await signed(orderOf(voted, [at(0)]));
    await refusedByAll("presignature-unknown", orderOf(voted, [at(0)]));
    await refusedByAll("presignature-unknown", orderOf(await approve(200_000n), [at(0)]));
    assert.equal((await calls.waiting("node-1", "taproot", timeout())).length, 11);
  });

  it("signs all inputs of a payment at once, one pair of nonces each, and without any", async () => {
    const voted = await approve(5_000_000n, COINS);
    await refusedByAll(
      "presignature-repeated",
      orderOf(
        voted,
        Array.from({ length: COINS }, () => at(1)),
      ),
    );
    await signed(orderOf(voted, ids.slice(1, 1 + COINS)), COINS);
    await signed(orderOf(voted, []), COINS);
  });

  it("two signers that are given different nonces do not sign, and the nonces are gone", async () => {
    const voted = await approve(250_000n);
    const sessionId = systemRandom.bytes(16);
    const one = { ...orderOf(voted, [at(7)]), sessionId };
    const other = { ...orderOf(voted, [at(8)]), sessionId };
    const answers = await Promise.allSettled([
      calls.sign("node-1", one, timeout()),
      calls.sign("node-2", other, timeout()),
      calls.sign("node-3", one, timeout()),
    ]);
    assert.ok(answers.every(({ status }) => status === "rejected"));
    await assert.rejects(calls.sign("node-1", orderOf(voted, [at(7)]), timeout()), code("presignature-unknown"));
    await assert.rejects(calls.sign("node-2", orderOf(voted, [at(8)]), timeout()), code("presignature-unknown"));
  });

  it("a bad share is named with evidence that the coordinator's own judge upholds, against nobody else", async () => {
    const voted = await approve(150_000n);
    liar.cheat = badPreparedShare;
    const order = orderOf(voted, [at(9)]);
    const [first, , third] = await wallet.sign(order);
    const roster = new Map(cluster.roster.nodes.map(({ nodeId, identityKey }) => [nodeId, identityKey]));
    const judged = { account: wallet.account, roster, publicKeyPackage: wallet.publicKeyPackage };
    for (const answer of [first, third]) {
      assert.ok(answer?.status === "rejected" && answer.reason instanceof PeerFault, "a fault with evidence");
      const fault = answer.reason as PeerFault<Evidence>;
      assert.deepEqual(fault.culprits, [LIAR]);
      const verdict = (change: Partial<SigningOrder>) =>
        judgeSigning({
          reporter: "node-1",
          order: { ...order, ...change },
          wallet: judged,
          evidence: fault.evidence,
          exhibits: [],
        });
      assert.deepEqual(
        verdict({}).map(({ nodeId, check }) => [nodeId, check]),
        [[LIAR, "signature-share"]],
      );
      assert.deepEqual(verdict({ presignatureIds: [at(10)] }), [], "other nonces");
      assert.deepEqual(verdict({ presignatureIds: [] }), [], "the two-round protocol");
    }
    // Whom the nodes saw cheat is banned: its vote makes their certificate void.
    await assert.rejects(calls.sign("node-1", orderOf(voted, [at(10)]), timeout()), InvalidInput);
    assert.ok((await calls.waiting("node-1", "taproot", timeout())).some(({ id }) => hex(id) === hex(at(10))));
  });
});
