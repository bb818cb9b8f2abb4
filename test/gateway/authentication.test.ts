import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { exportJWK, exportPKCS8, exportSPKI, generateKeyPair, SignJWT } from "jose";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { WalletService } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import { verificationKeys } from "../../src/gateway/authentication.js";
import { AUDIENCE, type RunningGateway, runningGateway, tokenIssuer } from "./gateway-fixture.js";
import { http } from "./http-request.js";

const json = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");

describe("gateway authentication", () => {
  let running: RunningGateway;
  const claims = () => {
    const nowS = Math.floor(Date.now() / 1000);
    return { sub: "mallory", aud: AUDIENCE, iat: nowS, exp: nowS + 60, scope: "wallet:read" };
  };

  before(async () => {
    running = await runningGateway();
  });
  after(() => running.gateway.drain({ graceMs: 200 }));

  async function answer(authorization: string | undefined) {
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    const { status, json: body, headers: answered } = await http(running, "/api/v1/wallets", { headers });
    return { status, reason: body.details?.[0]?.debug.reason, challenge: answered["www-authenticate"] };
  }

  async function refusedAs(reason: string, token: string): Promise<void> {
    const { status, reason: given, challenge } = await answer(`Bearer ${token}`);
    assert.deepEqual({ status, given }, { status: 401, given: reason });
    assert.match(String(challenge), /^Bearer error="invalid_token"/);
  }

  it("accepts an EdDSA token with audience, subject, expiry and scope", async () => {
    assert.equal((await answer(`Bearer ${await running.token()}`)).status, 200);
  });

  it("refuses a request without a token, and headers that hold none", async () => {
    assert.equal((await answer(undefined)).reason, "token-missing");
    for (const header of ["Basic YTpi", "Bearer", "Bearer a b", `Bearer ${"a".repeat(5000)}`, "Bearer \u00e9"]) {
      assert.equal((await answer(header)).reason, "token-malformed", header.slice(0, 20));
    }
  });

  it("refuses an expired token", async () => {
    await refusedAs("token-expired", await running.token({ expiresInS: -30 }));
  });

  it("refuses a token for another audience", async () => {
    await refusedAs("token-aud", await running.token({ audience: "another-service" }));
  });

  it("refuses a token without subject, expiry or audience", async () => {
    const sign = (payload: Record<string, unknown>) =>
      new SignJWT(payload).setProtectedHeader({ alg: "EdDSA" }).sign(running.issuer.privateKey);
    for (const missing of ["sub", "exp", "aud"]) {
      const { [missing as "sub"]: _, ...rest } = claims();
      await refusedAs(`token-${missing}`, await sign(rest));
    }
    await refusedAs("token-subject", await sign({ ...claims(), sub: "x".repeat(200) }));
  });

  it("refuses a token that is valid for longer than allowed", async () => {
    await refusedAs("token-lifetime", await running.token({ expiresInS: 10 * 86_400 }));
  });

  it("refuses a token of another issuer's key, with and without the known kid", async () => {
    const stranger = await tokenIssuer();
    await refusedAs("token-key-unknown", await stranger.token());
    const forged = new SignJWT(claims()).setProtectedHeader({ alg: "EdDSA" }).sign(stranger.privateKey);
    await refusedAs("token-forged", await forged);
  });

  it("refuses a changed payload under a good signature", async () => {
    const [head, , signature] = (await running.token({ scope: "wallet:read" })).split(".");
    await refusedAs("token-forged", `${head}.${json({ ...claims(), scope: "payment:send" })}.${signature}`);
  });

  it("refuses alg none in every spelling", async () => {
    for (const alg of ["none", "None", "NONE", ""]) {
      const { status } = await answer(`Bearer ${json({ alg })}.${json(claims())}.`);
      assert.equal(status, 401, alg);
    }
  });

  it("refuses key confusion: an HMAC keyed with the public key", async () => {
    const head = json({ alg: "HS256" });
    for (const secret of [running.issuer.publicKeyPem, running.issuer.publicKeyPem.trim()]) {
      const signed = `${head}.${json(claims())}`;
      const mac = createHmac("sha256", secret).update(signed).digest("base64url");
      await refusedAs("token-algorithm", `${signed}.${mac}`);
    }
  });

  it("ignores keys that a token brings along", async () => {
    const stranger = await generateKeyPair("EdDSA", { extractable: true });
    const jwk = await exportJWK(stranger.publicKey);
    const token = new SignJWT(claims()).setProtectedHeader({ alg: "EdDSA", jwk }).sign(stranger.privateKey);
    await refusedAs("token-forged", await token);
  });

  it("refuses garbage", async () => {
    for (const token of ["a", "a.b", "a.b.c", "..", `${json({ alg: "EdDSA" })}.bm8.x`, `${json([])}.${json({})}.x`]) {
      assert.equal((await answer(`Bearer ${token}`)).status, 401, token);
    }
  });

  it("a scope allows its calls only", async () => {
    const reader = { authorization: `Bearer ${await running.token({ scope: "wallet:read" })}` };
    const post = { method: "POST", headers: { ...reader, "content-type": "application/json" }, body: "{}" };
    assert.equal((await http(running, "/api/v1/wallets", { headers: reader })).status, 200);
    for (const path of ["/api/v1/wallets", "/api/v1/payments", "/api/v1/wallets/w/addresses"]) {
      const refused = await http(running, path, post);
      assert.equal(refused.status, 403, path);
      assert.equal(refused.json.details[0].debug.reason, "scope-missing");
    }
    const writer = { authorization: `Bearer ${await running.token({ scope: "wallet:write payment:sender" })}` };
    assert.equal(
      (await http(running, "/api/v1/payments", { ...post, headers: { ...post.headers, ...writer } })).status,
      403,
    );
    assert.equal((await http(running, "/metrics", { headers: reader })).status, 403);
  });

  it("gRPC and gRPC-web clients get the refusal with its details, for unary and streaming calls", async () => {
    const nodeOptions = { ca: running.caPem };
    for (const transport of [
      createGrpcTransport({ baseUrl: running.url, nodeOptions }),
      createGrpcWebTransport({ baseUrl: running.url, httpVersion: "2", nodeOptions }),
    ]) {
      const client = createClient(WalletService, transport);
      const watch = async () => {
        for await (const _ of client.watchPayment({ paymentId: "p" })) assert.fail("nothing may be streamed");
      };
      for (const call of [() => client.listWallets({}), watch]) {
        const error = ConnectError.from(
          await call().then(
            () => undefined,
            (reason: unknown) => reason,
          ),
        );
        assert.equal(error.code, Code.Unauthenticated);
        assert.equal(error.findDetails(ErrorInfoSchema)[0]?.reason, "token-missing");
      }
    }
  });

  it("keys can be replaced while running", async () => {
    const next = await tokenIssuer("ES256");
    const before = await running.token();
    running.gateway.replaceKeys(await verificationKeys(next.publicKeyPem, "next.pem"));
    assert.equal((await answer(`Bearer ${await next.token()}`)).status, 200);
    await refusedAs("token-key-unknown", before);
    running.gateway.replaceKeys(await verificationKeys(running.issuer.publicKeyPem, "issuer.pem"));
  });

  it("keys that are secret, symmetric, weak or unreadable are refused at the start", async () => {
    const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey.export({ format: "pem", type: "spki" });
    const refused: Record<string, string> = {
      "private PEM": await exportPKCS8(privateKey),
      "private JWK": JSON.stringify({ keys: [await exportJWK(privateKey)] }),
      "shared secret": JSON.stringify({ keys: [{ kty: "oct", k: "c2VjcmV0" }] }),
      RSA: rsa.toString(),
      empty: "",
      "no keys": '{"keys":[]}',
      "not JWKS": '{"a":1}',
    };
    for (const [what, text] of Object.entries(refused)) {
      await assert.rejects(verificationKeys(text, "k.pem"), { name: "InvalidInput", code: "jwt-key-unusable" }, what);
    }
    const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "k1" }] });
    assert.equal((await verificationKeys(jwks, "jwks.json"))[0]?.kid, "k1");
    assert.equal((await verificationKeys(await exportSPKI(publicKey), "k.pem"))[0]?.alg, "ES256");
  });
});
