import { create, fromBinary } from "@bufbuild/protobuf";
import {
  type EchoDisclosure,
  EchoDisclosureSchema,
  type Envelope,
  type Evidence,
  EvidenceSchema,
} from "../../gen/mpcwallet/session/v1/session_pb.js";
import { equalBytes } from "../crypto/bytes.js";
import { authenticDigest, envelopeDigest, withholdPayload } from "./envelope.js";
import { type Group, MAX_PARTIES, type PartyId } from "./party.js";
import type { Check, Facts, Protocol, Round, Shape } from "./protocol.js";
import { echoOf, inEchoOrder, Record, readPayload, type Slot } from "./record.js";

/** The engine's own round: after an echo mismatch every party shows which broadcasts it received. */
export const DISCLOSURE: Round<typeof EchoDisclosureSchema> = {
  id: "echo-disclosure",
  step: Number.MAX_SAFE_INTEGER,
  message: EchoDisclosureSchema,
  delivery: "broadcast",
  maxBytes: 1 << 20,
  wellFormed: (message) => message.received.length <= 16 * MAX_PARTIES,
};

/** What evidence is judged against; all of it is public. */
export interface Trial<Pub> {
  readonly protocol: Protocol<Pub, never, unknown>;
  readonly group: Group;
  readonly pub: Pub;
  readonly shape: Shape;
  readonly ssid: Uint8Array;
}

/** One party's disclosure as it was received. */
export interface Disclosed {
  readonly sender: PartyId;
  readonly envelope: Envelope;
}

const slotOf = (envelope: Envelope): Slot => ({
  round: envelope.round,
  sender: envelope.sender,
  recipient: envelope.recipient,
});
const sameSlot = (a: Envelope, b: Envelope): boolean =>
  a.round === b.round && a.sender === b.sender && a.recipient === b.recipient;

// ---------------------------------------------------------------------------------------------- gathering evidence

/** Evidence that `check` fails: what it needs with payloads, and the broadcasts that the accused's echo covers. */
export function evidenceFromCheck<Pub>(check: Check<Pub>, facts: Facts<Pub>, record: Record): Evidence {
  const needed = record.slotsOf(check, facts.accused, facts.accuser);
  const exhibits = new Map<string, Envelope>();
  const put = (slot: Slot, full: boolean) => {
    const entry = record.entry(slot);
    const key = `${slot.round}/${slot.sender}/${slot.recipient}`;
    if (entry !== undefined && !exhibits.has(key)) {
      exhibits.set(key, full ? entry.envelope : withholdPayload(entry.envelope));
    }
  };
  for (const slot of needed) put(slot, true);
  for (const round of record.broadcastsBelow(check.needs[0].round.step)) {
    for (const sender of facts.parties) put({ round: round.id, sender, recipient: 0 }, false);
  }
  return evidence(facts.ssid, check.id, facts, [...exhibits.values()]);
}

export function evidenceOfMalformed(ssid: Uint8Array, envelope: Envelope, accuser: PartyId): Evidence {
  return evidence(ssid, "malformed", { accused: envelope.sender, accuser }, [envelope]);
}

export function evidenceOfEquivocation(
  ssid: Uint8Array,
  [one, other]: readonly [Envelope, Envelope],
  accuser: PartyId,
): Evidence {
  const exhibits = [withholdPayload(one), withholdPayload(other)];
  return evidence(ssid, "equivocation", { accused: one.sender, accuser }, exhibits);
}

/**
 * Everyone whom the disclosures of a dispute convict. With all disclosures of an honest mismatch at hand there is
 * always somebody: if party m's echo X is not the hash of a's list, then either m's own list does not hash to X, or
 * the two lists differ in a slot whose sender signed both envelopes.
 */
