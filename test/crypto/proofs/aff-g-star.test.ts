import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AffGStarProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../../../src/crypto/ambient.js";
import { Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { Bug } from "../../../src/crypto/fault.js";
import { randomBits } from "../../../src/crypto/modulus.js";
import { PaillierKey, PaillierSecret } from "../../../src/crypto/paillier.js";
import * as affGStar from "../../../src/crypto/proofs/aff-g-star.js";
import { challengeBits } from "../../../src/crypto/proofs/context.js";
import { type SecurityProfile, security112 } from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty, testPrimes } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

const g = Point.base;

interface Factors {
  readonly x: bigint;
  readonly y: bigint;
}
type Party = Pick<ReturnType<typeof testParty>, "secret" | "key">;

function instanceOf(
  profile: SecurityProfile,
  random: Random,
  { x, y }: Factors,
  [prover, other]: readonly [Party, Party] = [testParty(profile, 1), testParty(profile, 2)],
) {
  const C = other.secret.encrypt(Scalar.random(random), random).ciphertext;
  const summand = other.key.encrypt(y, random);
  const own = prover.secret.encrypt(y, random);
  const shared = {
    C,
    D: other.key.add(other.key.scale(C, x), summand.ciphertext),
    Y: own.ciphertext,
    X: g.times(scalar(x)),
  };
  return {
    proving: { ...shared, key0: other.key, key1: prover.secret },
    verifying: { ...shared, key0: other.secret, key1: prover.key },
    judging: { ...shared, key0: other.key, key1: prover.key },
    witness: { x, y, rho: summand.nonce, rho_y: own.nonce },
  };
}

describeProof({
  name: "aff-g*",
  schema: AffGStarProofSchema,
  slow: true,
  instance: (profile, random) =>
    instanceOf(profile, random, { x: Scalar.random(random), y: randomBits(random, profile.ellPrime) }),
  ...affGStar,
});

/** A few of the 256 repetitions, with numbers of full size; a profile of this file only. */
const few: SecurityProfile = { ...security112, binaryRepetitions: 8 };

function partyOfFew(index: number): Party {
  const { p, q } = testPrimes(few, index).paillier;
  const secret = new PaillierSecret(p, q, few);
  return { secret, key: new PaillierKey(secret.N, few) };
}

/** The prover without its own range checks, with masks as it likes. */
function proveAnything(
  { key0, key1, C, D, Y, X }: affGStar.Statement,
  { x, y, rho, rho_y }: affGStar.Witness,
  { random, mask }: { readonly random: Random; mask(): { readonly alpha: bigint; readonly beta: bigint } },
): { readonly proof: affGStar.Proof; readonly bits: readonly boolean[] } {
  const masks = Array.from({ length: few.binaryRepetitions }, () => {
    const { alpha, beta } = mask();
    const [r, r_y] = [key0.randomNonce(random), key1.randomNonce(random)];
    const A = key0.add(key0.scale(C, alpha), key0.encryptWith(beta, r));
    return { alpha, beta, r, r_y, A, B_x: g.times(scalar(alpha)), B_y: key1.encryptWith(beta, r_y) };
  });
  const bits = challengeBits(
    contextOf(few),
    {
      proof: "aff-g-star",
      statement: [key0.N, key1.N, C, D, Y, X],
      commitments: masks.map(({ A, B_x, B_y }) => [A, B_x, B_y]),
    },
    few.binaryRepetitions,
  );
  const entries = masks.map(({ alpha, beta, r, r_y, A, B_x, B_y }, i) =>
    bits[i] === true
      ? { A, B_x, B_y, z1: alpha + x, z2: beta + y, w: (r * rho) % key0.N, w_y: (r_y * rho_y) % key1.N }
      : { A, B_x, B_y, z1: alpha, z2: beta, w: r, w_y: r_y },
  );
  return { proof: { entries }, bits };
}

/** The three equations of Fig. 27 for every repetition, and nothing else. */
function equationsHold(
  { key0, key1, C, D, Y, X }: affGStar.Statement,
  { entries }: affGStar.Proof,
  bits: readonly boolean[],
): boolean {
  return entries.every(({ A, B_x, B_y, z1, z2, w, w_y }, i) => {
    const e = bits[i] === true ? 1n : 0n;
    return (
      g.times(scalar(z1)).equals(B_x.plus(X.times(scalar(e)))) &&
      key1.encryptWith(z2, w_y) === key1.add(B_y, key1.scale(Y, e)) &&
      key0.add(key0.scale(C, z1), key0.encryptWith(z2, w)) === key0.add(A, key0.scale(D, e))
    );
  });
}

describe("aff-g* under attack", () => {
  const context = contextOf(security112);
  const random = seededRandom("aff-g*/attack");

  // ±2^(ℓ+ε) and ±2^(ℓ'+ε): where z1 and z2 must lie.
  const [factorBound, summandBound] = [1n << 768n, 1n << 1792n];
  const ordinary = () => ({ alpha: randomBits(random, 768), beta: randomBits(random, 1792) });

  it("rejects a factor or a summand out of range, by nothing but its range: every equation holds", () => {
    const parties = [partyOfFew(1), partyOfFew(2)] as const;
    const cases: readonly (Factors & { readonly valid: boolean })[] = [
      { x: 5n, y: 6n, valid: true },
      { x: factorBound + 1n, y: 6n, valid: false },
      { x: -factorBound - 1n - (1n << 768n), y: 6n, valid: false },
      { x: 1n << 1000n, y: 6n, valid: false },
      { x: 5n, y: summandBound + 1n, valid: false },
      { x: 5n, y: -(1n << 1900n), valid: false },
    ];
    for (const { x, y, valid } of cases) {
      const { proving, verifying, judging, witness } = instanceOf(few, random, { x, y }, parties);
      const { proof, bits } = proveAnything(proving, witness, { random, mask: ordinary });
      assert.ok(equationsHold(judging, proof, bits), "the forger keeps every equation");
      for (const statement of [verifying, judging]) {
        assert.equal(affGStar.verify(contextOf(few), statement, proof), valid, `${x}, ${y}`);
      }
      if (!valid) assert.throws(() => affGStar.prove(contextOf(few), proving, witness, random), Bug);
    }
  });

  it("takes responses at both ends of their ranges, and none beyond", () => {
    const [x, y] = [5n, 6n];
    const { proving, verifying, judging, witness } = instanceOf(few, random, { x, y }, [partyOfFew(1), partyOfFew(2)]);
    const top = { alpha: factorBound - x, beta: summandBound - y };
    const bottom = { alpha: -factorBound, beta: -summandBound };
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
      // What lies just beyond fits its field: it reaches the verifier.
      assert.deepEqual(affGStar.decode(few, affGStar.encode(few, proof)), proof);
      assert.equal(affGStar.verify(contextOf(few), verifying, proof), valid);
      assert.equal(affGStar.verify(contextOf(few), judging, proof), valid);
    }
  });

  it("refuses to prove a witness out of range, and rejects another factor than X has", () => {
    for (const witness of [
      { x: (1n << 256n) + 1n, y: 0n },
      { x: 1n, y: -(1n << 1280n) - 1n },
    ]) {
      const instance = instanceOf(security112, random, witness);
      assert.throws(() => affGStar.prove(context, instance.proving, instance.witness, random), Bug);
    }
    const { proving, verifying, witness } = instanceOf(security112, random, { x: 5n, y: 6n });
    const X = g.times(scalar(6n));
    const proof = affGStar.prove(context, { ...proving, X }, witness, random);
    assert.equal(affGStar.verify(context, { ...verifying, X }, proof), false);
  });
});
