import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DecProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../../../src/crypto/ambient.js";
import { Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { Bug } from "../../../src/crypto/fault.js";
import { randomBits } from "../../../src/crypto/modulus.js";
import { PaillierKey, PaillierSecret } from "../../../src/crypto/paillier.js";
import { challengeBits } from "../../../src/crypto/proofs/context.js";
import * as dec from "../../../src/crypto/proofs/dec.js";
import {
  decRangeBits,
  decResponseBits,
  type SecurityProfile,
  security112,
} from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty, testPrimes } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

const g = Point.base;
const parties = 3;

/** A few of the 256 repetitions, with numbers of full size; a profile of this file only. */
const few: SecurityProfile = { ...security112, binaryRepetitions: 8 };
const { p, q } = testPrimes(few, 1).paillier;
const secretOfFew = new PaillierSecret(p, q, few);
const partyOfFew = { secret: secretOfFew, key: new PaillierKey(secretOfFew.N, few) };

/** S = G^y for the decryption y of (x ⊙ K) ⊕ D, as the failed-nonce step states it. */
function instanceOf(profile: SecurityProfile, random: Random, y: bigint, x: bigint = Scalar.random(random)) {
  const { secret, key } = profile === few ? partyOfFew : testParty(profile, 1);
  const k = Scalar.random(random);
  const K = secret.encrypt(k, random).ciphertext;
  const D = secret.encrypt(y - k * x, random).ciphertext;
  const sum = secret.add(secret.scale(K, x), D);
  assert.equal(secret.decrypt(sum), y);
  const G = Point.base.times(Scalar.random(random));
  const shared = { K, X: g.times(scalar(x)), D, S: G.times(scalar(y)), G, parties };
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

/** The prover without its own range checks, with masks as it likes. */
function proveAnything(
  { key, K, X, D, S, G }: dec.Statement,
  { x, y, rho }: dec.Witness,
  { random, mask }: { readonly random: Random; mask(): { readonly alpha: bigint; readonly beta: bigint } },
): { readonly proof: dec.Proof; readonly bits: readonly boolean[] } {
  const masks = Array.from({ length: few.binaryRepetitions }, () => {
    const { alpha, beta } = mask();
    const r = key.randomNonce(random);
    const A = key.add(key.scale(K, -alpha), key.encryptWith(beta, r));
    return { alpha, beta, r, A, B: G.times(scalar(beta)), C: g.times(scalar(alpha)) };
  });
  const bits = challengeBits(
    contextOf(few),
    {
      proof: "dec",
      statement: [key.N, K, X, D, S, G, parties],
      commitments: masks.map(({ A, B, C }) => [A, B, C]),
    },
    few.binaryRepetitions,
  );
  const entries = masks.map(({ alpha, beta, r, A, B, C }, i) => {
    const e = bits[i] === true ? 1n : 0n;
    return { A, B, C, z: alpha + e * x, w: beta + e * y, nu: (r * (e === 1n ? rho : 1n)) % key.N };
  });
  return { proof: { entries }, bits };
}

/** The three equations of Fig. 28 for every repetition, and nothing else. */
function equationsHold(
  { key, K, X, D, S, G }: dec.Statement,
  { entries }: dec.Proof,
  bits: readonly boolean[],
): boolean {
  return entries.every(({ A, B, C, z, w, nu }, i) => {
    const e = bits[i] === true ? 1n : 0n;
    return (
      g.times(scalar(z)).equals(C.plus(X.times(scalar(e)))) &&
      G.times(scalar(w)).equals(B.plus(S.times(scalar(e)))) &&
      key.encryptWith(w, nu) === key.add(key.add(A, key.scale(D, e)), key.scale(K, z))
    );
  });
}

describe("dec under attack", () => {
  const profile = security112;
  const context = contextOf(profile);
  const random = seededRandom("dec/attack");
  const bound = 1n << BigInt(decRangeBits(profile, parties));
  // Where z and w must lie.
  const factorBound = 1n << 768n;
  const plaintextBound = 1n << BigInt(decResponseBits(profile, parties));
  const ordinary = () => ({
    alpha: randomBits(random, 768),
    beta: randomBits(random, decResponseBits(profile, parties)),
  });

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
    const { proving, verifying, witness } = instanceOf(few, random, 77n);
    const y = 77n + verifying.key.N;
    const S = proving.G.times(scalar(y));
    const { proof, bits } = proveAnything({ ...proving, S }, { ...witness, y }, { random, mask: ordinary });
    assert.ok(equationsHold({ ...verifying, S }, proof, bits));
    assert.equal(dec.verify(contextOf(few), { ...verifying, S }, proof), false);
  });

  it("rejects a factor out of range, by nothing but its range: every equation holds", () => {
    for (const { x, valid } of [
      { x: 5n, valid: true },
      { x: factorBound + 1n, valid: false },
      { x: -factorBound - 1n - (1n << 768n), valid: false },
      { x: 1n << 1000n, valid: false },
    ]) {
      const { proving, judging, witness } = instanceOf(few, random, 77n, x);
      const { proof, bits } = proveAnything(proving, witness, { random, mask: ordinary });
      assert.ok(equationsHold(judging, proof, bits));
      assert.equal(dec.verify(contextOf(few), judging, proof), valid, `${x}`);
      if (!valid) assert.throws(() => dec.prove(contextOf(few), proving, witness, random), Bug);
    }
  });

  it("takes responses at both ends of their ranges, and none beyond", () => {
    const [x, y] = [5n, 77n];
    const { proving, judging, witness } = instanceOf(few, random, y, x);
    const top = { alpha: factorBound - x, beta: plaintextBound - y };
    const bottom = { alpha: -factorBound, beta: -plaintextBound };
    for (const { alpha, beta, valid } of [
      { ...top, valid: true },
      { ...bottom, valid: true },
      { ...top, alpha: top.alpha + 1n, valid: false },
      { ...top, beta: top.beta + 1n, valid: false },
      { ...bottom, alpha: bottom.alpha - 1n, valid: false },
      { ...bottom, beta: bottom.beta - 1n, valid: false },
    ]) {
      const { proof, bits } = proveAnything(proving, witness, { random, mask: () => ({ alpha, beta }) });
      assert.ok(bits.includes(true) && bits.includes(false), "both answers are asked for");
      assert.ok(equationsHold(judging, proof, bits));
      assert.deepEqual(dec.decode(few, dec.encode(few, proof, parties), parties), proof);
      assert.equal(dec.verify(contextOf(few), judging, proof), valid);
    }
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
