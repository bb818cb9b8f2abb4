/** Bitcoin Core's JSON-RPC over the devnet chain: what a wallet's fallback asks for. Behaves like a node with -txindex. */
import { createHash, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import { InvalidInput } from "../../crypto/fault.js";
import type { Chain } from "./chain.js";
import { type Coin, outpoint, scriptHash } from "./coins.js";
import { addressOf, scriptOfAddress } from "./esplora.js";
import { type HttpAnswer, type HttpRequest, json, text } from "./loopback-http.js";
import type { SpendingTransaction } from "./mempool.js";
import { type OutputType, outputType } from "./policy.js";
import { disassemble } from "./script-text.js";
import { MAX_FEE_RATE_SAT_PER_KVB, submit } from "./submission.js";

const MAX_BATCH = 1_000;
const MAX_SCAN_SCRIPTS = 1_000;

/** An error that Bitcoin Core would answer, with its code. */
class RpcError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

const CORE_TYPE: Readonly<Record<OutputType, string>> = {
  empty: "nonstandard",
  op_return: "nulldata",
  p2pk: "pubkey",
  p2pkh: "pubkeyhash",
  p2sh: "scripthash",
  v0_p2wpkh: "witness_v0_keyhash",
  v0_p2wsh: "witness_v0_scripthash",
  v1_p2tr: "witness_v1_taproot",
  witness_unknown: "witness_unknown",
  unknown: "nonstandard",
};

/** Bitcoin Core writes amounts as decimal numbers of bitcoin; up to MAX_MONEY a double holds every satoshi. */
const btc = (amountSat: bigint): number => Number(amountSat) / 1e8;

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

function scriptShape(script: Uint8Array) {
  const address = addressOf(script);
  return {
    asm: disassemble(script),
    desc: address === undefined ? `raw(${hexOf(script)})` : `addr(${address})`,
    hex: hexOf(script),
    ...(address === undefined ? {} : { address }),
    type: CORE_TYPE[outputType(script)],
  };
}

const txidOf = (value: string): string => {
  if (value.length !== 64)
    throw new RpcError(-8, `parameter 1 must be of length 64 (not ${value.length}, for '${value}')`);
  if (!/^[0-9a-f]+$/i.test(value)) throw new RpcError(-8, `parameter 1 must be hexadecimal string (not '${value}')`);
  return value.toLowerCase();
};

/** Checks positional parameters; a tuple of zod schemas gives their types. */
function params<const Schemas extends readonly [] | readonly z.ZodType[]>(
  given: readonly unknown[],
  schemas: Schemas,
): { [Index in keyof Schemas]: z.infer<Schemas[Index]> } {
  if (given.length > schemas.length) throw new RpcError(-1, "too many parameters");
  return schemas.map((schema, index) => {
    const parsed = schema.safeParse(given[index] ?? undefined);
    if (!parsed.success) {
      const code = given.length <= index ? -1 : -3;
      throw new RpcError(code, `parameter ${index + 1}: ${parsed.error.issues[0]?.message ?? "wrong type"}`);
    }
    return parsed.data;
  }) as { [Index in keyof Schemas]: z.infer<Schemas[Index]> };
}

const hex = z.string().max(3_300_000);
const text64 = z.string().max(1_000);
const hash = text64.transform(txidOf);
const flag = z.union([z.boolean(), z.number().int()]).transform(Boolean).optional();

function rawBytes(value: string): Buffer {
  if (!/^([0-9a-f]{2})+$/i.test(value)) {
    throw new RpcError(-22, "TX decode failed. Make sure the tx has at least one input.");
  }
  return Buffer.from(value, "hex");
}

/** Fee rate limit in BTC/kvB, as a number or a decimal string; 0 means none. */
const feeRateLimit = z
  .union([z.number(), z.string().regex(/^\d{1,8}(\.\d{1,8})?$/)])
  .transform((value) => BigInt(Math.round(Number(value) * 1e8)))
  .refine((rate) => rate >= 0n, "fee rate must not be negative")
  .optional();

function verbose(chain: Chain, { transaction, txid, raw, spent }: SpendingTransaction) {
  const block = chain.blockOf(txid);
  return {
    txid,
    hash: hexOf(Buffer.from(transaction.getHash(true)).reverse()),
    version: transaction.version,
    size: raw.length,
    vsize: transaction.virtualSize(),
    weight: transaction.weight(),
    locktime: transaction.locktime,
    vin: transaction.ins.map((input) => ({
      ...(spent.length === 0
        ? { coinbase: hexOf(input.script) }
        : {
            txid: hexOf(Buffer.from(input.hash).reverse()),
            vout: input.index,
            scriptSig: { asm: disassemble(input.script), hex: hexOf(input.script) },
          }),
      ...(input.witness.length === 0 ? {} : { txinwitness: input.witness.map(hexOf) }),
      sequence: input.sequence,
    })),
    vout: transaction.outs.map(({ value, script }, n) => ({ value: btc(value), n, scriptPubKey: scriptShape(script) })),
    hex: hexOf(raw),
    ...(block === undefined
      ? {}
      : {
          blockhash: block.hash,
          confirmations: chain.tip.height - block.height + 1,
          time: block.block.timestamp,
          blocktime: block.block.timestamp,
        }),
  };
}

function txout(chain: Chain, coin: Coin | undefined) {
  if (coin === undefined) return null;
  return {
    bestblock: chain.tip.hash,
    confirmations: coin.confirmedHeight === 0 ? 0 : chain.tip.height - coin.confirmedHeight + 1,
    value: btc(coin.valueSat),
    scriptPubKey: scriptShape(coin.scriptPubKey),
    coinbase: coin.coinbase,
  };
}

const scanObject = z.union([z.string(), z.object({ desc: z.string() }).transform(({ desc }) => desc)]);

/** Scripts of `raw(<hex>)` and `addr(<address>)` descriptors, with or without a checksum. */
function scannedScript(descriptor: string): Uint8Array {
  const match = /^(raw|addr)\(([0-9a-zA-Z]{2,20000})\)(#[0-9a-z]{8})?$/.exec(descriptor);
  const [, kind, body = ""] = match ?? [];
  if (kind === "raw" && /^([0-9a-f]{2})+$/i.test(body)) return Buffer.from(body, "hex");
  const script = kind === "addr" ? scriptOfAddress(body) : undefined;
  if (script === undefined) throw new RpcError(-5, `'${descriptor.slice(0, 80)}' is not a valid descriptor function`);
  return script;
}

function scan(chain: Chain, given: readonly unknown[]) {
  const [action, objects] = params(given, [z.enum(["start", "abort", "status"]), z.array(scanObject).optional()]);
  if (action === "status") return null; // a scan is over before the answer is
  if (action === "abort") return false;
  if (objects === undefined) throw new RpcError(-1, "scanobjects argument is required for the start action");
  if (objects.length > MAX_SCAN_SCRIPTS) throw new RpcError(-8, `at most ${MAX_SCAN_SCRIPTS} scan objects`);
  const hashes = new Set(objects.map((descriptor) => scriptHash(scannedScript(descriptor))));
  const coins = [...hashes].flatMap((each) => chain.unspent(each, { withMempool: false }));
  return {
    success: true,
    txouts: coins.length,
    height: chain.tip.height,
    bestblock: chain.tip.hash,
    unspents: coins.map((coin) => ({
      txid: coin.txid,
      vout: coin.vout,
      scriptPubKey: hexOf(coin.scriptPubKey),
      desc: scriptShape(coin.scriptPubKey).desc,
      amount: btc(coin.valueSat),
      coinbase: coin.coinbase,
      height: coin.confirmedHeight,
      blockhash: chain.ledger.byHeight(coin.confirmedHeight)?.hash ?? "",
      confirmations: chain.tip.height - coin.confirmedHeight + 1,
    })),
    total_amount: btc(coins.reduce((sum, coin) => sum + coin.valueSat, 0n)),
  };
}

function blockHeader(chain: Chain, given: readonly unknown[]) {
  const [blockHash, long] = params(given, [hash, flag]);
  const connected = chain.ledger.byHash(blockHash);
  if (connected === undefined) throw new RpcError(-5, "Block not found");
  if (long === false) return connected.block.toHex(true);
  return {
    hash: connected.hash,
    confirmations: chain.tip.height - connected.height + 1,
    height: connected.height,
    version: connected.block.version,
    merkleroot: hexOf(Buffer.from(connected.block.merkleRoot ?? []).reverse()),
    time: connected.block.timestamp,
    mediantime: connected.medianTimeS,
    nonce: connected.block.nonce,
    bits: connected.block.bits.toString(16),
    nTx: connected.block.transactions?.length ?? 0,
    previousblockhash: chain.ledger.byHeight(connected.height - 1)?.hash,
    nextblockhash: chain.ledger.byHeight(connected.height + 1)?.hash,
  };
}

function rawTransaction(chain: Chain, given: readonly unknown[]) {
  const [txid, long] = params(given, [hash, flag, hash.optional()]);
  const entry = chain.transaction(txid);
  if (entry === undefined) {
    throw new RpcError(-5, "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.");
  }
  return long === true ? verbose(chain, entry) : hexOf(entry.raw);
}

function mempoolEntry(chain: Chain, given: readonly unknown[]) {
  const [txid] = params(given, [hash]);
  const entry = chain.mempool.get(txid);
  if (entry === undefined) throw new RpcError(-5, "Transaction not in mempool");
  const ancestors = chain.mempool.ancestors(entry.spent);
  const descendants = chain.mempool.withDescendants([txid]);
  return {
    vsize: entry.vsizeVb,
    weight: entry.transaction.weight(),
    time: entry.enteredS,
    height: chain.tip.height,
    descendantcount: descendants.size,
    ancestorcount: ancestors.size + 1,
    wtxid: hexOf(Buffer.from(entry.transaction.getHash(true)).reverse()),
    fees: { base: btc(entry.feeSat), modified: btc(entry.feeSat) },
    depends: [...ancestors].filter((parent) => entry.spent.some((coin) => coin.txid === parent)),
    "bip125-replaceable": true,
    unbroadcast: false,
  };
}

function testAccept(chain: Chain, given: readonly unknown[]) {
  const [raws, limit] = params(given, [z.array(hex), feeRateLimit]);
  if (raws.length !== 1) throw new RpcError(-8, "Array must contain exactly one transaction here.");
  const verdict = chain.judge(rawBytes(raws[0] ?? ""), { maxFeeRateSatPerKvb: limit ?? MAX_FEE_RATE_SAT_PER_KVB });
  if (verdict.accepted) {
    const { txid, transaction, vsizeVb, feeSat } = verdict.entry;
    const wtxid = hexOf(Buffer.from(transaction.getHash(true)).reverse());
    return [{ txid, wtxid, allowed: true, vsize: vsizeVb, fees: { base: btc(feeSat) } }];
  }
  if (verdict.code === -22) throw new RpcError(-22, verdict.reason);
  return [{ allowed: false, "reject-reason": verdict.reason, "reject-details": verdict.detail }];
}

function send(chain: Chain, given: readonly unknown[]) {
  const [raw, limit] = params(given, [hex, feeRateLimit]);
  const submission = submit(chain, rawBytes(raw), limit);
  if ("txid" in submission) return submission.txid;
  throw new RpcError(submission.code, submission.message);
}

function generate(chain: Chain, given: readonly unknown[]) {
  const [count, address] = params(given, [z.number().int(), text64]);
  const script = scriptOfAddress(address);
  if (script === undefined) throw new RpcError(-5, "Error: Invalid address");
  return chain.mine(count, script);
}

function blockHash(chain: Chain, given: readonly unknown[]) {
  const [height] = params(given, [z.number().int()]);
  const found = chain.ledger.byHeight(height)?.hash;
  if (found === undefined) throw new RpcError(-8, "Block height out of range");
  return found;
}

function unspentOutput(chain: Chain, given: readonly unknown[]) {
  const [txid, vout, withMempool] = params(given, [hash, z.number().int().nonnegative(), flag]);
  return txout(chain, chain.coin(outpoint(txid, vout), { withMempool: withMempool ?? true }));
}

type Method = (chain: Chain, given: readonly unknown[]) => unknown;

const METHODS: ReadonlyMap<string, Method> = new Map<string, Method>([
  [
    "getblockchaininfo",
    ({ tip }) => ({
      chain: "regtest",
      blocks: tip.height,
      headers: tip.height,
      bestblockhash: tip.hash,
      difficulty: 4.656542373906925e-10,
      time: tip.block.timestamp,
      mediantime: tip.medianTimeS,
      verificationprogress: 1,
      initialblockdownload: false,
      pruned: false,
      warnings: ["mpc-wallet devnet chain: no consensus node"],
    }),
  ],
  ["getblockcount", ({ tip }) => tip.height],
  ["getbestblockhash", ({ tip }) => tip.hash],
  ["getblockhash", blockHash],
  ["getblockheader", blockHeader],
  ["scantxoutset", scan],
  ["gettxout", unspentOutput],
  ["getrawtransaction", rawTransaction],
  ["getrawmempool", ({ mempool }) => [...mempool.entries()].map(({ txid }) => txid)],
  ["getmempoolentry", mempoolEntry],
  [
    "estimatesmartfee",
    (chain, given) => {
      const [blocks] = params(given, [z.number().int().min(1).max(1_008), text64.optional()]);
      return { feerate: chain.options.feeRateSatPerKvb / 1e8, blocks: Math.max(2, blocks) };
    },
  ],
  ["sendrawtransaction", send],
  ["testmempoolaccept", testAccept],
  ["generatetoaddress", generate],
]);

const call = z.object({
  id: z.union([z.string().max(1_000), z.number(), z.null()]).default(null),
  method: z.string(),
  params: z.array(z.unknown()).max(100).default([]),
});

interface RpcAnswer {
  readonly status: number;
  readonly body: { readonly result: unknown; readonly error: unknown; readonly id: unknown };
}

function answerCall(chain: Chain, request: unknown): RpcAnswer {
  const parsed = call.safeParse(request);
  const failed = (status: number, code: number, message: string, id: unknown): RpcAnswer => ({
    status,
    body: { result: null, error: { code, message }, id },
  });
  if (!parsed.success) return failed(400, -32600, "Invalid Request object", null);
  const { id, method, params: given } = parsed.data;
  const run = METHODS.get(method);
  if (run === undefined) return failed(404, -32601, "Method not found", id);
  try {
    return { status: 200, body: { result: run(chain, given), error: null, id } };
  } catch (cause) {
    if (cause instanceof RpcError) return failed(500, cause.code, cause.message, id);
    if (cause instanceof InvalidInput) return failed(500, -8, cause.message, id);
    throw cause;
  }
}

const digest = (value: string): Buffer => createHash("sha256").update(value).digest();

/** Answers one POST to Core's RPC; basic authentication is compared in constant time. */
export function answerCoreRpc(
  chain: Chain,
  credentials: { readonly user: string; readonly password: string },
  request: HttpRequest,
): HttpAnswer {
  const expected = `Basic ${Buffer.from(`${credentials.user}:${credentials.password}`).toString("base64")}`;
  if (!timingSafeEqual(digest(request.authorization), digest(expected))) {
    return { ...text(401, ""), headers: { "www-authenticate": 'Basic realm="jsonrpc"' } };
  }
  if (request.method !== "POST") return text(405, "JSONRPC server handles only POST requests");
  let body: unknown;
  try {
    body = JSON.parse(request.body.toString("utf8"));
  } catch {
    return json(500, { result: null, error: { code: -32700, message: "Parse error" }, id: null });
  }
  if (!Array.isArray(body)) {
    const answer = answerCall(chain, body);
    return json(answer.status, answer.body);
  }
  if (body.length > MAX_BATCH) return text(400, `at most ${MAX_BATCH} calls in a batch`);
  return json(
    200,
    body.map((each) => answerCall(chain, each).body),
  );
}
