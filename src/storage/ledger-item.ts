import type { LedgerRow } from "../../gen/mpcwallet/storage/v1/ledger_pb.js";
import { InvalidInput } from "../crypto/fault.js";
import { nameOf } from "./ledger-row.js";
import type { SecretBytes } from "./secret-bytes.js";

/** What the one-use ledger holds, without where it stands on disk. */

const MAX_NAME_BYTES = 128;
const MAX_SECRET_BYTES = 1024 * 1024;
const MAX_SIGNERS = 100;

export type ItemKind = "presignature" | "frost-nonce";

/** An item without its secret. */
export interface ItemFacts {
  readonly kind: ItemKind;
  /** The same at every signer, 1 to 128 bytes. */
  readonly id: string;
  readonly walletId: string;
  /** Epoch of the wallet's key. */
  readonly walletEpoch: number;
  /** Node ids; the item serves exactly this set. */
  readonly signers: readonly string[];
  readonly createdAtMs: number;
}

export interface OneUseItem extends ItemFacts {
  /** 1 byte to 1 MiB. */
  readonly secret: SecretBytes;
}

/** Fields that are left out match everything. */
export interface ItemFilter {
  readonly kind?: ItemKind;
  readonly id?: string;
  readonly walletId?: string;
  readonly walletEpoch?: number;
  /** In any order. */
  readonly signers?: readonly string[];
}

/** An available item as the ledger keeps it in memory: without its secret. */
export interface LiveItem extends ItemFacts {
  readonly name: string;
  /** Who has set it aside. */
  holder: string | undefined;
}

export function matches(item: LiveItem, filter: ItemFilter): boolean {
  return (
    (filter.kind === undefined || filter.kind === item.kind) &&
    (filter.id === undefined || filter.id === item.id) &&
    (filter.walletId === undefined || filter.walletId === item.walletId) &&
    (filter.walletEpoch === undefined || filter.walletEpoch === item.walletEpoch) &&
    (filter.signers === undefined || sameSet(filter.signers, item.signers))
  );
}

function sameSet(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((name) => right.includes(name));
}

export function facts(item: ItemFacts): ItemFacts {
  const { kind, id, walletId, walletEpoch, signers, createdAtMs } = item;
  return { kind, id, walletId, walletEpoch, signers, createdAtMs };
}

export function liveItem(row: LedgerRow): LiveItem {
  return {
    name: nameOf(row),
    kind: row.kind === "frost-nonce" ? "frost-nonce" : "presignature",
    id: row.id,
    walletId: row.walletId,
    walletEpoch: row.walletEpoch,
    signers: row.signers,
    createdAtMs: Number(row.createdAtMs),
    holder: undefined,
  };
}

/** Facts of a row that does not open: its key tells kind and id, and the tombstone needs no more. */
export function unknownItem(name: string): LiveItem {
  const [kind = "", ...id] = name.split("/");
  return {
    name,
    kind: kind === "frost-nonce" ? "frost-nonce" : "presignature",
    id: id.join("/"),
    walletId: "",
    walletEpoch: 0,
    signers: [],
    createdAtMs: 0,
    holder: undefined,
  };
}

export function checkItem(item: OneUseItem): void {
  const name = (text: string) =>
    text.length > 0 && Buffer.byteLength(text) <= MAX_NAME_BYTES && /^[A-Za-z0-9][\w.:@/-]*$/.test(text);
  const { signers } = item;
  const problems: readonly [string, boolean][] = [
    ["kind", item.kind === "presignature" || item.kind === "frost-nonce"],
    ["id", name(item.id)],
    ["walletId", name(item.walletId)],
    ["walletEpoch", Number.isInteger(item.walletEpoch) && item.walletEpoch >= 0 && item.walletEpoch <= 0xffffffff],
    ["signers", signers.length >= 1 && signers.length <= MAX_SIGNERS && signers.every(name)],
    ["signers", new Set(signers).size === signers.length],
    ["createdAtMs", Number.isSafeInteger(item.createdAtMs) && item.createdAtMs >= 0],
    ["secret", item.secret.length >= 1 && item.secret.length <= MAX_SECRET_BYTES],
  ];
  const wrong = problems.find(([, fine]) => !fine);
  if (wrong !== undefined) throw invalid(wrong[0], { id: item.id.slice(0, MAX_NAME_BYTES) });
}

export function invalid(field: string, facts: Readonly<Record<string, string | number>>): InvalidInput {
  return new InvalidInput("item-invalid", "a field of the item is out of range", { field, ...facts });
}
