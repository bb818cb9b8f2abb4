import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ModProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { invert, jacobi, reduce } from "../../../src/crypto/modulus.js";
import { PaillierKey } from "../../../src/crypto/paillier.js";
import * as mod from "../../../src/crypto/proofs/mod.js";
import { type SecurityProfile, security112 } from "../../../src/crypto/security-profile.js";
import {
  fourPrimes,
  modulusDividingItsOrder,
  modulusOfSmallPrimes,
  modulusWithFactor,
  nonBlumPrimes,
  primeModulus,
  smallPrimes,
} from "../../fixtures/hostile-moduli.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";
import { bestEffort, challenges, combine, fourthRoot, nonresidue, pow } from "./mod-forger.js";
import { contextOf, describeProof } from "./suite.js";

describeProof({
  name: "mod",
  schema: ModProofSchema,
  instance: (profile) => {
    const { key, secret } = testParty(profile, 1);
    return { proving: { key: secret }, verifying: { key }, judging: { key }, witness: { secret } };
  },
  ...mod,
});

const context = contextOf(security112);
const random = seededRandom("mod/attack");

describe("mod under attack", () => {
  it("the textbook prover of the tests passes for an honest modulus", () => {
    const { key, secret } = testParty(security112, 1);
    const { proof, answered } = bestEffort(context, key, [secret.p, secret.q], nonresidue(key.N, random));
    assert.equal(answered, 128);
    assert.equal(mod.verify(context, { key }, proof), true);
  });

  it("rejects non-Blum moduli: one prime or both ≡ 1 mod 4", () => {
    for (const residue of [3n, 5n]) {
      const [p, q] = nonBlumPrimes(residue);
      const key = new PaillierKey(p * q, security112);
      const { proof, answered } = bestEffort(context, key, [p, q], nonresidue(key.N, random));
      assert.ok(answered < 128, `${answered}`);
      assert.equal(mod.verify(context, { key }, proof), false);
    }
  });

  it("rejects 16 small primes times a large one", () => {
    const [product, filler] = modulusOfSmallPrimes();
    const key = new PaillierKey(product * filler, security112);
    const { proof, answered } = bestEffort(context, key, [...smallPrimes(), filler], nonresidue(key.N, random));
    assert.ok(answered < 20, `${answered}`);
    assert.equal(mod.verify(context, { key }, proof), false);
  });

  it("rejects the forgery with w = 0 for four primes, and w that is no unit or of symbol +1", () => {
    const primes = fourPrimes();
    const key = new PaillierKey(
      primes.reduce((left, right) => left * right, 1n),
      security112,
    );
    const [first = 0n] = primes;
    const phi = primes.reduce((left, p) => left * (p - 1n), 1n);
    const nth = invert(key.N, phi) ?? assert.fail("N is coprime to φ(N)");
    for (const w of [0n, key.N, first]) {
      const entries = challenges(context, key, w).map((y) => {
        const z = combine(
          primes.map((p) => pow(y, nth % (p - 1n), p)),
          primes,
        );
        return { x: 0n, a: false, b: true, z }; // 0 = x^4 = w·y
      });
      assert.equal(mod.verify(context, { key }, { w, entries }), false, `w = ${w}`);
    }
    const { key: honest, secret } = testParty(security112, 1);
    for (const w of [1n, 4n, honest.N - 1n, secret.p, 0n, -1n, honest.N]) {
      const { proof } = bestEffort(context, honest, [secret.p, secret.q], w);
      assert.equal(mod.verify(context, { key: honest }, proof), false);
    }
  });

  it("rejects a prime, which satisfies every equation", () => {
    const N = primeModulus();
    const key = new PaillierKey(N, security112);
    const { proof, answered } = bestEffort(context, key, [N], nonresidue(N, random));
    assert.equal(answered, 128);
    assert.equal(mod.verify(context, { key }, proof), false);
  });

  it("rejects 0, 1, 127 and 129 repetitions that are all right", () => {
    const { key, secret } = testParty(security112, 1);
    const { w, entries } = mod.prove(context, { key }, { secret }, random);
    for (const count of [0, 1, 127]) {
      assert.equal(mod.verify(context, { key }, { w, entries: entries.slice(0, count) }), false);
    }
    const y = challenges(context, key, w, 129)[128] ?? 0n;
    const z = secret.extractNonce(y);
    for (const a of [false, true]) {
      for (const b of [false, true]) {
        const x = combine(
          [secret.p, secret.q].map((p) => fourthRoot(reduce((a ? -1n : 1n) * (b ? w : 1n) * y, p), p) ?? 1n),
          [secret.p, secret.q],
        );
        assert.equal(mod.verify(context, { key }, { w, entries: [...entries, { x, a, b, z }] }), false);
      }
    }
    assert.equal(mod.verify(context, { key }, { w, entries }), true);
  });

  it("rejects a modulus that shares a prime with its order, where only the roots are missing", () => {
    const [p, q] = modulusDividingItsOrder();
    const key = new PaillierKey(p * q, security112);
    const { proof, answered } = bestEffort(context, key, [p, q], nonresidue(key.N, random));
    assert.equal(answered, 128);
    assert.equal(mod.verify(context, { key }, proof), false);
  });

  it("rejects a factor below 2^16 though every equation holds, and takes one above", () => {
    for (const { p, holds } of [
      { p: 65_519n, holds: false },
      { p: 65_539n, holds: true },
    ]) {
      const [small, q] = modulusWithFactor(p);
      const key = new PaillierKey(small * q, security112);
      const { proof, answered } = bestEffort(context, key, [small, q], nonresidue(key.N, random));
      assert.equal(answered, 128);
      assert.equal(mod.verify(context, { key }, proof), holds, `${p}`);
    }
  });

  it("rejects one wrong root, wherever it stands", () => {
    const { key, secret } = testParty(security112, 1);
    const { w, entries } = mod.prove(context, { key }, { secret }, random);
    for (const at of [0, 15, 16, 31, 32, 63, 79, 95, 111, 112, 127]) {
      for (const wrong of [(z: bigint) => key.N - z, (z: bigint) => (z * 2n) % key.N]) {
        const changed = entries.map((entry, i) => (i === at ? { ...entry, z: wrong(entry.z) } : entry));
        assert.equal(mod.verify(context, { key }, { w, entries: changed }), false, `${at}`);
      }
    }
  });

  it("rejects x and z out of Z*_N or not canonical", () => {
    const { key, secret } = testParty(security112, 1);
    const proof = mod.prove(context, { key }, { secret }, random);
    const [first, ...rest] = proof.entries;
    if (first === undefined) throw new Error("no entries");
    for (const change of [{ x: first.x + key.N }, { z: first.z + key.N }, { x: 0n }, { z: 0n }, { z: -first.z }]) {
      assert.equal(mod.verify(context, { key }, { ...proof, entries: [{ ...first, ...change }, ...rest] }), false);
    }
  });

  it("rejects w of symbol +1 or 0 although every equation holds (PAPER.md: once in 2^128 at 128 repetitions)", () => {
    // With few repetitions whoever chooses the session finds one in which no y needs such a w: b = 0 everywhere.
    const profile: SecurityProfile = { ...security112, repetitions: 4 };
    const { secret } = testParty(security112, 1);
    const key = new PaillierKey(secret.N, profile);
    for (const w of [4n, secret.N - 4n, 2n * secret.p]) {
      assert.notEqual(jacobi(w, key.N), -1);
      const found = range(400)
        .map((attempt) => ({ ...context, profile, round: `attempt ${attempt}` }))
        .find((one) => challenges(one, key, w).every((y) => jacobi(y, key.N) === 1));
      assert.ok(found !== undefined);
      const { proof, answered } = bestEffort(found, key, [secret.p, secret.q], w);
      assert.equal(answered, 4);
      assert.ok(proof.entries.every(({ b }) => !b));
      assert.equal(mod.verify(found, { key }, proof), false);
    }
    // The same forger with a proper w passes in the same small profile.
    const one = { ...context, profile };
    const { proof } = bestEffort(one, key, [secret.p, secret.q], nonresidue(key.N, random));
    assert.equal(mod.verify(one, { key }, proof), true);
  });
});

const range = (count: number): readonly number[] => Array.from({ length: count }, (_, index) => index);
