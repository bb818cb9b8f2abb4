import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { describe, it } from "node:test";
import { schnorr } from "@noble/curves/secp256k1.js";
import bitcore from "bitcore-lib";
import { flawed, scriptFailure } from "../../../src/devnet/chain/script-check.js";

const require = createRequire(import.meta.url);

interface WalletVectors {
  readonly keyPathSpending: readonly {
    readonly given: { readonly utxosSpent: readonly { readonly scriptPubKey: string; readonly amountSats: number }[] };
    readonly inputSpending: readonly { readonly given: { readonly txinIndex: number; readonly hashType: number } }[];
    readonly auxiliary: { readonly fullySignedTx: string };
  }[];
}

describe("script check", () => {
  it("BIP341 wallet vectors: the fully signed transaction is accepted, and refused when the value of a segwit input changes", () => {
    // Shipped in bitcore-lib's own package, a copy of Bitcoin Core's src/test/data/bip341_wallet_vectors.json.
    const path = require.resolve("bitcore-lib/test/data/bitcoind/wallet_test_vectors.json");
    const vectors = JSON.parse(readFileSync(path, "utf8")) as WalletVectors;
    const [spending] = vectors.keyPathSpending;
    assert.ok(spending);
    const spent = spending.given.utxosSpent.map((utxo) => ({
      valueSat: BigInt(utxo.amountSats),
      scriptPubKey: Buffer.from(utxo.scriptPubKey, "hex"),
    }));
    const raw = Buffer.from(spending.auxiliary.fullySignedTx, "hex");
    assert.equal(scriptFailure(raw, spent), undefined);
    assert.equal(new Set(spending.inputSpending.map(({ given }) => given.hashType)).size, 7);
    for (const [index, output] of spent.entries()) {
      if (output.scriptPubKey[0] === 0x76) continue; // a pre-segwit signature does not commit to the value
      const changed = spent.map((other) => (other === output ? { ...other, valueSat: other.valueSat + 1n } : other));
      assert.notEqual(scriptFailure(raw, changed), undefined, `input ${index} does not commit to its value`);
    }
  });

  it("bitcore's own Schnorr check refuses keys whose x begins with a zero byte, ours accepts them", () => {
    const message = Buffer.alloc(32, 7);
    for (const secret of [153, 246, 886, 1158]) {
      const secretKey = Buffer.alloc(32);
      secretKey.writeUInt32BE(secret, 28);
      const publicKey = Buffer.from(schnorr.getPublicKey(secretKey));
      const signature = Buffer.from(schnorr.sign(message, secretKey, new Uint8Array(32)));
      assert.equal(publicKey[0], 0);
      assert.equal(flawed.schnorrVerify(publicKey, message, signature), false);
      assert.equal(bitcore.crypto.Schnorr.verify(publicKey, message, signature), true);
      signature.writeUInt8((signature[0] ?? 0) ^ 1, 0);
      assert.equal(bitcore.crypto.Schnorr.verify(publicKey, message, signature), false);
    }
  });
});
