import assert from "node:assert/strict";
import { createHash, createPublicKey, generateKeyPairSync, randomBytes, verify } from "node:crypto";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import { ED25519_TORSION_SUBGROUP, ed25519 } from "@noble/curves/ed25519.js";
import fc from "fast-check";
import {
  ed25519PrivateKey,
  ed25519PublicKey,
  isEd25519PublicKey,
  signEd25519,
  verifyEd25519,
} from "../../src/crypto/ed25519.js";
import { InvalidInput } from "../../src/crypto/fault.js";

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));
const hex = (value: Uint8Array) => Buffer.from(value).toString("hex");

/** RFC 8032 section 7.1, TEST 1 to 3. */
const RFC_8032 = [
  {
    seed: "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    publicKey: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    message: "",
    signature:
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
  },
  {
    seed: "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    publicKey: "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    message: "72",
    signature:
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  },
  {
    seed: "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    publicKey: "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    message: "af82",
    signature:
      "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
  },
] as const;

const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

function littleEndian(value: bigint): Uint8Array {
  return new Uint8Array(bytes(value.toString(16).padStart(64, "0")).reverse());
}

/** OpenSSL alone, without our checks: what they are needed against. */
function opensslAccepts(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  const spki = Buffer.concat([bytes("302a300506032b6570032100"), publicKey]);
  return verify(null, message, createPublicKey({ key: spki, format: "der", type: "spki" }), signature);
}

