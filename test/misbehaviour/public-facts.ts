// What a judge in another process is told of a session: public parameters of every protocol as JSON, and nothing else.
import { Point } from "../../src/crypto/curve.js";
import { PaillierKey } from "../../src/crypto/paillier.js";
import { RingPedersenSetup } from "../../src/crypto/ring-pedersen.js";
import { profiles, type SecurityProfile } from "../../src/crypto/security-profile.js";
import {
  decodePublicKeyPackage,
  encodePublicKeyPackage,
  type PublicKeyPackage,
} from "../../src/protocols/key-share.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const integer = (text: string): bigint => BigInt(`0x${text}`);

const isKey = (value: object): value is PublicKeyPackage => "publicShares" in value && "groupKey" in value;
const isProfile = (value: object): value is SecurityProfile => "modulusBits" in value;

/** Only classes and shapes that are public by their type are written out; keys lose their owner's part. */
export function toFacts(value: unknown): unknown {
  if (typeof value === "bigint") return { $integer: value.toString(16) };
  if (value instanceof Uint8Array) return { $bytes: hex(value) };
  if (value instanceof Point) return { $point: hex(value.toBytes()) };
  if (value instanceof PaillierKey) return { $paillier: value.N.toString(16), profile: toFacts(value.profile) };
  if (value instanceof RingPedersenSetup) {
    const { N, s, t, profile } = value;
    return { $ringPedersen: [N, s, t].map((number) => number.toString(16)), profile: toFacts(profile) };
  }
  if (value instanceof Map) return { $map: [...value].map(([key, entry]) => [toFacts(key), toFacts(entry)]) };
  if (Array.isArray(value)) return value.map(toFacts);
  if (typeof value !== "object" || value === null) return value;
  if (isKey(value)) return { $key: hex(encodePublicKeyPackage(value)) };
  if (isProfile(value)) {
    const { name, repetitions, binaryRepetitions } = value;
    return { $profile: name, repetitions, binaryRepetitions };
  }
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, toFacts(field)]));
}

/** A profile is one object in a process: keys and contexts compare it by identity. */
const known = new Map<string, SecurityProfile>();

function profileOf({ $profile, ...repetitions }: { readonly $profile: string }): SecurityProfile {
  const base = profiles.find(({ name }) => name === $profile);
  if (base === undefined) throw new Error(`no such profile: ${$profile}`);
  const name = JSON.stringify([$profile, repetitions]);
  const profile = known.get(name) ?? { ...base, ...repetitions };
  known.set(name, profile);
  return profile;
}

/** The inverse of `toFacts`. */
export function fromFacts(fact: unknown): unknown {
  if (Array.isArray(fact)) return fact.map(fromFacts);
  if (typeof fact !== "object" || fact === null) return fact;
  // biome-ignore lint/suspicious/noExplicitAny: what `toFacts` wrote, told apart by the first name
  const value = fact as any;
  if ("$integer" in value) return integer(value.$integer);
  if ("$bytes" in value) return bytes(value.$bytes);
  if ("$point" in value) return Point.parse(bytes(value.$point));
  if ("$key" in value) return decodePublicKeyPackage(bytes(value.$key));
  if ("$profile" in value) return profileOf(value);
  if ("$paillier" in value) return new PaillierKey(integer(value.$paillier), profileOf(value.profile));
  if ("$ringPedersen" in value) {
    const [N = 0n, s = 0n, t = 0n] = (value.$ringPedersen as string[]).map(integer);
    return new RingPedersenSetup({ N, s, t }, profileOf(value.profile));
  }
  if ("$map" in value) {
    return new Map((value.$map as [unknown, unknown][]).map(([key, entry]) => [fromFacts(key), fromFacts(entry)]));
  }
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, fromFacts(field)]));
}
