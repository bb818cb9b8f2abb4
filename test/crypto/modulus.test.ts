import assert from "node:assert/strict";
import { checkPrimeSync, DiffieHellman } from "node:crypto";
import { describe, it } from "node:test";
import { Bug, InvalidInput } from "../../src/crypto/fault.js";
import { FixedBase } from "../../src/crypto/fixed-base.js";
import {
  bitLength,
  FactoredModulus,
  gcd,
  generateBlumPrime,
  inRange,
  invert,
  invertBlinded,
  jacobi,
  Modulus,
  pairwiseCoprime,
  parseNatural,
  parseSigned,
  passesFermat,
  powBigInt,
  Remainders,
  randomBelow,
  randomBits,
  randomUnit,
  reduce,
  signedToBytes,
  squareRoot,
  toBytes,
  toInteger,
} from "../../src/crypto/modulus.js";
import { generateSafePrime } from "../../src/crypto/safe-prime.js";
import { security112, security128 } from "../../src/crypto/security-profile.js";
import { seededRandom, testParty, testPrimes } from "../fixtures/parties.js";

const random = seededRandom("modulus");
const refusal = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

/** Square and multiply from the lowest bit, as in a textbook; shares nothing with the kernel. */
function textbookPow(base: bigint, exponent: bigint, m: bigint): bigint {
  let [result, square] = [1n % m, ((base % m) + m) % m];
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if ((rest & 1n) === 1n) result = (result * square) % m;
    square = (square * square) % m;
  }
  return result;
}

/** Legendre's symbol by Euler's criterion. */
const euler = (a: bigint, p: bigint): number => {
  const power = textbookPow(a, (p - 1n) / 2n, p);
  return power === 0n ? 0 : power === 1n ? 1 : -1;
};

