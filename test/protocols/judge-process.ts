// A judge as a process of its own: reads public facts and evidence from standard input, prints its verdict.
import { fromJsonString } from "@bufbuild/protobuf";
import { EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import type { Scalar } from "../../src/crypto/curve.js";
import { frostSign } from "../../src/protocols/frost/sign.js";
import { frostSignPrepared } from "../../src/protocols/frost/sign-prepared.js";
import { decodePublicKeyPackage } from "../../src/protocols/key-share.js";
import { type KeygenParameters, keygen } from "../../src/protocols/keygen.js";
import { judge } from "../../src/session/evidence.js";
import { Group, partyId } from "../../src/session/party.js";
import type { Protocol } from "../../src/session/protocol.js";
import { sessionDigest } from "../../src/session/session.js";

/** Everything is public; bytes are hex. */
export interface JudgeInput {
  readonly sessionId: string;
  readonly parties: readonly { readonly id: number; readonly nodeId: string; readonly identityKey: string }[];
  readonly session:
    | { readonly protocol: "keygen"; readonly pub: KeygenParameters }
    | {
        readonly protocol: "frost-sign";
        readonly key: string;
        readonly items: readonly { readonly message: string; readonly bip32Tweak: string }[];
        readonly authorization: string;
      }
    | {
        readonly protocol: "frost-sign-prepared";
        readonly key: string;
        readonly items: readonly {
          readonly message: string;
          readonly bip32Tweak: string;
          readonly noncesId: string;
        }[];
        readonly authorization: string;
      };
  readonly evidence: string;
}

const fromHex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
const input = JSON.parse(Buffer.concat(chunks).toString("utf8")) as JudgeInput;
const group = new Group(
  input.parties.map(({ id, nodeId, identityKey }) => ({ id: partyId(id), nodeId, identityKey: fromHex(identityKey) })),
);

function verdict<Pub>(protocol: Protocol<Pub, never, unknown>, pub: Pub): boolean {
  const context = { sessionId: fromHex(input.sessionId), group, pub };
  const shape = protocol.shape(pub, group.ids.length);
  const ssid = sessionDigest(protocol, context);
  return judge({ protocol, group, pub, shape, ssid }, fromJsonString(EvidenceSchema, input.evidence));
}

function guilty(): boolean {
  const { session } = input;
  if (session.protocol === "keygen") return verdict(keygen, session.pub);
  const key = decodePublicKeyPackage(fromHex(session.key));
  const authorization = fromHex(session.authorization);
  const itemOf = ({ message, bip32Tweak }: { readonly message: string; readonly bip32Tweak: string }) => ({
    message: fromHex(message),
    bip32Tweak: BigInt(`0x${bip32Tweak}`) as Scalar,
  });
  if (session.protocol === "frost-sign") {
    return verdict(frostSign, { key, items: session.items.map(itemOf), authorization });
  }
  const items = session.items.map((item) => ({ ...itemOf(item), noncesId: fromHex(item.noncesId) }));
  return verdict(frostSignPrepared, { key, items, authorization });
}

console.log(guilty() ? "guilty" : "not proved");
