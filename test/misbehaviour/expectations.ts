// Who is named, and by which check, for a change to each field of each round. `coverage.test.ts` holds these tables
// against the message descriptors: a field that is missing here, or is here and nowhere else, fails.

/** The check that convicts: of another value of the right form, of a bad form, or of one way to change the field. */
export type Named =
  | string
  | { readonly value?: string; readonly form?: string; readonly [what: string]: string | undefined };
/** By round and path. A path that is not a leaf can only lose its form. */
export type Table = Readonly<Record<string, Readonly<Record<string, Named>>>>;

/**
 * In place of a check: nobody can see that the value is another one, the session ends well, and its scene tells what becomes
 * of it.
 */
export const NOBODY = "nobody";

/** What a plain check name stands for: a bad form is refused before any check runs. */
export function checkFor(named: Named, { what, keepsForm }: { readonly what: string; readonly keepsForm: boolean }) {
  if (typeof named === "string") return keepsForm ? named : "malformed";
  return named[what] ?? (keepsForm ? named.value : (named.form ?? "malformed"));
}

/** The check looks at the form as well, for example of what a proof's decoder reads. */
const always = (check: string): Named => ({ value: check, form: check });
const form: Named = { form: "malformed" };

function each(prefix: string, fields: readonly string[], named: Named): Readonly<Record<string, Named>> {
  return Object.fromEntries(fields.map((field) => [`${prefix}${field}`, named]));
}

export const keygen: Table = {
  commitment: { hash: "opens-commitment" },
  opening: {
    ...each("", ["rid", "chainCode", "blinding", "schnorrCommitment", "coefficients[]"], "opens-commitment"),
    coefficients: form,
  },
  share: { share: "share-on-polynomial" },
  proof: { response: "knows-share" },
  confirmation: {},
};

export const frostSign: Table = {
  nonces: { commitments: form, ...each("commitments[].", ["hiding", "binding"], "signature-share") },
  shares: { shares: form, "shares[]": "signature-share" },
};

export const frostNonces: Table = {
  // A commitment of the right form is its sender's own, whatever it is: the share that answers to it later convicts.
  nonces: { commitments: form, ...each("commitments[].", ["hiding", "binding"], NOBODY) },
  agreed: {},
};

/** Commitments beside a share count by their hash only, so what is no point is like one that is another. */
const prepared = (commitments: string): Table => ({
  shares: {
    shares: form,
    "shares[].share": "signature-share",
    "shares[].commitments": form,
    ...each("shares[].commitments[].", ["hiding", "binding"], always(commitments)),
  },
});
/** While all shares fit, commitments are not read: the signature verifies. */
export const frostSignPrepared = prepared(NOBODY);
/** When somebody's share does not fit, every signer answers for its commitments too. */
export const besideWrongShare = prepared("signature-share");

export const sign: Table = { shares: { shares: form, "shares[]": "signature-share" } };

const elog = ["maskBlinding", "maskCommitment", "maskPower", "responseBlinding", "responseExponent"];
const encElg = [
  ...["commitment", "maskCommitment", "maskCiphertext", "maskMessage", "maskExponent"],
  ...["response", "responseExponent", "responseNonce", "responseBlinding"],
];
const affG = [
  ...["commitmentFactor", "commitmentSummand", "maskCommitmentFactor", "maskCommitmentSummand", "maskCiphertext"],
  ...["maskFactor", "maskSummand", "responseFactor", "responseSummand", "responseBlindingFactor"],
  ...["responseBlindingSummand", "responseNonce", "responseNonceSummand"],
];

export const presign: Table = {
  commitments: {
    ...each("", ["nonceCiphertext", "maskCiphertext"], always("commitment-proofs")),
    base: "commitment-proofs",
    nonceCommitment: form,
    maskCommitment: form,
    ...each("nonceCommitment.", ["blinding", "value"], "commitment-proofs"),
    ...each("maskCommitment.", ["blinding", "value"], "commitment-proofs"),
  },
  "commitment-proofs": {
    nonce: form,
    mask: form,
    ...each("nonce.", encElg, always("commitment-proofs")),
    ...each("mask.", encElg, always("commitment-proofs")),
  },
  mask: {
    mask: "mask-opens-commitment",
    proof: form,
    ...each("proof.", elog, always("mask-opens-commitment")),
    products: form,
    ...each("products[].", ["mask", "key"], "products-announced"),
  },
  products: {
    ...each("", ["mask", "key", "maskProof", "keyProof"], form),
    ...each("mask.", ["product", "summand"], always("products-announced")),
    ...each("key.", ["product", "summand"], always("products-announced")),
    ...each("maskProof.", affG, always("product-proofs")),
    ...each("keyProof.", affG, always("product-proofs")),
  },
  share: {
    productShare: "failed-nonce/decryption",
    nonce: "nonce-opens-commitment",
    key: "failed-chi/decryption",
    proof: form,
    ...each("proof.", elog, always("nonce-opens-commitment")),
  },
};

