/** Ed25519 over a message; 64 bytes. The key stays with whoever made the function. */
export type SignMessage = (message: Uint8Array) => Uint8Array;

/** Ed25519 verification; total: false for keys and signatures of wrong length or form. */
export type VerifySignature = (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) => boolean;

export const SIGNATURE_BYTES = 64;
