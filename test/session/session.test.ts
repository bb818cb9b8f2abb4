import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  EchoDisclosureSchema,
  type Envelope,
  type Evidence,
  EvidenceSchema,
} from "../../gen/mpcwallet/session/v1/session_pb.js";
import { PeerFault, PeerSilent } from "../../src/crypto/fault.js";
import { type KeygenParameters, keygen } from "../../src/protocols/keygen.js";
import { decodeEnvelope, encodeEnvelope, signEnvelope, withholdPayload } from "../../src/session/envelope.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { type Progress, Session, type SessionContext, sessionDigest } from "../../src/session/session.js";
import {
  type Delivery,
  evidenceOf,
  judged,
  type Run,
  SeededRandom,
  signAs,
  simulate,
  testGroup,
} from "./simulation.js";

const pub: KeygenParameters = { scheme: "frost", threshold: 2, walletId: "wallet" };
const base: Run<KeygenParameters, undefined, unknown> = {
  protocol: keygen,
  ids: [1, 2, 3],
  pub,
  secret: () => undefined,
  seed: "session",
  dishonest: [2, 3],
};

function envelopeOf(bytes: Uint8Array): Envelope {
  const envelope = decodeEnvelope(bytes);
  assert.ok(envelope !== undefined);
  return envelope;
}

/** Re-signs an envelope after a change, as its dishonest sender would. */
function resigned(
  bytes: Uint8Array,
  change: Partial<Pick<Envelope, "round" | "recipient" | "echo">> & { payload?: Uint8Array },
) {
  const envelope = envelopeOf(bytes);
  const payload = envelope.content.case === "payload" ? envelope.content.value : new Uint8Array();
  return encodeEnvelope(
    signEnvelope(
      {
        ssid: envelope.ssid,
        round: change.round ?? envelope.round,
        sender: partyId(envelope.sender),
        recipient: (change.recipient ?? envelope.recipient) as PartyId | 0,
        echo: change.echo ?? envelope.echo,
        payload: change.payload ?? payload,
      },
      signAs(envelope.sender),
    ),
  );
}

const isRound = ({ from, bytes }: Delivery, sender: number, round: string): boolean =>
  from === sender && envelopeOf(bytes).round === round;

function assertNamed(progress: Progress<unknown> | undefined, nodeId: string, check: string): Evidence {
  assert.ok(progress?.state === "aborted" && progress.fault instanceof PeerFault, JSON.stringify(progress?.state));
  assert.deepEqual(progress.fault.culprits, [nodeId]);
  const evidence = evidenceOf(progress).find((item) => item.check === check);
  assert.ok(evidence !== undefined, `evidence is ${evidenceOf(progress).map((item) => item.check)}`);
  return evidence;
}

/** A judge agrees, and not when the evidence is of another session's name or one exhibit stands in it twice. */
function assertJudged(context: SessionContext<KeygenParameters>, evidence: Evidence, what?: string): void {
  assert.ok(judged(keygen, context, evidence), what);
  assert.equal(judged(keygen, context, { ...evidence, ssid: new Uint8Array(32) }), false, what);
  const { exhibits } = evidence;
  for (const again of exhibits) {
    assert.equal(judged(keygen, context, { ...evidence, exhibits: [...exhibits, again] }), false, what);
  }
}

const contextOf = (outcome: { context: SessionContext<unknown> }) =>
  outcome.context as SessionContext<KeygenParameters>;