export function evidenceFromDispute<Pub>(
  trial: Trial<Pub>,
  disclosures: readonly Disclosed[],
  accuser: PartyId,
): readonly Evidence[] {
  const found: Evidence[] = [];
  const headers: Envelope[] = [];
  for (const { sender, envelope } of disclosures) {
    const misuse = misuseOfDisclosure(trial, envelope);
    if (misuse !== undefined) {
      found.push(evidence(trial.ssid, misuse, { accused: sender, accuser }, [envelope]));
      continue;
    }
    const { received, cause } = readDisclosure(envelope);
    headers.push(...received, ...(cause === undefined ? [] : [cause]), withholdPayload(envelope));
    const liar = cause === undefined ? undefined : disclosures.find((other) => other.sender === cause.sender);
    if (cause !== undefined && liar !== undefined && isFalseEcho(trial, cause, liar.envelope)) {
      found.push(evidence(trial.ssid, "false-echo", { accused: liar.sender, accuser }, [cause, liar.envelope]));
    }
  }
  const first = new Map<string, Envelope>();
  for (const header of headers) {
    const key = `${header.round}/${header.sender}/${header.recipient}`;
    const earlier = first.get(key);
    if (earlier === undefined) first.set(key, header);
    else if (!equalBytes(envelopeDigest(earlier), envelopeDigest(header))) {
      found.push(evidenceOfEquivocation(trial.ssid, [earlier, header], accuser));
    }
  }
  return found.filter(({ accused }) => accused !== accuser);
}

function evidence(
  ssid: Uint8Array,
  check: string,
  blame: { readonly accused: number; readonly accuser: number },
  exhibits: readonly Envelope[],
): Evidence {
  return create(EvidenceSchema, {
    ssid,
    check,
    accused: blame.accused,
    accuser: blame.accuser,
    exhibits: [...exhibits],
  });
}

// ---------------------------------------------------------------------------------------------------------- judging

/**
 * Whether the evidence proves that the accused broke the protocol. A third party runs this with nothing but public
 * facts: the session's protocol, parties with their identity keys, public parameters and session id. Total.
 */
export function judge<Pub>(trial: Trial<Pub>, accusation: Evidence): boolean {
  const { exhibits, accused, accuser } = accusation;
  if (!equalBytes(accusation.ssid, trial.ssid) || !trial.group.has(accuser) || accused === accuser) return false;
  const [first, second] = exhibits;
  // Exhibits are authentic, so whoever sent one is of the group: the accused too.
  if (first === undefined || first.sender !== accused) return false;
  if (!exhibits.every((envelope) => isExhibit(trial, envelope))) return false;
  switch (accusation.check) {
    case "malformed":
      return exhibits.length === 1 && first.content.case === "payload" && isMalformed(trial, first);
    case "equivocation":
      return (
        exhibits.length === 2 &&
        second !== undefined &&
        sameSlot(first, second) &&
        !equalBytes(envelopeDigest(first), envelopeDigest(second))
      );
    case "false-echo":
      return exhibits.length === 2 && second?.sender === accused && isFalseEcho(trial, first, second);
    case "false-alarm":
    case "malformed-disclosure":
      return exhibits.length === 1 && misuseOfDisclosure(trial, first) === accusation.check;
    default:
      return failsCheck(trial, accusation);
  }
}

function isExhibit<Pub>(trial: Trial<Pub>, envelope: Envelope): boolean {
  return equalBytes(envelope.ssid, trial.ssid) && authenticDigest(envelope, trial.group) !== undefined;
}

function isMalformed<Pub>(trial: Trial<Pub>, envelope: Envelope): boolean {
  const round = [...trial.protocol.rounds, DISCLOSURE].find(({ id }) => id === envelope.round);
  return round === undefined || readPayload(round, envelope, trial.shape) === undefined;
}

