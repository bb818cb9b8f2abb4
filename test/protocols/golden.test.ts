import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { Point, type Scalar } from "../../src/crypto/curve.js";
import { PreparedNonces, preparedNoncesId } from "../../src/protocols/frost/prepared-nonces.js";
import {
  decodeKeyShare,
  encodeKeyShare,
  encodePublicKeyPackage,
  type KeyShare,
  keyDigest,
} from "../../src/protocols/key-share.js";
import { keygen } from "../../src/protocols/keygen.js";
import { encodeEnvelope, envelopeDigest, signEnvelope } from "../../src/session/envelope.js";
import { partyId } from "../../src/session/party.js";
import { sessionDigest } from "../../src/session/session.js";
import { signAs, testGroup } from "../session/simulation.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const golden = JSON.parse(readFileSync("test/fixtures/golden/formats.golden.json", "utf8")) as {
  readonly keyShare: string;
  readonly preparedNonces: string;
  readonly digests: Readonly<Record<string, string>>;
};

/** Formats that are stored or signed: a change here breaks old key shares, old evidence and running peers. */
describe("golden formats", () => {
  const share: KeyShare = {
    scheme: "frost",
    threshold: 2,
    self: partyId(1),
    secretShare: 3n as Scalar,
    publicShares: new Map([3n, 5n, 7n].map((x, index) => [partyId(index + 1), Point.base.times(x as Scalar)])),
    groupKey: Point.base,
    chainCode: new Uint8Array(32).fill(9),
  };

  it("a key share of version 0.1 decodes for ever", () => {
    const stored = golden.keyShare;
    assert.equal(hex(encodeKeyShare(share)), stored);
    const decoded = decodeKeyShare(new Uint8Array(Buffer.from(stored, "hex")));
    assert.equal(decoded.secretShare, 3n);
    assert.equal(decoded.threshold, 2);
    assert.equal(decoded.publicShares.size, 3);
  });

  it("the public package holds no secret", () => {
    const bytes = encodePublicKeyPackage(share);
    assert.ok(!hex(bytes).includes(`${hex(new Uint8Array(31))}03`));
    assert.throws(() => decodeKeyShare(bytes));
  });

  it("FROST nonces of version 0.1 are read for ever, under the same id", () => {
    const stored = new Uint8Array(Buffer.from(golden.preparedNonces, "hex"));
    const list = [3n, 5n].map((d, index) => ({
      party: partyId(index + 1),
      hiding: Point.base.times(d as Scalar),
      binding: Point.base.times((d + 1n) as Scalar),
    }));
    const prepared = PreparedNonces.decode(stored);
    assert.equal(hex(prepared.id), hex(preparedNoncesId(keyDigest(share), list)));
    assert.equal(prepared.self, 1);
    const nonces = PreparedNonces.decode(stored).take().spend();
    assert.deepEqual([nonces.hiding, nonces.binding], [3n, 4n]);
    assert.equal(hex(prepared.encode()), golden.preparedNonces);
  });

  it("digests of keys, sessions and envelopes are what they were", () => {
    const context = {
      sessionId: new Uint8Array(16).fill(1),
      group: testGroup([1, 2, 3]),
      pub: { scheme: "frost" as const, threshold: 2, walletId: "wallet" },
    };
    const ssid = sessionDigest(keygen, context);
    const envelope = signEnvelope(
      {
        ssid,
        round: "commitment",
        sender: partyId(1),
        recipient: 0,
        echo: new Uint8Array(32).fill(2),
        payload: Uint8Array.of(1, 2, 3),
      },
      signAs(1),
    );
    assert.deepEqual(
      {
        key: hex(keyDigest(share)),
        session: hex(ssid),
        envelope: hex(envelopeDigest(envelope)),
        wire: hex(encodeEnvelope(envelope)),
      },
      golden.digests,
    );
  });
});
