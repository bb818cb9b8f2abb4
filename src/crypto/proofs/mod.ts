/**
 * Π-mod: N is a Paillier-Blum modulus, a product of two primes ≡ 3 mod 4 (up to powers) with gcd(N, φ(N)) = 1.
 *
 * The prover's closed form, for a prime p ≡ 3 mod 4 and c = ((p+1)/4)²: the power f(y) = y^c satisfies
 * f(y)^4 = y^((p+1)²/4) = (y·(y/p))^((p+1)/2) = (y/p)·y, as (p+1)/2 is even. So one exponentiation a prime gives the
 * Legendre symbol and the fourth root of ±y together, and f(w) is computed once.
 *
 * @source CGGMP24, Fig. 12
 */
import { create } from "@bufbuild/protobuf";
import {
  type ModProof as Message,
  ModEntrySchema,
  ModProofSchema,
} from "../../../gen/mpcwallet/cggmp24/v1/proofs_pb.js";
import type { Random } from "../ambient.js";
import { Bug } from "../fault.js";
import { gcd, jacobi, Modulus, randomUnit, reduce } from "../modulus.js";
import type { PaillierKey, PaillierSecret } from "../paillier.js";
import type { SecurityProfile } from "../security-profile.js";
import { hasFactorBelow } from "../small-primes.js";
import { challengeResidues, type ProofContext, sameProfile } from "./context.js";
import { decoded, decodeEntries, fields } from "./encoding.js";

export interface Statement {
  readonly key: PaillierKey;
}

export interface Witness {
  readonly secret: PaillierSecret;
}

/** The answer to one y. */
export interface Entry {
  readonly x: bigint;
  readonly a: boolean;
  readonly b: boolean;
  readonly z: bigint;
}

export interface Proof {
  readonly w: bigint;
  readonly entries: readonly Entry[];
}

/** y_1 … y_128 ∈ Z_N. */
function challenge(context: ProofContext, { key }: Statement, w: bigint): readonly bigint[] {
  return challengeResidues(
    context,
    { proof: "mod", statement: [key.N], commitments: [w] },
    { count: context.profile.repetitions, bound: key.N },
  );
}

interface FourthRoot {
  readonly root: bigint;
  readonly isSquare: boolean;
}

/** f(y) = y^((p+1)/4)² mod p and the Legendre symbol (y/p), both from one exponentiation. */
function fourthRoot(prime: Modulus, y: bigint): FourthRoot {
  const p = prime.value;
  const quarter = (p + 1n) / 4n;
  const root = prime.pow(y, (quarter * quarter) % (p - 1n));
  const square = prime.times(root, root);
  return { root, isSquare: prime.times(square, square) === reduce(y, p) };
}

/** Modulo both primes. */
function fourthRoots(secret: PaillierSecret, y: bigint): { readonly p: FourthRoot; readonly q: FourthRoot } {
  return { p: fourthRoot(secret.factors.p, y), q: fourthRoot(secret.factors.q, y) };
}

/** x, a, b with x^4 = (-1)^a w^b y: the only signs that make the right side a square modulo both primes. */
function answer(secret: PaillierSecret, fw: ReturnType<typeof fourthRoots>, y: bigint): Entry {
  const { p, q, remainders } = secret.factors;
  const fy = fourthRoots(secret, y);
  const b = fy.p.isSquare !== fy.q.isSquare;
  const a = !(b ? fy.p.isSquare === fw.p.isSquare : fy.p.isSquare);
  const x = remainders.combine(
    b ? p.times(fy.p.root, fw.p.root) : fy.p.root, // x = f(y)·f(w)^b
    b ? q.times(fy.q.root, fw.q.root) : fy.q.root,
  );
  return { x, a, b, z: secret.extractNonce(y) }; // z = y^(1/N)
}

