// `npm run bench -- kernel [security128|security112] [--quick]`: medians, CPU and bytes of layer 1. The proofs of the
// error path (dec, aff-g*) take half a minute at security128; --quick leaves them out.
import { type DescMessage, type MessageShape, toBinary } from "@bufbuild/protobuf";
import * as messages from "../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import { Point, Scalar, scalar } from "../../src/crypto/curve.js";
import { Modulus, randomBelow, randomBits } from "../../src/crypto/modulus.js";
import * as affG from "../../src/crypto/proofs/aff-g.js";
import * as affGStar from "../../src/crypto/proofs/aff-g-star.js";
import type { ProofContext } from "../../src/crypto/proofs/context.js";
import * as dec from "../../src/crypto/proofs/dec.js";
import * as elog from "../../src/crypto/proofs/elog.js";
import * as encElg from "../../src/crypto/proofs/enc-elg.js";
import * as fac from "../../src/crypto/proofs/fac.js";
import * as mod from "../../src/crypto/proofs/mod.js";
import * as prm from "../../src/crypto/proofs/prm.js";
import * as sch from "../../src/crypto/proofs/sch.js";
import { profiles, type SecurityProfile, security128 } from "../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../fixtures/parties.js";

const random = seededRandom("bench");
const g = Point.base;

interface Row {
  readonly name: string;
  readonly medianMs: string;
  readonly cpuMs: string;
  readonly bytes?: number;
}

const rows: Row[] = [];

/** Runs once to warm up, then `count` times; returns the last result. */
function measure<T>(name: string, count: number, run: () => T, bytesOf?: (result: T) => number): T {
  let result = run();
  const cpuStart = process.cpuUsage();
  const times = Array.from({ length: count }, () => {
    const startMs = performance.now();
    result = run();
    return performance.now() - startMs;
  }).sort((a, b) => a - b);
  const { user, system } = process.cpuUsage(cpuStart);
  rows.push({
    name,
    medianMs: (times[count >> 1] ?? 0).toFixed(2),
    cpuMs: ((user + system) / 1000 / count).toFixed(2),
    ...(bytesOf === undefined ? {} : { bytes: bytesOf(result) }),
  });
  return result;
}

const size = <D extends DescMessage>(schema: D, message: MessageShape<D>): number => toBinary(schema, message).length;

function must(valid: boolean): void {
  if (!valid) throw new Error("a proof of the bench does not verify");
}

function kernel(profile: SecurityProfile): void {
  const { secret, setup, trapdoor } = testParty(profile, 1);
  for (const m of [Modulus.of(secret.N), Modulus.of(secret.NN)]) {
    const [base, exponent] = [randomBelow(random, m.value), randomBelow(random, secret.N)];
    measure(`pow, ${profile.modulusBits}-bit exponent mod ${m.bits} bits`, 21, () => m.pow(base, exponent));
  }
  const { key } = testParty(profile, 2);
  const k = Scalar.random(random);
  measure("encrypt, other's key", 11, () => key.encrypt(k, random));
  const { ciphertext } = measure("encrypt, own key", 11, () => secret.encrypt(k, random));
  measure("decrypt", 11, () => secret.decrypt(ciphertext));
  const mask = setup.randomWideMask(random);
  measure("commit, other's parameters", 11, () => setup.commit(k, mask));
  measure("commit, own trapdoor", 11, () => trapdoor.commit(k, mask));
}

function curveProofs(context: ProofContext): void {
  const [x, lambda] = [Scalar.random(random), Scalar.random(random)];
  const { tau, A } = sch.commit(random);
  const known = { X: g.times(x), A };
  const z = measure(
    "sch prove",
    21,
    () => sch.prove(context, known, { x, tau }),
    (proof) => size(messages.SchProofSchema, sch.encode(proof)),
  );
  measure("sch verify", 21, () => must(sch.verify(context, known, z)));
  const [X, h] = [g.times(Scalar.random(random)), g.times(Scalar.random(random))];
  const statement = { L: g.times(lambda), M: g.times(x).plus(X.times(lambda)), X, Y: h.times(x), h };
  const proof = measure(
    "elog prove",
    21,
    () => elog.prove(context, statement, { y: x, lambda }, random),
    (made) => size(messages.ElogProofSchema, elog.encode(made)),
  );
  measure("elog verify", 21, () => must(elog.verify(context, statement, proof)));
}

