import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as tinysecp from "tiny-secp256k1";
import { Scalar } from "../../src/crypto/curve.js";
import { Bug, InvalidInput } from "../../src/crypto/fault.js";
import { MAX_BATCH } from "../../src/protocols/frost/nonce-round.js";
import { PreparedNonces } from "../../src/protocols/frost/prepared-nonces.js";
import { frostSignPrepared, type PreparedSigning } from "../../src/protocols/frost/sign-prepared.js";
import { outputKey } from "../../src/protocols/frost/taproot.js";
import { partyId } from "../../src/session/party.js";
import { outputs, SeededRandom, simulate } from "../session/simulation.js";
import { generate, type Prepared, prepare, secretOf } from "./frost-ceremony.js";

const idAt = (prepared: Prepared, index: number): Uint8Array =>
  [...prepared.values()][0]?.[index]?.id ?? assert.fail("no such nonces");

describe("FROST with nonces made ahead", () => {
  for (const [threshold, n] of [
    [2, 2],
    [3, 5],
    [4, 7],
  ] as const) {
    it(`${threshold}-of-${n} signs three messages in one round, under derived Taproot keys`, () => {
      const ids = Array.from({ length: n }, (_, index) => index + 1);
      const shares = generate(ids, threshold, `keygen ${threshold} of ${n}`);
      const [key] = shares.values();
      assert.ok(key !== undefined);
      const signers = ids.slice(n - threshold);
      const prepared = prepare(shares, signers, 4, `nonces ${threshold} of ${n}`);
      const names = [...prepared.values()].map((all) => all.map(({ id }) => Buffer.from(id).toString("hex")).join());
      assert.equal(new Set(names).size, 1, "all signers name them alike");
      const random = new SeededRandom(`messages ${threshold} of ${n}`);
      const items = [3, 0, 2].map((index) => ({
        message: random.bytes(32),
        bip32Tweak: index === 0 ? Scalar.zero : Scalar.random(random),
        noncesId: idAt(prepared, index),
      }));
      const run = { protocol: frostSignPrepared, ids: signers, pub: { key, items, authorization: random.bytes(32) } };
      const outcome = simulate({ ...run, secret: secretOf(shares, prepared, [3, 0, 2]), seed: "sign" });
      const envelopes = new Set(outcome.delivered.map(({ bytes }) => Buffer.from(bytes).toString("hex")));
      assert.equal(envelopes.size, threshold, "one envelope a signer");
      for (const signatures of outputs(outcome).values()) {
        for (const [index, { message, bip32Tweak }] of items.entries()) {
          const signature = signatures[index] ?? new Uint8Array();
          assert.ok(tinysecp.verifySchnorr(message, outputKey(key, bip32Tweak).xOnly, signature));
        }
      }
    });
  }

  const shares = generate([1, 2, 3], 2, "refusals");
  const other = generate([1, 2, 3], 2, "another key");
  const key = shares.get(partyId(1));
  assert.ok(key !== undefined);
  const prepared = prepare(shares, [1, 2], 2, "refusals");
  const message = new Uint8Array(32).fill(1);
  const signing = (noncesIds: readonly Uint8Array[]): PreparedSigning => ({
    key,
    items: noncesIds.map((noncesId) => ({ message, bip32Tweak: Scalar.one, noncesId })),
    authorization: new Uint8Array(32),
  });
  const own = (indices: readonly number[]) => secretOf(shares, prepared, indices);
  const refused = (
    code: string,
    run: { ids?: readonly number[]; pub: PreparedSigning; secret: ReturnType<typeof own> },
  ) =>
    assert.throws(
      () => simulate({ protocol: frostSignPrepared, ids: [1, 2], seed: "refused", ...run }),
      (error) => error instanceof InvalidInput && error.code === code,
      code,
    );

  it("nonces of another key, signing set, order or number are refused, and one pair for two messages", () => {
    const [first, second] = [idAt(prepared, 0), idAt(prepared, 1)];
    const foreign = prepare(other, [1, 2], 1, "another key");
    refused("nonces-key", { pub: signing([idAt(foreign, 0)]), secret: secretOf(shares, foreign, [0]) });
    const three = prepare(shares, [1, 2, 3], 1, "three");
    refused("nonces-signers", { pub: signing([idAt(three, 0)]), secret: secretOf(shares, three, [0]) });
    refused("nonces-order", { pub: signing([first, second]), secret: own([1, 0]) });
    refused("nonces-repeated", { pub: signing([first, first]), secret: own([0, 0]) });
    refused("batch", { pub: signing([first, second]), secret: own([0]) });
    refused("batch", { pub: signing([]), secret: own([]) });
  });

  it("2-of-3: a signer's nonces sign once, whatever came of the first time", () => {
    const [one] = own([0])(partyId(1)).nonces;
    assert.ok(one !== undefined);
    const nonces = one.take();
    nonces.spend();
    assert.throws(() => nonces.spend(), Bug);
    assert.throws(() => nonces.putAside(), Bug);
    const used = (error: unknown) => error instanceof InvalidInput && error.code === "nonces-used";
    assert.throws(() => one.take(), used);
    assert.throws(() => one.encode(), used, "used nonces are not kept");
    assert.equal(JSON.stringify(one).includes(Buffer.from(one.id).toString("hex")), true);
  });

  it("what the ledger returns is read back only whole", () => {
    const bytes = prepared.get(partyId(1))?.[0]?.bytes ?? assert.fail("no nonces");
    assert.deepEqual(PreparedNonces.decode(bytes).encode(), bytes);
    assert.throws(() => PreparedNonces.decode(new Uint8Array(8193)), InvalidInput);
    let refusals = 0;
    for (let at = 0; at < bytes.length - 64; at += 7) {
      const changed = Uint8Array.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      // Either it is refused, or it is the nonces of other public values under another id: never this id with others.
      try {
        const read = PreparedNonces.decode(changed);
        assert.notDeepEqual(read.id, idAt(prepared, 0));
      } catch {
        refusals++;
      }
    }
    assert.ok(refusals > 0);
  });

  it("a session makes 1 to MAX_BATCH pairs", () => {
    assert.equal(prepare(shares, [1, 2], MAX_BATCH, "full").get(partyId(1))?.length, MAX_BATCH);
    for (const count of [0, MAX_BATCH + 1, 1.5]) {
      assert.throws(() => prepare(shares, [1, 2], count, "bounds"));
    }
  });
});
