// Liars in presigning, for its two test files: a signing set of three, a pair, and products that are not what they should be.
import { create } from "@bufbuild/protobuf";
import { ProductSchema } from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { toBytes, toInteger } from "../../../src/crypto/modulus.js";
import { positionOf, productHash } from "../../../src/protocols/cggmp24/presign-rounds.js";
import { partyId } from "../../../src/session/party.js";
import { sessionDigest } from "../../../src/session/session.js";
import { SeededRandom, testGroup } from "../../session/simulation.js";
import { ceremony, fewRepetitions, of, presignRun } from "./ceremony.js";
import { assertNamed, flip, type Lies, type Loose } from "./dishonesty.js";

export const CHEAT = 3;
export const signers = [1, 2, 3];
export const wallet = ceremony({ threshold: 3, n: 4, profile: fewRepetitions }, "presign misbehaviour");
export const run = presignRun(wallet, signers, "presign misbehaviour");
export const ssid = sessionDigest(run.protocol, {
  sessionId: new SeededRandom(`${run.seed}/session`).bytes(16),
  group: testGroup(signers),
  pub: run.pub,
});
export const cheat = (lies: Lies, check: string) => assertNamed(run, { liars: { [CHEAT]: lies }, check });

// One pair is enough where a field of a proof is changed.
export const couple = ceremony({ threshold: 2, n: 3, profile: fewRepetitions }, "presign misbehaviour of two");
export const pair = presignRun(couple, [2, 3], "presign misbehaviour of two");
export const pairCheat = (lies: Lies, check: string) => assertNamed(pair, { liars: { [CHEAT]: lies }, check });

/** Adds `offset` to a plaintext, homomorphically: still a ciphertext, of something else. */
export function shift(ciphertext: Uint8Array, owner: number, offset = 1n): Uint8Array {
  const { paillier } = of(wallet.publicAux.parties, partyId(owner));
  const shifted = paillier.add(toInteger(ciphertext), paillier.encryptWith(offset, 1n));
  return toBytes(shifted, ciphertext.length);
}

/** The cheat's product for `targets` is shifted by one in every message that shows it. */
export function otherProduct(factor: "mask" | "key", part: "product" | "summand", targets: readonly number[]): Lies {
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
export function rehearse(factor: "mask" | "key"): Map<number, Loose> {
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
