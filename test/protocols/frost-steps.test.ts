import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { schnorr, schnorr_FROST, secp256k1 } from "@noble/curves/secp256k1.js";
import { lagrangeCoefficient, Point, q, Scalar, scalar } from "../../src/crypto/curve.js";
import {
  type Binding,
  bind,
  bindingFactors,
  type CommitmentList,
  encodeCommitmentList,
  groupCommitment,
} from "../../src/protocols/frost/binding.js";
import { SigningNonces } from "../../src/protocols/frost/nonces.js";
import { aggregate, signatureShare, verifyShare, verifySignature } from "../../src/protocols/frost/share.js";
import {
  outputKey,
  outputShare,
  outputVerifyingShare,
  rememberedOutputKey,
} from "../../src/protocols/frost/taproot.js";
import type { PublicKeyPackage } from "../../src/protocols/key-share.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { SeededRandom } from "../session/simulation.js";

const Curve = secp256k1.Point;
const F = Curve.Fn;
const integer = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
const id = (party: number): string => schnorr_FROST.Identifier.fromNumber(party);

/** A key dealt by a random polynomial, and who signs what under which tweak. */
interface Case {
  readonly key: PublicKeyPackage;
  readonly shares: ReadonlyMap<PartyId, Scalar>;
  readonly groupSecret: Scalar;
  readonly signers: readonly PartyId[];
  readonly message: Uint8Array;
  readonly bip32Tweak: Scalar;
}

function randomCase(seed: string): Case {
  const random = new SeededRandom(seed);
  const n = 2 + random.below(4);
  const threshold = 2 + random.below(n - 1);
  const coefficients = Array.from({ length: threshold }, () => Scalar.randomNonZero(random));
  // Indices have gaps and pass 255, so that their encoding counts.
  const ids = new Set<PartyId>();
  while (ids.size < n) ids.add(partyId(1 + random.below(random.below(2) === 0 ? 8 : 65535)));
  const sorted = [...ids].sort((a, b) => a - b);
  const shares = new Map(
    sorted.map((party) => [
      party,
      coefficients.reduceRight((sum, a) => Scalar.plus(Scalar.times(sum, scalar(BigInt(party))), a), Scalar.zero),
    ]),
  );
  const signers = [...sorted];
  while (signers.length > threshold && random.below(4) !== 0) signers.splice(random.below(signers.length), 1);
  const groupSecret = coefficients[0] ?? Scalar.zero;
  return {
    key: {
      scheme: "frost",
      threshold,
      publicShares: new Map([...shares].map(([party, x]) => [party, Point.base.times(x)])),
      groupKey: Point.base.times(groupSecret),
      chainCode: random.bytes(32),
    },
    shares,
    groupSecret,
    signers,
    message: random.bytes(32),
    bip32Tweak: random.below(5) === 0 ? Scalar.zero : Scalar.random(random),
  };
}

/** The output key as noble-curves takes it, computed from the secrets: nothing of ours but the polynomial. */
function nobleKey({ shares, groupSecret, bip32Tweak, key }: Case) {
  const derivedSecret = F.add(groupSecret, bip32Tweak);
  const derived = Curve.BASE.multiply(derivedSecret);
  const odd = derived.y % 2n === 1n;
  const tweak = integer(schnorr.utils.taggedHash("TapTweak", derived.toBytes().subarray(1)));
  const tweaked = (x: bigint): bigint => F.add(odd ? F.neg(x) : x, tweak);
  const secrets = new Map([...shares].map(([party, x]) => [party, tweaked(F.add(x, bip32Tweak))]));
  const Q = Curve.BASE.multiply(tweaked(derivedSecret));
  const pub = {
    signers: { min: key.threshold, max: key.publicShares.size },
    commitments: [Q.toBytes()],
    verifyingShares: Object.fromEntries([...secrets].map(([p, x]) => [id(p), Curve.BASE.multiply(x).toBytes()])),
  };
  return { pub: pub as Parameters<typeof schnorr_FROST.signShare>[1], secrets, oddQ: Q.y % 2n === 1n, odd };
}

