// One cheat after another in one protocol: who is named for each, what a judge in a fresh process says of all the evidence,
// and that the same judge cannot be talked into convicting an honest party.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Envelope, type Evidence, EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { withholdPayload } from "../../src/session/envelope.js";
import { DISCLOSURE } from "../../src/session/evidence.js";
import { partyId } from "../../src/session/party.js";
import type { SessionContext } from "../../src/session/session.js";
import {
  accusations,
  caught,
  type Envelopes,
  envelopesOf,
  flip,
  type Lies,
  played,
  remembering,
} from "../protocols/cggmp24/dishonesty.js";
import { rememberPowers } from "../protocols/cggmp24/remembered-powers.js";
import { type Outcome, type Run, simulate } from "../session/simulation.js";
import { type Cheat, cheatsOf, type Loose } from "./cheats.js";
import { checkFor, NOBODY, type Table } from "./expectations.js";
import type { JudgeInput } from "./judge-process.js";
import { toFacts } from "./public-facts.js";

export interface Scene<Pub, Secret, Out> {
  readonly name: string;
  readonly table: Table;
  /** A fresh session each time; the same seed. */
  run(): Run<Pub, Secret, Out>;
  /** Who cheats. */
  readonly cheat: number;
  /** Lies that lead to the rounds of the table, by party. */
  readonly prelude?: Readonly<Record<number, Lies>>;
  /** Who lied in the prelude and is convicted by this check together with the cheat. */
  readonly alsoNamed?: (check: string) => readonly number[];
  /** The cheat computes what follows from what it should have sent. */
  readonly asIfHonest?: boolean;
  /** What becomes of a change that nobody can see, given how the session ended; every honest party is done. */
  readonly unseen?: (outcome: Outcome<Out>) => void;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** Verdicts of a judge in a process of its own, which knows public facts only. */
export function askJudge<Pub>(
  protocol: string,
  context: SessionContext<Pub>,
  evidence: readonly Evidence[],
): readonly boolean[] {
  const input: JudgeInput = {
    protocol,
    sessionId: hex(context.sessionId),
    parties: context.group.parties.map(({ id, nodeId, identityKey }) => ({
      id,
      nodeId,
      identityKey: hex(identityKey),
    })),
    pub: toFacts(context.pub),
    accusations: evidence.map((one) => hex(toBinary(EvidenceSchema, one))),
  };
  const verdicts = execFileSync(process.execPath, ["dist/test/misbehaviour/judge-process.js"], {
    input: JSON.stringify(input),
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  return JSON.parse(verdicts) as readonly boolean[];
}

/** What a liar might make of a proper accusation, or of honest envelopes, to have an honest party convicted. */
export function forgeries(evidence: Evidence, honest: number, envelopes: Envelopes): readonly Evidence[] {
  const { accused: culprit, exhibits } = evidence;
  const all = [...envelopes.values()].flat();
  const own = all.filter(({ sender }) => sender === honest);
  const [first] = own;
  assert.ok(first !== undefined);
  const accuse = (check: string, shown: readonly Envelope[], accuser = culprit): Evidence =>
    create(EvidenceSchema, { ssid: first.ssid, check, accused: honest, accuser, exhibits: [...shown] });
  const tampered = structuredClone(first);
  if (tampered.content.case === "payload") flip(tampered.content.value);
  const impersonated: Envelope = { ...structuredClone(exhibits[0] ?? first), sender: honest };
  const elsewhere = create(EvidenceSchema, { ...accuse("malformed", [first]), ssid: new Uint8Array(32) });
  return [
    { ...evidence, accused: honest }, //                                     the same exhibits, another name
    { ...evidence, accused: honest, exhibits: [first, ...exhibits] }, //     an honest envelope in front
    accuse("malformed", [first]),
    accuse("malformed", [withholdPayload(first)]), //                        nothing to see is not malformed
    accuse("malformed", [tampered]),
    accuse("malformed", [impersonated]),
    elsewhere,
    accuse("malformed", [first], honest), //                                 its own accuser
    accuse("equivocation", [first, first]),
    accuse("equivocation", [first, withholdPayload(first)]),
    accuse("equivocation", [first, tampered]),
    accuse("false-echo", [first, first]),
    accuse("false-alarm", [first]),
    accuse("malformed-disclosure", [first]),
    accuse(DISCLOSURE.id, [first]),
    // Two rounds, two recipients of one round, two senders: no two of a session's envelopes are of one slot.
    ...own.flatMap((one) => all.filter((other) => other !== one).map((other) => accuse("equivocation", [one, other]))),
    ...own.slice(1).map((other) => accuse("false-echo", [first, other])),
  ];
}

/** One test for each cheat of the table, one for all their evidence, one for framings. */
export function describeScene<Pub, Secret, Out>(scene: Scene<Pub, Secret, Out>): void {
  rememberPowers();
  const { name, table, cheat } = scene;
  const guilty: Evidence[] = [];
  const outcomes: Outcome<Out>[] = [];
  let context: SessionContext<Pub> | undefined;

  const attempt = (round: string, { path, what, apply, keepsForm }: Cheat) => {
    const named = path === "" ? "malformed" : table[round]?.[path];
    const check = named === undefined ? undefined : checkFor(named, { what, keepsForm });
    assert.ok(check !== undefined, "nobody says who is named for this");
    const run = scene.run();
    const seenBy = new Set<number>();
    const prelude = scene.prelude?.[cheat] ?? {};
    const lie = (message: Loose, to: number) => {
      prelude[round]?.(message, to);
      if (apply(message)) for (const party of to === 0 ? run.ids : [to]) seenBy.add(party);
    };
    const liars = { ...scene.prelude, [cheat]: { ...prelude, [round]: lie } };
    const honest = run.ids.filter((party) => !(party in liars));
    if (check === NOBODY) {
      assert.ok(scene.unseen !== undefined, "somebody tells what becomes of it");
      const outcome = played(run, { liars, asIfHonest: scene.asIfHonest ?? false });
      for (const party of honest) {
        assert.ok(seenBy.has(party));
        assert.equal(outcome.progress.get(partyId(party))?.state, "done", `party ${party}`);
      }
      scene.unseen(outcome);
      outcomes.push(outcome);
      return;
    }
    const result = caught(run, {
      liars,
      check,
      culprits: check === "malformed" ? [cheat] : [cheat, ...(scene.alsoNamed?.(check) ?? [])],
      victims: () => honest.filter((party) => seenBy.has(party)),
      asIfHonest: scene.asIfHonest ?? false,
    });
    context = result.context;
    guilty.push(...result.evidence);
    if (keepsForm) outcomes.push(result.outcome);
  };

  describe(`${name} names whoever`, () => {
    const rounds = scene.run().protocol.rounds.filter(({ id }) => id in table);
    for (const round of rounds) {
      for (const one of cheatsOf(round.message)) {
        it(`sends ${round.id} with ${one.path === "" ? one.what : `${one.path}: ${one.what}`}`, () => {
          attempt(round.id, one);
        });
      }
    }

    it("a judge in another process agrees about every piece of evidence", () => {
      assert.ok(context !== undefined && guilty.length > rounds.length);
      const verdicts = askJudge(scene.run().protocol.name, context, guilty);
      assert.equal(verdicts.length, guilty.length);
      for (const [index, { check, exhibits }] of guilty.entries()) {
        assert.equal(verdicts[index], true, `${check}, ${exhibits[0]?.round}`);
      }
    });

    it("and hears nobody who accuses itself, is no party of the session or alters the evidence", () => {
      assert.ok(context !== undefined && guilty.length > 0);
      const stranger = Math.max(...context.group.ids) + 1;
      const made = guilty.flatMap((evidence) => {
        const [first, second, ...rest] = evidence.exhibits;
        assert.ok(first !== undefined);
        return [
          { ...evidence, accuser: evidence.accused },
          { ...evidence, accuser: stranger },
          { ...evidence, ssid: new Uint8Array(32) },
          { ...evidence, exhibits: [...evidence.exhibits, first] }, //           one exhibit twice
          { ...evidence, exhibits: evidence.exhibits.map(withholdPayload) }, //  nothing to see
          ...(second === undefined ? [] : [{ ...evidence, exhibits: [second, first, ...rest] }]),
        ];
      });
      const verdicts = askJudge(scene.run().protocol.name, context, made);
      assert.deepEqual(
        verdicts,
        made.map(() => false),
      );
    });

    it("and convicts no honest party, whatever is put together or forged", () => {
      assert.ok(context !== undefined);
      const run = scene.run();
      const quick = remembering(run);
      const fair = simulate(quick);
      const honest = run.ids.filter((party) => party !== cheat && !(party in (scene.prelude ?? {})));
      const fairEnvelopes = envelopesOf([fair]);
      const ofCheat = [...envelopesOf(outcomes)].map(
        ([slot, all]) => [slot, all.filter(({ sender }) => sender === cheat).slice(0, 2)] as const,
      );
      // What honest parties say in an honest session, with everything that the cheat ever signed for its own slots.
      const mixed = new Map(fairEnvelopes);
      for (const [slot, lies] of ofCheat) if (lies.length > 0) mixed.set(slot, [...(mixed.get(slot) ?? []), ...lies]);
      const made = [
        ...accusations(run, mixed, honest),
        ...outcomes.slice(-1).flatMap((outcome) => accusations(run, envelopesOf([outcome]), honest)),
        ...honest.flatMap((party) => forgeries(guilty[0] ?? assert.fail("no evidence"), party, fairEnvelopes)),
        ...guilty.flatMap((evidence) => honest.map((accused) => ({ ...evidence, accused }))),
      ];
      const verdicts = askJudge(run.protocol.name, context, made);
      assert.equal(verdicts.length, made.length);
      for (const [index, { check, accused }] of made.entries()) {
        assert.equal(verdicts[index], false, `accusation ${index}, ${check}, frames party ${accused}`);
      }
    });
  });
}
