// What the benches compare: our mesh, and connect-node over HTTP/2 with mutual TLS.
import { createSecureServer } from "node:http2";
import type { AddressInfo } from "node:net";
import type { ConnectRouter, Transport } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { DEFAULT_LIMITS } from "../../../src/network/network-limits.js";
import type { PeerAddress } from "../../../src/network/peer-link.js";
import { PeerMesh } from "../../../src/network/peer-mesh.js";
import type { TransportCredentials } from "../../../src/network/quic-endpoint.js";
import { systemClock, systemRandom } from "../../../src/node/ambient.js";
import { testVerifier } from "../../network/test-certificates.js";

/** The common name that the server's certificate is issued to. */
export const SERVER = "server";
export const CLIENT = "client";

/** What both sides of either protocol need, in a form that can be sent to a process. */
export interface Credentials {
  readonly credentials: TransportCredentials;
  readonly rootDerBase64: string;
}

export const rootOf = (rootDer: Uint8Array): string => Buffer.from(rootDer).toString("base64");

const rootPem = ({ rootDerBase64 }: Credentials) =>
  `-----BEGIN CERTIFICATE-----\n${rootDerBase64}\n-----END CERTIFICATE-----\n`;

/** A mesh with one peer. */
export function startMesh(
  nodeId: string,
  options: Credentials & {
    readonly peer: PeerAddress;
    readonly routes: (router: ConnectRouter) => void;
    readonly listen?: { readonly host: string; readonly port: number };
  },
): Promise<PeerMesh> {
  const { peer, routes, credentials, rootDerBase64, listen = { host: "127.0.0.1", port: 0 } } = options;
  return PeerMesh.start(
    // A conversation of the bench is longer than any between members.
    { nodeId, listen, peers: [peer], credentials, limits: { ...DEFAULT_LIMITS, streamBytes: 256 * 1024 * 1024 } },
    {
      clock: systemClock,
      random: systemRandom,
      verifier: testVerifier(Buffer.from(rootDerBase64, "base64")),
      router: routes,
      log: () => {},
    },
  );
}

/** @returns the port of a server that speaks gRPC over HTTP/2 with clients that show a certificate */
export async function startHttp2Server(
  options: Credentials & {
    readonly routes: (router: ConnectRouter) => void;
    readonly host: string;
    readonly port: number;
    readonly noDelay?: boolean;
  },
): Promise<number> {
  const { credentials, routes, host, port, noDelay } = options;
  const server = createSecureServer(
    {
      key: credentials.privateKeyPem,
      cert: credentials.certificateChainPem,
      ca: rootPem(options),
      requestCert: true,
      rejectUnauthorized: true,
      ...(noDelay === undefined ? {} : { noDelay }),
    },
    // By default this side alone would compress: ours does not, and what parties send each other does not shrink.
    connectNodeAdapter({ routes, connect: false, grpcWeb: false, acceptCompression: [] }),
  );
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  return (server.address() as AddressInfo).port;
}

/** One connection to such a server. */
export function http2Transport(
  options: Credentials & { readonly host: string; readonly port: number; readonly noDelay?: boolean },
): { readonly transport: Transport; readonly close: () => Promise<void> } {
  const { credentials, host, port, noDelay } = options;
  const baseUrl = `https://${host}:${port}`;
  const nodeOptions = {
    key: credentials.privateKeyPem,
    cert: credentials.certificateChainPem,
    ca: rootPem(options),
    servername: SERVER,
    ...(noDelay === undefined ? {} : { noDelay }),
  };
  const sessionManager = new Http2SessionManager(baseUrl, undefined, nodeOptions);
  const transport = createGrpcTransport({ baseUrl, nodeOptions, sessionManager, acceptCompression: [] });
  return { transport, close: async () => sessionManager.abort() };
}
