/** One signer's nonces for one message: made once, committed to once, spent once. */
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

  private constructor(d: Scalar, e: Scalar) {
    if (d === 0n || e === 0n) throw new Bug("a nonce is zero"); // one in 2^256; D and E must not be the identity
    this.#secret = Buffer.concat([Scalar.toBytes(d), Scalar.toBytes(e)]);
    this.hiding = Point.base.times(d); // constant time: the secret is the exponent
    this.binding = Point.base.times(e);
  }

  /**
   * RFC 9591 sections 4.1 and 5.1: nonce = H3(32 random bytes || share). Hedged with the signer's share: a broken
   * source of randomness alone does not repeat a nonce across keys, nor reveal it.
   */
  static generate(share: Scalar, random: Random): SigningNonces {
    return new SigningNonces(nonce(share, random), nonce(share, random));
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
