import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { Transaction } from "bitcoinjs-lib";
import { PresignatureSchema } from "../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import type { SessionRunner } from "../../src/node/session-pool.js";
import type { PreparationView, WalletView } from "../../src/wallet/wallet-application.js";
import { PayingFirm } from "./paying-firm.js";
import { testPools } from "./test-coordinator.js";

/** `npm run test:pairs`: all ten pairs of nodes down, one after another, and nothing else. */
const ALL_PAIRS = process.env["ALL_PAIRS"] === "1";
const NODES = [1, 2, 3, 4, 5];
const PAIRS = NODES.flatMap((first) => NODES.filter((second) => second > first).map((second) => [first, second]));
const idOf = (presignature: Uint8Array): string =>
  Buffer.from(fromBinary(PresignatureSchema, presignature).id).toString("hex");
const OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

describe("a SegWit wallet of five nodes pays over QUIC", () => {
  let firm: PayingFirm;
  let wallet: WalletView;
  let available = 0;
  /** What the nodes were asked to run. */
  const jobs: { readonly kind: string; readonly parties: string; readonly uses: readonly string[] }[] = [];
  const observe = (_: string, inner: SessionRunner): SessionRunner => ({
    run: (job, seat, wire) => {
      const uses = job.kind === "cggmp24-sign" ? job.items.map(({ presignature }) => idOf(presignature)) : [];
      jobs.push({ kind: job.kind, parties: seat.parties.map(({ id }) => id).join(), uses });
      return inner.run(job, seat, wire);
    },
    close: () => inner.close(),
  });
  const pay = async (amountSat: bigint) => {
    const sent = await firm.application.sendPaymentAndWait(
      firm.request({ walletId: wallet.walletId, address: OUTSIDE, amountSat }),
    );
    assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
    await firm.mine(1);
    const final = await firm.finalState(sent.paymentId);
    assert.equal(final.phase, "confirmed");
    return final;
  };
  const whenAvailable = async (wanted: number): Promise<void> => {
    const startedMs = performance.now();
    for (available = -1; available < wanted; ) {
      assert.ok(performance.now() - startedMs < 240_000, `only ${available} presignatures`);
      await new Promise((resolve) => setTimeout(resolve, 300));
      ({ available } = await firm.application.poolStatus(wallet.walletId));
    }
  };

  before(async () => {
    // One presignature for each of the ten signing sets.
    firm = await PayingFirm.start({
      pool: {
        ...testPools({ cggmp24: { target: 10, minimum: 10, batch: 2, presignTimeoutMs: 60_000 } }),
        checkIntervalMs: 3_600_000,
      },
      observe,
    });
  });
  after(async () => {
    await firm?.close();
  });

  it("creates a wallet: key, then auxiliary info among all nodes", async () => {
    const startedMs = performance.now();
    const seen: PreparationView[] = [];
    const watch = setInterval(() => {
      void firm.application.health().then(({ preparations }) => seen.push(...preparations));
    }, 100);
    try {
      wallet = await firm.application.createWallet({ name: "segwit", scheme: "cggmp24", threshold: 3, parties: [] });
    } finally {
      clearInterval(watch);
    }
    console.log(`# wallet ${(performance.now() - startedMs).toFixed(0)} ms`);
    assert.equal(wallet.parties.length, 5);
    assert.ok(seen.every(({ name, walletId }) => name === "segwit" && walletId === wallet.walletId));
    const proving = seen.filter(({ phase }) => phase === "auxiliary-info").flatMap(({ nodes }) => nodes);
    for (const nodeId of wallet.parties) {
      const steps = proving.filter((node) => node.nodeId === nodeId && node.of === 4).map(({ done }) => done);
      assert.ok(
        steps.some((step) => step >= 1),
        `${nodeId} was seen at steps ${steps.join()}`,
      );
      assert.deepEqual(steps, steps.toSorted(), "steps only rise");
    }
    assert.deepEqual((await firm.application.health()).preparations, []);
  });

  it("fills the pool", async () => {
    const startedMs = performance.now();
    await whenAvailable(10);
    console.log(`# ${available} presignatures ${(performance.now() - startedMs).toFixed(0)} ms`);
    const { address, scriptPubKey } = await firm.application.newAddress(wallet.walletId);
    assert.match(address, /^bcrt1q/);
    for (let coin = 0; coin < 12; coin++) firm.server.faucet.pay(scriptPubKey, 10_000_000n);
    await firm.mine(1);
  });

  it("pays a payment that the chain's interpreter accepts, with one presignature", { skip: ALL_PAIRS }, async () => {
    const final = await pay(1_000_000n);
    for (const { step, nodeId, durationMs } of final.timeline)
      console.log(`# ${step} ${nodeId} ${durationMs.toFixed(1)} ms`);
    const witness = Transaction.fromBuffer(final.rawTransaction ?? new Uint8Array()).ins[0]?.witness ?? [];
    assert.equal(witness.length, 2);
    assert.equal(witness[0]?.at(-1), Transaction.SIGHASH_ALL);
    const pool = await firm.application.poolStatus(wallet.walletId);
    assert.equal(pool.inUse, 0);
  });

  it("pays with any two nodes down, with the presignature of the other three that waits", async () => {
    await whenAvailable(10);
    const setOf = (pair: readonly number[]): string => NODES.filter((node) => !pair.includes(node)).join();
    for (const pair of ALL_PAIRS ? PAIRS : PAIRS.slice(-1)) {
      const down = pair.map((node) => `node-${node}`);
      for (const nodeId of down) await firm.cluster.stopNode(nodeId);
      const before = jobs.length;
      const signers = setOf(pair)
        .split(",")
        .map((node) => `node-${node}`);
      const ledger = firm.cluster.ledgers.get(signers[0] ?? "");
      const waiting = ledger?.items({ kind: "presignature" }).filter((item) => item.signers.join() === signers.join());
      const startedMs = performance.now();
      await pay(500_000n);
      const ran = jobs.slice(before).filter(({ kind }) => kind === "cggmp24-sign");
      assert.deepEqual(new Set(ran.map(({ parties }) => parties)), new Set([setOf(pair)]));
      // The pool is filled again at once; what signed is what had waited.
      const ids = new Set(ran.flatMap(({ uses }) => uses));
      assert.equal(ids.size, 1);
      assert.ok(
        waiting?.some(({ id }) => ids.has(id)),
        "the presignature was made for this payment",
      );
      console.log(
        `# without ${down.join(" and ")}: signed by ${setOf(pair)}, ${(performance.now() - startedMs).toFixed(0)} ms`,
      );
      for (const nodeId of down) await firm.cluster.startNode(nodeId);
      await whenAvailable(10);
    }
  });
});
