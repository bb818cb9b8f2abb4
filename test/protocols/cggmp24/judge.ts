// A judge as a process of its own: reads public facts and evidence of a presigning session from standard input.
import { fromJsonString } from "@bufbuild/protobuf";
import { EvidenceSchema } from "../../../gen/mpcwallet/session/v1/session_pb.js";
import { Point } from "../../../src/crypto/curve.js";
import { PaillierKey } from "../../../src/crypto/paillier.js";
import { RingPedersenSetup } from "../../../src/crypto/ring-pedersen.js";
import { type SecurityProfile, security112 } from "../../../src/crypto/security-profile.js";
import { presign } from "../../../src/protocols/cggmp24/presign.js";
import { judge } from "../../../src/session/evidence.js";
import { Group, partyId } from "../../../src/session/party.js";
import { sessionDigest } from "../../../src/session/session.js";

/** Numbers and bytes in hexadecimal. */
export interface JudgeInput {
  readonly sessionId: string;
  readonly parties: readonly { readonly id: number; readonly nodeId: string; readonly identityKey: string }[];
  readonly binaryRepetitions: number;
  readonly threshold: number;
  readonly groupKey: string;
  readonly chainCode: string;
  readonly publicShares: readonly (readonly [number, string])[];
  readonly aux: readonly {
    readonly party: number;
    readonly P: string;
    readonly N: string;
    readonly s: string;
    readonly t: string;
  }[];
  readonly evidence: string;
}

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const number = (hex: string): bigint => BigInt(`0x${hex}`);

const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
const input = JSON.parse(Buffer.concat(chunks).toString("utf8")) as JudgeInput;
const profile: SecurityProfile = { ...security112, binaryRepetitions: input.binaryRepetitions };
const group = new Group(
  input.parties.map(({ id, nodeId, identityKey }) => ({ id: partyId(id), nodeId, identityKey: bytes(identityKey) })),
);
const pub = {
  key: {
    scheme: "cggmp24" as const,
    threshold: input.threshold,
    publicShares: new Map(input.publicShares.map(([party, point]) => [partyId(party), Point.parse(bytes(point))])),
    groupKey: Point.parse(bytes(input.groupKey)),
    chainCode: bytes(input.chainCode),
  },
  aux: {
    profile,
    parties: new Map(
      input.aux.map(({ party, P, N, s, t }) => [
        partyId(party),
        {
          paillier: new PaillierKey(number(P), profile),
          ringPedersen: new RingPedersenSetup({ N: number(N), s: number(s), t: number(t) }, profile),
        },
      ]),
    ),
  },
};
const ssid = sessionDigest(presign, { sessionId: bytes(input.sessionId), group, pub });
const trial = { protocol: presign, group, pub, shape: presign.shape(pub, group.ids.length), ssid };
console.log(judge(trial, fromJsonString(EvidenceSchema, input.evidence)) ? "guilty" : "not proved");
