// The kernel's arithmetic against bn.js, which computes with 26-bit words in plain JavaScript: neither OpenSSL nor the
// runtime's BigInt, which the kernel itself uses, has a part in what it says.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { describe, it } from "node:test";
import { FixedBase } from "../../src/crypto/fixed-base.js";
import { gcd, invert, Modulus, Remainders, randomBelow, randomBits, reduce } from "../../src/crypto/modulus.js";
import { security112, security128 } from "../../src/crypto/security-profile.js";
import { seededRandom, testPrimes } from "../fixtures/parties.js";

/** The part of bn.js that is used; the package brings no types. */
interface Big {
  umod(m: Big): Big;
  mul(by: Big): Big;
  gcd(other: Big): Big;
  invm(m: Big): Big;
  toRed(context: unknown): Big;
  redPow(exponent: Big): Big;
  fromRed(): Big;
  toString(radix: number): string;
}
const BN = createRequire(import.meta.url)("bn.js") as {
  new (hex: string, radix: number): Big;
  red(m: Big): unknown;
};

const big = (value: bigint): Big => new BN(value.toString(16), 16);
const back = (value: Big): bigint => BigInt(`0x${value.toString(16)}`);
const random = seededRandom("third arithmetic");
const oddModulus = (bits: number): bigint => (1n << BigInt(bits - 1)) | randomBits(random, bits - 1) | 1n;
const powerOf = (base: bigint, exponent: bigint, m: bigint): bigint =>
  back(
    big(base)
      .toRed(BN.red(big(m)))
      .redPow(big(exponent))
      .fromRed(),
  );

describe("the integer kernel and a third implementation", () => {
  it("agree in 10,000 random cases of products, remainders, divisors, inverses and powers", () => {
    for (let round = 0; round < 100; round++) {
      const bits = 512 + (round % 17) * 16;
      const m = oddModulus(bits);
      const modulus = Modulus.of(m);
      for (let index = 0; index < 100; index++) {
        const [a, b] = [randomBelow(random, m), randomBelow(random, m)];
        const wide = randomBits(random, 2 * bits) * (index % 2 === 0 ? 1n : -1n);
        assert.equal(modulus.times(a, b), back(big(a).mul(big(b)).umod(big(m))));
        assert.equal(reduce(wide, m), back(big(wide).umod(big(m))));
        const exponent = randomBits(random, 1 + ((round + index) % 32));
        assert.equal(modulus.pow(a, exponent), powerOf(a, exponent, m), `${a} ^ ${exponent} mod ${m}`);
        if (index % 4 > 0) continue;
        const divisor = gcd(a, m);
        assert.equal(divisor, back(big(a).gcd(big(m))));
        if (divisor === 1n) assert.equal(invert(a, m), back(big(a).invm(big(m))));
      }
    }
  });

  it("agree at the edges: 0, 1, -1, and exponents around them", () => {
    for (const bits of [512, 1_024, 2_048]) {
      const m = oddModulus(bits);
      const modulus = Modulus.of(m);
      for (const base of [0n, 1n, 2n, m - 2n, m - 1n]) {
        for (const exponent of [0n, 1n, 2n, 3n, m - 1n, m]) {
          assert.equal(modulus.pow(base, exponent), powerOf(base, exponent, m), `${base} ^ ${exponent}`);
        }
      }
    }
  });

  for (const profile of [security112, security128]) {
    it(`agree on powers, comb powers and remainders of the moduli of ${profile.name}`, () => {
      const { paillier, ringPedersen } = testPrimes(profile, 1);
      const N = paillier.p * paillier.q;
      for (const m of [paillier.p, N, ringPedersen.p * ringPedersen.q, N * N]) {
        const [base, exponent] = [randomBelow(random, m), randomBits(random, 512)];
        assert.equal(Modulus.of(m).pow(base, exponent), powerOf(base, exponent, m));
        assert.equal(Modulus.of(m).powPublic(base, exponent), powerOf(base, exponent, m));
      }
      const t = randomBelow(random, N);
      const z = randomBits(random, 1_024);
      assert.equal(new FixedBase(t, N, profile.modulusBits).pow(z), powerOf(t, z, N));
      const x = randomBelow(random, N);
      assert.equal(new Remainders(paillier.p, paillier.q).combine(x % paillier.p, x % paillier.q), x);
    });
  }
});
