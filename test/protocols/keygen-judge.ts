// A judge as a process of its own: reads public facts and evidence from standard input, prints its verdict.
import { fromJsonString } from "@bufbuild/protobuf";
import { EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { type KeygenParameters, keygen } from "../../src/protocols/keygen.js";
import { judge } from "../../src/session/evidence.js";
import { Group, partyId } from "../../src/session/party.js";
import { sessionDigest } from "../../src/session/session.js";

interface Input {
  readonly sessionId: string;
  readonly parties: readonly { readonly id: number; readonly nodeId: string; readonly identityKey: string }[];
  readonly pub: KeygenParameters;
  readonly evidence: string;
}

const fromHex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
const input = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Input;
const group = new Group(
  input.parties.map(({ id, nodeId, identityKey }) => ({ id: partyId(id), nodeId, identityKey: fromHex(identityKey) })),
);
const context = { sessionId: fromHex(input.sessionId), group, pub: input.pub };
const trial = {
  protocol: keygen,
  group,
  pub: input.pub,
  shape: keygen.shape(input.pub, group.ids.length),
  ssid: sessionDigest(keygen, context),
};
console.log(judge(trial, fromJsonString(EvidenceSchema, input.evidence)) ? "guilty" : "not proved");
