import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { lagrangeCoefficient, Point, q, Scalar, scalar } from "../../../src/crypto/curve.js";
import { security112, security128 } from "../../../src/crypto/security-profile.js";
import { epochId } from "../../../src/protocols/cggmp24/aux-record.js";
import { isConsistent, isSound, Presignature, presignatureId } from "../../../src/protocols/cggmp24/presignature.js";
import {
  combine,
  EcdsaSignature,
  nonceCoordinate,
  rerandomizer,
  type SigningRequest,
  signShare,
  verifyShare,
} from "../../../src/protocols/cggmp24/sign.js";
import { partyId } from "../../../src/session/party.js";
import { outputs, SeededRandom, simulate } from "../../session/simulation.js";
import { ceremony, makePresignatures, of, presignRun, range, signRun } from "./ceremony.js";
import { assertNamed, assertNobodyIsFramed, type Loose, otherScalar } from "./dishonesty.js";
import { assertValid, derive, digestOf } from "./independent.js";

describe("CGGMP24 over the session engine", () => {
  for (const { threshold, n, profile, full } of [
    { threshold: 2, n: 2, profile: security112, full: true },
    { threshold: 2, n: 3, profile: security112, full: true },
    { threshold: 3, n: 5, profile: security128, full: true },
    { threshold: 5, n: 5, profile: security112, full: true },
    { threshold: 4, n: 7, profile: security112, full: true },
  ]) {
    it(`${threshold}-of-${n} at ${profile.name}: key, aux info, presignatures, and signatures under derived keys`, () => {
      const name = `${threshold} of ${n}`;
      const wallet = ceremony({ threshold, n, profile, full }, name);
      const signers = range(n).slice(n - threshold);
      const paths = [[], [0, 5], [1, 2147483647]].slice(0, profile === security128 || threshold > 3 ? 2 : 3);
      const sets = paths.map((_, index) => makePresignatures(wallet, signers, `${name}/${index}`));
      const keys = paths.map((path) => derive(wallet, path));
      const texts = paths.map((path) => `${name} pays from ${path.join("/")}`);
      const messages = keys.map(({ tweak }, index) => ({ digest: digestOf(texts[index] ?? ""), bip32Tweak: tweak }));
      const signed = outputs(simulate(signRun(wallet, sets, messages, name)));
      assert.equal(signed.size, threshold);
      for (const signatures of signed.values()) {
        for (const [index, { child }] of keys.entries()) assertValid(signatures[index], texts[index] ?? "", child);
      }
    });
  }

  it("t shares interpolate the key, t-1 do not", () => {
    const { shares, key } = ceremony({ threshold: 3, n: 5 }, "interpolate");
    const at0 = (ids: readonly number[]): Point =>
      Point.base.times(
        Scalar.sum(ids.map((id) => Scalar.times(lagrangeCoefficient(id, ids), of(shares, partyId(id)).secretShare))),
      );
    for (const ids of [
      [1, 2, 3],
      [1, 3, 5],
      [2, 4, 5],
    ])
      assert.ok(at0(ids).equals(key.groupKey));
    for (const ids of [
      [1, 2],
      [4, 5],
      [1, 5],
    ])
      assert.ok(!at0(ids).equals(key.groupKey));
  });
});

