import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeerSilent } from "../../src/crypto/fault.js";
import type { PresigningProgress } from "../../src/wallet/peer-presigning.js";
import { WalletPreparations } from "../../src/wallet/wallet-preparation.js";
import { ManualClock } from "../storage/manual-clock.js";

const wallet = { walletId: "w", name: "main", parties: ["node-1", "node-2"] };

function start(ask: (nodeId: string, signal: AbortSignal) => Promise<PresigningProgress>) {
  const clock = new ManualClock();
  const asked: string[] = [];
  const preparations = new WalletPreparations({
    ask: (nodeId, signal) => {
      asked.push(nodeId);
      return ask(nodeId, signal);
    },
    clock,
  });
  return { clock, asked, preparations };
}

describe("preparation of a wallet", () => {
  it("shows each phase with what the nodes said last in it", async () => {
    let found = 1;
    let step = 0;
    const { clock, preparations } = start(async (nodeId) => ({
      primes: nodeId === "node-1" ? { ready: 1, found: 2, tested: 640 } : { ready: 0, found, tested: 64 },
      auxInfo: [
        { walletId: "another", step: 4, steps: 4 },
        { walletId: "w", step, steps: 4 },
      ],
    }));
    const progress = preparations.follow(wallet);
    const shown = { walletId: "w", name: "main" };
    assert.deepEqual(preparations.running, [{ ...shown, phase: "key", nodes: [] }]);
    progress.enter("primes");
    await clock.advance(0);
    const first = { nodeId: "node-1", done: 4, of: 4, tested: 640 };
    assert.deepEqual(preparations.running, [
      { ...shown, phase: "primes", nodes: [first, { nodeId: "node-2", done: 1, of: 4, tested: 64 }] },
    ]);
    found = 3;
    await clock.advance(1_000);
    assert.deepEqual(
      preparations.running.map(({ nodes }) => nodes.map(({ done }) => done)),
      [[4, 3]],
    );
    progress.enter("auxiliary-info");
    assert.deepEqual(preparations.running, [{ ...shown, phase: "auxiliary-info", nodes: [] }]);
    step = 2;
    await clock.advance(1_000);
    const second = { done: 2, of: 4, tested: 0 };
    assert.deepEqual(preparations.running[0]?.nodes, [
      { nodeId: "node-1", ...second },
      { nodeId: "node-2", ...second },
    ]);
    progress.end();
    assert.deepEqual(preparations.running, []);
  });

  it("keeps what a node said before it fell silent, and asks nobody before primes or after the end", async () => {
    let silent = false;
    const { clock, asked, preparations } = start(async (nodeId, signal) => {
      if (silent && nodeId === "node-1") throw new PeerSilent("silent", "this node is down", [nodeId]);
      if (silent) await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      return { primes: { ready: 0, found: 2, tested: 7 }, auxInfo: [] };
    });
    const progress = preparations.follow(wallet);
    await clock.advance(5_000);
    assert.deepEqual(asked, []);
    progress.enter("primes");
    await clock.advance(0);
    silent = true;
    await clock.advance(10_000);
    assert.deepEqual(
      preparations.running[0]?.nodes.map(({ done }) => done),
      [2, 2],
    );
    assert.ok(asked.filter((nodeId) => nodeId === "node-2").length >= 3, "a call that hangs is given up");
    progress.end();
    await clock.advance(1_000);
    const calls = asked.length;
    await clock.advance(60_000);
    assert.equal(asked.length, calls);
  });

  it("drops an answer that comes after the phase that it was asked in", async () => {
    const answers: ((progress: PresigningProgress) => void)[] = [];
    const { clock, preparations } = start(() => new Promise((resolve) => answers.push(resolve)));
    const progress = preparations.follow(wallet);
    progress.enter("primes");
    await clock.advance(0);
    progress.enter("auxiliary-info");
    for (const answer of answers.splice(0)) answer({ primes: { ready: 1, found: 0, tested: 0 }, auxInfo: [] });
    await clock.advance(0);
    assert.deepEqual(preparations.running[0]?.nodes, []);
    progress.end();
  });
});
