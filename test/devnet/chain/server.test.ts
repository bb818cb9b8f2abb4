import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { Block, Transaction } from "bitcoinjs-lib";
import { scriptHash } from "../../../src/devnet/chain/coins.js";
import { RPC, runningChain } from "./running-chain.js";
import { coinOf, KeyWallet } from "./spends.js";

const elsewhere = new KeyWallet("elsewhere");

interface Reply {
  readonly status: number;
  readonly text: string;
  readonly json: () => unknown;
}

async function get(url: string, init?: RequestInit): Promise<Reply> {
  const response = await fetch(url, init);
  const text = await response.text();
  return { status: response.status, text, json: () => JSON.parse(text) as unknown };
}

const post = (url: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) =>
  get(url, { method: "POST", body, headers });

describe("devnet chain server: Esplora", () => {
  const server = runningChain();
  const url = (path: string) => server().esploraUrl + path;
  const fund = async (address: string, amountSat: number, blocks = 1) => {
    const reply = await post(url("/devnet/faucet"), JSON.stringify({ address, amountSat, blocks }));
    assert.equal(reply.status, 200, reply.text);
    return (reply.json() as { txid: string }).txid;
  };

  it("shows a payment from the mempool to its confirmation, and the spend of its output", async () => {
    const wallet = new KeyWallet("esplora wallet");
    const txid = await fund(wallet.address, 70_000, 0);
    const utxo = `/address/${wallet.address}/utxo`;
    const waiting = [{ txid, vout: 0, status: { confirmed: false }, value: 70_000 }];
    assert.deepEqual((await get(url(utxo))).json(), waiting);
    assert.deepEqual((await get(url(`/scripthash/${scriptHash(wallet.scriptPubKey)}/utxo`))).json(), waiting);
    await post(url("/devnet/mine"), "");
    const height = Number((await get(url("/blocks/tip/height"))).text);
    const hash = (await get(url("/blocks/tip/hash"))).text;
    const status = {
      confirmed: true,
      block_height: height,
      block_hash: hash,
      block_time: server().chain.tip.block.timestamp,
    };
    assert.deepEqual((await get(url(`/tx/${txid}/status`))).json(), status);
    assert.deepEqual((await get(url(utxo))).json(), [{ ...waiting[0], status }]);
    assert.equal((await get(url(`/block-height/${height}`))).text, hash);
    const block = (await get(url(`/block/${hash}`))).json() as Record<string, unknown>;
    assert.equal(block["id"], hash);
    assert.equal(block["tx_count"], 2);
    const header = (await get(url(`/block/${hash}/header`))).text;
    assert.equal(Block.fromHex(header).getId(), hash);

    const coin = coinOf(server().chain, txid, wallet.scriptPubKey);
    const spend = wallet.spend([coin], [{ script: elsewhere.scriptPubKey, amountSat: 69_000n }]);
    const sent = await post(url("/tx"), spend.toHex());
    assert.deepEqual([sent.status, sent.text], [200, spend.getId()]);
    assert.deepEqual((await post(url("/tx"), spend.toHex())).text, spend.getId(), "sending again is a success");
    const outspends = (await get(url(`/tx/${txid}/outspends`))).json() as unknown[];
    assert.deepEqual(outspends[0], { spent: true, txid: spend.getId(), vin: 0, status: { confirmed: false } });
    assert.deepEqual((await get(url(`/tx/${txid}/outspend/0`))).json(), outspends[0]);
    const shown = (await get(url(`/tx/${spend.getId()}`))).json() as Record<string, unknown>;
    assert.deepEqual([shown["fee"], shown["weight"], shown["size"]], [1_000, spend.weight(), spend.byteLength()]);
    assert.equal((await get(url(`/tx/${spend.getId()}/hex`))).text, spend.toHex());
    const raw = await (await fetch(url(`/tx/${spend.getId()}/raw`))).arrayBuffer();
    assert.equal(Transaction.fromBuffer(new Uint8Array(raw)).getId(), spend.getId());
    const history = (await get(url(`/address/${wallet.address}/txs`))).json() as { txid: string }[];
    assert.deepEqual(
      history.map((each) => each.txid),
      [spend.getId(), txid],
    );
    const summary = (await get(url(`/address/${wallet.address}`))).json();
    const stats = { funded_txo_count: 0, funded_txo_sum: 0, spent_txo_count: 0, spent_txo_sum: 0, tx_count: 1 };
    assert.deepEqual(summary, {
      address: wallet.address,
      chain_stats: { ...stats, funded_txo_count: 1, funded_txo_sum: 70_000 },
      mempool_stats: { ...stats, spent_txo_count: 1, spent_txo_sum: 70_000 },
    });
    await post(url("/devnet/mine"), "{}");
    const again = await post(url("/tx"), spend.toHex());
    assert.equal(again.status, 400);
    assert.match(again.text, /"code":-27,"message":"Transaction outputs already in utxo set"/);
  });

  it("refuses a bad transaction with Esplora's frame around Core's words", async () => {
    const wallet = new KeyWallet("esplora refusals");
    const coin = coinOf(server().chain, await fund(wallet.address, 70_000), wallet.scriptPubKey);
    const free = wallet.spend([coin], [{ script: elsewhere.scriptPubKey, amountSat: 70_000n }]);
    const reply = await post(url("/tx"), free.toHex());
    assert.equal(reply.status, 400);
    assert.equal(reply.text, 'sendrawtransaction RPC error: {"code":-26,"message":"min relay fee not met, 0 < 110"}');
    const missing = wallet.spend([{ ...coin, vout: 9 }], [{ script: elsewhere.scriptPubKey, amountSat: 60_000n }]);
    assert.match(
      (await post(url("/tx"), missing.toHex())).text,
      /"code":-25,"message":"bad-txns-inputs-missingorspent"/,
    );
  });

  it("answers bad requests with 4xx and a text", async () => {
    const zero = "0".repeat(64);
    const cases: readonly (readonly [string, number, RegExp])[] = [
      ["/tx/xyz", 400, /Invalid hex string/],
      [`/tx/${zero}`, 404, /Transaction not found/],
      [`/tx/${zero}/hex`, 404, /Transaction not found/],
      [`/block/${zero}`, 404, /Block not found/],
      ["/block-height/99999999", 404, /Block not found/],
      ["/block-height/-1", 400, /invalid digit/],
      ["/address/bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4/utxo", 400, /Invalid Bitcoin address/],
      ["/address/nonsense/utxo", 400, /Invalid Bitcoin address/],
      ["/scripthash/12/utxo", 400, /Invalid hex string/],
      ["/nothing/here", 404, /endpoint/],
      ["/%ff", 400, /does not decode/],
      ["/devnet/mine", 404, /endpoint/],
    ];
    for (const [path, status, words] of cases) {
      const reply = await get(url(path));
      assert.equal(reply.status, status, path);
      assert.match(reply.text, words, path);
    }
    const posts: readonly (readonly [string, string, number])[] = [
      ["/tx", "", 400],
      ["/tx", "zz", 400],
      ["/tx", "00".repeat(600_000), 413],
      ["/devnet/mine", "{", 400],
      ["/devnet/mine", '{"blocks":0}', 400],
      ["/devnet/mine", '{"blocks":1001}', 400],
      ["/devnet/mine", '{"blocks":"1"}', 400],
      ["/devnet/mine", "[]", 400],
      ["/devnet/faucet", "{}", 400],
      ["/devnet/faucet", `{"address":"${elsewhere.address}","amountSat":1}`, 400],
      ["/devnet/faucet", `{"address":"${elsewhere.address}","amountSat":1.5}`, 400],
      ["/devnet/faucet", `{"address":"${elsewhere.address}","amountSat":-5}`, 400],
      ["/devnet/faucet", `{"address":"${elsewhere.address}","amountSat":"2100000000000000"}`, 503],
      ["/devnet/faucet", '{"address":"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4","amountSat":1000}', 400],
    ];
    for (const [path, body, status] of posts)
      assert.equal((await post(url(path), body)).status, status, path + body.slice(0, 80));
  });

  it("survives 400 random requests", async () => {
    const words = [
      "tx",
      "address",
      "block",
      "scripthash",
      "utxo",
      "txs",
      "devnet",
      "mine",
      "-1",
      "%00",
      "ff".repeat(32),
      elsewhere.address,
      "é",
      "..",
      "chain",
      "outspend",
    ];
    let state = 12_345;
    const next = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % below;
    };
    for (let round = 0; round < 400; round++) {
      const path = Array.from({ length: 1 + next(5) }, () => words[next(words.length)]).join("/");
      const body = Uint8Array.from({ length: next(200) }, () => next(256));
      const reply = next(2) === 0 ? await get(url(`/${path}`)) : await post(url(`/${path}`), body);
      assert.ok(reply.status < 500, `${path}: ${reply.status}`);
    }
    assert.equal((await get(url("/blocks/tip/height"))).status, 200);
  });

  it("a request that is torn off does no harm", async () => {
    const { port } = new URL(server().esploraUrl);
    const socket = connect(Number(port), "127.0.0.1");
    await once(socket, "connect");
    socket.write("POST /tx HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc");
    socket.destroy();
    await once(socket, "close");
    assert.equal((await get(url("/blocks/tip/height"))).status, 200);
  });
});

