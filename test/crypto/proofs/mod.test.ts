import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ModProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { invert, jacobi, Modulus, randomUnit, reduce } from "../../../src/crypto/modulus.js";
import { PaillierKey } from "../../../src/crypto/paillier.js";
import { challengeResidues } from "../../../src/crypto/proofs/context.js";
import * as mod from "../../../src/crypto/proofs/mod.js";
import { security112 } from "../../../src/crypto/security-profile.js";
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

const challenges = (key: PaillierKey, w: bigint, count = 128) =>
  challengeResidues(context, { proof: "mod", statement: [key.N], commitments: [w] }, { count, bound: key.N });

const pow = (base: bigint, exponent: bigint, m: bigint): bigint => Modulus.of(m).pow(base, exponent);

/** Chinese remainders of several moduli, textbook. */
function combine(residues: readonly bigint[], primes: readonly bigint[]): bigint {
  const product = primes.reduce((left, right) => left * right, 1n);
  const terms = primes.map((p, i) => (residues[i] ?? 0n) * (product / p) * (invert(product / p, p) ?? 0n));
  return reduce(
    terms.reduce((left, right) => left + right, 0n),
    product,
  );
}

/** A fourth root of y modulo a prime p ≢ 1 mod 8, or undefined. */
function fourthRoot(y: bigint, p: bigint): bigint | undefined {
  const squareRoot = (value: bigint): bigint | undefined => {
    if (p % 4n === 3n) {
      const root = pow(value, (p + 1n) / 4n, p);
      return pow(root, 2n, p) === reduce(value, p) ? root : undefined;
    }
    const half = pow(value, (p + 3n) / 8n, p); // p ≡ 5 mod 8
    for (const root of [half, (half * pow(2n, (p - 1n) / 4n, p)) % p]) {
      if (pow(root, 2n, p) === reduce(value, p)) return root;
    }
    return undefined;
  };
  const root = squareRoot(y);
  if (root === undefined) return undefined;
  return squareRoot(root) ?? squareRoot(p - root);
}

/** The best that someone who knows all factors can do: the true answer wherever there is one. */
function bestEffort(key: PaillierKey, primes: readonly bigint[], w: bigint) {
  const phi = primes.reduce((left, p) => left * (p - 1n), 1n);
  const nth = invert(key.N, phi);
  let answered = 0;
  const right = (a: boolean, b: boolean, y: bigint) => (a ? -1n : 1n) * (b ? w : 1n) * y;
  const entries = challenges(key, w).map((y) => {
    const z =
      nth === undefined
        ? 1n
        : combine(
            primes.map((p) => pow(y, nth % (p - 1n), p)),
            primes,
          );
    for (const a of [false, true]) {
      for (const b of [false, true]) {
        const roots = primes.map((p) => fourthRoot(reduce(right(a, b, y), p), p));
        if (roots.includes(undefined)) continue;
        answered++;
        return {
          x: combine(
            roots.map((root) => root ?? 0n),
            primes,
          ),
          a,
          b,
          z,
        };
      }
    }
    return { x: 1n, a: false, b: false, z };
  });
  return { proof: { w, entries }, answered };
}

function nonresidue(N: bigint): bigint {
  let w = randomUnit(random, N);
  while (jacobi(w, N) !== -1) w = randomUnit(random, N);
  return w;
}

describe("mod under attack", () => {
  it("the textbook prover of the tests passes for an honest modulus", () => {
    const { key, secret } = testParty(security112, 1);
    const { proof, answered } = bestEffort(key, [secret.p, secret.q], nonresidue(key.N));
    assert.equal(answered, 128);
    assert.equal(mod.verify(context, { key }, proof), true);
  });

  it("rejects non-Blum moduli: one prime or both ≡ 1 mod 4", () => {
    for (const residue of [3n, 5n]) {
      const [p, q] = nonBlumPrimes(residue);
      const key = new PaillierKey(p * q, security112);
      const { proof, answered } = bestEffort(key, [p, q], nonresidue(key.N));
      assert.ok(answered < 128, `${answered}`);
      assert.equal(mod.verify(context, { key }, proof), false);
    }
  });

  it("rejects 16 small primes times a large one", () => {
    const [product, filler] = modulusOfSmallPrimes();
    const key = new PaillierKey(product * filler, security112);
    const { proof, answered } = bestEffort(key, [...smallPrimes(), filler], nonresidue(key.N));
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
      const entries = challenges(key, w).map((y) => {
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
      const { proof } = bestEffort(honest, [secret.p, secret.q], w);
      assert.equal(mod.verify(context, { key: honest }, proof), false);
    }
  });

  it("rejects a prime, which satisfies every equation", () => {
    const N = primeModulus();
    const key = new PaillierKey(N, security112);
    const { proof, answered } = bestEffort(key, [N], nonresidue(N));
    assert.equal(answered, 128);
    assert.equal(mod.verify(context, { key }, proof), false);
  });

  it("rejects 0, 1, 127 and 129 repetitions that are all right", () => {
    const { key, secret } = testParty(security112, 1);
    const { w, entries } = mod.prove(context, { key }, { secret }, random);
    for (const count of [0, 1, 127]) {
      assert.equal(mod.verify(context, { key }, { w, entries: entries.slice(0, count) }), false);
    }
    const y = challenges(key, w, 129)[128] ?? 0n;
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
    const { proof, answered } = bestEffort(key, [p, q], nonresidue(key.N));
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
      const { proof, answered } = bestEffort(key, [small, q], nonresidue(key.N));
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
});