/** Every step of one case by both; returns the parities that it met. */
function compare(seed: string): { oddDerived: boolean; oddQ: boolean; oddR: boolean } {
  const all = randomCase(seed);
  const { key, signers, message, bip32Tweak } = all;
  const noble = nobleKey(all);
  const output = outputKey(key, bip32Tweak);
  assert.deepEqual(Buffer.from(output.xOnly), Buffer.from(noble.pub.commitments[0] ?? []).subarray(1));

  const parties = signers.map((party) => {
    const share = outputShare(all.shares.get(party) ?? Scalar.zero, output);
    const entropy = new SeededRandom(`${seed}/${party}`);
    // 4.1: the same entropy and share give noble the same nonces; the commitments show it.
    const generated = schnorr_FROST.commit(
      { identifier: id(party), signingShare: Scalar.toBytes(share) } as never,
      ((length = 32) => entropy.bytes(length)) as never,
    );
    const nonces = SigningNonces.generate(share, new SeededRandom(`${seed}/${party}`));
    assert.deepEqual(nonces.hiding.toBytes(), generated.commitments.hiding);
    assert.deepEqual(nonces.binding.toBytes(), generated.commitments.binding);
    const secret = { identifier: id(party), signingShare: F.toBytes(noble.secrets.get(party) ?? 0n) };
    const [d, e] = [integer(generated.nonces.hiding), integer(generated.nonces.binding)];
    return { party, share, nonces, generated, secret: secret as never, d, e };
  });
  const list: CommitmentList = parties.map(({ party, nonces: { hiding, binding } }) => ({ party, hiding, binding }));
  const nobleList = parties.map(({ generated }) => generated.commitments).reverse();
  const binding = bind({ list, Q: output.Q, message });
  assert.ok(binding.c !== undefined);

  // 5.2: shares.
  const lambda = (party: PartyId): Scalar => lagrangeCoefficient(party, signers);
  const nobleShares: Record<string, Uint8Array> = {};
  const shares: Scalar[] = [];
  let R = Curve.ZERO;
  for (const { party, share, nonces, generated, secret, d, e } of parties) {
    const z = signatureShare({ self: party, secretShare: share, lambda_i: lambda(party), nonces }, binding);
    const nobleShare = schnorr_FROST.signShare(secret, noble.pub, generated.nonces, nobleList, message);
    assert.deepEqual(Scalar.toBytes(z), nobleShare);
    // 4.4: noble keeps ρ_i to itself, but z_i = ±(d + ρ e) + λ x c gives it away to who knows d, e and x.
    const nonce = F.sub(F.fromBytes(nobleShare), F.mul(F.mul(lambda(party), share), binding.c));
    const rho = F.div(F.sub(binding.R.hasEvenY ? nonce : F.neg(nonce), d), e);
    assert.equal(binding.factors.get(party), rho);
    const { hiding, binding: E } = generated.commitments;
    R = R.add(Curve.fromBytes(hiding)).add(Curve.fromBytes(E).multiplyUnsafe(rho));
    shares.push(z);
    nobleShares[id(party)] = nobleShare;

    const verifyingShare = outputVerifyingShare(key, party, output);
    assert.ok(verifyingShare !== undefined);
    assert.ok(verifyingShare.equals(Point.base.times(share)));
    const claim = { party, verifyingShare, lambda_i: lambda(party) };
    const wrong = Scalar.plus(z, Scalar.one);
    assert.ok(verifyShare({ ...claim, share: z }, binding));
    for (const bad of [wrong, Scalar.negate(z), Scalar.zero])
      assert.ok(!verifyShare({ ...claim, share: bad }, binding));
    if (party !== signers[0]) continue; // noble is slow
    assert.ok(schnorr_FROST.verifyShare(noble.pub, nobleList, message, id(party), nobleShare));
    assert.ok(!schnorr_FROST.verifyShare(noble.pub, nobleList, message, id(party), Scalar.toBytes(wrong)));
  }
  // 4.5: the group commitment, both coordinates.
  assert.deepEqual(R.toBytes(), binding.R.toBytes());

  // 5.3: the signature.
  const signature = aggregate(shares, binding);
  assert.deepEqual(signature, schnorr_FROST.aggregate(noble.pub, nobleList, message, nobleShares));
  assert.ok(verifySignature(signature, message, output.xOnly));
  assert.ok(schnorr.verify(signature, message, output.xOnly));
  return { oddDerived: noble.odd, oddQ: noble.oddQ, oddR: !binding.R.hasEvenY };
}

