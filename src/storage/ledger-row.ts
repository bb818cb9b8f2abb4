import { createHash, hkdfSync } from "node:crypto";
import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import {
  ItemState,
  type LedgerHead,
  LedgerHeadSchema,
  type LedgerRow,
  LedgerRowSchema,
} from "../../gen/mpcwallet/storage/v1/ledger_pb.js";
import type { Random } from "../crypto/ambient.js";
import { InvalidInput } from "../crypto/fault.js";
import { SecretBytes } from "./secret-bytes.js";

const FORMAT = 1;
const PREFIX_BYTES = 2;
const NONCE_BYTES = 24;
const TAG_BYTES = 16;
export const HEAD_KEY = "head";
export const FINGERPRINT_BYTES = 16;

/** What a row is, to the ledger's own bookkeeping. */
export type RowState = "available" | "used" | "failed" | "expired";

/** Rows with secrets; few, so that compaction of this range is cheap. */
export const LIVE = "live/";
/** Tombstones. */
export const GONE = "gone/";

const STATE_BYTE: Readonly<Record<RowState, ItemState>> = {
  available: ItemState.AVAILABLE,
  used: ItemState.USED,
  failed: ItemState.FAILED,
  expired: ItemState.EXPIRED,
};

/**
 * Seals and opens the ledger's rows: `format ‖ state ‖ nonce ‖ XChaCha20-Poly1305`, with the row's key and the first two
 * bytes as associated data, under a key of this ledger's lineage: a row opens nowhere but in its own place. The state
 * stands in front so that a row which no longer opens can still be accounted for.
 */
export class RowSealer {
  readonly #key: SecretBytes;
  readonly #random: Random;

  private constructor(key: SecretBytes, random: Random) {
    this.#key = key;
    this.#random = random;
  }

  static forHead(ledgerKey: SecretBytes, random: Random): RowSealer {
    return new RowSealer(subKey(ledgerKey, new Uint8Array(0), "head"), random);
  }

  static forRows(ledgerKey: SecretBytes, lineage: Uint8Array, random: Random): RowSealer {
    return new RowSealer(subKey(ledgerKey, lineage, "rows"), random);
  }

  seal(key: string, row: LedgerRow): Uint8Array {
    return this.#seal(key, row.state, toBinary(LedgerRowSchema, row));
  }

  sealHead(head: LedgerHead): Uint8Array {
    return this.#seal(HEAD_KEY, 0, toBinary(LedgerHeadSchema, head));
  }

  /** @throws InvalidInput "ledger-row-corrupted" */
  open(key: string, value: Uint8Array): LedgerRow {
    const row = this.#open(LedgerRowSchema, key, value);
    if (row.state !== value[1] || rowKey(nameOf(row), row.state === ItemState.AVAILABLE) !== key) throw corrupted(key);
    return row;
  }

  /** @throws InvalidInput "ledger-row-corrupted" */
  openHead(value: Uint8Array): LedgerHead {
    const head = this.#open(LedgerHeadSchema, HEAD_KEY, value);
    if (head.lineage.length !== 16 || head.fingerprint.length !== FINGERPRINT_BYTES) throw corrupted(HEAD_KEY);
    return head;
  }

  erase(): void {
    this.#key.erase();
  }

  #seal(key: string, state: number, plaintext: Uint8Array): Uint8Array {
    const prefix = Uint8Array.of(FORMAT, state);
    const nonce = this.#random.bytes(NONCE_BYTES);
    const cipher = xchacha20poly1305(this.#key.reveal(), nonce, associatedData(key, prefix));
    const sealed = Buffer.concat([prefix, nonce, cipher.encrypt(plaintext)]);
    plaintext.fill(0);
    return sealed;
  }

  #open<Desc extends DescMessage>(schema: Desc, key: string, value: Uint8Array): MessageShape<Desc> {
    if (value.length < PREFIX_BYTES + NONCE_BYTES + TAG_BYTES || value[0] !== FORMAT) throw corrupted(key);
    const nonce = value.subarray(PREFIX_BYTES, PREFIX_BYTES + NONCE_BYTES);
    const cipher = xchacha20poly1305(this.#key.reveal(), nonce, associatedData(key, value.subarray(0, PREFIX_BYTES)));
    try {
      return fromBinary(schema, cipher.decrypt(value.subarray(PREFIX_BYTES + NONCE_BYTES)));
    } catch {
      throw corrupted(key);
    }
  }
}

/** Name of an item. Ids of different kinds do not collide. */
export function nameOf(item: { readonly kind: string; readonly id: string }): string {
  return `${item.kind}/${item.id}`;
}

export function rowKey(name: string, isAvailable: boolean): string {
  return `${isAvailable ? LIVE : GONE}${name}`;
}

/** The state that a row claims without being opened; undefined when it is none. */
export function claimedState(value: Uint8Array): RowState | undefined {
  return (["available", "used", "failed", "expired"] as const).find((state) => STATE_BYTE[state] === value[1]);
}

/** A row that keeps an id from ever coming back, and nothing secret. */
export function tombstone(
  row: Omit<LedgerRow, "$typeName" | "secret" | "state" | "settledAtMs" | "reason">,
  end: { readonly state: RowState; readonly atMs: number; readonly reason: string },
): LedgerRow {
  return create(LedgerRowSchema, {
    kind: row.kind,
    id: row.id,
    walletId: row.walletId,
    walletEpoch: row.walletEpoch,
    signers: row.signers,
    createdAtMs: row.createdAtMs,
    state: STATE_BYTE[end.state],
    settledAtMs: BigInt(end.atMs),
    reason: end.reason,
  });
}

export function available(item: {
  readonly kind: string;
  readonly id: string;
  readonly walletId: string;
  readonly walletEpoch: number;
  readonly signers: readonly string[];
  readonly createdAtMs: number;
  readonly secret: Uint8Array;
}): LedgerRow {
  return create(LedgerRowSchema, {
    ...item,
    signers: [...item.signers],
    createdAtMs: BigInt(item.createdAtMs),
    state: ItemState.AVAILABLE,
  });
}

/** Adds a row to, or takes it out of, the fingerprint of all rows (XOR is its own inverse). */
export function toggle(fingerprint: Uint8Array, name: string, state: RowState): void {
  const digest = createHash("sha256").update(`${state}\n${name}`).digest();
  for (let index = 0; index < FINGERPRINT_BYTES; index++) {
    fingerprint[index] = (fingerprint[index] ?? 0) ^ (digest[index] ?? 0);
  }
}

function subKey(ledgerKey: SecretBytes, lineage: Uint8Array, purpose: string): SecretBytes {
  const bytes = hkdfSync("sha256", ledgerKey.reveal(), lineage, `mpc-wallet/ledger/${purpose}`, 32);
  return SecretBytes.adopt(new Uint8Array(bytes));
}

function associatedData(key: string, prefix: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from("mpc-wallet/ledger-row\n"), prefix, Buffer.from(key)]);
}

function corrupted(key: string): InvalidInput {
  return new InvalidInput("ledger-row-corrupted", "a row of the ledger does not open", { key });
}
