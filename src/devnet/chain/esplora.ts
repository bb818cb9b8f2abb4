/** Esplora's REST routes over the devnet chain, with its JSON shapes and error texts. */
import { address as addresses, initEccLib, type Transaction } from "bitcoinjs-lib";
import * as ecc from "tiny-secp256k1";
import { REGTEST } from "./block.js";
import type { Chain } from "./chain.js";
import { type Coin, outpoint, scriptHash } from "./coins.js";
import type { ConnectedBlock } from "./ledger.js";
import { type HttpAnswer, type HttpRequest, json, text } from "./loopback-http.js";
import type { SpendingTransaction } from "./mempool.js";
import { type OutputType, outputType } from "./policy.js";
import { disassemble } from "./script-text.js";
import { submit } from "./submission.js";

const CONFIRMED_PER_PAGE = 25;
const WAITING_PER_PAGE = 50;
const FEE_TARGETS_BLOCKS = [...Array.from({ length: 25 }, (_, index) => index + 1), 144, 504, 1_008];

const notFound = (what: string): HttpAnswer => text(404, `${what} not found`);
const isHash = (value: string | undefined): value is string => value !== undefined && /^[0-9a-f]{64}$/i.test(value);
const INVALID_HEX = text(400, "Invalid hex string");

/** Address of a script on regtest; undefined when the script has none. */
export function addressOf(scriptPubKey: Uint8Array): string | undefined {
  try {
    return addresses.fromOutputScript(scriptPubKey, REGTEST);
  } catch {
    return undefined;
  }
}

// Taproot addresses are not recognised without it.
initEccLib(ecc);

/** Script of a regtest address; undefined when it is no address of this network. */
export function scriptOfAddress(address: string): Uint8Array | undefined {
  if (address.length > 100) return undefined;
  try {
    return addresses.toOutputScript(address, REGTEST);
  } catch {
    return undefined;
  }
}

const ESPLORA_TYPE: Partial<Record<OutputType, string>> = { witness_unknown: "unknown" };

function output(scriptPubKey: Uint8Array, valueSat: bigint) {
  const type = outputType(scriptPubKey);
  const address = addressOf(scriptPubKey);
  return {
    scriptpubkey: Buffer.from(scriptPubKey).toString("hex"),
    scriptpubkey_asm: disassemble(scriptPubKey),
    scriptpubkey_type: ESPLORA_TYPE[type] ?? type,
    ...(address === undefined ? {} : { scriptpubkey_address: address }),
    value: Number(valueSat),
  };
}

function status(block: ConnectedBlock | undefined) {
  if (block === undefined) return { confirmed: false };
  const { height, hash } = block;
  return { confirmed: true, block_height: height, block_hash: hash, block_time: block.block.timestamp };
}

function input(item: Transaction["ins"][number], spent: Coin | undefined) {
  return {
    txid: Buffer.from(item.hash).reverse().toString("hex"),
    vout: item.index,
    prevout: spent === undefined ? null : output(spent.scriptPubKey, spent.valueSat),
    scriptsig: Buffer.from(item.script).toString("hex"),
    scriptsig_asm: disassemble(item.script),
    ...(item.witness.length === 0 ? {} : { witness: item.witness.map((part) => Buffer.from(part).toString("hex")) }),
    is_coinbase: spent === undefined,
    sequence: item.sequence,
  };
}

function shape(chain: Chain, entry: SpendingTransaction) {
  const { transaction, spent, feeSat, txid } = entry;
  return {
    txid,
    version: transaction.version,
    locktime: transaction.locktime,
    vin: transaction.ins.map((item, index) => input(item, spent[index])),
    vout: transaction.outs.map(({ script, value }) => output(script, value)),
    size: transaction.byteLength(),
    weight: transaction.weight(),
    fee: Number(feeSat),
    status: status(chain.blockOf(txid)),
  };
}

