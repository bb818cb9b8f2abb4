import { createHash } from "node:crypto";
import { z } from "zod";
import { Unavailable } from "../../crypto/fault.js";
import type {
  ChainSource,
  FoundOutput,
  Outpoint,
  TransactionStatus,
  UnspentOutput,
} from "../../wallet/chain-source.js";
import {
  BoundedHttp,
  DEFAULT_HTTP_BOUNDS,
  type HttpBounds,
  type HttpDependencies,
  isTransient,
} from "./bounded-http.js";
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
  valueSatShape,
  voutShape,
} from "./chain-answer.js";

const SOURCE = "esplora";
const MAX_OUTPUTS = 10_000;
const LOOKUPS_AT_ONCE = 4;

const statusShape = z
  .union([
    z.object({ confirmed: z.literal(true), block_height: heightShape, block_hash: txidShape }),
    z.object({ confirmed: z.literal(false) }).transform(() => ({ confirmed: false as const })),
  ])
  .transform((status) =>
    status.confirmed
      ? { confirmedHeight: status.block_height, blockHash: status.block_hash }
      : { confirmedHeight: 0, blockHash: "" },
  );
const unspentShape = z
  .array(z.object({ txid: txidShape, vout: voutShape, value: valueSatShape, status: statusShape }))
  .max(MAX_OUTPUTS);
const outspendShape = z.object({ spent: z.boolean() });
const transactionShape = z.object({ txid: txidShape, status: statusShape });
const estimatesShape = z.record(z.string().regex(/^\d{1,4}$/), z.number().positive());
const refusalShape = z.object({ code: z.number().int(), message: z.string() });

export interface EsploraOptions {
  /** Base URL; for public servers it ends in /api. */
  readonly url: string;
  readonly bounds?: HttpBounds;
}

/** Asks an Esplora server. Outputs are found by script hash: SHA-256 of the script, hex, not reversed. */
export class EsploraChainSource implements ChainSource {
  readonly #http: BoundedHttp;

  /** @throws InvalidInput "bad-chain-source-url" */
  constructor(options: EsploraOptions, dependencies: HttpDependencies) {
    const bounds = options.bounds ?? DEFAULT_HTTP_BOUNDS;
    this.#http = new BoundedHttp({ source: SOURCE, url: options.url, bounds }, dependencies);
  }

