import assert from "node:assert/strict";
import { connect as connectHttp2, constants, type IncomingHttpHeaders } from "node:http2";
import { after, before, describe, it } from "node:test";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { gzipSync } from "node:zlib";
import { toJson } from "@bufbuild/protobuf";
import { SignedPaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { authority, signedRequest } from "./authority.js";
import { type RunningGateway, runningGateway } from "./gateway-fixture.js";
import { type HttpAnswer, http } from "./http-request.js";

const LIMITS = {
  bodyMaxBytes: 8192,
  bodyMaxMs: 300,
  headerMaxBytes: 8192,
  handshakeMaxMs: 1000,
  streamsPerConnectionMax: 5,
  connectionsMax: 20,
  watchesMax: 2,
};

describe("gateway against hostile input", () => {
  let running: RunningGateway;
  let bearer: { authorization: string };
  const treasury = authority();

  before(async () => {
    running = await runningGateway(LIMITS);
    bearer = { authorization: `Bearer ${await running.token()}` };
    await running.application.createWallet({ name: "a", scheme: "frost", threshold: 2, parties: [] });
  });
  after(async () => {
    assert.equal((await http(running, "/healthz")).status, 200, "the gateway must have survived");
    await running.gateway.drain({ graceMs: 200 });
  });

  const post = (path: string, body: string | Uint8Array, headers: Record<string, string> = {}): Promise<HttpAnswer> =>
    http(running, path, {
      method: "POST",
      headers: { ...bearer, "content-type": "application/json", ...headers },
      body,
    });
  const reason = (answer: HttpAnswer): string => answer.json.details?.[0]?.debug.reason;

  it("malformed JSON, and JSON that is not the message", async () => {
    for (const body of [
      "",
      "{",
      "[]",
      "null",
      '"x"',
      "1",
      '{"name":{}}',
      '{"name":"a","nam":"b"}',
      "\xff\xfe",
      '{"threshold":1e99}',
    ]) {
      for (const path of ["/api/v1/wallets", "/mpcwallet.wallet.v1.WalletService/CreateWallet"]) {
        const answer = await post(path, Buffer.from(body, "latin1"));
        assert.equal(answer.status, 400, `${path} ${body}: ${answer.text}`);
        assert.equal(answer.json.code, "invalid_argument");
      }
    }
  });

  it("fields that break their rules are named", async () => {
    const good = { name: "n", scheme: "SCHEME_FROST", threshold: 2 };
    const bad: Record<string, object> = {
      name: { ...good, name: "" },
      "name ": { ...good, name: "a\nb" },
      scheme: { ...good, scheme: 0 },
      "scheme ": { ...good, scheme: 9 },
      threshold: { ...good, threshold: 1 },
      "threshold ": { ...good, threshold: 65 },
      "parties[1]": { ...good, parties: ["node-1", "../node"] },
      parties: { ...good, parties: ["node-1", "node-1"] },
    };
    for (const [field, body] of Object.entries(bad)) {
      const answer = await post("/api/v1/wallets", JSON.stringify(body));
      assert.equal(answer.status, 400, field);
      assert.equal(answer.json.details[1].debug.fieldViolations[0].field, field.trim(), answer.text);
    }
  });

  it("a payment must be signed to be looked at", async () => {
    const signed = toJson(SignedPaymentRequestSchema, signedRequest(treasury)) as Record<string, unknown>;
    for (const payment of [
      undefined,
      {},
      { ...signed, signature: "AAAA" },
      { ...signed, authority: "" },
      { ...signed, request: "" },
    ]) {
      const answer = await post("/api/v1/payments", JSON.stringify({ payment }));
      assert.equal(answer.status, 400, answer.text);
      assert.equal(reason(answer), "request-invalid");
    }
    running.application.authorities.set("other", authority("other").publicKey);
    const forged = await post("/api/v1/payments", JSON.stringify({ payment: { ...signed, authority: "other" } }));
    assert.equal(forged.status, 403);
    assert.equal(reason(forged), "request-forged");
    running.application.authorities.clear();
  });

  it("bodies of the largest size are read, one byte more is refused, on every path", async () => {
    const padded = (bytes: number) => {
      const body = `{"name":"","scheme":"SCHEME_FROST","threshold":2}`;
      return body.replace(`""`, `"${"a".repeat(bytes - body.length)}"`);
    };
    for (const [path, tooLarge] of [
      ["/api/v1/wallets", 413],
      ["/mpcwallet.wallet.v1.WalletService/CreateWallet", 429],
    ] as const) {
      const fits = await post(path, padded(LIMITS.bodyMaxBytes));
      assert.equal(fits.status, 400, "read, and refused for the name's length");
      assert.equal(reason(fits), "request-invalid");
      const over = await post(path, padded(LIMITS.bodyMaxBytes + 1));
      assert.equal(over.status, tooLarge);
      assert.equal(over.json.code, "resource_exhausted");
      const endless = await post(path, "x".repeat(1_000_000)).catch((error: Error & { code?: string }) => error.code);
      assert.ok(["ECONNRESET", "EPIPE"].includes(String(endless)) || (endless as HttpAnswer).status === tooLarge);
    }
  });

  it("a compression bomb is not inflated", async () => {
    const bomb = gzipSync(Buffer.alloc(5_000_000, "a"));
    assert.ok(bomb.length < LIMITS.bodyMaxBytes);
    const path = "/mpcwallet.wallet.v1.WalletService/CreateWallet";
    const answer = await post(path, bomb, { "content-encoding": "gzip" });
    assert.equal(answer.status, 429);
    assert.equal((await post("/api/v1/wallets", bomb, { "content-encoding": "gzip" })).status, 400);
  });

  it("unknown paths, methods and content types", async () => {
    const headers = bearer;
    for (const path of [
      "/",
      "/api/v1/",
      "/api/v1/nothing",
      "/api/v2/wallets",
      "/mpcwallet.wallet.v1.WalletService/Steal",
      "/..",
      "//evil/",
      "/api/v1/wallets/",
    ]) {
      assert.equal((await http(running, path, { headers })).status, 404, path);
    }
    assert.equal((await http(running, "/api/v1/wallets", { headers, method: "DELETE" })).headers["allow"], "POST, GET");
    assert.equal((await http(running, "/api/v1/wallets", { headers, method: "DELETE" })).status, 405);
    assert.equal((await http(running, "/healthz", { method: "POST" })).status, 405);
    const xml = await post("/mpcwallet.wallet.v1.WalletService/ListWallets", "<a/>", { "content-type": "text/xml" });
    assert.equal(xml.status, 415);
    const get = await http(running, "/mpcwallet.wallet.v1.WalletService/ListWallets", { headers });
    assert.ok([405, 415].includes(get.status));
  });

  it("bad path variables and query parameters", async () => {
    const headers = bearer;
    const bad = [
      "/api/v1/wallets/%",
      "/api/v1/wallets/%ff",
      "/api/v1/wallets/%2e%2e%2fetc",
      "/api/v1/wallets/%00",
      `/api/v1/wallets/${"a".repeat(64)}`,
      "/api/v1/wallets/w-a?wallet_id=x&nope=1",
      "/api/v1/wallets?page_size=-1",
      "/api/v1/wallets?page_size=1001",
      "/api/v1/wallets?page_size=1&page_size=2",
      "/api/v1/wallets?page_size=abc",
      "/api/v1/wallets?page_token=-1",
      "/api/v1/wallets?__proto__=1",
      "/api/v1/wallets?constructor=1",
    ];
    for (const path of bad) {
      const answer = await http(running, path, { headers });
      assert.equal(answer.status, 400, `${path}: ${answer.text}`);
    }
    // The path wins over a query that names the same field.
    assert.equal((await http(running, "/api/v1/wallets/nobody?wallet_id=w-a", { headers })).status, 404);
    const polluted = await post("/api/v1/wallets", '{"__proto__":{"threshold":2},"name":"p"}');
    assert.equal(polluted.status, 400);
  });

  it("raw HTTP/1 that is none: the connection is answered or closed and the gateway lives", async () => {
    const requests = [
      "GET / HTTP/1.0\r\n\r\n",
      "GET /api/v1/wallets HTTP/1.1\r\n\r\n",
      "GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET // HTTP/1.1\r\nHost: [\r\n\r\n",
      "GET /\\\\..\\ HTTP/1.1\r\nHost: %%%\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
      "CONNECT evil:443 HTTP/1.1\r\nHost: x\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
      "POST /api/v1/wallets HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
      "POST /api/v1/wallets HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
      "POST /api/v1/wallets HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      `GET /healthz HTTP/1.1\r\nHost: x\r\nX: ${"a".repeat(LIMITS.headerMaxBytes)}\r\n\r\n`,
      `GET /${"a".repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
      "\x00\x01\x02\x03\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x09",
    ];
    for (const text of requests) {
      const answer = await raw(text);
      assert.ok(
        answer === "" || /^HTTP\/1\.1 (4\d\d|501)/.test(answer),
        `${text.slice(0, 60)} -> ${answer.slice(0, 60)}`,
      );
      assert.equal((await http(running, "/healthz")).status, 200, text.slice(0, 60));
    }
  });

  it("two requests in one header block are not smuggled past a body", async () => {
    const smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    const answer = await raw(
      `POST /api/v1/wallets HTTP/1.1\r\nHost: x\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
    );
    assert.match(answer, /^HTTP\/1\.1 401/);
    assert.equal(answer.match(/HTTP\/1\.1/g)?.length, 1);
  });

  it("a body that comes too slowly is abandoned", async () => {
    const startedMs = performance.now();
    const { authorization } = bearer;
    const head = `POST /api/v1/wallets HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\nContent-Length: 100\r\n\r\n{`;
    assert.equal(await raw(head, 5000), "");
    assert.ok(performance.now() - startedMs < 2000);
  });

  it("headers that never end are abandoned", async () => {
    const startedMs = performance.now();
    await raw("GET /healthz HTTP/1.1\r\nHost: x\r\n", 10_000);
    assert.ok(performance.now() - startedMs < 5000);
  });

  it("a TCP connection that never speaks TLS does not stay, and a wrong protocol is refused", async () => {
    const { connect } = await import("node:net");
    const closed = await new Promise<boolean>((resolve) => {
      const socket = connect(running.gateway.port, "127.0.0.1").resume();
      socket.on("error", () => {});
      socket.once("close", () => resolve(true));
      setTimeout(() => resolve(false), 4000).unref();
    });
    assert.ok(closed);
    const plain = await new Promise<string>((resolve) => {
      const socket = connect(running.gateway.port, "127.0.0.1", () => socket.write("GET / HTTP/1.1\r\n\r\n"));
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString("latin1");
      });
      socket.on("error", () => {});
      socket.once("close", () => resolve(text));
    });
    assert.ok(!plain.startsWith("HTTP/1.1 200"));
    await assert.rejects(
      new Promise((resolve, reject) => {
        connectTls({ port: running.gateway.port, host: "localhost", ca: running.caPem, maxVersion: "TLSv1.2" }, () =>
          resolve(0),
        ).on("error", reject);
      }),
    );
  });

  it("HTTP/2: streams past the limit are refused, the others are served", async () => {
    const session = connectHttp2(running.url, { ca: running.caPem });
    // Sent before the client knows the server's limit.
    const calls = Array.from({ length: 20 }, () => h2(session, { ":path": "/readyz" }));
    const served = (await Promise.allSettled(calls)).filter(({ status }) => status === "fulfilled").length;
    assert.ok(served >= LIMITS.streamsPerConnectionMax && served < 20, `${served} served`);
    assert.equal((await h2(session, { ":path": "/healthz" })).status, 200);
    session.destroy();
  });

  it("HTTP/2: a header block past the limit ends in no call", async () => {
    const session = connectHttp2(running.url, { ca: running.caPem });
    session.on("error", () => {});
    const answer = await h2(session, { ":path": "/healthz", big: "a".repeat(20_000) }).catch(() => ({ status: 0 }));
    assert.notEqual(answer.status, 200);
    session.destroy();
  });

  it("HTTP/2: odd pseudo-headers and methods get an answer or a reset", async () => {
    for (const headers of [
      { ":path": "healthz" },
      { ":path": "*", ":method": "OPTIONS" },
      { ":path": "/healthz", ":authority": "[" },
      { ":path": "/healthz", ":method": "BREW" },
      { ":path": "/%", ":scheme": "gopher" },
    ]) {
      const session = connectHttp2(running.url, { ca: running.caPem });
      session.on("error", () => {});
      const answer = await h2(session, headers).catch(() => ({ status: 0 }));
      assert.notEqual(answer.status, 200, JSON.stringify(headers));
      session.destroy();
    }
  });

  it("HTTP/2: a storm of resets does not stop the gateway", async () => {
    const session = connectHttp2(running.url, { ca: running.caPem });
    session.on("error", () => {});
    await new Promise((resolve) => session.once("remoteSettings", resolve));
    for (let round = 0; round < 600 && !session.destroyed && !session.closed; round += 1) {
      for (let index = 0; index < LIMITS.streamsPerConnectionMax; index += 1) {
        const stream = session.request({ ":path": "/api/v1/wallets" });
        stream.on("error", () => {});
        stream.once("ready", () => stream.close(constants.NGHTTP2_CANCEL));
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal((await http(running, "/healthz")).status, 200);
    session.destroy();
  });

  it("gRPC: frames that lie about their length or hold garbage", async () => {
    const session = connectHttp2(running.url, { ca: running.caPem });
    const path = "/mpcwallet.wallet.v1.WalletService/CreateWallet";
    const call = (body: Buffer) =>
      h2(
        session,
        { ":path": path, ":method": "POST", "content-type": "application/grpc+proto", te: "trailers", ...bearer },
        body,
      );
    const cases: Record<string, Buffer> = {
      empty: Buffer.alloc(0),
      "length past the limit": Buffer.from([0, 0xff, 0xff, 0xff, 0xff]),
      "length past the end": Buffer.from([0, 0, 0, 0, 9, 1]),
      "no compression named": Buffer.from([1, 0, 0, 0, 1, 0]),
      garbage: Buffer.from([0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
      "two messages": Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    };
    for (const [what, body] of Object.entries(cases)) {
      const { trailers } = await call(body);
      assert.notEqual(trailers["grpc-status"], "0", what);
      assert.notEqual(trailers["grpc-status"], undefined, what);
    }
    session.destroy();
  });

  it("watches past the limit are refused and end when their client goes", async () => {
    const sent = await post(
      "/api/v1/payments",
      JSON.stringify({ payment: toJson(SignedPaymentRequestSchema, signedRequest(treasury, { walletId: "w-a" })) }),
    );
    const path = `/api/v1/payments/${sent.json.payment.paymentId}:watch`;
    const session = connectHttp2(running.url, { ca: running.caPem });
    const streams = [0, 1].map(() => session.request({ ":path": path, ...bearer }));
    await Promise.all(streams.map((stream) => new Promise((resolve) => stream.once("data", resolve))));
    assert.equal(running.application.watches, 2);
    const third = await http(running, path, { headers: bearer });
    assert.equal(third.status, 429, third.text);
    for (const stream of streams) stream.close(constants.NGHTTP2_CANCEL);
    for (let tries = 0; tries < 100 && running.application.watches > 0; tries += 1)
      await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(running.application.watches, 0);
    session.destroy();
  });

  /** What the server answers to these bytes until it closes, or until the time is up. */
  function raw(text: string, withinMs = 1500): Promise<string> {
    return new Promise((resolve) => {
      let answer = "";
      const socket: TLSSocket = connectTls(
        { port: running.gateway.port, host: "localhost", ca: running.caPem, ALPNProtocols: ["http/1.1"] },
        () => socket.write(Buffer.from(text, "latin1")),
      );
      const finish = () => {
        socket.destroy();
        resolve(answer);
      };
      socket.on("data", (chunk) => {
        answer += chunk.toString("latin1");
        setTimeout(finish, 50);
      });
      socket.on("error", finish);
      socket.on("close", finish);
      setTimeout(finish, withinMs).unref();
    });
  }

  function h2(
    session: ReturnType<typeof connectHttp2>,
    headers: Record<string, string>,
    body?: Buffer,
  ): Promise<{ status: number; trailers: IncomingHttpHeaders }> {
    return new Promise((resolve, reject) => {
      const stream = session.request(headers, { endStream: body === undefined });
      let status = 0;
      let trailers: IncomingHttpHeaders = {};
      stream.on("response", (answered) => {
        status = answered[":status"] ?? 0;
        if (answered["grpc-status"] !== undefined) trailers = answered;
      });
      stream.on("trailers", (last) => {
        trailers = last;
      });
      stream.on("error", reject);
      stream.on("close", () => (status === 0 ? reject(new Error("reset")) : resolve({ status, trailers })));
      stream.resume();
      if (body !== undefined) stream.end(body);
    });
  }
});
