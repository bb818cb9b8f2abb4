import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FacProofSchema, ModEntrySchema } from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { PeerFault } from "../../../src/crypto/fault.js";
import { toBytes, toInteger } from "../../../src/crypto/modulus.js";
import { security112 } from "../../../src/crypto/security-profile.js";
import { type AuxPrimes, auxCommitmentHash } from "../../../src/protocols/cggmp24/aux-info.js";
import { decodeAuxInfo, encodeAuxInfo, epochId } from "../../../src/protocols/cggmp24/aux-record.js";
import { partyId } from "../../../src/session/party.js";
import { type SessionContext, sessionDigest } from "../../../src/session/session.js";
import { testPrimes } from "../../fixtures/parties.js";
import { evidenceOf, judged, outputs, SeededRandom, simulate, testGroup } from "../../session/simulation.js";
import { auxRun, generateKey, of } from "./ceremony.js";
import {
  assertNamed,
  assertNobodyIsFramed,
  change,
  fieldsOf,
  flip,
  type Lies,
  type Loose,
  remembering,
} from "./dishonesty.js";
import { rememberPowers } from "./remembered-powers.js";

rememberPowers();

const CHEAT = 3;
const ids = [1, 2, 3];
const BYTES = 256;
const key = of(generateKey(ids, 2, "aux misbehaviour"), partyId(1));
const run = auxRun(ids, key, security112, "aux misbehaviour");
const ssid = sessionDigest(run.protocol, {
  sessionId: new SeededRandom(`${run.seed}/session`).bytes(16),
  group: testGroup(ids),
  pub: run.pub,
});
const cheat = (lies: Lies, check: string) => assertNamed(run, { liars: { [CHEAT]: lies }, check });

// A pair is enough where a field of a proof is changed.
const pair = auxRun([1, CHEAT], key, security112, "aux misbehaviour of two");
const pairCheat = (lies: Lies, check: string) => assertNamed(pair, { liars: { [CHEAT]: lies }, check });

/** Openings of the honest run, which seeds repeat. */
const openings = new Map<number, Loose>();
const honest = simulate(
  remembering({
    ...run,
    cheats: new Map(ids.map((id) => [id, rehearsing(id)])),
  }),
);
function rehearsing(id: number) {
  return {
    ...run.protocol,
    *run(...args: Parameters<typeof run.protocol.run>) {
      const steps = run.protocol.run(...args);
      let input: unknown;
      for (;;) {
        const next = steps.next(input);
        if (next.done === true) return next.value;
        if (next.value.kind === "send" && next.value.round.id === "aux-opening")
          openings.set(id, next.value.compose(0));
        input = yield next.value;
      }
    },
  };
}

/** Commits to the changed opening, so that only the opening itself can be wrong. */
function opens(lie: (opening: Loose) => void): Lies {
  const opening = structuredClone(of(openings, CHEAT));
  lie(opening);
  return {
    "aux-commitment": (m: Loose) => (m.hash = auxCommitmentHash(ssid, partyId(CHEAT), opening)),
    "aux-opening": (m: Loose) => lie(m),
  };
}

describe("aux info", () => {
  it("all parties agree on all keys and the epoch; the record round-trips and shows no factor", () => {
    const all = outputs(honest);
    const epochs = new Set([...all.values()].map((aux) => Buffer.from(epochId(key, aux)).toString("hex")));
    assert.equal(epochs.size, 1);
    for (const aux of all.values()) {
      const again = decodeAuxInfo(encodeAuxInfo(aux));
      assert.equal(again.paillier.p, aux.paillier.p);
      assert.equal(again.ringPedersen.lambda, aux.ringPedersen.lambda);
      assert.deepEqual(epochId(key, again), epochId(key, aux));
      assert.ok(!JSON.stringify([...aux.parties.values()], replacer).includes(aux.paillier.p.toString()));
      const bytes = encodeAuxInfo({ ...aux, self: partyId((aux.self % 3) + 1) });
      assert.throws(() => decodeAuxInfo(bytes), { code: "aux-info" });
    }
  });
  it("an honest session's messages frame nobody", () => {
    assert.ok(assertNobodyIsFramed(run, honest, ids) >= 30);
  });
});
const replacer = (_: string, value: unknown): unknown => (typeof value === "bigint" ? value.toString() : value);

