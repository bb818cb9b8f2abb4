import { InvalidInput } from "../crypto/fault.js";
import type { Roster } from "../network/identity/roster.js";
import { decodeKeyShare, encodeKeyShare, encodePublicKeyPackage, keyDigest } from "../protocols/key-share.js";
import type { KeyStore, StoredWallet } from "../storage/key-store.js";
import { SecretBytes } from "../storage/secret-bytes.js";
import { Account } from "../wallet/account.js";
import type { GuardedWallet } from "../wallet/payment-guard.js";
import type { NetworkName } from "../wallet/wallet-application.js";
import type { SessionSeat } from "./session-job.js";

/** The wallets that this node holds a share of: the key store, seen as what the payment guard and sessions need. */
export class WalletShares {
  readonly #store: KeyStore;
  readonly #roster: Roster;
  readonly #network: NetworkName;
  readonly #guarded = new Map<string, GuardedWallet>();

  constructor(parts: { readonly store: KeyStore; readonly roster: Roster; readonly network: NetworkName }) {
    this.#store = parts.store;
    this.#roster = parts.roster;
    this.#network = parts.network;
  }

  ids(): readonly string[] {
    return this.#store.wallets().map(({ walletId }) => walletId);
  }

  /** Whether this node holds a share of the wallet, prepares one, or once held one. */
  has(walletId: string): boolean {
    return this.#store.heldIds().includes(walletId);
  }

  /** The wallet's shares changed: what was derived from the old ones is derived again. */
  changed(walletId: string): void {
    this.#guarded.delete(walletId);
  }

  /** The wallet as the payment guard knows it; undefined when this node has no share of it. */
  guarded(walletId: string): GuardedWallet | undefined {
    const known = this.#guarded.get(walletId);
    if (known !== undefined) return known;
    const stored = this.#store.wallet(walletId);
    if (stored === undefined) return undefined;
    const { scheme, threshold, chainCode, parties } = stored;
    const { groupKey } = decodeKeyShare(stored.keyShare.reveal());
    const account = new Account({ walletId, scheme, network: this.#network, groupKey: groupKey.toBytes(), chainCode });
    const roster = new Map(parties.map((nodeId) => [nodeId, this.#member(nodeId).identityKey]));
    const guarded = { account, threshold, roster };
    this.#guarded.set(walletId, guarded);
    return guarded;
  }

  /** The stored wallet with its secret share. @throws InvalidInput `wallet-unknown` */
  stored(walletId: string): StoredWallet {
    const stored = this.#store.wallet(walletId);
    if (stored === undefined)
      throw new InvalidInput("wallet-unknown", "this node has no share of the wallet", { walletId });
    return stored;
  }

  /** Keeps a freshly generated share, durably. Returns what all parties must agree on. */
  async keep(
    wallet: { readonly walletId: string; readonly parties: readonly string[]; readonly nowMs: number },
    keyShare: Uint8Array,
  ): Promise<{
    readonly groupKey: Uint8Array;
    readonly chainCode: Uint8Array;
    readonly keyDigest: Uint8Array;
    readonly publicKeyPackage: Uint8Array;
  }> {
    const share = decodeKeyShare(keyShare);
    const publicKeyPackage = encodePublicKeyPackage(share);
    await this.#store.putWallet({
      walletId: wallet.walletId,
      scheme: share.scheme,
      threshold: share.threshold,
      parties: wallet.parties,
      epoch: 0,
      keyShare: SecretBytes.adopt(encodeKeyShare(share)),
      publicKeyPackage,
      chainCode: share.chainCode,
      auxInfo: SecretBytes.adopt(new Uint8Array()),
      epochId: new Uint8Array(),
      nextExternalIndex: 0,
      nextChangeIndex: 0,
      createdAtMs: wallet.nowMs,
    });
    keyShare.fill(0);
    return {
      groupKey: share.groupKey.toBytes(),
      chainCode: share.chainCode,
      keyDigest: keyDigest(share),
      publicKeyPackage,
    };
  }

  /** Keeps what an aux-info session made, durably. Presignatures of the wallet can be made from then on. */
  async keepAuxInfo(
    wallet: StoredWallet,
    made: { readonly auxInfo: Uint8Array; readonly epochId: Uint8Array },
  ): Promise<void> {
    const { epochId } = made;
    await this.#store.putWallet({ ...wallet, auxInfo: SecretBytes.adopt(made.auxInfo), epochId });
    made.auxInfo.fill(0);
  }

  /** A wallet that can sign; for SegWit that takes auxiliary info. @throws InvalidInput `aux-info-missing`, `wallet-unknown` */
  signing(walletId: string): StoredWallet {
    const stored = this.stored(walletId);
    return stored.scheme === "frost" ? stored : this.withAuxInfo(walletId);
  }

  /** A SegWit wallet that can sign. @throws InvalidInput `scheme-differs`, `aux-info-missing`, `wallet-unknown` */
  withAuxInfo(walletId: string): StoredWallet {
    const stored = this.stored(walletId);
    if (stored.scheme !== "cggmp24") {
      throw new InvalidInput("scheme-differs", "only SegWit wallets have auxiliary info", { walletId });
    }
    if (stored.auxInfo.length === 0) {
      throw new InvalidInput("aux-info-missing", "the wallet's auxiliary info was never made", { walletId });
    }
    return stored;
  }

  /**
   * This node's place among parties, by their order: index is position plus one.
   *
   * @param signers party indices that take part; all of them when left out
   * @throws InvalidInput `party-unknown`, `signers`
   */
  seat(
    session: {
      readonly sessionId: Uint8Array;
      readonly parties: readonly string[];
      readonly signers?: readonly number[];
    },
    nodeId: string,
  ): SessionSeat {
    const { sessionId, parties, signers } = session;
    const all = parties.map((name, position) => {
      const { identityKey } = this.#member(name);
      return { id: position + 1, nodeId: name, identityKey };
    });
    const taking = signers === undefined ? all : all.filter(({ id }) => signers.includes(id));
    const self = taking.find((party) => party.nodeId === nodeId);
    const ascending = signers?.every((id, place) => place === 0 || id > (signers[place - 1] ?? 0)) ?? true;
    if (self === undefined || !ascending || (signers !== undefined && taking.length !== signers.length)) {
      throw new InvalidInput("signers", "signers are ascending party indices, this node's among them", {
        signers: signers ?? [],
      });
    }
    return { sessionId, self: self.id, parties: taking };
  }

  #member(nodeId: string) {
    const member = this.#roster.get(nodeId);
    if (member === undefined || member.role !== "node") {
      throw new InvalidInput("party-unknown", "a party is no node of the roster", { nodeId: nodeId.slice(0, 64) });
    }
    return member;
  }
}
