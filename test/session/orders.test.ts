import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { schnorr } from "@noble/curves/secp256k1.js";
import { Scalar } from "../../src/crypto/curve.js";
import { frostSign } from "../../src/protocols/frost/sign.js";
import { outputKey } from "../../src/protocols/frost/taproot.js";
import { keyDigest } from "../../src/protocols/key-share.js";
import { keygen } from "../../src/protocols/keygen.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { outputs, type Run, SeededRandom, simulate } from "./simulation.js";

/** Runs `check` for every seed and says which seed failed. */
function forSeeds(count: number, check: (seed: string) => void): void {
  for (let index = 0; index < count; index++) {
    const seed = `order ${index}`;
    try {
      check(seed);
    } catch (cause) {
      throw new Error(`simulation failed; seed: "${seed}"`, { cause });
    }
  }
}

const keygenRun = {
  protocol: keygen,
  ids: [1, 2, 3],
  pub: { scheme: "frost" as const, threshold: 2, walletId: "wallet" },
  secret: () => undefined,
};

describe("1,000 random delivery orders", () => {
  it("200 key generations agree on the key", () => {
    forSeeds(200, (seed) => {
      const shares = [...outputs(simulate({ ...keygenRun, seed })).values()];
      const digests = new Set(shares.map((share) => Buffer.from(keyDigest(share)).toString("hex")));
      assert.equal(digests.size, 1);
    });
  });

  const shares = outputs(simulate({ ...keygenRun, seed: "orders" }));
  const key = shares.get(partyId(1));
  assert.ok(key !== undefined);
  const signing = (seed: string): Run<Parameters<typeof frostSign.digest>[0], Scalar, readonly Uint8Array[]> => {
    const random = new SeededRandom(`${seed}/message`);
    const items = [{ message: random.bytes(32), bip32Tweak: Scalar.random(random) }];
    return {
      protocol: frostSign,
      ids: [1, 3],
      pub: { key, items, authorization: new Uint8Array(32) },
      secret: (party: PartyId) => shares.get(party)?.secretShare ?? Scalar.zero,
      seed,
    };
  };

  it("800 FROST signings verify", () => {
    forSeeds(800, (seed) => {
      const run = signing(seed);
      const [item] = run.pub.items;
      assert.ok(item !== undefined);
      for (const [signature] of outputs(simulate(run)).values()) {
        assert.ok(schnorr.verify(signature ?? new Uint8Array(), item.message, outputKey(key, item.bip32Tweak).xOnly));
      }
    });
  });

  it("a seed reproduces every byte on the wire", () => {
    const wire = (seed: string) =>
      simulate({ ...keygenRun, seed }).delivered.map(
        ({ from, to, bytes }) => `${from}>${to}:${Buffer.from(bytes).toString("hex")}`,
      );
    assert.deepEqual(wire("reproduce"), wire("reproduce"));
    assert.notDeepEqual(wire("reproduce"), wire("another"));
  });
});
