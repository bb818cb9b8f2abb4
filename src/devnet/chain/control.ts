/** Devnet's own routes: what a real chain has no button for. */
import { z } from "zod";
import { InvalidInput } from "../../crypto/fault.js";
import type { Chain } from "./chain.js";
import { scriptOfAddress } from "./esplora.js";
import type { Faucet } from "./faucet.js";
import { type HttpAnswer, type HttpRequest, json } from "./loopback-http.js";

const satoshis = z
  .union([z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER), z.string().regex(/^\d{1,16}$/)])
  .transform((value) => BigInt(value));
const mineRequest = z.strictObject({ blocks: z.number().int().default(1), address: z.string().optional() });
const faucetRequest = z.strictObject({
  address: z.string(),
  amountSat: satoshis,
  /** Blocks to mine after the payment. */
  blocks: z.number().int().nonnegative().default(0),
});
const invalidateRequest = z.strictObject({ blocks: z.number().int().positive().max(100).default(1) });

function parse<Schema extends z.ZodType>(schema: Schema, body: Buffer): z.infer<Schema> {
  let value: unknown;
  try {
    value = body.length === 0 ? {} : JSON.parse(body.toString("utf8"));
  } catch (cause) {
    throw new InvalidInput("bad-json", "the body is not JSON", {}, cause);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new InvalidInput("bad-request", `${issue?.path.join(".") || "body"}: ${issue?.message ?? "wrong shape"}`);
}

function scriptOf(address: string): Uint8Array {
  const script = scriptOfAddress(address);
  if (script === undefined) throw new InvalidInput("bad-address", "address: no regtest address");
  return script;
}

/** Answers one request below /devnet; undefined when there is no such route. */
export function answerControl(chain: Chain, faucet: Faucet, request: HttpRequest): HttpAnswer | undefined {
  const [head, action, more] = request.path;
  if (head !== "devnet" || more !== undefined) return undefined;
  if (request.method === "GET" && action === "info") {
    return json(200, { notice: NOTICE, network: "regtest", height: chain.tip.height, hash: chain.tip.hash });
  }
  if (request.method !== "POST") return undefined;
  switch (action) {
    case "mine": {
      const { blocks, address } = parse(mineRequest, request.body);
      const hashes = chain.mine(blocks, address === undefined ? faucet.scriptPubKey : scriptOf(address));
      return json(200, { height: chain.tip.height, hashes });
    }
    case "faucet": {
      const { address, amountSat, blocks } = parse(faucetRequest, request.body);
      const txid = faucet.pay(scriptOf(address), amountSat);
      if (blocks > 0) chain.mine(blocks, faucet.scriptPubKey);
      return json(200, { txid, height: chain.tip.height });
    }
    case "invalidate-tip": {
      const { blocks } = parse(invalidateRequest, request.body);
      const hashes = Array.from({ length: blocks }, () => chain.invalidateTip());
      return json(200, { height: chain.tip.height, hashes });
    }
    default:
      return undefined;
  }
}

/** Said at the start and on /devnet/info. */
export const NOTICE =
  "This is a development chain, not a Bitcoin consensus node: one process, no peers, worthless coins, and scripts judged " +
  "by bitcore-lib with its Schnorr check replaced.";
