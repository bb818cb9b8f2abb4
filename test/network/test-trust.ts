import type { Clock } from "../../src/crypto/ambient.js";
import { certificatesToPem, parseCertificate } from "../../src/network/identity/certificate.js";
import { PeerIdentityVerifier } from "../../src/network/identity/peer-verifier.js";
import { createRevocationList, RevocationLists } from "../../src/network/identity/revocation-lists.js";
import type { PeerVerifier } from "../../src/network/peer-verifier.js";
import type { TransportCredentials } from "../../src/network/quic-endpoint.js";
import { systemClock, systemRandom } from "../../src/node/ambient.js";
import { issueTo, makeHierarchy } from "./identity/forged-chain.js";

/** What a member judges its peers by, DER as base64, so that it can be sent to another process. */
export interface TestTrust {
  readonly root: string;
  readonly intermediate: string;
  readonly revocationList: string;
  readonly roster: readonly string[];
}

const base64 = (der: Uint8Array) => Buffer.from(der).toString("base64");
const bytes = (text: string) => new Uint8Array(Buffer.from(text, "base64"));

/** Certificates and a revocation list that our own authority code makes at this moment of this process's clock. */
export async function issueNow(
  nodeIds: readonly string[],
): Promise<{ readonly trust: TestTrust; readonly credentialsOf: (nodeId: string) => TransportCredentials }> {
  const issuing = { clock: systemClock, random: systemRandom };
  const { root, intermediate } = await makeHierarchy("now", issuing);
  const credentials = new Map<string, TransportCredentials>();
  for (const nodeId of nodeIds) {
    const { leaf, privateKey } = await issueTo(nodeId, intermediate, { issuing });
    credentials.set(nodeId, {
      certificateChainPem: certificatesToPem([leaf, intermediate.certificate]),
      privateKeyPem: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    });
  }
  const list = await createRevocationList({ issuer: intermediate, number: 1, revocations: [] }, issuing);
  return {
    trust: {
      root: base64(root.certificate.der),
      intermediate: base64(intermediate.certificate.der),
      revocationList: base64(list),
      roster: nodeIds,
    },
    credentialsOf: (nodeId) => {
      const found = credentials.get(nodeId);
      if (found === undefined) throw new Error(`nothing was issued to ${nodeId}`);
      return found;
    },
  };
}

/** The verifier that nodes use, by a clock of the test. @throws when that clock does not take the revocation list */
export function trustVerifier(trust: TestTrust, clock: Pick<Clock, "nowMs">): PeerVerifier {
  const authorities = [trust.root, trust.intermediate].map((der) => {
    const certificate = parseCertificate(bytes(der));
    if (certificate === undefined) throw new Error("the test's certificate does not parse");
    return certificate;
  });
  const revocations = new RevocationLists({ authorities });
  const taken = revocations.accept(bytes(trust.revocationList), clock.nowMs());
  if (!taken.ok) throw new Error(`the revocation list is refused: ${taken.reason}`);
  const verifier = new PeerIdentityVerifier(
    { roots: [bytes(trust.root)], roster: new Set(trust.roster), revocations },
    { clock },
  );
  return (chainDer, expectedNodeId) => verifier.verify(chainDer, expectedNodeId);
}
