/** Regtest blocks: real headers, merkle roots, witness commitments and proof of work, at regtest's lowest difficulty. */
import { Block, networks, Transaction } from "bitcoinjs-lib";
import { COIN_SAT } from "./policy.js";

export const REGTEST = networks.regtest;
/** Regtest's proof-of-work limit in compact form: every second hash meets it. */
export const REGTEST_BITS = 0x207fffff;
export const SUBSIDY_HALVING_BLOCKS = 150;
/** Weight left for the header and the coinbase. */
export const BLOCK_WEIGHT_RESERVE = 8_000;
export const MAX_BLOCK_WEIGHT = 4_000_000;

/** Regtest's own genesis block; its coinbase is unspendable, as everywhere. */
export const GENESIS_HASH = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
const GENESIS_COINBASE =
  "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d" +
  "65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f7220" +
  "62616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f" +
  "4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000";

/** Reward of the block at `height`, without fees. */
export function subsidySat(height: number): bigint {
  const halvings = BigInt(Math.floor(height / SUBSIDY_HALVING_BLOCKS));
  return halvings >= 64n ? 0n : (50n * COIN_SAT) >> halvings;
}

/** Regtest's genesis block. */
export function genesisBlock(): Block {
  const block = new Block();
  block.version = 1;
  block.prevHash = new Uint8Array(32);
  block.timestamp = 1_296_688_602;
  block.bits = REGTEST_BITS;
  block.nonce = 2;
  block.transactions = [Transaction.fromHex(GENESIS_COINBASE)];
  block.merkleRoot = Block.calculateMerkleRoot(block.transactions);
  return block;
}

/** BIP 34: the height as a minimal script number push, then an extra nonce so that coinbases stay distinct. */
function coinbaseScript(height: number, extraNonce: number): Uint8Array {
  const number: number[] = [];
  for (let rest = height; rest > 0; rest = Math.floor(rest / 256)) number.push(rest % 256);
  if (((number.at(-1) ?? 0) & 0x80) !== 0) number.push(0);
  const push = height <= 16 ? [0x50 + height] : [number.length, ...number];
  const nonce = Buffer.alloc(4);
  nonce.writeUInt32LE(extraNonce);
  return Uint8Array.from([...push, nonce.length, ...nonce]);
}

/** What a new block is made of. */
export interface BlockTemplate {
  readonly height: number;
  readonly previousHash: Uint8Array;
  readonly timestampS: number;
  readonly transactions: readonly Transaction[];
  readonly feesSat: bigint;
  /** Receives subsidy and fees. */
  readonly scriptPubKey: Uint8Array;
  readonly extraNonce: number;
}

/** Builds the coinbase with its witness commitment (BIP 141) and searches the nonce. */
export function mineBlock(template: BlockTemplate): Block {
  const coinbase = new Transaction();
  coinbase.version = 2;
  coinbase.addInput(new Uint8Array(32), 0xffffffff, 0xffffffff, coinbaseScript(template.height, template.extraNonce));
  coinbase.addOutput(template.scriptPubKey, subsidySat(template.height) + template.feesSat);
  coinbase.setWitness(0, [new Uint8Array(32)]);
  const transactions = [coinbase, ...template.transactions];
  const commitment = Block.calculateMerkleRoot(transactions, true);
  coinbase.addOutput(Uint8Array.from([0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed, ...commitment]), 0n);

  const block = new Block();
  block.version = 0x20000000;
  block.prevHash = template.previousHash;
  block.timestamp = template.timestampS;
  block.bits = REGTEST_BITS;
  block.transactions = transactions;
  block.merkleRoot = Block.calculateMerkleRoot(transactions);
  block.witnessCommit = commitment;
  for (block.nonce = 0; !block.checkProofOfWork(); block.nonce++);
  return block;
}
