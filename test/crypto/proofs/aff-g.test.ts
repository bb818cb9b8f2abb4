import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AffGProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../../../src/crypto/ambient.js";
import { Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { Bug } from "../../../src/crypto/fault.js";
import { randomBits } from "../../../src/crypto/modulus.js";
import type { Ciphertext } from "../../../src/crypto/paillier.js";
import * as affG from "../../../src/crypto/proofs/aff-g.js";
import { challengeInteger } from "../../../src/crypto/proofs/context.js";
import { type SecurityProfile, security112 } from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

const g = Point.base;

function instanceOf(profile: SecurityProfile, random: Random, { x, y }: { readonly x: bigint; readonly y: bigint }) {
  const [prover, verifier] = [testParty(profile, 1), testParty(profile, 2)];
  const C = verifier.secret.encrypt(Scalar.random(random), random).ciphertext;
  const summand = verifier.key.encrypt(y, random);
  const own = prover.secret.encrypt(y, random);
  const shared = {
    C,
    D: verifier.key.add(verifier.key.scale(C, x), summand.ciphertext),
    Y: own.ciphertext,
    X: g.times(scalar(x)),
  };
  return {
    proving: { ...shared, key0: verifier.key, key1: prover.secret, setup: verifier.setup },
    verifying: { ...shared, key0: verifier.secret, key1: prover.key, setup: verifier.trapdoor },
    judging: { ...shared, key0: verifier.key, key1: prover.key, setup: verifier.setup },
    witness: { x, y, rho: summand.nonce, rho_y: own.nonce },
  };
}

describeProof({
  name: "aff-g",
  schema: AffGProofSchema,
  instance: (profile, random) =>
    instanceOf(profile, random, { x: Scalar.random(random), y: randomBits(random, profile.ellPrime) }),
  ...affG,
});

/** The prover without its own range checks. */
function proveAnything(
  statement: affG.Statement,
  witness: affG.Witness,
  random: Random,
  commit = (x: bigint, mu: bigint) => statement.setup.commit(x, mu),
): affG.Proof {
  const { key0, key1, C, D, Y, X, setup } = statement;
  const { x, y, rho, rho_y } = witness;
  const [alpha, beta] = [randomBits(random, 768), randomBits(random, 1792)];
  const [r, r_y] = [key0.randomNonce(random), key1.randomNonce(random)];
  const [gamma, delta, m, mu] = [
    setup.randomWideMask(random),
    setup.randomWideMask(random),
    setup.randomMask(random),
    setup.randomMask(random),
  ];
  const A = key0.add(key0.scale(C, alpha), key0.encryptWith(beta, r));
  const B_x = g.times(scalar(alpha));
  const B_y = key1.encryptWith(beta, r_y);
  const [E, S] = [commit(alpha, gamma), commit(x, m)];
  const [F, T] = [commit(beta, delta), commit(y, mu)];
  const e = challengeInteger(contextOf(security112), {
    proof: "aff-g",
    statement: [key0.N, key1.N, C, D, Y, X, setup.item],
    commitments: [S, T, A, B_x, B_y, E, F],
  });
  return {
    ...{ S, T, E, F, A, B_x, B_y, z1: alpha + e * x, z2: beta + e * y, z3: gamma + e * m, z4: delta + e * mu },
    w: key0.maskNonce(r, rho, e, random),
    w_y: key1.maskNonce(r_y, rho_y, e, random),
  };
}

describe("aff-g under attack", () => {
  const context = contextOf(security112);
  const random = seededRandom("aff-g/attack");

  it("rejects a factor or a summand out of range, though every equation holds", () => {
    const cases = [
      { x: 5n, y: 6n, valid: true },
      { x: (1n << 768n) + 1n, y: 6n, valid: false },
      { x: -(1n << 1000n), y: 6n, valid: false },
      { x: 5n, y: (1n << 1792n) + 1n, valid: false },
      { x: 5n, y: -(1n << 1900n), valid: false },
    ];
    for (const { x, y, valid } of cases) {
      const { proving, verifying, witness } = instanceOf(security112, random, { x, y });
      assert.equal(affG.verify(context, verifying, proveAnything(proving, witness, random)), valid);
      if (!valid) assert.throws(() => affG.prove(context, proving, witness, random), Bug);
    }
  });

  it("rejects commitments of 0, which satisfy their equations for every negative e", () => {
    const { proving, verifying, judging, witness } = instanceOf(security112, random, { x: 5n, y: 6n });
    for (let attempt = 0; attempt < 12; attempt++) {
      const proof = proveAnything(proving, witness, random, () => 0n);
      assert.equal(affG.verify(context, verifying, proof), false);
      assert.equal(affG.verify(context, judging, proof), false);
    }
  });

  it("is complete at the ends of the ranges", () => {
    for (const x of [1n, -1n, 1n << 256n, -(1n << 256n)]) {
      for (const y of [0n, 1n << 1280n, -(1n << 1280n)]) {
        const { proving, verifying, judging, witness } = instanceOf(security112, random, { x, y });
        const proof = affG.prove(context, proving, witness, random);
        assert.equal(affG.verify(context, verifying, proof), true);
        assert.equal(affG.verify(context, judging, proof), true);
      }
    }
  });

  it("rejects ciphertexts outside Z*", () => {
    const { proving, verifying, judging, witness } = instanceOf(security112, random, { x: 5n, y: 6n });
    const proof = affG.prove(context, proving, witness, random);
    const { N, NN } = verifying.key0;
    const { p } = testParty(security112, 2).secret;
    for (const value of [0n, N, p, NN + 1n, -1n] as Ciphertext[]) {
      for (const statement of [verifying, judging]) {
        for (const key of ["C", "D", "Y"]) {
          if (key === "Y" && value === p) continue; // a factor of the other modulus is a unit here
          assert.equal(affG.verify(context, { ...statement, [key]: value }, proof), false);
        }
        assert.equal(affG.verify(context, statement, { ...proof, A: value }), false);
        assert.equal(affG.verify(context, statement, { ...proof, B_y: value }), false);
        assert.equal(affG.verify(context, statement, { ...proof, w: value }), false);
        assert.equal(affG.verify(context, statement, { ...proof, w_y: value }), false);
      }
    }
  });

  it("a proof for one pair of keys does not serve the exchanged pair", () => {
    const { proving, judging, witness } = instanceOf(security112, random, { x: 5n, y: 6n });
    const proof = affG.prove(context, proving, witness, random);
    assert.equal(affG.verify(context, { ...judging, key0: judging.key1, key1: judging.key0 }, proof), false);
  });
});