export function prove(context: ProofContext, statement: Statement, { secret }: Witness, random: Random): Proof {
  const { N } = statement.key;
  if (secret.N !== N) throw new Bug("the witness of mod is of another modulus");
  let w = randomUnit(random, N);
  while (jacobi(w, N) !== -1) w = randomUnit(random, N);
  const fw = fourthRoots(secret, w);
  return { w, entries: challenge(context, statement, w).map((y) => answer(secret, fw, y)) };
}

export function verify(context: ProofContext, statement: Statement, { w, entries }: Proof): boolean {
  const { key } = statement;
  const { N } = key;
  if (!sameProfile(context, key) || entries.length !== context.profile.repetitions) return false;
  if (w <= 0n || w >= N || gcd(w, N) !== 1n || jacobi(w, N) !== -1) return false; // w = 0 would open every equation
  if (!key.areMembers({ nonces: entries.flatMap(({ x, z }) => [x, z]) })) return false;
  const modulus = Modulus.of(N);
  if (hasFactorBelow(N, LEAST_FACTOR) || !isComposite(modulus)) return false;
  const y = challenge(context, statement, w);
  return (
    entries.every((entry, i) => isFourthRoot(modulus, entry, { w, y: y[i] ?? 0n })) && areRoots(modulus, entries, y)
  );
}

/** x^4 = (-1)^a w^b y */
function isFourthRoot(
  modulus: Modulus,
  { x, a, b }: Entry,
  { w, y }: { readonly w: bigint; readonly y: bigint },
): boolean {
  const xx = modulus.times(x, x);
  const right = b ? modulus.times(w, y) : y;
  return modulus.times(xx, xx) === (a ? reduce(-right, modulus.value) : right);
}

/** A modulus with a prime factor below this fails, so the index of the N-th powers is 1 or more than this. */
const LEAST_FACTOR = 1 << 16;
/** LEAST_FACTOR^ROOT_GROUPS = 2^128. */
const ROOT_GROUPS = 8;

/**
 * z^N = y, multiplied up in eight groups. What z shows is that N-th powers reach all of Z*_N, so that gcd(N, φ(N)) = 1.
 * If a prime p divides both, N-th powers are p-th powers, a subgroup of index at least p > 2^16; the product of a
 * group's y is as uniform as each of them, so it lies in there with probability below 2^-16, and for all eight
 * groups, which share no y, below 2^-128. There are no weights, and an error of small order has nothing to hide in.
 */
function areRoots(modulus: Modulus, entries: readonly Entry[], y: readonly bigint[]): boolean {
  const size = Math.ceil(entries.length / ROOT_GROUPS);
  for (let from = 0; from < entries.length; from += size) {
    let [left, right] = [1n, 1n];
    for (let i = from; i < Math.min(from + size, entries.length); i++) {
      left = modulus.times(left, entries[i]?.z ?? 0n);
      right = modulus.times(right, y[i] ?? 0n);
    }
    const power = modulus.times(modulus.powPublic(left, modulus.value - 2n), modulus.times(left, left));
    if (power !== right) return false; // (Π z)^N = Π y
  }
  return true;
}

/** Fermat's test to base 2 proves compositeness; no prime passes, and an honest N fails with negligible probability. */
function isComposite(modulus: Modulus): boolean {
  return modulus.powPublic(2n, modulus.value - 1n) !== 1n;
}

export function encode(profile: SecurityProfile, { w, entries }: Proof): Message {
  const { residue } = fields(profile);
  return create(ModProofSchema, {
    nonresidue: residue.encode(w),
    entries: entries.map(({ x, a, b, z }) =>
      create(ModEntrySchema, {
        fourthRoot: residue.encode(x),
        negated: a,
        multiplied: b,
        nthRoot: residue.encode(z),
      }),
    ),
  });
}

export function decode(profile: SecurityProfile, message: Message): Proof | undefined {
  const { residue } = fields(profile);
  return decoded(() => ({
    w: residue.decode(message.nonresidue),
    entries: decodeEntries(message.entries, profile.repetitions, (entry) => ({
      x: residue.decode(entry.fourthRoot),
      a: entry.negated,
      b: entry.multiplied,
      z: residue.decode(entry.nthRoot),
    })),
  }));
}
