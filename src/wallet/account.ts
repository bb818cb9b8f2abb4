import { createHash, createHmac } from "node:crypto";
import { initEccLib } from "bitcoinjs-lib";
import * as ecc from "tiny-secp256k1";
import { Bug, InvalidInput } from "../crypto/fault.js";
import { scriptAddress } from "./address.js";
import type { NetworkName, Scheme } from "./wallet-application.js";

/**
 * An account is the public half of a wallet: the group key as a BIP32 root, from which every address follows without
 * a secret. Parties add the returned tweaks to their shares; nobody needs to trust anybody about an address.
 */

// bitcoinjs-lib checks Taproot output keys with it. Public inputs only.
initEccLib(ecc);

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
export const INDEX_MAX = 0x7fffffff;

export interface AccountOptions {
  readonly walletId: string;
  readonly scheme: Scheme;
  readonly network: NetworkName;
  /** SEC1 compressed group key, 33 bytes. */
  readonly groupKey: Uint8Array;
  /** BIP32 chain code, 32 bytes. */
  readonly chainCode: Uint8Array;
}

/** Where a key stands below the group's root. Both steps are unhardened. */
export interface KeyPath {
  readonly change: boolean;
  /** 0 to 2^31 - 1 */
  readonly index: number;
}

/** BIP341 key-path facts: Q = P + H_TapTweak(x(P))·G with the even-y P, no scripts (BIP86). */
export interface TaprootKey {
  /** x(P), 32 bytes. */
  readonly internalKey: Uint8Array;
  /** True when the derived point has odd y: its discrete logarithm is negated before the Taproot tweak is added. */
  readonly internalKeyIsOdd: boolean;
  /** H_TapTweak(x(P)) as a scalar, 32 bytes. */
  readonly tapTweak: Uint8Array;
  /** x(Q), 32 bytes: what the output commits to and signatures verify under. */
  readonly outputKey: Uint8Array;
  readonly outputKeyIsOdd: boolean;
}

export interface DerivedKey {
  readonly path: KeyPath;
  /** SEC1 compressed, 33 bytes: group key + tweak·G. For Taproot: before the Taproot tweak. */
  readonly publicKey: Uint8Array;
  /** Sum of the BIP32 tweaks of both steps mod q, 32 bytes big-endian. Added to the secret, that is once to the sum of shares. */
  readonly tweak: Uint8Array;
  /** Present for FROST accounts. */
  readonly taproot: TaprootKey | undefined;
  readonly scriptPubKey: Uint8Array;
  readonly address: string;
}

export function pathText({ change, index }: KeyPath): string {
  return `${change ? 1 : 0}/${index}`;
}

function hash160(bytes: Uint8Array): Uint8Array {
  const inner = createHash("sha256").update(bytes).digest();
  return new Uint8Array(createHash("ripemd160").update(inner).digest());
}

function taggedHash(tag: string, message: Uint8Array): Uint8Array {
  const tagHash = createHash("sha256").update(tag).digest();
  return new Uint8Array(createHash("sha256").update(tagHash).update(tagHash).update(message).digest());
}

const toInteger = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
const toScalar = (value: bigint): Uint8Array =>
  new Uint8Array(Buffer.from(value.toString(16).padStart(64, "0"), "hex"));

interface Node {
  readonly publicKey: Uint8Array;
  readonly chainCode: Uint8Array;
  readonly tweak: bigint;
}

/** BIP32, public parent key to public child key, unhardened. */
function child(parent: Node, index: number): Node {
  const data = Buffer.alloc(37);
  data.set(parent.publicKey);
  data.writeUInt32BE(index, 33);
  const hmac = createHmac("sha512", parent.chainCode).update(data).digest();
  const left = new Uint8Array(hmac.subarray(0, 32));
  const tweak = toInteger(left);
  // parse256(I_L) ≥ n or the point at infinity: BIP32 says to go on with the next index; probability below 2^-127.
  const publicKey = tweak >= ORDER ? null : ecc.pointAddScalar(parent.publicKey, left, true);
  if (publicKey === null) throw new InvalidInput("index-has-no-key", "BIP32 has no key at this index", { index });
  return { publicKey, chainCode: new Uint8Array(hmac.subarray(32)), tweak: (parent.tweak + tweak) % ORDER };
}

