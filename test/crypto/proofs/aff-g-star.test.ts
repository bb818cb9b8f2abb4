import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AffGStarProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../../../src/crypto/ambient.js";
import { Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { Bug } from "../../../src/crypto/fault.js";
import { randomBits } from "../../../src/crypto/modulus.js";
import * as affGStar from "../../../src/crypto/proofs/aff-g-star.js";
import { type SecurityProfile, security112 } from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";
import { contextOf, describeProof } from "./suite.js";

function instanceOf(profile: SecurityProfile, random: Random, { x, y }: { readonly x: bigint; readonly y: bigint }) {
  const [prover, other] = [testParty(profile, 1), testParty(profile, 2)];
  const C = other.secret.encrypt(Scalar.random(random), random).ciphertext;
  const summand = other.key.encrypt(y, random);
  const own = prover.secret.encrypt(y, random);
  const shared = {
    C,
    D: other.key.add(other.key.scale(C, x), summand.ciphertext),
    Y: own.ciphertext,
    X: Point.base.times(scalar(x)),
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

describe("aff-g* under attack", () => {
  const context = contextOf(security112);
  const random = seededRandom("aff-g*/attack");

  it("refuses to prove a witness out of range, and rejects another factor than X has", () => {
    for (const witness of [
      { x: (1n << 256n) + 1n, y: 0n },
      { x: 1n, y: -(1n << 1280n) - 1n },
    ]) {
      const instance = instanceOf(security112, random, witness);
      assert.throws(() => affGStar.prove(context, instance.proving, instance.witness, random), Bug);
    }
    const { proving, verifying, witness } = instanceOf(security112, random, { x: 5n, y: 6n });
    const X = Point.base.times(scalar(6n));
    const proof = affGStar.prove(context, { ...proving, X }, witness, random);
    assert.equal(affGStar.verify(context, { ...verifying, X }, proof), false);
  });
});
