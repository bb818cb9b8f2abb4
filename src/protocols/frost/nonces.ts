/** One signer's nonces for one message: made once, committed to once, spent once (or put aside once, to be spent later). */
import type { Random } from "../../crypto/ambient.js";
import { Point, Scalar } from "../../crypto/curve.js";
import { Bug } from "../../crypto/fault.js";
import { H3 } from "./ciphersuite.js";

/** d and e, secret. */
export interface SecretNonces {
  readonly hiding: Scalar;
  readonly binding: Scalar;
}

export class SigningNonces {
  /** D = g^d. */
  readonly hiding: Point;
  /** E = g^e. */
  readonly binding: Point;
  /** d || e, 64 bytes; undefined once spent. */
  #secret: Uint8Array | undefined;

  private constructor(secret: Uint8Array, { hiding, binding }: { readonly hiding: Point; readonly binding: Point }) {
    this.#secret = secret;
    this.hiding = hiding;
    this.binding = binding;
  }

  /**
   * RFC 9591 sections 4.1 and 5.1: nonce = H3(32 random bytes || share). Hedged with the signer's share: a broken
   * source of randomness alone does not repeat a nonce across keys, nor reveal it.
   */
  static generate(share: Scalar, random: Random): SigningNonces {
    const [d, e] = [nonce(share, random), nonce(share, random)];
    if (d === 0n || e === 0n) throw new Bug("a nonce is zero"); // one in 2^256; D and E must not be the identity
    // Constant time: the secret is the exponent.
    const commitment = { hiding: Point.base.times(d), binding: Point.base.times(e) };
    return new SigningNonces(Buffer.concat([Scalar.toBytes(d), Scalar.toBytes(e)]), commitment);
  }

  /**
   * Nonces that `putAside` returned, with their own commitment. Whoever stores them sees to it that they come back once
   * and unchanged; the commitment is not computed again, which would cost as much as all the rest of signing.
   */
  static takeUp(secret: Uint8Array, commitment: { readonly hiding: Point; readonly binding: Point }): SigningNonces {
    if (secret.length !== 64) throw new Bug("two nonces have 64 bytes");
    return new SigningNonces(Uint8Array.from(secret), commitment);
  }

  /** d || e, 64 bytes, to be sealed. This object is spent then. @throws Bug when it was before */
  putAside(): Uint8Array {
    const secret = this.#secret;
    if (secret === undefined) throw new Bug("a nonce signs once");
    this.#secret = undefined;
    return secret;
  }

  /**
   * Hands out the nonces and erases them (the BigInts returned: best effort). Whatever happens next, they are gone.
   * @throws Bug when they were handed out before
   */
  spend(): SecretNonces {
    const secret = this.#secret;
    if (secret === undefined) throw new Bug("a nonce signs once");
    this.#secret = undefined;
    const nonces = { hiding: Scalar.parse(secret.subarray(0, 32)), binding: Scalar.parse(secret.subarray(32)) };
    secret.fill(0);
    return nonces;
  }
}

function nonce(share: Scalar, random: Random): Scalar {
  const entropy = random.bytes(32);
  const secret = Scalar.toBytes(share);
  const input = Buffer.concat([entropy, secret]);
  try {
    return H3(input);
  } finally {
    for (const bytes of [entropy, secret, input]) bytes.fill(0);
  }
}
