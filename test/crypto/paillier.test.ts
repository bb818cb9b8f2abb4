import assert from "node:assert/strict";
import { DiffieHellman } from "node:crypto";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import { InvalidInput } from "../../src/crypto/fault.js";
import { randomBits, toBytes } from "../../src/crypto/modulus.js";
import { PaillierKey, PaillierSecret } from "../../src/crypto/paillier.js";
import { security112, security128 } from "../../src/crypto/security-profile.js";
import { modulusWithFactorOf, nonBlumPrimes } from "../fixtures/hostile-moduli.js";
import { seededRandom, testParty } from "../fixtures/parties.js";

const random = seededRandom("paillier");
const refusal = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

describe("paillier", () => {
  for (const profile of [security112, security128]) {
    const { secret, key } = testParty(profile, 1);

    it(`${profile.name}: decrypts what was encrypted, by owner and others alike`, () => {
      const half = key.N >> 1n;
      for (const m of [0n, 1n, -1n, half, -half, randomBits(random, 256), -randomBits(random, 2000)]) {
        const { ciphertext, nonce } = key.encrypt(m, random);
        assert.equal(secret.decrypt(ciphertext), m);
        assert.equal(secret.extractNonce(ciphertext), nonce);
        assert.equal(secret.encryptWith(m, nonce), ciphertext);
        assert.ok(key.areMembers({ ciphertexts: [ciphertext], nonces: [nonce] }));
        assert.ok(secret.areMembers({ ciphertexts: [ciphertext], nonces: [nonce] }));
      }
      assert.equal(secret.decrypt(key.encrypt(half + 1n, random).ciphertext), -half);
    });

    it(`${profile.name}: decrypts any ciphertext by two powers of OpenSSL, none of them refused`, (context) => {
      assert.equal(secret.decrypt(key.encrypt(5n, random).ciphertext), 5n); // makes what is made once
      const { p, q, N, NN } = secret;
      const powers = context.mock.method(DiffieHellman.prototype, "computeSecret");
      const plaintexts = [0n, 1n, -1n, p, -p, q, -q, N >> 1n, randomBits(random, 256)];
      const cases: readonly (readonly [name: string, ciphertext: bigint, plaintext: bigint])[] = [
        ["1", 1n, 0n],
        ["-1", NN - 1n, 0n],
        ["1 + N", 1n + N, 1n],
        ["the inverse of 1 + N", NN + 1n - N, -1n],
        ["a nonce's power alone", key.encryptWith(0n, 2n), 0n],
        ...plaintexts.map((m) => [`of ${m}`, key.encrypt(m, random).ciphertext, m] as const),
      ];
      for (const [name, ciphertext, plaintext] of cases) {
        powers.mock.resetCalls();
        assert.equal(secret.decrypt(ciphertext), plaintext, name);
        assert.deepEqual(
          powers.mock.calls.map(({ error }) => error),
          [undefined, undefined],
          name,
        );
      }
    });

    it(`${profile.name}: is homomorphic, by owner and others alike`, () => {
      const [a, b] = [randomBits(random, 256), randomBits(random, 1280)];
      const [A, B] = [key.encrypt(a, random).ciphertext, key.encrypt(b, random).ciphertext];
      assert.equal(secret.decrypt(key.add(A, B)), a + b);
      assert.equal(secret.decrypt(key.subtract(A, B)), a - b);
      for (const x of [0n, 1n, -1n, randomBits(random, 256), -randomBits(random, 768)]) {
        assert.equal(secret.decrypt(key.scale(A, x)), a * x);
        assert.equal(secret.scale(A, x), key.scale(A, x));
      }
      const nonce = key.randomNonce(random);
      assert.equal(secret.nthPower(nonce), key.nthPower(nonce));
      for (const e of [0n, 1n, -1n, 12345n, -12345n]) {
        assert.equal(secret.maskNonce(7n, nonce, e), key.maskNonce(7n, nonce, e, random));
        const masked = key.maskNonce(7n, nonce, e, random);
        assert.equal((masked * key.maskNonce(1n, nonce, -e, random)) % key.N, 7n);
      }
    });
  }

  const { secret, key } = testParty(security112, 1);

  it("refuses moduli of another length or even ones, before they are parsed", () => {
    const [short, long] = modulusWithFactorOf(256);
    assert.doesNotThrow(() => new PaillierKey(short * long, security112)); // what Π-fac is for
    assert.throws(() => new PaillierKey(key.N, security128), refusal("paillier-length"));
    assert.throws(() => new PaillierKey(key.N >> 8n, security112), refusal("paillier-length")); // 2040 bits
    assert.throws(() => new PaillierKey(key.N << 1n, security112), refusal("paillier-length"));
    assert.throws(() => new PaillierKey(0n, security112), refusal("paillier-length"));
    assert.throws(() => new PaillierKey(-key.N, security112), refusal("paillier-length"));
    assert.throws(() => new PaillierKey(key.N - 1n, security112), refusal("paillier-even"));
    assert.throws(() => PaillierKey.parse(toBytes(key.N >> 8n, 256), security112), refusal("paillier-length"));
    for (const length of [0, 255, 257, 10_000_000]) {
      assert.throws(() => PaillierKey.parse(new Uint8Array(length).fill(0xff), security112), refusal("integer-length"));
    }
    assert.equal(PaillierKey.parse(key.toBytes(), security112).N, key.N);
  });

  it("refuses primes that are short, equal or ≡ 1 mod 4", () => {
    const [p, r] = nonBlumPrimes(3n);
    const [short] = modulusWithFactorOf(256);
    for (const [a, b] of [
      [p, r],
      [secret.p, secret.p],
      [short, secret.q],
      [secret.p, secret.q + 2n],
    ] as const) {
      assert.throws(() => new PaillierSecret(a, b, security112), refusal("paillier-primes"));
    }
  });

  it("membership excludes 0, N, multiples of a factor, and what is not canonical", () => {
    for (const view of [key, secret]) {
      for (const c of [0n, key.N, secret.p, secret.q * 3n, key.NN, key.NN + 1n, -1n]) {
        assert.equal(view.areMembers({ ciphertexts: [1n, c] }), false);
        assert.equal(view.areMembers({ nonces: [1n, c] }), false);
      }
      assert.equal(view.areMembers({ ciphertexts: [1n, key.N + 1n], nonces: [1n, key.N - 1n] }), true);
    }
  });

  it("ciphertexts round-trip at their exact length", () => {
    const { ciphertext } = key.encrypt(5n, random);
    assert.equal(key.parseCiphertext(key.ciphertextToBytes(ciphertext)), ciphertext);
    assert.throws(() => key.parseCiphertext(new Uint8Array(512)), refusal("ciphertext-not-unit"));
    assert.throws(() => key.parseCiphertext(toBytes(secret.p, 512)), refusal("ciphertext-not-unit"));
    assert.throws(() => key.parseCiphertext(new Uint8Array(512).fill(0xff)), refusal("ciphertext-not-unit"));
    for (const length of [0, 511, 513, 10_000_000]) {
      assert.throws(() => key.parseCiphertext(new Uint8Array(length)), refusal("integer-length"));
    }
  });

  it("neither JSON nor inspection shows a factor", () => {
    const { trapdoor } = testParty(security112, 1);
    for (const [object, hidden] of [
      [secret, [secret.p, secret.q]],
      [trapdoor, [trapdoor.p, trapdoor.q, trapdoor.lambda]],
    ] as const) {
      const shown = inspect(object, { depth: 20, showHidden: true }) + JSON.stringify(object);
      for (const value of hidden) assert.ok(!shown.includes(value.toString()));
    }
  });
});
