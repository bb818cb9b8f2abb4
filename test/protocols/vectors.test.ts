import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { schnorr, schnorr_FROST, secp256k1_FROST } from "@noble/curves/secp256k1.js";
import * as tinysecp from "tiny-secp256k1";

const hex = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(text, "hex"));
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

describe("RFC 9591, appendix E.5", () => {
  const v = JSON.parse(readFileSync("test/fixtures/vectors/rfc9591-secp256k1.json", "utf8")) as {
    groupSecretKey: string;
    groupPublicKey: string;
    message: string;
    shares: Record<string, string>;
    signers: {
      party: number;
      hidingRandomness: string;
      bindingRandomness: string;
      hidingNonce: string;
      bindingNonce: string;
      hidingCommitment: string;
      bindingCommitment: string;
      signatureShare: string;
    }[];
    signature: string;
  };
  const suite = secp256k1_FROST;
  const id = (party: number | string) => suite.Identifier.fromNumber(Number(party));
  const verifyingShares = Object.fromEntries(
    Object.entries(v.shares).map(([party, share]) => [
      id(party),
      tinysecp.pointFromScalar(hex(share), true) ?? new Uint8Array(),
    ]),
  );
  const pub = { signers: { min: 2, max: 3 }, commitments: [hex(v.groupPublicKey)], verifyingShares } as never;

  it("nonces, commitments, shares and the signature are the published ones", () => {
    const rounds = v.signers.map((signer) => {
      const secret = { identifier: id(signer.party), signingShare: hex(v.shares[signer.party] ?? "") };
      const randomness = [signer.hidingRandomness, signer.bindingRandomness].map(hex);
      const generated = suite.commit(secret, (() => randomness.shift() ?? new Uint8Array()) as never);
      assert.equal(text(generated.nonces.hiding), signer.hidingNonce);
      assert.equal(text(generated.nonces.binding), signer.bindingNonce);
      assert.equal(text(generated.commitments.hiding), signer.hidingCommitment);
      assert.equal(text(generated.commitments.binding), signer.bindingCommitment);
      return { signer, secret, generated };
    });
    const commitments = rounds.map(({ generated }) => generated.commitments);
    const shares = Object.fromEntries(
      rounds.map(({ signer, secret, generated }) => {
        const share = suite.signShare(secret, pub, generated.nonces, commitments, hex(v.message));
        assert.equal(text(share), signer.signatureShare);
        assert.ok(suite.verifyShare(pub, commitments, hex(v.message), secret.identifier, share));
        return [secret.identifier, share];
      }),
    );
    assert.equal(text(suite.aggregate(pub, commitments, hex(v.message), shares)), v.signature);
  });

  it("a spent nonce cannot sign again", () => {
    const secret = { identifier: id(1), signingShare: hex(v.shares["1"] ?? "") };
    const one = suite.commit(secret);
    const other = suite.commit({ identifier: id(3), signingShare: hex(v.shares["3"] ?? "") });
    const list = [one.commitments, other.commitments];
    suite.signShare(secret, pub, one.nonces, list, hex("00"));
    assert.throws(() => suite.signShare(secret, pub, one.nonces, list, hex("01")), /already used/);
  });
});

describe("BIP340 test vectors", () => {
  const rows = readFileSync("test/fixtures/vectors/bip340.csv", "utf8").trim().split("\n").slice(1);
  for (const row of rows) {
    const [index, secret, publicKey, aux, message, signature, result] = row.split(",").map((field) => field.trim());
    it(`vector ${index}`, () => {
      const [sig, msg, key] = [hex(signature ?? ""), hex(message ?? ""), hex(publicKey ?? "")];
      const expected = result === "TRUE";
      assert.equal(schnorr.verify(sig, msg, key), expected);
      let frost: boolean;
      try {
        frost = schnorr_FROST.verify(sig as never, msg, key);
      } catch {
        frost = false;
      }
      assert.equal(frost, expected, "the suite that signs agrees");
      let independent: boolean;
      try {
        independent = tinysecp.verifySchnorr(msg, key, sig);
      } catch {
        independent = false;
      }
      assert.equal(independent, expected, "libsecp256k1 agrees");
      if (secret !== undefined && secret !== "") {
        assert.equal(text(schnorr.sign(msg, hex(secret), hex(aux ?? ""))), text(sig));
      }
    });
  }
  assert.equal(rows.length, 15);
});
