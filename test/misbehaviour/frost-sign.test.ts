import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Scalar } from "../../src/crypto/curve.js";
import { type FrostSigning, frostSign } from "../../src/protocols/frost/sign.js";
import { keygen } from "../../src/protocols/keygen.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { of } from "../protocols/cggmp24/ceremony.js";
import { assertNamed, type Loose, otherScalar } from "../protocols/cggmp24/dishonesty.js";
import { outputs, type Run, SeededRandom, simulate } from "../session/simulation.js";
import { frostSign as table } from "./expectations.js";
import { askJudge, describeScene } from "./scene.js";

const ids = [1, 2, 3];
const pub = { scheme: "frost" as const, threshold: 3, walletId: "wallet" };
const shares = outputs(simulate({ protocol: keygen, ids, pub, secret: () => undefined, seed: "frost cheats" }));
const random = new SeededRandom("frost cheats");
const items = [0, 1].map(() => ({ message: random.bytes(32), bip32Tweak: Scalar.random(random) }));
const authorization = random.bytes(32);

const run = (): Run<FrostSigning, Scalar, readonly Uint8Array[]> => ({
  protocol: frostSign,
  ids,
  pub: { key: of(shares, partyId(1)), items, authorization },
  secret: (party: PartyId) => of(shares, party).secretShare,
  seed: "frost cheats",
});

describeScene({
  name: "FROST signing, 3-of-3,",
  table,
  cheat: 3,
  // Who publishes a nonce commitment that is not its own cannot sign by itself: its cheat is the mismatch.
  asIfHonest: true,
  run,
});

describe("FROST signing names whoever", () => {
  it("swaps its shares", () => {
    assertNamed(run(), { liars: { 3: { shares: (m: Loose) => m.shares.reverse() } }, check: "signature-share" });
  });

  it("and proves nothing in a session of another authorization", () => {
    const shares = (m: Loose) => otherScalar(m.shares[0]);
    const { context, evidence } = assertNamed(run(), { liars: { 3: { shares } }, check: "signature-share" });
    const pub = { ...context.pub, authorization: new Uint8Array(1) };
    assert.ok(askJudge(frostSign.name, context, evidence).every((verdict) => verdict));
    assert.ok(askJudge(frostSign.name, { ...context, pub }, evidence).every((verdict) => !verdict));
  });
});
