// One suite that every proof runs: completeness, each field of proof, statement and context changed, round trip, and
// malformed messages. A proof adds its own attacks beside it.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { Random } from "../../../src/crypto/ambient.js";
import { Point, q } from "../../../src/crypto/curve.js";
import { PaillierKey } from "../../../src/crypto/paillier.js";
import type { ProofContext } from "../../../src/crypto/proofs/context.js";
import { RingPedersenSetup } from "../../../src/crypto/ring-pedersen.js";
import { type SecurityProfile, security112, security128 } from "../../../src/crypto/security-profile.js";
import { seededRandom, testParty } from "../../fixtures/parties.js";

/** A true statement as its prover sees it, as its verifier does (with trapdoors), and as a third party does. */
export interface Instance<S, W> {
  readonly proving: S;
  readonly verifying: S;
  readonly judging: S;
  readonly witness: W;
}

export interface ProofCase<S extends object, W, P extends object, D extends DescMessage> {
  readonly name: string;
  readonly schema: D;
  instance(profile: SecurityProfile, random: Random): Instance<S, W>;
  prove(context: ProofContext, statement: S, witness: W, random: Random): P;
  verify(context: ProofContext, statement: S, proof: P): boolean;
  encode(profile: SecurityProfile, proof: P): MessageShape<D>;
  decode(profile: SecurityProfile, message: MessageShape<D>): P | undefined;
  /** False for proofs that have nothing to do with a modulus. */
  readonly profiled?: boolean;
  /** True for the proofs of the error path, which take seconds at security128: their third party looks at 112 only. */
  readonly slow?: boolean;
}

/** Party 1 proves to party 2. */
export function contextOf(profile: SecurityProfile): ProofContext {
  return {
    profile,
    ssid: new Uint8Array(32).fill(7),
    round: "test.round",
    prover: 1,
    verifier: 2,
    rid: new Uint8Array(32).fill(9),
  };
}

/** Other values of the same type. */
function mutants(value: unknown): readonly unknown[] {
  if (typeof value === "bigint") return value === q - 1n ? [0n] : [value + 1n, value === 0n ? 2n : 0n];
  if (typeof value === "boolean") return [!value];
  if (typeof value === "number") return [value + 1];
  if (value instanceof Point) return [value.plus(Point.base), value.negate(), Point.identity];
  if (value instanceof PaillierKey) return [testParty(value.profile, 3).key];
  if (value instanceof RingPedersenSetup) return [testParty(value.profile, 3).setup];
  if (Array.isArray(value)) return entryMutants(value);
  throw new Error("no mutants for this field");
}

/** Every field of the first entry, one of the last, and two entries exchanged. */
function entryMutants(entries: readonly object[]): readonly unknown[] {
  const [first, second] = entries;
  const last = entries.at(-1);
  if (first === undefined || second === undefined || last === undefined) throw new Error("too few entries");
  const lastKey = Object.keys(last).at(-1) ?? "";
  return [
    ...[...mutations(first)].map(([, entry]) => [entry, ...entries.slice(1)]),
    [...entries.slice(0, -1), { ...last, [lastKey]: Reflect.get(last, lastKey) + 1n }],
    [second, first, ...entries.slice(2)],
    entries.slice(0, -1),
    entries.slice(0, 1),
    [],
    [...entries, last],
  ];
}

/** Copies of an object, each with one field changed. */
export function* mutations<T extends object>(object: T): Generator<readonly [string, T]> {
  for (const key of Object.keys(object)) {
    for (const mutant of mutants(Reflect.get(object, key))) yield [key, { ...object, [key]: mutant }];
  }
}

export function contextMutations(context: ProofContext): readonly (readonly [string, ProofContext])[] {
  const { rid: _, ...withoutRid } = context;
  return [
    ["another session", { ...context, ssid: new Uint8Array(32).fill(8) }],
    ["a shortened session", { ...context, ssid: context.ssid.slice(1) }],
    ["another round", { ...context, round: "test.other" }],
    ["another prover", { ...context, prover: 3 }],
    ["another verifier", { ...context, verifier: 3 }],
    ["a broadcast", { ...context, verifier: 0 }],
    ["other joint randomness", { ...context, rid: new Uint8Array(32) }],
    ["no joint randomness", withoutRid],
    ["empty joint randomness", { ...context, rid: new Uint8Array(0) }],
    ["another profile", { ...context, profile: context.profile === security112 ? security128 : security112 }],
    ["a profile of fewer repetitions", { ...context, profile: { ...context.profile, repetitions: 1 } }],
  ];
}

/** Replacements of one integer field that no decoder may admit. */
function malformedBytes(bytes: Uint8Array): readonly Uint8Array[] {
  return [
    new Uint8Array(0),
    bytes.slice(1),
    Buffer.concat([Uint8Array.of(0), bytes]),
    Buffer.concat([bytes, Uint8Array.of(0)]),
    new Uint8Array(10_000_000).fill(0xff),
  ];
}

