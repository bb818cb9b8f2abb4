// A wallet's key from its birth to new holders: keygen, signing under a derived key, refresh, signing, reshare, signing. The
// seed decides entropy, messages, signers, derivation and the order of every delivery.
import assert from "node:assert/strict";
import { lagrangeCoefficient, Point, Scalar } from "../../../src/crypto/curve.js";
import { security112 } from "../../../src/crypto/security-profile.js";
import { epochId, publicAux } from "../../../src/protocols/cggmp24/aux-record.js";
import { refresh } from "../../../src/protocols/cggmp24/refresh.js";
import { reshare } from "../../../src/protocols/cggmp24/reshare.js";
import type { KeyShare } from "../../../src/protocols/key-share.js";
import { type PartyId, partyId } from "../../../src/session/party.js";
import { testPrimes } from "../../fixtures/parties.js";
import { outputs, SeededRandom, simulate } from "../../session/simulation.js";
import { type Ceremony, ceremony, fixtureAux, makePresignatures, of, range, signRun } from "./ceremony.js";
import { remembering } from "./dishonesty.js";
import { assertValid, derive, digestOf } from "./independent.js";

export interface Topology {
  readonly threshold: number;
  readonly n: number;
}

const choose = (from: readonly number[], count: number, random: SeededRandom): readonly number[] => {
  const chosen = [...from];
  while (chosen.length > count) chosen.splice(random.below(chosen.length), 1);
  return chosen;
};

/** All hold shares of X; any t of them open it, and t-1 do not. */
export function assertShares(shares: ReadonlyMap<PartyId, KeyShare>, X: Point, random: SeededRandom): void {
  const ids = [...shares.keys()];
  const { threshold } = of(shares, ids[0] ?? partyId(1));
  for (const share of shares.values()) {
    assert.ok(share.groupKey.equals(X) && share.threshold === threshold);
    assert.ok(of(share.publicShares, share.self).equals(Point.base.times(share.secretShare)));
  }
  const opened = (set: readonly number[]): Point =>
    Point.base.times(
      Scalar.sum(set.map((id) => Scalar.times(lagrangeCoefficient(id, set), of(shares, partyId(id)).secretShare))),
    );
  for (const set of [ids.slice(0, threshold), ids.slice(-threshold), choose(ids, threshold, random)]) {
    assert.ok(opened(set).equals(X), "any t shares open the key");
    assert.ok(!opened(set.slice(1)).equals(X), "t-1 do not");
  }
}

function assertSigns(wallet: Ceremony, random: SeededRandom, seed: string): void {
  const signers = choose(wallet.ids, wallet.key.threshold, random);
  const path = range(random.below(4)).map(() => random.below(2 ** 31));
  const { child, tweak } = derive(wallet, path);
  const text = Buffer.from(random.bytes(random.below(100))).toString("hex");
  const set = makePresignatures(wallet, signers, seed);
  const run = signRun(wallet, [set], [{ digest: digestOf(text), bip32Tweak: tweak }], seed);
  const signed = outputs(simulate(run));
  assert.equal(signed.size, wallet.key.threshold);
  for (const [signature] of signed.values()) assertValid(signature, text, child);
}

/** @param to whom the key is reshared to; the last holders of the old group deal */
export function live({ threshold, n }: Topology, to: Topology, seed: string): void {
  const random = new SeededRandom(`${seed}/choices`);
  const born = ceremony({ threshold, n }, seed);
  const X = born.key.groupKey;
  assertShares(born.shares, X, random);
  assertSigns(born, random, `${seed}/born`);

  const renewed = outputs(
    simulate(
      remembering({
        protocol: refresh,
        ids: born.ids,
        pub: { profile: security112, key: born.key },
        secret: (party: PartyId) => ({ share: of(born.shares, party), primes: testPrimes(security112, party) }),
        seed: `${seed}/refresh`,
      }),
    ),
  );
  const shares = new Map([...renewed].map(([party, { share }]) => [party, share]));
  const aux = new Map([...renewed].map(([party, result]) => [party, result.aux]));
  const key = of(shares, partyId(1));
  const fresh: Ceremony = { ids: born.ids, shares, aux, key, publicAux: publicAux(of(aux, partyId(1))) };
  assertShares(shares, X, random);
  for (const [party, { secretShare }] of shares) assert.notEqual(secretShare, of(born.shares, party).secretShare);
  assert.notDeepEqual(epochId(key, fresh.publicAux), epochId(born.key, born.publicAux));
  assertSigns(fresh, random, `${seed}/refreshed`);

  const dealers = choose(born.ids, threshold, random).map(partyId);
  const holders = choose(range(7), to.n, random).map(partyId);
  const moved = outputs(
    simulate({
      protocol: reshare,
      ids: [...new Set([...dealers, ...holders])].sort((a, b) => a - b),
      pub: { key, dealers, holders, threshold: to.threshold },
      secret: (party: PartyId) => shares.get(party),
      seed: `${seed}/reshare`,
    }),
  );
  const held = new Map(
    [...moved].flatMap(([party, { share }]) => (share === undefined ? [] : [[party, share] as const])),
  );
  assert.deepEqual([...held.keys()], holders);
  assertShares(held, X, random);
  const heldAux = fixtureAux(holders, security112);
  const newKey = of(held, holders[0] ?? partyId(1));
  const publicPart = publicAux(of(heldAux, holders[0] ?? partyId(1)));
  assertSigns(
    { ids: holders, shares: held, aux: heldAux, key: newKey, publicAux: publicPart },
    random,
    `${seed}/reshared`,
  );
}

/** Topologies at random, of at most `most` parties. */
export function liveAtRandom(seed: number, most: number): void {
  const random = new SeededRandom(`lifecycle ${seed}`);
  const topology = (): Topology => {
    const n = 2 + random.below(most - 1);
    return { n, threshold: 2 + random.below(n - 1) };
  };
  live(topology(), topology(), `lifecycle ${seed}`);
}
