// Recorded sessions: what parties said, and what each check makes of it. `node dist/test/fixtures/generate-golden.js` records.
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { decodeEnvelope } from "../../src/session/envelope.js";
import { Group, partyId } from "../../src/session/party.js";
import { Record, readPayload } from "../../src/session/record.js";
import { sessionDigest } from "../../src/session/session.js";
import { protocols } from "../misbehaviour/protocols.js";
import { fromFacts } from "../misbehaviour/public-facts.js";

/** Bytes are base64. */
export interface RecordedSession {
  readonly name: string;
  readonly protocol: string;
  readonly sessionId: string;
  readonly parties: readonly { readonly id: number; readonly nodeId: string; readonly identityKey: string }[];
  /** What `toFacts` makes of the public parameters. */
  readonly pub: unknown;
  readonly ssid: string;
  readonly envelopes: readonly string[];
  /** By check, accused and accuser: whether the check holds. */
  readonly verdicts: Readonly<{ [place: string]: boolean }>;
}

export interface GoldenFile {
  readonly sessions: readonly RecordedSession[];
  /** Stored records, base64. */
  readonly records: Readonly<{ [name: string]: string }>;
  /** Of the key that the records are of, base64. */
  readonly groupKey: string;
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const base64 = (value: Uint8Array): string => Buffer.from(value).toString("base64");

/** Reads a recorded session with today's code: its digest, its payloads encoded again, and the verdict of every check. */
export function replay(session: Omit<RecordedSession, "ssid" | "verdicts">): {
  readonly ssid: string;
  readonly encodedAgain: readonly string[];
  readonly payloads: readonly string[];
  readonly verdicts: Readonly<{ [place: string]: boolean }>;
} {
  const protocol = protocols.find(({ name }) => name === session.protocol);
  if (protocol === undefined) throw new Error(`no such protocol: ${session.protocol}`);
  const group = new Group(
    session.parties.map(({ id, nodeId, identityKey }) => ({
      id: partyId(id),
      nodeId,
      identityKey: bytes(identityKey),
    })),
  );
  const pub = fromFacts(session.pub) as never;
  const ssid = sessionDigest(protocol, { sessionId: bytes(session.sessionId), group, pub });
  const shape = protocol.shape(pub, group.ids.length);
  const record = new Record(protocol.rounds, group.ids);
  const [payloads, encodedAgain]: [string[], string[]] = [[], []];
  for (const envelope of session.envelopes.map((one) => decodeEnvelope(bytes(one)))) {
    const round = protocol.rounds.find(({ id }) => id === envelope?.round);
    if (envelope === undefined || round === undefined || envelope.content.case !== "payload") {
      throw new Error("a recorded envelope does not decode");
    }
    payloads.push(base64(envelope.content.value));
    encodedAgain.push(base64(toBinary(round.message, fromBinary(round.message, envelope.content.value))));
    const { sender, recipient } = envelope;
    record.add({ round: round.id, sender, recipient }, envelope, readPayload(round, envelope, shape));
  }
  const verdicts: { [place: string]: boolean } = {};
  for (const check of protocol.checks) {
    for (const accused of group.ids) {
      for (const accuser of group.others(accused)) {
        const slots = record.slotsOf(check, accused, accuser);
        if (slots.some((slot) => record.entry(slot)?.message === undefined)) continue;
        const facts = { pub, ssid, parties: group.ids, accused, accuser };
        verdicts[`${check.id}/${accused}/${accuser}`] = check.holds(facts, record.view(accused, accuser));
      }
    }
  }
  return { ssid: base64(ssid), encodedAgain, payloads, verdicts };
}