describe("Modulus.pow", () => {
  it("agrees with textbook arithmetic in 10,000 random cases from 512 to 1,024 bits", () => {
    for (let round = 0; round < 50; round++) {
      const bits = 512 + Math.floor((round * 512) / 49);
      const m = new Modulus((1n << BigInt(bits - 1)) | randomBits(random, bits - 1) | 1n);
      assert.equal(m.bits, bits);
      for (let index = 0; index < 200; index++) {
        const base = randomBits(random, 1 + ((index * 13) % (bits + 40)));
        const exponent = randomBits(random, 1 + ((index * 7) % 257));
        const expected = textbookPow(base, exponent, m.value);
        assert.equal(m.pow(base, exponent), expected);
        assert.equal(m.powPublic(base, exponent), expected);
      }
    }
  });

  it("agrees with textbook arithmetic at every length that the protocols use, and with exponents longer than m", () => {
    const { secret, trapdoor } = testParty(security128, 1);
    for (const value of [secret.N, trapdoor.N, secret.NN, secret.p, testParty(security112, 1).secret.NN]) {
      const m = Modulus.of(value);
      for (const exponentBits of [1, 64, 256, 768, m.bits, 2 * m.bits + 900]) {
        const [base, exponent] = [randomBelow(random, value), randomBits(random, exponentBits)];
        const expected = textbookPow(base, exponent, value);
        assert.equal(m.pow(base, exponent), expected);
        assert.equal(m.powPublic(base, exponent), expected);
      }
    }
  });

  it("covers the values at which OpenSSL throws or answers wrongly", () => {
    const odd = testParty(security112, 1).secret.N;
    const { p } = testPrimes(security112, 1).paillier;
    const moduli = [odd, odd + 1n, p * p, p, (1n << 511n) + 1n, (1n << 400n) + 1n, (1n << 600n) - 2n, 3n, 2n, 15n];
    for (const value of moduli) {
      const m = new Modulus(value);
      const bases = [0n, 1n, 2n, value - 1n, value, value + 1n, value - 2n, 5n * value + 3n, -1n, -3n, p, p * (p - 3n)];
      const exponents = [0n, 1n, 2n, 3n, 4n, 255n, 256n, 1n << 64n, value - 1n, value, value + 1n, p - 1n];
      for (const base of bases) {
        for (const exponent of exponents) {
          const expected = textbookPow(base, exponent, value);
          assert.equal(
            m.pow(base, exponent),
            expected,
            `${base % 1000n}^${exponent % 1000n} mod ${bitLength(value)} bits`,
          );
          assert.equal(m.powPublic(base, exponent), expected);
        }
      }
    }
  });

  it("answers results of 1 and m - 1 exactly, which OpenSSL refuses", () => {
    const { p } = testPrimes(security112, 1).paillier;
    const m = new Modulus(p);
    for (let index = 0; index < 10; index++) {
      const base = randomBelow(random, p);
      assert.equal(m.pow(base, p - 1n), 1n);
      assert.equal(m.pow(base, (p - 1n) / 2n), euler(base, p) === 1 ? 1n : p - 1n);
    }
  });

  it("tells a result of 1 from one of m - 1 by a second power of OpenSSL, and takes none where the base is 0 or ±1", (context) => {
    const { p } = testPrimes(security112, 1).paillier;
    const m = new Modulus(p);
    assert.equal(m.pow(2n, 3n), 8n); // makes the engine
    const powers = context.mock.method(DiffieHellman.prototype, "computeSecret");
    const written = context.mock.method(BigInt.prototype, "toString");
    const refusedOf = (base: bigint, exponent: bigint, expected: bigint): readonly boolean[] => {
      powers.mock.resetCalls();
      written.mock.resetCalls();
      assert.equal(m.pow(base, exponent), expected);
      // OpenSSL is handed the exponent as bytes, BigInt's windows read its digits: it is written out for one of them.
      const digits = written.mock.calls.filter((call) => call.this === exponent && call.arguments[0] === 16);
      assert.ok(digits.length <= 1, "BigInt computes no power");
      return powers.mock.calls.map(({ error }) => error !== undefined);
    };
    for (let index = 0; index < 4; index++) {
      const base = randomBelow(random, p - 3n) + 2n;
      assert.deepEqual(refusedOf(base, p - 1n, 1n), [true, false]);
      assert.deepEqual(refusedOf(base, (p - 1n) / 2n, euler(base, p) === 1 ? 1n : p - 1n), [true, false]);
      assert.deepEqual(refusedOf(base, p, base), [false]);
    }
    for (const base of [0n, 1n, p - 1n]) assert.deepEqual(refusedOf(base, 7n, base), []);
    written.mock.restore();
    // A power of 0 is left to BigInt: no unit has one.
    const square = new Modulus(p * p);
    powers.mock.resetCalls();
    assert.equal(square.pow(3n * p, 2n), 0n);
    assert.deepEqual(
      powers.mock.calls.map(({ error }) => error !== undefined),
      [false, true, true], // the engine's own test comes first
    );
  });

  it("inverts for negative exponents, and refuses a base that is no unit", () => {
    const { secret } = testParty(security112, 1);
    const m = Modulus.of(secret.N);
    const base = randomUnit(random, secret.N);
    assert.equal((m.pow(base, -77n) * textbookPow(base, 77n, secret.N)) % secret.N, 1n);
    assert.throws(() => m.pow(secret.p, -1n), refusal("not-invertible"));
    assert.throws(() => m.pow(0n, -1n), refusal("not-invertible"));
    assert.throws(() => new Modulus(1n), Bug);
  });

  it("falls back to BigInt above 10,000 bits", () => {
    const m = new Modulus((1n << 10_050n) | 12345n);
    assert.equal(m.pow(3n, 99_999n), textbookPow(3n, 99_999n, m.value));
    assert.equal(powBigInt(3n, 99_999n, m.value), textbookPow(3n, 99_999n, m.value));
  });

  it("keeps one object a public modulus, of the last 256", () => {
    const first = Modulus.of(1_000_001n);
    assert.equal(Modulus.of(1_000_001n), first);
    for (let value = 2_000_001n; value < 2_000_001n + 256n; value++) Modulus.of(value);
    assert.notEqual(Modulus.of(1_000_001n), first);
  });
});

