import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ProductSchema } from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { AffGProofSchema, ElogProofSchema, EncElgProofSchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { toBytes } from "../../../src/crypto/modulus.js";
import { partyId } from "../../../src/session/party.js";
import { evidenceOf, simulate } from "../../session/simulation.js";
import { of } from "./ceremony.js";
import {
  assertNamed,
  assertNobodyIsFramed,
  change,
  fieldsOf,
  flip,
  type Loose,
  otherPoint,
  remembering,
} from "./dishonesty.js";
import { CHEAT, cheat, otherProduct, pairCheat, run, shift, signers, wallet } from "./presign-liars.js";
import { rememberPowers } from "./remembered-powers.js";

rememberPowers();
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
