import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { toJson } from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.js";
import { SignedPaymentRequestSchema } from "../../gen/mpcwallet/consensus/v1/consensus_pb.js";
import { PaymentPhase, Scheme, WalletService } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { authority, signedRequest } from "./authority.js";
import { type RunningGateway, runningGateway } from "./gateway-fixture.js";
import { http } from "./http-request.js";

const run = promisify(execFile);

describe("gateway protocols", () => {
  let running: RunningGateway;
  let bearer: { authorization: string };
  const treasury = authority();

  before(async () => {
    running = await runningGateway();
    bearer = { authorization: `Bearer ${await running.token()}` };
    running.application.authorities.set(treasury.name, treasury.publicKey);
    await running.application.createWallet({ name: "treasury", scheme: "frost", threshold: 2, parties: [] });
  });
  after(() => running.gateway.drain({ graceMs: 200 }));

  const transports: Record<string, () => Transport> = {
    "Connect over HTTP/2 (binary)": () =>
      createConnectTransport({ baseUrl: running.url, httpVersion: "2", nodeOptions: { ca: running.caPem } }),
    "Connect over HTTP/1.1 (JSON)": () =>
      createConnectTransport({
        baseUrl: running.url,
        httpVersion: "1.1",
        nodeOptions: { ca: running.caPem, agent: false },
        useBinaryFormat: false,
      }),
    gRPC: () => createGrpcTransport({ baseUrl: running.url, nodeOptions: { ca: running.caPem } }),
    "gRPC-web over HTTP/1.1": () =>
      createGrpcWebTransport({
        baseUrl: running.url,
        httpVersion: "1.1",
        nodeOptions: { ca: running.caPem, agent: false },
      }),
  };

  for (const [name, transport] of Object.entries(transports)) {
    it(`${name}: creates a wallet, pays and watches the payment to its end`, async () => {
      const wallet = createClient(WalletService, transport());
      const options = { headers: bearer };
      const created = await wallet.createWallet({ name: `of ${name}`, scheme: Scheme.CGGMP24, threshold: 2 }, options);
      assert.equal(created.wallet?.scheme, Scheme.CGGMP24);
      assert.equal(created.wallet?.createdAtMs, 1_700_000_000_000n);
      const balance = await wallet.getBalance({ walletId: "w-treasury" }, options);
      assert.equal(balance.confirmedSat, 2_099_999_997_690_000n);
      const payment = signedRequest(treasury);
      const sent = await wallet.sendPayment({ payment }, options);
      assert.equal(sent.payment?.phase, PaymentPhase.CREATED);
      const again = await wallet.sendPayment({ payment }, options);
      assert.equal(again.payment?.paymentId, sent.payment?.paymentId);
      const paymentId = sent.payment?.paymentId ?? "";
      const phases: PaymentPhase[] = [];
      for await (const update of wallet.watchPayment({ paymentId }, options)) {
        phases.push(update.payment?.phase ?? 0);
        const next = { 1: "signing", 4: "broadcast", 7: "confirmed" } as const;
        const phase = next[update.payment?.phase as 1 | 4 | 7];
        if (phase !== undefined) running.application.move(paymentId, { phase });
      }
      assert.deepEqual(phases, [
        PaymentPhase.CREATED,
        PaymentPhase.SIGNING,
        PaymentPhase.BROADCAST,
        PaymentPhase.CONFIRMED,
      ]);
      const votes = await wallet.getVotes({ paymentId }, options);
      assert.deepEqual(votes.ballots[1]?.reasons, ["fee-rate-too-high"]);
      assert.equal(running.application.watches, 0);
    });
  }

  it("grpc.health.v1 answers without a token", async () => {
    const client = createClient(
      Health,
      createGrpcTransport({ baseUrl: running.url, nodeOptions: { ca: running.caPem } }),
    );
    assert.equal((await client.check({})).status, HealthCheckResponse_ServingStatus.SERVING);
    assert.equal(
      (await client.check({ service: WalletService.typeName })).status,
      HealthCheckResponse_ServingStatus.SERVING,
    );
    await assert.rejects(client.check({ service: "unknown" }), /not_found/);
  });

  it("REST: every annotated call works", async () => {
    const headers = bearer;
    const post = { method: "POST", headers: { ...bearer, "content-type": "application/json" } };
    const body = JSON.stringify({ name: "rest", scheme: "SCHEME_FROST", threshold: 2, parties: ["node-1", "node-2"] });
    const created = await http(running, "/api/v1/wallets", { ...post, body });
    assert.equal(created.status, 200, created.text);
    assert.equal(created.json.wallet.walletId, "w-rest");
    const listed = await http(running, "/api/v1/wallets?page_size=1&pageToken=1", { headers });
    assert.equal(listed.json.wallets.length, 1);
    assert.equal((await http(running, "/api/v1/wallets/w-rest", { headers })).json.wallet.threshold, 2);
    const address = await http(running, "/api/v1/wallets/w-rest/addresses", { ...post, body: "{}" });
    assert.match(address.json.address.address, /^bcrt1q/);
    const balance = await http(running, "/api/v1/wallets/w-rest/balance", { headers });
    assert.equal(balance.json.confirmedSat, "2099999997690000");
    const utxos = await http(running, "/api/v1/wallets/w-rest/utxos?pageSize=2", { headers });
    assert.equal(utxos.json.utxos.length, 2);
    assert.equal(utxos.json.nextPageToken, "2");
    assert.equal((await http(running, "/api/v1/wallets/w-rest/pool", { headers })).json.available, 97);
    assert.equal((await http(running, "/api/v1/health", { headers })).json.healthy, true);

    const signed = signedRequest(treasury, { walletId: "w-rest" });
    const payment = toJson(SignedPaymentRequestSchema, signed);
    const sent = await http(running, "/api/v1/payments", { ...post, body: JSON.stringify({ payment }) });
    assert.equal(sent.status, 200, sent.text);
    const id = sent.json.payment.paymentId;
    assert.equal(
      (await http(running, `/api/v1/payments/${id}`, { headers })).json.payment.phase,
      "PAYMENT_PHASE_CREATED",
    );
    assert.equal((await http(running, `/api/v1/payments/${id}/votes`, { headers })).json.ballots[0].voter, "node-1");
    assert.equal((await http(running, "/api/v1/wallets/w-rest/payments", { headers })).json.payments.length, 1);
    running.application.move(id, { phase: "failed", failure: { code: "x", message: "y", culprits: ["node-2"] } });
    const watched = await http(running, `/api/v1/payments/${id}:watch`, { headers });
    const lines = watched.text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    assert.equal(watched.headers["content-type"], "application/x-ndjson");
    assert.deepEqual(lines.at(-1).payment.failure, { code: "x", message: "y", culprits: ["node-2"] });
    const missing = await http(running, "/api/v1/payments/nobody:watch", { headers });
    assert.equal(missing.status, 404, missing.text);
    assert.equal(missing.json.code, "not_found");
  });

  it("health, readiness and metrics over plain HTTP", async () => {
    assert.equal((await http(running, "/healthz")).json.status, "alive");
    assert.equal((await http(running, "/readyz")).json.status, "ready");
    assert.equal((await http(running, "/metrics")).status, 401);
    assert.match((await http(running, "/metrics", { headers: bearer })).text, /mpc_up 1/);
    running.application.healthy = false;
    await new Promise((resolve) => setTimeout(resolve, 1050));
    assert.equal((await http(running, "/readyz")).status, 503);
    running.application.healthy = true;
  });

  it("buf curl calls through reflection, with gRPC and Connect", async () => {
    const folder = await mkdtemp(join(tmpdir(), "gateway-"));
    const ca = join(folder, "ca.pem");
    writeFileSync(ca, running.caPem);
    const buf = join("node_modules", ".bin", "buf");
    for (const protocol of ["grpc", "connect", "grpcweb"]) {
      const base = ["curl", "--cacert", ca, "--protocol", protocol, "-H", `authorization: ${bearer.authorization}`];
      const url = `${running.url}/mpcwallet.wallet.v1.WalletService/GetBalance`;
      const { stdout } = await run(buf, [...base, "-d", '{"walletId":"w-treasury"}', url]);
      assert.equal(JSON.parse(stdout).confirmedSat, "2099999997690000");
    }
    for (const version of ["grpc-v1", "grpc-v1alpha"]) {
      const { stdout } = await run(buf, [
        "curl",
        "--cacert",
        ca,
        "--reflect-protocol",
        version,
        "--list-methods",
        running.url,
      ]);
      assert.match(stdout, /mpcwallet\.wallet\.v1\.WalletService\/SendPayment/);
    }
  });

  it("a trace is continued and logged; the log holds neither token nor payment", async () => {
    const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const answer = await http(running, "/api/v1/wallets", { headers: { ...bearer, traceparent } });
    assert.match(
      String(answer.headers["traceparent"]),
      /^00-4bf92f3577b34da6a3ce929d0e0e4736-(?!00f067aa0ba902b7)[0-9a-f]{16}-01$/,
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
    const line = running.log
      .map((one) => JSON.parse(one))
      .find((one) => one.traceId === "4bf92f3577b34da6a3ce929d0e0e4736");
    assert.equal(line.method, "mpcwallet.wallet.v1.WalletService/ListWallets");
    assert.equal(line.subject, "alice");
    assert.equal(line.protocol, "rest");
    assert.equal(line.httpStatus, 200);
    const all = running.log.join("\n");
    assert.ok(!all.includes(bearer.authorization.slice(7)));
    assert.ok(!all.includes("bcrt1qrecipient"));
  });
});
