import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { toJsonString } from "@bufbuild/protobuf";
import { AffGStarEntrySchema, DecEntrySchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { type Evidence, EvidenceSchema } from "../../../gen/mpcwallet/session/v1/session_pb.js";
import { toBytes, toInteger } from "../../../src/crypto/modulus.js";
import { fewRepetitions, of } from "./ceremony.js";
import {
  assertNamed,
  assertNobodyIsFramed,
  change,
  fieldsOf,
  flip,
  type Loose,
  otherPoint,
  otherScalar,
} from "./dishonesty.js";
import type { JudgeInput } from "./judge.js";
import { CHEAT, cheat, otherProduct, rehearse, run, shift, wallet } from "./presign-liars.js";
import { rememberPowers } from "./remembered-powers.js";

rememberPowers();

describe("a failed nonce (Fig. 9) names whoever", () => {
  const wrongDelta = { share: (m: Loose) => otherScalar(m.productShare) };

  it("publishes a wrong δ, and the same messages frame nobody", () => {
    const { outcome } = cheat(wrongDelta, "failed-nonce/decryption");
    assert.ok(assertNobodyIsFramed(run, outcome, [1, 2]) >= 20);
  });
  it("publishes δ = 0", () => {
    cheat({ share: (m: Loose) => m.productShare.be32.fill(0) }, "failed-nonce/decryption");
  });
  it("publishes a wrong δ and opens nothing", () => {
    cheat({ ...wrongDelta, verdict: (m: Loose) => (m.opened = []) }, "opens-products");
  });
  for (const part of ["product", "summand"]) {
    it(`publishes a wrong δ and opens another ${part}`, () => {
      const verdict = (m: Loose) => (m.opened[0][part] = shift(m.opened[0][part], part === "product" ? 1 : CHEAT));
      cheat({ ...wrongDelta, verdict }, "opens-products");
    });
  }
  it("publishes a wrong δ and opens the products of the key", () => {
    const products = rehearse("key");
    cheat({ ...wrongDelta, verdict: (m: Loose) => (m.opened = [of(products, 1), of(products, 2)]) }, "opens-products");
  });
  for (const field of fieldsOf(DecEntrySchema)) {
    it(`does not prove its δ: ${field}`, () => {
      assertNamed(run, {
        liars: { 2: { decryption: (m: Loose) => change(m.proof.entries[0], field) }, [CHEAT]: wrongDelta },
        check: "failed-nonce/decryption",
      });
    });
  }
  it("sends a repetition too few or too many", () => {
    const fewer = (m: Loose) => m.proof.entries.pop();
    const more = (m: Loose) => m.proof.entries.push(m.proof.entries[0]);
    for (const decryption of [fewer, more]) {
      assertNamed(run, { liars: { 2: { decryption }, [CHEAT]: wrongDelta }, check: "failed-nonce/decryption" });
    }
  });
  it("sends another product to an accomplice, who looks away", () => {
    const lies = otherProduct("mask", "product", [2]);
    const { outcome } = assertNamed(run, {
      liars: { 2: {}, [CHEAT]: lies },
      culprits: [CHEAT],
      check: "failed-nonce/product",
    });
    assert.ok(assertNobodyIsFramed(run, outcome, [1]) >= 10);
  });
  it("encrypts another β in F than in D for an accomplice, and publishes a δ that fits F", () => {
    const share = (m: Loose) => {
      m.productShare.be32 = toBytes((toInteger(m.productShare.be32) - 1n) % (1n << 256n), 32);
    };
    assertNamed(run, {
      liars: { 2: {}, [CHEAT]: { ...otherProduct("mask", "summand", [2]), share } },
      culprits: [CHEAT],
      check: "failed-nonce/product",
    });
  });
  for (const field of fieldsOf(AffGStarEntrySchema)) {
    it(`does not prove its products: ${field}`, () => {
      const lies = { ...otherProduct("mask", "product", [2]) };
      const proofs = (m: Loose) => change(m.proofs[0].entries[0], field);
      assertNamed(run, {
        liars: { 2: { "product-proofs": proofs }, [CHEAT]: lies },
        check: "failed-nonce/product",
      });
    });
  }
  it("sends a proof too few for its products", () => {
    assertNamed(run, {
      liars: {
        2: {},
        [CHEAT]: { ...otherProduct("mask", "product", [2]), "product-proofs": (m: Loose) => m.proofs.pop() },
      },
      culprits: [CHEAT],
      check: "malformed",
    });
  });
});

describe("a failed chi (section 4.3.1) names whoever", () => {
  const wrongChi = { share: (m: Loose) => otherPoint(m.key) };

  it("publishes a wrong S, and the same messages frame nobody", () => {
    const { outcome } = cheat(wrongChi, "failed-chi/decryption");
    assert.ok(assertNobodyIsFramed(run, outcome, [1, 2]) >= 20);
  });
  it("publishes a wrong S and opens nothing", () => {
    cheat({ ...wrongChi, verdict: (m: Loose) => (m.opened = []) }, "opens-products");
  });
  it("publishes a wrong S and opens the products of the mask", () => {
    const products = rehearse("mask");
    cheat({ ...wrongChi, verdict: (m: Loose) => (m.opened = [of(products, 1), of(products, 2)]) }, "opens-products");
  });
  it("publishes a wrong S and changes its proof", () => {
    cheat({ ...wrongChi, decryption: (m: Loose) => flip(m.proof.entries[3].maskCiphertext) }, "failed-chi/decryption");
  });
  it("sends another product to an accomplice, who looks away", () => {
    const { outcome } = assertNamed(run, {
      liars: { 2: {}, [CHEAT]: otherProduct("key", "product", [2]) },
      culprits: [CHEAT],
      check: "failed-chi/product",
    });
    assert.ok(assertNobodyIsFramed(run, outcome, [1]) >= 10);
  });
  it("both a wrong δ and a wrong S: the nonce is judged first", () => {
    const share = (m: Loose) => {
      otherScalar(m.productShare);
      otherPoint(m.key);
    };
    cheat({ share }, "failed-nonce/decryption");
  });
  it("two parties whose lies do not cancel are both named", () => {
    assertNamed(run, { liars: { 2: wrongChi, [CHEAT]: wrongChi }, check: "failed-chi/decryption" });
  });
});

describe("a judge in another process", () => {
  it("confirms evidence of each kind from public facts alone, and rejects it against anybody else", () => {
    const caught = [
      cheat({ "commitment-proofs": (m: Loose) => flip(m.nonce.commitment) }, "commitment-proofs"),
      cheat({ products: (m: Loose) => flip(m.keyProof.commitmentFactor) }, "product-proofs"),
      cheat({ share: (m: Loose) => otherPoint(m.key) }, "failed-chi/decryption"),
      assertNamed(run, {
        liars: { 2: {}, [CHEAT]: otherProduct("mask", "product", [2]) },
        culprits: [CHEAT],
        check: "failed-nonce/product",
      }),
    ];
    const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
    const { key, publicAux } = wallet;
    for (const { context, evidence } of caught) {
      const facts: Omit<JudgeInput, "evidence"> = {
        sessionId: hex(context.sessionId),
        parties: context.group.parties.map((party) => ({ ...party, identityKey: hex(party.identityKey) })),
        binaryRepetitions: fewRepetitions.binaryRepetitions,
        threshold: key.threshold,
        groupKey: hex(key.groupKey.toBytes()),
        chainCode: hex(key.chainCode),
        publicShares: [...key.publicShares].map(([party, point]) => [party, hex(point.toBytes())] as const),
        aux: [...publicAux.parties].map(
          ([
            party,
            {
              paillier,
              ringPedersen: { N, s, t },
            },
          ]) => {
            const [P, n, S, T] = [paillier.N, N, s, t].map((value) => value.toString(16));
            return { party, P: P ?? "", N: n ?? "", s: S ?? "", t: T ?? "" };
          },
        ),
      };
      const ask = (accusation: Evidence): string =>
        execFileSync(process.execPath, ["dist/test/protocols/cggmp24/judge.js"], {
          input: JSON.stringify({ ...facts, evidence: toJsonString(EvidenceSchema, accusation) }),
          encoding: "utf8",
        }).trim();
      const [first] = evidence;
      assert.ok(first !== undefined);
      assert.equal(ask(first), "guilty");
      assert.equal(ask({ ...first, accused: 1, accuser: 2 }), "not proved");
    }
  });
});
