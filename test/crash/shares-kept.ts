// What the nodes of a crash test keep of a wallet's shares. A change of shares ends well when all of them keep the same
// epoch; at the end of a sweep the state files themselves are opened and the shares in them put together.
import { readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { systemRandom } from "../../src/node/ambient.js";
import { decodeKeyShare, decodePublicKeyPackage, type KeyShare, keyDigest } from "../../src/protocols/key-share.js";
import { eraseHeld, type HeldWallet, KeyStore } from "../../src/storage/key-store.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import { opened } from "../node/opened-shares.js";

/** Every node that died hashes its passphrase again: with the usual cost that would be a quarter of its start. */
export const QUICK_HASH = { memoryKib: 64, passes: 1, lanes: 1 };

const kept = z.strictObject({ epoch: z.int(), key: z.string() });

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

interface Place {
  readonly nodeId: string;
  readonly walletId: string;
}

const fileOf = (folder: string, { nodeId, walletId }: Place): string => join(folder, `${nodeId}.${walletId}.kept`);

/** Called inside a node: what its state has of a wallet now. */
export function noteKept(folder: string, place: Place, { wallet }: HeldWallet): void {
  const key = wallet === undefined ? "" : hex(keyDigest(decodePublicKeyPackage(wallet.publicKeyPackage)));
  const facts: z.output<typeof kept> = { epoch: wallet?.epoch ?? -1, key };
  writeFileSync(fileOf(folder, place), JSON.stringify(facts), { mode: 0o600 });
}

/** What nodes keep that do not hold exactly the wallet's epoch; empty when all do. */
export function otherShares(
  folder: string,
  nodes: readonly string[],
  wallet: { readonly walletId: string; readonly epoch: number; readonly keyDigest: Uint8Array },
): readonly string[] {
  return nodes.flatMap((nodeId) => {
    const place = { nodeId, walletId: wallet.walletId };
    const { epoch, key } = kept.parse(JSON.parse(readFileSync(fileOf(folder, place), "utf8")));
    return epoch === wallet.epoch && key === hex(wallet.keyDigest) ? [] : [`${nodeId} holds epoch ${epoch}`];
  });
}

/** Opens the state of a stopped node of a devnet. */
async function stateOf(devnet: string, nodeId: string): Promise<KeyStore> {
  const words = (await readFile(join(devnet, nodeId, "passphrase"), "utf8")).trim();
  const passphrase = SecretBytes.copyOf(new TextEncoder().encode(words));
  const options = { folder: join(devnet, nodeId, "data"), passphrase, cost: QUICK_HASH };
  return await KeyStore.open(options, { random: systemRandom });
}

/** What is wrong with what the stopped nodes of a devnet have on disk; empty when every wallet's shares fit together. */
export async function disksInDisorder(devnet: string, nodes: readonly string[]): Promise<readonly string[]> {
  const problems: string[] = [];
  const shares = new Map<string, { readonly epoch: number; readonly share: KeyShare }[]>();
  for (const nodeId of nodes) {
    const store = await stateOf(devnet, nodeId);
    try {
      for (const { walletId, epoch, keyShare } of store.wallets()) {
        const share = decodeKeyShare(keyShare.reveal());
        shares.set(walletId, [...(shares.get(walletId) ?? []), { epoch, share }]);
        const held = store.held(walletId);
        if (held.prepared.some(({ abandoned }) => !abandoned)) problems.push(`${nodeId} has an unfinished change`);
        eraseHeld(held);
      }
    } finally {
      await store.close();
    }
  }
  for (const [walletId, all] of shares) {
    const threshold = all[0]?.share.threshold ?? 0;
    if (all.length !== nodes.length) problems.push(`${all.length} of ${nodes.length} nodes hold ${walletId}`);
    if (new Set(all.map(({ epoch }) => epoch)).size > 1) problems.push(`nodes hold ${walletId} in different epochs`);
    const ends = [all.slice(0, threshold), all.slice(-threshold)].map((some) => some.map(({ share }) => share));
    const opens = ends.every((some) => some[0] !== undefined && opened(some).equals(some[0].groupKey));
    if (!opens) problems.push(`the shares of ${walletId} do not open its key`);
  }
  return problems;
}