describe("Ed25519", () => {
  it("RFC 8032 section 7.1", () => {
    for (const vector of RFC_8032) {
      const seed = bytes(vector.seed);
      const message = bytes(vector.message);
      assert.equal(hex(ed25519PublicKey(seed)), vector.publicKey);
      assert.equal(hex(signEd25519(seed, message)), vector.signature);
      assert.equal(hex(signEd25519(ed25519PrivateKey(seed), message)), vector.signature);
      assert.equal(verifyEd25519(bytes(vector.publicKey), message, bytes(vector.signature)), true);
      assert.equal(verifyEd25519(bytes(vector.publicKey), bytes("ff"), bytes(vector.signature)), false);
    }
  });

  it("agrees with an independent implementation in both directions", () => {
    const thirtyTwo = fc.uint8Array({ minLength: 32, maxLength: 32 });
    fc.assert(
      fc.property(thirtyTwo, fc.uint8Array({ maxLength: 200 }), (seed, message) => {
        const publicKey = ed25519PublicKey(seed);
        const signature = signEd25519(seed, message);
        assert.equal(hex(publicKey), hex(ed25519.getPublicKey(seed)));
        assert.equal(hex(signature), hex(ed25519.sign(message, seed)));
        assert.equal(ed25519.verify(signature, message, publicKey, { zip215: false }), true);
        assert.equal(verifyEd25519(publicKey, message, signature), true);
      }),
      { numRuns: 40 },
    );
  });

  it("any changed bit of key, message or signature is refused", () => {
    const seed = randomBytes(32);
    const message = randomBytes(40);
    const parts = [ed25519PublicKey(seed), new Uint8Array(message), signEd25519(seed, message)] as const;
    for (const [part, value] of parts.entries()) {
      for (let bit = 0; bit < value.length * 8; bit += 1) {
        const [publicKey, text, signature] = parts.map((entry) => new Uint8Array(entry));
        assert.ok(publicKey && text && signature);
        const target = [publicKey, text, signature][part] ?? publicKey;
        target[bit >> 3] = (target[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        assert.equal(verifyEd25519(publicKey, text, signature), false, `part ${part}, bit ${bit}`);
      }
    }
  });

  it("refuses S + L, which is the same scalar written twice", () => {
    const [vector] = RFC_8032;
    const signature = bytes(vector.signature);
    const scalar = BigInt(`0x${hex(signature.slice(32).reverse())}`);
    for (const twin of [scalar + ORDER, scalar + 2n * ORDER, scalar + 7n * ORDER]) {
      const bent = Buffer.concat([signature.subarray(0, 32), littleEndian(twin)]);
      assert.equal(verifyEd25519(bytes(vector.publicKey), bytes(""), bent), false);
    }
  });

  it("refuses keys of small order, under which one signature would fit every message", () => {
    let openSslForgeries = 0;
    for (const point of ED25519_TORSION_SUBGROUP) {
      const publicKey = bytes(point);
      assert.equal(isEd25519PublicKey(publicKey), false, point);
      // R = S = 0 in the sense of the group: with k a multiple of the order, any message verifies.
      const forged = Buffer.concat([ed25519.Point.ZERO.toBytes(), new Uint8Array(32)]);
      for (let attempt = 0; attempt < 32; attempt += 1) {
        const message = bytes(attempt.toString(16).padStart(2, "0"));
        if (opensslAccepts(publicKey, message, forged)) openSslForgeries += 1;
        assert.equal(verifyEd25519(publicKey, message, forged), false);
      }
    }
    assert.ok(openSslForgeries > 32, "OpenSSL refuses them by itself now: the check may go");
  });

  it("refuses non-canonical keys, which would give one key two names", () => {
    // y + p for the few y below 19, and x = 0 with the sign of x set (RFC 8032, 5.1.3, steps 1 and 4).
    const p = 2n ** 255n - 19n;
    for (let y = 0n; y < 19n; y += 1n) {
      for (const sign of [0n, 1n << 255n]) {
        const encoded = littleEndian((p + y) | sign);
        assert.equal(isEd25519PublicKey(encoded), false);
        assert.equal(verifyEd25519(encoded, bytes("00"), new Uint8Array(64)), false);
      }
    }
    for (const y of [1n, p - 1n]) assert.equal(isEd25519PublicKey(littleEndian(y | (1n << 255n))), false);
    const negativeZero = littleEndian(1n | (1n << 255n));
    const forged = Buffer.concat([ed25519.Point.ZERO.toBytes(), new Uint8Array(32)]);
    assert.equal(opensslAccepts(negativeZero, bytes("00"), forged), true);
    assert.equal(verifyEd25519(negativeZero, bytes("00"), forged), false);
  });

  it("refuses R of small order, also when the equation holds", () => {
    // R = 0, S = k a: only the key's owner can make it, and it hides nothing of a. No honest signer does.
    const seed = new Uint8Array(randomBytes(32));
    const { scalar, pointBytes } = ed25519.utils.getExtendedPublicKey(seed);
    const message = bytes("0102");
    const challenge = challengeOf(ed25519.Point.ZERO.toBytes(), pointBytes, message);
    const forged = Buffer.concat([ed25519.Point.ZERO.toBytes(), littleEndian((challenge * scalar) % ORDER)]);
    assert.equal(opensslAccepts(pointBytes, message, forged), true);
    assert.equal(verifyEd25519(pointBytes, message, forged), false);
  });

  it("is total: any lengths and bytes get an answer", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 40 }),
        fc.uint8Array({ maxLength: 40 }),
        fc.uint8Array({ maxLength: 70 }),
        (publicKey, message, signature) => {
          assert.equal(verifyEd25519(publicKey, message, signature), false);
        },
      ),
    );
    const thirtyTwo = fc.uint8Array({ minLength: 32, maxLength: 32 });
    const sixtyFour = fc.uint8Array({ minLength: 64, maxLength: 64 });
    fc.assert(
      fc.property(thirtyTwo, sixtyFour, (publicKey, signature) => {
        assert.equal(verifyEd25519(publicKey, bytes("00"), signature), false);
      }),
      { numRuns: 400 },
    );
  });

  it("refuses wrong secrets and shows none", () => {
    const isCode = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;
    assert.throws(() => ed25519PrivateKey(new Uint8Array(31)), isCode("ed25519-seed-length"));
    assert.throws(() => signEd25519(new Uint8Array(33), bytes("00")), isCode("ed25519-seed-length"));
    const other = generateKeyPairSync("ec", { namedCurve: "P-256" });
    assert.throws(() => signEd25519(other.privateKey, bytes("00")), isCode("not-an-ed25519-key"));
    assert.throws(() => signEd25519(other.publicKey, bytes("00")), isCode("not-an-ed25519-key"));
    const seed = randomBytes(32);
    const shown =
      inspect(ed25519PrivateKey(seed), { depth: 9, showHidden: true }) + JSON.stringify(ed25519PrivateKey(seed));
    assert.ok(!shown.includes(hex(seed)));
  });

  it("verifies under more keys than it keeps", () => {
    const message = bytes("07");
    const signed = Array.from({ length: 300 }, () => {
      const seed = randomBytes(32);
      return { publicKey: ed25519PublicKey(seed), signature: signEd25519(seed, message) };
    });
    for (let round = 0; round < 2; round += 1) {
      assert.ok(signed.every(({ publicKey, signature }) => verifyEd25519(publicKey, message, signature)));
    }
  });
});

function challengeOf(commitment: Uint8Array, publicKey: Uint8Array, message: Uint8Array): bigint {
  const digest = createHash("sha512").update(commitment).update(publicKey).update(message).digest();
  return BigInt(`0x${hex(digest.reverse())}`) % ORDER;
}
