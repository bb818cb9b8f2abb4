import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InvalidInput } from "../../src/crypto/fault.js";
import { bitLength, randomBits } from "../../src/crypto/modulus.js";
import { RingPedersenSetup, RingPedersenTrapdoor } from "../../src/crypto/ring-pedersen.js";
import { security112, security128 } from "../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../fixtures/parties.js";

const random = seededRandom("ring-pedersen");
const refusal = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

describe("ring-pedersen", () => {
  for (const profile of [security112, security128]) {
    it(`${profile.name}: the owner's trapdoor commits to the same values`, () => {
      const { setup, trapdoor } = testParty(profile, 1);
      const exponents = [0n, 1n, -1n, randomBits(random, 256), -randomBits(random, 768), randomBits(random, 4000)];
      for (const x of exponents) {
        for (const mu of [0n, setup.randomMask(random), setup.randomWideMask(random), -5n]) {
          assert.equal(trapdoor.commit(x, mu), setup.commit(x, mu));
        }
        assert.equal(trapdoor.power(setup.s, x), setup.power(setup.s, x));
      }
      assert.equal(trapdoor.power(trapdoor.t, trapdoor.lambda), trapdoor.s);
      assert.ok(bitLength(setup.randomMask(random)) <= profile.modulusBits + 256);
      assert.ok(bitLength(setup.randomWideMask(random)) > profile.modulusBits + 600);
    });
  }

  const { setup, trapdoor } = testParty(security112, 1);

  it("refuses s or t of 0, ±1, or no unit, and an N̂ of another length or even", () => {
    const { N, s, t } = setup;
    for (const bad of [0n, 1n, N - 1n, N, N + 5n, -1n, trapdoor.p, trapdoor.q * 2n]) {
      assert.throws(() => new RingPedersenSetup({ N, s: bad, t }, security112), refusal("ring-pedersen-generator"));
      assert.throws(() => new RingPedersenSetup({ N, s, t: bad }, security112), refusal("ring-pedersen-generator"));
    }
    for (const modulus of [N >> 8n, N - 1n, N << 1n, 0n, -N]) {
      assert.throws(() => new RingPedersenSetup({ N: modulus, s, t }, security112), refusal("ring-pedersen-modulus"));
    }
    assert.throws(() => new RingPedersenSetup({ N, s, t }, security128), refusal("ring-pedersen-modulus"));
    const { p } = trapdoor;
    const primes = refusal("ring-pedersen-primes");
    assert.throws(() => new RingPedersenTrapdoor({ p, q: p, t, lambda: 5n }, security112), primes);
  });

  it("round-trips in fields of exact length", () => {
    const bytes = setup.toBytes();
    const read = RingPedersenSetup.parse(bytes, security112);
    assert.deepEqual([read.N, read.s, read.t], [setup.N, setup.s, setup.t]);
    for (const length of [0, 255, 257, 10_000_000]) {
      const s = new Uint8Array(length);
      assert.throws(() => RingPedersenSetup.parse({ ...bytes, s }, security112), refusal("integer-length"));
    }
  });

  it("membership excludes 0, factors and what is not canonical", () => {
    for (const view of [setup, trapdoor]) {
      for (const value of [0n, setup.N, trapdoor.p, setup.N + 1n, -1n]) {
        assert.equal(view.areMembers([1n, value]), false);
      }
      assert.equal(view.areMembers([1n, setup.N - 1n]), true);
    }
  });
});
