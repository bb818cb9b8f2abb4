/** Pays anybody from the devnet's own mined coins. Its key is public: everybody may read it below. */
import { createHash } from "node:crypto";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { payments, script, Transaction } from "bitcoinjs-lib";
import { Bug, InvalidInput, Unavailable } from "../../crypto/fault.js";
import { REGTEST } from "./block.js";
import type { Chain } from "./chain.js";
import { refusalText } from "./chain.js";
import { type Coin, scriptHash } from "./coins.js";
import { COINBASE_MATURITY_BLOCKS, dustThresholdSat, MAX_MEMPOOL_CHAIN, MAX_MONEY_SAT } from "./policy.js";

const SECRET_KEY = createHash("sha256").update("mpc-wallet devnet faucet: a throw-away key, worth nothing").digest();
const PUBLIC_KEY = secp256k1.getPublicKey(SECRET_KEY, true);
const FEE_RATE_SAT_PER_VB = 2n;
const MAX_INPUTS = 100;
/** Virtual bytes of a P2WPKH input, of an output with the longest standard script, and of all the rest. */
const [INPUT_VB, OUTPUT_VB, OVERHEAD_VB] = [68n, 43n, 11n];

function bytes(value: Uint8Array | undefined): Uint8Array {
  if (value === undefined) throw new Bug("payment has no script");
  return value;
}

export class Faucet {
  readonly #chain: Chain;
  /** P2WPKH; blocks that are mined for nobody in particular pay to it. */
  readonly scriptPubKey = bytes(payments.p2wpkh({ pubkey: PUBLIC_KEY, network: REGTEST }).output);

  constructor(chain: Chain) {
    this.#chain = chain;
  }

  /** Coins that can be spent now: those with the shortest unconfirmed chain first, large ones before small ones. */
  #coins(): Coin[] {
    const nextHeight = this.#chain.tip.height + 1;
    const depth = (coin: Coin): number => (coin.confirmedHeight > 0 ? 0 : this.#chain.mempool.ancestors([coin]).size);
    return this.#chain
      .unspent(scriptHash(this.scriptPubKey), { withMempool: true })
      .filter((coin) => !coin.coinbase || nextHeight - coin.confirmedHeight >= COINBASE_MATURITY_BLOCKS)
      .map((coin) => ({ coin, depth: depth(coin) }))
      .filter((item) => item.depth < MAX_MEMPOOL_CHAIN)
      .sort((a, b) => a.depth - b.depth || Number(b.coin.valueSat - a.coin.valueSat))
      .map(({ coin }) => coin);
  }

  /**
   * Sends `amountSat` to a script; the payment waits in the mempool.
   *
   * @returns the txid
   * @throws InvalidInput "bad-amount" when the amount is dust or more money than exists
   * @throws Unavailable "faucet-dry" when mature coins do not suffice; mining blocks helps
   */
  pay(scriptPubKey: Uint8Array, amountSat: bigint): string {
    if (amountSat < dustThresholdSat(scriptPubKey) || amountSat > MAX_MONEY_SAT) {
      throw new InvalidInput("bad-amount", "amountSat must be at least the dust threshold", { amountSat });
    }
    const chosen: Coin[] = [];
    let inSat = 0n;
    let feeSat = 0n;
    for (const coin of this.#coins()) {
      if (chosen.length === MAX_INPUTS) break;
      chosen.push(coin);
      inSat += coin.valueSat;
      feeSat = FEE_RATE_SAT_PER_VB * (OVERHEAD_VB + INPUT_VB * BigInt(chosen.length) + 2n * OUTPUT_VB);
      if (inSat >= amountSat + feeSat) break;
    }
    if (chosen.length === 0 || inSat < amountSat + feeSat) {
      throw new Unavailable("faucet-dry", "the faucet has too few mature coins; mine blocks", { amountSat });
    }
    const transaction = new Transaction();
    transaction.version = 2;
    for (const { txid, vout } of chosen) transaction.addInput(Buffer.from(txid, "hex").reverse(), vout, 0xfffffffd);
    transaction.addOutput(scriptPubKey, amountSat);
    const changeSat = inSat - amountSat - feeSat;
    if (changeSat >= dustThresholdSat(this.scriptPubKey)) transaction.addOutput(this.scriptPubKey, changeSat);
    this.#sign(transaction, chosen);
    const verdict = this.#chain.accept(transaction.toBuffer(), { maxFeeRateSatPerKvb: 0n });
    if (verdict.accepted) return verdict.entry.txid;
    throw new Unavailable("faucet-dry", `the faucet's payment was refused: ${refusalText(verdict)}`, { amountSat });
  }

  #sign(transaction: Transaction, coins: readonly Coin[]): void {
    const scriptCode = bytes(payments.p2pkh({ pubkey: PUBLIC_KEY, network: REGTEST }).output);
    for (const [index, { valueSat }] of coins.entries()) {
      const sighash = transaction.hashForWitnessV0(index, scriptCode, valueSat, Transaction.SIGHASH_ALL);
      const signature = secp256k1.sign(sighash, SECRET_KEY, { prehash: false });
      transaction.setWitness(index, [script.signature.encode(signature, Transaction.SIGHASH_ALL), PUBLIC_KEY]);
    }
  }
}
