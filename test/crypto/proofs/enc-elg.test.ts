import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EncElgProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../../../src/crypto/ambient.js";
import { Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { Bug } from "../../../src/crypto/fault.js";
import { randomBits } from "../../../src/crypto/modulus.js";
import type { Ciphertext } from "../../../src/crypto/paillier.js";
import { challengeInteger } from "../../../src/crypto/proofs/context.js";
import * as encElg from "../../../src/crypto/proofs/enc-elg.js";
import { type SecurityProfile, security112 } from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

const g = Point.base;

/** The statement about any plaintext x, which for an honest party is in ±2^ℓ. */
function instanceOf(profile: SecurityProfile, random: Random, x: bigint) {
  const [prover, verifier] = [testParty(profile, 1), testParty(profile, 2)];
  const b = Scalar.random(random);
  const A = g.times(Scalar.random(random));
  const { ciphertext: C, nonce: rho } = prover.secret.encrypt(x, random);
  const shared = { C, A, B: g.times(b), X: A.times(b).plus(g.times(scalar(x))) };
  return {
    proving: { ...shared, key: prover.secret, setup: verifier.setup },
    verifying: { ...shared, key: prover.key, setup: verifier.trapdoor },
    judging: { ...shared, key: prover.key, setup: verifier.setup },
    witness: { x, rho, b },
  };
}

describeProof({
  name: "enc-elg",
  schema: EncElgProofSchema,
  instance: (profile, random) => instanceOf(profile, random, Scalar.random(random)),
  ...encElg,
});

/** The prover without its own range check, and with masks as long as it likes. */
function proveAnything(
  profile: SecurityProfile,
  statement: encElg.Statement,
  { x, rho, b }: encElg.Witness,
  { random, maskBits, zero = false }: { readonly random: Random; readonly maskBits: number; readonly zero?: boolean },
): encElg.Proof {
  const { key, A, setup, C, B, X } = statement;
  const [mu, gamma] = [setup.randomMask(random), setup.randomWideMask(random)];
  const [alpha, beta, r] = [randomBits(random, maskBits), Scalar.random(random), key.randomNonce(random)];
  const S = zero ? 0n : setup.commit(x, mu);
  const D = key.encryptWith(alpha, r);
  const Y = A.times(beta).plus(g.times(scalar(alpha)));
  const Z = g.times(beta);
  const T = zero ? 0n : setup.commit(alpha, gamma);
  const e = challengeInteger(contextOf(profile), {
    proof: "enc-elg",
    statement: [key.N, C, A, B, X, setup.item],
    commitments: [S, D, Y, Z, T],
  });
  const z2 = key.maskNonce(r, rho, e, random);
  return { S, T, D, Y, Z, z1: alpha + e * x, w: scalar(beta + e * b), z2, z3: gamma + e * mu };
}

describe("enc-elg under attack", () => {
  const profile = security112;
  const context = contextOf(profile);
  const random = seededRandom("enc-elg/attack");

  it("rejects plaintexts out of range (α-rays), though every equation holds", () => {
    const small = instanceOf(profile, random, 5n);
    const honest = proveAnything(profile, small.proving, small.witness, { random, maskBits: 768 });
    assert.equal(encElg.verify(context, small.verifying, honest), true);
    for (const x of [(1n << 768n) + 1n, -(1n << 768n) - 1n, 1n << 1500n, (1n << 2046n) - 1n]) {
      const { proving, verifying, witness } = instanceOf(profile, random, x);
      const proof = proveAnything(profile, proving, witness, { random, maskBits: 768 });
      assert.equal(encElg.verify(context, verifying, proof), false);
    }
    const longMask = proveAnything(profile, small.proving, small.witness, { random, maskBits: 800 });
    assert.equal(encElg.verify(context, small.verifying, longMask), false);
  });

  it("rejects S = T = 0, which satisfies the commitment's equation for every negative e", () => {
    const { proving, verifying, judging, witness } = instanceOf(profile, random, 5n);
    for (let attempt = 0; attempt < 12; attempt++) {
      const proof = proveAnything(profile, proving, witness, { random, maskBits: 768, zero: true });
      assert.equal(encElg.verify(context, verifying, proof), false);
      assert.equal(encElg.verify(context, judging, proof), false);
    }
  });

  it("refuses to prove a witness out of range", () => {
    for (const x of [(1n << 256n) + 1n, -(1n << 256n) - 1n]) {
      const { proving, witness } = instanceOf(profile, random, x);
      assert.throws(() => encElg.prove(context, proving, witness, random), Bug);
    }
  });

  it("is complete at the ends of ±2^ℓ and at 0", () => {
    for (const x of [0n, 1n, -1n, 1n << 256n, -(1n << 256n)]) {
      const { proving, verifying, judging, witness } = instanceOf(profile, random, x);
      const proof = encElg.prove(context, proving, witness, random);
      assert.equal(encElg.verify(context, verifying, proof), true);
      assert.equal(encElg.verify(context, judging, proof), true);
    }
  });

  it("rejects ciphertexts outside Z*, whoever looks", () => {
    const { proving, verifying, judging, witness } = instanceOf(profile, random, 5n);
    const proof = encElg.prove(context, proving, witness, random);
    const { N, NN } = proving.key;
    const { p } = testParty(profile, 1).secret;
    for (const C of [0n, N, NN, p * 12345n, -1n, proving.C + NN] as Ciphertext[]) {
      for (const statement of [verifying, judging, proving]) {
        assert.equal(encElg.verify(context, { ...statement, C }, proof), false);
        assert.equal(encElg.verify(context, statement, { ...proof, D: C }), false);
      }
    }
    for (const z2 of [0n, N, p, -1n, proof.z2 + N]) {
      assert.equal(encElg.verify(context, judging, { ...proof, z2 }), false);
    }
    const hatP = testParty(profile, 2).trapdoor.p;
    for (const S of [0n, hatP, judging.setup.N, proof.S + judging.setup.N, -1n]) {
      for (const statement of [verifying, judging]) {
        assert.equal(encElg.verify(context, statement, { ...proof, S }), false);
        assert.equal(encElg.verify(context, statement, { ...proof, T: S }), false);
      }
    }
  });

  it("an all-zero proof about an all-zero statement is rejected", () => {
    const { judging } = instanceOf(profile, random, 5n);
    const zero = { S: 0n, T: 0n, D: 0n, Y: g, Z: g, z1: 0n, w: Scalar.zero, z2: 0n, z3: 0n };
    assert.equal(encElg.verify(context, { ...judging, C: 0n as Ciphertext }, zero), false);
  });
});
