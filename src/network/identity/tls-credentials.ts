import { createPrivateKey, type KeyObject } from "node:crypto";
import { rename, rm } from "node:fs/promises";
import { InvalidInput } from "../../crypto/fault.js";
import { type Certificate, parseCertificatesPem } from "./certificate.js";
import { generateCertificateKey, NODE_CURVE } from "./certificate-authority.js";
import { createCertificateRequest } from "./certificate-request.js";
import { nodeIdOf } from "./peer-verifier.js";
import { exists, readSecret, readText, replacePublic, replaceSecret } from "./secret-file.js";

/** What a node shows and proves in a handshake. The first two are what the QUIC driver takes. */
export interface TlsCredentials {
  /** Leaf first, PEM. */
  readonly certificateChainPem: string;
  /** PKCS#8 PEM, secret. */
  readonly privateKeyPem: string;
  readonly leaf: Certificate;
}

export interface TlsCredentialPaths {
  readonly nodeId: string;
  readonly keyPath: string;
  readonly chainPath: string;
}

/**
 * Reads a node's key and chain and checks that they belong together and to this node, so that a mistake shows at the
 * start and not as a peer's refusal.
 * @throws InvalidInput `file-missing`, `secret-readable-by-others`, `bad-tls-credentials`
 */
export async function loadTlsCredentials(paths: TlsCredentialPaths): Promise<TlsCredentials> {
  const certificateChainPem = await readText(paths.chainPath, "the certificate chain");
  const present = await readSecret(paths.keyPath, "the TLS key");
  const next = nextKeyPath(paths);
  try {
    const credentials = pairUp(certificateChainPem, present, paths.nodeId);
    await rm(next, { force: true });
    return credentials;
  } catch (error) {
    // The last renewal stopped between chain and key: its key waits beside the old one.
    if (!(await exists(next))) throw error;
    const credentials = pairUp(certificateChainPem, await readSecret(next, "the renewed TLS key"), paths.nodeId);
    await rename(next, paths.keyPath);
    return credentials;
  }
}

/**
 * Begins a renewal: a fresh key and the request for its certificate. The key stays in memory until the answer is here.
 * @returns the request for the authority, and what to do with the chain that it answers
 */
export async function prepareRenewal(paths: TlsCredentialPaths): Promise<{
  readonly requestDer: Uint8Array;
  /**
   * Checks the chain against the new key and puts both on disk: at each moment the files hold one pair that
   * `loadTlsCredentials` opens.
   * @throws InvalidInput `bad-tls-credentials`
   */
  readonly complete: (certificateChainPem: string) => Promise<TlsCredentials>;
}> {
  const key = await generateCertificateKey(NODE_CURVE);
  const privateKeyPem = key.export({ type: "pkcs8", format: "pem" }) as string;
  return {
    requestDer: await createCertificateRequest(paths.nodeId, key),
    async complete(certificateChainPem) {
      const credentials = pairUp(certificateChainPem, privateKeyPem, paths.nodeId);
      await replaceSecret(nextKeyPath(paths), privateKeyPem);
      await replacePublic(paths.chainPath, certificateChainPem);
      await rename(nextKeyPath(paths), paths.keyPath);
      return credentials;
    },
  };
}

function nextKeyPath({ keyPath }: TlsCredentialPaths): string {
  return `${keyPath}.next`;
}

function pairUp(certificateChainPem: string, privateKeyPem: string, nodeId: string): TlsCredentials {
  const [leaf] = parseCertificatesPem(certificateChainPem);
  const key = readKey(privateKeyPem);
  if (leaf === undefined || key === undefined || !leaf.native.checkPrivateKey(key)) {
    throw new InvalidInput("bad-tls-credentials", "the TLS key does not belong to the certificate chain", { nodeId });
  }
  const named = nodeIdOf(leaf);
  if (named !== nodeId) {
    throw new InvalidInput("bad-tls-credentials", `the certificate is for ${named ?? "no node"}, this is ${nodeId}`, {
      nodeId,
      named: named ?? "",
    });
  }
  return { certificateChainPem, privateKeyPem, leaf };
}

function readKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem);
  } catch {
    return undefined;
  }
}
