import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import { Point, q, Scalar } from "../../src/crypto/curve.js";
import { InvalidInput } from "../../src/crypto/fault.js";
import { EcdsaSignature } from "../../src/protocols/cggmp24/sign.js";
import { verifyEcdsa } from "../../src/wallet/transaction-finalizer.js";

/** Project Wycheproof's file format, as far as it is read here. */
interface Vectors {
  readonly numberOfTests: number;
  readonly testGroups: readonly {
    readonly publicKey: { readonly uncompressed: string };
    readonly tests: readonly {
      readonly tcId: number;
      readonly comment: string;
      readonly msg: string;
      readonly sig: string;
      readonly result: "valid" | "invalid";
    }[];
  }[];
}

interface Vector {
  readonly name: string;
  readonly publicKey: Uint8Array;
  readonly message: Uint8Array;
  readonly signature: Uint8Array;
  readonly valid: boolean;
}

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const SIGHASH_ALL = 1;

function vectorsOf(file: string, count: number): readonly Vector[] {
  const json = gunzipSync(readFileSync(`test/fixtures/wycheproof/${file}_test.json.gz`)).toString("utf8");
  const { numberOfTests, testGroups } = JSON.parse(json) as Vectors;
  const vectors = testGroups.flatMap(({ publicKey, tests }) => {
    const key = Buffer.from(publicKey.uncompressed, "hex");
    const compressed = Uint8Array.of(2 + ((key[64] ?? 0) & 1), ...key.subarray(1, 33));
    return tests.map(({ tcId, comment, msg, sig, result }) => ({
      name: `${tcId}: ${comment}`,
      publicKey: compressed,
      message: new Uint8Array(createHash("sha256").update(bytes(msg)).digest()),
      signature: bytes(sig),
      valid: result === "valid",
    }));
  });
  assert.equal(vectors.length, numberOfTests);
  assert.equal(vectors.length, count);
  return vectors;
}

/** What the wallet checks before a transaction leaves, over strict DER. */
const acceptsDer = ({ signature, message, publicKey }: Vector): boolean =>
  verifyEcdsa(Uint8Array.of(...signature, SIGHASH_ALL), message, publicKey);

/** What a signing session checks before it releases a signature, over r and s as CGGMP24 computes them. */
function acceptsCompact({ signature, message, publicKey }: Vector): boolean {
  if (signature.length !== 64) return false;
  try {
    const [r, s] = [Scalar.parse(signature.subarray(0, 32)), Scalar.parse(signature.subarray(32))];
    return new EcdsaSignature(r, s).verifies({ bytes: message }, Point.parse(publicKey));
  } catch (refusal) {
    if (refusal instanceof InvalidInput) return false;
    throw refusal;
  }
}

describe("Wycheproof, ECDSA over secp256k1 with SHA-256", () => {
  it("Bitcoin's rules: every one of 463 signatures is accepted or refused as it should be", () => {
    const vectors = vectorsOf("ecdsa_secp256k1_sha256_bitcoin", 463);
    for (const vector of vectors) assert.equal(acceptsDer(vector), vector.valid, vector.name);
    assert.equal(vectors.filter(({ valid }) => valid).length, 162);
  });

  it("DER of any s: 476 signatures; the valid ones of high s are refused, as relay policy does", () => {
    let high = 0;
    for (const vector of vectorsOf("ecdsa_secp256k1_sha256", 476)) {
      const s = Buffer.from(vector.signature.subarray(-(vector.signature.at(5 + (vector.signature[3] ?? 0)) ?? 0)));
      const isHigh = vector.valid && BigInt(`0x${s.toString("hex")}`) > q >> 1n;
      if (isHigh) high += 1;
      assert.equal(acceptsDer(vector), vector.valid && !isHigh, vector.name);
    }
    assert.ok(high > 50, `${high}`);
  });

  it("r and s as 64 bytes: 252 signatures, normalized to low s before they are verified", () => {
    for (const vector of vectorsOf("ecdsa_secp256k1_sha256_p1363", 252)) {
      assert.equal(acceptsCompact(vector), vector.valid, vector.name);
    }
  });

  it("another sighash byte, or none, is refused", () => {
    const vector = vectorsOf("ecdsa_secp256k1_sha256_bitcoin", 463).find(({ valid }) => valid);
    assert.ok(vector !== undefined);
    const { signature, message, publicKey } = vector;
    assert.ok(acceptsDer(vector));
    assert.equal(verifyEcdsa(signature, message, publicKey), false);
    for (const flag of [0, 2, 3, 0x81]) {
      assert.equal(verifyEcdsa(Uint8Array.of(...signature, flag), message, publicKey), false);
    }
  });
});