describe("FROST steps against noble-curves", () => {
  it("240 random keys, signing sets, messages and tweaks give equal nonces, factors, shares and signatures", () => {
    const met = new Map<string, number>();
    for (let index = 0; index < 240; index++) {
      const seed = `frost step ${index}`;
      try {
        const { oddDerived, oddQ, oddR } = compare(seed);
        const kind = [oddDerived, oddQ, oddR].map(Number).join("");
        met.set(kind, (met.get(kind) ?? 0) + 1);
      } catch (cause) {
        throw new Error(`simulation failed; seed: "${seed}"`, { cause });
      }
    }
    assert.equal(met.size, 8, "every combination of parities");
    for (const [kind, count] of met) assert.ok(count >= 10, `parities ${kind}: ${count}`);
  });
});

describe("FROST steps refuse", () => {
  const message = new SeededRandom("refusals").bytes(32);
  const fresh = (seed: string) => {
    const random = new SeededRandom(seed);
    const nonces = [1, 2].map(() => SigningNonces.generate(Scalar.random(random), random));
    const list = nonces.map(({ hiding, binding }, index) => ({ party: partyId(index + 1), hiding, binding }));
    const [own, other] = nonces;
    assert.ok(own !== undefined && other !== undefined);
    const secretShare = Scalar.random(random);
    const signer = { self: partyId(1), secretShare, lambda_i: lagrangeCoefficient(1, [1, 2]), nonces: own };
    return { list, signer, other, binding: bind({ list, Q: Point.base, message }) };
  };
  const bug = { name: "Bug" };

  it("a spent nonce, whatever it was spent on", () => {
    const { signer, binding, list } = fresh("spent");
    signatureShare(signer, binding);
    assert.throws(() => signatureShare(signer, binding), { ...bug, message: /signs once/ });
    assert.throws(() => signatureShare(signer, bind({ list, Q: Point.base, message: message.subarray(1) })), {
      ...bug,
      message: /signs once/,
    });
    assert.throws(() => signer.nonces.spend(), { ...bug, message: /signs once/ });
  });

  it("a nonce whose use failed", () => {
    const { signer, binding } = fresh("failed");
    assert.throws(() => signatureShare(signer, { ...binding, list: [] }), bug);
    assert.throws(() => signatureShare(signer, binding), { ...bug, message: /signs once/ });
  });

  it("a list with another commitment of the signer, or none", () => {
    for (const change of [
      (list: CommitmentList) => list.slice(1),
      (list: CommitmentList) => list.map((one) => ({ ...one, hiding: one.hiding.plus(Point.base) })),
      (list: CommitmentList) => list.map((one) => ({ ...one, binding: one.binding.plus(Point.base) })),
      (list: CommitmentList) => list.map((one) => ({ ...one, hiding: one.binding, binding: one.hiding })),
    ]) {
      const { signer, list } = fresh("another commitment");
      const binding = bind({ list: change(list), Q: Point.base, message });
      assert.throws(() => signatureShare(signer, binding), { ...bug, message: /own commitment/ });
    }
  });

  it("a list that does not ascend, or names a party twice", () => {
    const { list } = fresh("order");
    assert.equal(encodeCommitmentList(list).length, 2 * (32 + 33 + 33));
    assert.throws(() => encodeCommitmentList([...list].reverse()), bug);
    assert.throws(() => encodeCommitmentList([...list, ...list.slice(1)]), bug);
  });

  it("an identity in the list", () => {
    const { list } = fresh("identity");
    const broken = list.map((one) => ({ ...one, binding: Point.identity }));
    assert.throws(() => bindingFactors({ list: broken, Q: Point.base, message }), bug);
  });

  it("an identity group commitment: nobody's share verifies, nobody signs, the nonce is spent", () => {
    const { signer, list, binding } = fresh("identity group commitment");
    const { factors } = binding;
    const [one, two] = list;
    assert.ok(one !== undefined && two !== undefined);
    // Such a list exists only for factors that are chosen, not hashed.
    const E_2 = two.binding.timesPublic(factors.get(partyId(2)) ?? Scalar.zero);
    const sum = groupCommitment([one], factors).plus(E_2);
    const cancelling = [one, { ...two, hiding: sum.negate() }];
    const R = groupCommitment(cancelling, factors);
    assert.ok(R.isIdentity);
    const vanished: Binding = { list: cancelling, factors, R, c: undefined };
    for (const share of [Scalar.zero, Scalar.one]) {
      const claim = { party: partyId(1), share, verifyingShare: Point.base, lambda_i: signer.lambda_i };
      assert.equal(verifyShare(claim, vanished), false);
    }
    assert.throws(() => signatureShare(signer, vanished), { ...bug, message: /identity/ });
    assert.throws(() => signatureShare(signer, binding), { ...bug, message: /signs once/ });
  });

  it("a share of a party outside the list", () => {
    const { binding } = fresh("outside");
    const claim = { party: partyId(3), share: Scalar.one, verifyingShare: Point.base, lambda_i: Scalar.one };
    assert.equal(verifyShare(claim, binding), false);
  });

  it("signatures of wrong length, off the curve, or with z of q or more, without a throw", () => {
    const all = randomCase("verification");
    const { xOnly } = outputKey(all.key, all.bip32Tweak);
    const overflow = Buffer.concat([xOnly, Buffer.from(q.toString(16), "hex")]);
    for (const signature of [new Uint8Array(), new Uint8Array(63), new Uint8Array(64), overflow]) {
      assert.equal(verifySignature(signature, message, xOnly), false);
    }
    assert.equal(verifySignature(new Uint8Array(64).fill(1), message.subarray(1), xOnly), false);
    assert.equal(verifySignature(new Uint8Array(64).fill(1), message, new Uint8Array(32).fill(0xff)), false);
  });

  it("nonces in what is printed", () => {
    const { signer } = fresh("printed");
    assert.deepEqual(Object.keys(JSON.parse(JSON.stringify(signer.nonces)) as object), ["hiding", "binding"]);
  });
});

describe("remembered output keys", () => {
  it("are the computed ones, once a key and tweak, and stay right past the bound", () => {
    const { key } = randomCase("remembered");
    const { key: other } = randomCase("another key");
    const first = rememberedOutputKey(key, Scalar.one);
    assert.equal(rememberedOutputKey(key, Scalar.one), first);
    assert.notDeepEqual(rememberedOutputKey(other, Scalar.one).xOnly, first.xOnly);
    for (let tweak = 0n; tweak <= 260n; tweak++) {
      const { xOnly } = rememberedOutputKey(key, scalar(tweak));
      if (tweak % 65n === 0n) assert.deepEqual(xOnly, outputKey(key, scalar(tweak)).xOnly);
    }
    assert.notEqual(rememberedOutputKey(key, Scalar.one), first, "the bound was passed");
    assert.deepEqual(rememberedOutputKey(key, Scalar.one), first);
  });
});
