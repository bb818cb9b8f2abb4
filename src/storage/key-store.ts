import { mkdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type StoredChange as DiskChange,
  type StoredWallet as DiskWallet,
  type NodeState,
  NodeStateSchema,
  PreparedSharesSchema,
  Scheme,
  StoredChangeSchema,
  StoredWalletSchema,
} from "../../gen/mpcwallet/storage/v1/state_pb.js";
import type { AttemptPlace } from "../consensus/wallet-change.js";
import type { Random } from "../crypto/ambient.js";
import { InvalidInput, Unavailable } from "../crypto/fault.js";
import { removeLeftover, replaceFile } from "./atomic-file.js";
import { FolderLock, type FormerHolder } from "./folder-lock.js";
import {
  type Argon2idCost,
  formatEnvelope,
  MAX_SEALED_BYTES,
  PassphraseKey,
  parseEnvelope,
  seal,
  unseal,
} from "./sealed-envelope.js";
import { SecretBytes } from "./secret-bytes.js";

const PURPOSE = "node-state";
const STATE_FILE = "state.json";
const LEDGER_KEY_BYTES = 32;
const CHAIN_CODE_BYTES = 32;
const MAX_NAME_BYTES = 128;
const MAX_WALLETS = 1000;
const MAX_SECRETS = 1000;
const MAX_PARTIES = 100;
/** Attempts upon one epoch that a node keeps shares of. */
const MAX_PREPARED = 32;
/** Base64 and JSON around the largest sealed state. */
const MAX_FILE_BYTES = Math.ceil(MAX_SEALED_BYTES * 1.4);
/** Hardened indices start here (BIP32). */
const MAX_ADDRESS_INDEX = 0x7fffffff;

/** One wallet as this node holds it. */
export interface StoredWallet {
  readonly walletId: string;
  readonly scheme: "cggmp24" | "frost";
  /** Signers that a signature needs, 1 to the number of parties. */
  readonly threshold: number;
  /** Node ids in party order. */
  readonly parties: readonly string[];
  /** Grows with each refresh of the shares. */
  readonly epoch: number;
  /** Serialized key share of the scheme. */
  readonly keyShare: SecretBytes;
  /** Serialized public keys of the wallet and its parties. */
  readonly publicKeyPackage: Uint8Array;
  /** BIP32 chain code, 32 bytes. */
  readonly chainCode: Uint8Array;
  /** Serialized auxiliary information of CGGMP24; empty for FROST. */
  readonly auxInfo: SecretBytes;
  /** Names this generation of shares and auxiliary info, 32 bytes; empty without auxiliary info. */
  readonly epochId: Uint8Array;
  /** First index without an address. */
  readonly nextExternalIndex: number;
  readonly nextChangeIndex: number;
  readonly createdAtMs: number;
}

/** Shares that were prepared beside the current ones. */
export interface PreparedShares {
  /** Serialized mpcwallet.consensus.v1.SignedWalletChange. */
  readonly change: Uint8Array;
  readonly attempt: number;
  /** The wallet as it is after the switch; undefined at a party that deals and leaves. */
  readonly next: StoredWallet | undefined;
  /** Somebody stated that the attempt can never be completed. */
  readonly abandoned: boolean;
}

/** Everything that a node keeps about one wallet. */
export interface HeldWallet {
  /** Undefined at a node that holds no share, before it joins or after it left. */
  readonly wallet: StoredWallet | undefined;
  /** In the order of attempts. */
  readonly prepared: readonly PreparedShares[];
  /** Serialized mpcwallet.consensus.v1.SwitchCertificate of the last switch; empty before the first. */
  readonly certificate: Uint8Array;
  /** Only what comes later is prepared; undefined before the first promise. */
  readonly closed: AttemptPlace | undefined;
}

export interface KeyStoreOptions {
  /** Folder of `state.json`; made with mode 0700 when missing. */
  readonly folder: string;
  readonly passphrase: SecretBytes;
  /** Cost of the passphrase hash; tests pass a small one, everything else leaves it out. */
  readonly cost?: Argon2idCost;
}

