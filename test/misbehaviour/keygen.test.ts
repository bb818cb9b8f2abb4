import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { KeyShare } from "../../src/protocols/key-share.js";
import { type KeygenParameters, keygen } from "../../src/protocols/keygen.js";
import { decodeEnvelope, encodeEnvelope, signEnvelope } from "../../src/session/envelope.js";
import { partyId } from "../../src/session/party.js";
import type { SessionContext } from "../../src/session/session.js";
import { assertNamed, type Loose, otherScalar } from "../protocols/cggmp24/dishonesty.js";
import { evidenceOf, type Run, signAs, simulate } from "../session/simulation.js";
import { keygen as table } from "./expectations.js";
import { askJudge, describeScene } from "./scene.js";

const CHEAT = 3;
const run = (): Run<KeygenParameters, undefined, KeyShare> => ({
  protocol: keygen,
  ids: [1, 2, CHEAT],
  pub: { scheme: "cggmp24" as const, threshold: 2, walletId: "wallet" },
  secret: () => undefined,
  seed: "keygen cheats",
});

describeScene({ name: "key generation, 2-of-3,", table, cheat: CHEAT, run });

describe("key generation names whoever", () => {
  it("sends a wrong share to one party only: that party alone proves it", () => {
    assertNamed(run(), {
      liars: { [CHEAT]: { share: (m: Loose, to) => (to === 2 ? otherScalar(m.share) : undefined) } },
      check: "share-on-polynomial",
      victims: [2],
    });
  });

  it("shows two parties different commitments; a judge in another process agrees, and about nobody else", () => {
    const outcome = simulate({
      ...run(),
      dishonest: [CHEAT],
      wire: ({ from, to, bytes }) => {
        const envelope = decodeEnvelope(bytes);
        if (from !== CHEAT || to !== 1 || envelope?.round !== "commitment") return bytes;
        const payload = Uint8Array.of(0x0a, 32, ...new Uint8Array(32).fill(7));
        const { ssid, round, echo } = envelope;
        const fields = { ssid, round, echo, sender: partyId(CHEAT), recipient: 0 as const, payload };
        return encodeEnvelope(signEnvelope(fields, signAs(CHEAT)));
      },
    });
    const [evidence] = evidenceOf(outcome.progress.get(partyId(1)));
    assert.ok(evidence !== undefined && evidence.check === "equivocation");
    assert.equal(evidence.accused, CHEAT);
    const context = outcome.context as SessionContext<KeygenParameters>;
    const accusations = [evidence, { ...evidence, accused: 2 }, { ...evidence, accuser: CHEAT }];
    assert.deepEqual(askJudge(keygen.name, context, accusations), [true, false, false]);
  });
});
