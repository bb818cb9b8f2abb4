/** The messages of presigning and what its figures read from them: Fig. 8, Fig. 9 and section 4.3.1 share them. */
import type { ElGamalCommitment, Product } from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import {
  PresignCommitmentProofsSchema,
  type PresignCommitments,
  PresignCommitmentsSchema,
  PresignDecryptionSchema,
  type PresignMask,
  PresignMaskSchema,
  PresignProductProofsSchema,
  PresignProductsSchema,
  type PresignShare,
  PresignShareSchema,
  PresignVerdictSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/presign_pb.js";
import { lagrangeCoefficient, Point, Scalar } from "../../crypto/curve.js";
import { Bug, InvalidInput } from "../../crypto/fault.js";
import type { Ciphertext, PaillierKey } from "../../crypto/paillier.js";
import type { ProofContext } from "../../crypto/proofs/context.js";
import { hashTuple } from "../../crypto/transcript.js";
import type { PartyId } from "../../session/party.js";
import type { Facts, Need, Round } from "../../session/protocol.js";
import { isPoint, isScalar } from "../element-shape.js";
import type { PublicKeyPackage } from "../key-share.js";
import type { PartyAux, PublicAux } from "./aux-record.js";

/** Largest signing set. */
export const MAX_SIGNERS = 16;

/** Public parameters of a presigning session; the session's parties are the signing set. */
export interface PresignParameters {
  readonly key: PublicKeyPackage;
  readonly aux: PublicAux;
}

const CIPHERTEXT_BYTES = 768;

const isElGamal = (commitment: ElGamalCommitment | undefined): boolean =>
  isPoint(commitment?.blinding) && isPoint(commitment?.value);
const isProduct = (product: Product | undefined): boolean =>
  product !== undefined && product.product.length <= CIPHERTEXT_BYTES && product.summand.length <= CIPHERTEXT_BYTES;

export const COMMITMENTS: Round<typeof PresignCommitmentsSchema> = {
  id: "commitments",
  step: 1,
  message: PresignCommitmentsSchema,
  delivery: "broadcast",
  maxBytes: 2048,
  wellFormed: (m) => isPoint(m.base) && isElGamal(m.nonceCommitment) && isElGamal(m.maskCommitment),
};
export const COMMITMENT_PROOFS: Round<typeof PresignCommitmentProofsSchema> = {
  id: "commitment-proofs",
  step: 1,
  message: PresignCommitmentProofsSchema,
  delivery: "direct",
  maxBytes: 8192,
  wellFormed: ({ nonce, mask }) => nonce !== undefined && mask !== undefined,
};
export const MASK: Round<typeof PresignMaskSchema> = {
  id: "mask",
  step: 2,
  message: PresignMaskSchema,
  delivery: "broadcast",
  maxBytes: 8192,
  wellFormed: ({ mask, proof, products }, { parties }) =>
    isPoint(mask) &&
    proof !== undefined &&
    products.length === parties - 1 &&
    products.every((hashes) => hashes.mask.length === 32 && hashes.key.length === 32),
};
export const PRODUCTS: Round<typeof PresignProductsSchema> = {
  id: "products",
  step: 2,
  message: PresignProductsSchema,
  delivery: "direct",
  maxBytes: 16384,
  wellFormed: ({ mask, key, maskProof, keyProof }) =>
    isProduct(mask) && isProduct(key) && maskProof !== undefined && keyProof !== undefined,
};
export const SHARE: Round<typeof PresignShareSchema> = {
  id: "share",
  step: 3,
  message: PresignShareSchema,
  delivery: "broadcast",
  maxBytes: 512,
  wellFormed: ({ productShare, nonce, key, proof }) =>
    isScalar(productShare) && isPoint(nonce) && isPoint(key) && proof !== undefined,
};
export const VERDICT: Round<typeof PresignVerdictSchema> = {
  id: "verdict",
  step: 4,
  message: PresignVerdictSchema,
  delivery: "broadcast",
  maxBytes: MAX_SIGNERS * 2048,
  wellFormed: ({ opened }, { parties }) =>
    (opened.length === 0 || opened.length === parties - 1) && opened.every(isProduct),
};
export const DECRYPTION: Round<typeof PresignDecryptionSchema> = {
  id: "decryption",
  step: 5,
  message: PresignDecryptionSchema,
  delivery: "broadcast",
  maxBytes: 1 << 19,
  wellFormed: ({ proof }) => proof !== undefined,
};
export const PRODUCT_PROOFS: Round<typeof PresignProductProofsSchema> = {
  id: "product-proofs",
  step: 6,
  message: PresignProductProofsSchema,
  delivery: "broadcast",
  maxBytes: MAX_SIGNERS << 20,
  wellFormed: ({ proofs }, { parties }) => proofs.length === parties - 1,
};

/** Every party's broadcast of a round; who is not there is a bug of ours. */
export function of<M>(messages: ReadonlyMap<PartyId, M>, party: PartyId): M {
  const message = messages.get(party);
  if (message === undefined) throw new Bug("a complete round has a message of everybody", { party });
  return message;
}

/** Position of `about` in a list that `owner` made with one entry for each other party, ascending. */
export function positionOf(parties: readonly PartyId[], owner: PartyId, about: PartyId): number {
  return parties.filter((party) => party !== owner).indexOf(about);
}

export function auxOf({ aux }: PresignParameters, party: PartyId): PartyAux {
  const found = aux.parties.get(party);
  if (found === undefined) throw new InvalidInput("aux-absent", "a signer has no aux info", { party });
  return found;
}

/** W_j = X_j^{λ_j(S)}. */
export function additiveShare({ key }: PresignParameters, signers: readonly PartyId[], party: PartyId): Point {
  const X_j = key.publicShares.get(party);
  if (X_j === undefined) throw new InvalidInput("signer", "a signer holds no share of the key", { party });
  return X_j.timesPublic(lagrangeCoefficient(party, signers));
}

/** A ciphertext field of the profile's length in Z*_{N²}; undefined otherwise. Total. */
export function readCiphertext(key: PaillierKey, bytes: Uint8Array): Ciphertext | undefined {
  try {
    return key.parseCiphertext(bytes);
  } catch (refusal) {
    if (refusal instanceof InvalidInput) return undefined;
    throw refusal;
  }
}

/** A pair as it was read: the product under the key of the party it is for, the summand under its maker's. */
export interface ProductPair {
  readonly product: Ciphertext;
  readonly summand: Ciphertext;
}

/** D_ji and F_ji; undefined when one is no ciphertext. Total. */
export function readProduct(
  pub: PresignParameters,
  { maker, target }: { readonly maker: PartyId; readonly target: PartyId },
  message: Product | undefined,
): ProductPair | undefined {
  if (message === undefined) return undefined;
  const product = readCiphertext(auxOf(pub, target).paillier, message.product);
  const summand = readCiphertext(auxOf(pub, maker).paillier, message.summand);
  return product === undefined || summand === undefined ? undefined : { product, summand };
}

/** H(D_ji, F_ji), bound to its place. */
export function productHash(
  ssid: Uint8Array,
  place: { readonly factor: "mask" | "key"; readonly maker: PartyId; readonly target: PartyId },
  product: Product | undefined,
): Uint8Array {
  const { factor, maker, target } = place;
  const bytes = [product?.product ?? new Uint8Array(), product?.summand ?? new Uint8Array()];
  return hashTuple("presign/product", [ssid, factor, maker, target, ...bytes]);
}

/** The points of a well-formed commitment message. */
export function readCommitments({ base, nonceCommitment, maskCommitment }: PresignCommitments) {
  return {
    Y: Point.fromProto(base),
    A: [Point.fromProto(nonceCommitment?.blinding), Point.fromProto(nonceCommitment?.value)] as const,
    B: [Point.fromProto(maskCommitment?.blinding), Point.fromProto(maskCommitment?.value)] as const,
  };
}

/** Γ = Π Γ_j. */
export const jointNonce = (masks: ReadonlyMap<PartyId, PresignMask>): Point =>
  Point.sum([...masks.values()].map(({ mask }) => Point.fromProto(mask)));

/** δ = Σ δ_j. */
export const jointProduct = (shares: ReadonlyMap<PartyId, PresignShare>): Scalar =>
  Scalar.sum([...shares.values()].map(({ productShare }) => Scalar.fromProto(productShare)));

export type Outcome = "sound" | "failed-nonce" | "failed-chi";

/** Fig. 8, output: whether the shares of step 3 fit together. Everybody who saw the same broadcasts agrees. */
export function outcomeOf(X: Point, shares: ReadonlyMap<PartyId, PresignShare>): Outcome {
  const all = [...shares.values()];
  const delta = jointProduct(shares);
  const product = Point.sum(all.map(({ nonce }) => Point.fromProto(nonce)));
  if (delta === 0n || !Point.base.timesPublic(delta).equals(product)) return "failed-nonce"; // g^δ = Π Δ_j
  const keys = Point.sum(all.map(({ key }) => Point.fromProto(key)));
  return X.timesPublic(delta).equals(keys) ? "sound" : "failed-chi"; //                          X^δ = Π S_j
}

/** What a proof of this protocol is bound to. */
export function proofContext(
  { pub, ssid }: Pick<Facts<PresignParameters>, "pub" | "ssid">,
  label: string,
  { prover, verifier }: { readonly prover: PartyId; readonly verifier: PartyId | 0 },
): ProofContext {
  return { profile: pub.aux.profile, ssid, round: label, prover, verifier };
}

export const accused = (round: Round): Need => ({ round, from: "accused" });
export const accuser = (round: Round): Need => ({ round, from: "accuser" });
export const everyone = (round: Round): Need => ({ round, from: "everyone" });
