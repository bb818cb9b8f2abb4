// Seeds make a hundred runs of a session alike up to the lie, and nearly all of their time goes into powers. A process of
// tests computes each power once: a pure function of its arguments, so that no run can tell.
import { Point, type Scalar } from "../../../src/crypto/curve.js";

import { Modulus } from "../../../src/crypto/modulus.js";

/** Powers by exponent, of one base under one modulus. V8 hashes a bigint by its lowest word, which is as good as random. */
type Powers<R> = Map<bigint, R>;

function remembered<R>(all: Map<unknown, Powers<R>>, of: unknown, exponent: bigint, compute: () => R): R {
  const powers = all.get(of) ?? new Map<bigint, R>();
  all.set(of, powers);
  const known = powers.get(exponent);
  if (known !== undefined) return known;
  const computed = compute();
  powers.set(exponent, computed);
  return computed;
}

/** From here on this process remembers every power of an integer or a point. */
export function rememberPowers(): void {
  for (const name of ["pow", "powPublic"] as const) {
    const compute = Modulus.prototype[name];
    const moduli = new Map<bigint, Map<unknown, Powers<bigint>>>();
    Modulus.prototype[name] = function (base, exponent) {
      const bases = moduli.get(this.value) ?? new Map<unknown, Powers<bigint>>();
      moduli.set(this.value, bases);
      return remembered(bases, base, exponent, () => compute.call(this, base, exponent));
    };
  }
  for (const name of ["times", "timesPublic"] as const) {
    const compute = Point.prototype[name];
    const points = new Map<unknown, Powers<Point>>();
    Point.prototype[name] = function (k: Scalar) {
      const place = this.isIdentity ? "identity" : Buffer.from(this.toBytes()).toString("latin1");
      return remembered(points, place, k, () => compute.call(this, k));
    };
  }
}
