import { ed25519 } from "@noble/curves/ed25519.js";
import type { SignMessage, VerifySignature } from "../../src/consensus/signature.js";

/** Nodes with Ed25519 identity keys, and a payment authority. */

export interface SampleNode {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly sign: SignMessage;
}

export const verifySample: VerifySignature = (publicKey, message, signature) => {
  try {
    return ed25519.verify(signature, message, publicKey);
  } catch {
    return false;
  }
};

export function sampleNode(nodeId: string): SampleNode {
  const secret = new Uint8Array(32);
  Buffer.from(nodeId).copy(secret);
  return { nodeId, publicKey: ed25519.getPublicKey(secret), sign: (message) => ed25519.sign(message, secret) };
}

export function sampleNodes(count: number): SampleNode[] {
  return Array.from({ length: count }, (_, index) => sampleNode(`node-${index + 1}`));
}

export function rosterOf(nodes: readonly SampleNode[]): Map<string, Uint8Array> {
  return new Map(nodes.map(({ nodeId, publicKey }) => [nodeId, publicKey]));
}
