import type { SignMessage, VerifySignature } from "../../src/consensus/signature.js";
import { ed25519PrivateKey, ed25519PublicKey, signEd25519, verifyEd25519 } from "../../src/crypto/ed25519.js";

/** Nodes with Ed25519 identity keys, and a payment authority. */

export interface SampleNode {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly sign: SignMessage;
}

export const verifySample: VerifySignature = verifyEd25519;

export function sampleNode(nodeId: string): SampleNode {
  const seed = new Uint8Array(32);
  Buffer.from(nodeId).copy(seed);
  const key = ed25519PrivateKey(seed);
  return { nodeId, publicKey: ed25519PublicKey(key), sign: (message) => signEd25519(key, message) };
}

export function sampleNodes(count: number): SampleNode[] {
  return Array.from({ length: count }, (_, index) => sampleNode(`node-${index + 1}`));
}

export function rosterOf(nodes: readonly SampleNode[]): Map<string, Uint8Array> {
  return new Map(nodes.map(({ nodeId, publicKey }) => [nodeId, publicKey]));
}
