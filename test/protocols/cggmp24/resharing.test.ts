import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { lagrangeCoefficient, Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { security112 } from "../../../src/crypto/security-profile.js";
import { hashTuple } from "../../../src/crypto/transcript.js";
import { epochId, publicAux } from "../../../src/protocols/cggmp24/aux-record.js";
import {
  type Refreshed,
  type RefreshParameters,
  type RefreshSecret,
  refresh,
} from "../../../src/protocols/cggmp24/refresh.js";
import { type Reshared, type ReshareParameters, reshare } from "../../../src/protocols/cggmp24/reshare.js";
import { type KeyShare, keyDigest } from "../../../src/protocols/key-share.js";
import { type PartyId, partyId } from "../../../src/session/party.js";
import { sessionDigest } from "../../../src/session/session.js";
import { testPrimes } from "../../fixtures/parties.js";
import { outputs, type Run, SeededRandom, simulate, testGroup } from "../../session/simulation.js";
import { type Ceremony, ceremony, fixtureAux, generateKey, makePresignatures, of, range, signRun } from "./ceremony.js";
import {
  assertNamed,
  assertNobodyIsFramed,
  flip,
  type Loose,
  otherPoint,
  otherScalar,
  remembering,
} from "./dishonesty.js";
import { rememberPowers } from "./remembered-powers.js";

/** g^{Σ λ_i x_i} of some shares. */
function interpolate(shares: ReadonlyMap<PartyId, KeyShare>, ids: readonly number[]): Point {
  const terms = ids.map((id) => Scalar.times(lagrangeCoefficient(id, ids), of(shares, partyId(id)).secretShare));
  return Point.base.times(Scalar.sum(terms));
}

function assertShares(shares: ReadonlyMap<PartyId, KeyShare>, threshold: number, X: Point): void {
  const ids = [...shares.keys()];
  for (const share of shares.values()) {
    assert.ok(share.groupKey.equals(X));
    assert.ok(of(share.publicShares, share.self).equals(Point.base.times(share.secretShare)));
  }
  assert.ok(interpolate(shares, ids.slice(0, threshold)).equals(X), "t shares open the key");
  assert.ok(interpolate(shares, ids.slice(-threshold)).equals(X), "any t shares open the key");
  assert.ok(!interpolate(shares, ids.slice(0, threshold - 1)).equals(X), "t-1 shares do not");
}

function reshareRun(
  shares: ReadonlyMap<PartyId, KeyShare>,
  to: { dealers: readonly number[]; holders: readonly number[]; threshold: number },
  seed: string,
): Run<ReshareParameters, KeyShare | undefined, Reshared> {
  const [key] = [...shares.values()];
  if (key === undefined) throw new Error("no shares");
  return {
    protocol: reshare,
    ids: [...new Set([...to.dealers, ...to.holders])].sort((a, b) => a - b),
    pub: { key, dealers: to.dealers.map(partyId), holders: to.holders.map(partyId), threshold: to.threshold },
    secret: (party) => shares.get(party),
    seed,
  };
}

function sharesOf(all: ReadonlyMap<PartyId, Reshared>): ReadonlyMap<PartyId, KeyShare> {
  return new Map([...all].flatMap(([party, { share }]) => (share === undefined ? [] : [[party, share] as const])));
}

function signs(wallet: Ceremony, signers: readonly number[], seed: string): void {
  const set = makePresignatures(wallet, signers, seed);
  const message = { digest: { bytes: new SeededRandom(seed).bytes(32) }, bip32Tweak: Scalar.zero };
  for (const [signature] of outputs(simulate(signRun(wallet, [set], [message], seed))).values()) {
    assert.ok(signature?.verifies(message.digest, wallet.key.groupKey));
  }
}

rememberPowers();

describe("refresh", () => {
  const old = ceremony({ threshold: 2, n: 3 }, "refresh");
  // Primes of a new epoch are new: the fixture's next parties.
  const run: Run<RefreshParameters, RefreshSecret, Refreshed> = {
    protocol: refresh,
    ids: old.ids,
    pub: { profile: security112, key: old.key },
    secret: (party) => ({ share: of(old.shares, party), primes: testPrimes(security112, party + 3) }),
    seed: "refresh",
  };
  const honest = simulate(remembering(run));
  const refreshed = outputs(honest);
  const shares = new Map([...refreshed].map(([party, { share }]) => [party, share]));
  const aux = new Map([...refreshed].map(([party, result]) => [party, result.aux]));
  const key = of(shares, partyId(1));
  const fresh: Ceremony = { ids: old.ids, shares, aux, key, publicAux: publicAux(of(aux, partyId(1))) };

  it("keeps the key, replaces every share and all aux info, and begins a new epoch", () => {
    assertShares(shares, 2, old.key.groupKey);
    for (const [party, share] of shares) {
      assert.notEqual(share.secretShare, of(old.shares, party).secretShare);
      assert.deepEqual(share.chainCode, old.key.chainCode);
    }
    const mixed = new Map([...shares]).set(partyId(1), of(old.shares, partyId(1)));
    assert.ok(!interpolate(mixed, [1, 2]).equals(old.key.groupKey), "an old and a new share do not fit");
    assert.notDeepEqual(epochId(key, fresh.publicAux), epochId(old.key, old.publicAux));
  });
  it("signs under the same key", () => {
    signs(fresh, [1, 3], "refreshed");
  });
  it("makes presignatures of the old epoch worthless", () => {
    const set = makePresignatures(old, [1, 2], "old epoch");
    const message = { digest: { bytes: new Uint8Array(32).fill(7) }, bip32Tweak: Scalar.zero };
    assert.throws(() => simulate(signRun(fresh, [set], [message], "old")), { code: "presignature-key" });
    const sameKey = { ...old, publicAux: publicAux({ profile: security112, parties: fresh.publicAux.parties }) };
    assert.throws(() => simulate(signRun(sameKey, [set], [message], "old")), { code: "presignature-epoch" });
    assert.ok(
      [...set.values()].every(({ isUsed }) => !isUsed),
      "a refused session uses nothing up",
    );
  });
  const cheat = (lies: Record<string, (m: Loose, to: number) => void>, check: string) =>
    assertNamed(run, { liars: { 3: lies }, check });
  it("names who deals something else than zero", () => {
    cheat({ "dealing-share": (m: Loose) => otherScalar(m.share) }, "dealing-share-on-polynomial");
  });
  it("names who cheats in the aux info part", () => {
    cheat({ "aux-opening": (m: Loose) => flip(m.paillierModulus) }, "aux-opens-commitment");
    cheat({ "aux-proof": (m: Loose) => flip(m.ringPedersenRoot) }, "aux-knows-factors");
  });
  it("an honest session's messages frame nobody", () => {
    assert.ok(assertNobodyIsFramed(run, honest, old.ids) >= 50);
  });
  it("refuses another party's share, and a session without every holder", () => {
    const swapped = {
      ...run,
      secret: (party: PartyId) => ({ ...run.secret(party), share: of(old.shares, partyId(1)) }),
    };
    assert.throws(() => simulate(swapped), { code: "refresh-share" });
    assert.throws(() => simulate({ ...run, ids: [1, 2] }), { code: "refresh-parties" });
  });
});

describe("reshare", () => {
  const shares = generateKey(range(3), 2, "reshare");
  const key = of(shares, partyId(1));

  for (const { dealers, holders, threshold } of [
    { dealers: [1, 3], holders: [2, 3, 4, 5, 6], threshold: 3 },
    { dealers: [1, 2], holders: [1, 2], threshold: 2 },
    { dealers: [2, 3], holders: [4, 5, 6, 7], threshold: 4 },
  ]) {
    it(`from ${dealers.join()} of 2-of-3 to ${threshold}-of-${holders.length} among ${holders.join()}`, () => {
      const all = outputs(simulate(reshareRun(shares, { dealers, holders, threshold }, `${holders}`)));
      const fresh = sharesOf(all);
      assert.deepEqual([...fresh.keys()], holders);
      assertShares(fresh, threshold, key.groupKey);
      assert.equal(new Set([...all.values()].map((r) => Buffer.from(keyDigest(r.key)).toString("hex"))).size, 1);
      assert.notDeepEqual(keyDigest(of(all, partyId(dealers[0] ?? 1)).key), keyDigest(key));
    });
  }
  it("the new holders sign under the same key", () => {
    const all = outputs(simulate(reshareRun(shares, { dealers: [1, 2], holders: [2, 3, 4, 5], threshold: 3 }, "sign")));
    const fresh = sharesOf(all);
    const ids = [2, 3, 4, 5];
    const aux = fixtureAux(ids, security112);
    const newKey = of(fresh, partyId(2));
    const wallet = { ids, shares: fresh, aux, key: newKey, publicAux: publicAux(of(aux, partyId(2))) };
    signs(wallet, [2, 4, 5], "reshared");
  });

  const run = reshareRun(shares, { dealers: [2, 3], holders: [1, 3, 4], threshold: 3 }, "reshare misbehaviour");
  const cheats: readonly [string, number, string, string, (m: Loose, to: number) => void][] = [
    ["commits to something else", 3, "dealing-commitment", "dealing-opens-commitment", (m) => flip(m.hash)],
    ["opens another rid", 3, "dealing-opening", "dealing-opens-commitment", (m) => flip(m.rid)],
    ["opens another blinding", 3, "dealing-opening", "dealing-opens-commitment", (m) => flip(m.blinding)],
    [
      "opens another coefficient",
      3,
      "dealing-opening",
      "dealing-opens-commitment",
      (m) => otherPoint(m.coefficients[0]),
    ],
    [
      "opens the last one otherwise",
      3,
      "dealing-opening",
      "dealing-opens-commitment",
      (m) => otherPoint(m.coefficients[1]),
    ],
    ["opens another nonce", 3, "dealing-opening", "dealing-opens-commitment", (m) => otherPoint(m.schnorrCommitment)],
    ["raises the threshold", 3, "dealing-opening", "malformed", (m) => m.coefficients.push(m.coefficients[0])],
    ["lowers the threshold", 3, "dealing-opening", "malformed", (m) => m.coefficients.pop()],
    ["deals nothing though a dealer", 3, "dealing-opening", "dealing-opens-commitment", (m) => (m.coefficients = [])],
    ["sends a point off the curve", 3, "dealing-opening", "malformed", (m) => m.coefficients[0].sec1.fill(5, 1)],
    ["sends a wrong share", 3, "dealing-share", "dealing-share-on-polynomial", (m) => m.share && otherScalar(m.share)],
    ["sends a zero share", 3, "dealing-share", "dealing-share-on-polynomial", (m) => m.share?.be32.fill(0)],
    ["sends no share", 3, "dealing-share", "dealing-share-on-polynomial", (m) => delete m.share],
    ["sends a share of q or more", 3, "dealing-share", "malformed", (m) => m.share?.be32.fill(255)],
    ["proves something else", 3, "dealing-proof", "dealing-knows-share", (m) => otherScalar(m.response)],
    ["proves nothing", 3, "dealing-proof", "dealing-knows-share", (m) => delete m.response],
    [
      "proves though it holds nothing",
      2,
      "dealing-proof",
      "dealing-knows-share",
      (m) => (m.response = Scalar.toProto(Scalar.one)),
    ],
  ];
  for (const [name, liar, round, check, change] of cheats) {
    it(`names who ${name}`, () => {
      // Party 2 holds nothing, so it cannot see a wrong share.
      const victims = round === "dealing-share" ? [1, 4] : undefined;
      assertNamed(run, {
        liars: { [liar]: { [round]: change } },
        check,
        ...(victims === undefined ? {} : { victims }),
      });
    });
  }
  // The same with an opening that was committed to, so that nothing but the role is wrong.
  const ssid = sessionDigest(run.protocol, {
    sessionId: new SeededRandom(`${run.seed}/session`).bytes(16),
    group: testGroup(run.ids),
    pub: run.pub,
  });
  const roles: readonly [string, number, (m: Loose) => void][] = [
    ["deals nothing though a dealer", 3, (m) => (m.coefficients = [])],
    ["deals though no dealer", 4, (m) => (m.coefficients = [1n, 2n].map((k) => Point.base.times(scalar(k)).toProto()))],
    ["commits to a nonce though it holds nothing", 2, (m) => (m.schnorrCommitment = Point.base.toProto())],
    ["commits to no nonce though a holder", 4, (m) => delete m.schnorrCommitment],
  ];
  for (const [name, liar, change] of roles) {
    it(`names who ${name}`, () => {
      const opening: Loose[] = [];
      const watch = (m: Loose) => {
        opening.push(structuredClone(m));
        flip(m.rid);
      };
      assertNamed(run, { liars: { [liar]: { "dealing-opening": watch } }, check: "dealing-opens-commitment" });
      const [committed] = opening;
      change(committed);
      const { rid, coefficients, schnorrCommitment, blinding } = committed;
      const A = schnorrCommitment === undefined ? [] : [Point.fromProto(schnorrCommitment)];
      const items = [ssid, partyId(liar), rid, coefficients.map(Point.fromProto), A, blinding];
      const commit = (m: Loose) => (m.hash = hashTuple("dealing/commitment", items));
      const lies = { "dealing-commitment": commit, "dealing-opening": change };
      assertNamed(run, { liars: { [liar]: lies }, check: "dealing-role" });
    });
  }
  it("an honest session's messages frame nobody", () => {
    assert.ok(assertNobodyIsFramed(run, simulate(remembering(run)), run.ids) >= 40);
  });
  it("refuses wrong parties, dealers and thresholds", () => {
    const refuse = (to: Parameters<typeof reshareRun>[1], code: string, ids?: readonly number[]) => {
      const wrong = reshareRun(shares, to, "refused");
      assert.throws(() => simulate({ ...wrong, ids: ids ?? wrong.ids }), { code });
    };
    refuse({ dealers: [1, 2, 3], holders: [1, 2, 3], threshold: 2 }, "reshare-dealers");
    refuse({ dealers: [1, 5], holders: [1, 2, 5], threshold: 2 }, "reshare-dealers");
    refuse({ dealers: [1, 2], holders: [1, 2, 3], threshold: 4 }, "reshare-threshold");
    refuse({ dealers: [1, 2], holders: [1, 2, 3], threshold: 1 }, "reshare-threshold");
    refuse({ dealers: [1, 2], holders: [1, 2, 3], threshold: 2 }, "reshare-parties", [1, 2, 3, 4]);
  });
});