function rangeProofs(context: ProofContext, withErrorPath: boolean): void {
  const { profile } = context;
  const [me, other] = [testParty(profile, 1), testParty(profile, 2)];
  const [x, b] = [Scalar.random(random), Scalar.random(random)];
  const y = randomBits(random, profile.ellPrime);
  const A = g.times(Scalar.random(random));
  const mine = me.secret.encrypt(x, random);
  const opening = { C: mine.ciphertext, A, B: g.times(b), X: A.times(b).plus(g.times(x)) };
  const proving = { ...opening, key: me.secret, setup: other.setup };
  const enc = measure(
    "enc-elg prove",
    11,
    () => encElg.prove(context, proving, { x, rho: mine.nonce, b }, random),
    (made) => size(messages.EncElgProofSchema, encElg.encode(profile, made)),
  );
  measure("enc-elg verify", 11, () =>
    must(encElg.verify(context, { ...opening, key: me.key, setup: other.trapdoor }, enc)),
  );

  const C = other.secret.encrypt(Scalar.random(random), random).ciphertext;
  const [summand, own] = [other.key.encrypt(y, random), me.secret.encrypt(y, random)];
  const D = other.key.add(other.key.scale(C, x), summand.ciphertext);
  const affine = { C, D, Y: own.ciphertext, X: g.times(x) };
  const witness = { x, y, rho: summand.nonce, rho_y: own.nonce };
  const ours = { ...affine, key0: other.key, key1: me.secret, setup: other.setup };
  const theirs = { ...affine, key0: other.secret, key1: me.key, setup: other.trapdoor };
  const aff = measure(
    "aff-g prove",
    11,
    () => affG.prove(context, ours, witness, random),
    (made) => size(messages.AffGProofSchema, affG.encode(profile, made)),
  );
  measure("aff-g verify", 11, () => must(affG.verify(context, theirs, aff)));
  measure("aff-g verify, third party", 5, () => must(affG.verify(context, { ...ours, key1: me.key }, aff)));
  if (!withErrorPath) return;

  const star = measure(
    "aff-g* prove",
    1,
    () => affGStar.prove(context, ours, witness, random),
    (made) => size(messages.AffGStarProofSchema, affGStar.encode(profile, made)),
  );
  measure("aff-g* verify, third party", 1, () =>
    must(affGStar.verify(context, { ...affine, key0: other.key, key1: me.key }, star)),
  );
  const sum = me.secret.add(me.secret.scale(mine.ciphertext, x), me.secret.encrypt(y, random).ciphertext);
  const plain = me.secret.decrypt(sum);
  const claim = {
    K: mine.ciphertext,
    X: g.times(x),
    D: me.secret.subtract(sum, me.secret.scale(mine.ciphertext, x)),
    S: A.times(scalar(plain)),
    G: A,
    parties: 3,
  };
  const opened = { x, y: plain, rho: me.secret.extractNonce(sum) };
  const decrypted = measure(
    "dec prove",
    1,
    () => dec.prove(context, { ...claim, key: me.secret }, opened, random),
    (made) => size(messages.DecProofSchema, dec.encode(profile, made, 3)),
  );
  measure("dec verify, third party", 1, () => must(dec.verify(context, { ...claim, key: me.key }, decrypted)));
}

function modulusProofs(context: ProofContext): void {
  const { profile } = context;
  const [me, other] = [testParty(profile, 1), testParty(profile, 2)];
  const { key, secret, setup, trapdoor } = me;
  const f = measure(
    "fac prove",
    7,
    () => fac.prove(context, { key, setup: other.setup }, secret, random),
    (made) => size(messages.FacProofSchema, fac.encode(profile, made)),
  );
  measure("fac verify", 7, () => must(fac.verify(context, { key, setup: other.trapdoor }, f)));
  const m = measure(
    "mod prove",
    3,
    () => mod.prove(context, { key }, { secret }, random),
    (made) => size(messages.ModProofSchema, mod.encode(profile, made)),
  );
  measure("mod verify", 3, () => must(mod.verify(context, { key }, m)));
  const p = measure(
    "prm prove",
    3,
    () => prm.prove(context, { setup }, { trapdoor }, random),
    (made) => size(messages.PrmProofSchema, prm.encode(profile, made)),
  );
  measure("prm verify", 3, () => must(prm.verify(context, { setup }, p)));
}

/** Sums of the rows above: a party's share of presigning by three, and of auxiliary info by five. */
function totals(): void {
  const cpu = (name: string): number => Number(rows.find((row) => row.name === name)?.cpuMs ?? 0);
  const ciphertexts =
    2 * cpu("encrypt, own key") + 4 * (cpu("encrypt, other's key") + cpu("encrypt, own key") + cpu("decrypt"));
  const pairs = ["enc-elg prove", "enc-elg verify", "aff-g prove", "aff-g verify"].reduce(
    (sum, name) => sum + 4 * cpu(name),
    0,
  );
  const presign = ciphertexts + pairs + 2 * cpu("elog prove") + 4 * cpu("elog verify");
  const aux =
    cpu("mod prove") +
    cpu("prm prove") +
    4 * (cpu("fac prove") + cpu("fac verify") + cpu("mod verify") + cpu("prm verify"));
  console.log(`presign of 3: ${(presign / 1000).toFixed(2)} CPU-s a party (sum of parts)`);
  console.log(
    `aux info of 5, primes ready: ${(aux / 1000).toFixed(2)} CPU-s a party, ${((5 * aux) / 2000).toFixed(1)} s on two cores\n`,
  );
}

const quick = process.argv.includes("--quick");
const chosen = process.argv.slice(2).filter((word) => !word.startsWith("-"));
for (const profile of profiles.filter(({ name }) => chosen.length === 0 || chosen.includes(name))) {
  rows.length = 0;
  const context = { profile, ssid: new Uint8Array(32), round: "bench", prover: 1, verifier: 2 };
  kernel(profile);
  curveProofs(context);
  rangeProofs(context, !quick);
  modulusProofs(context);
  console.log(`${profile.name}${profile === security128 ? " (default)" : ""}`);
  console.table(rows);
  totals();
}
