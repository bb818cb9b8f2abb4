// `npm run bench -- dudect [security128|security112] [--seconds 20]`: does the time of a secret operation depend on the secret?
// After "dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede, 2017): two classes of inputs, one fixed and one
// random, in random order; Welch's t between their times, over all samples and with the slowest cropped away. |t| above
// 4.5 says that the classes differ; a small |t| says only that so many samples on this machine show nothing. The last row
// is a control that is not constant time and must be found out. Prints what it measures and judges nothing.
import { randomBytes } from "node:crypto";
import { Point, Scalar, scalar } from "../../src/crypto/curve.js";
import { Modulus, powBigInt, randomBelow } from "../../src/crypto/modulus.js";
import { profiles, security128 } from "../../src/crypto/security-profile.js";
import { testParty } from "../fixtures/parties.js";

const random = { bytes: (length: number) => new Uint8Array(randomBytes(length)) };
const words = process.argv.slice(2);
const profile = profiles.find(({ name }) => words.includes(name)) ?? security128;
const secondsAt = words.indexOf("--seconds");
const seconds = secondsAt < 0 ? 20 : Number(words[secondsAt + 1]);
if (!(seconds > 0 && seconds <= 3600)) throw new Error("--seconds is a number from 1 to 3600");

/** Inputs are prepared in batches, so that making one never stands next to timing it. */
const BATCH = 16;
/** Slowest share of all samples that is left out, by quantile of both classes together. */
const CROPS = [1, 0.99, 0.9, 0.75, 0.5];
const MOST_SAMPLES = 2_000_000;

interface Candidate<T> {
  readonly name: string;
  /** The secret of the fixed class. */
  readonly fixed: T;
  draw(): T;
  run(secret: T): unknown;
}

interface Samples {
  readonly fixed: number[];
  readonly random: number[];
}

function measure<T>({ fixed, draw, run }: Candidate<T>): Samples {
  const samples: Samples = { fixed: [], random: [] };
  const deadlineMs = performance.now() + seconds * 1000;
  run(draw()); // makes what is made once
  while (performance.now() < deadlineMs && samples.fixed.length + samples.random.length < MOST_SAMPLES) {
    const classes = randomBytes(BATCH).map((byte) => byte & 1);
    // Both classes come out of `draw`, so that neither is a value that the engine has seen before.
    const inputs = Array.from(classes, (isFixed) => {
      const drawn = draw();
      return isFixed === 1 ? copy(fixed) : drawn;
    });
    for (const [index, input] of inputs.entries()) {
      const start = process.hrtime.bigint();
      run(input);
      const elapsed = Number(process.hrtime.bigint() - start);
      (classes[index] === 1 ? samples.fixed : samples.random).push(elapsed);
    }
  }
  return samples;
}

/** A bigint of the same value in fresh memory. */
function copy<T>(value: T): T {
  return typeof value === "bigint" ? (BigInt(`0x${value.toString(16)}`) as T) : value;
}

/** (mean difference) / (standard error), unequal variances. */
function welch(a: readonly number[], b: readonly number[]): number {
  const moments = (all: readonly number[]) => {
    const mean = all.reduce((sum, x) => sum + x, 0) / all.length;
    const variance = all.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (all.length - 1);
    return { mean, error: variance / all.length };
  };
  const [left, right] = [moments(a), moments(b)];
  return (left.mean - right.mean) / Math.sqrt(left.error + right.error);
}

function report<T>(candidate: Candidate<T>): Record<string, string | number> {
  const { fixed, random: drawn } = measure(candidate);
  const sorted = [...fixed, ...drawn].sort((x, y) => x - y);
  const row: Record<string, string | number> = {
    operation: candidate.name,
    samples: sorted.length,
    "median µs": Math.round((sorted[sorted.length >> 1] ?? 0) / 100) / 10,
  };
  for (const crop of CROPS) {
    const limit = sorted[Math.ceil(crop * sorted.length) - 1] ?? Number.POSITIVE_INFINITY;
    const kept = [fixed, drawn].map((all) => all.filter((time) => time <= limit));
    row[crop === 1 ? "t, all" : `t, fastest ${crop * 100} %`] = welch(kept[0] ?? [], kept[1] ?? []).toFixed(2);
  }
  return row;
}

const { secret } = testParty(profile, 1);
const modulus = Modulus.of(secret.N);
const base = randomBelow(random, secret.N);
const G = Point.base.timesPublic(scalar(7n));
const top = 1n << BigInt(profile.modulusBits - 1);
/** Of the modulus' full length: the length of an exponent is public, its bits are not. */
const fullLength = () => top | randomBelow(random, top);
const sparse = top | 1n;
const ciphertext = () => secret.encrypt(Scalar.random(random), random).ciphertext;

const candidates = [
  {
    name: "Modulus.pow, exponents of equal length",
    fixed: sparse,
    draw: fullLength,
    run: (e: bigint) => modulus.pow(base, e),
  },
  {
    name: "Modulus.pow, a secret prime's modulus",
    fixed: secret.factors.p.value - 1n - (1n << BigInt(profile.primeBits - 2)),
    draw: () => (1n << BigInt(profile.primeBits - 1)) | randomBelow(random, 1n << BigInt(profile.primeBits - 1)),
    run: (e: bigint) => secret.factors.p.pow(base, e),
  },
  {
    name: "Paillier decryption, by ciphertext",
    fixed: ciphertext() as bigint,
    draw: ciphertext as () => bigint,
    run: (c: bigint) => secret.decrypt(c),
  },
  {
    // OpenSSL refuses a power of 1, which c^(p-1) is for a plaintext of 0: `decrypt` shifts every plaintext. See PAPER.md.
    name: "Paillier decryption, of 0 against others",
    fixed: secret.encrypt(0n, random).ciphertext as bigint,
    draw: ciphertext as () => bigint,
    run: (c: bigint) => secret.decrypt(c),
  },
  {
    name: "Paillier decryption, of a ciphertext of 1",
    fixed: 1n,
    draw: ciphertext as () => bigint,
    run: (c: bigint) => secret.decrypt(c),
  },
  {
    name: "Point.times of the base point",
    fixed: (1n << 255n) as Scalar,
    draw: () => Scalar.randomNonZero(random),
    run: (k: bigint) => Point.base.times(k as Scalar),
  },
  {
    name: "Point.times of another point",
    fixed: (1n << 255n) as Scalar,
    draw: () => Scalar.randomNonZero(random),
    run: (k: bigint) => G.times(k as Scalar),
  },
  {
    name: "control: BigInt powers, not constant time",
    fixed: 1n << 255n,
    draw: () => (1n << 255n) | randomBelow(random, 1n << 255n),
    run: (e: bigint) => powBigInt(base, e, secret.N),
  },
] satisfies readonly Candidate<bigint>[];

const start = performance.now();
console.log(`${profile.name}, ${seconds} s an operation, Node ${process.version}, OpenSSL ${process.versions.openssl}`);
console.table(candidates.map((candidate) => report<bigint>(candidate as Candidate<bigint>)));
console.log(`${Math.round((performance.now() - start) / 1000)} s in all`);
