import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { randomBits } from "../../../src/crypto/modulus.js";
import type { Opening } from "../../../src/crypto/paillier.js";
import { Openings, settled, term } from "../../../src/crypto/proofs/openings.js";
import { profiles, security112 } from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";

for (const profile of profiles) {
  describe(`openings decided together, ${profile.name}`, () => {
    const { key, secret } = testParty(profile, 1);
    const random = seededRandom(`openings/${profile.name}`);

    /** enc(a + e·d; …) = A ⊕ (e ⊙ D), as in a proof; e is negative in every other one. */
    function opening(index: number): Opening {
      const e = (index % 2 === 0 ? 1n : -1n) * randomBits(random, 256);
      const [a, d] = [randomBits(random, 768), randomBits(random, 256)];
      const [A, D] = [key.encrypt(a, random), key.encrypt(d, random)];
      return {
        m: a + e * d,
        nonce: key.maskNonce(A.nonce, D.nonce, e, random),
        sum: [term(A.ciphertext), term(D.ciphertext, e)],
      };
    }
    const openings = [0, 1, 2, 3].map(opening);
    const changed = (index: number, change: (one: Opening) => Opening) =>
      openings.map((one, i) => (i === index ? change(one) : one));
    const decided = (all: readonly Opening[]) => {
      const verdicts = [key, secret].map((view) => view.opens(all));
      assert.equal(verdicts[0], verdicts[1], "the owner and others decide alike");
      return verdicts[0];
    };

    it("hold one by one, all together and in any order", () => {
      assert.equal(decided([]), true);
      for (const one of openings) assert.equal(decided([one]), true);
      assert.equal(decided(openings), true);
      assert.equal(decided([...openings].reverse()), true);
      assert.equal(decided([...openings, ...openings]), true);
    });

    it("do not hold when a plaintext, a nonce or a power of one is another", () => {
      for (const index of openings.keys()) {
        for (const off of [1n, -1n, key.N >> 1n, 1n << 128n, secret.p]) {
          assert.equal(decided(changed(index, (one) => ({ ...one, m: one.m + off }))), false, `plaintext ${index}`);
        }
        assert.equal(decided(changed(index, (one) => ({ ...one, nonce: one.nonce + 1n }))), false);
        for (const place of [0, 1]) {
          const sum = openings[index]?.sum.map(({ base, exponent }, i) =>
            term(base, exponent + (i === place ? 1n : 0n)),
          );
          assert.equal(decided(changed(index, (one) => ({ ...one, sum: sum ?? [] }))), false);
        }
      }
    });

    it("do not hold when errors cancel out in sum or in weighted sum of small weights", () => {
      for (const [here, there] of [
        [1n, -1n],
        [2n, -1n],
        [1n << 64n, -(1n << 64n)],
        [secret.p, -secret.p],
      ] as const) {
        const off = [here, there];
        const wrong = openings.map((one, index) => ({ ...one, m: one.m + (off[index] ?? 0n) }));
        assert.equal(decided(wrong), false);
      }
      const exchanged = [...openings];
      const [first, second] = openings;
      assert.ok(first !== undefined && second !== undefined);
      exchanged.splice(0, 2, { ...first, nonce: second.nonce }, { ...second, nonce: first.nonce });
      assert.equal(decided(exchanged), false);
    });

    it("never hold with a wrong plaintext, whatever the sign of a nonce, which no plaintext depends on", () => {
      const negated = changed(1, (one) => ({ ...one, nonce: key.N - one.nonce }));
      decided(negated);
      for (const off of [1n, -1n, secret.q]) {
        assert.equal(decided(negated.map((one, index) => (index === 1 ? { ...one, m: one.m + off } : one))), false);
      }
    });
  });
}

describe("gathered openings", () => {
  const [own, other] = [testParty(security112, 1).key, testParty(security112, 2).key];
  const random = seededRandom("openings/gathered");
  const under = (key: typeof own, m: bigint, claimed = m): Opening => {
    const { ciphertext, nonce } = key.encrypt(m, random);
    return { m: claimed, nonce, sum: [term(ciphertext)] };
  };

  it("are decided for every key, and a proof on its own decides at once", () => {
    const gathered = new Openings();
    assert.equal(gathered.hold(), true);
    gathered.claim(own, under(own, 5n));
    gathered.claim(own, under(own, 6n));
    gathered.claim(other, under(other, 7n));
    assert.equal(gathered.hold(), true);
    gathered.claim(other, under(other, 8n, 9n));
    assert.equal(gathered.hold(), false);
    assert.equal(
      settled(undefined, (openings) => openings.claim(own, under(own, 1n, 2n))),
      false,
    );
    assert.equal(
      settled(undefined, (openings) => openings.claim(own, under(own, 1n))),
      true,
    );
    assert.equal(
      settled(undefined, () => false),
      false,
    );
    const later = new Openings();
    assert.equal(
      settled(later, (openings) => openings.claim(own, under(own, 1n, 2n))),
      true,
    );
    assert.equal(later.hold(), false);
  });
});
