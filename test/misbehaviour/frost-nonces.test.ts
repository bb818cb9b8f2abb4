import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { NonceCommitmentsSchema } from "../../gen/mpcwallet/frost/v1/frost_pb.js";
import { Scalar } from "../../src/crypto/curve.js";
import { SigningNonces } from "../../src/protocols/frost/nonces.js";
import { type NoncePreparation, prepareNonces } from "../../src/protocols/frost/prepare-nonces.js";
import { PreparedNonces } from "../../src/protocols/frost/prepared-nonces.js";
import { frostSignPrepared } from "../../src/protocols/frost/sign-prepared.js";
import { decodeEnvelope, encodeEnvelope, signEnvelope } from "../../src/session/envelope.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import { of } from "../protocols/cggmp24/ceremony.js";
import { assertNamed } from "../protocols/cggmp24/dishonesty.js";
import { generate } from "../protocols/frost-ceremony.js";
import { evidenceOf, type Outcome, type Run, SeededRandom, signAs, simulate } from "../session/simulation.js";
import { frostNonces as table } from "./expectations.js";
import { askJudge, describeScene } from "./scene.js";

const CHEAT = 3;
const ids = [1, 2, CHEAT];
const seed = "nonce cheats";
const shares = generate(ids, 3, seed);
const key = of(shares, partyId(1));
const random = new SeededRandom(seed);
const messages = [0, 1].map(() => ({ message: random.bytes(32), bip32Tweak: Scalar.random(random) }));
const authorization = random.bytes(32);

const preparation = (): Run<NoncePreparation, Scalar, readonly PreparedNonces[]> => ({
  protocol: prepareNonces,
  ids,
  pub: { key, count: messages.length },
  secret: (party: PartyId) => of(shares, party).secretShare,
  seed,
});

function madeBy(outcome: Outcome<readonly PreparedNonces[]>, party: number): readonly PreparedNonces[] {
  const progress = outcome.progress.get(partyId(party));
  assert.ok(progress?.state === "done", `party ${party} is ${progress?.state}`);
  return progress.output;
}

/**
 * The honest signers hold a list with a commitment that is not the cheat's own, all under one id. Whatever it is that the
 * cheat signs under this id, it is named then; here it does its best, with the nonces that it has.
 */
function isNamedWhenItSigns(outcome: Outcome<readonly PreparedNonces[]>): void {
  const [first, second, own] = ids.map((party) => madeBy(outcome, party));
  assert.ok(first !== undefined && second !== undefined && own !== undefined);
  const names = (all: readonly PreparedNonces[]) => all.map(({ id }) => Buffer.from(id).toString("hex"));
  assert.deepEqual(names(first), names(second));
  assert.notDeepEqual(names(first), names(own), "the cheat's own commitments are others");
  const passedOff = own.map((real, index) => {
    const { list, keyDigest } = first[index] ?? assert.fail("no such nonces");
    const claimed = list.find(({ party }) => party === CHEAT) ?? assert.fail("the cheat is in the list");
    return new PreparedNonces(
      partyId(CHEAT),
      { keyDigest, list },
      SigningNonces.takeUp(real.take().putAside(), claimed),
    );
  });
  const items = messages.map((item, index) => ({ ...item, noncesId: first[index]?.id ?? new Uint8Array() }));
  const nonces = new Map([first, second, passedOff].map((all, index) => [ids[index] ?? 0, all] as const));
  const { context, evidence } = assertNamed(
    {
      protocol: frostSignPrepared,
      ids,
      pub: { key, items, authorization },
      secret: (party: PartyId) => ({ secretShare: of(shares, party).secretShare, nonces: nonces.get(party) ?? [] }),
      seed,
    },
    { liars: { [CHEAT]: {} }, check: "signature-share" },
  );
  assert.deepEqual(
    askJudge(frostSignPrepared.name, context, evidence),
    evidence.map(() => true),
  );
}

describeScene({
  name: "making nonces ahead, 3-of-3,",
  table,
  cheat: CHEAT,
  // Who publishes a commitment that is not its own keeps the nonces of its own.
  asIfHonest: true,
  unseen: isNamedWhenItSigns,
  run: preparation,
});

describe("making nonces ahead names whoever", () => {
  it("shows different commitments to different signers: nobody keeps any", () => {
    const outcome = simulate({
      ...preparation(),
      dishonest: [CHEAT],
      wire: ({ from, to, bytes }) => {
        const envelope = decodeEnvelope(bytes);
        if (from !== CHEAT || to !== 1 || envelope?.round !== "nonces") return bytes;
        assert.ok(envelope.content.case === "payload");
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