/**
 * The node's secrets in one encrypted file. Every change is on disk before its promise resolves; a crash leaves the
 * whole old or the whole new file. One process at a time: the folder is locked.
 */
export class KeyStore {
  readonly #path: string;
  readonly #lock: FolderLock;
  readonly #random: Random;
  readonly #cost: Argon2idCost | undefined;
  #key: PassphraseKey;
  #state: NodeState;
  /** Tail of the chain of writes, so that changes apply one after another. */
  #writes: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(
    opened: { path: string; lock: FolderLock; key: PassphraseKey; state: NodeState; cost: Argon2idCost | undefined },
    random: Random,
  ) {
    this.#path = opened.path;
    this.#lock = opened.lock;
    this.#key = opened.key;
    this.#state = opened.state;
    this.#cost = opened.cost;
    this.#random = random;
  }

  /** Whether `folder` already has a state file. */
  static async exists(folder: string): Promise<boolean> {
    return await stat(join(folder, STATE_FILE)).then(
      () => true,
      () => false,
    );
  }

  /**
   * Makes an empty state for a new node.
   *
   * @throws InvalidInput "state-exists": an existing state is never overwritten
   * @throws Unavailable "folder-locked", "write-failed"
   */
  static async create(
    options: KeyStoreOptions & { readonly nodeId: string },
    dependencies: { readonly random: Random },
  ): Promise<KeyStore> {
    checkName(options.nodeId, "nodeId");
    const { folder, cost } = options;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const lock = await FolderLock.acquire(folder);
    try {
      if (await KeyStore.exists(folder)) {
        throw new InvalidInput("state-exists", "the folder already has a node state", { folder });
      }
      const { random } = dependencies;
      const key = await PassphraseKey.fresh(options.passphrase, random, cost);
      const state = create(NodeStateSchema, { nodeId: options.nodeId, ledgerKey: random.bytes(LEDGER_KEY_BYTES) });
      const store = new KeyStore({ path: join(folder, STATE_FILE), lock, key, state, cost }, random);
      await store.#change(() => undefined);
      return store;
    } catch (cause) {
      await lock.release();
      throw cause;
    }
  }

  /**
   * Opens the state of a node; changes nothing on disk.
   *
   * @throws InvalidInput "state-missing", "wrong-passphrase", "envelope-corrupted", "envelope-foreign",
   *   "envelope-version", "envelope-cost", "envelope-tampered"
   * @throws Unavailable "folder-locked", "state-unreadable"
   */
  static async open(options: KeyStoreOptions, dependencies: { readonly random: Random }): Promise<KeyStore> {
    const { folder, cost } = options;
    const path = join(folder, STATE_FILE);
    if (!(await KeyStore.exists(folder))) {
      throw new InvalidInput("state-missing", "the folder has no node state", { folder });
    }
    const lock = await FolderLock.acquire(folder);
    try {
      const envelope = parseEnvelope(await readBounded(path), PURPOSE);
      const key = await PassphraseKey.of(options.passphrase, envelope, cost);
      const state = decodeState(unseal(envelope, key)); // its byte fields are views of the plaintext
      await removeLeftover(path);
      return new KeyStore({ path, lock, key, state, cost }, dependencies.random);
    } catch (cause) {
      await lock.release();
      throw cause;
    }
  }

  get nodeId(): string {
    return this.#state.nodeId;
  }

  /** Grows by one with each write; a smaller one than remembered elsewhere means that an old copy was restored. */
  get revision(): bigint {
    return this.#state.revision;
  }

  /** Set when the last process that held this folder was killed. */
  get formerHolder(): FormerHolder | undefined {
    return this.#lock.formerHolder;
  }

  /** Key of the one-use ledger. The caller erases its copy. */
  ledgerKey(): SecretBytes {
    this.#assertOpen();
    return SecretBytes.copyOf(this.#state.ledgerKey);
  }

  wallet(walletId: string): StoredWallet | undefined {
    this.#assertOpen();
    const found = this.#state.wallets.find((wallet) => wallet.walletId === walletId);
    return found === undefined ? undefined : fromDisk(found);
  }

  wallets(): readonly StoredWallet[] {
    this.#assertOpen();
    return this.#state.wallets.map(fromDisk);
  }

  /**
   * Adds a wallet or replaces the one with its id. An older epoch never replaces a newer one, and address indices never
   * go back.
   *
   * @throws InvalidInput "wallet-invalid", "wallet-epoch", "wallet-limit"
   * @throws Unavailable "write-failed"; the wallet is then not stored
   */
  async putWallet(wallet: StoredWallet): Promise<void> {
    checkWallet(wallet);
    let replaced: DiskWallet | undefined;
    await this.#change((state) => {
      const known = state.wallets.find(({ walletId }) => walletId === wallet.walletId);
      if (known !== undefined && known.epoch > wallet.epoch) {
        throw new InvalidInput("wallet-epoch", "a newer epoch of this wallet is stored", {
          walletId: wallet.walletId,
          stored: known.epoch,
          given: wallet.epoch,
        });
      }
      if (known === undefined && state.wallets.length >= MAX_WALLETS) {
        throw new InvalidInput("wallet-limit", "the node holds as many wallets as it may", { limit: MAX_WALLETS });
      }
      const disk = toDisk(wallet);
      if (known !== undefined) keepIndices(disk, known);
      state.wallets = [...state.wallets.filter((other) => other !== known), disk];
      replaced = known;
    });
    eraseWallet(replaced); // a refreshed share protects nothing while the old one is still about
  }

  /** What is kept about a wallet, prepared shares included. The caller erases the copies of secrets. */
  held(walletId: string): HeldWallet {
    this.#assertOpen();
    return heldIn(this.#state, walletId);
  }

  /** Wallets of which anything is kept: a share, prepared shares, or the certificate of a switch. */
  heldIds(): readonly string[] {
    this.#assertOpen();
    const { wallets, changes } = this.#state;
    return [...new Set([...wallets, ...changes].map(({ walletId }) => walletId))];
  }

  /**
   * Replaces everything that is kept about a wallet in one durable step: a crash leaves the whole old or the whole new
   * of it. `edit` sees what is stored when its turn comes, so what it decides cannot be overtaken; what it throws
   * changes nothing. Address indices never go back, an epoch neither.
   *
   * @throws InvalidInput "wallet-invalid", "wallet-epoch", "wallet-limit", "prepared-limit"
   * @throws Unavailable "write-failed"; then nothing has changed
   */
  async updateHeld(walletId: string, edit: (held: HeldWallet) => HeldWallet): Promise<HeldWallet> {
    checkName(walletId, "walletId");
    let erased: readonly (DiskWallet | undefined)[] = [];
    await this.#change((state) => {
      const oldWallet = state.wallets.find((wallet) => wallet.walletId === walletId);
      const oldChange = state.changes.find((change) => change.walletId === walletId);
      const now = heldIn(state, walletId);
      const next = edit(now);
      checkHeld(walletId, next, oldWallet);
      if (oldWallet === undefined && next.wallet !== undefined && state.wallets.length >= MAX_WALLETS) {
        throw new InvalidInput("wallet-limit", "the node holds as many wallets as it may", { limit: MAX_WALLETS });
      }
      const wallet = next.wallet && toDisk(next.wallet);
      if (wallet !== undefined && oldWallet !== undefined) keepIndices(wallet, oldWallet);
      const change = changeToDisk(walletId, next);
      state.wallets = [...state.wallets.filter((other) => other !== oldWallet), ...(wallet ? [wallet] : [])];
      state.changes = [...state.changes.filter((other) => other !== oldChange), ...(change ? [change] : [])];
      eraseHeld(now);
      erased = [oldWallet, ...(oldChange?.prepared ?? []).map((prepared) => prepared.next)];
    });
    // Everything of this wallet was written from fresh copies.
    for (const old of erased) eraseWallet(old);
    return this.held(walletId);
  }

  /**
   * Reserves the next address index of a wallet's chain for ever.
   *
   * @throws InvalidInput "wallet-unknown", "address-index-limit"
   */
  async nextAddressIndex(walletId: string, chain: "external" | "change"): Promise<number> {
    let index = 0;
    await this.#change((state) => {
      const wallet = state.wallets.find((other) => other.walletId === walletId);
      if (wallet === undefined) throw new InvalidInput("wallet-unknown", "no such wallet", { walletId });
      const field = chain === "external" ? "nextExternalIndex" : "nextChangeIndex";
      index = wallet[field];
      if (index > MAX_ADDRESS_INDEX) {
        throw new InvalidInput("address-index-limit", "the chain has no index left", { walletId, chain });
      }
      wallet[field] = index + 1;
    });
    return index;
  }

  /** A named secret of the node, for example its message identity key. */
  secret(name: string): SecretBytes | undefined {
    this.#assertOpen();
    const bytes = Object.hasOwn(this.#state.secrets, name) ? this.#state.secrets[name] : undefined;
    return bytes === undefined ? undefined : SecretBytes.copyOf(bytes);
  }

  /** @throws InvalidInput "name-invalid", "secret-limit"; Unavailable "write-failed" */
  async putSecret(name: string, secret: SecretBytes): Promise<void> {
    checkName(name, "secret name");
    await this.#change((state) => {
      if (!Object.hasOwn(state.secrets, name) && Object.keys(state.secrets).length >= MAX_SECRETS) {
        throw new InvalidInput("secret-limit", "the node holds as many secrets as it may", { limit: MAX_SECRETS });
      }
      state.secrets[name] = Uint8Array.from(secret.reveal());
    });
  }

  /**
   * Takes a named secret out of the state. It is gone from the disk before the promise resolves, so what may be used
   * once is not found again after a crash.
   *
   * @throws Unavailable "write-failed"; the secret is then still stored
   */
  async takeSecret(name: string): Promise<SecretBytes | undefined> {
    let taken: Uint8Array | undefined;
    await this.#change((state) => {
      taken = Object.hasOwn(state.secrets, name) ? state.secrets[name] : undefined;
      delete state.secrets[name];
    });
    if (taken === undefined) return undefined;
    const secret = SecretBytes.copyOf(taken);
    taken.fill(0);
    return secret;
  }

  /** Names of the secrets that begin with `prefix`. */
  secretNames(prefix: string): readonly string[] {
    this.#assertOpen();
    return Object.keys(this.#state.secrets).filter((name) => name.startsWith(prefix));
  }

  /**
   * Seals the state under a new passphrase. Copies of the old file still open with the old one: after a leak, refresh
   * the shares too.
   *
   * @throws Unavailable "write-failed"; the old passphrase then still applies
   */
  async rekey(passphrase: SecretBytes): Promise<void> {
    const fresh = await PassphraseKey.fresh(passphrase, this.#random, this.#cost);
    await this.#change(() => undefined, fresh);
  }

  /** Waits for writes under way, erases keys and shares from memory, lets the folder go. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#writes.catch(() => undefined);
    this.#key.erase();
    this.#state.ledgerKey.fill(0);
    for (const wallet of this.#state.wallets) eraseWallet(wallet);
    for (const { prepared } of this.#state.changes) for (const { next } of prepared) eraseWallet(next);
    for (const secret of Object.values(this.#state.secrets)) secret.fill(0);
    await this.#lock.release();
  }

  toJSON(): string {
    return `[key store of ${this.nodeId}]`;
  }

  [inspect.custom](): string {
    return this.toJSON();
  }

  /** Applies `edit` to a copy, writes the copy, and only then makes it the state: a failed write changes nothing. */
  async #change(edit: (state: NodeState) => void, key?: PassphraseKey): Promise<void> {
    this.#assertOpen();
    const write = this.#writes.then(async () => {
      const next = copyState(this.#state);
      edit(next);
      next.revision += 1n;
      const plaintext = toBinary(NodeStateSchema, next);
      try {
        const envelope = seal(plaintext, { key: key ?? this.#key, purpose: PURPOSE }, this.#random);
        await replaceFile(this.#path, formatEnvelope(envelope));
      } finally {
        plaintext.fill(0);
      }
      if (key !== undefined) {
        this.#key.erase();
        this.#key = key;
      }
      this.#state = next;
    });
    this.#writes = write.catch(() => undefined);
    await write;
  }

  #assertOpen(): void {
    if (this.#closed) throw new Unavailable("key-store-closed", "the key store is closed");
  }
}

/** Copies the containers and shares the byte arrays, which are replaced and never changed in place. */
function copyState(state: NodeState): NodeState {
  return create(NodeStateSchema, {
    ...state,
    wallets: state.wallets.map((wallet) => create(StoredWalletSchema, { ...wallet })),
    secrets: { ...state.secrets },
    changes: [...state.changes],
  });
}

/** Erases the secrets of a copy. */
export function eraseHeld({ wallet, prepared }: HeldWallet): void {
  for (const copy of [wallet, ...prepared.map(({ next }) => next)]) {
    copy?.keyShare.erase();
    copy?.auxInfo.erase();
  }
}

function eraseWallet(wallet: DiskWallet | undefined): void {
  wallet?.keyShare.fill(0);
  wallet?.auxInfo.fill(0);
}

function keepIndices(wallet: DiskWallet, known: DiskWallet): void {
  wallet.nextExternalIndex = Math.max(wallet.nextExternalIndex, known.nextExternalIndex);
  wallet.nextChangeIndex = Math.max(wallet.nextChangeIndex, known.nextChangeIndex);
}

function heldIn(state: NodeState, walletId: string): HeldWallet {
  const wallet = state.wallets.find((known) => known.walletId === walletId);
  const change = state.changes.find((known) => known.walletId === walletId);
  const { closed, prepared = [], certificate = new Uint8Array() } = change ?? {};
  return {
    wallet: wallet && fromDisk(wallet),
    prepared: prepared.map(({ change: signed, attempt, next, abandoned }) => {
      return { change: signed, attempt, next: next && fromDisk(next), abandoned };
    }),
    certificate,
    closed: closed && {
      createdAtMs: Number(closed.createdAtMs),
      requestDigest: closed.requestDigest,
      attempt: closed.attempt,
    },
  };
}

/** Undefined when there is nothing to remember. */
function changeToDisk(walletId: string, { prepared, certificate, closed }: HeldWallet): DiskChange | undefined {
  if (prepared.length === 0 && certificate.length === 0 && closed === undefined) return undefined;
  return create(StoredChangeSchema, {
    walletId,
    prepared: prepared.map(({ change, attempt, next, abandoned }) =>
      create(PreparedSharesSchema, { change, attempt, abandoned, ...(next ? { next: toDisk(next) } : {}) }),
    ),
    certificate,
    ...(closed ? { closed: { ...closed, createdAtMs: BigInt(closed.createdAtMs) } } : {}),
  });
}

function checkHeld(walletId: string, { wallet, prepared }: HeldWallet, old: DiskWallet | undefined): void {
  for (const one of [wallet, ...prepared.map(({ next }) => next)]) {
    if (one === undefined) continue;
    checkWallet(one);
    if (one.walletId !== walletId) {
      throw new InvalidInput("wallet-invalid", "a wallet keeps its id", { walletId, field: "walletId" });
    }
  }
  if (wallet !== undefined && old !== undefined && wallet.epoch < old.epoch) {
    const facts = { walletId, stored: old.epoch, given: wallet.epoch };
    throw new InvalidInput("wallet-epoch", "a newer epoch of this wallet is stored", facts);
  }
  if (prepared.length > MAX_PREPARED) {
    const facts = { walletId, limit: MAX_PREPARED };
    throw new InvalidInput("prepared-limit", "too many changes of this wallet were prepared and never finished", facts);
  }
}

function decodeState(plaintext: Uint8Array): NodeState {
  try {
    const state = fromBinary(NodeStateSchema, plaintext);
    if (state.ledgerKey.length === LEDGER_KEY_BYTES) return state;
  } catch {
    // falls through: the decoder's message may quote bytes of the state
  }
  throw new InvalidInput("envelope-corrupted", "the sealed state does not decode", { part: "state" });
}

async function readBounded(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > MAX_FILE_BYTES) throw new InvalidInput("envelope-corrupted", "the file is too large", { part: "size" });
    return await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof InvalidInput) throw cause;
    throw new Unavailable("state-unreadable", "the state file cannot be read", { path }, cause);
  }
}