describe("a presignature", () => {
  const wallet = ceremony({ threshold: 2, n: 3 }, "presignature");
  const make = (seed: string) => makePresignatures(wallet, [1, 2], seed);
  const { key } = wallet;
  const X = key.groupKey;
  const request: SigningRequest = {
    digest: digestOf("a payment"),
    bip32Tweak: Scalar.zero,
    authorization: new Uint8Array(32).fill(1),
  };
  const set = make("one");
  const [one, two] = [of(set, partyId(1)), of(set, partyId(2))];
  const stored = [...set].map(([party, presignature]) => [party, presignature.encode()] as const);
  const again = () => new Map(stored.map(([party, bytes]) => [party, Presignature.decode(bytes, X)]));

  it("is the same at all signers, binds key and epoch, and shows no secret", () => {
    assert.deepEqual(one.id, two.id);
    assert.ok(isConsistent(one.public, X));
    assert.deepEqual(one.public.epoch, epochId(key, wallet.publicAux));
    assert.equal(JSON.stringify({ one }), `{"one":"Presignature(${Buffer.from(one.id).toString("hex")})"}`);
  });
  it("is taken at its seal's word about its commitments, and at nobody else's", () => {
    const [[, bytes] = []] = stored;
    assert.ok(bytes !== undefined);
    const { public: kept } = Presignature.decodeSealed(bytes);
    assert.ok(isSound(kept, X));
    assert.equal(isSound({ ...kept, epoch: new Uint8Array(32) }, X), false, "the id is of another epoch");
    const [first, second] = [...kept.commitments.values()];
    assert.ok(first !== undefined && second !== undefined);
    const swapped = {
      ...kept,
      commitments: new Map([
        [partyId(1), { nonce: first.nonce, key: first.nonce }],
        [partyId(2), second],
      ]),
    };
    assert.equal(isSound({ ...swapped, id: presignatureId(swapped) }, X), false, "the commitments do not fit");
    assert.equal(isSound(kept, X.plus(Point.base)), true, "validateSigning compares the key by the digest in the id");
    assert.equal(isSound({ ...kept }, X.plus(Point.base)), false);
  });
  it("round-trips, and every changed byte is refused", () => {
    const [[, bytes] = []] = stored;
    assert.ok(bytes !== undefined);
    assert.deepEqual(Presignature.decode(bytes, X).encode(), bytes);
    for (let index = 0; index < bytes.length; index += 7) {
      const changed = Uint8Array.from(bytes);
      changed[index] = (changed[index] ?? 0) ^ 4;
      assert.throws(() => Presignature.decode(changed, X));
    }
    assert.throws(() => Presignature.decode(bytes, X.plus(Point.base)), { code: "presignature" });
    assert.throws(() => Presignature.decode(new Uint8Array(1 << 20), X), { code: "presignature" });
  });
  it("signs once: a second use is refused, for the same message too", () => {
    const used = of(again(), partyId(1));
    signShare(used, X, request);
    assert.throws(() => signShare(used, X, request), { code: "presignature-used" });
    assert.throws(() => used.encode(), { code: "presignature-used" });
    assert.ok(used.isUsed);
  });
  it("is used up even when the request is refused", () => {
    const used = of(again(), partyId(1));
    const bare = { ...request, digest: new Uint8Array(32) as unknown as SigningRequest["digest"] };
    assert.throws(() => signShare(used, X, bare), { code: "digest" }, "a bare 32-byte digest");
    assert.ok(used.isUsed);
  });
  it("refuses a digest of another length", () => {
    const short = { ...request, digest: { bytes: new Uint8Array(31) } };
    assert.throws(() => signShare(of(again(), partyId(1)), X, short), { code: "digest" });
  });
  it("refuses a derived key that is the identity", () => {
    const shares = [...wallet.shares.values()].slice(0, 2);
    const x = Scalar.sum(
      shares.map(({ self, secretShare }) => Scalar.times(lagrangeCoefficient(self, [1, 2]), secretShare)),
    );
    const vanishing = { ...request, bip32Tweak: Scalar.negate(x) };
    assert.throws(() => signShare(of(again(), partyId(1)), X, vanishing), { code: "derived-key" });
  });
  it("changes its nonce with message, key and authorization: nothing can be chosen after the nonce", () => {
    const variants: readonly (readonly [Point, SigningRequest])[] = [
      [X, request],
      [X, { ...request, digest: digestOf("another payment") }],
      [X, { ...request, authorization: new Uint8Array(32).fill(2) }],
      [X.plus(Point.base), request],
    ];
    const seen = new Set(variants.map(([publicKey, r]) => rerandomizer(one.public, publicKey, r)));
    assert.equal(seen.size, variants.length);
    // A share for one message is no share for another.
    const share = signShare(of(again(), partyId(1)), X, request);
    assert.ok(verifyShare(one.public, X, request, { party: partyId(1), share }));
    for (const [, other] of variants.slice(1, 3)) {
      assert.ok(!verifyShare(one.public, X, other, { party: partyId(1), share }));
    }
    const tweaked = { ...request, bip32Tweak: Scalar.one };
    assert.ok(!verifyShare(one.public, X, tweaked, { party: partyId(1), share }));
    assert.ok(!verifyShare(one.public, X, request, { party: partyId(2), share }));
    assert.ok(!verifyShare(one.public, X, request, { party: partyId(3), share }));
  });
  it("combines, or names who sent a wrong share or none", () => {
    const shares = new Map([...again()].map(([party, presignature]) => [party, signShare(presignature, X, request)]));
    const combined = combine(one.public, X, request, shares);
    assert.ok(combined.kind === "signed" && combined.signature.verifies(request.digest, X));
    const wrong = new Map(shares).set(partyId(2), Scalar.plus(of(shares, partyId(2)), Scalar.one));
    assert.deepEqual(combine(one.public, X, request, wrong), { kind: "bad-shares", culprits: [2] });
    const cancelled = new Map(shares).set(partyId(2), Scalar.negate(of(shares, partyId(1)))); // s = 0
    assert.deepEqual(combine(one.public, X, request, cancelled), { kind: "bad-shares", culprits: [2] });
    const absent = new Map([...shares].slice(0, 1));
    assert.deepEqual(combine(one.public, X, request, absent), { kind: "bad-shares", culprits: [2] });
  });
  it("of another set, wallet, epoch or session is refused, and so is one presignature for two messages", () => {
    const message = { digest: request.digest, bip32Tweak: Scalar.zero };
    const run = () => signRun(wallet, [again()], [message], "refused");
    const { pub } = run();
    const refuse = (changed: object, code: string, ids = run().ids) =>
      assert.throws(() => simulate({ ...run(), ids, pub: { ...pub, ...changed } }), { code });
    const other = ceremony({ threshold: 2, n: 3 }, "another wallet");
    refuse({ key: other.key }, "presignature-key");
    refuse({ epoch: new Uint8Array(32) }, "presignature-epoch");
    refuse({}, "presignature-signers", [1, 3]);
    refuse({}, "presignature-signers", [1, 2, 3]);
    refuse({ items: [] }, "batch");
    const item = pub.items[0];
    refuse({ items: [item, item] }, "presignature-repeated");
    const second = make("two");
    const swapped = signRun(wallet, [second], [message], "refused");
    assert.throws(() => simulate({ ...run(), secret: swapped.secret }), { code: "presignature-order" });
    const moved = { ...of(again(), partyId(1)).public, commitments: of(second, partyId(1)).public.commitments };
    refuse({ items: [{ ...item, presignature: moved }] }, "presignature"); // an id names one content
    refuse({ items: [{ ...item, presignature: { ...one.public, nonce: Point.base } }] }, "presignature");
    const unsound = new Map(one.public.commitments).set(partyId(2), of(one.public.commitments, partyId(1)));
    refuse({ items: [{ ...item, presignature: { ...one.public, commitments: unsound } }] }, "presignature");
  });
  it("is not made by a wrong number of signers, for a FROST key, or with keys of another epoch", () => {
    const refuse = (run: ReturnType<typeof presignRun>, code: string) => assert.throws(() => simulate(run), { code });
    const run = presignRun(wallet, [1, 2], "refused");
    refuse(presignRun(wallet, [1, 2, 3], "refused"), "signing-set");
    const frost = { key: { ...key, scheme: "frost" as const }, aux: wallet.publicAux };
    refuse({ ...run, pub: frost, pubOf: () => frost }, "scheme");
    const swap = (party: number) => of(wallet.aux, partyId(3 - party));
    refuse({ ...run, secret: (party) => ({ ...run.secret(party), paillier: swap(party).paillier }) }, "aux-info");
  });
});

