import { join } from "node:path";
import type { Random } from "../../crypto/ambient.js";
import { InvalidInput } from "../../crypto/fault.js";
import { parseCertificatesPem } from "./certificate.js";
import type { IssuingContext, SigningAuthority } from "./certificate-authority.js";
import { MessageIdentity } from "./message-identity.js";
import { assertNodeId } from "./node-id.js";
import { PkiFolder, type PkiPaths } from "./pki-folder.js";
import { renewalState } from "./renewal.js";
import { MAX_ROSTER_PEERS } from "./roster.js";
import { exists, makePrivateFolder, readPassphraseFile, readText, writeNewSecret } from "./secret-file.js";
import { loadTlsCredentials, prepareRenewal, type TlsCredentialPaths } from "./tls-credentials.js";

export interface DevelopmentNode {
  readonly nodeId: string;
  readonly folder: string;
  readonly tlsKeyPath: string;
  /** Leaf, then intermediate. */
  readonly tlsChainPath: string;
  readonly identityKeyPath: string;
  /** Ed25519, 32 bytes, for the roster. */
  readonly identityKey: Uint8Array;
}

export interface DevelopmentPki {
  readonly paths: PkiPaths;
  readonly passphrasePath: string;
  readonly nodes: readonly DevelopmentNode[];
}

/**
 * Makes, or completes and renews, a whole PKI for a devnet: root, intermediate, revocation list and, per node, TLS key,
 * chain and message identity. Running it again keeps what is good, adds nodes that are missing and renews what is due.
 *
 * For development only: the root key stays beside the others, and one generated passphrase opens both authorities.
 * @throws InvalidInput `bad-node-id`, `bad-roster`
 */
export async function createDevelopmentPki(
  options: { readonly folder: string; readonly nodeIds: readonly string[] },
  context: IssuingContext,
): Promise<DevelopmentPki> {
  const { folder, nodeIds } = options;
  for (const nodeId of nodeIds) assertNodeId(nodeId);
  if (nodeIds.length > MAX_ROSTER_PEERS || new Set(nodeIds).size !== nodeIds.length) {
    throw new InvalidInput("bad-roster", `node ids are distinct and at most ${MAX_ROSTER_PEERS}`, {
      peers: nodeIds.length,
    });
  }
  const pki = new PkiFolder(folder, context);
  const passphrasePath = join(folder, "development-passphrase");
  await makePrivateFolder(folder);
  if (!(await exists(passphrasePath))) await writeNewSecret(passphrasePath, `${newPassphrase(context.random)}\n`);
  const passphrase = await readPassphraseFile(passphrasePath);
  if (!(await exists(pki.paths.rootCertificate))) {
    await pki.initRoot({ commonName: "mpc-wallet development root", passphrase });
  }
  if (!(await exists(pki.paths.intermediateCertificate))) {
    const commonName = "mpc-wallet development intermediate";
    await pki.initIntermediate({ commonName, rootPassphrase: passphrase, passphrase });
  } else {
    await pki.publishRevocations({ passphrase });
  }
  const intermediate = await pki.openIntermediate(passphrase);
  const nodes: DevelopmentNode[] = [];
  for (const nodeId of nodeIds) nodes.push(await developmentNode({ pki, nodeId, intermediate }, context));
  return { paths: pki.paths, passphrasePath, nodes };
}

async function developmentNode(
  {
    pki,
    nodeId,
    intermediate,
  }: { readonly pki: PkiFolder; readonly nodeId: string; readonly intermediate: SigningAuthority },
  context: IssuingContext,
): Promise<DevelopmentNode> {
  const folder = join(pki.paths.folder, "nodes", nodeId);
  const tlsKeyPath = join(folder, "tls-key.pem");
  const tlsChainPath = join(folder, "tls-chain.pem");
  const identityKeyPath = join(folder, "identity-key.pem");
  await makePrivateFolder(folder);
  const paths: TlsCredentialPaths = { nodeId, keyPath: tlsKeyPath, chainPath: tlsChainPath };
  if (!(await hasFreshPair(paths, { intermediate, nowMs: context.clock.nowMs() }))) {
    const renewal = await prepareRenewal(paths);
    const { chainPem } = await pki.issueUnder(intermediate, { nodeId, requestDer: renewal.requestDer });
    await renewal.complete(chainPem);
  }
  if (!(await exists(identityKeyPath))) {
    await writeNewSecret(identityKeyPath, MessageIdentity.generate(nodeId, context.random).toPem());
  }
  const identity = MessageIdentity.fromPem(nodeId, await readText(identityKeyPath, "the identity key"));
  return { nodeId, folder, tlsKeyPath, tlsChainPath, identityKeyPath, identityKey: identity.publicKey };
}

async function hasFreshPair(
  paths: TlsCredentialPaths,
  wanted: { readonly intermediate: SigningAuthority; readonly nowMs: number },
): Promise<boolean> {
  try {
    const { certificateChainPem, leaf } = await loadTlsCredentials(paths);
    const [, issuer] = parseCertificatesPem(certificateChainPem);
    const isOurs = issuer?.fingerprint === wanted.intermediate.certificate.fingerprint;
    return isOurs && renewalState(leaf, wanted.nowMs) === "fresh";
  } catch (error) {
    // Missing, mismatched or unreadable: a devnet simply makes a new pair.
    if (error instanceof InvalidInput) return false;
    throw error;
  }
}

function newPassphrase(random: Random): string {
  return Buffer.from(random.bytes(24)).toString("base64url");
}
