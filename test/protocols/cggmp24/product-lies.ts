// Products that are not what they should be, in any presigning session: announced, sent and opened alike, so that nothing
// but the product itself is wrong.
import { create } from "@bufbuild/protobuf";
import { ProductSchema } from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { toBytes, toInteger } from "../../../src/crypto/modulus.js";
import type { PaillierKey } from "../../../src/crypto/paillier.js";
import type { PresignParameters, PresignSecret } from "../../../src/protocols/cggmp24/presign.js";
import { positionOf, productHash } from "../../../src/protocols/cggmp24/presign-rounds.js";
import type { Presignature } from "../../../src/protocols/cggmp24/presignature.js";
import { partyId } from "../../../src/session/party.js";
import { sessionDigest } from "../../../src/session/session.js";
import { type Run, SeededRandom, testGroup } from "../../session/simulation.js";
import { of } from "./ceremony.js";
import { caught, flip, type Lies, type Loose } from "./dishonesty.js";

/** Who cheats in which session. */
export interface Place {
  readonly run: Run<PresignParameters, PresignSecret, Presignature>;
  readonly cheat: number;
}

export interface OtherProduct {
  readonly factor: "mask" | "key";
  readonly part: "product" | "summand";
  /** Whose products are others. */
  readonly targets: readonly number[];
}

/** Adds `offset` to a plaintext, homomorphically: still a ciphertext, of something else. */
export function shiftUnder(key: PaillierKey, ciphertext: Uint8Array, offset = 1n): Uint8Array {
  const shifted = key.add(toInteger(ciphertext), key.encryptWith(offset, 1n));
  return toBytes(shifted, ciphertext.length);
}

/** The cheat's product for `targets` is shifted by one in every message that shows it. */
export function otherProductIn(
  { run, cheat, rehearsal }: Place & { readonly rehearsal: ReadonlyMap<number, Loose> },
  { factor, part, targets }: OtherProduct,
): Lies {
  const parties = run.ids.map(partyId);
  const ssid = sessionDigest(run.protocol, {
    sessionId: new SeededRandom(`${run.seed}/session`).bytes(16),
    group: testGroup(run.ids),
    pub: run.pub,
  });
  const shifted = new Map<number, Loose>();
  const change = (product: Loose, target: number) => {
    const { paillier } = of(run.pub.aux.parties, partyId(part === "product" ? target : cheat));
    product[part] = shiftUnder(paillier, product[part]);
    shifted.set(target, create(ProductSchema, { product: product.product, summand: product.summand }));
  };
  return {
    // The hashes are broadcast before the products are composed, so the lie composes them from a rehearsal.
    mask: (m: Loose) => {
      for (const target of targets) {
        const product = structuredClone(of(rehearsal, target));
        change(product, target);
        m.products[positionOf(parties, partyId(cheat), partyId(target))][factor] = productHash(
          ssid,
          { factor, maker: partyId(cheat), target: partyId(target) },
          product,
        );
      }
    },
    products: (m: Loose, to) => {
      if (targets.includes(to)) m[factor] = structuredClone(of(shifted, to));
    },
    verdict: (m: Loose) => {
      for (const target of targets) {
        const position = positionOf(parties, partyId(cheat), partyId(target));
        if (m.opened.length > 0) m.opened[position] = structuredClone(of(shifted, target));
      }
    },
  };
}

/** What the cheat would honestly have sent; seeds make it the same in every run. */
export function rehearseIn({ run, cheat }: Place, factor: "mask" | "key"): Map<number, Loose> {
  const seen = new Map<number, Loose>();
  const products = (m: Loose, to: number) => {
    seen.set(to, structuredClone(m[factor]));
    flip(m.mask.product); // the session ends here
  };
  caught(run, { liars: { [cheat]: { products } }, check: "products-announced" });
  return seen;
}
