import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { clone, create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { Psbt } from "bitcoinjs-lib";
import {
  ApprovalCertificateSchema,
  type Ballot,
  BallotSchema,
  type PaymentProposal,
  PaymentProposalSchema,
  Verdict,
} from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import {
  ConsensusService,
  ControlService,
  SessionService,
  SignPaymentRequestSchema,
  WalletChangeService,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { CertificateService } from "../../gen/mpcwallet/pki/v1/pki_pb.js";
import { WitnessService } from "../../gen/mpcwallet/witness/v1/witness_pb.js";
import { assembleCertificate } from "../../src/consensus/approval-certificate.js";
import type { PeerCalls } from "../../src/coordinator/peer-calls.js";
import { Bug, InvalidInput, PeerSilent } from "../../src/crypto/fault.js";
import type { ChainServer } from "../../src/devnet/chain/server.js";
import { faultFromWire } from "../../src/network/fault-wire.js";
import type { PeerMesh } from "../../src/network/peer-mesh.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { MpcNode } from "../../src/node/node.js";
import { EsploraChainSource } from "../../src/storage/chain/esplora.js";
import { signingItems } from "../../src/wallet/approved-signing.js";
import { type CheckedPayment, checkPayment, isSighash, type Sighash } from "../../src/wallet/payment-check.js";
import type { SigningOrder } from "../../src/wallet/peer-signing.js";
import { samplePayment } from "../wallet/sample-payment.js";
import { TestCluster } from "./cluster.js";
import { HandCoordinator, RECIPIENT, startTestChain, THIEF, timeout, type Voted } from "./hand-coordinator.js";

const code = (wanted: string) => (fault: unknown) => {
  assert.ok(fault instanceof InvalidInput, `${wanted}, but: ${String(fault)}`);
  assert.equal(fault.code, wanted);
  return true;
};

describe("a compromised coordinator gets no signature", () => {
  let server: ChainServer;
  let cluster: TestCluster;
  let mesh: PeerMesh;
  let calls: PeerCalls;
  let wallet: HandCoordinator;
  let other: HandCoordinator;
  let honest: Voted;

  before(async () => {
    server = await startTestChain();
    const chain = new EsploraChainSource({ url: server.esploraUrl }, { clock: systemClock, random: systemRandom });
    cluster = await TestCluster.start({ nodes: 5, chain });
    mesh = await cluster.mesh("coordinator-1");
    calls = cluster.callsOver(mesh);
    const parts = { calls, server, parties: cluster.roster.nodes.map(({ nodeId }) => nodeId) };
    wallet = await HandCoordinator.open(parts, { walletId: "wallet-1", coins: 3 });
    other = await HandCoordinator.open(parts, { walletId: "wallet-2", coins: 1 });
  });
  after(async () => {
    await cluster?.close();
    await server?.close();
  });
  // Ballots live a minute: every group of attacks begins with a payment that all nodes approve.
  const approve = async (): Promise<Voted> => {
    const voted = await wallet.vote(wallet.propose(wallet.request(), wallet.build().psbt));
    assert.ok(voted.ballots.every(({ verdict }) => verdict === Verdict.APPROVE));
    return voted;
  };

  /** Every asked node refuses for the same reason; none of them takes part. */
  async function refused(wanted: string, order: SigningOrder, nodes = ["node-1", "node-2", "node-3"]): Promise<void> {
    for (const nodeId of nodes) await assert.rejects(calls.sign(nodeId, order, timeout()), code(wanted), wanted);
  }

  const withProposal = (voted: Voted, change: Partial<PaymentProposal>): SigningOrder => {
    const proposal = create(PaymentProposalSchema, { ...voted.proposal, ...change });
    return wallet.order({ ...voted, proposal });
  };
  const withBallots = (voted: Voted, ballots: readonly Ballot[]): SigningOrder => {
    const certificate = create(ApprovalCertificateSchema, { ballots: [...ballots] });
    return wallet.order({ ...voted, certificate });
  };
  const altered = (ballot: Ballot, change: Partial<Ballot>): Ballot =>
    Object.assign(clone(BallotSchema, ballot), change);

  describe("with the certificate of an honest payment, for", () => {
    before(async () => {
      honest = await approve();
    });
    const to = (address: string, amountSat: bigint) => ({ address, amountSat });
    const attacks: [string, string, () => Uint8Array][] = [
      ["another recipient", "payment-not-approved", () => wallet.build({ recipients: [to(THIEF, 300_000n)] }).psbt],
      ["another amount", "payment-not-approved", () => wallet.build({ recipients: [to(RECIPIENT, 300_001n)] }).psbt],
      [
        "one more output",
        "payment-not-approved",
        () => wallet.build({ recipients: [to(RECIPIENT, 300_000n), to(THIEF, 10_000n)] }).psbt,
      ],
      ["another change address of the wallet", "other-proposal", () => wallet.build({ changeIndex: 1 }).psbt],
      [
        "a change address beyond what a scan finds",
        "payment-not-approved",
        () => wallet.build({ changeIndex: 5_000 }).psbt,
      ],
      ["a higher fee", "other-proposal", () => wallet.build({ feeRateSatPerKvb: 3_000n }).psbt],
      [
        "a fee that the policy refuses",
        "payment-not-approved",
        () => wallet.build({ feeRateSatPerKvb: 900_000n }).psbt,
      ],
      ["another input of the wallet", "other-proposal", () => wallet.build({ coins: wallet.coins.slice(1, 2) }).psbt],
      ["one more input", "payment-not-approved", () => tampered(withSecondCoin)],
      ["a coin of another wallet", "payment-not-approved", () => wallet.build({ coins: other.coins }).psbt],
      ["another wallet's transaction", "payment-not-approved", () => other.build().psbt],
      [
        "SIGHASH_NONE | ANYONECANPAY",
        "psbt-malformed",
        () => tampered((psbt) => psbt.updateInput(0, { sighashType: 0x82 })),
      ],
      ["an input that lies about its amount", "payment-not-approved", () => lying(2_000_000n)],
      ["a later locktime", "payment-not-approved", () => tampered((psbt) => psbt.setLocktime(10_000))],
      ["garbage", "psbt-malformed", () => systemRandom.bytes(300)],
      ["nothing", "psbt-malformed", () => new Uint8Array()],
      ["a PSBT of 200 kB", "psbt-malformed", () => new Uint8Array(200_000).fill(0x70)],
    ];
    for (const [name, wanted, psbt] of attacks) {
      it(name, async () => refused(wanted, withProposal(honest, { psbt: psbt() })));
    }

    it("another expiry or policy version", async () => {
      const { expiresAtMs, policyVersion } = honest.proposal;
      await refused("other-proposal", withProposal(honest, { expiresAtMs: expiresAtMs + 1n }));
      await refused("proposal-expiry-too-far", withProposal(honest, { expiresAtMs: expiresAtMs + 3_600_000n }));
      await refused("proposal-expired", withProposal(honest, { expiresAtMs: BigInt(Date.now() - 1) }));
      await refused("policy-version-differs", withProposal(honest, { policyVersion: policyVersion + 1n }));
    });

    it("a request that no authority signed, that was altered, or that is over", async () => {
      const { request } = honest.proposal;
      assert.ok(request !== undefined);
      const stranger = wallet.request({ authority: "mallory" });
      await refused("authority-unknown", withProposal(honest, { request: stranger }));
      const forged = wallet.request({ seed: new Uint8Array(32).fill(66) });
      await refused("request-forged", withProposal(honest, { request: forged }));
      const bytes = Uint8Array.from(request.request);
      const at = Buffer.from(bytes).indexOf(RECIPIENT);
      bytes.set(Buffer.from("bcrt1q999"), at);
      await refused("request-forged", withProposal(honest, { request: { ...request, request: bytes } }));
      const old = wallet.request({ createdAtMs: Date.now() - 2_000, expiresAtMs: Date.now() - 1_000 });
      await refused("request-expired", withProposal(honest, { request: old }));
      const endless = wallet.request({ expiresAtMs: Date.now() + 86_400_000 });
      await refused("window-too-long", withProposal(honest, { request: endless }));
      // Signed by the authority, same amounts, another id: the certificate is about the other one.
      await refused("other-proposal", withProposal(honest, { request: wallet.request() }));
    });

    function tampered(change: (psbt: Psbt) => unknown): Uint8Array {
      const psbt = Psbt.fromBuffer(honest.proposal.psbt);
      change(psbt);
      return new Uint8Array(psbt.toBuffer());
    }
    function withSecondCoin(psbt: Psbt): void {
      const [, coin] = wallet.coins;
      const first = psbt.data.inputs[0];
      assert.ok(coin !== undefined && first?.tapBip32Derivation !== undefined);
      const key = wallet.account.derive(coin.path);
      psbt.addInput({
        hash: coin.txid,
        index: coin.vout,
        sequence: psbt.txInputs[0]?.sequence ?? 0,
        witnessUtxo: { script: key.scriptPubKey, value: coin.valueSat },
        tapBip32Derivation: first.tapBip32Derivation.map((claim) => ({ ...claim, path: `m/0/${coin.path.index}` })),
      });
    }
    function lying(value: bigint): Uint8Array {
      return tampered((psbt) => {
        const utxo = psbt.data.inputs[0]?.witnessUtxo;
        assert.ok(utxo !== undefined);
        utxo.value = value;
      });
    }
  });

  it("with a certificate that does not hold", async () => {
    const voted = await approve();
    const [one, two, three, four, five] = voted.ballots;
    assert.ok(one && two && three && four && five);
    await refused("too-few-ballots", withBallots(voted, [one, two]), ["node-1", "node-2"]);
    await refused("too-few-ballots", withBallots(voted, []));
    await refused("duplicate-voter", withBallots(voted, [one, two, three, three]));
    await refused("duplicate-voter", withBallots(voted, [one, two, two]));
    const many = Array.from({ length: 11 }, () => one);
    await refused("too-many-ballots", withBallots(voted, many));
    const flipped = altered(three, { signature: three.signature.map((byte, at) => (at === 7 ? byte ^ 1 : byte)) });
    await refused("forged-ballot", withBallots(voted, [one, two, flipped]));
    await refused("forged-ballot", withBallots(voted, [one, two, altered(three, { voter: "node-4" })]));
    await refused("malformed-ballot", withBallots(voted, [one, two, altered(three, { signature: new Uint8Array() })]));
    await refused("unknown-voter", withBallots(voted, [one, two, three, altered(four, { voter: "node-9" })]));
    await refused("unknown-voter", withBallots(voted, [one, two, three, altered(four, { voter: "coordinator-1" })]));
    const rejecting = altered(three, { verdict: Verdict.REJECT, reasons: ["amount-above-limit"] });
    await refused("not-an-approval", withBallots(voted, [one, two, rejecting]));
    await refused(
      "other-expiry",
      withBallots(voted, [one, two, altered(three, { expiresAtMs: three.expiresAtMs + 1n })]),
    );
    await refused("other-policy", withBallots(voted, [one, two, altered(three, { policyVersion: 2n })]));
    await refused("own-ballot-missing", withBallots(voted, [two, three, four, five]), ["node-1"]);
    await refused("own-ballot-missing", withBallots(voted, [one, two, three]), ["node-4", "node-5"]);

    const elsewhere = await other.vote(other.propose(other.request(), other.build().psbt));
    await refused("other-wallet", withBallots(voted, elsewhere.ballots));
    const otherPayment = await wallet.vote(
      wallet.propose(wallet.request(), wallet.build({ coins: wallet.coins.slice(2) }).psbt),
    );
    await refused("other-proposal", withBallots(voted, otherPayment.ballots));
  });

  it("with a certificate whose time is over", async () => {
    const brief = await wallet.vote(
      wallet.propose(wallet.request(), wallet.build().psbt, { expiresAtMs: Date.now() + 1_500 }),
    );
    await new Promise((resolve) => setTimeout(resolve, 1_600));
    await refused("proposal-expired", wallet.order(brief));
  });

  it("with ballots that reject", async () => {
    const stolen = wallet.propose(
      wallet.request(),
      wallet.build({ recipients: [{ address: THIEF, amountSat: 300_000n }] }).psbt,
    );
    const voted = await wallet.vote(stolen);
    assert.ok(voted.ballots.every(({ verdict }) => verdict === Verdict.REJECT));
    assert.deepEqual(voted.ballots[0]?.reasons, ["output-unexpected", "recipient-missing"]);
    await refused("payment-not-approved", withBallots(voted, voted.ballots));
    const relabelled = voted.ballots.map((ballot) => altered(ballot, { verdict: Verdict.APPROVE, reasons: [] }));
    await refused("payment-not-approved", withBallots(voted, relabelled));
  });

  it("with a set of signers that is none", async () => {
    const voted = await approve();
    const sets: readonly number[][] = [
      [],
      [1, 2],
      [1, 2, 3, 4],
      [2, 1, 3],
      [1, 1, 2],
      [1, 2, 2],
      [1, 2, 9],
      [0, 1, 2],
      [1, 2, 70_000],
    ];
    for (const signers of sets) await refused("signers", wallet.order(voted, signers), ["node-1"]);
    await refused("signers", wallet.order(voted, [1, 2, 3]), ["node-4", "node-5"]);
    await refused("session-id", { ...wallet.order(voted), sessionId: new Uint8Array(15) });
  });

  it("without a proposal or a certificate", async () => {
    const voted = await approve();
    const client = createClient(SessionService, mesh.transport("node-1", "signing"));
    const ask = async (fields: object): Promise<unknown> => {
      const signers = [1, 2, 3];
      const sessionId = systemRandom.bytes(16);
      return await client.signPayment({ sessionId, signers, ...fields }).catch((error: unknown) => {
        throw faultFromWire(error, "node-1");
      });
    };
    await assert.rejects(ask({}), code("certificate-missing"));
    await assert.rejects(ask({ proposal: voted.proposal }), code("certificate-missing"));
    await assert.rejects(ask({ certificate: voted.certificate }), code("certificate-missing"));
    await assert.rejects(ask({ proposal: {}, certificate: voted.certificate }), code("request-malformed"));
  });

  it("for a second transaction of one request that could confirm beside the first", async () => {
    const request = wallet.request({ requestId: randomUUID() });
    const first = await wallet.vote(wallet.propose(request, wallet.build().psbt));
    assert.ok(first.ballots.every(({ verdict }) => verdict === Verdict.APPROVE));
    const again = wallet.propose(request, wallet.build({ coins: wallet.coins.slice(1, 2) }).psbt);
    const second = await wallet.vote(again);
    for (const { verdict, reasons } of second.ballots) {
      assert.deepEqual([verdict, reasons], [Verdict.REJECT, ["request-already-approved"]]);
    }
    await refused("other-proposal", wallet.order({ ...second, certificate: first.certificate }));
    await refused("not-an-approval", withBallots(second, second.ballots));
    const relabelled = second.ballots.map((ballot) => altered(ballot, { verdict: Verdict.APPROVE, reasons: [] }));
    await refused("forged-ballot", withBallots(second, relabelled));
  });

  it("by telling signers of one session different payments", async () => {
    const [one, two] = [await approve(), await approve()];
    const order = wallet.order(one);
    const split = { ...order, proposal: two.proposal, certificate: two.certificate };
    const answers = await Promise.allSettled([
      calls.sign("node-1", order, timeout()),
      calls.sign("node-2", order, timeout()),
      calls.sign("node-3", split, timeout()),
    ]);
    for (const answer of answers) {
      assert.ok(answer.status === "rejected" && answer.reason instanceof PeerSilent, String(answer.status));
    }
  });

  it("by asking for a signature outside of its role, or as a node", async () => {
    const voted = await approve();
    const empty = async function* () {};
    const read = async () => {
      const opened = createClient(SessionService, mesh.transport("node-1", "signing")).exchange(empty());
      for await (const _ of opened) assert.fail("a frame");
    };
    const asFault = (nodeId: string) => (error: unknown) => {
      throw faultFromWire(error, nodeId);
    };
    await assert.rejects(read().catch(asFault("node-1")), code("not-allowed"));

    await cluster.stopNode("node-5");
    const traitor = await cluster.mesh("node-5");
    const sessions = createClient(SessionService, traitor.transport("node-1", "signing"));
    const votes = createClient(ConsensusService, traitor.transport("node-1"));
    const { proposal, certificate } = voted;
    const signers = [1, 2, 3];
    const sessionId = systemRandom.bytes(16);
    const asks = [
      () => sessions.signPayment({ sessionId, proposal, certificate, signers }),
      () =>
        sessions.generateKey({ sessionId, wallet: { walletId: "w", parties: wallet.parties.slice(), threshold: 2 } }),
      () => votes.vote({ proposal }),
      () => votes.notify({ requestId: "x", txid: "y" }),
    ];
    for (const ask of asks) await assert.rejects(ask().catch(asFault("node-1")), code("not-allowed"));
    await traitor.close();
    await cluster.startNode("node-5");
    await mesh.ready(["node-5"], 10_000);
  });

  it("for a bare digest: no call takes one, and no object becomes a sighash by a cast", () => {
    const services = [
      ...[SessionService, ConsensusService, ControlService],
      ...[WalletChangeService, WitnessService, CertificateService],
    ];
    // What a node offers to peers is what is named here, no call more.
    const node = cluster.nodes.get("node-1");
    assert.ok(node instanceof MpcNode);
    const paths = services.flatMap(({ typeName, methods: all }) => all.map(({ name }) => `/${typeName}/${name}`));
    assert.deepEqual([...node.peerCalls].sort(), paths.sort());
    const methods = services.flatMap(({ methods: all }) => all.map(({ localName }) => localName));
    assert.deepEqual(methods, [
      "generateKey",
      "prepareAuxInfo",
      "generateAuxInfo",
      "presign",
      "listPresignatures",
      "signPayment",
      "exchange",
      "vote",
      "notify",
      "ping",
      "getStatus",
      "getWalletChange",
      "checkWalletChange",
      "prepareWalletChange",
      "abandonWalletChange",
      "dropWalletChange",
      "switchWallet",
      "announce",
      "recall",
      "renew",
      "syncRevocations",
    ]);
    assert.deepEqual(
      SignPaymentRequestSchema.fields.map(({ name }) => name),
      ["session_id", "proposal", "certificate", "signers", "presignature_ids", "wallet_epoch"],
    );
    const verdict = checkPayment(samplePayment().facts);
    assert.ok(verdict.approved);
    const [real] = verdict.payment.sighashes;
    assert.ok(real !== undefined && isSighash(real));
    const like = { bytes: real.bytes, inputIndex: 0, key: real.key } as Sighash;
    const cast = Object.setPrototypeOf({ ...like }, Object.getPrototypeOf(real) as object) as Sighash;
    const Constructor = real.constructor as new (issuer: symbol, facts: object) => Sighash;
    assert.equal(isSighash(like), false);
    assert.equal(isSighash(cast), false);
    assert.throws(() => new Constructor(Symbol("payment-check"), like), Bug);
    assert.equal(signingItems(verdict.payment).length, verdict.payment.sighashes.length);
    assert.throws(() => signingItems({ sighashes: [real] } as unknown as CheckedPayment), Bug);
    assert.throws(() => signingItems({ ...verdict.payment, sighashes: [cast] } as unknown as CheckedPayment), Bug);
  });

  it("and every node still signs what is honest, once in a session", async () => {
    const voted = await approve();
    const order = wallet.order(voted, [1, 3, 5]);
    const answers = await wallet.sign(order);
    assert.ok(answers.every(({ status }) => status === "fulfilled"));
    await refused("session-reused", order, ["node-1", "node-3", "node-5"]);
    // The same session for another payment is no way around it.
    await refused("session-reused", { ...wallet.order(await approve(), [1, 3, 5]), sessionId: order.sessionId }, [
      "node-3",
    ]);
    // A node that was started anew knows the same wallet.
    await cluster.stopNode("node-4");
    await cluster.startNode("node-4");
    await mesh.ready(["node-4"], 10_000);
    await approve();
    await wallet.pay(voted, [2, 4, 5]);
    const late = assembleCertificate(voted.ballots);
    // What was paid is spent: a node that checks again refuses.
    await cluster.stopNode("node-1");
    await cluster.startNode("node-1");
    await mesh.ready(["node-1"], 10_000);
    await refused("payment-not-approved", wallet.order({ ...voted, certificate: late }), ["node-1"]);
  });
});