describe("session", () => {
  it("an equivocating broadcaster is named by both of its own signatures", () => {
    const outcome = simulate({
      ...base,
      wire: (delivery) =>
        isRound(delivery, 3, "commitment") && delivery.to === 1
          ? resigned(delivery.bytes, { payload: Uint8Array.of(0x0a, 32, ...new Uint8Array(32).fill(7)) })
          : delivery.bytes,
    });
    for (const honest of [1, 2]) {
      const evidence = assertNamed(outcome.progress.get(partyId(honest)), "node-3", "equivocation");
      assertJudged(contextOf(outcome), evidence);
    }
  });

  it("two different envelopes in one slot convict at once, an identical one is ignored", () => {
    const [one, other] = [1, 2].map((byte) => Uint8Array.of(0x0a, 32, ...new Uint8Array(32).fill(byte)));
    const context = { sessionId: new Uint8Array(16), group: testGroup([1, 2, 3]), pub };
    const session = new Session(
      { protocol: keygen, context, self: partyId(1), secret: undefined },
      { random: new SeededRandom(1), sign: signAs(1) },
    );
    const first = session.drain()[0]?.bytes ?? new Uint8Array();
    const from3 = (payload: Uint8Array | undefined) => {
      const { ssid, echo } = envelopeOf(first);
      const fields = { ssid, round: "commitment", sender: partyId(3), recipient: 0 as const, echo };
      return encodeEnvelope(signEnvelope({ ...fields, payload: payload ?? new Uint8Array() }, signAs(3)));
    };
    assert.equal(session.receive(from3(one)), "accepted");
    assert.equal(session.receive(from3(one)), "duplicate");
    assert.equal(session.receive(from3(other)), "accepted");
    const evidence = assertNamed(session.progress, "node-3", "equivocation");
    assertJudged(context, evidence);
    assert.equal(session.receive(from3(one)), "session-ended");
  });

  it("a false echo is named", () => {
    const outcome = simulate({
      ...base,
      wire: (delivery) =>
        isRound(delivery, 2, "opening")
          ? resigned(delivery.bytes, { echo: new Uint8Array(32).fill(9) })
          : delivery.bytes,
    });
    for (const honest of [1, 3]) {
      const evidence = assertNamed(outcome.progress.get(partyId(honest)), "node-2", "false-echo");
      assertJudged(contextOf(outcome), evidence);
    }
  });

  it("what honest parties say in two sessions convicts nobody in either", () => {
    const outcomes = ["one", "other"].map((seed) => simulate({ ...base, dishonest: [], seed }));
    const said = outcomes.map(({ delivered }): Envelope[] =>
      delivered.filter((d) => d.to === 1 && isRound(d, 2, "commitment")).map(({ bytes }) => envelopeOf(bytes)),
    );
    const names: readonly Uint8Array[] = said.flatMap((all) => all.slice(0, 1).map(({ ssid }) => ssid));
    assert.notDeepEqual(names[0], names[1]);
    const [here = [], there = []] = said.map((all) => all.slice(0, 1));
    const shown: readonly (readonly Envelope[])[] = [[...here, ...there], [...there, ...here], here, there];
    for (const outcome of outcomes) {
      const context = contextOf(outcome);
      for (const ssid of names) {
        for (const exhibits of shown) {
          for (const check of ["equivocation", "malformed", "opens-commitment"]) {
            const accusation = { ssid, check, accused: 2, accuser: 1, exhibits: [...exhibits] };
            assert.equal(judged(keygen, context, create(EvidenceSchema, accusation)), false, check);
          }
        }
      }
    }
  });

  it("nobody is convicted by what another party disclosed", () => {
    const outcome = simulate({ ...base, dishonest: [] });
    const context = contextOf(outcome);
    const sent = (sender: number, round: string) =>
      envelopeOf(outcome.delivered.find((d) => isRound(d, sender, round))?.bytes ?? new Uint8Array());
    const [honest, cheats] = [1, 2].map((party) => sent(party, "opening"));
    assert.ok(honest !== undefined && cheats !== undefined);
    // Party 2 signs that it received nothing, which does not hash to the echo that either of them sent.
    const nothing = envelopeOf(disclose(honest.ssid, [], honest));
    const accuse = (accused: number, exhibits: Envelope[], check = "false-echo"): Evidence =>
      create(EvidenceSchema, { ssid: honest.ssid, check, accused, accuser: 3, exhibits });
    assert.equal(judged(keygen, context, accuse(1, [honest, nothing])), false);
    assert.equal(judged(keygen, context, accuse(1, [nothing, honest])), false);
    assert.equal(judged(keygen, context, accuse(2, [cheats, nothing])), true);
    // Without their payloads disclosures say nothing, and a message of another round is none.
    assert.equal(judged(keygen, context, accuse(2, [cheats, withholdPayload(nothing)])), false);
    assert.equal(judged(keygen, context, accuse(2, [cheats, sent(2, "proof")])), false);
    assert.equal(judged(keygen, context, accuse(2, [nothing, nothing])), false);
    // A list with gaps proves nothing about an echo.
    const gap = envelopeOf(disclose(honest.ssid, [withholdPayload(sent(1, "commitment"))], honest));
    assert.equal(judged(keygen, context, accuse(2, [cheats, gap])), false);
    // That list convicts by itself: each round stands in a disclosure with all its parties.
    assert.equal(judged(keygen, context, accuse(2, [gap], "malformed-disclosure")), true);
    for (const check of ["malformed-disclosure", "false-alarm"]) {
      assert.equal(judged(keygen, context, accuse(1, [honest], check)), false);
      assert.equal(judged(keygen, context, accuse(2, [withholdPayload(gap)], check)), false);
    }
  });

  it("a disclosure of something else than whole rounds of broadcasts is malformed", () => {
    const outcome = simulate({ ...base, dishonest: [] });
    const context = contextOf(outcome);
    const sent = (sender: number, round: string): Envelope =>
      withholdPayload(envelopeOf(outcome.delivered.find((d) => isRound(d, sender, round))?.bytes ?? new Uint8Array()));
    const cause = sent(1, "opening");
    const [one, two, three] = [1, 2, 3].map((party) => sent(party, "commitment"));
    assert.ok(one !== undefined && two !== undefined && three !== undefined);
    const toOne = withholdPayload(envelopeOf(resigned(encodeEnvelope(sent(2, "commitment")), { recipient: 1 })));
    const forged = { ...three, signature: Uint8Array.from(three.signature).fill(1, 5, 6) };
    const verdicts = (received: Envelope[], from = cause): readonly boolean[] =>
      ["malformed-disclosure", "false-alarm"].map((check) => {
        const exhibits = [envelopeOf(disclose(cause.ssid, received, from))];
        const accusation = { ssid: cause.ssid, check, accused: 2, accuser: 3, exhibits };
        return judged(keygen, context, create(EvidenceSchema, accusation));
      });
    assert.deepEqual(verdicts([one, two, three]), [false, true], "in order, but for nothing");
    assert.deepEqual(verdicts([one, one, three]), [true, false], "somebody twice");
    assert.deepEqual(verdicts([one, toOne, three]), [true, false], "a message to one party");
    assert.deepEqual(verdicts([one, two, forged]), [true, false], "what nobody signed");
    assert.deepEqual(verdicts([one, two, three, sent(2, "share")]), [true, false], "more than broadcasts");
    assert.deepEqual(verdicts([one, two, three], { ...cause, round: "proof" }), [true, false], "a forged cause");
    // Another party's disclosure is a cause by itself.
    const alarm = withholdPayload(envelopeOf(disclose(cause.ssid, [], cause, 1)));
    assert.deepEqual(verdicts([one, two, three], alarm), [false, false]);
  });

  it("a needless disclosure is named", () => {
    const causes = { "malformed-disclosure": 2, "false-alarm": 1 } as const;
    for (const [check, causeSender] of Object.entries(causes)) {
      const seen = new Map<string, Envelope>();
      let disclosure: Uint8Array | undefined;
      const outcome = simulate({
        ...base,
        wire: (delivery) => {
          const envelope = envelopeOf(delivery.bytes);
          if (envelope.recipient === 0) seen.set(`${envelope.round}/${envelope.sender}`, envelope);
          // Once party 2 has all it needs for its lie, it sends that in place of everything else.
          const cause = seen.get(`opening/${causeSender}`);
          const received = [1, 2, 3]
            .map((id) => seen.get(`commitment/${id}`))
            .flatMap((e) => (e ? [withholdPayload(e)] : []));
          if (delivery.from !== 2 || cause === undefined || envelope.round === "commitment") {
            return delivery.from === 2 && envelope.round !== "commitment" ? undefined : delivery.bytes;
          }
          disclosure ??= disclose(envelope.ssid, received, cause);
          return disclosure;
        },
      });
      const named = [1, 3].map((honest) => outcome.progress.get(partyId(honest)));
      for (const progress of named) {
        const evidence = assertNamed(progress, "node-2", check);
        assertJudged(contextOf(outcome), evidence);
        assert.equal(judged(keygen, contextOf(outcome), { ...evidence, accused: 1 }), false);
        const other = Object.keys(causes).find((name) => name !== check) ?? "";
        assert.equal(judged(keygen, contextOf(outcome), { ...evidence, check: other }), false);
      }
    }
  });

  it("payloads that do not decode, are too large or belong to no round are evidence", () => {
    const hash = Uint8Array.of(0x0a, 32, ...new Uint8Array(32));
    const cases = {
      undecodable: { payload: Uint8Array.of(0xff) },
      "unknown field": { payload: Uint8Array.of(0x0a, 32, ...new Uint8Array(32), 0x7a, 0x01, 0x00) },
      "too large": { payload: Uint8Array.of(...hash, ...hash) }, // the last of a field counts: it decodes, and is well formed
      "wrong length": { payload: Uint8Array.of(0x0a, 31, ...new Uint8Array(31)) },
      "unknown round": { round: "no-such-round" },
      "broadcast sent to one": { recipient: 1 },
    };
    for (const [name, change] of Object.entries(cases)) {
      const outcome = simulate({
        ...base,
        wire: (d) => (isRound(d, 3, "commitment") && d.to === 1 ? resigned(d.bytes, change) : d.bytes),
      });
      const evidence = assertNamed(outcome.progress.get(partyId(1)), "node-3", "malformed");
      assertJudged(contextOf(outcome), evidence, name);
    }
  });

  it("refuses forged, foreign, replayed and oversized bytes without a change of state", () => {
    const other = simulate({ ...base, seed: "another session" });
    const context = { sessionId: new Uint8Array(16), group: testGroup([1, 2, 3]), pub };
    const start = () =>
      new Session(
        { protocol: keygen, context, self: partyId(1), secret: undefined },
        { random: new SeededRandom(1), sign: signAs(1) },
      );
    const session = start();
    const { ssid, echo } = envelopeOf(session.drain()[0]?.bytes ?? new Uint8Array());
    const payload = Uint8Array.of(0x0a, 32, ...new Uint8Array(32));
    const fields = { ssid, round: "commitment", sender: partyId(2), recipient: 0 as PartyId | 0, echo, payload };
    const good = signEnvelope(fields, signAs(2));
    const before = session.progress;
    const replay = other.delivered.find(({ to }) => to === 1)?.bytes ?? new Uint8Array();
    assert.equal(session.receive(replay), "other-session");
    assert.equal(session.receive(new Uint8Array(10_000_000)), "too-large");
    assert.equal(session.receive(Uint8Array.of(1, 2, 3)), "not-an-envelope");
    assert.equal(session.receive(encodeEnvelope(withholdPayload(good))), "not-an-envelope");
    assert.equal(session.receive(encodeEnvelope(signEnvelope(fields, signAs(3)))), "forged");
    const forSomebodyElse = signEnvelope({ ...fields, round: "share", recipient: partyId(3) }, signAs(2));
    assert.equal(session.receive(encodeEnvelope(forSomebodyElse)), "other-recipient");
    const unknown = signEnvelope({ ...fields, sender: partyId(9) }, signAs(9));
    assert.equal(session.receive(encodeEnvelope(unknown)), "unknown-sender");
    const own = signEnvelope({ ...fields, sender: partyId(1) }, signAs(1));
    assert.equal(session.receive(encodeEnvelope(own)), "unknown-sender");
    // A message moved to another round breaks the signature.
    assert.equal(session.receive(encodeEnvelope({ ...good, round: "opening" })), "forged");
    assert.deepEqual(session.progress, before);
    assert.equal(session.receive(encodeEnvelope(good)), "accepted");
  });

  it("silence is blamed without proof", () => {
    const outcome = simulate({ ...base, wire: (d) => (isRound(d, 2, "proof") ? undefined : d.bytes) });
    for (const waiting of [1, 3]) {
      const progress = outcome.progress.get(partyId(waiting));
      assert.ok(progress?.state === "aborted" && progress.fault instanceof PeerSilent);
      assert.deepEqual(progress.fault.silent, ["node-2"]);
    }
  });

  it("judges reject evidence that was altered, moved to another session, or turned against somebody else", () => {
    const outcome = simulate({
      ...base,
      wire: (d) =>
        isRound(d, 3, "commitment") && d.to === 1 ? resigned(d.bytes, { payload: Uint8Array.of(0xff) }) : d.bytes,
    });
    const context = contextOf(outcome);
    const evidence = assertNamed(outcome.progress.get(partyId(1)), "node-3", "malformed");
    const [exhibit] = evidence.exhibits;
    assert.ok(exhibit !== undefined);
    assert.ok(judged(keygen, context, evidence));
    const forgeries: Record<string, Evidence> = {
      "another accused": { ...evidence, accused: 2 },
      "self-accusation": { ...evidence, accuser: 3 },
      "no exhibit": { ...evidence, exhibits: [] },
      "another check": { ...evidence, check: "opens-commitment" },
      "unknown check": { ...evidence, check: "no-such-check" },
      "payload stripped": { ...evidence, exhibits: [withholdPayload(exhibit)] },
      "payload replaced": {
        ...evidence,
        exhibits: [{ ...exhibit, content: { case: "payload", value: Uint8Array.of(1) } }],
      },
      "an honest envelope": {
        ...evidence,
        accused: 2,
        exhibits: [envelopeOf(outcome.delivered.find((d) => isRound(d, 2, "commitment"))?.bytes ?? new Uint8Array())],
      },
    };
    for (const [name, forged] of Object.entries(forgeries)) assert.equal(judged(keygen, context, forged), false, name);
    const elsewhere = { ...context, sessionId: new Uint8Array(16).fill(1) };
    assert.equal(judged(keygen, elsewhere, evidence), false);
    assert.notDeepEqual(sessionDigest(keygen, elsewhere), sessionDigest(keygen, context));
  });

  it("the session digest binds protocol, parties, threshold, scheme and wallet", () => {
    const context = { sessionId: new Uint8Array(16), group: testGroup([1, 2, 3]), pub };
    const digests = [
      sessionDigest(keygen, context),
      sessionDigest({ ...keygen, name: "keygen/2" }, context),
      sessionDigest(keygen, { ...context, group: testGroup([1, 2, 4]) }),
      sessionDigest(keygen, { ...context, pub: { ...pub, threshold: 3 } }),
      sessionDigest(keygen, { ...context, pub: { ...pub, scheme: "cggmp24" } }),
      sessionDigest(keygen, { ...context, pub: { ...pub, walletId: "other" } }),
    ].map((digest) => Buffer.from(digest).toString("hex"));
    assert.equal(new Set(digests).size, digests.length);
  });
});

/** An echo disclosure that party 2, or another, signs although nothing was amiss. */
function disclose(ssid: Uint8Array, received: Envelope[], cause: Envelope, sender = 2): Uint8Array {
  const message = create(EchoDisclosureSchema, { received, cause: withholdPayload(cause) });
  const payload = toBinary(EchoDisclosureSchema, message);
  const fields = {
    ssid,
    round: "echo-disclosure",
    sender: partyId(sender),
    recipient: 0 as const,
    echo: new Uint8Array(32),
  };
  return encodeEnvelope(signEnvelope({ ...fields, payload }, signAs(sender)));
}
