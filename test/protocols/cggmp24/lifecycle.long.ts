// `CGGMP24_SWEEP=100 CGGMP24_SWEEP_FROM=0 npm run test:long -- lifecycle`; a failing seed is the name of its test.
import { describe, it } from "node:test";
import { live, liveAtRandom } from "./lifecycle.js";

const count = Number(process.env["CGGMP24_SWEEP"] ?? 10);
const from = Number(process.env["CGGMP24_SWEEP_FROM"] ?? 0);

describe("large topologies", () => {
  it("5-of-5, then 4-of-7", () => live({ threshold: 5, n: 5 }, { threshold: 4, n: 7 }, "5 of 5"));
  it("4-of-7, then 5-of-5", () => live({ threshold: 4, n: 7 }, { threshold: 5, n: 5 }, "4 of 7"));
});

describe(`any topology, message, derivation and order of delivery (seeds ${from} to ${from + count - 1})`, () => {
  for (let seed = from; seed < from + count; seed++) it(`seed ${seed}`, () => liveAtRandom(seed, 6));
});