describe("devnet chain server: Core RPC", () => {
  const server = runningChain();
  const authorization = `Basic ${Buffer.from(`${RPC.user}:${RPC.password}`).toString("base64")}`;
  const rpc = async (method: string, ...params: unknown[]) => {
    const reply = await post(server().rpcUrl, JSON.stringify({ id: 7, method, params }), { authorization });
    return reply.json() as { id: number; result: never; error: null | { code: number; message: string } };
  };

  it("mines, finds, judges and takes transactions", async () => {
    const wallet = new KeyWallet("rpc wallet");
    const txid = server().faucet.pay(wallet.scriptPubKey, 100_000n);
    const { result: entry } = await rpc("getmempoolentry", txid);
    assert.equal(entry["ancestorcount"], 1);
    const { result: hashes } = await rpc("generatetoaddress", 2, elsewhere.address);
    assert.equal((await rpc("getbestblockhash")).result, hashes[1]);
    const script = Buffer.from(wallet.scriptPubKey).toString("hex");
    for (const object of [`raw(${script})`, { desc: `addr(${wallet.address})` }]) {
      const { result } = await rpc("scantxoutset", "start", [object]);
      assert.equal(result["total_amount"], 0.001);
      assert.equal((result["unspents"] as { txid: string }[])[0]?.txid, txid);
    }
    const out = (await rpc("gettxout", txid, 0)).result;
    assert.deepEqual([out["confirmations"], out["value"]], [2, 0.001]);
    const coin = coinOf(server().chain, txid, wallet.scriptPubKey);
    const spend = wallet.spend([coin], [{ script: elsewhere.scriptPubKey, amountSat: 99_000n }]);
    const [judged] = (await rpc("testmempoolaccept", [spend.toHex()])).result as [Record<string, unknown>];
    assert.deepEqual([judged["allowed"], judged["fees"]], [true, { base: 0.00001 }]);
    assert.equal((await rpc("sendrawtransaction", spend.toHex())).result, spend.getId());
    assert.equal((await rpc("gettxout", txid, 0)).result, null);
    assert.notEqual((await rpc("gettxout", txid, 0, false)).result, null);
    assert.equal((await rpc("getrawtransaction", spend.getId())).result, spend.toHex());
    const verbose = (await rpc("getrawtransaction", txid, true)).result;
    assert.deepEqual([verbose["confirmations"], verbose["blockhash"]], [2, hashes[0]]);
    assert.equal((await rpc("getblockheader", hashes[0])).result["height"], coin.confirmedHeight);
    assert.deepEqual((await rpc("getrawmempool")).result, [spend.getId()]);
    assert.equal((await rpc("estimatesmartfee", 6)).result["feerate"], 0.00002345);
    const info = (await rpc("getblockchaininfo")).result;
    assert.deepEqual([info["chain"], info["blocks"]], ["regtest", server().chain.tip.height]);
  });

  it("answers mistakes with Core's codes", async () => {
    const zero = "0".repeat(64);
    const cases: readonly (readonly [number, string, ...unknown[]])[] = [
      [-32601, "walletpassphrase"],
      [-5, "getrawtransaction", zero],
      [-5, "getmempoolentry", zero],
      [-5, "getblockheader", zero],
      [-8, "getrawtransaction", "12"],
      [-8, "getblockhash", 10_000_000],
      [-1, "getrawtransaction"],
      [-1, "getrawtransaction", zero, true, zero, 1],
      [-3, "gettxout", zero, "0"],
      [-5, "scantxoutset", "start", ["pkh(00)"]],
      [-22, "sendrawtransaction", "00"],
      [-5, "generatetoaddress", 1, "nowhere"],
      [-8, "generatetoaddress", 5_000, elsewhere.address],
    ];
    for (const [code, method, ...params] of cases)
      assert.equal((await rpc(method, ...params)).error?.code, code, method);
  });

  it("survives 500 random calls", async () => {
    const methods = [
      "getblockhash",
      "scantxoutset",
      "gettxout",
      "getrawtransaction",
      "sendrawtransaction",
      "testmempoolaccept",
      "generatetoaddress",
      "estimatesmartfee",
      "getmempoolentry",
      "getblockheader",
      "toString",
      "__proto__",
    ];
    const values = [
      null,
      -1,
      1.5,
      1e300,
      "",
      "start",
      "zz",
      "00".repeat(32),
      [],
      ["raw(00)"],
      [null],
      {},
      { desc: 5 },
      true,
      elsewhere.address,
    ];
    let state = 99;
    const next = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % below;
    };
    for (let round = 0; round < 500; round++) {
      const params = Array.from({ length: next(4) }, () => values[next(values.length)]);
      const body = JSON.stringify({ id: round, method: methods[next(methods.length)], params });
      const reply = await post(server().rpcUrl, body, { authorization });
      assert.notEqual((reply.json() as { id: unknown }).id, undefined, `${body}: ${reply.text}`);
    }
    assert.equal((await rpc("getblockcount")).error, null);
  });

  it("wants its password, and takes batches", async () => {
    const call = JSON.stringify({ method: "getblockcount" });
    assert.equal((await post(server().rpcUrl, call)).status, 401);
    const wrong = `Basic ${Buffer.from("devnet:guess").toString("base64")}`;
    assert.equal((await post(server().rpcUrl, call, { authorization: wrong })).status, 401);
    assert.equal((await get(server().rpcUrl, { headers: { authorization } })).status, 405);
    assert.equal((await post(server().rpcUrl, "{", { authorization })).status, 500);
    const batch = [{ id: 1, method: "getblockcount" }, { id: 2, method: "nothing" }, 5];
    const replies = (await post(server().rpcUrl, JSON.stringify(batch), { authorization })).json() as { id: unknown }[];
    assert.deepEqual(
      replies.map(({ id }) => id),
      [1, 2, null],
    );
  });
});

