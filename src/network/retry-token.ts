import { createHmac, timingSafeEqual } from "node:crypto";
import { CONNECTION_ID_BYTES } from "./packet-header.js";

const MAC_BYTES = 32;
const LIFETIME_MS = 10_000;

/** What a token promises: who asked, with which connection id, and which id we told them to use. */
export interface RetryClaim {
  /** `address:port` of the client. */
  readonly source: string;
  /** The connection id of the client's first Initial. */
  readonly originalDcid: Uint8Array;
}

/**
 * Stateless address validation (RFC 9000, section 8.1.2): a client is answered with a token and no memory is spent on it
 * until the token comes back from the same address.
 */
export class RetryTokens {
  readonly #key: Uint8Array;

  /** @param key 32 random bytes, of this process only */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** The connection id that a client must use after Retry; a function of the claim, so nothing is remembered. */
  connectionId(claim: RetryClaim): Buffer {
    return createHmac("sha256", this.#key)
      .update("connection-id")
      .update(claim.source)
      .update(claim.originalDcid)
      .digest()
      .subarray(0, CONNECTION_ID_BYTES);
  }

  /** Layout: time (8 bytes), mac (32), original connection id (rest). */
  mint(claim: RetryClaim, nowMs: number): Buffer {
    const time = Buffer.alloc(8);
    time.writeBigUInt64BE(BigInt(Math.floor(nowMs)));
    return Buffer.concat([time, this.#mac(claim, time), claim.originalDcid]);
  }

  /** The original connection id, or undefined when the token is forged, stale, or of another source or connection id. */
  redeem(token: Buffer, from: { source: string; dcid: Uint8Array; nowMs: number }): Buffer | undefined {
    if (token.length < 8 + MAC_BYTES) return undefined;
    const time = token.subarray(0, 8);
    const claim = { source: from.source, originalDcid: token.subarray(8 + MAC_BYTES) };
    if (!timingSafeEqual(this.#mac(claim, time), token.subarray(8, 8 + MAC_BYTES))) return undefined;
    const ageMs = from.nowMs - Number(time.readBigUInt64BE());
    if (ageMs < 0 || ageMs > LIFETIME_MS) return undefined;
    return this.connectionId(claim).equals(from.dcid) ? claim.originalDcid : undefined;
  }

  #mac(claim: RetryClaim, time: Uint8Array): Buffer {
    const source = Buffer.from(claim.source);
    return createHmac("sha256", this.#key)
      .update("token")
      .update(time)
      .update(Buffer.from([source.length]))
      .update(source)
      .update(claim.originalDcid)
      .digest();
  }
}