describe("an ECDSA signature", () => {
  it("is normalized to low s, and r = 0 or s = 0 is refused", () => {
    const high = new EcdsaSignature(Scalar.one, scalar(q - 5n));
    assert.equal(high.s, 5n);
    assert.equal(new EcdsaSignature(Scalar.one, scalar(q >> 1n)).s, q >> 1n);
    assert.throws(() => new EcdsaSignature(Scalar.zero, Scalar.one), { code: "signature-degenerate" });
    assert.throws(() => new EcdsaSignature(Scalar.one, Scalar.zero), { code: "signature-degenerate" });
  });
  it("of s = 0 is refused though every share verifies", () => {
    // s = 0 needs m = -r x', but r depends on m by ρ. A digest that changes between two reads breaks that circle.
    const wallet = ceremony({ threshold: 2, n: 2 }, "zero");
    const set = makePresignatures(wallet, [1, 2], "zero");
    const stored = [...set].map(([party, presignature]) => [party, presignature.encode()] as const);
    const X = wallet.key.groupKey;
    const public1 = of(set, partyId(1)).public;
    const hashed = new Uint8Array(32).fill(5);
    const fixed = { digest: { bytes: hashed }, bip32Tweak: Scalar.zero, authorization: new Uint8Array(32) };
    const r = nonceCoordinate(public1.nonce.timesPublic(rerandomizer(public1, X, fixed)));
    const x = Scalar.sum(
      [...wallet.shares.values()].map((share) =>
        Scalar.times(lagrangeCoefficient(share.self, [1, 2]), share.secretShare),
      ),
    );
    const m = Scalar.toBytes(Scalar.negate(Scalar.times(r, x)));
    let reads = 0;
    const digest = {
      get bytes() {
        reads += 1;
        return reads % 2 === 1 ? m : hashed; // the sum reads first, then the re-randomizer
      },
    };
    const request = { ...fixed, digest };
    const shares = new Map(
      stored.map(([party, bytes]) => [party, signShare(Presignature.decode(bytes, X), X, request)] as const),
    );
    for (const [party, share] of shares) assert.ok(verifyShare(public1, X, request, { party, share }));
    assert.equal(Scalar.sum([...shares.values()]), 0n);
    assert.throws(() => combine(public1, X, request, shares), { code: "signature-degenerate" });
  });
  it("is refused when the nonce's coordinate is 0 modulo q", () => {
    // x = q is below the field's prime and on the curve, so such a nonce exists.
    const vanishing = Point.parse(Buffer.concat([Uint8Array.of(2), Buffer.from(q.toString(16), "hex")]));
    assert.throws(() => nonceCoordinate(vanishing), { code: "signature-degenerate" });
    // Γ^ρ hits it only where ρ is not the hash of Γ: a presignature whose nonce changes between two reads.
    const wallet = ceremony({ threshold: 2, n: 2 }, "zero");
    const [one] = makePresignatures(wallet, [1, 2], "zero").values();
    assert.ok(one !== undefined);
    const X = wallet.key.groupKey;
    const request = {
      digest: digestOf("nothing"),
      bip32Tweak: Scalar.zero,
      authorization: new Uint8Array(32),
    };
    const Gamma = vanishing.timesPublic(Scalar.invert(rerandomizer(one.public, X, request)));
    let reads = 0;
    const changing = Object.defineProperty({ ...one.public }, "nonce", {
      get: () => {
        reads += 1;
        return reads % 2 === 1 ? one.public.nonce : Gamma; // the re-randomizer reads first, then the power
      },
    });
    const hostile = new Presignature(one.self, changing, one.take());
    assert.throws(() => signShare(hostile, X, request), { code: "signature-degenerate" });
    assert.ok(hostile.isUsed, "and is used up");
    assert.throws(() => combine(changing, X, request, new Map()), { code: "signature-degenerate" });
  });
});

