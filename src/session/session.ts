import { create, type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { EchoDisclosureSchema, type Envelope, type Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import type { Random } from "../crypto/ambient.js";
import { equalBytes } from "../crypto/bytes.js";
import { Bug, InvalidInput, PeerFault, PeerSilent } from "../crypto/fault.js";
import { hashTuple } from "../crypto/transcript.js";
import {
  authenticDigest,
  decodeEnvelope,
  ENVELOPE_OVERHEAD_BYTES,
  encodeEnvelope,
  type SignIdentity,
  signEnvelope,
  withholdPayload,
} from "./envelope.js";
import {
  DISCLOSURE,
  evidenceFromCheck,
  evidenceFromDispute,
  evidenceOfEquivocation,
  evidenceOfMalformed,
  type Trial,
} from "./evidence.js";
import { type Group, type PartyId, partyId } from "./party.js";
import type { Check, Protocol, Receive, Round, Send, Shape, Steps, Verify } from "./protocol.js";
import { echoOf, inEchoOrder, Record, readPayload } from "./record.js";

/** What identifies a session to its parties and to a judge; everything here is public. */
export interface SessionContext<Pub> {
  /** 16 random bytes of the initiator. */
  readonly sessionId: Uint8Array;
  readonly group: Group;
  readonly pub: Pub;
}

/** Digest that binds protocol, version, initiator's randomness, parties with their keys, and all public parameters. */
export function sessionDigest<Pub>(protocol: Protocol<Pub, never, unknown>, context: SessionContext<Pub>): Uint8Array {
  return hashTuple("session", [
    protocol.name,
    context.sessionId,
    context.group.parties.map((party) => [BigInt(party.id), party.nodeId, party.identityKey]),
    protocol.digest(context.pub),
  ]);
}

/** Bytes to be delivered: to one party, or to all others when `to` is 0. */
export interface Outgoing {
  readonly to: PartyId | 0;
  readonly bytes: Uint8Array;
}

export type Progress<Out> =
  | { readonly state: "waiting"; readonly round: string; readonly missing: readonly PartyId[] }
  | { readonly state: "done"; readonly output: Out }
  | { readonly state: "aborted"; readonly fault: PeerFault<Evidence> | PeerSilent };

/** Verdict on received bytes. A refusal changes nothing: the bytes were not this session's, or nobody signed them. */
export type Receipt =
  | "accepted"
  | "duplicate"
  | "session-ended"
  | "too-large"
  | "not-an-envelope"
  | "other-session"
  | "other-recipient"
  | "unknown-sender"
  | "forged";

/**
 * One party's run of one protocol: bytes in, bytes out. No clock, no socket, no entropy of its own; the host delivers
 * envelopes in any order and says when it has waited long enough. A session that failed is never resumed.
 */
export class Session<Pub, Secret, Out> {
  readonly ssid: Uint8Array;
  readonly self: PartyId;
  readonly #protocol: Protocol<Pub, Secret, Out>;
  readonly #context: SessionContext<Pub>;
  readonly #sign: SignIdentity;
  readonly #shape: Shape;
  readonly #rounds: ReadonlyMap<string, Round>;
  readonly #record: Record;
  readonly #steps: Steps<Pub, Out>;
  readonly #largestEnvelopeBytes: number;
  readonly #complete = new Set<string>();
  #outbox: Outgoing[] = [];
  #waiting: Round | undefined;
  #disputing = false;
  #end: Exclude<Progress<Out>, { state: "waiting" }> | undefined;

  /** @throws InvalidInput `not-a-party`, `session-id` */
  constructor(
    options: {
      readonly protocol: Protocol<Pub, Secret, Out>;
      readonly context: SessionContext<Pub>;
      readonly self: PartyId;
      readonly secret: Secret;
    },
    dependencies: { readonly random: Random; readonly sign: SignIdentity },
  ) {
    const { protocol, context, self } = options;
    if (!context.group.has(self)) throw new InvalidInput("not-a-party", "this party is not in the group", { self });
    if (context.sessionId.length !== 16) throw new InvalidInput("session-id", "a session id is 16 bytes");
    this.#protocol = protocol;
    this.#context = context;
    this.self = self;
    this.#sign = dependencies.sign;
    this.ssid = sessionDigest(protocol, context);
    this.#shape = protocol.shape(context.pub, context.group.ids.length);
    assertChecksAreJudgeable(protocol.checks);
    this.#rounds = new Map([...protocol.rounds, DISCLOSURE].map((round) => [round.id, round]));
    this.#record = new Record(protocol.rounds, context.group.ids);
    this.#largestEnvelopeBytes =
      Math.max(...[...this.#rounds.values()].map((r) => r.maxBytes)) + ENVELOPE_OVERHEAD_BYTES;
    this.#steps = protocol.run(
      {
        self,
        parties: context.group.ids,
        others: context.group.others(self),
        pub: context.pub,
        ssid: this.ssid,
        random: dependencies.random,
      },
      options.secret,
    );
    this.#advance(undefined);
  }

  get progress(): Progress<Out> {
    if (this.#end !== undefined) return this.#end;
    const round = this.#disputing ? DISCLOSURE : this.#waiting;
    if (round === undefined) throw new Bug("a session that has not ended waits for a round");
    return { state: "waiting", round: round.id, missing: this.#missing(round) };
  }

  /** Takes what is to be sent since the last call. */
  drain(): readonly Outgoing[] {
    const out = this.#outbox;
    this.#outbox = [];
    return out;
  }

  /** Takes in one envelope. Total for hostile bytes; throws only a Bug of the protocol code. */
  receive(bytes: Uint8Array): Receipt {
    if (this.#end !== undefined) return "session-ended";
    if (bytes.length > this.#largestEnvelopeBytes) return "too-large";
    const envelope = decodeEnvelope(bytes);
    if (envelope === undefined || envelope.content.case !== "payload") return "not-an-envelope";
    if (!equalBytes(envelope.ssid, this.ssid)) return "other-session";
    if (envelope.recipient !== 0 && envelope.recipient !== this.self) return "other-recipient";
    if (!this.#context.group.has(envelope.sender) || envelope.sender === this.self) return "unknown-sender";
    const digest = authenticDigest(envelope, this.#context.group);
    return digest === undefined ? "forged" : this.#accept(envelope, digest);
  }

  /** The host has waited long enough: the session ends, and those whose message is missing are named without proof. */
  expire(): void {
    if (this.#end !== undefined) return;
    const progress = this.progress;
    if (progress.state !== "waiting") return;
    if (this.#disputing && this.#concludeDispute()) return;
    const silent = progress.missing.map((id) => this.#nodeId(id));
    this.#abort(
      new PeerSilent("session-timeout", `no message of round ${progress.round} in time`, silent, {
        protocol: this.#protocol.name,
        round: progress.round,
      }),
    );
  }

  #accept(envelope: Envelope, digest: Uint8Array): Receipt {
    const round = this.#rounds.get(envelope.round);
    const slot = { round: envelope.round, sender: envelope.sender, recipient: envelope.recipient };
    if (round === undefined || (round.delivery === "broadcast") !== (envelope.recipient === 0)) {
      this.#convict([evidenceOfMalformed(this.ssid, envelope, this.self)]);
      return "accepted";
    }
    const earlier = this.#record.entry(slot);
    if (earlier !== undefined) {
      if (equalBytes(earlier.digest, digest)) return "duplicate";
      this.#convict([evidenceOfEquivocation(this.ssid, [earlier.envelope, envelope], this.self)]);
      return "accepted";
    }
    const message = readPayload(round, envelope, this.#shape);
    if (message === undefined) {
      this.#convict([evidenceOfMalformed(this.ssid, envelope, this.self)]);
      return "accepted";
    }
    this.#record.add(slot, envelope, message, digest);
    if (round === DISCLOSURE) this.#dispute(envelope);
    else if (round === this.#waiting && this.#missing(round).length === 0) {
      this.#waiting = undefined;
      this.#completeRound(round);
    }
    return "accepted";
  }

  /** Runs the protocol until it waits for messages or ends. */
  #advance(input: unknown): void {
    let value = input;
    while (this.#end === undefined && !this.#disputing) {
      const step = this.#steps.next(value);
      value = undefined;
      if (step.done === true) {
        this.#end = { state: "done", output: step.value };
        return;
      }
      switch (step.value.kind) {
        case "send":
          this.#send(step.value);
          break;
        case "receive":
          if (this.#missing(step.value.round).length > 0) {
            this.#waiting = step.value.round;
            return;
          }
          if (!this.#checkEcho(step.value)) return;
          value = this.#messages(step.value.round);
          break;
        case "verify":
          this.#verify(step.value);
          break;
      }
    }
  }

  #completeRound(round: Round): void {
    if (this.#checkEcho({ kind: "receive", round })) this.#advance(this.#messages(round));
  }

  #send({ round, compose }: Send): void {
    const echo = this.#echo(round.step);
    const recipients = round.delivery === "broadcast" ? [0 as const] : this.#context.group.others(this.self);
    for (const to of recipients) {
      const message = compose(to) as MessageShape<DescMessage>;
      const payload = toBinary(round.message, message);
      if (payload.length > round.maxBytes) throw new Bug("an own message is too large", { round: round.id });
      const fields = { ssid: this.ssid, round: round.id, sender: this.self, recipient: to, echo, payload };
      const envelope = signEnvelope(fields, this.#sign);
      if (to === 0) this.#record.add({ round: round.id, sender: this.self, recipient: 0 }, envelope, message);
      this.#outbox.push({ to, bytes: encodeEnvelope(envelope) });
    }
  }

  /** Compares the echoes of a complete round with the own; a difference stops the protocol and opens a dispute. */
  #checkEcho({ round }: Receive): boolean {
    const expected = this.#echo(round.step);
    this.#complete.add(round.id);
    for (const sender of this.#context.group.others(this.self)) {
      const envelope = this.#record.entry(this.#slot(round, sender))?.envelope;
      if (envelope !== undefined && !equalBytes(envelope.echo, expected)) {
        this.#dispute(envelope);
        return false;
      }
    }
    return true;
  }

  #verify({ checks }: Verify<Pub>): void {
    const evidence: Evidence[] = [];
    for (const accused of this.#context.group.others(this.self)) {
      const view = this.#record.view(accused, this.self);
      const facts = {
        pub: this.#context.pub,
        ssid: this.ssid,
        parties: this.#context.group.ids,
        accused,
        accuser: this.self,
      };
      const failed = checks.find((check) => !check.holds(facts, view));
      if (failed !== undefined) evidence.push(evidenceFromCheck(failed, facts, this.#record));
    }
    if (evidence.length > 0) this.#convict(evidence);
  }

  /** Discloses what was received below the mismatch, then waits for everyone's disclosure. */
  #dispute(cause: Envelope): void {
    if (!this.#disputing) {
      this.#disputing = true;
      this.#waiting = undefined;
      const received = this.#completeBroadcasts(Number.MAX_SAFE_INTEGER).map(withholdPayload);
      const message = create(EchoDisclosureSchema, { received, cause: withholdPayload(cause) });
      const fields = {
        ssid: this.ssid,
        round: DISCLOSURE.id,
        sender: this.self,
        recipient: 0 as const,
        echo: new Uint8Array(32),
        payload: toBinary(EchoDisclosureSchema, message),
      };
      const envelope = signEnvelope(fields, this.#sign);
      this.#record.add(this.#slot(DISCLOSURE, this.self), envelope, message);
      this.#outbox.push({ to: 0, bytes: encodeEnvelope(envelope) });
    }
    this.#concludeIfAllDisclosed();
  }

  #concludeIfAllDisclosed(): void {
    if (this.#end === undefined && this.#missing(DISCLOSURE).length === 0) this.#concludeDispute();
  }

  /** Ends the session when the disclosures at hand convict somebody. */
  #concludeDispute(): boolean {
    const disclosures = this.#context.group.ids.flatMap((sender) => {
      const entry = this.#record.entry(this.#slot(DISCLOSURE, sender));
      return entry === undefined ? [] : [{ sender, envelope: entry.envelope }];
    });
    const evidence = evidenceFromDispute(this.#trial(), disclosures, this.self);
    if (evidence.length > 0) this.#convict(evidence);
    else if (this.#missing(DISCLOSURE).length === 0) {
      throw new Bug("an echo mismatch that the disclosures do not explain");
    }
    return evidence.length > 0;
  }

  #trial(): Trial<Pub> {
    const { group, pub } = this.#context;
    return { protocol: this.#protocol, group, pub, shape: this.#shape, ssid: this.ssid };
  }

  #convict(evidence: readonly Evidence[]): void {
    const culprits = [...new Set(evidence.map(({ accused }) => this.#nodeId(partyId(accused))))];
    const checks = [...new Set(evidence.map(({ check }) => check))];
    this.#abort(
      new PeerFault(
        "protocol-violation",
        `${culprits.join(", ")} broke ${this.#protocol.name}`,
        { culprits, evidence },
        {
          protocol: this.#protocol.name,
          checks,
        },
      ),
    );
  }

  #abort(fault: PeerFault<Evidence> | PeerSilent): void {
    this.#end = { state: "aborted", fault };
    this.#waiting = undefined;
    // Runs the generator's own clean-up, so that secrets of a failed session are dropped.
    this.#steps.return(undefined as never);
  }

  /** Digest of the broadcasts of all steps below `step`. */
  #echo(step: number): Uint8Array {
    const skipped = this.#record
      .broadcastsBelow(step)
      .some(({ id }) => !this.#complete.has(id) && this.#record.entry({ round: id, sender: this.self, recipient: 0 }));
    if (skipped) throw new Bug("a step begins before the earlier broadcasts were received", { step });
    return echoOf(this.ssid, this.#completeBroadcasts(step));
  }

  /** Envelopes of the complete broadcast rounds below `step`, in echo order. */
  #completeBroadcasts(step: number): readonly Envelope[] {
    return inEchoOrder(this.#protocol.rounds)
      .filter((round) => round.delivery === "broadcast" && round.step < step && this.#complete.has(round.id))
      .flatMap((round) => this.#context.group.ids.map((sender) => this.#record.entry(this.#slot(round, sender))))
      .flatMap((entry) => (entry === undefined ? [] : [entry.envelope]));
  }

  #messages(round: Round): ReadonlyMap<PartyId, unknown> {
    const senders = round.delivery === "broadcast" ? this.#context.group.ids : this.#context.group.others(this.self);
    return new Map(senders.map((sender) => [sender, this.#record.message(this.#slot(round, sender))]));
  }

  #missing(round: Round): readonly PartyId[] {
    return this.#context.group
      .others(this.self)
      .filter((sender) => this.#record.entry(this.#slot(round, sender)) === undefined);
  }

  #slot(round: Round, sender: PartyId) {
    return { round: round.id, sender, recipient: round.delivery === "broadcast" ? 0 : this.self };
  }

  #nodeId(id: PartyId): string {
    return this.#context.group.party(id)?.nodeId ?? `party ${id}`;
  }
}

/** A judge believes what others broadcast only when the accused signed their echo, so it must come from lower steps. */
function assertChecksAreJudgeable<Pub>(checks: readonly Check<Pub>[]): void {
  for (const { id, needs } of checks) {
    const [conviction, ...context] = needs;
    if (conviction.from !== "accused")
      throw new Bug("the first need of a check is the accused's message", { check: id });
    for (const need of context) {
      if (need.from === "accused") continue;
      if (need.round.delivery === "direct" || need.round.step >= conviction.round.step) {
        throw new Bug("a check needs broadcasts that the accused has not echoed", { check: id, round: need.round.id });
      }
    }
  }
}
