import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import { InvalidInput } from "../../src/crypto/fault.js";
import { systemRandom } from "../../src/node/ambient.js";
import {
  DEFAULT_COST,
  formatEnvelope,
  MAX_SEALED_BYTES,
  PassphraseKey,
  parseEnvelope,
  seal,
  unseal,
} from "../../src/storage/sealed-envelope.js";
import { passphrase, TEST_COST } from "./scratch.js";

const purpose = "test";
const plaintext = new TextEncoder().encode("the share of node-1");
const code = (expected: string) => (error: unknown) => error instanceof InvalidInput && error.code === expected;

async function sealed(): Promise<{ key: PassphraseKey; text: string }> {
  const key = await PassphraseKey.fresh(passphrase(), systemRandom, TEST_COST);
  return { key, text: formatEnvelope(seal(plaintext, { key, purpose }, systemRandom)) };
}

async function open(text: string, words?: string): Promise<Uint8Array> {
  const envelope = parseEnvelope(text, purpose);
  return unseal(envelope, await PassphraseKey.of(passphrase(words), envelope, TEST_COST));
}

describe("sealed envelope", () => {
  it("opens with its passphrase", async () => {
    const { text } = await sealed();
    assert.deepEqual(Buffer.from(await open(text)), Buffer.from(plaintext));
  });

  it("opens at the default cost", async () => {
    const key = await PassphraseKey.fresh(passphrase(), systemRandom);
    assert.equal(key.kdf.memoryKib, DEFAULT_COST.memoryKib);
    const envelope = parseEnvelope(formatEnvelope(seal(plaintext, { key, purpose }, systemRandom)), purpose);
    const again = await PassphraseKey.of(passphrase(), envelope);
    assert.deepEqual(Buffer.from(unseal(envelope, again)), Buffer.from(plaintext));
  });

  it("tells a wrong passphrase from a damaged file", async () => {
    const { text } = await sealed();
    await assert.rejects(open(text, "another passphrase"), code("wrong-passphrase"));
  });

  it("two envelopes of one plaintext share neither nonce nor ciphertext", async () => {
    const { key } = await sealed();
    const [first, second] = [
      seal(plaintext, { key, purpose }, systemRandom),
      seal(plaintext, { key, purpose }, systemRandom),
    ];
    assert.notDeepEqual(first.nonce, second.nonce);
    assert.notDeepEqual(first.ciphertext, second.ciphertext);
  });

  it("finds every truncation and every flipped character without the passphrase", async () => {
    const { text } = await sealed();
    for (let length = 0; length < text.length - 2; length += 7) {
      assert.throws(() => parseEnvelope(text.slice(0, length), purpose), InvalidInput, `cut at ${length}`);
    }
    const compact = JSON.stringify(JSON.parse(text));
    for (let at = 0; at < compact.length; at++) {
      const letter = compact[at] === "A" ? "B" : "A";
      const damaged = compact.slice(0, at) + letter + compact.slice(at + 1);
      try {
        // The last letter of base64 has bits that mean nothing: then the bytes are the same.
        assert.deepEqual(parseEnvelope(damaged, purpose), parseEnvelope(text, purpose), `flipped at ${at}`);
      } catch (error) {
        assert.ok(error instanceof InvalidInput, `flipped at ${at}: ${error}`);
      }
    }
  });

  it("refuses a field altered together with the checksum", async () => {
    const { key } = await sealed();
    const envelope = seal(plaintext, { key, purpose }, systemRandom);
    envelope.ciphertext[0] = (envelope.ciphertext[0] ?? 0) ^ 1;
    assert.throws(() => unseal(envelope, key), code("envelope-tampered"));
    const header = seal(plaintext, { key, purpose }, systemRandom);
    header.version = 2;
    assert.throws(() => unseal(header, key), code("envelope-tampered"));
  });

  it("refuses foreign formats, purposes and versions by name", async () => {
    const { text } = await sealed();
    const edit = (fields: object) => JSON.stringify({ ...(JSON.parse(text) as object), ...fields });
    assert.throws(() => parseEnvelope(text, "another"), code("envelope-foreign"));
    assert.throws(() => parseEnvelope("{}", purpose), code("envelope-foreign"));
    assert.throws(() => parseEnvelope(edit({ version: 2 }), purpose), code("envelope-version"));
    assert.throws(() => parseEnvelope("not json", purpose), code("envelope-corrupted"));
  });

  it("bounds the cost it accepts in both directions", async () => {
    const { key } = await sealed();
    const envelope = seal(plaintext, { key, purpose }, systemRandom);
    await assert.rejects(PassphraseKey.of(passphrase(), envelope), code("envelope-cost"), "too cheap");
    assert.ok(envelope.kdf);
    envelope.kdf.memoryKib = 1024 * 1024 + 1;
    await assert.rejects(PassphraseKey.of(passphrase(), envelope), code("envelope-cost"), "too dear");
  });

  it("bounds the plaintext", async () => {
    const { key } = await sealed();
    const options = { key, purpose };
    assert.throws(() => seal(new Uint8Array(MAX_SEALED_BYTES + 1), options, systemRandom), code("plaintext-too-large"));
  });

  it("opens what version 1 wrote", async () => {
    const bytes = await open(readFileSync("test/storage/sealed-envelope.golden.json", "utf8"));
    assert.equal(Buffer.from(bytes).toString(), "written once, read for ever");
  });

  it("prints no secret", async () => {
    const { key } = await sealed();
    const secret = passphrase();
    assert.equal(inspect({ secret, key }), "{ secret: [secret, 28 bytes], key: [passphrase key] }");
    assert.equal(JSON.stringify({ secret, key }), '{"secret":"[secret, 28 bytes]","key":"[passphrase key]"}');
    secret.erase();
    assert.throws(() => secret.reveal(), /erased/);
  });
});
