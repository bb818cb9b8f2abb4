import { createPrivateKey } from "node:crypto";
import { join } from "node:path";
import type { Random } from "../../crypto/ambient.js";
import { InvalidInput } from "../../crypto/fault.js";
import { parseCertificatesPem } from "./certificate.js";
import {
  generateCertificateKey,
  type IssuingContext,
  NODE_CURVE,
  type SigningAuthority,
} from "./certificate-authority.js";
import { createCertificateRequest } from "./certificate-request.js";
import { MessageIdentity } from "./message-identity.js";
import { assertNodeId } from "./node-id.js";
import { exists, PkiFolder, type PkiPaths } from "./pki-folder.js";
import { renewalState } from "./renewal.js";
import { MAX_ROSTER_PEERS } from "./roster.js";
import {
  makePrivateFolder,
  readPassphraseFile,
  readText,
  replacePublic,
  replaceSecret,
  writeNewSecret,
} from "./secret-file.js";

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
  if (!(await hasFreshPair({ tlsKeyPath, tlsChainPath, intermediate, nowMs: context.clock.nowMs() }))) {
    const key = await generateCertificateKey(NODE_CURVE);
    const requestDer = await createCertificateRequest(nodeId, key);
    const { chainPem } = await pki.issueUnder(intermediate, { nodeId, requestDer });
    await replaceSecret(tlsKeyPath, key.export({ type: "pkcs8", format: "pem" }) as string);
    await replacePublic(tlsChainPath, chainPem);
  }
  if (!(await exists(identityKeyPath))) {
    await writeNewSecret(identityKeyPath, MessageIdentity.generate(nodeId, context.random).toPem());
  }
  const identity = MessageIdentity.fromPem(nodeId, await readText(identityKeyPath, "the identity key"));
  return { nodeId, folder, tlsKeyPath, tlsChainPath, identityKeyPath, identityKey: identity.publicKey };
}

/** A run that stopped between writing the key and writing the chain leaves a pair that does not match: not fresh. */
async function hasFreshPair(pair: {
  readonly tlsKeyPath: string;
  readonly tlsChainPath: string;
  readonly intermediate: SigningAuthority;
  readonly nowMs: number;
}): Promise<boolean> {
  if (!(await exists(pair.tlsKeyPath)) || !(await exists(pair.tlsChainPath))) return false;
  const [leaf, issuer] = parseCertificatesPem(await readText(pair.tlsChainPath, "the chain"));
  const key = createPrivateKey(await readText(pair.tlsKeyPath, "the TLS key"));
  return (
    leaf !== undefined &&
    issuer?.fingerprint === pair.intermediate.certificate.fingerprint &&
    leaf.native.checkPrivateKey(key) &&
    renewalState(leaf, pair.nowMs) === "fresh"
  );
}

function newPassphrase(random: Random): string {
  return Buffer.from(random.bytes(24)).toString("base64url");
}
