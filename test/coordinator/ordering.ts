// What tests of refresh and reshare through a coordinator share.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { SignedWalletChangeSchema } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { signWalletChange, type WalletChangeOrder } from "../../src/consensus/wallet-change.js";
import { signEd25519 } from "../../src/crypto/ed25519.js";
import type { SessionRunner } from "../../src/node/session-pool.js";
import { decodeKeyShare, type KeyShare } from "../../src/protocols/key-share.js";
import type { WalletChangeView, WalletView } from "../../src/wallet/wallet-application.js";
import { TEST_AUTHORITY } from "../node/cluster.js";
import { mixtures, opened } from "../node/opened-shares.js";
import type { PayingFirm } from "./paying-firm.js";

export const OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/** What an operator's command sends. */
export function order(wallet: WalletView, change: Partial<WalletChangeOrder> = {}): Uint8Array {
  const { walletId, threshold, parties, epoch: baseEpoch, keyDigest: baseKeyDigest } = wallet;
  const kind = change.parties === undefined ? "refresh" : "reshare";
  const now = Date.now();
  const signed = signWalletChange(
    {
      requestId: randomUUID(),
      walletId,
      kind,
      baseEpoch,
      baseKeyDigest,
      threshold,
      parties,
      changeCount: 0,
      supersedes: false,
      createdAtMs: now,
      expiresAtMs: now + 600_000,
      ...change,
    },
    { authority: TEST_AUTHORITY.name, sign: (message) => signEd25519(TEST_AUTHORITY.seed, message) },
  );
  return toBinary(SignedWalletChangeSchema, signed);
}

export async function changed(firm: PayingFirm, walletId: string, timeoutMs = 120_000): Promise<WalletChangeView> {
  const endMs = Date.now() + timeoutMs;
  for (;;) {
    const { change } = await firm.application.walletChange(walletId);
    // A coordinator whose records were lost has none until it has asked the nodes.
    if (change !== undefined && change.state !== "running" && change.owing.length === 0) return change;
    assert.ok(Date.now() < endMs, `still ${JSON.stringify(change)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function pays(firm: PayingFirm, walletId: string, amountSat = 200_000n): Promise<void> {
  const sent = await firm.application.sendPaymentAndWait(firm.request({ walletId, address: OUTSIDE, amountSat }));
  assert.equal(sent.phase, "broadcast", JSON.stringify(sent.failure));
  await firm.mine(1);
  assert.equal((await firm.finalState(sent.paymentId)).phase, "confirmed");
}

export async function funded(firm: PayingFirm, walletId: string): Promise<string> {
  const { address, scriptPubKey } = await firm.application.newAddress(walletId);
  for (let coin = 0; coin < 8; coin++) firm.server.faucet.pay(scriptPubKey, 1_000_000n);
  await firm.mine(1);
  return address;
}

/** Keeps what nodes send each other while they make new shares, so that a change lasts as long as a test needs it to. */
export class HeldChanges {
  readonly #held: (() => void)[] = [];
  #holding = false;

  /** For a firm's `observe`. */
  readonly observe = (_nodeId: string, inner: SessionRunner): SessionRunner => ({
    run: (job, seat, wire) => {
      if (job.kind !== "refresh" && job.kind !== "reshare") return inner.run(job, seat, wire);
      return inner.run(job, seat, {
        onRound: (round) => wire.onRound?.(round),
        send: (to, bytes) => {
          if (this.#holding) this.#held.push(() => wire.send(to, bytes));
          else wire.send(to, bytes);
        },
      });
    },
    close: () => inner.close(),
  });

  /** Orders a change and pays so often before any node can have a new share. */
  async paysMeanwhile(firm: PayingFirm, walletId: string, change: Uint8Array, payments: number): Promise<void> {
    this.#holding = true;
    try {
      await firm.application.changeWallet(change);
      for (let paid = 0; paid < payments; paid++) await pays(firm, walletId, 20_000n);
      const { change: meanwhile } = await firm.application.walletChange(walletId);
      assert.equal(meanwhile?.state, "running", "old shares sign while new ones are made");
    } finally {
      this.#holding = false;
      for (const send of this.#held.splice(0)) send();
    }
  }
}

/** What thieves of the disks of all its nodes find of a wallet. */
export async function sharesOf(firm: PayingFirm, { walletId, parties }: WalletView): Promise<readonly KeyShare[]> {
  const stolen = await Promise.all(parties.map((nodeId) => firm.cluster.stolenFrom(nodeId, walletId)));
  return stolen.map(({ wallet }) => {
    assert.ok(wallet !== undefined);
    return decodeKeyShare(wallet.keyShare.reveal());
  });
}

/** The new shares open the key, and no old share helps a new one, nor the other way round. */
export function assertUnrelated(old: readonly KeyShare[], fresh: readonly KeyShare[]): void {
  const [first] = fresh;
  assert.ok(first !== undefined);
  const { groupKey, threshold } = first;
  assert.ok(opened(fresh.slice(0, threshold)).equals(groupKey), "the new threshold of new shares opens the key");
  assert.ok(opened(fresh.slice(-threshold)).equals(groupKey), "whichever they are");
  assert.ok(!opened(fresh.slice(1, threshold)).equals(groupKey), "one less does not");
  let tried = 0;
  for (const some of mixtures(old, fresh)) {
    tried++;
    assert.ok(!opened(some).equals(groupKey), "shares of two epochs open nothing together");
  }
  assert.ok(tried > 0);
}
