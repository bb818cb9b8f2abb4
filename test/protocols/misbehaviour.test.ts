import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { type DescMessage, fromBinary, type MessageShape, toBinary, toJsonString } from "@bufbuild/protobuf";
import { NonceCommitmentsSchema } from "../../gen/mpcwallet/frost/v1/frost_pb.js";
import { type Evidence, EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { lagrangeCoefficient, Point, Scalar, scalar } from "../../src/crypto/curve.js";
import { PeerFault } from "../../src/crypto/fault.js";
import { bind } from "../../src/protocols/frost/binding.js";
import { pairToProto } from "../../src/protocols/frost/nonce-round.js";
import { SigningNonces } from "../../src/protocols/frost/nonces.js";
import { prepareNonces } from "../../src/protocols/frost/prepare-nonces.js";
import { signatureShare, verifyShare } from "../../src/protocols/frost/share.js";
import { type FrostSigning, frostSign } from "../../src/protocols/frost/sign.js";
import {
  frostSignPrepared,
  type PreparedSecret,
  type PreparedSigning,
} from "../../src/protocols/frost/sign-prepared.js";
import { outputKey, outputShare, outputVerifyingShare } from "../../src/protocols/frost/taproot.js";
import { encodePublicKeyPackage, type KeyShare } from "../../src/protocols/key-share.js";
import { type KeygenParameters, keygen } from "../../src/protocols/keygen.js";
import { decodeEnvelope, encodeEnvelope, signEnvelope } from "../../src/session/envelope.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import type { Protocol, Round } from "../../src/session/protocol.js";
import type { SessionContext } from "../../src/session/session.js";
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
import { prepare, secretOf } from "./frost-ceremony.js";
import type { JudgeInput } from "./judge-process.js";

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
const flip = (bytes: Uint8Array): void => {
  bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
};
const otherScalar = (m: { be32: Uint8Array }): void => {
  m.be32 = Scalar.toBytes(scalar(BigInt(`0x${Buffer.from(m.be32).toString("hex")}`) + 1n));
};
const otherPoint = (m: { sec1: Uint8Array }): void => {
  m.sec1 = Point.parse(m.sec1).plus(Point.base).toBytes();
};

describe("key generation names whoever", () => {
  const cheats: readonly {
    name: string;
    round: string;
    check: string;
    change: (m: Loose) => void;
    victims?: number[];
  }[] = [
    { name: "commits to something else", round: "commitment", check: "opens-commitment", change: (m) => flip(m.hash) },
    { name: "opens another rid", round: "opening", check: "opens-commitment", change: (m) => flip(m.rid) },
    { name: "opens another chain code", round: "opening", check: "opens-commitment", change: (m) => flip(m.chainCode) },
    {
      name: "opens another constant term",
      round: "opening",
      check: "opens-commitment",
      change: (m) => otherPoint(m.coefficients[0]),
    },
    {
      name: "opens another coefficient",
      round: "opening",
      check: "opens-commitment",
      change: (m) => otherPoint(m.coefficients[1]),
    },
    {
      name: "opens another Schnorr commitment",
      round: "opening",
      check: "opens-commitment",
      change: (m) => otherPoint(m.schnorrCommitment),
    },
    { name: "opens another blinding", round: "opening", check: "opens-commitment", change: (m) => flip(m.blinding) },
    {
      name: "sends a coefficient too many",
      round: "opening",
      check: "malformed",
      change: (m) => m.coefficients.push(m.coefficients[0]),
    },
    { name: "sends a coefficient too few", round: "opening", check: "malformed", change: (m) => m.coefficients.pop() },
    {
      name: "sends a point off the curve",
      round: "opening",
      check: "malformed",
      change: (m) => m.coefficients[0].sec1.fill(5, 1),
    },
    {
      name: "sends an identity point",
      round: "opening",
      check: "malformed",
      change: (m) => (m.coefficients[0].sec1 = Uint8Array.of(0)),
    },
    {
      name: "sends no Schnorr commitment",
      round: "opening",
      check: "malformed",
      change: (m) => delete m.schnorrCommitment,
    },
    { name: "sends a short rid", round: "opening", check: "malformed", change: (m) => (m.rid = m.rid.subarray(1)) },
    { name: "sends a wrong share", round: "share", check: "share-on-polynomial", change: (m) => otherScalar(m.share) },
    { name: "sends a zero share", round: "share", check: "share-on-polynomial", change: (m) => m.share.be32.fill(0) },
    { name: "sends a share of q or more", round: "share", check: "malformed", change: (m) => m.share.be32.fill(0xff) },
    { name: "sends no share", round: "share", check: "malformed", change: (m) => delete m.share },
    { name: "proves something else", round: "proof", check: "knows-share", change: (m) => otherScalar(m.response) },
    {
      name: "sends a response of q or more",
      round: "proof",
      check: "malformed",
      change: (m) => m.response.be32.fill(0xff),
    },
  ];
  for (const { name, ...cheat } of cheats) {
    it(name, () => {
      assertCaught(keygenRun, cheat);
    });
  }

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
  const cheats: readonly { name: string; round: string; check: string; change: (m: Loose) => void }[] = [
    {
      name: "sends a wrong share for the first message",
      round: "shares",
      check: "signature-share",
      change: (m) => otherScalar(m.shares[0]),
    },
    {
      name: "sends a wrong share for the second message",
      round: "shares",
      check: "signature-share",
      change: (m) => otherScalar(m.shares[1]),
    },
    { name: "sends a zero share", round: "shares", check: "signature-share", change: (m) => m.shares[0].be32.fill(0) },
    { name: "swaps its shares", round: "shares", check: "signature-share", change: (m) => m.shares.reverse() },
    { name: "sends a share too few", round: "shares", check: "malformed", change: (m) => m.shares.pop() },
    { name: "sends a share too many", round: "shares", check: "malformed", change: (m) => m.shares.push(m.shares[0]) },
    {
      name: "sends a share of q or more",
      round: "shares",
      check: "malformed",
      change: (m) => m.shares[0].be32.fill(0xff),
    },
    {
      name: "commits to another hiding nonce",
      round: "nonces",
      check: "signature-share",
      change: (m) => otherPoint(m.commitments[0].hiding),
    },
    {
      name: "commits to another binding nonce",
      round: "nonces",
      check: "signature-share",
      change: (m) => otherPoint(m.commitments[1].binding),
    },
    {
      name: "sends an identity nonce",
      round: "nonces",
      check: "malformed",
      change: (m) => (m.commitments[0].hiding.sec1 = Uint8Array.of(0)),
    },
    { name: "sends a commitment too few", round: "nonces", check: "malformed", change: (m) => m.commitments.pop() },
  ];
  for (const { name, ...cheat } of cheats) {
    // A party that publishes a nonce commitment that is not its own cannot sign by itself: its cheat is the mismatch.
    it(name, () => {
      assertCaught(signing, cheat);
    });
  }
});

/** Three of three sign two messages with nonces that they made before. */
function preparedRun(): Run<PreparedSigning, PreparedSecret, readonly Uint8Array[]> {
  const shares = outputs(simulate({ ...keygenRun, pub: { ...keygenRun.pub, threshold: 3 } }));
  const key = shares.get(partyId(1));
  assert.ok(key !== undefined);
  const prepared = prepare(shares, [1, 2, 3], 2, "prepared misbehaviour");
  const random = new SeededRandom("prepared misbehaviour");
  return {
    protocol: frostSignPrepared,
    ids: [1, 2, 3],
    pub: {
      key,
      items: [0, 1].map((index) => ({
        message: random.bytes(32),
        bip32Tweak: Scalar.random(random),
        noncesId: prepared.get(partyId(1))?.[index]?.id ?? new Uint8Array(),
      })),
      authorization: random.bytes(32),
    },
    secret: secretOf(shares, prepared, [0, 1]),
    seed: "prepared misbehaviour",
  };
}

describe("FROST signing with nonces made ahead names whoever", () => {
  const signing = preparedRun();
  const cheats: readonly { name: string; check: string; change: (m: Loose) => void }[] = [
    { name: "sends a wrong share", check: "signature-share", change: (m) => otherScalar(m.shares[0].share) },
    {
      name: "sends a wrong share for the second message",
      check: "signature-share",
      change: (m) => otherScalar(m.shares[1].share),
    },
    { name: "sends a zero share", check: "signature-share", change: (m) => m.shares[0].share.be32.fill(0) },
    { name: "swaps its shares", check: "signature-share", change: (m) => m.shares.reverse() },
    {
      name: "sends a wrong share, and commitments that are no points",
      check: "signature-share",
      change: (m) => {
        otherScalar(m.shares[0].share);
        m.shares[0].commitments[0].binding.sec1.fill(5, 1);
      },
    },
    { name: "sends a commitment too few", check: "malformed", change: (m) => m.shares[0].commitments.pop() },
    { name: "sends a share too few", check: "malformed", change: (m) => m.shares.pop() },
    { name: "sends a share too many", check: "malformed", change: (m) => m.shares.push(m.shares[0]) },
    { name: "sends no share", check: "malformed", change: (m) => delete m.shares[0].share },
    { name: "sends a share of q or more", check: "malformed", change: (m) => m.shares[0].share.be32.fill(0xff) },
  ];
  for (const { name, ...cheat } of cheats) {
    it(name, () => {
      assertCaught(signing, { round: "shares", ...cheat });
    });
  }

  it("signs with fresh nonces, and sends commitments that explain its share", () => {
    const { key, items } = signing.pub;
    const { secretShare, nonces } = signing.secret(partyId(CHEAT));
    assertCaught(signing, {
      round: "shares",
      check: "signature-share",
      change: (m: Loose) => {
        const fresh = SigningNonces.generate(secretShare, new SeededRandom("fresh"));
        const list = (nonces[0]?.list ?? []).map((entry) =>
          entry.party === CHEAT ? { party: entry.party, hiding: fresh.hiding, binding: fresh.binding } : entry,
        );
        const [item] = items;
        assert.ok(item !== undefined);
        const output = outputKey(key, item.bip32Tweak);
        const lambda_i = lagrangeCoefficient(CHEAT, signing.ids);
        const signer = { self: partyId(CHEAT), secretShare: outputShare(secretShare, output), lambda_i, nonces: fresh };
        const binding = bind({ list, Q: output.Q, message: item.message });
        const share = signatureShare(signer, binding);
        const verifyingShare = outputVerifyingShare(key, partyId(CHEAT), output) ?? Point.identity;
        assert.ok(
          verifyShare({ party: partyId(CHEAT), share, verifyingShare, lambda_i }, binding),
          "it does explain it",
        );
        m.shares[0] = { ...m.shares[0], share: Scalar.toProto(share), commitments: list.map(pairToProto) };
      },
    });
  });
});

describe("making nonces ahead names whoever", () => {
  const shares = outputs(simulate(keygenRun));
  const key = shares.get(partyId(1));
  assert.ok(key !== undefined);
  const preparation = {
    protocol: prepareNonces,
    ids: [1, 2, 3],
    pub: { key, count: 2 },
    secret: (party: PartyId) => shares.get(party)?.secretShare ?? Scalar.zero,
    seed: "nonces misbehaviour",
  };
  const cheats: readonly { name: string; change: (m: Loose) => void }[] = [
    { name: "sends an identity nonce", change: (m) => (m.commitments[0].hiding.sec1 = Uint8Array.of(0)) },
    { name: "sends a point off the curve", change: (m) => m.commitments[1].binding.sec1.fill(5, 1) },
    { name: "sends a commitment too few", change: (m) => m.commitments.pop() },
    { name: "sends a commitment too many", change: (m) => m.commitments.push(m.commitments[0]) },
  ];
  for (const { name, change } of cheats) {
    it(name, () => {
      assertCaught(preparation, { round: "nonces", check: "malformed", change });
    });
  }

  it("shows different commitments to different signers: nobody keeps any", () => {
    const outcome = simulate({
      ...preparation,
      dishonest: [CHEAT],
      wire: ({ from, to, bytes }) => {
        const envelope = decodeEnvelope(bytes);
        if (from !== CHEAT || to !== 1 || envelope?.round !== "nonces" || envelope.content.case !== "payload")
          return bytes;
        const message = fromBinary(NonceCommitmentsSchema, envelope.content.value);
        message.commitments.reverse();
        const { ssid, round, echo } = envelope;
        const payload = toBinary(NonceCommitmentsSchema, message);
        const fields = { ssid, round, echo, sender: partyId(CHEAT), recipient: 0 as const, payload };
        return encodeEnvelope(signEnvelope(fields, signAs(CHEAT)));
      },
    });
    for (const id of [1, 2]) {
      const [evidence] = evidenceOf(outcome.progress.get(partyId(id)));
      assert.equal(evidence?.check, "equivocation");
      assert.equal(evidence?.accused, CHEAT);
    }
  });
});

describe("a judge in another process", () => {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
  function ask(context: SessionContext<unknown>, session: JudgeInput["session"], evidence: Evidence): string {
    const parties = context.group.parties.map(({ id, nodeId, identityKey }) => ({
      id,
      nodeId,
      identityKey: hex(identityKey),
    }));
    const input: JudgeInput = {
      sessionId: hex(context.sessionId),
      parties,
      session,
      evidence: toJsonString(EvidenceSchema, evidence),
    };
    const options = { input: JSON.stringify(input), encoding: "utf8" } as const;
    return execFileSync(process.execPath, ["dist/test/protocols/judge-process.js"], options).trim();
  }
  const innocent = ({ accuser }: Evidence): number => [1, 2].find((id) => id !== accuser) ?? 0;
  const keygenSession = { protocol: "keygen", pub: keygenRun.pub } as const;

  it("confirms a bad DKG share, and nothing against anybody else", () => {
    const evidence = assertCaught(keygenRun, {
      round: "share",
      check: "share-on-polynomial",
      change: (m: Loose) => otherScalar(m.share),
    });
    const { context } = simulate(keygenRun);
    assert.equal(ask(context, keygenSession, evidence), "guilty");
    assert.equal(ask(context, keygenSession, { ...evidence, accused: innocent(evidence) }), "not proved");
  });

  it("confirms a bad FROST share, and nothing against anybody else", () => {
    const signing = frostRun();
    const evidence = assertCaught(signing, {
      round: "shares",
      check: "signature-share",
      change: (m: Loose) => otherScalar(m.shares[0]),
    });
    const session = {
      protocol: "frost-sign",
      key: hex(encodePublicKeyPackage(signing.pub.key)),
      items: signing.pub.items.map(({ message, bip32Tweak }) => ({
        message: hex(message),
        bip32Tweak: bip32Tweak.toString(16),
      })),
      authorization: hex(signing.pub.authorization),
    } as const;
    const { context } = simulate(signing);
    assert.equal(ask(context, session, evidence), "guilty");
    assert.equal(ask(context, session, { ...evidence, accused: innocent(evidence) }), "not proved");
    assert.equal(ask(context, { ...session, authorization: "00" }, evidence), "not proved", "another session");
  });

  it("confirms a bad FROST share of the one-round protocol from public facts, and nothing against anybody else", () => {
    const signing = preparedRun();
    const evidence = assertCaught(signing, {
      round: "shares",
      check: "signature-share",
      change: (m: Loose) => otherScalar(m.shares[1].share),
    });
    const session = {
      protocol: "frost-sign-prepared",
      key: hex(encodePublicKeyPackage(signing.pub.key)),
      items: signing.pub.items.map(({ message, bip32Tweak, noncesId }) => ({
        message: hex(message),
        bip32Tweak: bip32Tweak.toString(16),
        noncesId: hex(noncesId),
      })),
      authorization: hex(signing.pub.authorization),
    } as const;
    const { context } = simulate(signing);
    assert.equal(ask(context, session, evidence), "guilty");
    assert.equal(ask(context, session, { ...evidence, accused: innocent(evidence) }), "not proved");
    assert.equal(ask(context, { ...session, authorization: "00" }, evidence), "not proved", "another session");
    const [first, ...rest] = session.items;
    const otherNonces = { ...session, items: [{ ...(first ?? assert.fail()), noncesId: "00".repeat(32) }, ...rest] };
    assert.equal(ask(context, otherNonces, evidence), "not proved", "other nonces");
  });

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
    assert.equal(ask(outcome.context, keygenSession, evidence), "guilty");
    assert.equal(ask(outcome.context, keygenSession, { ...evidence, accused: 2 }), "not proved");
  });
});