/** BIP341, taproot_tweak_pubkey with the empty script tree of BIP86. */
export function taprootKey(publicKey: Uint8Array): TaprootKey {
  const internalKey = publicKey.slice(1);
  const tapTweak = taggedHash("TapTweak", internalKey);
  const tweaked = ecc.xOnlyPointAddTweak(internalKey, tapTweak);
  if (tweaked === null) throw new InvalidInput("index-has-no-key", "BIP341 has no key for this internal key");
  return {
    internalKey,
    internalKeyIsOdd: publicKey[0] === 3,
    tapTweak,
    outputKey: tweaked.xOnlyPubkey,
    outputKeyIsOdd: tweaked.parity === 1,
  };
}

function program(version: number, key: Uint8Array): Uint8Array {
  return Uint8Array.from([version, key.length, ...key]);
}

/** Keys that were derived are remembered up to this number; deriving again costs about 50 microseconds. */
const REMEMBERED_KEYS_MAX = 4096;

export class Account {
  readonly walletId: string;
  readonly scheme: Scheme;
  readonly network: NetworkName;
  readonly groupKey: Uint8Array;
  readonly chainCode: Uint8Array;
  readonly #branches: readonly [Node, Node];
  readonly #keys = new Map<string, DerivedKey>();

  /** Throws `InvalidInput` "group-key-invalid" or "chain-code-invalid". */
  constructor(options: AccountOptions) {
    if (options.groupKey.length !== 33 || !ecc.isPointCompressed(options.groupKey)) {
      throw new InvalidInput("group-key-invalid", "the group key is a compressed point of 33 bytes");
    }
    if (options.chainCode.length !== 32) throw new InvalidInput("chain-code-invalid", "a chain code has 32 bytes");
    this.walletId = options.walletId;
    this.scheme = options.scheme;
    this.network = options.network;
    this.groupKey = Uint8Array.from(options.groupKey);
    this.chainCode = Uint8Array.from(options.chainCode);
    const root = { publicKey: this.groupKey, chainCode: this.chainCode, tweak: 0n };
    this.#branches = [child(root, 0), child(root, 1)];
  }

  get scriptType(): "p2tr" | "p2wpkh" {
    return this.scheme === "frost" ? "p2tr" : "p2wpkh";
  }

  /** BIP32 fingerprint of the group's root, 4 bytes. */
  get fingerprint(): Uint8Array {
    return hash160(this.groupKey).slice(0, 4);
  }

  /** The key at `change/index`. Throws `InvalidInput` "index-out-of-range". */
  derive(path: KeyPath): DerivedKey {
    if (!Number.isInteger(path.index) || path.index < 0 || path.index > INDEX_MAX) {
      throw new InvalidInput("index-out-of-range", "an index is 0 to 2^31 - 1", { index: path.index });
    }
    const name = pathText(path);
    const known = this.#keys.get(name);
    if (known !== undefined) return known;
    const key = this.#derive(path);
    if (this.#keys.size >= REMEMBERED_KEYS_MAX) this.#keys.clear();
    this.#keys.set(name, key);
    return key;
  }

  #derive({ change, index }: KeyPath): DerivedKey {
    const { publicKey, tweak } = child(this.#branches[change ? 1 : 0], index);
    const taproot = this.scheme === "frost" ? taprootKey(publicKey) : undefined;
    const scriptPubKey = taproot === undefined ? program(0x00, hash160(publicKey)) : program(0x51, taproot.outputKey);
    const address = scriptAddress(scriptPubKey, this.network);
    if (address === undefined) throw new Bug("own script has no address");
    return { path: { change, index }, publicKey, tweak: toScalar(tweak), taproot, scriptPubKey, address };
  }
}