  async #text(path: string): Promise<string | undefined> {
    const { status, body } = await this.#http.send({ method: "GET", path, retryStatus: isTransient });
    if (status === 404) return undefined;
    if (status !== 200) {
      throw new Unavailable("chain-source-refuses", `${SOURCE} answered ${status}`, { source: SOURCE, status });
    }
    return Buffer.from(body).toString("utf8");
  }

  async #json<Shape extends z.ZodType>(path: string, shape: Shape): Promise<z.infer<Shape> | undefined> {
    const text = await this.#text(path);
    if (text === undefined) return undefined;
    const what = path.split("/").at(-1) ?? path;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      throw malformed(SOURCE, what, cause);
    }
    return checked(shape, value, { source: SOURCE, what });
  }

  async tipHeight(): Promise<number> {
    const text = await this.#text("/blocks/tip/height");
    const number = /^\d{1,10}$/.test(text?.trim() ?? "") ? Number(text) : undefined;
    return checked(heightShape, number, { source: SOURCE, what: "tip height" });
  }

  async unspentOutputs(scriptPubKey: Uint8Array): Promise<readonly UnspentOutput[]> {
    const hash = createHash("sha256").update(requireScript(scriptPubKey)).digest("hex");
    const outputs = await this.#json(`/scripthash/${hash}/utxo`, unspentShape);
    if (outputs === undefined) throw malformed(SOURCE, "utxo");
    if (new Set(outputs.map(({ txid, vout }) => `${txid}:${vout}`)).size !== outputs.length) {
      throw malformed(SOURCE, "utxo");
    }
    return outputs.map(({ txid, vout, value, status }) => ({
      txid,
      vout,
      valueSat: value,
      scriptPubKey,
      confirmedHeight: status.confirmedHeight,
    }));
  }

  async transactionStatus(txid: string): Promise<TransactionStatus> {
    // Not /tx/:txid/status: it answers "not confirmed" for a transaction that nobody knows.
    const found = await this.#json(`/tx/${requireTxid(txid)}`, transactionShape);
    if (found === undefined) return { known: false, confirmedHeight: 0, blockHash: "" };
    if (found.txid !== txid) throw malformed(SOURCE, "transaction");
    return { known: true, ...found.status };
  }

  async transaction(txid: string): Promise<Uint8Array | undefined> {
    const text = await this.#text(`/tx/${requireTxid(txid)}/hex`);
    if (text === undefined) return undefined;
    const raw = checked(rawTransactionShape, text.trim(), { source: SOURCE, what: "raw transaction" });
    authentic(raw, { source: SOURCE, txid });
    return raw;
  }

  async findUnspent(outpoints: readonly Outpoint[]): Promise<readonly (FoundOutput | undefined)[]> {
    const found: (FoundOutput | undefined)[] = [];
    for (let start = 0; start < outpoints.length; start += LOOKUPS_AT_ONCE) {
      const some = outpoints.slice(start, start + LOOKUPS_AT_ONCE);
      found.push(...(await Promise.all(some.map((outpoint) => this.#findOne(outpoint)))));
    }
    return found;
  }

  /** Value and script come from the transaction itself, which its txid authenticates; only the spentness is believed. */
  async #findOne({ txid, vout }: Outpoint): Promise<FoundOutput | undefined> {
    const [raw, outspend, status] = await Promise.all([
      this.transaction(txid),
      this.#json(`/tx/${requireTxid(txid)}/outspend/${vout}`, outspendShape),
      this.transactionStatus(txid),
    ]);
    const output = raw === undefined ? undefined : authentic(raw, { source: SOURCE, txid }).outs[vout];
    if (output === undefined) return undefined;
    if (outspend === undefined || outspend.spent || !status.known) return undefined;
    return { valueSat: output.value, scriptPubKey: output.script, confirmedHeight: status.confirmedHeight };
  }

  async feeRateSatPerKvb(targetBlocks: number): Promise<number> {
    const wanted = requireTarget(targetBlocks);
    const estimates = await this.#json("/fee-estimates", estimatesShape);
    const targets = Object.entries(estimates ?? {})
      .map(([target, rateSatPerVb]) => ({ target: Number(target), rateSatPerVb }))
      .sort((a, b) => a.target - b.target);
    // The slowest target that is still fast enough; when all are slower, the fastest.
    const chosen = targets.findLast(({ target }) => target <= wanted) ?? targets[0];
    if (chosen === undefined) {
      throw new Unavailable("no-fee-estimate", `${SOURCE} has no fee estimate`, { source: SOURCE });
    }
    const rate = Math.ceil(chosen.rateSatPerVb * 1_000);
    return checked(feeRateSatPerKvbShape, rate, { source: SOURCE, what: "fee estimate" });
  }

  async broadcast(transaction: Uint8Array): Promise<string> {
    const txid = requireTransaction(transaction).getId();
    const body = Buffer.from(transaction).toString("hex");
    const headers = { "content-type": "text/plain" };
    const reply = await this.#http.send({ method: "POST", path: "/tx", body, headers, retryStatus: isTransient });
    const text = Buffer.from(reply.body).toString("utf8").trim();
    if (reply.status === 200) {
      if (text !== txid) throw malformed(SOURCE, "broadcast txid");
      return txid;
    }
    const { code, message } = this.#refusal(text);
    if (code === -27 || /txn-already-(in-mempool|known)|already in (block chain|utxo set)/i.test(message)) return txid;
    // Missing inputs are also what a source says when the transaction is confirmed and its own outputs are spent.
    if (code === -25 && (await this.transactionStatus(txid)).known) return txid;
    throw refused(SOURCE, code, message);
  }

  /** Esplora passes its node's words on: `sendrawtransaction RPC error: {"code":-26,"message":"…"}`. */
  #refusal(text: string): { code: number; message: string } {
    try {
      return refusalShape.parse(JSON.parse(text.slice(text.indexOf("{"))));
    } catch {
      return { code: 0, message: text };
    }
  }
}