describe("aux info, openings, names whoever", () => {
  it("commits to something else", () => {
    cheat({ "aux-commitment": (m: Loose) => flip(m.hash) }, "aux-opens-commitment");
  });
  for (const field of ["paillierModulus", "ringPedersenModulus", "ringPedersenS", "ringPedersenT", "rid", "blinding"]) {
    it(`opens another ${field}`, () => {
      pairCheat({ "aux-opening": (m: Loose) => change(m, field) }, "aux-opens-commitment");
    });
  }
  for (const field of ["mask", "response"]) {
    it(`opens another ${field} of its parameters' proof`, () => {
      cheat({ "aux-opening": (m: Loose) => flip(m.parametersProof.entries[5][field]) }, "aux-opens-commitment");
    });
    it(`proves its parameters wrongly: ${field}`, () => {
      cheat(
        opens((m) => flip(m.parametersProof.entries[5][field])),
        "aux-parameters",
      );
    });
  }
  const wrong: Readonly<Record<string, (m: Loose) => void>> = {
    "an even Paillier modulus": (m) => flip(m.paillierModulus),
    "a Paillier modulus of 2040 bits": (m) => (m.paillierModulus[0] = 0),
    "a Paillier modulus in a short field": (m) => (m.paillierModulus = m.paillierModulus.subarray(1)),
    "one modulus for both": (m) => (m.paillierModulus = m.ringPedersenModulus),
    "an even Ring-Pedersen modulus": (m) => flip(m.ringPedersenModulus),
    "a Ring-Pedersen modulus of 2040 bits": (m) => (m.ringPedersenModulus[0] = 0),
    "s = 0": (m) => m.ringPedersenS.fill(0),
    "t = 1": (m) => (m.ringPedersenT = toBytes(1n, BYTES)),
    "t = -1": (m) => (m.ringPedersenT = toBytes(toInteger(m.ringPedersenModulus) - 1n, BYTES)),
    "an s outside the group of t": (m) => {
      const N = toInteger(m.ringPedersenModulus);
      m.ringPedersenS = toBytes(N - toInteger(m.ringPedersenS), BYTES); // t is a square and -1 is none
    },
    "another s in the group of t": (m) => {
      const N = toInteger(m.ringPedersenModulus);
      m.ringPedersenS = toBytes((toInteger(m.ringPedersenS) * toInteger(m.ringPedersenT)) % N, BYTES);
    },
    "127 repetitions": (m) => m.parametersProof.entries.pop(),
    "129 repetitions": (m) => m.parametersProof.entries.push(m.parametersProof.entries[0]),
    "no repetition": (m) => (m.parametersProof.entries = []),
  };
  for (const [name, lie] of Object.entries(wrong)) {
    it(`opens ${name}`, () => {
      cheat(opens(lie), "aux-parameters");
    });
  }
  it("opens without a proof, with a short rid", () => {
    cheat({ "aux-opening": (m: Loose) => delete m.parametersProof }, "malformed");
    cheat({ "aux-opening": (m: Loose) => (m.rid = m.rid.subarray(1)) }, "malformed");
  });
});

