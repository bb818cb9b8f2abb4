import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { calculateJwkThumbprint, exportJWK, exportSPKI, generateKeyPair, SignJWT } from "jose";
import { pino } from "pino";
import { verificationKeys } from "../../src/gateway/authentication.js";
import {
  type Gateway,
  type GatewayLimits,
  type ServerCertificate,
  startGateway,
} from "../../src/gateway/gateway-server.js";
import type { CallRecord } from "../../src/gateway/request-log.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { ApplicationInMemory } from "./application-in-memory.js";
import { ed25519Verify } from "./authority.js";

export const AUDIENCE = "mpc-wallet-test";

const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

/** A root certificate and a server certificate for localhost, as PEM. */
export async function certificates(): Promise<{ caPem: string; certificatePem: string; privateKeyPem: string }> {
  const day = 86_400_000;
  const notBefore = new Date(Date.now() - day);
  const notAfter = new Date(Date.now() + day);
  const rootKeys = await webcrypto.subtle.generateKey(ecdsa, true, ["sign", "verify"]);
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=Test Root",
    keys: rootKeys as webcrypto.CryptoKeyPair,
    notBefore,
    notAfter,
    signingAlgorithm: ecdsa,
    extensions: [new x509.BasicConstraintsExtension(true, 1, true)],
  });
  const keys = await webcrypto.subtle.generateKey(ecdsa, true, ["sign", "verify"]);
  const server = await x509.X509CertificateGenerator.create({
    subject: "CN=localhost",
    issuer: root.subject,
    notBefore,
    notAfter,
    signingAlgorithm: ecdsa,
    publicKey: keys.publicKey as webcrypto.CryptoKey,
    signingKey: rootKeys.privateKey as webcrypto.CryptoKey,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: "dns", value: "localhost" },
        { type: "ip", value: "127.0.0.1" },
      ]),
    ],
  });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  const privateKeyPem = `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`;
  return { caPem: root.toString("pem"), certificatePem: server.toString("pem"), privateKeyPem };
}

export interface TokenClaims {
  readonly scope?: string;
  readonly audience?: string;
  readonly subject?: string;
  /** Seconds from now. */
  readonly expiresInS?: number;
}

/** Issues tokens as an identity provider would. */
export async function tokenIssuer(algorithm: "EdDSA" | "ES256" = "EdDSA") {
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true });
  const kid = await calculateJwkThumbprint(await exportJWK(publicKey));
  const token = ({ scope, audience, subject, expiresInS }: TokenClaims = {}) => {
    const nowS = Math.floor(Date.now() / 1000);
    return new SignJWT({ scope: scope ?? "wallet:read wallet:write payment:send metrics:read" })
      .setProtectedHeader({ alg: algorithm, kid })
      .setSubject(subject ?? "alice")
      .setAudience(audience ?? AUDIENCE)
      .setIssuedAt(nowS - 60)
      .setExpirationTime(nowS + (expiresInS ?? 600))
      .sign(privateKey);
  };
  return { token, publicKeyPem: await exportSPKI(publicKey), privateKey };
}

export interface RunningGateway {
  readonly gateway: Gateway;
  readonly application: ApplicationInMemory;
  readonly url: string;
  readonly caPem: string;
  readonly tls: ServerCertificate;
  readonly token: Awaited<ReturnType<typeof tokenIssuer>>["token"];
  readonly issuer: Awaited<ReturnType<typeof tokenIssuer>>;
  readonly records: CallRecord[];
  /** Lines of the log. */
  readonly log: string[];
}

/** A real gateway on loopback over the wallet in memory. */
export async function runningGateway(limits: Partial<GatewayLimits> = {}): Promise<RunningGateway> {
  const { caPem, certificatePem, privateKeyPem } = await certificates();
  const tls = { certificatePem, privateKeyPem };
  const issuer = await tokenIssuer();
  const application = new ApplicationInMemory(ed25519Verify);
  const records: CallRecord[] = [];
  const log: string[] = [];
  const gateway = await startGateway(
    {
      host: "127.0.0.1",
      port: 0,
      tls,
      authentication: {
        keys: await verificationKeys(issuer.publicKeyPem, "issuer.pem"),
        audience: AUDIENCE,
        clockToleranceMs: 5000,
        lifetimeMaxMs: 86_400_000,
      },
      limits: { callsPerSecond: 1000, ...limits },
    },
    {
      application,
      clock: systemClock,
      random: systemRandom,
      log: pino({ level: "debug" }, { write: (line: string) => void log.push(line) }),
      metrics: async () => ({ contentType: "text/plain; version=0.0.4", body: "mpc_up 1\n" }),
      onCall: (record) => void records.push({ ...record }),
    },
  );
  const url = `https://localhost:${gateway.port}`;
  return { gateway, application, url, caPem, tls, token: issuer.token, issuer, records, log };
}
