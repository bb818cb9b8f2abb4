import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { WalletRecordSchema } from "../../gen/mpcwallet/consensus/v1/record_pb.js";
import { wholeMs } from "../consensus/unix-time.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import { decodePublicKeyPackage, keyDigest } from "../protocols/key-share.js";
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
  const { $typeName: _, $unknown: __, publicKeyPackage, ...record } = fromBinary(WalletRecordSchema, bytes);
  const { scheme, network } = record;
  if ((scheme !== "frost" && scheme !== "cggmp24") || !isNetworkName(network)) {
    throw new Bug("a stored wallet does not decode", { walletId: record.walletId });
  }
  // Records of older versions have no digest of their package.
  const isOlder = record.keyDigest.length === 0 && publicKeyPackage.length > 0;
  const digest = isOlder ? keyDigest(decodePublicKeyPackage(publicKeyPackage)) : record.keyDigest;
  return { ...record, scheme, network, keyDigest: digest, createdAtMs: Number(record.createdAtMs) };
}

/** What a refresh or reshare changes. */
export interface WalletRenewal {
  readonly epoch: number;
  readonly threshold: number;
  readonly parties: readonly string[];
  readonly keyDigest: Uint8Array;
  readonly publicKeyPackage: Uint8Array;
}

export class WalletRegistry {
  readonly #coordination: Coordination;
  /** The last that was read of each wallet. Another coordinator may change it, so it is read again, not decoded again. */
  readonly #known = new Map<string, { readonly bytes: Uint8Array; readonly entry: RegisteredWallet }>();

  constructor(dependencies: { readonly coordination: Coordination }) {
    this.#coordination = dependencies.coordination;
  }

  /** Rejects with `InvalidInput` "wallet-unknown". */
  async get(walletId: string): Promise<RegisteredWallet> {
    const bytes = await this.#coordination.get(WALLETS + walletId);
    if (bytes === undefined) throw new InvalidInput("wallet-unknown", "no such wallet", { walletId });
    const known = this.#known.get(walletId);
    if (known !== undefined && Buffer.compare(known.bytes, bytes) === 0) return known.entry;
    const view = decodeWallet(bytes);
    const { publicKeyPackage } = fromBinary(WalletRecordSchema, bytes);
    const entry = { view, account: new Account(view), publicKeyPackage };
    this.#known.set(walletId, { bytes, entry });
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

  /** The wallet after a switch. An older epoch never replaces a newer one; key, name and addresses stay. */
  async renew(walletId: string, renewal: WalletRenewal): Promise<WalletView> {
    const { view } = await this.get(walletId);
    if (renewal.epoch <= view.epoch) return view;
    const { publicKeyPackage, ...changed } = renewal;
    const renewed = { ...view, ...changed };
    await this.add(renewed, publicKeyPackage);
    return renewed;
  }
}