describe("FixedBase and FactoredModulus", () => {
  it("agree with textbook arithmetic", () => {
    const { trapdoor, secret } = testParty(security112, 1);
    const table = new FixedBase(trapdoor.t, trapdoor.N, 2048);
    const factored = new FactoredModulus(secret.p, secret.q);
    const edges = [0n, 1n, 2n, 3n, 1n << 2047n, (1n << 2048n) - 1n, trapdoor.phi];
    for (const exponent of [...edges, ...Array.from({ length: 10 }, () => randomBits(random, 2048))]) {
      assert.equal(table.pow(exponent), textbookPow(trapdoor.t, exponent, trapdoor.N));
      assert.equal(factored.pow(trapdoor.t, exponent), textbookPow(trapdoor.t, exponent, secret.N));
    }
    assert.throws(() => table.pow(1n << 2048n), Bug);
    assert.throws(() => table.pow(-1n), Bug);
    assert.equal(factored.pow(secret.p, secret.q - 1n), textbookPow(secret.p, secret.q - 1n, secret.N));
    assert.equal(factored.pow(secret.p, 5n), textbookPow(secret.p, 5n, secret.N));
    assert.equal((factored.pow(7n, -9n) * textbookPow(7n, 9n, secret.N)) % secret.N, 1n);
    assert.ok(factored.isUnit(7n) && !factored.isUnit(secret.p * 3n) && !factored.isUnit(0n));
    for (const bits of [1, 7, 40, 41, 512]) {
      const small = new FixedBase(5n, secret.N, bits);
      const exponent = (1n << BigInt(bits)) - 1n;
      assert.equal(small.pow(exponent), textbookPow(5n, exponent, secret.N));
    }
  });

  it("recombine remainders, and refuse moduli that share a factor", () => {
    const remainders = new Remainders(1009n, 2003n);
    for (let index = 0; index < 200; index++) {
      const x = randomBelow(random, 1009n * 2003n);
      assert.equal(remainders.combine(x % 1009n, x % 2003n), x);
    }
    assert.throws(() => new Remainders(6n, 9n), refusal("not-coprime"));
  });
});

describe("number theory", () => {
  it("inverses, gcd and square roots in 2,000 random cases", () => {
    for (let index = 0; index < 2000; index++) {
      const m = randomBits(random, 2 + (index % 300)) + 2n;
      const a = randomBits(random, 1 + (index % 310)) - (1n << 100n);
      const [divisor, inverse] = [gcd(a, m), invert(a, m)];
      assert.ok(divisor > 0n && a % divisor === 0n && m % divisor === 0n);
      assert.equal(inverse === undefined, divisor !== 1n);
      if (inverse !== undefined) assert.equal(reduce(a * inverse, m), 1n % m);
      const root = squareRoot(m);
      assert.ok(root * root <= m && m < (root + 1n) ** 2n);
    }
    for (const [a, b, expected] of [
      [0n, 5n, 5n],
      [5n, 0n, 5n],
      [0n, 0n, 0n],
      [-6n, 4n, 2n],
    ] as const)
      assert.equal(gcd(a, b), expected);
    assert.equal(squareRoot(0n), 0n);
    const { N } = testParty(security112, 1).secret;
    const unit = randomUnit(random, N);
    assert.equal(invertBlinded(unit, N, random), invert(unit, N));
  });

  it("the Jacobi symbol is the product of Legendre symbols", () => {
    const primes = [3n, 5n, 7n, 11n, 13n, 10007n, (1n << 89n) - 1n];
    for (let index = 0; index < 1000; index++) {
      const [p = 3n, r = 3n] = [primes[index % 7], primes[(index * 3 + 1) % 7]];
      const a = randomBits(random, 1 + (index % 120)) - (1n << 20n);
      assert.equal(jacobi(a, p * r), euler(a, p) * euler(a, r) + 0);
    }
    assert.equal(jacobi(0n, 9n), 0);
    assert.equal(jacobi(1n << 1000n, 10007n), 1);
    assert.equal(jacobi(5n, 1n), 1);
    assert.throws(() => jacobi(3n, 4n), Bug);
    assert.throws(() => jacobi(3n, -5n), Bug);
  });

  it("moduli that are equal or share a factor are not pairwise coprime", () => {
    const [a, b, c] = [1, 2, 3].map((index) => testParty(security112, index).secret);
    if (a === undefined || b === undefined || c === undefined) throw new Error("no test keys");
    assert.ok(pairwiseCoprime([a.N, b.N, c.N, testParty(security112, 1).setup.N]));
    assert.ok(!pairwiseCoprime([a.N, b.N, a.N]));
    assert.ok(!pairwiseCoprime([a.N, b.N, a.p * c.q]));
  });

  it("generated primes have their exact length, two high bits, and residue 3 mod 4; safe ones are safe", async () => {
    let tested = 0;
    const safe = await generateSafePrime(256, random, () => tested++);
    for (const p of [await generateBlumPrime(256), safe, await generateSafePrime(64, random)]) {
      assert.equal(p >> BigInt(bitLength(p) - 2), 3n);
      assert.equal(p % 4n, 3n);
      assert.ok(checkPrimeSync(p));
    }
    assert.equal(bitLength(safe), 256);
    assert.ok(checkPrimeSync((safe - 1n) / 2n));
    assert.ok(tested > 0);
  });

  it("Fermat's test passes primes and fails composites, with OpenSSL and without", () => {
    const { secret, trapdoor } = testParty(security112, 1);
    for (const p of [secret.p, trapdoor.q, 1_000_003n]) assert.ok(passesFermat(p));
    for (const n of [secret.p + 2n, secret.N, 1_000_001n]) assert.ok(!passesFermat(n));
  });

  it("the test keys are what they claim", () => {
    for (const profile of [security112, security128]) {
      for (let index = 1; index <= 7; index++) {
        const { paillier, ringPedersen } = testPrimes(profile, index);
        for (const p of [paillier.p, paillier.q, ringPedersen.p, ringPedersen.q]) {
          assert.ok(bitLength(p) === profile.primeBits && p % 4n === 3n && checkPrimeSync(p, { checks: 1 }));
        }
        for (const p of [ringPedersen.p, ringPedersen.q]) assert.ok(checkPrimeSync((p - 1n) / 2n, { checks: 1 }));
      }
    }
  });
});