function fromDisk(wallet: DiskWallet): StoredWallet {
  return {
    walletId: wallet.walletId,
    scheme: wallet.scheme === Scheme.FROST ? "frost" : "cggmp24",
    threshold: wallet.threshold,
    parties: wallet.parties,
    epoch: wallet.epoch,
    keyShare: SecretBytes.copyOf(wallet.keyShare),
    publicKeyPackage: wallet.publicKeyPackage,
    chainCode: wallet.chainCode,
    auxInfo: SecretBytes.copyOf(wallet.auxInfo),
    epochId: wallet.epochId,
    nextExternalIndex: wallet.nextExternalIndex,
    nextChangeIndex: wallet.nextChangeIndex,
    createdAtMs: Number(wallet.createdAtMs),
  };
}

function toDisk(wallet: StoredWallet): DiskWallet {
  return create(StoredWalletSchema, {
    ...wallet,
    scheme: wallet.scheme === "frost" ? Scheme.FROST : Scheme.CGGMP24,
    parties: [...wallet.parties],
    keyShare: Uint8Array.from(wallet.keyShare.reveal()),
    auxInfo: Uint8Array.from(wallet.auxInfo.reveal()),
    createdAtMs: BigInt(wallet.createdAtMs),
  });
}

function checkWallet(wallet: StoredWallet): void {
  checkName(wallet.walletId, "walletId");
  const index = (value: number) => Number.isInteger(value) && value >= 0 && value <= MAX_ADDRESS_INDEX + 1;
  const { parties, threshold } = wallet;
  const problems: readonly [string, boolean][] = [
    ["parties", parties.length >= 1 && parties.length <= MAX_PARTIES && new Set(parties).size === parties.length],
    ["threshold", Number.isInteger(threshold) && threshold >= 1 && threshold <= parties.length],
    ["epoch", Number.isInteger(wallet.epoch) && wallet.epoch >= 0 && wallet.epoch <= 0xffffffff],
    ["keyShare", wallet.keyShare.length > 0],
    ["chainCode", wallet.chainCode.length === CHAIN_CODE_BYTES],
    ["nextExternalIndex", index(wallet.nextExternalIndex)],
    ["nextChangeIndex", index(wallet.nextChangeIndex)],
    ["createdAtMs", Number.isSafeInteger(wallet.createdAtMs) && wallet.createdAtMs >= 0],
  ];
  const wrong = problems.find(([, fine]) => !fine);
  if (wrong !== undefined) {
    throw new InvalidInput("wallet-invalid", "a field of the wallet is out of range", {
      walletId: wallet.walletId,
      field: wrong[0],
    });
  }
  for (const party of parties) checkName(party, "party");
}

function checkName(name: string, field: string): void {
  if (name.length === 0 || Buffer.byteLength(name) > MAX_NAME_BYTES || !/^[A-Za-z0-9][\w.:@/-]*$/.test(name)) {
    throw new InvalidInput("name-invalid", "a name has 1 to 128 characters of A-Z a-z 0-9 _ . : @ / -", { field });
  }
}
