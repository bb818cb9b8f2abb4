// Every way to change one field of a message, read off its descriptor: a field that is added to a protocol brings its
// cheats with it, and `coverage.test.ts` fails until somebody says who is named for them.
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { PointSchema, ScalarSchema } from "../../gen/mpcwallet/crypto/v1/elements_pb.js";
import { Point, q, Scalar, scalar } from "../../src/crypto/curve.js";
import { toBytes, toInteger } from "../../src/crypto/modulus.js";

// biome-ignore lint/suspicious/noExplicitAny: a cheat reaches into messages of every type by field name
export type Loose = any;

export interface Cheat {
  /** The field, for example `proof.entries[].maskCiphertext`; empty for the message as a whole. */
  readonly path: string;
  /** What is done to it. */
  readonly what: string;
  /** Whether the field stays well formed: another value of the same type. */
  readonly keepsForm: boolean;
  /** Changes the message; false when it does not have the field. */
  apply(message: Loose): boolean;
}

type Change = readonly [what: string, change: (value: Loose) => Loose | undefined];

const lastByte = (bytes: Uint8Array): Uint8Array => {
  const changed = Uint8Array.from(bytes);
  changed[changed.length - 1] = (changed[changed.length - 1] ?? 0) ^ 1;
  return changed;
};

const OTHER_BYTES: readonly Change[] = [["another value", lastByte]];
const BAD_BYTES: readonly Change[] = [
  ["a byte too long", (bytes: Uint8Array) => Uint8Array.of(0, ...bytes)],
  ["empty", () => new Uint8Array()],
];
const OTHER_POINT: readonly Change[] = [
  ["another point", ({ sec1 }) => Point.parse(sec1).plus(Point.base).toProto()],
  ["the inverse", ({ sec1 }) => Point.parse(sec1).negate().toProto()],
];
const BAD_POINT: readonly Change[] = [
  ["the identity", (point) => ({ ...point, sec1: Uint8Array.of(0) })],
  ["off the curve", (point) => ({ ...point, sec1: new Uint8Array(33).fill(5, 1).fill(2, 0, 1) })],
  ["absent", () => undefined],
];
const OTHER_SCALAR: readonly Change[] = [
  ["another scalar", ({ be32 }) => Scalar.toProto(scalar(toInteger(be32) + 1n))],
  ["zero", () => Scalar.toProto(Scalar.zero)],
];
const BAD_SCALAR: readonly Change[] = [
  ["q itself", (value) => ({ ...value, be32: toBytes(q, 32) })],
  ["absent", () => undefined],
];
const BAD_LIST: readonly Change[] = [
  ["one too few", (list) => list.slice(1)],
  ["one too many", (list) => [...list, list[0]]],
  ["none", () => []],
];

/** Every leaf of a message, with the lists and messages on the way. */
export function pathsOf(schema: DescMessage): readonly string[] {
  return [...new Set(cheatsOf(schema).map(({ path }) => path))].filter((path) => path !== "");
}

/**
 * All cheats for one kind of message. Inside proofs a badly formed value is one byte too long: the other forms are
 * the proofs' own suites' business.
 */
export function cheatsOf(schema: DescMessage): readonly Cheat[] {
  const unknown: Cheat = {
    path: "",
    what: "a field that nobody knows",
    keepsForm: false,
    apply(message) {
      message.$unknown = [{ no: 1000, wireType: 0, data: Uint8Array.of(1) }];
      return true;
    },
  };
  return [unknown, ...fieldCheats(schema, { prefix: "", reach: (message) => message, deep: false })];
}

interface Place {
  readonly prefix: string;
  /** The message that holds the field. */
  readonly reach: (message: Loose) => Loose | undefined;
  readonly deep: boolean;
}

function fieldCheats(schema: DescMessage, place: Place): readonly Cheat[] {
  return schema.fields.flatMap((field) => {
    const { localName } = field;
    const path = `${place.prefix}${localName}`;
    const put = (keepsForm: boolean, changes: readonly Change[]): Cheat[] =>
      changes.map(([what, change]) => ({
        path,
        what,
        keepsForm,
        apply(message) {
          const holder = place.reach(message);
          const value = holder?.[localName];
          if (value === undefined || (Array.isArray(value) && value.length === 0)) return false;
          holder[localName] = change(value);
          return true;
        },
      }));
    if (field.fieldKind === "list") {
      const entryAt = (index: 0 | -1) => elementCheats(field, { ...place, prefix: `${path}[]` }, index);
      return [...put(false, BAD_LIST), ...entryAt(0), ...(place.deep ? [] : oneOfEachField(entryAt(-1)))];
    }
    if (field.fieldKind === "scalar" && field.scalar === ScalarType.BYTES) {
      return [...put(true, OTHER_BYTES), ...put(false, place.deep ? BAD_BYTES.slice(0, 1) : BAD_BYTES)];
    }
    if (field.fieldKind === "scalar" && field.scalar === ScalarType.BOOL) {
      return put(true, [["the opposite", (value: boolean) => !value]]);
    }
    if (field.fieldKind === "message") {
      const bad = (changes: readonly Change[]) => put(false, place.deep ? changes.slice(0, 1) : changes);
      if (field.message.typeName === PointSchema.typeName) return [...put(true, OTHER_POINT), ...bad(BAD_POINT)];
      if (field.message.typeName === ScalarSchema.typeName) return [...put(true, OTHER_SCALAR), ...bad(BAD_SCALAR)];
      const reach = (message: Loose): Loose => place.reach(message)?.[localName];
      return [
        ...(place.deep ? [] : put(false, [["absent", () => undefined]])),
        ...fieldCheats(field.message, { prefix: `${path}.`, reach, deep: true }),
      ];
    }
    throw new Error(`no cheats for a field like ${schema.typeName}.${localName}`);
  });
}

/** For the last entry of a message's own list, which a check that looks at the first alone would not see. */
function oneOfEachField(cheats: readonly Cheat[]): readonly Cheat[] {
  const seen = new Set<string>();
  return cheats.flatMap((cheat) => {
    if (!cheat.keepsForm || seen.has(cheat.path)) return [];
    seen.add(cheat.path);
    return [{ ...cheat, what: `${cheat.what}, in the last entry` }];
  });
}

/** The first or the last entry of a list. */
function elementCheats(field: DescField & { fieldKind: "list" }, place: Place, index: 0 | -1): readonly Cheat[] {
  const { localName } = field;
  if (field.listKind !== "message") throw new Error(`no cheats for a list like ${field.name}`);
  const put = (keepsForm: boolean, changes: readonly Change[]): Cheat[] =>
    changes.map(([what, change]) => ({
      path: place.prefix,
      what,
      keepsForm,
      apply(message) {
        const list = place.reach(message)?.[localName];
        const changed = list?.length > 0 ? change(list.at(index)) : undefined;
        if (changed === undefined) return false;
        list[index === 0 ? 0 : list.length - 1] = changed;
        return true;
      },
    }));
  const present = (changes: readonly Change[]) => changes.filter(([what]) => what !== "absent");
  if (field.message.typeName === PointSchema.typeName) {
    return [...put(true, OTHER_POINT), ...put(false, present(BAD_POINT))];
  }
  if (field.message.typeName === ScalarSchema.typeName) {
    return [...put(true, OTHER_SCALAR), ...put(false, present(BAD_SCALAR))];
  }
  const reach = (message: Loose): Loose => place.reach(message)?.[localName]?.at(index);
  return fieldCheats(field.message, { prefix: `${place.prefix}.`, reach, deep: true });
}
