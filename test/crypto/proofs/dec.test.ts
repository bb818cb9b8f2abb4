import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DecProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../../../src/crypto/ambient.js";
import { Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { Bug } from "../../../src/crypto/fault.js";
import { randomBits } from "../../../src/crypto/modulus.js";
import { challengeBits } from "../../../src/crypto/proofs/context.js";
import * as dec from "../../../src/crypto/proofs/dec.js";
import {
  decRangeBits,
  decResponseBits,
  type SecurityProfile,
  security112,
} from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

const parties = 3;

/** S = G^y for the decryption y of (x ⊙ K) ⊕ D, as the failed-nonce step states it. */
function instanceOf(profile: SecurityProfile, random: Random, y: bigint) {
  const { secret, key } = testParty(profile, 1);
  const [k, x] = [Scalar.random(random), Scalar.random(random)];
  const K = secret.encrypt(k, random).ciphertext;
  const D = secret.encrypt(y - k * x, random).ciphertext;
  const sum = secret.add(secret.scale(K, x), D);
  assert.equal(secret.decrypt(sum), y);
  const G = Point.base.times(Scalar.random(random));
  const shared = { K, X: Point.base.times(x), D, S: G.times(scalar(y)), G, parties };
  return {
    proving: { ...shared, key: secret },
    verifying: { ...shared, key: secret },
    judging: { ...shared, key },
    witness: { x, y, rho: secret.extractNonce(sum) },
  };
}

describeProof({
  name: "dec",
  schema: DecProofSchema,
  slow: true,
  instance: (profile, random) => instanceOf(profile, random, randomBits(random, profile.ellPrime)),
  prove: dec.prove,
  verify: dec.verify,
  encode: (profile, proof) => dec.encode(profile, proof, parties),
  decode: (profile, message) => dec.decode(profile, message, parties),
});

describe("dec under attack", () => {
  const profile = security112;
  const context = contextOf(profile);
  const random = seededRandom("dec/attack");
  const bound = 1n << BigInt(decRangeBits(profile, parties));

  it("is complete at the ends of its range, and refuses to prove beyond", () => {
    for (const y of [-bound, bound]) {
      const { proving, verifying, witness } = instanceOf(profile, random, y);
      assert.equal(dec.verify(context, verifying, dec.prove(context, proving, witness, random)), true);
    }
    for (const y of [-bound - 1n, bound + 1n]) {
      const { proving, witness } = instanceOf(profile, random, y);
      assert.throws(() => dec.prove(context, proving, witness, random), Bug);
    }
  });

  it("rejects S for another representative of the plaintext (y + N), though every equation holds", () => {
    const { proving, verifying, witness } = instanceOf(profile, random, 77n);
    const y = 77n + verifying.key.N;
    const S = proving.G.times(scalar(y));
    const { key, K, X, D, G } = proving;
    const masks = Array.from({ length: profile.binaryRepetitions }, () => {
      const [alpha, beta] = [randomBits(random, 768), randomBits(random, decResponseBits(profile, parties))];
      const r = key.randomNonce(random);
      const A = key.add(key.scale(K, -alpha), key.encryptWith(beta, r));
      return { alpha, beta, r, A, B: G.times(scalar(beta)), C: Point.base.times(scalar(alpha)) };
    });
    const bits = challengeBits(
      context,
      {
        proof: "dec",
        statement: [key.N, K, X, D, S, G, parties],
        commitments: masks.map(({ A, B, C }) => [A, B, C]),
      },
      profile.binaryRepetitions,
    );
    const entries = masks.map(({ alpha, beta, r, A, B, C }, i) => {
      const e = bits[i] === true ? 1n : 0n;
      const nu = (r * (e === 1n ? witness.rho : 1n)) % key.N;
      return { A, B, C, z: alpha + e * witness.x, w: beta + e * y, nu };
    });
    assert.equal(dec.verify(context, { ...verifying, S }, { entries }), false);
  });

  it("rejects a wrong claim about the decryption", () => {
    const { proving, verifying, witness } = instanceOf(profile, random, 77n);
    const S = proving.G.times(scalar(78n));
    const proof = dec.prove(context, { ...proving, S }, { ...witness, y: 78n }, random);
    assert.equal(dec.verify(context, { ...verifying, S }, proof), false);
    assert.equal(dec.verify(context, { ...verifying, parties: 1 }, proof), false);
    assert.equal(dec.verify(context, { ...verifying, parties: 2.5 }, proof), false);
  });
});
