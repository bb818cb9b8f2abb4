import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import { Point } from "../../src/crypto/curve.js";
import { decodeAuxInfo, encodeAuxInfo } from "../../src/protocols/cggmp24/aux-record.js";
import { Presignature } from "../../src/protocols/cggmp24/presignature.js";
import { decodeKeyShare, encodeKeyShare } from "../../src/protocols/key-share.js";
import { decodeEnvelope } from "../../src/session/envelope.js";
import { protocols } from "../misbehaviour/protocols.js";
import { type GoldenFile, replay } from "./golden-sessions.js";

const { sessions, records, groupKey } = JSON.parse(
  gunzipSync(readFileSync("test/fixtures/golden/cggmp24.golden.json.gz")).toString("utf8"),
) as GoldenFile;
const bytes = (text: string | undefined): Uint8Array => new Uint8Array(Buffer.from(text ?? "", "base64"));

/** Running peers and old evidence need what was said to mean the same: bytes, transcripts, equations. */
describe("recorded sessions", () => {
  for (const session of sessions) {
    it(`${session.name}: the same digest, the same bytes, and every check says what it said`, () => {
      const { ssid, payloads, encodedAgain, verdicts } = replay(session);
      assert.equal(ssid, session.ssid);
      assert.deepEqual(encodedAgain, payloads);
      assert.deepEqual(verdicts, session.verdicts);
      const failed = Object.entries(verdicts).filter(([, holds]) => !holds);
      assert.equal(failed.length > 0, session.name.startsWith("failed"), JSON.stringify(failed));
    });
  }

  it("hold a verdict of every check, and one of guilty for the last step of a failed nonce", () => {
    const guilty = sessions.flatMap(({ verdicts }) =>
      Object.entries(verdicts).flatMap(([place, holds]) => (holds ? [] : [place])),
    );
    assert.ok(guilty.includes("failed-nonce/product/2/1"), guilty.join());
    for (const { name, checks } of protocols) {
      const places = sessions.filter(({ protocol }) => protocol === name).flatMap((one) => Object.keys(one.verdicts));
      for (const { id } of checks)
        assert.ok(
          places.some((place) => place.startsWith(`${id}/`)),
          `${name}, ${id}`,
        );
    }
  });

  it("hold a message of every round of every protocol", () => {
    for (const { name, rounds } of protocols) {
      const said = new Set(
        sessions
          .filter(({ protocol }) => protocol === name)
          .flatMap(({ envelopes }) => envelopes.map((envelope) => decodeEnvelope(bytes(envelope))?.round)),
      );
      for (const { id } of rounds) assert.ok(said.has(id), `${name}, ${id}`);
    }
  });
});

describe("stored records of security128", () => {
  it("a key share, aux info and a presignature decode, and encode to the same bytes", () => {
    assert.deepEqual(encodeKeyShare(decodeKeyShare(bytes(records["keyShare"]))), bytes(records["keyShare"]));
    const aux = decodeAuxInfo(bytes(records["auxInfo"]));
    assert.equal(aux.profile.name, "security128");
    assert.deepEqual(Buffer.from(encodeAuxInfo(aux)), Buffer.from(bytes(records["auxInfo"])));
    const presignature = Presignature.decode(bytes(records["presignature"]), Point.parse(bytes(groupKey)));
    assert.deepEqual(Buffer.from(presignature.encode()), Buffer.from(bytes(records["presignature"])));
  });
});
