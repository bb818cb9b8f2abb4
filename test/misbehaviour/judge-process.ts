// A judge as a process of its own: reads public facts and accusations from standard input, prints one verdict each.
import { fromBinary } from "@bufbuild/protobuf";
import { EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { judge } from "../../src/session/evidence.js";
import { Group, partyId } from "../../src/session/party.js";
import { sessionDigest } from "../../src/session/session.js";
import { protocols } from "./protocols.js";
import { fromFacts } from "./public-facts.js";

/** Everything is public; bytes are hex. */
export interface JudgeInput {
  readonly protocol: string;
  readonly sessionId: string;
  readonly parties: readonly { readonly id: number; readonly nodeId: string; readonly identityKey: string }[];
  /** What `toFacts` made of the public parameters. */
  readonly pub: unknown;
  readonly accusations: readonly string[];
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
const input = JSON.parse(Buffer.concat(chunks).toString("utf8")) as JudgeInput;

const protocol = protocols.find(({ name }) => name === input.protocol);
if (protocol === undefined) throw new Error(`no such protocol: ${input.protocol}`);
const group = new Group(
  input.parties.map(({ id, nodeId, identityKey }) => ({ id: partyId(id), nodeId, identityKey: bytes(identityKey) })),
);
const pub = fromFacts(input.pub) as never;
const ssid = sessionDigest(protocol, { sessionId: bytes(input.sessionId), group, pub });
const trial = { protocol, group, pub, shape: protocol.shape(pub, group.ids.length), ssid };
console.log(
  JSON.stringify(input.accusations.map((accusation) => judge(trial, fromBinary(EvidenceSchema, bytes(accusation))))),
);
