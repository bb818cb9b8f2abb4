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
 * A party that changes messages before it signs them, accuses nobody, and goes on as if what it sent were the truth:
 * its own later messages fit what the others saw.
 */
export function lying<Pub, Secret, Out>(protocol: Protocol<Pub, Secret, Out>, lies: Lies): Protocol<Pub, Secret, Out> {
  return {
    ...protocol,
    *run(participant, secret): Steps<Pub, Out> {
      const steps = protocol.run(participant, secret);
      let input: unknown;
      for (;;) {
        const next = steps.next(input);
        if (next.done === true) return next.value;
        const effect: Effect<Pub> = next.value;
        if (effect.kind === "verify") {
          input = undefined;
          continue;
        }
        const lie = lies[effect.round.id];
        if (effect.kind === "send" && lie !== undefined) {
          input = yield {
            ...effect,
            compose(to) {
              const message = structuredClone(effect.compose(to)) as MessageShape<DescMessage>;
              lie(message, to);
              return message;
            },
          };
        } else input = yield effect;
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
  /** Who is named; the liars when absent. */
  readonly culprits?: readonly number[];
  /** Honest parties that can see it; all of them when absent. */
  readonly victims?: readonly number[];
}

/** Runs with liars; every honest party that can see the lie names exactly the culprits, and a judge agrees. */
export function assertNamed<Pub, Secret, Out>(run: Run<Pub, Secret, Out>, lie: Lie): Caught<Pub, Out> {
  const liars = Object.keys(lie.liars).map(Number);
  const quick = remembering(run);
  const cheats = new Map(Object.entries(lie.liars).map(([id, lies]) => [Number(id), lying(quick.protocol, lies)]));
  const outcome = simulate({ ...quick, cheats });
  const expected = [...(lie.culprits ?? liars)].sort().map((id) => `node-${id}`);
  const found: Evidence[] = [];
  const context = { ...(outcome.context as SessionContext<Pub>), pub: run.pub };
  for (const id of lie.victims ?? run.ids.filter((party) => !liars.includes(party))) {
    const progress = outcome.progress.get(partyId(id));
    assert.ok(progress?.state === "aborted", `party ${id} is ${progress?.state}`);
    assert.ok(progress.fault instanceof PeerFault, `party ${id}: ${progress.fault.message}`);
    assert.deepEqual([...progress.fault.culprits].sort(), expected);
    for (const evidence of evidenceOf(progress)) {
      assert.equal(evidence.check, lie.check);
      assert.ok(judged(run.protocol, context, evidence), "the judge agrees");
      for (const framed of run.ids.filter((party) => party !== evidence.accused)) {
        assert.equal(judged(run.protocol, context, { ...evidence, accused: framed }), false, "nobody else is guilty");
      }
      found.push(evidence);
    }
  }
  assert.ok(found.length > 0);
  return { outcome, context, evidence: found };
}

export interface Caught<Pub, Out> {
  readonly outcome: Outcome<Out>;
  readonly context: SessionContext<Pub>;
  readonly evidence: readonly Evidence[];
}

/**
 * Every accusation that can be put together from a session's own envelopes against its honest parties: each check, each
 * accuser. A judge must reject them all. Returns how many there were.
 */
export function assertNobodyIsFramed<Pub, Secret, Out>(
  run: Run<Pub, Secret, Out>,
  outcome: Outcome<Out>,
  honest: readonly number[],
): number {
  const envelopes = new Map<string, Envelope>();
  for (const { bytes } of outcome.delivered) {
    const envelope = decodeEnvelope(bytes);
    if (envelope !== undefined) envelopes.set(`${envelope.round}/${envelope.sender}/${envelope.recipient}`, envelope);
  }
  const context = { ...(outcome.context as SessionContext<Pub>), pub: run.pub };
  const broadcasts = (step: number) =>
    run.protocol.rounds
      .filter((round) => round.delivery === "broadcast" && round.step < step)
      .flatMap((round) => run.ids.map((sender) => envelopes.get(`${round.id}/${sender}/0`)));
  let count = 0;
  for (const check of run.protocol.checks) {
    for (const accused of honest) {
      for (const accuser of run.ids.filter((party) => party !== accused)) {
        const slots = check.needs.flatMap(({ round, from }) => {
          const senders = from === "everyone" ? run.ids : [from === "accused" ? accused : accuser];
          return senders.map((sender) => `${round.id}/${sender}/${round.delivery === "direct" ? accuser : 0}`);
        });
        const needed = [...new Set(slots)].map((slot) => envelopes.get(slot));
        if (needed.some((envelope) => envelope === undefined)) continue;
        const full = needed.flatMap((envelope) => (envelope === undefined ? [] : [envelope]));
        const rest = broadcasts(check.needs[0].round.step).flatMap((envelope) =>
          envelope === undefined || full.includes(envelope) ? [] : [withholdPayload(envelope)],
        );
        const exhibits = [...full, ...rest];
        const accusation = create(EvidenceSchema, {
          ssid: exhibits[0]?.ssid ?? new Uint8Array(),
          check: check.id,
          accused,
          accuser,
          exhibits,
        });
        assert.equal(judged(run.protocol, context, accusation), false, `${check.id} frames party ${accused}`);
        count += 1;
      }
    }
  }
  return count;
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
