import assert from "node:assert/strict";
import { Scalar } from "../../src/crypto/curve.js";
import { prepareNonces } from "../../src/protocols/frost/prepare-nonces.js";
import { PreparedNonces } from "../../src/protocols/frost/prepared-nonces.js";
import type { KeyShare } from "../../src/protocols/key-share.js";
import { keygen } from "../../src/protocols/keygen.js";
import type { PartyId } from "../../src/session/party.js";
import { outputs, simulate } from "../session/simulation.js";

export function generate(ids: readonly number[], threshold: number, seed: string): ReadonlyMap<PartyId, KeyShare> {
  return outputs(
    simulate({
      protocol: keygen,
      ids,
      pub: { scheme: "frost" as const, threshold, walletId: "wallet" },
      secret: () => undefined,
      seed,
    }),
  );
}

type Shares = ReadonlyMap<PartyId, KeyShare>;

/** Nonces as each signer's ledger holds them. */
export function prepare(shares: Shares, ids: readonly number[], count: number, seed: string) {
  const [key] = shares.values();
  assert.ok(key !== undefined);
  const secret = (party: PartyId): Scalar => shares.get(party)?.secretShare ?? Scalar.zero;
  const made = outputs(simulate({ protocol: prepareNonces, ids, pub: { key, count }, secret, seed }));
  return new Map([...made].map(([party, all]) => [party, all.map((one) => ({ id: one.id, bytes: one.encode() }))]));
}

export type Prepared = ReturnType<typeof prepare>;

/** What a signer brings, read from its ledger again. */
export const secretOf =
  (shares: Shares, prepared: Prepared, indices: readonly number[]) =>
  (party: PartyId): { secretShare: Scalar; nonces: PreparedNonces[] } => ({
    secretShare: shares.get(party)?.secretShare ?? Scalar.zero,
    nonces: indices.map((index) =>
      PreparedNonces.decode(prepared.get(party)?.[index]?.bytes ?? assert.fail("no such nonces")),
    ),
  });