interface Leaf {
  readonly path: string;
  readonly bytes: Uint8Array;
  replace(bytes: Uint8Array): void;
}

/** The bytes fields of a message, of points and scalars inside it, and of its first entry. */
function leaves(message: object, path = ""): readonly Leaf[] {
  return Object.entries(message).flatMap(([key, value]): readonly Leaf[] => {
    if (value instanceof Uint8Array) {
      return [{ path: `${path}${key}`, bytes: value, replace: (bytes) => void Reflect.set(message, key, bytes) }];
    }
    if (Array.isArray(value)) return leaves(value[0], `${path}${key}[0].`);
    return typeof value === "object" && value !== null ? leaves(value, `${path}${key}.`) : [];
  });
}

export function describeProof<S extends object, W, P extends object, D extends DescMessage>(
  proofCase: ProofCase<S, W, P, D>,
): void {
  const { name, schema } = proofCase;
  const profiled = proofCase.profiled ?? true;
  const prepared = (profile: SecurityProfile) => {
    const random = seededRandom(`${name}/${profile.name}`);
    const instance = proofCase.instance(profile, random);
    const context = contextOf(profile);
    return { instance, context, proof: proofCase.prove(context, instance.proving, instance.witness, random) };
  };

  describe(name, () => {
    const { instance, context, proof } = prepared(security112);
    const rejects = (what: string, c: ProofContext, s: S, p: P) =>
      assert.equal(proofCase.verify(c, s, p), false, `${name} accepts ${what}`);

    for (const profile of profiled ? [security112, security128] : [security112]) {
      it(`is complete at ${profile.name} for its verifier and for a third party, and round-trips`, () => {
        const made = profile === security112 ? { instance, context, proof } : prepared(profile);
        assert.equal(proofCase.verify(made.context, made.instance.verifying, made.proof), true);
        const wire = toBinary(schema, proofCase.encode(profile, made.proof));
        const read = proofCase.decode(profile, fromBinary(schema, wire));
        assert.deepEqual(read, made.proof);
        assert.deepEqual(toBinary(schema, proofCase.encode(profile, read ?? made.proof)), wire);
        if (proofCase.slow === true && profile === security128) return;
        assert.equal(proofCase.verify(made.context, made.instance.judging, made.proof), true);
      });
    }

    it("rejects every changed field of the proof", () => {
      for (const [key, mutant] of mutations(proof)) rejects(`another ${key}`, context, instance.verifying, mutant);
    });

    it("rejects every changed field of the statement", () => {
      for (const [key, mutant] of mutations(instance.verifying)) rejects(`another ${key}`, context, mutant, proof);
    });

    it("rejects every changed part of the context", () => {
      for (const [what, mutant] of contextMutations(context)) {
        rejects(what, mutant, instance.judging, proof);
      }
    });

    it("refuses malformed fields, and never throws", () => {
      const wire = toBinary(schema, proofCase.encode(security112, proof));
      for (const { path, bytes } of leaves(fromBinary(schema, wire))) {
        for (const malformed of malformedBytes(bytes)) {
          const message = fromBinary(schema, wire);
          leaves(message)
            .find((leaf) => leaf.path === path)
            ?.replace(malformed);
          assert.equal(proofCase.decode(security112, message), undefined, `${path} of ${malformed.length} bytes`);
        }
      }
      assert.equal(proofCase.decode(security112, fromBinary(schema, new Uint8Array(0))), undefined);
    });

    it("decodes or refuses damaged bytes, and accepts none of them", () => {
      const wire = toBinary(schema, proofCase.encode(security112, proof));
      const random = seededRandom(`${name}/damage`);
      for (let round = 0; round < 60; round++) {
        const damaged = wire.slice(0, round % 3 === 0 ? random.bytes(2).reduce((a, b) => a * 256 + b) : undefined);
        const position = random.bytes(4).reduce((a, b) => a * 256 + b) % Math.max(1, Math.min(damaged.length, 4000));
        damaged[position] = (damaged[position] ?? 0) ^ (1 << (round % 8));
        if (Buffer.compare(damaged, wire) === 0) continue;
        const read = decodeOrUndefined(schema, damaged);
        const decoded = read === undefined ? undefined : proofCase.decode(security112, read);
        if (
          decoded !== undefined &&
          Buffer.compare(toBinary(schema, proofCase.encode(security112, decoded)), wire) !== 0
        ) {
          rejects(`bytes damaged at ${position}`, context, instance.verifying, decoded);
        }
      }
    });
  });
}

function decodeOrUndefined<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> | undefined {
  try {
    return fromBinary(schema, bytes);
  } catch {
    return undefined; // not protobuf at all: refused before any decoder of ours
  }
}
