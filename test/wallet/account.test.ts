import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { HDKey } from "@scure/bip32";
import * as btc from "@scure/btc-signer";
import fc from "fast-check";
import { Account, INDEX_MAX, pathText, taprootKey } from "../../src/wallet/account.js";
import { networkParameters } from "../../src/wallet/network.js";
import type { NetworkName } from "../../src/wallet/wallet-application.js";
import { BIP341_KEYS } from "./bip341-vectors.js";
import { bigintOf, CHAIN_CODE, derivedSecret, GROUP_SECRET, sampleAccount, scalarBytes } from "./sample-wallet.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const fromHex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));

function scureNetwork(name: NetworkName) {
  const { bech32, pubKeyHash, scriptHash, wif } = networkParameters(name);
  return { bech32, pubKeyHash, scriptHash, wif };
}

describe("account", () => {
  it("derives the keys and addresses that scure-bip32 and scure-btc-signer derive", () => {
    const networks: NetworkName[] = ["mainnet", "testnet", "signet", "regtest"];
    fc.assert(
      fc.property(
        fc.bigInt({ min: 1n, max: secp256k1.Point.CURVE().n - 1n }),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.boolean(),
        fc.integer({ min: 0, max: INDEX_MAX }),
        fc.constantFrom(...networks),
        (secret, chainCode, change, index, network) => {
          const groupKey = secp256k1.getPublicKey(scalarBytes(secret), true);
          const root = new HDKey({ publicKey: groupKey, chainCode });
          const expected = root.derive(`m/${pathText({ change, index })}`).publicKey;
          assert.ok(expected);
          const options = { walletId: "w", network, groupKey, chainCode };
          const taproot = new Account({ ...options, scheme: "frost" }).derive({ change, index });
          const segwit = new Account({ ...options, scheme: "cggmp24" }).derive({ change, index });
          assert.equal(hex(taproot.publicKey), hex(expected));
          const p2tr = btc.p2tr(expected.slice(1), undefined, scureNetwork(network));
          assert.equal(taproot.address, p2tr.address);
          assert.equal(hex(taproot.scriptPubKey), hex(p2tr.script));
          const p2wpkh = btc.p2wpkh(expected, scureNetwork(network));
          assert.equal(segwit.address, p2wpkh.address);
          assert.equal(hex(segwit.scriptPubKey), hex(p2wpkh.script));
        },
      ),
      { numRuns: 60 },
    );
  });

  it("returns tweaks under which secret and output key belong together", () => {
    for (const scheme of ["frost", "cggmp24"] as const) {
      for (let index = 0; index < 20; index++) {
        const key = sampleAccount(scheme).derive({ change: index % 2 === 1, index });
        const point = secp256k1.Point.BASE.multiply((GROUP_SECRET + bigintOf(key.tweak)) % secp256k1.Point.CURVE().n);
        assert.equal(hex(point.toBytes(true)), hex(key.publicKey));
        const final = secp256k1.getPublicKey(derivedSecret(key), true);
        assert.equal(hex(final.slice(1)), hex(key.taproot?.outputKey ?? key.publicKey.slice(1)));
        if (key.taproot !== undefined) assert.equal(final[0] === 3, key.taproot.outputKeyIsOdd);
      }
    }
  });

  it("BIP32 test vector 2: m/0 and its unhardened public derivation", () => {
    // BIP32, test vector 2, chain m and chain m/0.
    const root = HDKey.fromExtendedKey(
      "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
    );
    const child = HDKey.fromExtendedKey(
      "xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH",
    );
    assert.ok(root.publicKey && root.chainCode && child.publicKey && child.chainCode);
    const account = new Account({
      walletId: "w",
      scheme: "cggmp24",
      network: "mainnet",
      groupKey: root.publicKey,
      chainCode: root.chainCode,
    });
    const key = account.derive({ change: false, index: 7 });
    assert.equal(hex(key.publicKey), hex(child.deriveChild(7).publicKey ?? new Uint8Array(0)));
  });

  it("BIP86 test vectors: m/86'/0'/0' below mnemonic 'abandon … about'", () => {
    // BIP86, account 0: the extended public key and its first receiving, second receiving and first change address.
    const account = HDKey.fromExtendedKey(
      "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ",
    );
    assert.ok(account.publicKey && account.chainCode);
    const wallet = new Account({
      walletId: "w",
      scheme: "frost",
      network: "mainnet",
      groupKey: account.publicKey,
      chainCode: account.chainCode,
    });
    const expected: [boolean, number, string, string, string][] = [
      [
        false,
        0,
        "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115",
        "a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c",
        "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
      ],
      [
        false,
        1,
        "83dfe85a3151d2517290da461fe2815591ef69f2b18a2ce63f01697a8b313145",
        "a82f29944d65b86ae6b5e5cc75e294ead6c59391a1edc5e016e3498c67fc7bbb",
        "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
      ],
      [
        true,
        0,
        "399f1b2f4393f29a18c937859c5dd8a77350103157eb880f02e8c08214277cef",
        "882d74e5d0572d5a816cef0041a96b6c1de832f6f9676d9605c44d5e9a97d3dc",
        "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7",
      ],
    ];
    for (const [change, index, internalKey, outputKey, address] of expected) {
      const key = wallet.derive({ change, index });
      assert.equal(hex(key.taproot?.internalKey ?? new Uint8Array(0)), internalKey);
      assert.equal(hex(key.taproot?.outputKey ?? new Uint8Array(0)), outputKey);
      assert.equal(key.address, address);
    }
  });

  it("BIP341 wallet test vector: tweak and output key without scripts", () => {
    for (const { internalPubkey, tweak, tweakedPubkey } of BIP341_KEYS) {
      const key = taprootKey(fromHex(`02${internalPubkey}`));
      assert.equal(hex(key.tapTweak), tweak);
      assert.equal(hex(key.outputKey), tweakedPubkey);
    }
  });

  it("refuses bad keys, bad chain codes and indices out of range", () => {
    const options = { walletId: "w", scheme: "frost", network: "regtest", chainCode: CHAIN_CODE } as const;
    const groupKey = sampleAccount().groupKey;
    assert.throws(() => new Account({ ...options, groupKey: new Uint8Array(33) }), { code: "group-key-invalid" });
    assert.throws(() => new Account({ ...options, groupKey: groupKey.slice(1) }), { code: "group-key-invalid" });
    const chainCode = new Uint8Array(31);
    assert.throws(() => new Account({ ...options, groupKey, chainCode }), { code: "chain-code-invalid" });
    for (const index of [-1, 0.5, INDEX_MAX + 1, Number.NaN]) {
      assert.throws(() => sampleAccount().derive({ change: false, index }), { code: "index-out-of-range" });
    }
  });
});
