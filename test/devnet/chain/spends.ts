/** Throw-away wallets that spend devnet coins, built and signed by bitcoinjs-lib or @scure/btc-signer. */
import { createHash } from "node:crypto";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import * as scure from "@scure/btc-signer";
import { address, payments, script, Transaction } from "bitcoinjs-lib";
import { REGTEST } from "../../../src/devnet/chain/block.js";
import { Chain } from "../../../src/devnet/chain/chain.js";
import { type Coin, scriptHash } from "../../../src/devnet/chain/coins.js";
import { Faucet } from "../../../src/devnet/chain/faucet.js";
import { systemClock } from "../../../src/node/ambient.js";

export const SCURE_REGTEST = { bech32: "bcrt", pubKeyHash: 0x6f, scriptHash: 0xc4, wif: 0xef };
export const SEQUENCE_RBF = 0xfffffffd;

/** A secret key by name. */
export const secretKey = (name: string): Uint8Array => createHash("sha256").update(`test key ${name}`).digest();

export interface Payout {
  readonly script: Uint8Array;
  readonly amountSat: bigint;
}

export interface Shape {
  readonly version?: number;
  readonly locktime?: number;
  readonly sequence?: number;
}

function present<Value>(value: Value | undefined): Value {
  if (value === undefined) throw new Error("a payment is incomplete");
  return value;
}

/** A single-key wallet for P2WPKH or P2PKH, signed by way of bitcoinjs-lib's signature hashes. */
export class KeyWallet {
  readonly #secretKey: Uint8Array;
  readonly #publicKey: Uint8Array;
  readonly #scriptCode: Uint8Array;
  readonly #kind: "p2wpkh" | "p2pkh";
  readonly scriptPubKey: Uint8Array;
  readonly address: string;

