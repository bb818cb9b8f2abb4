import { z } from "zod";
import { Unavailable } from "../../crypto/fault.js";
import type {
  ChainSource,
  FoundOutput,
  Outpoint,
  TransactionStatus,
  UnspentOutput,
} from "../../wallet/chain-source.js";
import { BoundedHttp, DEFAULT_HTTP_BOUNDS, type HttpBounds, type HttpDependencies } from "./bounded-http.js";
import {
  authentic,
  checked,
  feeRateSatPerKvbShape,
  heightShape,
  malformed,
  rawTransactionShape,
  refused,
  requireScript,
  requireTarget,
  requireTransaction,
  requireTxid,
  txidShape,
  voutShape,
} from "./chain-answer.js";

const SOURCE = "bitcoin-core";
const BATCH = 100;
const MAX_OUTPUTS = 10_000;
const MAX_SCANS_WAITING = 16;

const RPC_INVALID_ADDRESS_OR_KEY = -5;
const RPC_VERIFY_ALREADY_IN_CHAIN = -27;
/** Deserialisation, verification, rejection: verdicts on the transaction, not trouble of the node. */
const REFUSALS: ReadonlySet<number> = new Set([-22, -25, -26]);

const replyShape = z.object({
  id: z.union([z.number(), z.string(), z.null()]),
  result: z.unknown().optional(),
  error: z.object({ code: z.number().int(), message: z.string() }).nullish(),
});

/** Bitcoin as a JSON number with eight decimals; up to MAX_MONEY a double holds every satoshi. */
const btcShape = z
  .number()
  .min(0)
  .max(21_000_000)
  .refine((btc) => Math.abs(btc * 1e8 - Math.round(btc * 1e8)) < 0.01, "more than eight decimals")
  .transform((btc) => BigInt(Math.round(btc * 1e8)));
const scriptShape = z
  .string()
  .regex(/^([0-9a-f]{2}){0,10000}$/)
  .transform((hex) => new Uint8Array(Buffer.from(hex, "hex")));

const scanShape = z.object({
  success: z.literal(true),
  unspents: z
    .array(
      z.object({ txid: txidShape, vout: voutShape, scriptPubKey: scriptShape, amount: btcShape, height: heightShape }),
    )
    .max(MAX_OUTPUTS),
});
const outputShape = z
  .object({
    bestblock: txidShape,
    confirmations: heightShape,
    value: btcShape,
    scriptPubKey: z.object({ hex: scriptShape }),
  })
  .nullable();
const verboseShape = z.object({ txid: txidShape, blockhash: txidShape.optional() });
const headerShape = z.object({ height: heightShape, confirmations: z.number().int() });
const estimateShape = z.object({ feerate: z.number().positive().max(0.1).optional() });
const txidsShape = z.array(txidShape);

interface RpcCall {
  readonly method: string;
  readonly params: readonly unknown[];
}

/** What Bitcoin Core answered instead of a result. */
class CoreError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export interface CoreRpcOptions {
  readonly url: string;
  readonly user: string;
  readonly password: string;
  /** A mempool with more transactions is not searched, and unconfirmed outputs are left out then. Default 300. */
  readonly mempoolSearchLimit?: number;
  readonly bounds?: HttpBounds;
}

/**
 * Asks a Bitcoin Core node that has no wallet and no address index: `scantxoutset` finds a script's confirmed outputs,
 * `gettxout` tells which of them the mempool spends. On mainnet a scan takes about a minute, longer than the time limit
 * allows on slow disks: this source is the fallback, and its `findUnspent` (fast) is what checks another source.
 * Transactions in blocks are found when the node runs with -txindex=1.
 */
export class CoreRpcChainSource implements ChainSource {
  readonly #http: BoundedHttp;
  readonly #authorization: string;
  readonly #mempoolSearchLimit: number;
  /** Core runs one scan at a time and refuses a second one. */
  #scans: Promise<unknown> = Promise.resolve();
  #scansWaiting = 0;

  /** @throws InvalidInput "bad-chain-source-url" */
  constructor(options: CoreRpcOptions, dependencies: HttpDependencies) {
    // A scan of the whole UTXO set may take all the time there is.
    const bounds = options.bounds ?? { ...DEFAULT_HTTP_BOUNDS, attemptTimeoutMs: DEFAULT_HTTP_BOUNDS.timeoutMs };
    this.#http = new BoundedHttp({ source: SOURCE, url: options.url, bounds }, dependencies);
    this.#authorization = `Basic ${Buffer.from(`${options.user}:${options.password}`).toString("base64")}`;
    this.#mempoolSearchLimit = options.mempoolSearchLimit ?? 300;
  }

