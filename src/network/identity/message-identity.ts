import type { KeyObject } from "node:crypto";
import { createPrivateKey } from "node:crypto";
import type { Random } from "../../crypto/ambient.js";
import {
  ED25519_SEED_BYTES,
  ed25519PrivateKey,
  ed25519PublicKey,
  signEd25519,
  verifyEd25519,
} from "../../crypto/ed25519.js";
import { InvalidInput } from "../../crypto/fault.js";
import { assertNodeId } from "./node-id.js";
import type { Roster } from "./roster.js";

/**
 * The key with which a node signs its messages and votes. It is not the TLS key: TLS keys change every 90 days, while
 * evidence must verify for as long as the audit trail lives. The roster binds its public half to the node id.
 */
export class MessageIdentity {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly #privateKey: KeyObject;

  private constructor(nodeId: string, privateKey: KeyObject) {
    assertNodeId(nodeId);
    this.nodeId = nodeId;
    this.publicKey = ed25519PublicKey(privateKey);
    this.#privateKey = privateKey;
  }

  static generate(nodeId: string, random: Random): MessageIdentity {
    const seed = random.bytes(ED25519_SEED_BYTES);
    try {
      return MessageIdentity.fromSeed(nodeId, seed);
    } finally {
      seed.fill(0);
    }
  }

  /** @param seed 32 secret bytes; the caller erases its own copy */
  static fromSeed(nodeId: string, seed: Uint8Array): MessageIdentity {
    return new MessageIdentity(nodeId, ed25519PrivateKey(seed));
  }

  /**
   * Reads a PKCS#8 file's content.
   * @throws InvalidInput `bad-identity-key`
   */
  static fromPem(nodeId: string, pem: string): MessageIdentity {
    let key: KeyObject;
    try {
      key = createPrivateKey(pem);
    } catch {
      throw new InvalidInput("bad-identity-key", "the identity key is not a readable PKCS#8 key", { nodeId });
    }
    if (key.asymmetricKeyType !== "ed25519") {
      throw new InvalidInput("bad-identity-key", "the identity key is not an Ed25519 key", { nodeId });
    }
    return new MessageIdentity(nodeId, key);
  }

  /** Signs bytes, which must name their own domain. 64 bytes. */
  sign(bytes: Uint8Array): Uint8Array {
    return signEd25519(this.#privateKey, bytes);
  }

  /** Private key object for a worker thread (`KeyObject` travels through `postMessage` without being copied as text). */
  get privateKey(): KeyObject {
    return this.#privateKey;
  }

  /** PKCS#8 PEM, secret: for a 0600 file only. */
  toPem(): string {
    return this.#privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  }

  toJSON(): { nodeId: string; publicKey: string } {
    return { nodeId: this.nodeId, publicKey: Buffer.from(this.publicKey).toString("hex") };
  }
}

/** Says whether the roster's member of that id signed the bytes. Total; false for a stranger. */
export function verifyPeerSignature(
  roster: Roster,
  signed: { readonly nodeId: string; readonly bytes: Uint8Array; readonly signature: Uint8Array },
): boolean {
  const peer = roster.get(signed.nodeId);
  return peer !== undefined && verifyEd25519(peer.identityKey, signed.bytes, signed.signature);
}
