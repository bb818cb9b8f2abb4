import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InvalidInput } from "../../src/crypto/fault.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { takePresignatures } from "../../src/node/presignature-handlers.js";
import type { StoredWallet } from "../../src/storage/key-store.js";
import { OneUseLedger } from "../../src/storage/one-use-ledger.js";
import { SecretBytes } from "../../src/storage/secret-bytes.js";
import { scratchFolder } from "../storage/scratch.js";

const key = new Uint8Array(32).fill(3);
const open = (folder: string) =>
  OneUseLedger.open({ folder, key: SecretBytes.copyOf(key) }, { clock: systemClock, random: systemRandom });
const signers = ["node-1", "node-2", "node-3"];
const wallet: StoredWallet = {
  walletId: "treasury",
  scheme: "cggmp24",
  threshold: 3,
  parties: ["node-1", "node-2", "node-3", "node-4"],
  epoch: 1,
  keyShare: SecretBytes.copyOf(Uint8Array.of(1)),
  publicKeyPackage: new Uint8Array(),
  chainCode: new Uint8Array(32),
  auxInfo: SecretBytes.copyOf(Uint8Array.of(1)),
  epochId: new Uint8Array(32).fill(5),
  nextExternalIndex: 0,
  nextChangeIndex: 0,
  createdAtMs: 0,
};
const id = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);
const item = (fill: number, change: { walletId?: string; walletEpoch?: number; signers?: readonly string[] } = {}) => ({
  kind: "presignature" as const,
  id: Buffer.from(id(fill)).toString("hex"),
  walletId: "treasury",
  walletEpoch: 1,
  signers,
  createdAtMs: 1,
  secret: SecretBytes.copyOf(Uint8Array.of(fill)),
  ...change,
});
const refused = (code: string) => (error: unknown) => error instanceof InvalidInput && error.code === code;

describe("presignatures taken for a payment", () => {
  it("are gone for a second order, and after a restart", async () => {
    const folder = scratchFolder();
    const ledger = await open(folder);
    await ledger.put([item(1), item(2)]);
    const [taken] = await takePresignatures(ledger, { wallet, signers, ids: [id(1)], inputs: 1 });
    assert.deepEqual(taken?.secret.reveal(), Uint8Array.of(1));
    await assert.rejects(
      takePresignatures(ledger, { wallet, signers, ids: [id(1)], inputs: 1 }),
      refused("presignature-unknown"),
    );
    await ledger.close();
    const again = await open(folder);
    await again.confirm();
    await assert.rejects(
      takePresignatures(again, { wallet, signers, ids: [id(1)], inputs: 1 }),
      refused("presignature-unknown"),
    );
    await assert.rejects(again.put([item(1)]), refused("item-known"));
    assert.equal((await takePresignatures(again, { wallet, signers, ids: [id(2)], inputs: 1 })).length, 1);
    await again.close();
  });

  it("have one winner when two orders race", async () => {
    const ledger = await open(scratchFolder());
    await ledger.put([item(1)]);
    const order = { wallet, signers, ids: [id(1)], inputs: 1 };
    const outcomes = await Promise.allSettled([takePresignatures(ledger, order), takePresignatures(ledger, order)]);
    assert.deepEqual(outcomes.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    await ledger.close();
  });

  it("are refused for another wallet, epoch or signing set, in another number or twice, at the cost of none", async () => {
    const ledger = await open(scratchFolder());
    await ledger.put([
      item(1),
      item(2, { walletId: "other" }),
      item(3, { walletEpoch: 0 }),
      item(4, { signers: ["node-1", "node-2", "node-4"] }),
    ]);
    const cases: readonly (readonly [string, readonly Uint8Array[], number])[] = [
      ["presignature-wallet", [id(1), id(2)], 2],
      ["presignature-epoch", [id(1), id(3)], 2],
      ["presignature-signers", [id(1), id(4)], 2],
      ["presignature-unknown", [id(1), id(9)], 2],
      ["presignature-repeated", [id(1), id(1)], 2],
      ["presignature-count", [id(1)], 2],
      ["presignature-count", [], 1],
    ];
    for (const [code, ids, inputs] of cases) {
      await assert.rejects(takePresignatures(ledger, { wallet, signers, ids, inputs }), refused(code), code);
      assert.equal(ledger.counts().available, 4, code);
    }
    await ledger.close();
  });
});