describe("aux info, proofs, names whoever", () => {
  for (const field of fieldsOf(ModEntrySchema)) {
    it(`changes ${field} of an entry for its Paillier modulus`, () => {
      pairCheat({ "aux-proof": (m: Loose) => change(m.paillierProof.entries[77], field) }, "aux-knows-factors");
    });
  }
  it("changes w, the root, or the number of entries", () => {
    pairCheat({ "aux-proof": (m: Loose) => flip(m.paillierProof.nonresidue) }, "aux-knows-factors");
    pairCheat({ "aux-proof": (m: Loose) => flip(m.ringPedersenRoot) }, "aux-knows-factors");
    pairCheat(
      { "aux-proof": (m: Loose) => (m.ringPedersenRoot = m.ringPedersenRoot.subarray(1)) },
      "aux-knows-factors",
    );
    pairCheat({ "aux-proof": (m: Loose) => m.paillierProof.entries.pop() }, "aux-knows-factors");
    pairCheat({ "aux-proof": (m: Loose) => delete m.paillierProof }, "malformed");
  });
  for (const field of fieldsOf(FacProofSchema)) {
    it(`changes ${field} of its proof for the factors`, () => {
      pairCheat({ "aux-factor-proof": (m: Loose) => change(m.proof, field) }, "aux-no-small-factor");
    });
  }
  it("sends no proof for the factors, or a wrong one to one party only", () => {
    cheat({ "aux-factor-proof": (m: Loose) => delete m.proof }, "malformed");
    assertNamed(run, {
      liars: { [CHEAT]: { "aux-factor-proof": (m: Loose, to) => (to === 1 ? flip(m.proof.commitmentP) : undefined) } },
      check: "aux-no-small-factor",
      victims: [1],
    });
  });
});

describe("aux info, shared moduli", () => {
  it("names who copied another party's Paillier modulus, and not who made it", () => {
    const original = of(openings, 1).paillierModulus;
    const { outcome } = cheat(
      opens((m) => (m.paillierModulus = original)),
      "aux-knows-factors",
    );
    assertNobodyIsFramed(run, outcome, [1, 2]);
  });
  it("names who copied another party's Ring-Pedersen parameters with their proof", () => {
    const { ringPedersenModulus, ringPedersenS, ringPedersenT } = of(openings, 1);
    const lie = (m: Loose) => Object.assign(m, { ringPedersenModulus, ringPedersenS, ringPedersenT });
    cheat(opens(lie), "aux-parameters"); // a proof is bound to its prover
  });

  const own = testPrimes(security112, CHEAT);
  const other = testPrimes(security112, 2);
  const shared: Readonly<Record<string, AuxPrimes>> = {
    "the same Paillier primes": { ...own, paillier: other.paillier },
    "one Paillier prime": { ...own, paillier: { p: own.paillier.p, q: other.paillier.q } },
    "the same Ring-Pedersen primes": { ...own, ringPedersen: other.ringPedersen },
    "a Ring-Pedersen prime as Paillier prime": { ...own, paillier: { p: own.paillier.p, q: other.ringPedersen.p } },
  };
  for (const [name, primes] of Object.entries(shared)) {
    it(`names both parties that know ${name}`, () => {
      const quick = remembering({ ...run, secret: (party) => (party === CHEAT ? primes : run.secret(party)) });
      const outcome = simulate(quick);
      const progress = outcome.progress.get(partyId(1));
      assert.ok(progress?.state === "aborted" && progress.fault instanceof PeerFault);
      assert.deepEqual(progress.fault.culprits, ["node-2", "node-3"]);
      for (const evidence of evidenceOf(progress)) {
        assert.equal(evidence.check, "aux-distinct-moduli");
        assert.ok(judged(run.protocol, outcome.context as SessionContext<typeof run.pub>, evidence));
      }
      assertNobodyIsFramed(run, outcome, [1]);
    });
  }
  it("refuses its own primes when they are one modulus", () => {
    const primes = { ...own, paillier: own.ringPedersen };
    const outcome = () =>
      simulate(remembering({ ...run, secret: (party) => (party === CHEAT ? primes : run.secret(party)) }));
    const progress = outcome().progress.get(partyId(1));
    assert.ok(progress?.state === "aborted" && progress.fault instanceof PeerFault);
    assert.deepEqual(progress.fault.culprits, ["node-3"]);
    assert.equal(evidenceOf(progress)[0]?.check, "aux-parameters");
  });
});
