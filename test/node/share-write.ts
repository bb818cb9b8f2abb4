import type { HeldWallet } from "../../src/storage/key-store.js";

/**
 * What a write of the key store does to a wallet's shares: "prepared" puts a new share beside the one that signs, "switch"
 * puts it in its place.
 */
export function shareWrite(before: HeldWallet, after: HeldWallet): "prepared" | "switch" | undefined {
  if (after.prepared.length > before.prepared.length) return "prepared";
  return Buffer.compare(after.certificate, before.certificate) === 0 ? undefined : "switch";
}
