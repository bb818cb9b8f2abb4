/**
 * Failed chi: CGGMP24, section 4.3.1. X^δ differs from Π S_j although the nonce is sound: Fig. 9 again with w_j for γ_j,
 * D̂, F̂ for D, F, and base Γ for g.
 */
import { Point } from "../../crypto/curve.js";
import type { Failure } from "./attribution.js";
import { additiveShare, jointNonce, of } from "./presign-rounds.js";

export const failedChi: Failure = {
  outcome: "failed-chi",
  factor: "key",
  X: ({ pub, parties }, party) => additiveShare(pub, parties, party), // X = W_j
  G: ({ masks }) => jointNonce(masks),
  S: ({ shares }, party) => Point.fromProto(of(shares, party).key), //    S = S_j = Γ^{χ_j}
};
