import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { Verdict } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { signBallot } from "../../src/consensus/ballot.js";
import { ByzantineWatch } from "../../src/coordinator/byzantine-watch.js";
import type { Coordinator } from "../../src/coordinator/coordinator.js";
import { StoredBans } from "../../src/coordinator/stored-bans.js";
import { ed25519PublicKey, signEd25519, verifyEd25519 } from "../../src/crypto/ed25519.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { AuditDatabase } from "../../src/storage/audit-database.js";
import { AuditRecords } from "../../src/storage/audit-records.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { MemorySpace } from "../../src/storage/memory-coordination.js";
import type { ChainSource } from "../../src/wallet/chain-source.js";
import type { Coordination } from "../../src/wallet/coordination.js";
import type { WalletApplication, WalletView } from "../../src/wallet/wallet-application.js";
import { TestCluster } from "../node/cluster.js";
import { RECIPIENT, startTestChain } from "../node/hand-coordinator.js";
import { badKeyShare, badSignatureShare, HostileSessions } from "../node/hostile-sessions.js";
import { SampleTrail } from "../wallet/sample-firm.js";
import { clientRequest } from "./client-request.js";
import { startTestCoordinator } from "./test-coordinator.js";

const LIAR = "node-2";

describe("a coordinator and a dishonest node", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let space: MemorySpace;
  let database: AuditDatabase;
  let trail: SampleTrail;
  let coordinator: Coordinator;
  let application: WalletApplication;
  let wallet: WalletView;
  let liar: HostileSessions;
  let chain: ChainSource;

  before(async () => {
    server = await startTestChain();
    chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({
      nodes: 5,
      chain,
      // The liar votes first, so that it is among the signers.
      chainOf: (nodeId) => (nodeId === LIAR ? undefined : slow(chain)),
      sessions: (identity) => {
        if (identity.nodeId !== LIAR) return undefined;
        liar = new HostileSessions(identity);
        return liar;
      },
    });
    space = new MemorySpace(systemClock);
    database = await AuditDatabase.embedded();
    await database.migrate();
    trail = new SampleTrail();
    await start(space.connect());
  });
  after(async () => {
    await coordinator?.close();
    await database?.close();
    await cluster?.close();
    await server?.close();
  });
  const start = async (coordination: Coordination): Promise<void> => {
    coordinator = await startTestCoordinator(cluster, { chain, audit: trail, coordination, database });
    ({ application } = coordinator);
  };
  const newWallet = (name: string) => application.createWallet({ name, scheme: "frost", threshold: 3, parties: [] });
  const request = () => clientRequest({ walletId: wallet.walletId, address: RECIPIENT, amountSat: 200_000n });
  const violations = () => trail.events.filter(({ kind }) => kind === "byzantine-evidence");

  it("pays with other signers after it judged the evidence itself, and bans for good", async () => {
    wallet = await newWallet("main");
    for (let coin = 0; coin < 3; coin++) {
      const { scriptPubKey } = await application.newAddress(wallet.walletId);
      server.faucet.pay(scriptPubKey, 1_000_000n);
    }
    server.chain.mine(1, server.faucet.scriptPubKey);
    liar.cheat = badSignatureShare;
    const sent = await application.sendPaymentAndWait(request());
    assert.equal(liar.runs, 1, "the liar was asked to sign, once");
    assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
    assert.equal(sent.retries, 1);
    const [violation, ...more] = violations();
    assert.ok(violation !== undefined && more.length === 1, "two honest signers reported it");
    assert.equal(violation.subject, LIAR);
    const { proven, kind, detail, evidence } = violation.payload as { evidence: string[] } & Record<string, unknown>;
    assert.deepEqual([proven, kind, detail], [true, "protocol-fault", "signature-share"]);
    assert.equal(fromBinary(EvidenceSchema, Buffer.from(evidence[0] ?? "", "hex")).accused, 2);

    const records = new AuditRecords({ database, clock: systemClock });
    const [row, ...others] = await records.violations({ limit: 10 });
    assert.ok(row !== undefined && others.length === 1);
    assert.deepEqual([row.nodeId, row.kind], [LIAR, "protocol-fault"]);
    assert.equal(row.sessionId, violation.payload["sessionId"]);
    const [round] = await records.votingRounds(sent.paymentId);
    assert.equal(round?.outcome, "approved");

    // Another coordinator takes over: the ban is in the shared store.
    await coordinator.close();
    await start(space.connect());
    const again = await application.sendPaymentAndWait(request());
    assert.equal(again.phase, "broadcast", JSON.stringify(again.failure));
    assert.equal(again.retries, 0);
    assert.equal(liar.runs, 1, "the liar is not asked again");
    const { ballots } = await application.votes(again.paymentId);
    assert.equal(ballots.find(({ voter }) => voter === LIAR)?.verdict, "none");
  });

  it("records a cheat in a key generation", async () => {
    const before = violations().length;
    liar.cheat = badKeyShare();
    await assert.rejects(newWallet("spoiled"));
    const added = violations().slice(before);
    assert.ok(added.length > 0);
    for (const { subject, payload } of added) {
      assert.deepEqual([subject, payload["detail"]], [LIAR, "share-on-polynomial"]);
    }
  });

  it("records and bans for two answers to one proposal, and for nothing less", async () => {
    const seed = new Uint8Array(32).fill(3);
    const node = cluster.roster.nodes[3];
    assert.ok(node !== undefined);
    const roster = new Map(cluster.roster.nodes.map(({ nodeId, identityKey }) => [nodeId, identityKey]));
    roster.set(node.nodeId, ed25519PublicKey(seed));
    const own = new MemorySpace(systemClock);
    const events = new SampleTrail();
    const dependencies = {
      bans: new StoredBans(own.connect()),
      audit: events,
      violations: { recordViolation: async () => undefined },
      clock: systemClock,
      verify: verifyEd25519,
      log: cluster.log,
      digest: (bytes: Uint8Array) => bytes.slice(0, 32),
    };
    const watch = new ByzantineWatch(roster, dependencies);
    const ballot = (verdict: Verdict.APPROVE | Verdict.REJECT, signer = seed) =>
      signBallot(
        {
          walletId: "wallet-1",
          proposalDigest: new Uint8Array(32),
          policyVersion: 1n,
          expiresAtMs: 1n,
          verdict,
          reasons: [],
          voter: node.nodeId,
        },
        (message) => signEd25519(signer, message),
      );
    const first = ballot(Verdict.APPROVE);
    const { nodeId } = node;
    watch.observe({ type: "double-vote", nodeId, first, second: ballot(Verdict.REJECT, new Uint8Array(32).fill(4)) });
    watch.observe({ type: "invalid-signature", nodeId, detail: "forged-ballot" });
    for (let time = 0; time < 100; time++) watch.observe({ type: "timeout", nodeId, detail: "vote" });
    assert.deepEqual([...watch.banned], []);
    watch.observe({ type: "double-vote", nodeId, first, second: ballot(Verdict.REJECT) });
    assert.deepEqual([...watch.banned], [nodeId]);
    assert.deepEqual(
      events.events.map(({ payload }) => [payload["kind"], payload["proven"]]),
      [
        ["invalid-signature", false],
        ["double-vote", true],
      ],
    );
    const next = new ByzantineWatch(roster, { ...dependencies, bans: new StoredBans(own.connect()) });
    await next.load();
    assert.deepEqual([...next.banned], [nodeId]);
    const stored = new StoredBans(own.connect());
    await stored.ban({ nodeId, kind: "later", detail: "", bannedAtMs: 1, evidence: [] });
    assert.equal((await stored.lift(nodeId))?.kind, "double-vote", "the first ban is what people see");
    const afterwards = new ByzantineWatch(roster, { ...dependencies, bans: new StoredBans(own.connect()) });
    await afterwards.load();
    assert.deepEqual([...afterwards.banned], []);
  });
});

/** The chain as a node sees it whose source takes its time. */
function slow(chain: ChainSource): ChainSource {
  return new Proxy(chain, {
    get(target, name: keyof ChainSource) {
      const method = target[name] as (...given: unknown[]) => Promise<unknown>;
      return async (...given: unknown[]) => {
        await new Promise((resolve) => setTimeout(resolve, 150));
        return await method.apply(target, given);
      };
    },
  });
}
