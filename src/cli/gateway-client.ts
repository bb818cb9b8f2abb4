import { createPrivateKey, sign } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { WalletService } from "../../gen/mpcwallet/wallet/v1/wallet_pb.js";
import type { SignMessage } from "../consensus/signature.js";
import { InvalidInput } from "../crypto/fault.js";
import { type ClientProfile, readSecretFile, readToken } from "./client-profile.js";
import type { Terminal } from "./terminal.js";

/** A connection to a gateway. */
export interface GatewayClient {
  readonly wallet: Client<typeof WalletService>;
  /** Ends the connection, so that the process can end. */
  close(): void;
}

/**
 * Opens a connection over HTTP/2. With `gateway.caFile` only certificates under that authority are accepted, otherwise
 * those that Node trusts.
 */
export async function openGateway(
  profile: ClientProfile,
  terminal: Pick<Terminal, "environment">,
): Promise<GatewayClient> {
  const { url, caFile, callTimeoutMs } = profile.gateway;
  const token = await readToken(profile, terminal);
  const ca = caFile === undefined ? undefined : await readCertificates(caFile);
  const authorization: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  const sessionManager = new Http2SessionManager(url, {}, ca === undefined ? {} : { ca });
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "2",
    sessionManager,
    interceptors: [authorization],
    defaultTimeoutMs: callTimeoutMs,
  });
  return { wallet: createClient(WalletService, transport), close: () => sessionManager.abort() };
}

async function readCertificates(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new InvalidInput("ca-unreadable", `cannot read the certificate authority from ${file}`, { file }, cause);
  }
}

/** The payment authority of the profile: its name, and a function that signs with its key. */
export async function paymentAuthority({
  authority,
}: ClientProfile): Promise<{ readonly authority: string; readonly sign: SignMessage }> {
  if (authority === undefined) {
    const message = "the profile has no section [authority]; without its key no payment can be signed";
    throw new InvalidInput("authority-missing", message);
  }
  const { name, keyFile } = authority;
  const pem = await readSecretFile(keyFile, "the payment authority's key");
  const unusable = (cause?: unknown) =>
    new InvalidInput("authority-key-unusable", `${keyFile} is not an Ed25519 private key in PEM`, { keyFile }, cause);
  let key: ReturnType<typeof createPrivateKey>;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw unusable();
  }
  if (key.asymmetricKeyType !== "ed25519") throw unusable();
  return { authority: name, sign: (message) => new Uint8Array(sign(null, message, key)) };
}
