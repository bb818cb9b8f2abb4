import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { after, before, describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { fromBinary } from "@bufbuild/protobuf";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { PaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { WalletService } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { Bug, InvalidInput } from "../../src/crypto/fault.js";
import { networkOf } from "../../src/gateway/rate-limit.js";
import { page } from "../../src/gateway/wallet-handlers.js";
import { FAULTS } from "./application-in-memory.js";
import { authority, signedRequest } from "./authority.js";
import { certificates, type RunningGateway, runningGateway } from "./gateway-fixture.js";
import { http } from "./http-request.js";

describe("gateway errors", () => {
  let running: RunningGateway;
  let headers: { authorization: string };

  before(async () => {
    running = await runningGateway();
    headers = { authorization: `Bearer ${await running.token()}` };
  });
  after(() => running.gateway.drain({ graceMs: 200 }));

  const cases: [string, () => unknown, Code, number, string | undefined][] = [
    [
      "invalid input",
      () => new InvalidInput("address-invalid", "no address", { index: 2n }),
      Code.InvalidArgument,
      400,
      "address-invalid",
    ],
    [
      "unknown wallet",
      () => new InvalidInput("wallet-unknown", "no such wallet"),
      Code.NotFound,
      404,
      "wallet-unknown",
    ],
    ["unavailable", FAULTS.unavailable, Code.Unavailable, 503, "chain-unavailable"],
    ["peer fault", FAULTS.peerFault, Code.Aborted, 409, "signing-aborted"],
    ["peer silent", FAULTS.peerSilent, Code.DeadlineExceeded, 504, "votes-missing"],
    ["bug", () => new Bug("s3cret-invariant", { share: "s3cret-fact" }), Code.Internal, 500, undefined],
    ["unknown error", () => new TypeError("s3cret-path"), Code.Internal, 500, undefined],
    ["thrown string", () => "s3cret-string", Code.Internal, 500, undefined],
    [
      "timeout",
      () => AbortSignal.timeout(0).reason ?? new DOMException("late", "TimeoutError"),
      Code.DeadlineExceeded,
      504,
      undefined,
    ],
  ];
  for (const [name, fault, code, status, reason] of cases) {
    it(`${name} becomes ${Code[code]}, by gRPC and REST, without its cause`, async () => {
      running.application.failures.push(fault(), fault());
      const client = createClient(
        WalletService,
        createGrpcTransport({ baseUrl: running.url, nodeOptions: { ca: running.caPem } }),
      );
      const error = ConnectError.from(
        await client.listWallets({}, { headers }).then(
          () => undefined,
          (thrown: unknown) => thrown,
        ),
      );
      assert.equal(error.code, code);
      assert.equal(error.findDetails(ErrorInfoSchema)[0]?.reason, reason);
      const rest = await http(running, "/api/v1/wallets", { headers });
      assert.equal(rest.status, status);
      assert.equal(rest.json.details?.[0]?.debug.reason, reason);
      assert.ok(!`${error.message} ${JSON.stringify(error.details)} ${rest.text}`.includes("s3cret"));
    });
  }

  it("facts and culprits are told, causes stand in the log", async () => {
    running.application.failures.push(FAULTS.peerFault());
    const { json } = await http(running, "/api/v1/wallets", { headers });
    assert.equal(json.details[0].debug.metadata.culprits, "node-2");
    assert.match(running.log.join("\n"), /s3cret-cause/);
    assert.doesNotMatch(running.log.join("\n"), /s3cret-evidence/);
  });

  it("a client that sets a deadline gets its end", async () => {
    const client = createClient(
      WalletService,
      createConnectTransport({ baseUrl: running.url, httpVersion: "2", nodeOptions: { ca: running.caPem } }),
    );
    const { payment } = await client.sendPayment({ payment: signedRequest(authority()) }, { headers });
    const watch = async () => {
      for await (const _ of client.watchPayment({ paymentId: payment?.paymentId ?? "" }, { headers, timeoutMs: 100 }));
    };
    await assert.rejects(watch(), /deadline_exceeded/);
    for (let tries = 0; tries < 50 && running.application.watches > 0; tries += 1)
      await new Promise((r) => setTimeout(r, 10));
    assert.equal(running.application.watches, 0);
  });
});

describe("gateway rate limit", () => {
  let running: RunningGateway;
  before(async () => {
    running = await runningGateway({ callsPerSecond: 10 });
  });
  after(() => running.gateway.drain({ graceMs: 200 }));

  it("the eleventh call of a subject in a second is refused with Retry-After; another subject is served", async () => {
    const headers = { authorization: `Bearer ${await running.token({ subject: "greedy" })}` };
    const answers = await Promise.all(Array.from({ length: 11 }, () => http(running, "/api/v1/wallets", { headers })));
    assert.equal(answers.filter(({ status }) => status === 200).length, 10);
    const refused = answers.find(({ status }) => status === 429);
    assert.equal(refused?.headers["retry-after"], "1");
    assert.equal(refused?.json.details[0].debug.reason, "rate-limited");
    const other = { authorization: `Bearer ${await running.token({ subject: "patient" })}` };
    assert.equal((await http(running, "/api/v1/wallets", { headers: other })).status, 200);
    const client = createClient(
      WalletService,
      createGrpcTransport({ baseUrl: running.url, nodeOptions: { ca: running.caPem } }),
    );
    const error = ConnectError.from(
      await client.listWallets({}, { headers }).then(
        () => undefined,
        (thrown: unknown) => thrown,
      ),
    );
    assert.equal(error.code, Code.ResourceExhausted);
    assert.ok((error.findDetails(RetryInfoSchema)[0]?.retryDelay?.nanos ?? 0) > 0);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    assert.equal((await http(running, "/api/v1/wallets", { headers })).status, 200);
  });

  it("strangers are counted by address and do not use up a client's calls", async () => {
    await new Promise((resolve) => setTimeout(resolve, 1100));
    const statuses = await Promise.all(
      Array.from({ length: 15 }, async () => (await http(running, "/api/v1/wallets")).status),
    );
    assert.equal(statuses.filter((status) => status === 401).length, 10);
    assert.equal(statuses.filter((status) => status === 429).length, 5);
    assert.equal((await http(running, "/nothing")).status, 429);
    assert.equal((await http(running, "/healthz")).status, 200);
    const headers = { authorization: `Bearer ${await running.token({ subject: "client" })}` };
    assert.equal((await http(running, "/api/v1/wallets", { headers })).status, 200);
  });

  it("an IPv6 network counts as one address", () => {
    assert.equal(networkOf("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2");
    assert.equal(networkOf("2001:db8:1:2::1"), "2001:db8:1:2");
    assert.equal(networkOf("2001:0db8:0001:0002::"), "2001:db8:1:2");
    assert.equal(networkOf("::1"), "0:0:0:0");
    assert.equal(networkOf("fe80::1%eth0"), "fe80:0:0:0");
    assert.equal(networkOf("::ffff:10.0.0.1"), "10.0.0.1");
    assert.equal(networkOf("10.0.0.1"), "10.0.0.1");
    assert.equal(networkOf(""), "");
  });
});

describe("gateway life", () => {
  it("drains: not ready at once, watches end, running calls finish, then the port is closed", async () => {
    const running = await runningGateway();
    const headers = { authorization: `Bearer ${await running.token()}` };
    const treasury = authority();
    const transport = createConnectTransport({
      baseUrl: running.url,
      httpVersion: "2",
      nodeOptions: { ca: running.caPem },
    });
    const client = createClient(WalletService, transport);
    const watched = signedRequest(treasury);
    const sent = await client.sendPayment({ payment: watched }, { headers });
    const watch = (async () => {
      for await (const _ of client.watchPayment({ paymentId: sent.payment?.paymentId ?? "" }, { headers }));
    })();
    const watchEnd = assert.rejects(watch, /shutting down/);
    const waiting = signedRequest(treasury);
    const call = client.sendPayment({ payment: waiting, waitForBroadcast: true }, { headers });
    await new Promise((resolve) => setTimeout(resolve, 100));
    const drained = running.gateway.drain({ lameDuckMs: 300, graceMs: 5000 });
    assert.equal((await http(running, "/readyz")).status, 503);
    await watchEnd;
    await new Promise((resolve) => setTimeout(resolve, 400));
    await assert.rejects(http(running, "/healthz"), /ECONNREFUSED/);
    running.application.move(paymentIdOf(waiting), { phase: "broadcast" });
    assert.equal((await call).payment?.phase, 7);
    await drained;
    assert.equal(await running.gateway.drain(), undefined);
  });

  it("a call that does not end is cut when the grace is over", async () => {
    const running = await runningGateway();
    const headers = { authorization: `Bearer ${await running.token()}` };
    const transport = createConnectTransport({
      baseUrl: running.url,
      httpVersion: "2",
      nodeOptions: { ca: running.caPem },
    });
    const call = createClient(WalletService, transport).sendPayment(
      { payment: signedRequest(authority()), waitForBroadcast: true },
      { headers },
    );
    const cut = assert.rejects(call);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const startedMs = performance.now();
    await running.gateway.drain({ graceMs: 200 });
    await cut;
    assert.ok(performance.now() - startedMs < 2000);
  });

  it("the certificate is replaced without dropping connections", async () => {
    const running = await runningGateway();
    const session = connectHttp2(running.url, { ca: running.caPem });
    await new Promise((resolve) => session.once("connect", resolve));
    const next = await certificates();
    running.gateway.replaceCertificate(next);
    assert.equal((await http({ url: running.url, caPem: next.caPem }, "/healthz")).status, 200);
    await assert.rejects(http(running, "/healthz"));
    const stream = session.request({ ":path": "/healthz" });
    const status = await new Promise((resolve) => stream.once("response", (headers) => resolve(headers[":status"])));
    assert.equal(status, 200);
    assert.throws(() => running.gateway.replaceCertificate({ certificatePem: "x", privateKeyPem: "y" }), {
      name: "InvalidInput",
      code: "tls-certificate-unusable",
    });
    session.destroy();
    await running.gateway.drain({ graceMs: 100 });
  });

  it("connections past the limit are closed", async () => {
    const running = await runningGateway({ connectionsMax: 3 });
    const sockets = Array.from({ length: 6 }, () =>
      connectTls({ port: running.gateway.port, host: "localhost", ca: running.caPem }),
    );
    const outcomes = await Promise.all(
      sockets.map(
        (socket) =>
          new Promise<boolean>((resolve) => {
            socket.once("secureConnect", () => resolve(true));
            socket.once("error", () => resolve(false));
            socket.once("close", () => resolve(false));
          }),
      ),
    );
    assert.equal(outcomes.filter(Boolean).length, 3);
    for (const socket of sockets) socket.destroy();
    await running.gateway.drain({ graceMs: 100 });
  });

  it("a port that is taken says so", async () => {
    const running = await runningGateway();
    const { startGateway } = await import("../../src/gateway/gateway-server.js");
    const { systemClock, systemRandom } = await import("../../src/node/ambient.js");
    const { pino } = await import("pino");
    const tls = await certificates();
    const authentication = { keys: [], audience: "a", clockToleranceMs: 0, lifetimeMaxMs: 1 };
    await assert.rejects(
      startGateway(
        { host: "127.0.0.1", port: running.gateway.port, tls, authentication },
        { application: running.application, clock: systemClock, random: systemRandom, log: pino({ level: "silent" }) },
      ),
      { name: "Unavailable", code: "port-unavailable" },
    );
    await running.gateway.drain({ graceMs: 100 });
  });

  it("lists are cut into pages", () => {
    const all = Array.from({ length: 101 }, (_, index) => index);
    assert.deepEqual(page(all, { pageSize: 0, pageToken: "" }), { items: all.slice(0, 100), nextPageToken: "100" });
    assert.deepEqual(page(all, { pageSize: 0, pageToken: "100" }), { items: [100], nextPageToken: "" });
    assert.deepEqual(page(all, { pageSize: 5, pageToken: "999" }), { items: [], nextPageToken: "" });
  });
});

describe("third-party protos", () => {
  it("the declared part of buf.validate has the numbers and types of the original", () => {
    const text = readFileSync("third_party/buf/validate/validate.proto", "utf8");
    let checked = 0;
    for (const [, name = "", body = ""] of text.matchAll(/^message (\w+) \{\n([\s\S]*?)^\}/gm)) {
      const original = file_buf_validate_validate.messages.find((message) => message.name === name);
      for (const [, type = "", field = "", number = ""] of body.matchAll(/(\w+) (\w+) = (\d+);/g)) {
        const known = original?.fields.find((one) => one.name === field);
        assert.equal(known?.number, Number(number), `${name}.${field}`);
        const typeName = known?.message?.name ?? known?.enum?.name ?? known?.proto.type.toString();
        if (/^[A-Z]/.test(type)) assert.equal(typeName, type, `${name}.${field}`);
        checked += 1;
      }
    }
    assert.ok(checked > 25, `${checked} fields`);
  });
});

function paymentIdOf({ request }: { request: Uint8Array }): string {
  return fromBinary(PaymentRequestSchema, request).requestId;
}
