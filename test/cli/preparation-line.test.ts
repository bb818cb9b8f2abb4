import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import {
  GetHealthResponseSchema,
  PreparationPhase,
  WalletPreparationSchema,
} from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { bar, preparationLine, toldWhileMade } from "../../src/cli/preparation-line.js";

const node = (nodeId: string, done: number, tested = 0) => ({ nodeId, done, of: 4, tested });
const primes = { name: "main", phase: PreparationPhase.PRIMES, nodes: [node("node-1", 4, 900), node("node-2", 1, 60)] };

describe("progress of a wallet's creation", () => {
  it("says primes, steps and the key in a line each", () => {
    assert.equal(
      preparationLine(create(WalletPreparationSchema, primes)),
      "primes [############--------] node-1 4/4, node-2 1/4; 960 candidates tested",
    );
    const proving = { phase: PreparationPhase.AUXILIARY_INFO, nodes: [node("node-1", 2), node("node-2", 2)] };
    assert.match(preparationLine(create(WalletPreparationSchema, proving)), /^proofs of the moduli \[#{10}-{10}\] /);
    assert.equal(
      preparationLine(create(WalletPreparationSchema, { phase: PreparationPhase.KEY })),
      "the nodes generate the key",
    );
    assert.deepEqual([bar(0, 0), bar(9, 4)], [`[${"-".repeat(20)}]`, `[${"#".repeat(20)}]`]);
  });

  it("tells of the own wallet only, once for each state, and survives a gateway that does not answer", async () => {
    const answers = [
      [],
      [{ name: "another", phase: PreparationPhase.KEY }],
      [primes],
      [primes],
      undefined,
      [{ ...primes, nodes: [node("node-1", 4), node("node-2", 4)] }],
    ];
    const lines: string[] = [];
    let asked = 0;
    let resolve = (_: string): void => {};
    const made = new Promise<string>((fulfil) => {
      resolve = fulfil;
    });
    const client = {
      getHealth: async () => {
        const preparations = answers[asked++];
        if (asked > answers.length) resolve("made");
        if (preparations === undefined) throw new Error("no answer");
        return create(GetHealthResponseSchema, { preparations });
      },
    };
    const told = { name: "main", intervalMs: 1, tell: (line: string) => void lines.push(line) };
    assert.equal(await toldWhileMade(client, told, () => made), "made");
    assert.deepEqual(
      lines.map((line) => line.slice(0, 29)),
      ["primes [############--------]", "primes [####################]"],
    );
  });
});
