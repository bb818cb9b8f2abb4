import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import type { Envelope } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { Bug } from "../crypto/fault.js";
import { hashTuple } from "../crypto/transcript.js";
import { envelopeDigest, payloadHash } from "./envelope.js";
import type { PartyId } from "./party.js";
import type { Check, Need, Round, Shape, View } from "./protocol.js";

/** An authentic envelope and what its payload says; `message` is undefined when the payload is malformed or withheld. */
export interface Entry {
  readonly envelope: Envelope;
  readonly digest: Uint8Array;
  readonly message: unknown;
}

/** Where an envelope belongs: one slot holds one envelope. */
export interface Slot {
  readonly round: string;
  readonly sender: number;
  /** 0 for a broadcast. */
  readonly recipient: number;
}

const keyOf = ({ round, sender, recipient }: Slot): string => `${round}/${sender}/${recipient}`;

/** Decodes a payload by its round's rules; undefined when it is malformed. Total. */
export function readPayload(round: Round, envelope: Envelope, shape: Shape): unknown {
  if ((round.delivery === "broadcast") !== (envelope.recipient === 0)) return undefined;
  if (envelope.content.case !== "payload" || envelope.content.value.length > round.maxBytes) return undefined;
  try {
    const message: MessageShape<DescMessage> = fromBinary(round.message, envelope.content.value);
    if (message.$unknown !== undefined && message.$unknown.length > 0) return undefined;
    return round.wellFormed(message, shape) ? message : undefined;
  } catch {
    return undefined;
  }
}

/** The envelopes of one session, one a slot; the live party's own record, or a judge's, built from exhibits. */
export class Record {
  readonly #rounds: readonly Round[];
  readonly #ids: readonly PartyId[];
  readonly #entries = new Map<string, Entry>();

  constructor(rounds: readonly Round[], ids: readonly PartyId[]) {
    this.#rounds = rounds;
    this.#ids = ids;
  }

  entry(slot: Slot): Entry | undefined {
    return this.#entries.get(keyOf(slot));
  }

  /** @param digest of the envelope, where it is known */
  add(slot: Slot, envelope: Envelope, message: unknown, digest = envelopeDigest(envelope)): void {
    this.#entries.set(keyOf(slot), { envelope, digest, message });
  }

  /** Broadcast rounds of the steps below `step`, in the order in which echoes cover them. */
  broadcastsBelow(step: number): readonly Round[] {
    return inEchoOrder(this.#rounds.filter((round) => round.delivery === "broadcast" && round.step < step));
  }

  /** Message of a slot that is known to be filled and well formed. */
  message(slot: Slot): unknown {
    const message = this.entry(slot)?.message;
    if (message === undefined) throw new Bug("a check reads a message that it did not declare", { ...slot });
    return message;
  }

  /** The slots that a check reads, the accused's convicting envelope first. */
  slotsOf(check: Check<never>, accused: PartyId, accuser: PartyId): readonly Slot[] {
    return check.needs.flatMap((need) => slotsOfNeed(need, { accused, accuser, ids: this.#ids }));
  }

  /** What a check sees when `accuser` evaluates it against `accused`. */
  view(accused: PartyId, accuser: PartyId): View {
    return {
      accused: <M extends DescMessage>(round: Round<M>) =>
        this.message({
          round: round.id,
          sender: accused,
          recipient: round.delivery === "direct" ? accuser : 0,
        }) as MessageShape<M>,
      accuser: <M extends DescMessage>(round: Round<M>) =>
        this.message({ round: round.id, sender: accuser, recipient: 0 }) as MessageShape<M>,
      everyone: <M extends DescMessage>(round: Round<M>) =>
        new Map(
          this.#ids.map((sender) => [
            sender,
            this.message({ round: round.id, sender, recipient: 0 }) as MessageShape<M>,
          ]),
        ),
    };
  }
}

/** The order in which an echo covers rounds: by step, then by name. */
export function inEchoOrder(rounds: readonly Round[]): readonly Round[] {
  return [...rounds].sort((a, b) => a.step - b.step || (a.id < b.id ? -1 : 1));
}

function slotsOfNeed(
  { round, from }: Need,
  { accused, accuser, ids }: { accused: PartyId; accuser: PartyId; ids: readonly PartyId[] },
): readonly Slot[] {
  switch (from) {
    case "accused":
      return [{ round: round.id, sender: accused, recipient: round.delivery === "direct" ? accuser : 0 }];
    case "accuser":
      return [{ round: round.id, sender: accuser, recipient: 0 }];
    case "everyone":
      return ids.map((sender) => ({ round: round.id, sender, recipient: 0 }));
  }
}

/** Digest over broadcasts in covering order: what an envelope's `echo` must equal. */
export function echoOf(ssid: Uint8Array, covered: readonly Envelope[]): Uint8Array {
  return hashTuple("echo", [
    ssid,
    ...covered.flatMap((envelope) => [
      envelope.round,
      BigInt(envelope.sender),
      BigInt(envelope.recipient),
      envelope.echo,
      payloadHash(envelope),
    ]),
  ]);
}
