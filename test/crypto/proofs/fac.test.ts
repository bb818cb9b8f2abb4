import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FacProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { bitLength } from "../../../src/crypto/modulus.js";
import { PaillierKey } from "../../../src/crypto/paillier.js";
import * as fac from "../../../src/crypto/proofs/fac.js";
import { security112 } from "../../../src/crypto/security-profile.js";
import { modulusOfSmallPrimes, modulusWithFactorOf } from "../../fixtures/hostile-moduli.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

describeProof({
  name: "fac",
  schema: FacProofSchema,
  instance: (profile) => {
    const [prover, verifier] = [testParty(profile, 1), testParty(profile, 2)];
    const { p, q } = prover.secret;
    return {
      proving: { key: prover.key, setup: verifier.setup },
      verifying: { key: prover.key, setup: verifier.trapdoor },
      judging: { key: prover.key, setup: verifier.setup },
      witness: { p, q },
    };
  },
  ...fac,
});

describe("fac under attack", () => {
  const context = contextOf(security112);
  const random = seededRandom("fac/attack");
  const { trapdoor, setup } = testParty(security112, 2);

  it("rejects a 256-bit factor and the product of 16 small primes, though every equation holds", () => {
    // In both orders: either response may be the one out of range.
    const splits = [modulusWithFactorOf(256), modulusOfSmallPrimes()];
    for (const [p, q] of [...splits, ...splits.map(([small, large]) => [large, small] as const)]) {
      assert.equal(bitLength(p * q), 2048);
      const key = new PaillierKey(p * q, security112);
      const proof = fac.prove(context, { key, setup }, { p, q }, random);
      assert.equal(fac.verify(context, { key, setup: trapdoor }, proof), false);
      assert.equal(fac.verify(context, { key, setup }, proof), false);
    }
  });

  it("rejects factors that do not multiply to N, and the trivial ones", () => {
    const { key, secret } = testParty(security112, 1);
    for (const [p, q] of [
      [secret.p, secret.q + 2n],
      [1n, secret.N],
      [secret.N, 1n],
      [0n, 0n],
      [-secret.p, secret.q],
    ] as const) {
      const proof = fac.prove(context, { key, setup }, { p, q }, random);
      assert.equal(fac.verify(context, { key, setup: trapdoor }, proof), false);
    }
  });

  it("rejects an all-zero proof, which satisfies every equation for any N when e is negative", () => {
    const [p, q] = modulusWithFactorOf(256);
    const key = new PaillierKey(p * q, security112);
    const zero = { P: 0n, Q: 0n, A: 0n, B: 0n, T: 0n, z1: 1n, z2: 1n, w1: 0n, w2: 0n, v: 0n };
    for (let attempt = 0; attempt < 12; attempt++) {
      const inRound = { ...context, round: `attempt ${attempt}` };
      assert.equal(fac.verify(inRound, { key, setup }, zero), false);
      assert.equal(fac.verify(inRound, { key, setup: trapdoor }, zero), false);
    }
  });
});