/** The rounds after shares that do not fit together; of Fig. 9 and of section 4.3.1. */
function failing(outcome: "failed-nonce" | "failed-chi"): Table {
  const dec = ["maskCiphertext", "maskPlaintext", "maskFactor", "responseFactor", "responsePlaintext", "responseNonce"];
  const affGStar = [
    ...["maskCiphertext", "maskFactor", "maskSummand"],
    ...["responseFactor", "responseSummand", "responseNonce", "responseNonceSummand"],
  ];
  return {
    verdict: {
      opened: { form: "malformed", none: "opens-products" },
      ...each("opened[].", ["product", "summand"], always("opens-products")),
    },
    decryption: {
      proof: form,
      "proof.entries": always(`${outcome}/decryption`),
      ...each("proof.entries[].", dec, always(`${outcome}/decryption`)),
    },
    "product-proofs": {
      proofs: form,
      "proofs[].entries": always(`${outcome}/product`),
      ...each("proofs[].entries[].", affGStar, always(`${outcome}/product`)),
    },
  };
}
export const failedNonce = failing("failed-nonce");
export const failedChi = failing("failed-chi");

export const auxInfo: Table = {
  "aux-commitment": { hash: "aux-opens-commitment" },
  "aux-opening": {
    ...each(
      "",
      ["paillierModulus", "ringPedersenModulus", "ringPedersenS", "ringPedersenT"],
      always("aux-opens-commitment"),
    ),
    parametersProof: form,
    "parametersProof.entries": always("aux-opens-commitment"),
    ...each("parametersProof.entries[].", ["mask", "response"], always("aux-opens-commitment")),
    rid: "aux-opens-commitment",
    blinding: "aux-opens-commitment",
  },
  "aux-proof": {
    paillierProof: form,
    "paillierProof.nonresidue": always("aux-knows-factors"),
    "paillierProof.entries": always("aux-knows-factors"),
    ...each(
      "paillierProof.entries[].",
      ["fourthRoot", "negated", "multiplied", "nthRoot"],
      always("aux-knows-factors"),
    ),
    ringPedersenRoot: always("aux-knows-factors"),
  },
  "aux-factor-proof": {
    proof: form,
    ...each(
      "proof.",
      [
        ...["commitmentP", "commitmentQ", "maskCommitmentP", "maskCommitmentQ", "maskProduct"],
        ...["responseP", "responseQ", "responseBlindingP", "responseBlindingQ", "responseProduct"],
      ],
      always("aux-no-small-factor"),
    ),
  },
  "aux-confirmation": {},
};

const dealing: Table = {
  "dealing-commitment": { hash: "dealing-opens-commitment" },
  "dealing-opening": {
    ...each("", ["rid", "blinding", "coefficients[]"], "dealing-opens-commitment"),
    coefficients: { form: "malformed", none: "dealing-opens-commitment" },
    schnorrCommitment: { value: "dealing-opens-commitment", absent: "dealing-opens-commitment" },
  },
  "dealing-share": { share: { value: "dealing-share-on-polynomial", absent: "dealing-share-on-polynomial" } },
  "dealing-proof": { response: { value: "dealing-knows-share", absent: "dealing-knows-share" } },
};

export const reshare: Table = { ...dealing, "dealing-confirmation": {} };
const { "dealing-opening": opening } = dealing;
export const refresh: Table = {
  ...dealing,
  // Of a threshold of two there is one coefficient: one too few is none, as those have who deal nothing.
  "dealing-opening": {
    ...opening,
    coefficients: { none: "dealing-opens-commitment", "one too few": "dealing-opens-commitment" },
  },
  ...auxInfo,
};

/** All tables of a protocol; presigning has one for its good path and one for each of its failing paths. */
export const tables: Readonly<Record<string, readonly Table[]>> = {
  "keygen/1": [keygen],
  "frost-sign/1": [frostSign],
  "frost-nonces/1": [frostNonces],
  "frost-sign-prepared/1": [frostSignPrepared, besideWrongShare],
  "cggmp24-sign/1": [sign],
  "cggmp24-aux-info/1": [auxInfo],
  "cggmp24-presign/1": [presign, failedNonce, failedChi],
  "cggmp24-reshare/1": [reshare],
  "cggmp24-refresh/1": [refresh],
};
