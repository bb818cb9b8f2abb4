import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PrmProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { randomBelow, reduce } from "../../../src/crypto/modulus.js";
import { challengeBits } from "../../../src/crypto/proofs/context.js";
import * as prm from "../../../src/crypto/proofs/prm.js";
import { RingPedersenSetup } from "../../../src/crypto/ring-pedersen.js";
import { security112 } from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

describeProof({
  name: "prm",
  schema: PrmProofSchema,
  instance: (profile) => {
    const { setup, trapdoor } = testParty(profile, 1);
    return { proving: { setup: trapdoor }, verifying: { setup }, judging: { setup }, witness: { trapdoor } };
  },
  ...prm,
});

const context = contextOf(security112);
const random = seededRandom("prm/attack");
const { trapdoor, setup } = testParty(security112, 1);

/** The prover with any number of repetitions, and with a guess of the challenge for an s outside the group. */
function proveWith(of: RingPedersenSetup, { count, guess }: { readonly count: number; readonly guess?: boolean }) {
  const { t, phi, lambda } = trapdoor;
  const a = Array.from({ length: count }, () => randomBelow(random, phi));
  const A = a.map((a_i) => {
    const power = trapdoor.power(t, a_i);
    return guess === true ? of.times(power, of.power(of.s, -1n)) : power; // A = t^a s^-1 answers e = 1 with z = a
  });
  const bits = challengeBits(context, { proof: "prm", statement: [of.item], commitments: [A] }, 128);
  const entries = a.map((a_i, i) => {
    const e = bits[i] === true;
    return { A: A[i] ?? 0n, z: guess === undefined && e ? reduce(a_i + lambda, phi) : a_i };
  });
  return { entries, guessed: bits.slice(0, count).every((bit) => bit === guess) };
}

describe("prm under attack", () => {
  it("rejects an s outside the group of t: off by -1, or a non-residue", () => {
    for (const s of [setup.N - setup.s, nonResidue()]) {
      const hostile = new RingPedersenSetup({ N: setup.N, s, t: setup.t }, security112);
      for (let attempt = 0; attempt < 3; attempt++) {
        assert.equal(prm.verify(context, { setup: hostile }, proveWith(hostile, { count: 128 })), false);
      }
      for (const guess of [false, true]) {
        assert.equal(prm.verify(context, { setup: hostile }, proveWith(hostile, { count: 128, guess })), false);
      }
    }
  });

  it("rejects 0, 1 and 127 repetitions whose challenge was guessed right, and 129", () => {
    const hostile = new RingPedersenSetup({ N: setup.N, s: setup.N - setup.s, t: setup.t }, security112);
    assert.equal(prm.verify(context, { setup: hostile }, { entries: [] }), false);
    let single = proveWith(hostile, { count: 1, guess: true });
    while (!single.guessed) single = proveWith(hostile, { count: 1, guess: true });
    assert.equal(prm.verify(context, { setup: hostile }, single), false);
    for (const count of [127, 129]) {
      assert.equal(prm.verify(context, { setup }, proveWith(setup, { count })), false);
    }
    assert.equal(prm.verify(context, { setup }, proveWith(setup, { count: 128 })), true);
  });

  it("rejects responses that are not canonical", () => {
    const { entries } = prm.prove(context, { setup }, { trapdoor }, random);
    const [first, ...rest] = entries;
    if (first === undefined) throw new Error("no entries");
    const order = trapdoor.phi;
    for (const change of [{ z: first.z + order }, { z: first.z - order }, { A: first.A + setup.N }, { A: 0n }]) {
      assert.equal(
        prm.verify(context, { setup }, { entries: [{ ...first, ...change }, ...rest] }),
        change.z !== undefined && change.z >= 0n && change.z < setup.N,
      );
    }
  });
});

/** s with Jacobi symbol +1 that is no square: in no group of a square t. */
function nonResidue(): bigint {
  return trapdoor.N - trapdoor.power(trapdoor.t, 12345n);
}