/** Re-runs a protocol check on the exhibits, believing others' broadcasts only as far as the accused's echo does. */
function failsCheck<Pub>(trial: Trial<Pub>, { check: name, accused, accuser, exhibits }: Evidence): boolean {
  const check = trial.protocol.checks.find(({ id }) => id === name);
  const conviction = exhibits[0];
  if (check === undefined || conviction === undefined || conviction.round !== check.needs[0].round.id) return false;
  const record = new Record(trial.protocol.rounds, trial.group.ids);
  for (const envelope of exhibits) {
    const round = trial.protocol.rounds.find(({ id }) => id === envelope.round);
    if (round === undefined || record.entry(slotOf(envelope)) !== undefined) return false;
    record.add(slotOf(envelope), envelope, readPayload(round, envelope, trial.shape));
  }
  // A round with gaps proves nothing; nor would its hash be an honest party's echo.
  const covered = coveredBroadcasts(trial, exhibits, check.needs[0].round.step);
  if (covered === undefined || !equalBytes(echoOf(trial.ssid, covered), conviction.echo)) return false;
  const parties = { accused: accused as PartyId, accuser: accuser as PartyId };
  const needed = record.slotsOf(check, parties.accused, parties.accuser);
  if (needed.some((slot) => record.entry(slot)?.message === undefined)) return false;
  const facts = { pub: trial.pub, ssid: trial.ssid, parties: trial.group.ids, ...parties };
  return !check.holds(facts, record.view(parties.accused, parties.accuser));
}

/** The broadcasts below a step in echo order; undefined unless every round that appears is complete. */
function coveredBroadcasts<Pub>(
  { protocol, group }: Trial<Pub>,
  envelopes: readonly Envelope[],
  step: number,
): readonly Envelope[] | undefined {
  const covered: Envelope[] = [];
  for (const round of inEchoOrder(protocol.rounds)) {
    if (round.delivery !== "broadcast" || round.step >= step) continue;
    const broadcasts = envelopes.filter((envelope) => envelope.round === round.id && envelope.recipient === 0);
    if (broadcasts.length === 0) continue;
    const sorted = [...broadcasts].sort((a, b) => a.sender - b.sender);
    if (sorted.length !== group.ids.length || sorted.some(({ sender }, i) => sender !== group.ids[i])) return undefined;
    covered.push(...sorted);
  }
  return covered;
}

/** What is wrong with a disclosure by itself; undefined when it is in order. */
function misuseOfDisclosure<Pub>(
  trial: Trial<Pub>,
  envelope: Envelope,
): "malformed-disclosure" | "false-alarm" | undefined {
  if (envelope.round !== DISCLOSURE.id || envelope.content.case !== "payload") return undefined;
  const { received, cause } = readDisclosure(envelope);
  if (cause === undefined || cause.sender === envelope.sender) return "malformed-disclosure";
  if (![...received, cause].every((header) => isExhibit(trial, header))) return "malformed-disclosure";
  const covered = coveredBroadcasts(trial, received, Number.MAX_SAFE_INTEGER);
  if (covered === undefined || covered.length !== received.length) return "malformed-disclosure";
  if (cause.round === DISCLOSURE.id) return undefined;
  const round = trial.protocol.rounds.find(({ id }) => id === cause.round);
  if (round === undefined) return "malformed-disclosure";
  const own = coveredBroadcasts(trial, received, round.step) ?? [];
  return equalBytes(echoOf(trial.ssid, own), cause.echo) ? "false-alarm" : undefined;
}

/** Whether a party's disclosed list does not hash to the echo that it signed in `statement`. */
function isFalseEcho<Pub>(trial: Trial<Pub>, statement: Envelope, disclosure: Envelope): boolean {
  const round = trial.protocol.rounds.find(({ id }) => id === statement.round);
  if (round === undefined || disclosure.round !== DISCLOSURE.id || disclosure.content.case !== "payload") return false;
  const covered = coveredBroadcasts(trial, readDisclosure(disclosure).received, round.step);
  return covered !== undefined && !equalBytes(echoOf(trial.ssid, covered), statement.echo);
}

function readDisclosure(envelope: Envelope): Pick<EchoDisclosure, "received" | "cause"> {
  try {
    return fromBinary(
      EchoDisclosureSchema,
      envelope.content.case === "payload" ? envelope.content.value : new Uint8Array(),
    );
  } catch {
    return { received: [] };
  }
}
