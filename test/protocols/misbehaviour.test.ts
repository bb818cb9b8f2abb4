import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { Scalar, scalar } from "../../src/crypto/curve.js";
import { PeerFault } from "../../src/crypto/fault.js";
import { type FrostSigning, frostSign } from "../../src/protocols/frost/sign.js";
import type { KeyShare } from "../../src/protocols/key-share.js";
import { type KeygenParameters, keygen } from "../../src/protocols/keygen.js";
import { decodeEnvelope, encodeEnvelope, signEnvelope } from "../../src/session/envelope.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import type { Protocol, Round } from "../../src/session/protocol.js";
import type { SessionContext } from "../../src/session/session.js";
import { askJudge } from "../misbehaviour/scene.js";
import {
  cheating,
  evidenceOf,
  judged,
  outputs,
  type Run,
  SeededRandom,
  signAs,
  simulate,
} from "../session/simulation.js";

const CHEAT = 3;

function roundOf<Pub>(protocol: Protocol<Pub, never, unknown>, id: string): Round {
  const round = protocol.rounds.find((candidate) => candidate.id === id);
  assert.ok(round !== undefined);
  return round;
}

/** One party cheats in one round; every honest party that can see it names it, and a judge agrees. */
function assertCaught<Pub, Secret, Out>(
  run: Run<Pub, Secret, Out>,
  cheat: {
    round: string;
    check: string;
    change: (message: MessageShape<DescMessage>, to: number) => void;
    victims?: number[];
  },
): Evidence {
  const protocol = cheating(run.protocol, roundOf(run.protocol, cheat.round), (message, to) => {
    const copy = structuredClone(message);
    cheat.change(copy, to);
    return copy;
  });
  const outcome = simulate({ ...run, cheats: new Map([[CHEAT, protocol]]) });
  const honest = (cheat.victims ?? run.ids.filter((id) => id !== CHEAT)).map((id) => partyId(id));
  let last: Evidence | undefined;
  for (const id of honest) {
    const progress = outcome.progress.get(id);
    assert.ok(progress?.state === "aborted" && progress.fault instanceof PeerFault, `party ${id}: ${progress?.state}`);
    assert.deepEqual(progress.fault.culprits, [`node-${CHEAT}`]);
    for (const evidence of evidenceOf(progress)) {
      assert.equal(evidence.check, cheat.check);
      const context = outcome.context as SessionContext<Pub>;
      assert.ok(judged(run.protocol, context, evidence), "the judge agrees");
      const framed = run.ids.find((party) => party !== CHEAT && party !== evidence.accuser) ?? 0;
      assert.equal(judged(run.protocol, context, { ...evidence, accused: framed }), false, "nobody else is guilty");
      last = evidence;
    }
  }
  assert.ok(last !== undefined);
  return last;
}

const keygenRun: Run<KeygenParameters, undefined, KeyShare> = {
  protocol: keygen,
  ids: [1, 2, 3],
  pub: { scheme: "frost", threshold: 2, walletId: "wallet" },
  secret: () => undefined,
  seed: "misbehaviour",
};

// biome-ignore lint/suspicious/noExplicitAny: a cheat reaches into messages of every type by field name
type Loose = any;
const otherScalar = (m: { be32: Uint8Array }): void => {
  m.be32 = Scalar.toBytes(scalar(BigInt(`0x${Buffer.from(m.be32).toString("hex")}`) + 1n));
};

describe("key generation names whoever", () => {
  it("sends a wrong share to one party only: that party alone proves it", () => {
    assertCaught(keygenRun, {
      round: "share",
      check: "share-on-polynomial",
      victims: [2],
      change: (m: Loose, to) => (to === 2 ? otherScalar(m.share) : undefined),
    });
  });
});

/** Three of three sign two messages. */
function frostRun(): Run<FrostSigning, Scalar, readonly Uint8Array[]> {
  const shares = outputs(simulate({ ...keygenRun, pub: { ...keygenRun.pub, threshold: 3 } }));
  const key = shares.get(partyId(1));
  assert.ok(key !== undefined);
  const random = new SeededRandom("frost misbehaviour");
  return {
    protocol: frostSign,
    ids: [1, 2, 3],
    pub: {
      key,
      items: [0, 1].map(() => ({ message: random.bytes(32), bip32Tweak: Scalar.random(random) })),
      authorization: random.bytes(32),
    },
    secret: (party: PartyId) => shares.get(party)?.secretShare ?? Scalar.zero,
    seed: "frost misbehaviour",
  };
}

describe("FROST signing names whoever", () => {
  const signing = frostRun();
  it("swaps its shares", () => {
    assertCaught(signing, { round: "shares", check: "signature-share", change: (m: Loose) => m.shares.reverse() });
  });
});

describe("a judge in another process", () => {
  it("confirms an equivocating broadcaster, and nothing against anybody else", () => {
    // Party 1 gets another commitment than party 2, both signed by the cheat.
    const outcome = simulate({
      ...keygenRun,
      dishonest: [CHEAT],
      wire: ({ from, to, bytes }) => {
        const envelope = decodeEnvelope(bytes);
        if (from !== CHEAT || to !== 1 || envelope?.round !== "commitment") return bytes;
        const payload = Uint8Array.of(0x0a, 32, ...new Uint8Array(32).fill(7));
        const { ssid, round, echo } = envelope;
        const fields = { ssid, round, echo, sender: partyId(CHEAT), recipient: 0 as const, payload };
        return encodeEnvelope(signEnvelope(fields, signAs(CHEAT)));
      },
    });
    const [evidence] = evidenceOf(outcome.progress.get(partyId(1)));
    assert.ok(evidence !== undefined && evidence.check === "equivocation");
    assert.equal(evidence.accused, CHEAT);
    const accusations = [evidence, { ...evidence, accused: 2 }];
    assert.deepEqual(askJudge(keygen.name, outcome.context, accusations), [true, false]);
  });
});
