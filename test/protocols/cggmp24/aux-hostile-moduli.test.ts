import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { bitLength, gcd, squareRoot, toBytes } from "../../../src/crypto/modulus.js";
import { PaillierKey } from "../../../src/crypto/paillier.js";
import type { ProofContext } from "../../../src/crypto/proofs/context.js";
import * as fac from "../../../src/crypto/proofs/fac.js";
import * as mod from "../../../src/crypto/proofs/mod.js";
import { RingPedersenSetup } from "../../../src/crypto/ring-pedersen.js";
import { security112 } from "../../../src/crypto/security-profile.js";
import { auxCommitmentHash } from "../../../src/protocols/cggmp24/aux-info.js";
import { partyId } from "../../../src/session/party.js";
import { sessionDigest } from "../../../src/session/session.js";
import { bestEffort, nonresidue } from "../../crypto/proofs/mod-forger.js";
import {
  fourPrimes,
  modulusOfSmallPrimes,
  modulusWithFactorOf,
  modulusWithoutRoots,
  nonBlumPrimes,
  primeModulus,
  smallPrimes,
} from "../../fixtures/hostile-moduli.js";
import { testPrimes } from "../../fixtures/parties.js";
import { SeededRandom, testGroup } from "../../session/simulation.js";
import { auxRun, generateKey, of } from "./ceremony.js";
import { assertNamed, flip, type Lies, type Loose } from "./dishonesty.js";
import { rememberPowers } from "./remembered-powers.js";

rememberPowers();

const CHEAT = 3;
const ids = [1, CHEAT];
const profile = security112;
const key = of(generateKey(ids, 2, "hostile moduli"), partyId(1));
const run = auxRun(ids, key, profile, "hostile moduli");
const ssid = sessionDigest(run.protocol, {
  sessionId: new SeededRandom(`${run.seed}/session`).bytes(16),
  group: testGroup(ids),
  pub: run.pub,
});

/** What both parties open honestly; seeds repeat it. */
const openings = new Map<number, Loose>();
for (const party of ids) {
  const watch = (m: Loose) => {
    openings.set(party, structuredClone(m));
    flip(m.rid);
  };
  assertNamed(run, { liars: { [party]: { "aux-opening": watch } }, check: "aux-opens-commitment" });
}

/** Everything as a party would send it that has this N and knows all there is to know about it. */
function withModulus(
  primes: readonly bigint[],
  { w, split }: { w?: bigint; split?: readonly [bigint, bigint] } = {},
): Lies {
  const N = primes.reduce((product, p) => product * p, 1n);
  assert.equal(bitLength(N), profile.modulusBits);
  const hostile = new PaillierKey(N, profile);
  const replace = (m: Loose) => (m.paillierModulus = toBytes(N, profile.modulusBits / 8));
  const opening = structuredClone(of(openings, CHEAT));
  replace(opening);
  const other = of(openings, 1);
  const rid = Uint8Array.from(opening.rid as Uint8Array, (byte, i) => byte ^ other.rid[i]);
  const context = (round: string, verifier: number): ProofContext => ({
    ...{ profile, ssid, round, prover: CHEAT, verifier, rid },
  });
  const random = new SeededRandom(`hostile ${N}`);
  return {
    "aux-commitment": (m: Loose) => (m.hash = auxCommitmentHash(ssid, partyId(CHEAT), opening)),
    "aux-opening": replace,
    "aux-proof": (m: Loose) => {
      const { proof } = bestEffort(context("aux-proof", 0), hostile, primes, w ?? nonresidue(N, random));
      m.paillierProof = mod.encode(profile, proof);
    },
    "aux-factor-proof": (m: Loose) => {
      const [p, q] = split ?? [primes[0] ?? 1n, N / (primes[0] ?? 1n)];
      const { ringPedersenModulus: N_hat, ringPedersenS: s, ringPedersenT: t } = other;
      const setup = RingPedersenSetup.parse({ N: N_hat, s, t }, profile);
      const proof = fac.prove(context("aux-factor-proof", 1), { key: hostile, setup }, { p, q }, random);
      // The true response of a large factor does not even fit its field: the largest that does is sent.
      const most = squareRoot(N) << BigInt(profile.ell + profile.epsilon);
      const fit = (z: bigint): bigint => (z > most ? most : z < -most ? -most : z);
      m.proof = fac.encode(profile, { ...proof, z1: fit(proof.z1), z2: fit(proof.z2) });
    },
  };
}

describe("aux info names who comes with", () => {
  const named = (lies: Lies, check: string) => assertNamed(run, { liars: { [CHEAT]: lies }, check });

  it("an N with a factor of 256 bits: Π-mod holds, Π-fac does not", () => {
    named(withModulus(modulusWithFactorOf(256)), "aux-no-small-factor");
  });
  it("16 primes of 20 bits times a large one", () => {
    const [product, filler] = modulusOfSmallPrimes();
    named(withModulus([...smallPrimes(), filler], { split: [product, filler] }), "aux-knows-factors");
  });
  it("four primes", () => {
    const [a = 1n, b = 1n, c = 1n, d = 1n] = fourPrimes();
    named(withModulus([a, b, c, d], { split: [a * b, c * d] }), "aux-knows-factors");
  });
  it("the square of a prime", () => {
    const { p } = testPrimes(profile, CHEAT).paillier;
    named(withModulus([p, p], { w: 2n, split: [p, p] }), "aux-knows-factors");
  });
  for (const [name, residue] of [
    ["one prime ≡ 1 mod 4", 3n],
    ["two primes ≡ 1 mod 4", 5n],
  ] as const) {
    it(name, () => {
      named(withModulus(nonBlumPrimes(residue)), "aux-knows-factors");
    });
  }
  it("a prime", () => {
    named(withModulus([primeModulus()]), "aux-knows-factors");
  });
  it("an N that shares a factor with φ(N)", () => {
    const [p, q] = modulusWithoutRoots();
    assert.equal(gcd(p * q, (p - 1n) * (q - 1n)), p);
    named(withModulus([p, q]), "aux-knows-factors");
  });
  it("and nobody when the same forger has a proper N", () => {
    const { p, q } = testPrimes(profile, 5).paillier;
    assert.throws(() => named(withModulus([p, q]), "aux-knows-factors"), /is done/);
  });
});
