import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AuxInfoBoard } from "../../src/node/aux-info-progress.js";
import { auxInfo } from "../../src/protocols/cggmp24/aux-info.js";

describe("progress of auxiliary info", () => {
  it("counts the steps of the protocol, wallet by wallet, until the end", () => {
    const board = new AuxInfoBoard();
    const one = board.follow("one", auxInfo.rounds);
    const two = board.follow("two", auxInfo.rounds);
    assert.deepEqual(board.running[0], { walletId: "one", step: 0, steps: 4 });
    for (const [round, step] of [
      ["aux-commitment", 1],
      ["aux-opening", 2],
      ["aux-proof", 3],
      ["aux-factor-proof", 3],
      ["echo-disclosure", 3],
      ["aux-confirmation", 4],
    ] as const) {
      one.onRound(round);
      assert.deepEqual(board.running[0], { walletId: "one", step, steps: 4 });
    }
    assert.deepEqual(board.running[1], { walletId: "two", step: 0, steps: 4 });
    one.end();
    assert.deepEqual(
      board.running.map(({ walletId }) => walletId),
      ["two"],
    );
    two.end();
    assert.deepEqual(board.running, []);
  });
});
