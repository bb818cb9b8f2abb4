/**
 * Failed nonce: CGGMP24, Fig. 9. g^δ differs from Π Δ_j, while every Δ_j is Γ^{k_j} by Π-elog. So a δ_j is not what
 * party j's products decrypt to, or a product is not what Γ_l and its summand say.
 */
import { Point, Scalar } from "../../crypto/curve.js";
import type { Failure } from "./attribution.js";
import { of } from "./presign-rounds.js";

export const failedNonce: Failure = {
  outcome: "failed-nonce",
  factor: "mask",
  X: ({ masks }, party) => Point.fromProto(of(masks, party).mask), //                                X = Γ_j
  G: () => Point.base,
  S: ({ shares }, party) => Point.base.timesPublic(Scalar.fromProto(of(shares, party).productShare)), // S = g^{δ_j}
};
