import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  decResponseBits,
  MOST_PARTIES,
  profileItem,
  profiles,
  security112,
  security128,
} from "../../src/crypto/security-profile.js";
import { hashTuple } from "../../src/crypto/transcript.js";

describe("security profiles", () => {
  it("are the two of the specification, with room for every range", () => {
    assert.deepEqual(
      profiles.map(({ name, modulusBits }) => [name, modulusBits]),
      [
        ["security128", 3072],
        ["security112", 2048],
      ],
    );
    for (const profile of profiles) {
      const { ell, ellPrime, epsilon, modulusBits, repetitions, binaryRepetitions } = profile;
      assert.deepEqual([ell, ellPrime, epsilon, repetitions, binaryRepetitions], [256, 1280, 512, 128, 256]);
      assert.ok(modulusBits > ellPrime + epsilon + 1 + Math.log2(MOST_PARTIES));
      // Two responses of Π-dec differ by less than N, so y is the decryption and not another representative.
      assert.ok(modulusBits - 1 > decResponseBits(profile, MOST_PARTIES) + 1);
      // Hiding of the binary proofs: 256 repetitions of y against the slack.
      assert.ok(profile.decSlack - 8 >= 128);
    }
  });

  it("the slack ε of the other proofs would not fit Π-dec at 2048 bits", () => {
    assert.ok(decResponseBits({ ...security112, decSlack: security112.epsilon }, 3) > security112.modulusBits);
  });

  it("have different transcript items, and cannot be changed", () => {
    assert.notDeepEqual(hashTuple("t", [profileItem(security128)]), hashTuple("t", [profileItem(security112)]));
    assert.throws(() => Reflect.apply(Object.assign, undefined, [security128, { repetitions: 1 }]), TypeError);
  });
});
