import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { create, toJsonString } from "@bufbuild/protobuf";
import { ProductSchema } from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import {
  AffGProofSchema,
  AffGStarEntrySchema,
  DecEntrySchema,
  ElogProofSchema,
  EncElgProofSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { type Evidence, EvidenceSchema } from "../../../gen/mpcwallet/session/v1/session_pb.js";
import { toBytes, toInteger } from "../../../src/crypto/modulus.js";
import { positionOf, productHash } from "../../../src/protocols/cggmp24/presign-rounds.js";
import { partyId } from "../../../src/session/party.js";
import { sessionDigest } from "../../../src/session/session.js";
import { evidenceOf, SeededRandom, simulate, testGroup } from "../../session/simulation.js";
import { ceremony, fewRepetitions, of, presignRun } from "./ceremony.js";
import {
  assertNamed,
  assertNobodyIsFramed,
  change,
  fieldsOf,
  flip,
  type Lies,
  type Loose,
  otherPoint,
  otherScalar,
  remembering,
} from "./dishonesty.js";
import type { JudgeInput } from "./judge.js";

const CHEAT = 3;
const signers = [1, 2, 3];
const wallet = ceremony({ threshold: 3, n: 4, profile: fewRepetitions }, "presign misbehaviour");
const run = presignRun(wallet, signers, "presign misbehaviour");
const ssid = sessionDigest(run.protocol, {
  sessionId: new SeededRandom(`${run.seed}/session`).bytes(16),
  group: testGroup(signers),
  pub: run.pub,
});
const cheat = (lies: Lies, check: string) => assertNamed(run, { liars: { [CHEAT]: lies }, check });

// One pair is enough where a field of a proof is changed.
const couple = ceremony({ threshold: 2, n: 3, profile: fewRepetitions }, "presign misbehaviour of two");
const pair = presignRun(couple, [2, 3], "presign misbehaviour of two");
const pairCheat = (lies: Lies, check: string) => assertNamed(pair, { liars: { [CHEAT]: lies }, check });

/** Adds `offset` to a plaintext, homomorphically: still a ciphertext, of something else. */
function shift(ciphertext: Uint8Array, owner: number, offset = 1n): Uint8Array {
  const { paillier } = of(wallet.publicAux.parties, partyId(owner));
  const shifted = paillier.add(toInteger(ciphertext), paillier.encryptWith(offset, 1n));
  return toBytes(shifted, ciphertext.length);
}

describe("presigning, round 1, names whoever", () => {
  for (const field of ["nonceCiphertext", "maskCiphertext"]) {
    it(`encrypts something else in ${field}`, () => {
      cheat({ commitments: (m: Loose) => (m[field] = shift(m[field], CHEAT)) }, "commitment-proofs");
    });
    for (const [what, value] of [
      ["zero", (bytes: Uint8Array) => bytes.fill(0)],
      ["a value above N²", (bytes: Uint8Array) => bytes.fill(0xff)],
      ["a short field", (bytes: Uint8Array) => bytes.subarray(1)],
      ["a multiple of N", () => toBytes(of(wallet.publicAux.parties, partyId(CHEAT)).paillier.N, 512)],
    ] as const) {
      it(`sends ${what} for ${field}`, () => {
        pairCheat({ commitments: (m: Loose) => (m[field] = value(m[field])) }, "commitment-proofs");
      });
    }
  }
  it("commits under another base", () => {
    cheat({ commitments: (m: Loose) => otherPoint(m.base) }, "commitment-proofs");
  });
  for (const commitment of ["nonceCommitment", "maskCommitment"]) {
    for (const part of ["blinding", "value"]) {
      it(`commits to something else in ${commitment}.${part}`, () => {
        cheat({ commitments: (m: Loose) => otherPoint(m[commitment][part]) }, "commitment-proofs");
      });
    }
    it(`sends no ${commitment}`, () => {
      pairCheat({ commitments: (m: Loose) => delete m[commitment] }, "malformed");
    });
  }
  it("sends an identity point", () => {
    cheat({ commitments: (m: Loose) => (m.base.sec1 = Uint8Array.of(0)) }, "malformed");
  });
  for (const proof of ["nonce", "mask"]) {
    for (const field of fieldsOf(EncElgProofSchema)) {
      it(`changes ${field} of the proof for ${proof}`, () => {
        pairCheat({ "commitment-proofs": (m: Loose) => change(m[proof], field) }, "commitment-proofs");
      });
    }
    it(`sends no proof for ${proof}`, () => {
      pairCheat({ "commitment-proofs": (m: Loose) => delete m[proof] }, "malformed");
    });
  }
  it("sends a wrong proof to one party only: that party alone proves it", () => {
    assertNamed(run, {
      liars: { [CHEAT]: { "commitment-proofs": (m: Loose, to) => (to === 2 ? flip(m.nonce.commitment) : undefined) } },
      check: "commitment-proofs",
      victims: [2],
    });
  });
});

describe("presigning, round 2, names whoever", () => {
  it("publishes another Γ", () => {
    cheat({ mask: (m: Loose) => otherPoint(m.mask) }, "mask-opens-commitment");
  });
  for (const field of fieldsOf(ElogProofSchema)) {
    it(`changes ${field} of the opening's proof`, () => {
      pairCheat({ mask: (m: Loose) => change(m.proof, field) }, "mask-opens-commitment");
    });
  }
  for (const factor of ["mask", "key"]) {
    it(`announces another product of the ${factor}`, () => {
      const announce = (m: Loose) => {
        for (const hashes of m.products) flip(hashes[factor]);
      };
      cheat({ mask: announce }, "products-announced");
    });
    for (const part of ["product", "summand"]) {
      it(`sends another ${part} of the ${factor} than it announced`, () => {
        cheat({ products: (m: Loose) => flip(m[factor][part]) }, "products-announced");
      });
      it(`multiplies something else in the ${part} of the ${factor}`, () => {
        cheat(otherProduct(factor as "mask" | "key", part as "product" | "summand", [1, 2]), "product-proofs");
      });
    }
    for (const field of fieldsOf(AffGProofSchema)) {
      it(`changes ${field} of the proof for the ${factor}`, () => {
        pairCheat({ products: (m: Loose) => change(m[`${factor}Proof`], field) }, "product-proofs");
      });
    }
    it(`sends no proof for the ${factor}`, () => {
      pairCheat({ products: (m: Loose) => delete m[`${factor}Proof`] }, "malformed");
    });
  }
  it("announces a product too few", () => {
    cheat({ mask: (m: Loose) => m.products.pop() }, "malformed");
  });
  it("sends a field of another length", () => {
    const longer = (m: Loose) => (m.maskProof.responseBlindingFactor = new Uint8Array(4000));
    pairCheat({ products: longer }, "product-proofs");
    pairCheat({ products: (m: Loose) => (m.mask.product = new Uint8Array(769)) }, "malformed");
  });
});

/** The cheat's product for `targets` is shifted by one in every message that shows it. */
function otherProduct(factor: "mask" | "key", part: "product" | "summand", targets: readonly number[]): Lies {
  const shifted = new Map<number, Loose>();
  const parties = signers.map(partyId);
  const change = (product: Loose, target: number) => {
    product[part] = shift(product[part], part === "product" ? target : CHEAT);
    shifted.set(target, create(ProductSchema, { product: product.product, summand: product.summand }));
  };
  // The hashes are broadcast before the products are composed, so the lie composes them from a rehearsal.
  const rehearsal = rehearse(factor);
  return {
    mask: (m: Loose) => {
      for (const target of targets) {
        const product = structuredClone(of(rehearsal, target));
        change(product, target);
        m.products[positionOf(parties, partyId(CHEAT), partyId(target))][factor] = productHash(
          ssid,
          { factor, maker: partyId(CHEAT), target: partyId(target) },
          product,
        );
      }
    },
    products: (m: Loose, to) => {
      if (targets.includes(to)) m[factor] = structuredClone(of(shifted, to));
    },
    verdict: (m: Loose) => {
      for (const target of targets) {
        const position = positionOf(parties, partyId(CHEAT), partyId(target));
        if (m.opened.length > 0) m.opened[position] = structuredClone(of(shifted, target));
      }
    },
  };
}

const rehearsals = new Map<string, Map<number, Loose>>();
/** What the cheat would honestly have sent; seeds make it the same in every run. */
function rehearse(factor: "mask" | "key"): Map<number, Loose> {
  const seen = rehearsals.get(factor) ?? new Map<number, Loose>();
  if (seen.size === 0) {
    assertNamed(run, {
      liars: {
        [CHEAT]: {
          products: (m: Loose, to) => {
            seen.set(to, structuredClone(m[factor]));
            flip(m.mask.product);
          },
        },
      },
      check: "products-announced",
    });
    rehearsals.set(factor, seen);
  }
  return seen;
}

describe("presigning, round 3, names whoever", () => {
  it("publishes another Δ", () => {
    cheat({ share: (m: Loose) => otherPoint(m.nonce) }, "nonce-opens-commitment");
  });
  for (const field of fieldsOf(ElogProofSchema)) {
    it(`changes ${field} of the nonce's proof`, () => {
      pairCheat({ share: (m: Loose) => change(m.proof, field) }, "nonce-opens-commitment");
    });
  }
  it("sends a δ of q or more", () => {
    cheat({ share: (m: Loose) => m.productShare.be32.fill(0xff) }, "malformed");
  });
  it("sends the identity for S", () => {
    cheat({ share: (m: Loose) => (m.key.sec1 = Uint8Array.of(0)) }, "malformed");
  });
  it("opens products although all fits", () => {
    const product = create(ProductSchema, { product: new Uint8Array(512), summand: new Uint8Array(512) });
    cheat({ verdict: (m: Loose) => m.opened.push(product, product) }, "opens-products");
  });
});

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

describe("presigning with nobody to blame", () => {
  it("an honest session's messages frame nobody", () => {
    const outcome = simulate(remembering(run));
    for (const progress of outcome.progress.values()) {
      assert.equal(progress.state, "done");
      assert.deepEqual(evidenceOf(progress), []);
    }
    assert.ok(assertNobodyIsFramed(run, outcome, signers) >= 30);
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