/** Sums of what a script received and spent, over some transactions. */
function stats(chain: Chain, txids: ReadonlySet<string>, hash: string) {
  const sums = { funded_txo_count: 0, funded_txo_sum: 0, spent_txo_count: 0, spent_txo_sum: 0, tx_count: txids.size };
  for (const txid of txids) {
    const entry = chain.transaction(txid);
    for (const { script, value } of entry?.transaction.outs ?? []) {
      if (scriptHash(script) !== hash) continue;
      sums.funded_txo_count++;
      sums.funded_txo_sum += Number(value);
    }
    for (const coin of entry?.spent ?? []) {
      if (scriptHash(coin.scriptPubKey) !== hash) continue;
      sums.spent_txo_count++;
      sums.spent_txo_sum += Number(coin.valueSat);
    }
  }
  return sums;
}

function scriptRoutes(chain: Chain, kind: "address" | "scripthash", request: HttpRequest): HttpAnswer {
  const [, subject = "", what, page, after] = request.path;
  let hash = subject.toLowerCase();
  if (kind === "address") {
    const script = scriptOfAddress(subject);
    if (script === undefined) return text(400, "Invalid Bitcoin address");
    hash = scriptHash(script);
  } else if (!isHash(subject)) {
    return INVALID_HEX;
  }
  const waiting = () => [...chain.mempool.history.ofScript(hash)].toReversed().slice(0, WAITING_PER_PAGE);
  const confirmed = (last?: string) => {
    const newestFirst = [...chain.ledger.history.ofScript(hash)].toReversed();
    const start = last === undefined ? 0 : newestFirst.indexOf(last) + 1;
    return newestFirst.slice(start, start + CONFIRMED_PER_PAGE);
  };
  const shaped = (txids: string[]) =>
    json(
      200,
      txids.flatMap((txid) => {
        const entry = chain.transaction(txid);
        return entry === undefined ? [] : [shape(chain, entry)];
      }),
    );
  if (what === undefined) {
    return json(200, {
      [kind]: subject,
      chain_stats: stats(chain, chain.ledger.history.ofScript(hash), hash),
      mempool_stats: stats(chain, chain.mempool.history.ofScript(hash), hash),
    });
  }
  if (what === "utxo" && page === undefined) {
    return json(
      200,
      chain.unspent(hash, { withMempool: true }).map(({ txid, vout, valueSat }) => ({
        txid,
        vout,
        status: status(chain.blockOf(txid)),
        value: Number(valueSat),
      })),
    );
  }
  if (what !== "txs") return notFound("endpoint");
  if (page === undefined) return shaped([...waiting(), ...confirmed()]);
  if (page === "mempool") return shaped(waiting());
  if (page !== "chain") return notFound("endpoint");
  if (after !== undefined && !isHash(after)) return INVALID_HEX;
  return shaped(confirmed(after?.toLowerCase()));
}

function outspend(chain: Chain, txid: string, vout: number) {
  const spender = chain.spender(outpoint(txid, vout));
  const entry = spender === undefined ? undefined : chain.transaction(spender);
  if (entry === undefined) return { spent: false };
  const vin = entry.spent.findIndex((coin) => coin.txid === txid && coin.vout === vout);
  return { spent: true, txid: entry.txid, vin, status: status(chain.blockOf(entry.txid)) };
}

function transactionRoutes(chain: Chain, request: HttpRequest): HttpAnswer {
  const [, subject, what, index] = request.path;
  if (!isHash(subject)) return INVALID_HEX;
  const txid = subject.toLowerCase();
  const entry = chain.transaction(txid);
  if (what === "status" && entry === undefined) return json(200, { confirmed: false });
  if (entry === undefined) return notFound("Transaction");
  switch (what) {
    case undefined:
      return json(200, shape(chain, entry));
    case "hex":
      return text(200, Buffer.from(entry.raw).toString("hex"));
    case "raw":
      return { status: 200, contentType: "application/octet-stream", body: entry.raw };
    case "status":
      return json(200, status(chain.blockOf(txid)));
    case "outspends":
      return json(
        200,
        entry.transaction.outs.map((_, vout) => outspend(chain, txid, vout)),
      );
    case "outspend": {
      if (index === undefined || !/^\d{1,6}$/.test(index)) return text(400, "invalid digit found in string");
      if (Number(index) >= entry.transaction.outs.length) return json(200, { spent: false });
      return json(200, outspend(chain, txid, Number(index)));
    }
    default:
      return notFound("endpoint");
  }
}

