// What tests of refresh and reshare through a coordinator share.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { SignedWalletChangeSchema } from "../../gen/mpcwallet/consensus/v1/wallet_change_pb.js";
import { signWalletChange, type WalletChangeOrder } from "../../src/consensus/wallet-change.js";
import { signEd25519 } from "../../src/crypto/ed25519.js";
import type { WalletChangeView, WalletView } from "../../src/wallet/wallet-application.js";
import { TEST_AUTHORITY } from "../node/cluster.js";
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
