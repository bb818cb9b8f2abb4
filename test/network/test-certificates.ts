import "reflect-metadata";
import { X509Certificate as NodeCertificate, webcrypto } from "node:crypto";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";
import type { Clock } from "../../src/crypto/ambient.js";
import type { PeerVerifier } from "../../src/network/peer-verifier.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { systemClock } from "../../src/node/ambient.js";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 86_400_000;

/** A root, an intermediate and what they issue, for tests. */
export class TestAuthority {
  readonly rootDer: Uint8Array;
  readonly #intermediate: X509Certificate;
  readonly #key: webcrypto.CryptoKey;

  private constructor(parts: { root: X509Certificate; intermediate: X509Certificate; key: webcrypto.CryptoKey }) {
    this.rootDer = new Uint8Array(parts.root.rawData);
    this.#intermediate = parts.intermediate;
    this.#key = parts.key;
  }

  static async create(name: string): Promise<TestAuthority> {
    const rootKeys = await newKeys();
    const notBefore = new Date(Date.now() - 10 * DAY_MS);
    const notAfter = new Date(Date.now() + 3_650 * DAY_MS);
    const extensions = () => [
      new BasicConstraintsExtension(true, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign, true),
    ];
    const root = await X509CertificateGenerator.createSelfSigned({
      serialNumber: "01",
      name: `CN=${name} root`,
      notBefore,
      notAfter,
      keys: rootKeys,
      signingAlgorithm: ALGORITHM,
      extensions: extensions(),
    });
    const keys = await newKeys();
    const intermediate = await X509CertificateGenerator.create({
      serialNumber: "02",
      subject: `CN=${name} intermediate`,
      issuer: root.subject,
      notBefore,
      notAfter,
      publicKey: keys.publicKey,
      signingKey: rootKeys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: extensions(),
    });
    return new TestAuthority({ root, intermediate, key: keys.privateKey });
  }

  /** Credentials of a node; `expired` ones ended yesterday. */
  async issue(nodeId: string, options: { expired?: boolean } = {}): Promise<TransportCredentials> {
    const keys = await newKeys();
    const leaf = await X509CertificateGenerator.create({
      serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(8))).toString("hex"),
      subject: `CN=${nodeId}`,
      issuer: this.#intermediate.subject,
      notBefore: new Date(Date.now() - 2 * DAY_MS),
      notAfter: new Date(Date.now() + (options.expired === true ? -DAY_MS : 90 * DAY_MS)),
      publicKey: keys.publicKey,
      signingKey: this.#key,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth, ExtendedKeyUsage.serverAuth]),
        new SubjectAlternativeNameExtension([{ type: "dns", value: nodeId }]),
      ],
    });
    const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
    return {
      certificateChainPem: `${leaf.toString("pem")}\n${this.#intermediate.toString("pem")}\n`,
      privateKeyPem: `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/(.{64})/g, "$1\n")}\n-----END PRIVATE KEY-----\n`,
    };
  }
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]) as Promise<webcrypto.CryptoKeyPair>;
}

/** Checks chain, validity and common name. Small, but it refuses what the real one refuses in these tests. */
export function testVerifier(rootDer: Uint8Array, clock: Pick<Clock, "nowMs"> = systemClock): PeerVerifier {
  const root = new NodeCertificate(rootDer);
  return (chainDer, expectedNodeId) => {
    const chain = [...chainDer.map((der) => new NodeCertificate(der)), root];
    for (const [index, certificate] of chain.entries()) {
      const issuer = chain[index + 1] ?? root;
      if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) {
        return { ok: false, reason: "not issued by our authority" };
      }
      if (Date.parse(certificate.validTo) < clock.nowMs()) return { ok: false, reason: "certificate has expired" };
      if (Date.parse(certificate.validFrom) > clock.nowMs())
        return { ok: false, reason: "certificate is not yet valid" };
    }
    const nodeId = /^CN=(.+)$/m.exec(chain[0]?.subject ?? "")?.[1] ?? "";
    if (expectedNodeId !== undefined && nodeId !== expectedNodeId) {
      return { ok: false, reason: `certificate of ${nodeId}, expected ${expectedNodeId}` };
    }
    return { ok: true, nodeId };
  };
}