function blockShape(chain: Chain, connected: ConnectedBlock) {
  const { block } = connected;
  return {
    id: connected.hash,
    height: connected.height,
    version: block.version,
    timestamp: block.timestamp,
    tx_count: block.transactions?.length ?? 0,
    size: connected.sizeBytes,
    weight: connected.weight,
    merkle_root: Buffer.from(block.merkleRoot ?? [])
      .reverse()
      .toString("hex"),
    previousblockhash: chain.ledger.byHeight(connected.height - 1)?.hash ?? null,
    mediantime: connected.medianTimeS,
    nonce: block.nonce,
    bits: block.bits,
    difficulty: 4.656542373906925e-10,
  };
}

function blockRoutes(chain: Chain, request: HttpRequest): HttpAnswer {
  const [, hash, what] = request.path;
  if (!isHash(hash)) return INVALID_HEX;
  const connected = chain.ledger.byHash(hash.toLowerCase());
  if (connected === undefined) return notFound("Block");
  switch (what) {
    case undefined:
      return json(200, blockShape(chain, connected));
    case "txids":
      return json(
        200,
        (connected.block.transactions ?? []).map((transaction) => transaction.getId()),
      );
    case "header":
      return text(200, connected.block.toHex(true));
    case "raw":
      return { status: 200, contentType: "application/octet-stream", body: connected.block.toBuffer() };
    case "status":
      return json(200, {
        in_best_chain: true,
        height: connected.height,
        next_best: chain.ledger.byHeight(connected.height + 1)?.hash ?? null,
      });
    default:
      return notFound("endpoint");
  }
}

function broadcast(chain: Chain, body: Buffer): HttpAnswer {
  const hex = body.toString("latin1").trim();
  if (!/^([0-9a-f]{2})+$/i.test(hex)) {
    return text(400, 'sendrawtransaction RPC error: {"code":-22,"message":"TX decode failed"}');
  }
  const submission = submit(chain, Buffer.from(hex, "hex"));
  if ("txid" in submission) return text(200, submission.txid);
  return text(400, `sendrawtransaction RPC error: ${JSON.stringify(submission)}`);
}

function feeEstimates(chain: Chain): HttpAnswer {
  const rateSatPerVb = chain.options.feeRateSatPerKvb / 1_000;
  return json(200, Object.fromEntries(FEE_TARGETS_BLOCKS.map((target) => [target, rateSatPerVb])));
}

/** Answers one Esplora request; undefined when the path is none of Esplora's. */
export function answerEsplora(chain: Chain, request: HttpRequest): HttpAnswer | undefined {
  const [head, second, third] = request.path;
  if (request.method === "POST")
    return head === "tx" && second === undefined ? broadcast(chain, request.body) : undefined;
  if (request.method !== "GET") return undefined;
  switch (head) {
    case "address":
    case "scripthash":
      return scriptRoutes(chain, head, request);
    case "tx":
      return transactionRoutes(chain, request);
    case "block":
      return blockRoutes(chain, request);
    case "block-height": {
      if (second === undefined || !/^\d{1,9}$/.test(second)) return text(400, "invalid digit found in string");
      const hash = chain.ledger.byHeight(Number(second))?.hash;
      return hash === undefined ? notFound("Block") : text(200, hash);
    }
    case "blocks":
      if (second === "tip" && third === "height") return text(200, String(chain.tip.height));
      return second === "tip" && third === "hash" ? text(200, chain.tip.hash) : undefined;
    case "mempool": {
      const entries = [...chain.mempool.entries()];
      return json(200, {
        count: entries.length,
        vsize: entries.reduce((sum, { vsizeVb }) => sum + vsizeVb, 0),
        total_fee: entries.reduce((sum, { feeSat }) => sum + Number(feeSat), 0),
        fee_histogram: [],
      });
    }
    case "fee-estimates":
      return feeEstimates(chain);
    default:
      return undefined;
  }
}
