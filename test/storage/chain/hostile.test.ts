import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { after, describe, it } from "node:test";
import { systemClock, systemRandom } from "../../../src/node/ambient.js";
import { baseUrl, type HttpBounds } from "../../../src/storage/chain/bounded-http.js";
import { CoreRpcChainSource } from "../../../src/storage/chain/core-rpc.js";
import { EsploraChainSource } from "../../../src/storage/chain/esplora.js";

const dependencies = { clock: systemClock, random: systemRandom };
const BOUNDS: HttpBounds = {
  attempts: 3,
  timeoutMs: 1_000,
  attemptTimeoutMs: 1_000,
  backoffMs: 4,
  maxAnswerBytes: 4_096,
};
const TXID = "ab".repeat(32);
const SCRIPT = Uint8Array.from([0x00, 0x14, ...Buffer.alloc(20, 7)]);

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A server that answers as a test tells it to, and counts. */
class ScriptedServer {
  requests = 0;
  handler: Handler = (_, response) => response.end();
  readonly #server = createServer((request, response) => {
    this.requests++;
    request.resume();
    this.handler(request, response);
  });

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  answers(body: string, status = 200): void {
    this.requests = 0;
    this.handler = (_, response) => response.writeHead(status).end(body);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

describe("chain sources and servers that are slow, down or hostile", async () => {
  const server = new ScriptedServer();
  const url = await server.listen();
  after(() => server.close());
  const esplora = new EsploraChainSource({ url, bounds: BOUNDS }, dependencies);
  const core = new CoreRpcChainSource({ url, user: "u", password: "secret-word", bounds: BOUNDS }, dependencies);
  const unavailable = (code: string) => ({ kind: "unavailable", code });

  it("three attempts, then Unavailable; a later attempt that succeeds counts", async () => {
    server.answers("busy", 503);
    await assert.rejects(esplora.tipHeight(), unavailable("chain-source-overloaded"));
    assert.equal(server.requests, 3);
    server.requests = 0;
    server.handler = (_, response) => {
      if (server.requests < 3) response.destroy();
      else response.end("17");
    };
    assert.equal(await esplora.tipHeight(), 17);
    assert.equal(server.requests, 3);
  });

  it("a server that never answers, and one that never stops, are given up in time", async () => {
    const hurried = new EsploraChainSource({ url, bounds: { ...BOUNDS, timeoutMs: 150 } }, dependencies);
    const startMs = performance.now();
    server.handler = () => undefined;
    await assert.rejects(hurried.tipHeight(), unavailable("chain-source-timeout"));
    server.handler = (_, response) => {
      const drip = setInterval(() => response.write("1"), 20);
      response.on("close", () => clearInterval(drip));
    };
    await assert.rejects(hurried.tipHeight(), unavailable("chain-source-timeout"));
    assert.ok(performance.now() - startMs < 1_000);
  });

  it("a first attempt that hangs leaves time for a second one", async () => {
    const patient = new EsploraChainSource({ url, bounds: { ...BOUNDS, attemptTimeoutMs: 100 } }, dependencies);
    server.requests = 0;
    server.handler = (_, response) => {
      if (server.requests > 1) response.end("17");
    };
    assert.equal(await patient.tipHeight(), 17);
    assert.equal(server.requests, 2);
  });

  it("an answer one byte over the limit is not read, and not asked for again", async () => {
    server.answers("1".repeat(4_097));
    await assert.rejects(esplora.tipHeight(), unavailable("chain-source-answer-too-large"));
    assert.equal(server.requests, 1);
    server.handler = (_, response) => {
      response.write("1".repeat(4_000)); // no content-length: the size shows only while reading
      response.end("1".repeat(97));
    };
    await assert.rejects(esplora.tipHeight(), unavailable("chain-source-answer-too-large"));
    server.answers(`${" ".repeat(4_094)}17`);
    assert.equal(await esplora.tipHeight(), 17);
  });

  it("a redirect is not followed", async () => {
    let elsewhere = 0;
    server.handler = (request, response) => {
      if (request.url === "/elsewhere") elsewhere++;
      response.writeHead(302, { location: "/elsewhere" }).end();
    };
    await assert.rejects(esplora.tipHeight(), unavailable("chain-source-unreachable"));
    assert.equal(elsewhere, 0);
  });

  it("malformed and hostile Esplora answers are Unavailable, never believed", async () => {
    const utxo = { txid: TXID, vout: 0, value: 1_000, status: { confirmed: false } };
    const cases: readonly (readonly [string, () => Promise<unknown>])[] = [
      ["-1", () => esplora.tipHeight()],
      ["1e3", () => esplora.tipHeight()],
      ["99999999999", () => esplora.tipHeight()],
      ["<html>", () => esplora.unspentOutputs(SCRIPT)],
      ["{}", () => esplora.unspentOutputs(SCRIPT)],
      [JSON.stringify([{ ...utxo, value: -1 }]), () => esplora.unspentOutputs(SCRIPT)],
      [JSON.stringify([{ ...utxo, value: 1.5 }]), () => esplora.unspentOutputs(SCRIPT)],
      [JSON.stringify([{ ...utxo, value: 2_100_000_000_000_001 }]), () => esplora.unspentOutputs(SCRIPT)],
      [JSON.stringify([{ ...utxo, txid: TXID.toUpperCase() }]), () => esplora.unspentOutputs(SCRIPT)],
      [JSON.stringify([{ ...utxo, status: { confirmed: true } }]), () => esplora.unspentOutputs(SCRIPT)],
      [JSON.stringify([utxo, utxo]), () => esplora.unspentOutputs(SCRIPT)],
      [JSON.stringify({ txid: "00".repeat(32), status: utxo.status }), () => esplora.transactionStatus(TXID)],
      ["zz", () => esplora.transaction(TXID)],
      ["02000000000000000000", () => esplora.transaction(TXID)],
      ['{"1":-5}', () => esplora.feeRateSatPerKvb(1)],
      ['{"1":1e9}', () => esplora.feeRateSatPerKvb(1)],
      ['{"x":1}', () => esplora.feeRateSatPerKvb(1)],
    ];
    for (const [body, ask] of cases) {
      server.answers(body);
      await assert.rejects(ask(), unavailable("chain-source-malformed"), body.slice(0, 80));
      assert.equal(server.requests, 1, "a lie is not asked for again");
    }
    server.answers("{}");
    await assert.rejects(esplora.feeRateSatPerKvb(1), unavailable("no-fee-estimate"));
    server.answers("Too many unspent transaction outputs", 400);
    await assert.rejects(esplora.unspentOutputs(SCRIPT), unavailable("chain-source-refuses"));
  });

  it("a raw transaction that has another txid is not believed", async () => {
    const raw = `0200000001${"11".repeat(32)}0000000000ffffffff01e80300000000000016${Buffer.from(SCRIPT).toString("hex")}00000000`;
    server.answers(raw);
    await assert.rejects(esplora.transaction(TXID), unavailable("chain-source-malformed"));
    server.answers(JSON.stringify({ id: 0, result: raw, error: null }));
    await assert.rejects(core.transaction(TXID), unavailable("chain-source-malformed"));
  });

  it("malformed and hostile Core answers are Unavailable, never believed", async () => {
    const result = (value: unknown) => JSON.stringify({ id: 0, result: value, error: null });
    const unspent = { txid: TXID, vout: 0, scriptPubKey: Buffer.from(SCRIPT).toString("hex"), amount: 0.5, height: 7 };
    const scan = (change: object) => result({ success: true, unspents: [{ ...unspent, ...change }] });
    const cases: readonly (readonly [string, () => Promise<unknown>])[] = [
      ["[]", () => core.tipHeight()],
      ["nonsense", () => core.tipHeight()],
      [result("7"), () => core.tipHeight()],
      [scan({ amount: 0.123456789 }), () => core.unspentOutputs(SCRIPT)],
      [scan({ amount: 21_000_001 }), () => core.unspentOutputs(SCRIPT)],
      [scan({ scriptPubKey: "51" }), () => core.unspentOutputs(SCRIPT)],
      [result({ success: false, unspents: [] }), () => core.unspentOutputs(SCRIPT)],
      [result({ txid: "00".repeat(32) }), () => core.transactionStatus(TXID)],
      [result({ feerate: -1 }), () => core.feeRateSatPerKvb(2)],
      [result({ feerate: 5 }), () => core.feeRateSatPerKvb(2)],
    ];
    for (const [body, ask] of cases) {
      server.answers(body);
      await assert.rejects(ask(), unavailable("chain-source-malformed"), body.slice(0, 80));
    }
    server.answers(result({ errors: ["Insufficient data or no feerate found"], blocks: 2 }));
    await assert.rejects(core.feeRateSatPerKvb(2), unavailable("no-fee-estimate"));
    server.answers(JSON.stringify({ id: 0, result: null, error: { code: -28, message: "Loading block index…" } }), 500);
    await assert.rejects(core.tipHeight(), unavailable("chain-source-refuses"));
  });

  it("a batch with a missing, doubled or foreign reply is malformed", async () => {
    const outpoints = [
      { txid: TXID, vout: 0 },
      { txid: TXID, vout: 1 },
    ];
    for (const ids of [[0], [0, 0], [0, 2]]) {
      server.handler = (request, response) => {
        const chunks: Buffer[] = [];
        request
          .on("data", (chunk: Buffer) => chunks.push(chunk))
          .on("end", () => {
            const batch = Buffer.concat(chunks).toString().startsWith("[");
            const replies = ids.map((id) => ({ id, result: null, error: null }));
            response.end(JSON.stringify(batch ? replies : { id: 0, result: 9, error: null }));
          });
      };
      await assert.rejects(core.findUnspent(outpoints), unavailable("chain-source-malformed"), JSON.stringify(ids));
    }
  });

  it("a wrong password is reported as such, and the password never shows", async () => {
    server.answers("", 401);
    await assert.rejects(core.tipHeight(), (fault: unknown) => {
      const { code, message, facts } = fault as { code: string; message: string; facts: unknown };
      assert.equal(code, "chain-source-unauthorized");
      assert.doesNotMatch(message + JSON.stringify(facts), /secret-word/);
      return true;
    });
    assert.equal(server.requests, 1);
  });

  it("a refusal's words are cut and cleaned", async () => {
    server.answers(`\u001b[31m${"x".repeat(3_000)}`, 400);
    const raw = Buffer.from(
      `0200000001${"11".repeat(32)}0000000000ffffffff01e80300000000000016${Buffer.from(SCRIPT).toString("hex")}00000000`,
      "hex",
    );
    await assert.rejects(esplora.broadcast(raw), (fault: unknown) => {
      const { code, facts } = fault as { code: string; facts: { reason: string } };
      assert.equal(code, "transaction-refused");
      assert.match(facts.reason, /^\?\[31mx{295}$/);
      return true;
    });
    server.answers("00".repeat(32));
    await assert.rejects(esplora.broadcast(raw), unavailable("chain-source-malformed"));
  });

  it("URLs with credentials, queries or other schemes are refused", () => {
    for (const bad of ["ftp://h", "http://u:p@h", "http://h/?k=1", "nonsense", "file:///etc/passwd"]) {
      assert.throws(() => baseUrl(bad), { kind: "invalid-input", code: "bad-chain-source-url" });
    }
    assert.equal(baseUrl("https://h/api/"), "https://h/api");
  });
});
