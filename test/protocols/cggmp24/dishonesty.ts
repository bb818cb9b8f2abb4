// How parties lie in the tests of CGGMP24, and what must follow: who is named, that a judge agrees, and that nobody can
// turn the same messages against an honest party.
import assert from "node:assert/strict";
import { create, type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { sha256 } from "@noble/hashes/sha2.js";
import { type Envelope, type Evidence, EvidenceSchema } from "../../../gen/mpcwallet/session/v1/session_pb.js";
import { Point, Scalar, scalar } from "../../../src/crypto/curve.js";
import { PeerFault } from "../../../src/crypto/fault.js";
import { decodeEnvelope, withholdPayload } from "../../../src/session/envelope.js";
import { type PartyId, partyId } from "../../../src/session/party.js";
import type { Check, Effect, Facts, Protocol, Steps, View } from "../../../src/session/protocol.js";
import type { SessionContext } from "../../../src/session/session.js";
import { evidenceOf, judged, type Outcome, type Run, simulate } from "../../session/simulation.js";

// biome-ignore lint/suspicious/noExplicitAny: a lie reaches into messages of every type by field name
export type Loose = any;
export type Change = (message: Loose, to: number) => void;
/** What is changed in each round, by the round's id. */
export type Lies = Readonly<Record<string, Change>>;

/**
 * A party that changes messages before it signs them, and accuses nobody. It goes on as if what it sent were the truth, so
 * that its own later messages fit what the others saw; or, with `asIfHonest`, as if it had sent the honest message.
 */
export function lying<Pub, Secret, Out>(
  protocol: Protocol<Pub, Secret, Out>,
  lies: Lies,
  asIfHonest = false,
): Protocol<Pub, Secret, Out> {
  return {
    ...protocol,
    *run(participant, secret): Steps<Pub, Out> {
      const steps = protocol.run(participant, secret);
      const honest = new Map<string, unknown>();
      let input: unknown;
      for (;;) {
        const next = steps.next(input);
        if (next.done === true) return next.value;
        const effect: Effect<Pub> = next.value;
        if (effect.kind === "verify") {
          input = undefined;
          continue;
        }
        const { id, delivery } = effect.round;
        const lie = lies[id];
        if (effect.kind === "send" && lie !== undefined) {
          input = yield {
            ...effect,
            round: { ...effect.round, maxBytes: Number.MAX_SAFE_INTEGER }, // who lies keeps to no length
            compose(to) {
              const composed = effect.compose(to);
              honest.set(id, composed);
              const message = structuredClone(composed) as MessageShape<DescMessage>;
              lie(message, to);
              return message;
            },
          };
        } else input = yield effect;
        if (asIfHonest && effect.kind === "receive" && delivery === "broadcast" && honest.has(id)) {
          input = new Map(input as ReadonlyMap<PartyId, unknown>).set(participant.self, honest.get(id));
        }
      }
    },
  };
}

/** What a check of broadcasts decided before, for the same broadcasts: parties of one process need not all compute it. */
const decided = new Map<string, boolean>();

function rememberingCheck<Pub>(check: Check<Pub>): Check<Pub> {
  if (check.needs.some(({ round, from }) => round.delivery === "direct" || from === "accuser")) return check;
  return {
    ...check,
    holds(facts: Facts<Pub>, view: View) {
      const hash = sha256.create().update(facts.ssid);
      for (const { round, from } of check.needs) {
        const messages = from === "everyone" ? [...view.everyone(round).values()] : [view.accused(round)];
        for (const message of messages) hash.update(sha256(toBinary(round.message, message)));
      }
      const place = `${check.id}/${facts.accused}/${Buffer.from(hash.digest()).toString("hex")}`;
      const verdict = decided.get(place) ?? check.holds(facts, view);
      decided.set(place, verdict);
      return verdict;
    },
  };
}

/** The run with every check of broadcasts alone computed once for all parties. Judges never remember. */
export function remembering<Pub, Secret, Out>(run: Run<Pub, Secret, Out>): Run<Pub, Secret, Out> {
  const quick = (protocol: Protocol<Pub, Secret, Out>): Protocol<Pub, Secret, Out> => ({
    ...protocol,
    *run(participant, secret): Steps<Pub, Out> {
      const steps = protocol.run(participant, secret);
      let input: unknown;
      for (;;) {
        const next = steps.next(input);
        if (next.done === true) return next.value;
        const effect: Effect<Pub> = next.value;
        input = yield effect.kind === "verify" ? { ...effect, checks: effect.checks.map(rememberingCheck) } : effect;
      }
    },
  });
  return { ...run, protocol: quick(run.protocol) };
}

export interface Lie {
  /** Parties that lie, with what each changes; an empty record looks away only. */
  readonly liars: Readonly<Record<number, Lies>>;
  /** The check that convicts. */
  readonly check: string;
  /** The liars compute what follows from what they should have sent. */
  readonly asIfHonest?: boolean;
  /** Who is named; the liars when absent. */
  readonly culprits?: readonly number[];
  /** Honest parties that can see it, if need be known only after the run; all of them when absent. */
  readonly victims?: readonly number[] | (() => readonly number[]);
}

/** How a session with liars ends. */
export function played<Pub, Secret, Out>(
  run: Run<Pub, Secret, Out>,
  { liars, asIfHonest = false }: { readonly liars: Lie["liars"]; readonly asIfHonest?: boolean },
): Outcome<Out> {
  const quick = remembering(run);
  const cheats = new Map(
    Object.entries(liars).map(([id, lies]) => [Number(id), lying(quick.protocol, lies, asIfHonest)]),
  );
  return simulate({ ...quick, cheats });
}

/** Runs with liars; every honest party that can see the lie names exactly the culprits, by the check. */
export function caught<Pub, Secret, Out>(run: Run<Pub, Secret, Out>, lie: Lie): Caught<Pub, Out> {
  const liars = Object.keys(lie.liars).map(Number);
  const outcome = played(run, lie);
  const victims = typeof lie.victims === "function" ? lie.victims() : lie.victims;
  const expected = [...(lie.culprits ?? liars)].sort().map((id) => `node-${id}`);
  const found: Evidence[] = [];
  for (const id of victims ?? run.ids.filter((party) => !liars.includes(party))) {
    const progress = outcome.progress.get(partyId(id));
    assert.ok(progress?.state === "aborted", `party ${id} is ${progress?.state}`);
    assert.ok(progress.fault instanceof PeerFault, `party ${id}: ${progress.fault.message}`);
    assert.deepEqual([...progress.fault.culprits].sort(), expected);
    for (const evidence of evidenceOf(progress)) {
      assert.equal(evidence.check, lie.check);
      found.push(evidence);
    }
  }
  assert.ok(found.length > 0);
  return { outcome, context: { ...(outcome.context as SessionContext<Pub>), pub: run.pub }, evidence: found };
}

/** The same, and a judge in this process agrees about each piece of evidence. */
export function assertNamed<Pub, Secret, Out>(run: Run<Pub, Secret, Out>, lie: Lie): Caught<Pub, Out> {
  const result = caught(run, lie);
  for (const evidence of result.evidence) {
    assert.ok(judged(run.protocol, result.context, evidence), "the judge agrees");
    for (const framed of run.ids.filter((party) => party !== evidence.accused)) {
      const forged = { ...evidence, accused: framed };
      assert.equal(judged(run.protocol, result.context, forged), false, "nobody else is guilty");
    }
  }
  return result;
}

export interface Caught<Pub, Out> {
  readonly outcome: Outcome<Out>;
  readonly context: SessionContext<Pub>;
  readonly evidence: readonly Evidence[];
}

/** The envelopes of a session by round, sender and recipient; a sender may have several in one slot. */
export type Envelopes = ReadonlyMap<string, readonly Envelope[]>;

/** What was delivered in sessions of one group and id, however they ended. */
export function envelopesOf(outcomes: readonly Pick<Outcome<unknown>, "delivered">[]): Envelopes {
  const slots = new Map<string, Map<string, Envelope>>();
  for (const { bytes } of outcomes.flatMap(({ delivered }) => delivered)) {
    const envelope = decodeEnvelope(bytes);
    if (envelope === undefined) continue;
    const slot = `${envelope.round}/${envelope.sender}/${envelope.recipient}`;
    const different = slots.get(slot) ?? new Map<string, Envelope>();
    slots.set(slot, different.set(Buffer.from(envelope.signature).toString("hex"), envelope));
  }
  return new Map([...slots].map(([slot, envelopes]) => [slot, [...envelopes.values()]]));
}

/**
 * Every accusation that can be put together from a session's own envelopes against its honest parties: each check, each
 * accuser, each of the messages that a dishonest party has signed for a slot.
 */
export function accusations<Pub, Secret, Out>(
  { protocol, ids }: Pick<Run<Pub, Secret, Out>, "protocol" | "ids">,
  envelopes: Envelopes,
  honest: readonly number[],
): readonly Evidence[] {
  const made: Evidence[] = [];
  const broadcasts = (step: number) =>
    protocol.rounds
      .filter((round) => round.delivery === "broadcast" && round.step < step)
      .flatMap((round) => ids.map((sender) => `${round.id}/${sender}/0`));
  for (const check of protocol.checks) {
    for (const accused of honest) {
      for (const accuser of ids.filter((party) => party !== accused)) {
        const needed = new Set(
          check.needs.flatMap(({ round, from }) => {
            const senders = from === "everyone" ? ids : [from === "accused" ? accused : accuser];
            return senders.map((sender) => `${round.id}/${sender}/${round.delivery === "direct" ? accuser : 0}`);
          }),
        );
        if ([...needed].some((slot) => !envelopes.has(slot))) continue;
        const covered = broadcasts(check.needs[0].round.step).filter(
          (slot) => !needed.has(slot) && envelopes.has(slot),
        );
        const slots = [...needed, ...covered];
        const most = Math.max(...slots.map((slot) => envelopes.get(slot)?.length ?? 0));
        for (let index = 0; index < most; index++) {
          const exhibits = slots.flatMap((slot) => {
            const all = envelopes.get(slot) ?? [];
            const envelope = all[Math.min(index, all.length - 1)];
            if (envelope === undefined) return [];
            return [needed.has(slot) ? envelope : withholdPayload(envelope)];
          });
          const ssid = exhibits[0]?.ssid ?? new Uint8Array();
          made.push(create(EvidenceSchema, { ssid, check: check.id, accused, accuser, exhibits }));
        }
      }
    }
  }
  return made;
}

/** A judge rejects every one of them. Returns how many there were. */
export function assertNobodyIsFramed<Pub, Secret, Out>(
  run: Run<Pub, Secret, Out>,
  outcome: Outcome<Out>,
  honest: readonly number[],
): number {
  const context = { ...(outcome.context as SessionContext<Pub>), pub: run.pub };
  const made = accusations(run, envelopesOf([outcome]), honest);
  for (const accusation of made) {
    const { check, accused } = accusation;
    assert.equal(judged(run.protocol, context, accusation), false, `${check} frames party ${accused}`);
  }
  return made.length;
}

// Small changes that keep a field well formed ------------------------------------------------------------------------

/** Another last byte. */
export const flip = (bytes: Uint8Array): void => {
  bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
};
export const otherScalar = (message: { be32: Uint8Array }): void => {
  message.be32 = Scalar.toBytes(scalar(BigInt(`0x${Buffer.from(message.be32).toString("hex")}`) + 1n));
};
export const otherPoint = (message: { sec1: Uint8Array }): void => {
  message.sec1 = Point.parse(message.sec1).plus(Point.base).toBytes();
};

/** Changes whatever stands in the field: bytes, a boolean, a point or a scalar. */
export function change(message: Loose, field: string): void {
  const value = message[field];
  if (value instanceof Uint8Array) flip(value);
  else if (typeof value === "boolean") message[field] = !value;
  else if (value.sec1 !== undefined) otherPoint(value);
  else if (value.be32 !== undefined) otherScalar(value);
  else throw new Error(`no such field: ${field}`);
}

/** The fields of a message that `change` can change. */
export function fieldsOf(schema: DescMessage): readonly string[] {
  return schema.fields.filter(({ fieldKind }) => fieldKind !== "list").map(({ localName }) => localName);
}

export type { PartyId };
