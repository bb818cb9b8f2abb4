import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as libsecp256k1 from "tiny-secp256k1";
import { lagrangeCoefficient, Point, Scalar } from "../../src/crypto/curve.js";
import { bind } from "../../src/protocols/frost/binding.js";
import { pairToProto } from "../../src/protocols/frost/nonce-round.js";
import { SigningNonces } from "../../src/protocols/frost/nonces.js";
import { signatureShare, verifyShare } from "../../src/protocols/frost/share.js";
import {
  frostSignPrepared,
  type PreparedSecret,
  type PreparedSigning,
} from "../../src/protocols/frost/sign-prepared.js";
import { outputKey, outputShare, outputVerifyingShare } from "../../src/protocols/frost/taproot.js";
import { partyId } from "../../src/session/party.js";
import { of } from "../protocols/cggmp24/ceremony.js";
import { assertNamed, type Loose, otherScalar } from "../protocols/cggmp24/dishonesty.js";
import { generate, prepare, secretOf } from "../protocols/frost-ceremony.js";
import { type Outcome, type Run, SeededRandom } from "../session/simulation.js";
import { besideWrongShare, frostSignPrepared as table } from "./expectations.js";
import { askJudge, describeScene } from "./scene.js";

const CHEAT = 3;
const ids = [1, 2, CHEAT];
const seed = "prepared frost cheats";
const shares = generate(ids, 3, seed);
const prepared = prepare(shares, ids, 2, seed);
const key = of(shares, partyId(1));
const random = new SeededRandom(seed);
const items = of(prepared, partyId(1)).map(({ id }) => ({
  message: random.bytes(32),
  bip32Tweak: Scalar.random(random),
  noncesId: id,
}));
const authorization = random.bytes(32);

const run = (): Run<PreparedSigning, PreparedSecret, readonly Uint8Array[]> => ({
  protocol: frostSignPrepared,
  ids,
  pub: { key, items, authorization },
  secret: secretOf(shares, prepared, [0, 1]),
  seed,
});

/** The signatures that the honest signers hold, each under its own derived key. */
function allVerify(outcome: Outcome<readonly Uint8Array[]>): void {
  for (const party of [1, 2]) {
    const progress = outcome.progress.get(partyId(party));
    assert.ok(progress?.state === "done" && progress.output.length === items.length);
    for (const [index, { message, bip32Tweak }] of items.entries()) {
      const signature = progress.output[index] ?? new Uint8Array();
      assert.ok(libsecp256k1.verifySchnorr(message, outputKey(key, bip32Tweak).xOnly, signature));
    }
  }
}

describeScene({
  name: "FROST signing with nonces made ahead, 3-of-3,",
  table,
  cheat: CHEAT,
  unseen: allVerify,
  run,
});

const wrongShare = { shares: (m: Loose) => otherScalar(m.shares[0].share) };

describeScene({
  name: "FROST signing with nonces made ahead, beside its own wrong share,",
  table: besideWrongShare,
  cheat: CHEAT,
  prelude: { [CHEAT]: wrongShare },
  run,
});

describeScene({
  name: "FROST signing with nonces made ahead, beside another's wrong share,",
  table: besideWrongShare,
  cheat: CHEAT,
  prelude: { 2: wrongShare },
  alsoNamed: (check) => (check === "signature-share" ? [2] : []),
  run,
});

describe("FROST signing with nonces made ahead names whoever", () => {
  it("swaps its shares", () => {
    assertNamed(run(), {
      liars: { [CHEAT]: { shares: (m: Loose) => m.shares.reverse() } },
      check: "signature-share",
    });
  });

  it("signs with fresh nonces, and sends commitments that explain its share", () => {
    const signing = run();
    const { secretShare, nonces } = signing.secret(partyId(CHEAT));
    const [item] = items;
    assert.ok(item !== undefined);
    const explain = (m: Loose) => {
      const fresh = SigningNonces.generate(secretShare, new SeededRandom("fresh"));
      const list = (nonces[0]?.list ?? []).map((entry) =>
        entry.party === CHEAT ? { party: entry.party, hiding: fresh.hiding, binding: fresh.binding } : entry,
      );
      const output = outputKey(key, item.bip32Tweak);
      const lambda_i = lagrangeCoefficient(CHEAT, ids);
      const signer = { self: partyId(CHEAT), secretShare: outputShare(secretShare, output), lambda_i, nonces: fresh };
      const binding = bind({ list, Q: output.Q, message: item.message });
      const share = signatureShare(signer, binding);
      const verifyingShare = outputVerifyingShare(key, partyId(CHEAT), output) ?? Point.identity;
      assert.ok(verifyShare({ party: partyId(CHEAT), share, verifyingShare, lambda_i }, binding), "it does explain it");
      m.shares[0] = { ...m.shares[0], share: Scalar.toProto(share), commitments: list.map(pairToProto) };
    };
    assertNamed(signing, { liars: { [CHEAT]: { shares: explain } }, check: "signature-share" });
  });

  it("and proves nothing in a session of another authorization or of other nonces", () => {
    const { context, evidence } = assertNamed(run(), { liars: { [CHEAT]: wrongShare }, check: "signature-share" });
    const [first, ...rest] = items;
    assert.ok(first !== undefined);
    const verdictsUnder = (changed: Partial<PreparedSigning>) =>
      askJudge(frostSignPrepared.name, { ...context, pub: { ...context.pub, ...changed } }, evidence);
    const [all, none] = [true, false].map((verdict) => evidence.map(() => verdict));
    assert.deepEqual(verdictsUnder({}), all);
    assert.deepEqual(verdictsUnder({ authorization: new Uint8Array(1) }), none);
    assert.deepEqual(verdictsUnder({ items: [{ ...first, noncesId: new Uint8Array(32) }, ...rest] }), none);
  });
});