describe("integer encodings", () => {
  it("round-trip in one form only", () => {
    for (const value of [0n, 1n, 255n, 256n, (1n << 64n) - 1n]) assert.equal(parseNatural(toBytes(value, 8), 8), value);
    for (const value of [0n, 1n, -1n, (1n << 64n) - 1n, 1n - (1n << 64n)]) {
      assert.equal(parseSigned(signedToBytes(value, 8), 8), value);
      assert.equal(signedToBytes(value, 8).length, 9);
    }
    assert.equal(toInteger(new Uint8Array(0)), 0n);
    assert.equal(toInteger(Uint8Array.of(9, 1, 2, 9).subarray(1, 3)), 258n);
    assert.throws(() => toBytes(1n << 64n, 8), Bug);
    assert.throws(() => toBytes(-1n, 8), Bug);
    assert.throws(() => signedToBytes(1n << 64n, 8), Bug);
  });

  it("refuse other lengths before any parsing, other signs, and a negative zero", () => {
    for (const length of [0, 7, 9, 10_000_000]) {
      assert.throws(() => parseNatural(new Uint8Array(length), 8), refusal("integer-length"));
    }
    for (const length of [0, 8, 10, 10_000_000]) {
      assert.throws(() => parseSigned(new Uint8Array(length), 8), refusal("integer-length"));
    }
    for (const sign of [2, 0x80, 0xff]) {
      assert.throws(() => parseSigned(Uint8Array.of(sign, 0, 1), 2), refusal("integer-sign"));
    }
    assert.throws(() => parseSigned(Uint8Array.of(1, 0, 0), 2), refusal("integer-negative-zero"));
    const before = process.hrtime.bigint();
    const huge = new Uint8Array(10_000_000).fill(0xff);
    for (let index = 0; index < 1000; index++) assert.throws(() => parseNatural(huge, 384), InvalidInput);
    assert.ok(process.hrtime.bigint() - before < 1_000_000_000n, "a refusal parses nothing");
  });

  it("ranges include both ends", () => {
    assert.ok(inRange(8n, 3) && inRange(-8n, 3) && !inRange(9n, 3) && !inRange(-9n, 3));
    assert.equal(bitLength(0n), 0);
    assert.equal(bitLength(255n), 8);
    assert.equal(bitLength(256n), 9);
  });
});

describe("sampling", () => {
  it("stays below its bound, reaches every value, and is never reduced", () => {
    const counts = [0, 0, 0, 0, 0];
    for (let index = 0; index < 5000; index++) {
      const value = Number(randomBelow(random, 5n));
      counts[value] = (counts[value] ?? 0) + 1;
    }
    for (const count of counts) assert.ok(count > 850 && count < 1150, `${counts}`);
    assert.equal(randomBelow(random, 1n), 0n);
    assert.throws(() => randomBelow(random, 0n), Bug);
    assert.equal(randomBits(random, 0), 0n);
    for (const bits of [1, 7, 8, 9, 257]) {
      const draws = Array.from({ length: 100 }, () => randomBits(random, bits));
      assert.ok(draws.every((value) => value >= 0n && bitLength(value) <= bits));
      assert.ok(draws.some((value) => bitLength(value) === bits));
    }
  });

  it("units are coprime to the modulus", () => {
    for (let index = 0; index < 200; index++) assert.equal(gcd(randomUnit(random, 30n), 30n), 1n);
  });

  it("erases the bytes that a secret was drawn from", () => {
    const drawn: Uint8Array[] = [];
    randomBits({ bytes: (length) => drawn[drawn.push(new Uint8Array(length).fill(7)) - 1] ?? new Uint8Array(0) }, 128);
    assert.deepEqual(drawn, [new Uint8Array(16)]);
  });
});
