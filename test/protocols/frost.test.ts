import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { schnorr } from "@noble/curves/secp256k1.js";
import * as tinysecp from "tiny-secp256k1";
import { Point, Scalar, scalar } from "../../src/crypto/curve.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import { MAX_BATCH } from "../../src/protocols/frost/nonce-round.js";
import { type FrostSigning, frostSign } from "../../src/protocols/frost/sign.js";
import { outputKey } from "../../src/protocols/frost/taproot.js";
import { decodeKeyShare, encodeKeyShare, type KeyShare } from "../../src/protocols/key-share.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { outputs, SeededRandom, simulate } from "../session/simulation.js";
import { generate } from "./frost-ceremony.js";

function sign(shares: ReadonlyMap<PartyId, KeyShare>, ids: readonly number[], pub: FrostSigning, seed: string) {
  const secret = (party: PartyId): Scalar => {
    const share = shares.get(party);
    if (share === undefined) throw new Error("no share");
    return share.secretShare;
  };
  return outputs(simulate({ protocol: frostSign, ids, pub, secret, seed }));
}

describe("FROST over the session engine", () => {
  for (const [threshold, n] of [
    [2, 2],
    [2, 3],
    [3, 5],
    [5, 5],
    [4, 7],
  ] as const) {
    it(`${threshold}-of-${n} generates a key and signs under derived Taproot keys`, () => {
      const ids = Array.from({ length: n }, (_, index) => index + 1);
      const shares = generate(ids, threshold, `keygen ${threshold} of ${n}`);
      const keys = [...shares.values()];
      const [first] = keys;
      assert.ok(first !== undefined);
      for (const share of keys) {
        assert.ok(share.groupKey.equals(first.groupKey));
        assert.deepEqual(share.chainCode, first.chainCode);
        assert.deepEqual(decodeKeyShare(encodeKeyShare(share)).secretShare, share.secretShare);
      }
      const random = new SeededRandom(`messages ${threshold} of ${n}`);
      const items = [0, 1, 2].map((index) => ({
        message: random.bytes(32),
        bip32Tweak: index === 0 ? Scalar.zero : Scalar.random(random),
      }));
      const signers = ids.slice(n - threshold);
      const pub = { key: first, items, authorization: random.bytes(32) };
      const signatures = sign(shares, signers, pub, `sign ${threshold} of ${n}`);
      assert.equal(signatures.size, threshold);
      for (const party of signatures.values()) {
        for (const [index, item] of items.entries()) {
          const signature = party[index] ?? new Uint8Array();
          const { xOnly } = outputKey(first, item.bip32Tweak);
          assert.ok(schnorr.verify(signature, item.message, xOnly));
          assert.ok(tinysecp.verifySchnorr(item.message, xOnly, signature), "libsecp256k1 accepts it");
        }
      }
    });
  }

  const shares = generate([1, 2, 3], 2, "refusals");
  const key = shares.get(partyId(1));
  assert.ok(key !== undefined);
  const signing = (change: Partial<FrostSigning>): FrostSigning => ({
    key,
    items: [{ message: new Uint8Array(32), bip32Tweak: Scalar.one }],
    authorization: new Uint8Array(32),
    ...change,
  });

  it("2-of-3 signs with all three parties, and twice the same message with different nonces", () => {
    const pub = signing({});
    const [first, second] = ["once", "again"].map((seed) => [...sign(shares, [1, 2, 3], pub, seed).values()]);
    const { xOnly } = outputKey(key, Scalar.one);
    for (const [signature] of [...(first ?? []), ...(second ?? [])]) {
      assert.ok(tinysecp.verifySchnorr(new Uint8Array(32), xOnly, signature ?? new Uint8Array()));
    }
    const R = (run: typeof first) =>
      Buffer.from(run?.[0]?.[0] ?? [])
        .toString("hex")
        .slice(0, 64);
    assert.notEqual(R(first), R(second));
  });

  it("a full batch signs, one message under many tweaks", () => {
    const items = Array.from({ length: MAX_BATCH }, (_, index) => ({
      message: new Uint8Array(32).fill(index),
      bip32Tweak: scalar(BigInt(index >> 1)),
    }));
    const [signatures] = sign(shares, [2, 3], signing({ items }), "full batch").values();
    assert.equal(signatures?.length, MAX_BATCH);
    for (const [index, { message, bip32Tweak }] of items.entries()) {
      const signature = signatures[index] ?? new Uint8Array();
      assert.ok(tinysecp.verifySchnorr(message, outputKey(key, bip32Tweak).xOnly, signature));
    }
  });

  it("fewer signers than the threshold, a stranger, or a message that is no sighash: refused before any nonce", () => {
    const refused = (ids: readonly number[], pub: FrostSigning, code: string) =>
      assert.throws(
        () => simulate({ protocol: frostSign, ids, pub, secret: () => Scalar.one, seed: "refused" }),
        (error) => error instanceof InvalidInput && error.code === code,
      );
    refused([1], signing({}), "signers");
    refused([1, 4], signing({}), "signers");
    for (const length of [0, 31, 33]) {
      const items = [{ message: new Uint8Array(length), bip32Tweak: Scalar.one }];
      refused([1, 2], signing({ items }), "sighash-length");
    }
  });

  it("t shares interpolate the key, t-1 do not", () => {
    const shares = [...generate([1, 2, 3, 4, 5], 3, "interpolate").values()];
    const at0 = (subset: readonly KeyShare[]): Point =>
      Point.base.times(
        Scalar.sum(
          subset.map((share) => {
            let lambda = Scalar.one;
            for (const { self } of subset) {
              if (self === share.self) continue;
              const denominator = Scalar.invert(scalar(BigInt(self - share.self)));
              lambda = Scalar.times(lambda, Scalar.times(scalar(BigInt(self)), denominator));
            }
            return Scalar.times(lambda, share.secretShare);
          }),
        ),
      );
    const groupKey = shares[0]?.groupKey ?? Point.identity;
    assert.ok(at0(shares.slice(0, 3)).equals(groupKey));
    assert.ok(at0(shares.slice(2, 5)).equals(groupKey));
    assert.ok(!at0(shares.slice(0, 2)).equals(groupKey));
  });
});