  /** Sends one call or a batch. Core answers errors of a single call with status 500 and a JSON body. */
  async #post(content: unknown): Promise<unknown> {
    const { status, body } = await this.#http.send({
      method: "POST",
      path: "",
      body: JSON.stringify(content),
      headers: { authorization: this.#authorization, "content-type": "application/json" },
      retryStatus: (code) => code === 429 || code > 500,
    });
    if (status === 401 || status === 403) {
      throw new Unavailable("chain-source-unauthorized", `${SOURCE} refuses our credentials`, {
        source: SOURCE,
        status,
      });
    }
    try {
      return JSON.parse(Buffer.from(body).toString("utf8"));
    } catch (cause) {
      throw malformed(SOURCE, "answer", cause);
    }
  }

  #result(reply: z.infer<typeof replyShape>): unknown {
    if (reply.error != null) throw new CoreError(reply.error.code, reply.error.message);
    return reply.result;
  }

  async #call({ method, params }: RpcCall): Promise<unknown> {
    const reply = await this.#post({ jsonrpc: "1.0", id: 0, method, params });
    return this.#result(checked(replyShape, reply, { source: SOURCE, what: method }));
  }

  async #ask<Shape extends z.ZodType>(call: RpcCall, shape: Shape): Promise<z.infer<Shape>> {
    try {
      return checked(shape, await this.#call(call), { source: SOURCE, what: call.method });
    } catch (fault) {
      throw fault instanceof CoreError ? this.#trouble(call.method, fault) : fault;
    }
  }

  #trouble(method: string, { code, message }: CoreError): Unavailable {
    const facts = { source: SOURCE, method, rpcCode: code };
    return new Unavailable("chain-source-refuses", `${SOURCE}: ${method}: ${message.slice(0, 300)}`, facts);
  }

  /** Undefined stands for "no such transaction". */
  async #askKnown<Shape extends z.ZodType>(call: RpcCall, shape: Shape): Promise<z.infer<Shape> | undefined> {
    try {
      return checked(shape, await this.#call(call), { source: SOURCE, what: call.method });
    } catch (fault) {
      if (!(fault instanceof CoreError)) throw fault;
      if (fault.code === RPC_INVALID_ADDRESS_OR_KEY) return undefined;
      throw this.#trouble(call.method, fault);
    }
  }

  /** Many calls of one method; an entry is undefined when its call failed with "no such transaction". */
  async #askAll<Shape extends z.ZodType>(
    method: string,
    paramsOfEach: readonly (readonly unknown[])[],
    shape: Shape,
  ): Promise<(z.infer<Shape> | undefined)[]> {
    const results: (z.infer<Shape> | undefined)[] = [];
    for (let start = 0; start < paramsOfEach.length; start += BATCH) {
      const some = paramsOfEach.slice(start, start + BATCH);
      const calls = some.map((params, id) => ({ jsonrpc: "1.0", id, method, params }));
      const where = { source: SOURCE, what: method };
      const replies = checked(z.array(replyShape).length(some.length), await this.#post(calls), where);
      const byId = new Map(replies.map((reply) => [reply.id, reply]));
      for (const id of some.keys()) {
        const reply = byId.get(id);
        if (reply === undefined) throw malformed(SOURCE, method);
        if (reply.error?.code === RPC_INVALID_ADDRESS_OR_KEY) results.push(undefined);
        else if (reply.error != null) throw this.#trouble(method, new CoreError(reply.error.code, reply.error.message));
        else results.push(checked(shape, reply.result, where));
      }
    }
    return results;
  }

  tipHeight(): Promise<number> {
    return this.#ask({ method: "getblockcount", params: [] }, heightShape);
  }

  async unspentOutputs(scriptPubKey: Uint8Array): Promise<readonly UnspentOutput[]> {
    const script = Buffer.from(requireScript(scriptPubKey));
    const scanned = await this.#scan(script);
    if (scanned.unspents.some((output) => !script.equals(output.scriptPubKey))) throw malformed(SOURCE, "scantxoutset");
    const confirmed = scanned.unspents.map(({ txid, vout, amount, height }) => ({
      txid,
      vout,
      valueSat: amount,
      scriptPubKey,
      confirmedHeight: height,
    }));
    const candidates = [...confirmed, ...(await this.#waitingOutputs(script))];
    const found = await this.findUnspent(candidates);
    return candidates.filter((_, index) => found[index] !== undefined);
  }

  async #scan(script: Buffer): Promise<z.infer<typeof scanShape>> {
    if (this.#scansWaiting >= MAX_SCANS_WAITING) {
      throw new Unavailable("chain-source-overloaded", `${SOURCE}: too many scans wait`, { source: SOURCE });
    }
    const params = ["start", [`raw(${script.toString("hex")})`]];
    const scan = this.#scans.then(() => this.#ask({ method: "scantxoutset", params }, scanShape));
    this.#scans = scan.catch(() => undefined); // the caller hears of it; the next scan must not
    this.#scansWaiting++;
    try {
      return await scan;
    } finally {
      this.#scansWaiting--;
    }
  }

  async #waitingOutputs(script: Buffer): Promise<UnspentOutput[]> {
    const txids = await this.#ask({ method: "getrawmempool", params: [] }, txidsShape);
    if (txids.length > this.#mempoolSearchLimit) return [];
    const calls = txids.map((txid) => [txid, false]);
    const raws = await this.#askAll("getrawtransaction", calls, rawTransactionShape);
    return txids.flatMap((txid, index) => {
      const raw = raws[index];
      const outputs = raw === undefined ? [] : authentic(raw, { source: SOURCE, txid }).outs;
      return outputs.flatMap((output, vout) =>
        script.equals(output.script)
          ? [{ txid, vout, valueSat: output.value, scriptPubKey: output.script, confirmedHeight: 0 }]
          : [],
      );
    });
  }

  async findUnspent(outpoints: readonly Outpoint[]): Promise<readonly (FoundOutput | undefined)[]> {
    if (outpoints.length === 0) return [];
    const calls = outpoints.map(({ txid, vout }) => [requireTxid(txid), vout, true]);
    const [tip, outputs] = [await this.tipHeight(), await this.#askAll("gettxout", calls, outputShape)];
    return outputs.map((output) =>
      output == null
        ? undefined
        : {
            valueSat: output.value,
            scriptPubKey: output.scriptPubKey.hex,
            confirmedHeight: output.confirmations === 0 ? 0 : Math.max(1, tip - output.confirmations + 1),
          },
    );
  }

  async transactionStatus(txid: string): Promise<TransactionStatus> {
    const params = [requireTxid(txid), true];
    const found = await this.#askKnown({ method: "getrawtransaction", params }, verboseShape);
    if (found === undefined) return { known: false, confirmedHeight: 0, blockHash: "" };
    if (found.txid !== txid) throw malformed(SOURCE, "getrawtransaction");
    const waiting = { known: true, confirmedHeight: 0, blockHash: "" };
    if (found.blockhash === undefined) return waiting;
    const header = await this.#askKnown({ method: "getblockheader", params: [found.blockhash, true] }, headerShape);
    // Negative confirmations: the block left the chain while we asked.
    if (header === undefined || header.confirmations < 1) return waiting;
    return { known: true, confirmedHeight: header.height, blockHash: found.blockhash };
  }

  async transaction(txid: string): Promise<Uint8Array | undefined> {
    const params = [requireTxid(txid), false];
    const raw = await this.#askKnown({ method: "getrawtransaction", params }, rawTransactionShape);
    if (raw !== undefined) authentic(raw, { source: SOURCE, txid });
    return raw;
  }

  async feeRateSatPerKvb(targetBlocks: number): Promise<number> {
    const params = [requireTarget(targetBlocks)];
    const { feerate } = await this.#ask({ method: "estimatesmartfee", params }, estimateShape);
    if (feerate === undefined) {
      throw new Unavailable("no-fee-estimate", `${SOURCE} has no fee estimate`, { source: SOURCE });
    }
    // Rounded to the satoshi before the ceiling: 0.00002 * 1e8 is a little more than 2000.
    const rate = Math.ceil(Number((feerate * 1e8).toFixed(3)));
    return checked(feeRateSatPerKvbShape, rate, { source: SOURCE, what: "fee estimate" });
  }

  async broadcast(transaction: Uint8Array): Promise<string> {
    const txid = requireTransaction(transaction).getId();
    const method = "sendrawtransaction";
    try {
      const answer = await this.#call({ method, params: [Buffer.from(transaction).toString("hex")] });
      if (answer !== txid) throw malformed(SOURCE, method);
      return txid;
    } catch (fault) {
      if (!(fault instanceof CoreError)) throw fault;
      if (fault.code === RPC_VERIFY_ALREADY_IN_CHAIN) return txid;
      if (fault.code === -25 && (await this.transactionStatus(txid)).known) return txid;
      throw REFUSALS.has(fault.code) ? refused(SOURCE, fault.code, fault.message) : this.#trouble(method, fault);
    }
  }
}
