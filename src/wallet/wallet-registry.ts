import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { WalletRecordSchema } from "../../gen/mpcwallet/consensus/v1/record_pb.js";
import { wholeMs } from "../consensus/unix-time.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import { Account } from "./account.js";
import type { Coordination } from "./coordination.js";
import { isNetworkName } from "./network.js";
import type { WalletView } from "./wallet-application.js";

/** The wallets' public facts, kept between coordinators. Nodes keep their own; nothing here is trusted by them. */

const WALLETS = "/wallets/";

/** A wallet as it is kept: what clients see, and what judging needs. */
export interface RegisteredWallet {
  readonly view: WalletView;
  readonly account: Account;
  /** Public shares of all parties, serialized; empty in records of older versions. */
  readonly publicKeyPackage: Uint8Array;
}

export function encodeWallet(wallet: WalletView, publicKeyPackage: Uint8Array = new Uint8Array(0)): Uint8Array {
  const { createdAtMs, parties, ...facts } = wallet;
  const message = create(WalletRecordSchema, {
    ...facts,
    publicKeyPackage,
    parties: [...parties],
    createdAtMs: wholeMs(createdAtMs),
  });
  return toBinary(WalletRecordSchema, message);
}

export function decodeWallet(bytes: Uint8Array): WalletView {
  const { $typeName: _, $unknown: __, publicKeyPackage: ___, ...record } = fromBinary(WalletRecordSchema, bytes);
  const { scheme, network } = record;
  if ((scheme !== "frost" && scheme !== "cggmp24") || !isNetworkName(network)) {
    throw new Bug("a stored wallet does not decode", { walletId: record.walletId });
  }
  return { ...record, scheme, network, createdAtMs: Number(record.createdAtMs) };
}

export class WalletRegistry {
  readonly #coordination: Coordination;
  readonly #known = new Map<string, RegisteredWallet>();

  constructor(dependencies: { readonly coordination: Coordination }) {
    this.#coordination = dependencies.coordination;
  }

  /** Rejects with `InvalidInput` "wallet-unknown". */
  async get(walletId: string): Promise<RegisteredWallet> {
    const known = this.#known.get(walletId);
    if (known !== undefined) return known;
    const bytes = await this.#coordination.get(WALLETS + walletId);
    if (bytes === undefined) throw new InvalidInput("wallet-unknown", "no such wallet", { walletId });
    const view = decodeWallet(bytes);
    const { publicKeyPackage } = fromBinary(WalletRecordSchema, bytes);
    const entry = { view, account: new Account(view), publicKeyPackage };
    this.#known.set(walletId, entry);
    return entry;
  }

  /** Oldest first. */
  async list(): Promise<readonly WalletView[]> {
    const stored = await this.#coordination.list(WALLETS);
    return [...stored.values()].map(decodeWallet).sort((a, b) => a.createdAtMs - b.createdAtMs);
  }

  /** Rejects with `InvalidInput` "wallet-exists" for a name that is taken; call under the lock of key generation. */
  async requireFreeName(name: string): Promise<void> {
    const taken = (await this.list()).some((wallet) => wallet.name === name);
    if (taken) throw new InvalidInput("wallet-exists", "a wallet of this name exists", { name });
  }

  async add(view: WalletView, publicKeyPackage: Uint8Array): Promise<void> {
    const written = await this.#coordination.put(WALLETS + view.walletId, encodeWallet(view, publicKeyPackage));
    if (!written) throw new Unavailable("not-leading", "another coordinator leads now");
  }
}