describe("devnet chain process", () => {
  const start = (...args: string[]) => spawn(process.execPath, ["dist/src/devnet/chain/main.js", ...args]);

  it("prints one JSON line when it listens, says that it is no consensus node, and exits with 0 on SIGTERM", async () => {
    const child = start("--port", "0", "--rpc-password", "secret", "--block-interval-ms", "50");
    let notice = "";
    child.stderr.on("data", (chunk: Buffer) => {
      notice += chunk.toString();
    });
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    const ready = JSON.parse(line) as { event: string; esploraUrl: string; rpcUrl: string; height: number };
    assert.equal(ready.event, "listening");
    const height = async () => Number((await get(`${ready.esploraUrl}/blocks/tip/height`)).text);
    while ((await height()) <= ready.height) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGTERM");
    const [code] = await once(child, "exit");
    assert.equal(code, 0);
    assert.match(notice, /not a Bitcoin consensus node/);
  });

  it("exits with 2 and its usage on a bad option", async () => {
    for (const args of [["--port", "70000"], ["--port", "x"], ["--nonsense"]]) {
      const child = start(...args);
      const chunks: Buffer[] = [];
      child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk));
      const [code] = await once(child, "exit");
      assert.equal(code, 2);
      assert.match(Buffer.concat(chunks).toString(), /usage:/);
    }
  });
});