  constructor(name: string, kind: "p2wpkh" | "p2pkh" = "p2wpkh") {
    this.#secretKey = secretKey(name);
    this.#publicKey = secp256k1.getPublicKey(this.#secretKey, true);
    const payment = payments[kind]({ pubkey: this.#publicKey, network: REGTEST });
    this.#scriptCode = present(payments.p2pkh({ pubkey: this.#publicKey, network: REGTEST }).output);
    this.#kind = kind;
    this.scriptPubKey = present(payment.output);
    this.address = address.fromOutputScript(this.scriptPubKey, REGTEST);
  }

  /** DER signature of a hash, without a hash type. */
  signHash(hash: Uint8Array): Uint8Array {
    return secp256k1.sign(hash, this.#secretKey, { prehash: false, format: "der" });
  }

  /** Spends coins of this wallet; outputs are taken as given, what is left over is the fee. */
  spend(coins: readonly Coin[], payouts: readonly Payout[], shape: Shape = {}): Transaction {
    const transaction = new Transaction();
    transaction.version = shape.version ?? 2;
    transaction.locktime = shape.locktime ?? 0;
    for (const { txid, vout } of coins) {
      transaction.addInput(Buffer.from(txid, "hex").reverse(), vout, shape.sequence ?? SEQUENCE_RBF);
    }
    for (const { script: output, amountSat } of payouts) transaction.outs.push({ script: output, value: amountSat });
    for (const [index, { valueSat }] of coins.entries()) {
      const sighash =
        this.#kind === "p2wpkh"
          ? transaction.hashForWitnessV0(index, this.#scriptCode, valueSat, Transaction.SIGHASH_ALL)
          : transaction.hashForSignature(index, this.#scriptCode, Transaction.SIGHASH_ALL);
      const compact = secp256k1.sign(sighash, this.#secretKey, { prehash: false });
      const signature = script.signature.encode(compact, Transaction.SIGHASH_ALL);
      if (this.#kind === "p2wpkh") transaction.setWitness(index, [signature, this.#publicKey]);
      else transaction.setInputScript(index, script.compile([signature, this.#publicKey]));
    }
    return transaction;
  }
}

type ScureInput = Parameters<scure.Transaction["addInput"]>[0];

/** A wallet whose spends @scure/btc-signer builds, signs and finalises. */
export interface ScureWallet {
  readonly name: string;
  readonly scriptPubKey: Uint8Array;
  /** What an input must say so that it can be signed and finalised. */
  readonly input: ScureInput;
  readonly secretKeys: readonly Uint8Array[];
}

const xOnly = (key: Uint8Array): Uint8Array => schnorr.getPublicKey(key);
const compressed = (key: Uint8Array): Uint8Array => secp256k1.getPublicKey(key, true);

/** Taproot with one leaf that needs all the keys; only its script path is signed. */
export function taprootScript(name: string, keys: readonly Uint8Array[], internalKey: Uint8Array): ScureWallet {
  const leaf = keys.length === 1 ? scure.p2tr_pk(xOnly(present(keys[0]))) : scure.p2tr_ms(keys.length, keys.map(xOnly));
  const payment = scure.p2tr(internalKey, { script: leaf.script }, SCURE_REGTEST, true);
  const { tapLeafScript, script: scriptPubKey } = payment;
  return { name, scriptPubKey, input: { tapLeafScript: present(tapLeafScript) }, secretKeys: keys };
}

export function scureWallets(name: string): ScureWallet[] {
  const [a, b, c] = [secretKey(`${name} a`), secretKey(`${name} b`), secretKey(`${name} c`)];
  const wpkh = scure.p2wpkh(compressed(a), SCURE_REGTEST);
  const wsh = scure.p2wsh(scure.p2ms(2, [a, b, c].map(compressed)), SCURE_REGTEST);
  const tr = scure.p2tr(xOnly(a), undefined, SCURE_REGTEST);
  const nested = scure.p2sh(wpkh, SCURE_REGTEST);
  return [
    { name: "P2WPKH", scriptPubKey: wpkh.script, input: {}, secretKeys: [a] },
    {
      name: "P2SH-P2WPKH",
      scriptPubKey: nested.script,
      input: { redeemScript: present(nested.redeemScript) },
      secretKeys: [a],
    },
    {
      name: "P2WSH 2-of-3",
      scriptPubKey: wsh.script,
      input: { witnessScript: present(wsh.witnessScript) },
      secretKeys: [a, b],
    },
    { name: "P2TR key path", scriptPubKey: tr.script, input: { tapInternalKey: tr.tapInternalKey }, secretKeys: [a] },
    taprootScript("P2TR script path 2-of-2", [a, b], scure.TAPROOT_UNSPENDABLE_KEY),
  ];
}

export function scureSpend(wallet: ScureWallet, coins: readonly Coin[], payouts: readonly Payout[]): Uint8Array {
  const transaction = new scure.Transaction({ version: 2, allowUnknownOutputs: true });
  for (const { txid, vout, valueSat, scriptPubKey } of coins) {
    const witnessUtxo = { amount: valueSat, script: scriptPubKey };
    transaction.addInput({ ...wallet.input, txid, index: vout, witnessUtxo, sequence: SEQUENCE_RBF });
  }
  for (const { script: output, amountSat } of payouts) transaction.addOutput({ script: output, amount: amountSat });
  for (const key of wallet.secretKeys) transaction.sign(key);
  transaction.finalize();
  return transaction.extract();
}

/** A chain whose clock stands still, with a faucet that has coins. */
export function freshChain(
  matureCoinbases = 20,
  maxMempoolTransactions = 1_000,
): { readonly chain: Chain; readonly faucet: Faucet } {
  const clock = { ...systemClock, nowMs: () => 1_800_000_000_000 };
  const chain = new Chain({ maxBlocksPerRequest: 1_000, maxMempoolTransactions, feeRateSatPerKvb: 2_000 }, { clock });
  const faucet = new Faucet(chain);
  chain.mine(matureCoinbases + 99, faucet.scriptPubKey);
  return { chain, faucet };
}

/** Pays a script from the faucet and returns the coin, confirmed. */
export function fund(
  { chain, faucet }: { readonly chain: Chain; readonly faucet: Faucet },
  scriptPubKey: Uint8Array,
  amountSat: bigint,
): Coin {
  const txid = faucet.pay(scriptPubKey, amountSat);
  chain.mine(1, faucet.scriptPubKey);
  return coinOf(chain, txid, scriptPubKey);
}

/** The unspent coin with which a transaction pays a script. */
export function coinOf(chain: Chain, txid: string, scriptPubKey: Uint8Array): Coin {
  const coin = chain.unspent(scriptHash(scriptPubKey), { withMempool: true }).find((each) => each.txid === txid);
  return present(coin);
}