describe("signing names whoever", () => {
  const wallet = ceremony({ threshold: 3, n: 3 }, "sign misbehaviour");
  const sets = [0, 1].map((index) => makePresignatures(wallet, [1, 2, 3], `sign misbehaviour ${index}`));
  const stored = sets.map((set) => new Map([...set].map(([party, presignature]) => [party, presignature.encode()])));
  const decoded = () =>
    stored.map(
      (set) => new Map([...set].map(([party, bytes]) => [party, Presignature.decode(bytes, wallet.key.groupKey)])),
    );
  const random = new SeededRandom("sign misbehaviour");
  const messages = [0, 1].map(() => ({ digest: { bytes: random.bytes(32) }, bip32Tweak: Scalar.random(random) }));
  const run = () => signRun(wallet, decoded(), messages, "sign misbehaviour");
  const lies: readonly [string, string, (m: Loose) => void][] = [
    ["sends a wrong first share", "signature-share", (m) => otherScalar(m.shares[0])],
    ["sends a wrong second share", "signature-share", (m) => otherScalar(m.shares[1])],
    ["sends a zero share", "signature-share", (m) => m.shares[0].be32.fill(0)],
    ["swaps its shares", "signature-share", (m) => m.shares.reverse()],
    ["sends a share too few", "malformed", (m) => m.shares.pop()],
    ["sends a share too many", "malformed", (m) => m.shares.push(m.shares[0])],
    ["sends a share of q or more", "malformed", (m) => m.shares[0].be32.fill(0xff)],
    ["sends an empty share", "malformed", (m) => (m.shares[1].be32 = new Uint8Array())],
  ];
  for (const [name, check, shares] of lies) {
    it(name, () => {
      assertNamed(run(), { liars: { 3: { shares } }, check });
    });
  }
  it("sends what makes s = 0 of the others' shares", () => {
    // Who speaks last knows the others' σ; here they are computed from the same stored presignatures.
    const { items, authorization } = run().pub;
    const [item] = items;
    assert.ok(item !== undefined);
    const sigma = [1, 2].map((party) =>
      signShare(of(of(new Map(decoded().entries()), 0), partyId(party)), wallet.key.groupKey, {
        ...item,
        authorization,
      }),
    );
    const shares = (m: Loose) => (m.shares[0] = Scalar.toProto(Scalar.negate(Scalar.sum(sigma))));
    assertNamed(run(), { liars: { 3: { shares } }, check: "signature-share" });
  });
  it("a signer whose own presignature was damaged finds that out and accuses nobody", () => {
    const [first] = stored;
    const damaged = Uint8Array.from(first?.get(partyId(1)) ?? []);
    damaged[damaged.length - 1] = (damaged.at(-1) ?? 0) ^ 1; // χ̃_1
    const X = wallet.key.groupKey;
    assert.throws(() => Presignature.decode(damaged, X), { code: "presignature" });
    const sets = decoded();
    sets[0]?.set(partyId(1), Presignature.decodeSealed(damaged));
    assert.throws(() => simulate(signRun(wallet, sets, messages, "damaged")), /the presignature was damaged/);
  });
  it("two liars at once", () => {
    const shares = (m: Loose) => otherScalar(m.shares[0]);
    const { outcome } = assertNamed(run(), { liars: { 2: { shares }, 3: { shares } }, check: "signature-share" });
    assertNobodyIsFramed(run(), outcome, [1]);
  });
});
