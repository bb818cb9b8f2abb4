// Every attack that the specification lists, with the tests that fail when the check against it is gone. This file holds the
// list against the sources: a test that is renamed or deleted has to be replaced here.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";

/** A file under `test`, and titles, or names in its tables of cases, that stand in it. */
type Tests = Readonly<Record<string, readonly string[]>>;

const attacks: Readonly<Record<string, Tests>> = {
  "a small, non-Blum or even modulus": {
    "crypto/proofs/mod.test.ts": [
      "rejects non-Blum moduli: one prime or both ≡ 1 mod 4",
      "rejects 16 small primes times a large one",
      "rejects a factor below 2^16 though every equation holds, and takes one above",
      "rejects a prime, which satisfies every equation",
      "rejects a modulus that shares a prime with its order, where only the roots are missing",
    ],
    "crypto/paillier.test.ts": ["refuses moduli of another length or even ones, before they are parsed"],
    "protocols/cggmp24/aux-hostile-moduli.test.ts": [
      "16 primes of 20 bits times a large one",
      "the square of a prime",
      "one prime ≡ 1 mod 4",
      "two primes ≡ 1 mod 4",
      "a prime",
      "an N that shares a factor with φ(N)",
    ],
    "protocols/cggmp24/aux-misbehaviour.test.ts": ["an even Paillier modulus", "an even Ring-Pedersen modulus"],
  },
  "a factor of 256 bits; no Π-fac": {
    "crypto/proofs/fac.test.ts": [
      "rejects a 256-bit factor and the product of 16 small primes, though every equation holds",
      "rejects factors that do not multiply to N, and the trivial ones",
      "rejects an all-zero proof, which satisfies every equation for any N when e is negative",
    ],
    "protocols/cggmp24/aux-hostile-moduli.test.ts": ["an N with a factor of 256 bits: Π-mod holds, Π-fac does not"],
    "protocols/cggmp24/aux-misbehaviour.test.ts": ["sends no proof for the factors, or a wrong one to one party only"],
  },
  "a modulus of 2040 bits": {
    "crypto/paillier.test.ts": ["refuses moduli of another length or even ones, before they are parsed"],
    "crypto/ring-pedersen.test.ts": ["refuses s or t of 0, ±1, or no unit, and an N̂ of another length or even"],
    "protocols/cggmp24/aux-misbehaviour.test.ts": [
      "a Paillier modulus of 2040 bits",
      "a Ring-Pedersen modulus of 2040 bits",
    ],
  },
  "N or N̂ shared between parties, or equal": {
    "protocols/cggmp24/aux-misbehaviour.test.ts": [
      "names who copied another party's Paillier modulus, and not who made it",
      "names who copied another party's Ring-Pedersen parameters with their proof",
      "names both parties that know",
      "one modulus for both",
      "refuses its own primes when they are one modulus",
    ],
  },
  "Π-mod forged with w = 0": {
    "crypto/proofs/mod.test.ts": [
      "rejects the forgery with w = 0 for four primes, and w that is no unit or of symbol +1",
      "rejects w of symbol +1 or 0 although every equation holds",
    ],
    "protocols/cggmp24/aux-hostile-moduli.test.ts": ["four primes"],
  },
  "0, 1, 127 or 129 repetitions, or a truncated challenge": {
    "crypto/proofs/mod.test.ts": ["rejects 0, 1, 127 and 129 repetitions that are all right"],
    "crypto/proofs/prm.test.ts": ["rejects 0, 1 and 127 repetitions whose challenge was guessed right, and 129"],
    "crypto/transcript.test.ts": [
      "bits and residues have their exact count",
      "challenges lie in their ranges and reach both halves",
      "bounded draws are uniform over the whole interval",
    ],
    "protocols/cggmp24/aux-misbehaviour.test.ts": ["127 repetitions", "129 repetitions", "no repetition"],
    "protocols/cggmp24/presign-failure.test.ts": ["sends a repetition too few or too many"],
  },
  "s outside the group of t; s or t of 0 or ±1": {
    "crypto/proofs/prm.test.ts": ["rejects an s outside the group of t: off by -1, or a non-residue"],
    "crypto/ring-pedersen.test.ts": ["refuses s or t of 0, ±1, or no unit, and an N̂ of another length or even"],
    "protocols/cggmp24/aux-misbehaviour.test.ts": ["s = 0", "t = 1", "t = -1", "an s outside the group of t"],
  },
  "ambiguous hash input": {
    "crypto/transcript.test.ts": [
      "ambiguous tuples of different shapes, types and boundaries never collide",
      "generated tuples collide only when they are the same tuple",
      "is TupleHashXOF256 of SP 800-185 over type byte and payload",
    ],
    "consensus/digest.test.ts": ["separates what plain concatenation would confuse"],
  },
  "witnesses and responses out of range": {
    "crypto/proofs/enc-elg.test.ts": ["rejects plaintexts out of range (α-rays), though every equation holds"],
    "crypto/proofs/aff-g.test.ts": ["rejects a factor or a summand out of range, though every equation holds"],
    "crypto/proofs/aff-g-star.test.ts": [
      "rejects a factor or a summand out of range, by nothing but its range: every equation holds",
      "takes responses at both ends of their ranges, and none beyond",
    ],
    "crypto/proofs/dec.test.ts": [
      "rejects S for another representative of the plaintext (y + N), though every equation holds",
      "rejects a factor out of range, by nothing but its range: every equation holds",
      "takes responses at both ends of their ranges, and none beyond",
    ],
    "crypto/proofs/fac.test.ts": [
      "rejects a 256-bit factor and the product of 16 small primes, though every equation holds",
    ],
  },
  "another number of Feldman coefficients; index 0 or twice": {
    "crypto/feldman.test.ts": [
      "refuses another number of coefficients (a raised or lowered threshold) and identities",
      "refuses index 0 and thresholds below 1",
    ],
    "crypto/curve.test.ts": ["Lagrange coefficients interpolate any t of n, and refuse hostile sets"],
    "misbehaviour/cheats.ts": ["one too few", "one too many"],
    "misbehaviour/keygen.test.ts": ["key generation, 2-of-3,"],
    "protocols/cggmp24/resharing.test.ts": ["raises the threshold", "lowers the threshold"],
  },
  "an identity, a point off the curve": {
    "crypto/curve.test.ts": ["points round-trip in canonical form only"],
    "misbehaviour/cheats.ts": ["the identity", "off the curve"],
    "protocols/cggmp24/presign-misbehaviour.test.ts": ["sends an identity point", "sends the identity for S"],
    "protocols/frost-steps.test.ts": ["an identity in the list"],
  },
  "a share of zero, δ = 0, r = 0, s = 0": {
    "misbehaviour/cheats.ts": ["zero"],
    "protocols/cggmp24/resharing.test.ts": ["sends a zero share"],
    "protocols/cggmp24/presign-failure.test.ts": ["publishes δ = 0"],
    "protocols/cggmp24/signing.test.ts": [
      "is refused when the nonce's coordinate is 0 modulo q",
      "of s = 0 is refused though every share verifies",
      "sends what makes s = 0 of the others' shares",
    ],
  },
  "ciphertexts and commitments outside Z*": {
    "crypto/paillier.test.ts": ["membership excludes 0, N, multiples of a factor, and what is not canonical"],
    "crypto/ring-pedersen.test.ts": ["membership excludes 0, factors and what is not canonical"],
    "crypto/proofs/enc-elg.test.ts": [
      "rejects ciphertexts outside Z*, whoever looks",
      "rejects S = T = 0, which satisfies the commitment's equation for every negative e",
    ],
    "crypto/proofs/aff-g.test.ts": [
      "rejects ciphertexts outside Z*",
      "rejects commitments of 0, which satisfy their equations for every negative e",
    ],
    "protocols/cggmp24/presign-misbehaviour.test.ts": ["a multiple of N", "a value above N²"],
  },
  "replay into another session, round or recipient": {
    "session/session.test.ts": ["refuses forged, foreign, replayed and oversized bytes without a change of state"],
    "crypto/proofs/suite.ts": ["another session", "another round", "another prover", "another verifier"],
  },
  "a wrong echo, two answers, a false alarm": {
    "session/session.test.ts": [
      "a false echo is named",
      "nobody is convicted by what another party disclosed",
      "what honest parties say in two sessions convicts nobody in either",
      "an equivocating broadcaster is named by both of its own signatures",
      "a needless disclosure is named",
    ],
    "misbehaviour/frost-nonces.test.ts": ["shows different commitments to different signers: nobody keeps any"],
  },
  "a presignature or nonces used twice, also across kill -9 and a restored backup": {
    "protocols/cggmp24/signing.test.ts": ["signs once: a second use is refused, for the same message too"],
    "protocols/frost-prepared.test.ts": ["2-of-3: a signer's nonces sign once, whatever came of the first time"],
    "storage/one-use-ledger.test.ts": [
      "concurrent takes of one item have one winner",
      "an id never comes back, whatever became of it, also after a restart",
      "in 60 kills no item is returned twice",
    ],
    "crash/crash.test.ts": [
      "never use anything twice, whatever the step, all change or none, and pay again afterwards",
    ],
    "node/hostile-presignature.test.ts": ["signs with one, and never again: not another payment, not the same"],
    "node/hostile-nonces.test.ts": ["signs with one, and never again: not another payment, not the same"],
    "node/restored-node.test.ts": ["three restored nodes, all that signed, reuse nothing"],
  },
  "a presignature of another signing set, epoch or wallet": {
    "protocols/cggmp24/signing.test.ts": [
      "of another set, wallet, epoch or session is refused, and so is one presignature for two messages",
    ],
    "protocols/frost-prepared.test.ts": [
      "nonces of another key, signing set, order or number are refused, and one pair for two messages",
    ],
    "node/presignature-take.test.ts": ["are refused for another wallet, epoch or signing set"],
  },
  "a damaged presignature at the signer itself": {
    "node/hostile-presignature.test.ts": ["a row that was damaged signs nothing, and the next presignature pays"],
    "protocols/cggmp24/signing.test.ts": [
      "a signer whose own presignature was damaged finds that out and accuses nobody",
    ],
  },
  "a message chosen after the nonce": {
    "protocols/cggmp24/signing.test.ts": [
      "changes its nonce with message, key and authorization: nothing can be chosen after the nonce",
    ],
    "misbehaviour/frost-sign-prepared.test.ts": [
      "signs with fresh nonces, and sends commitments that explain its share",
    ],
  },
  "a bare digest": {
    "node/hostile-coordinator.test.ts": [
      "for a bare digest: no call takes one, and no object becomes a sighash by a cast",
    ],
    "wallet/payment-check.test.ts": ["a bare digest, a cast or a copy is no Sighash"],
  },
  "a refresh or reshare that changes the key": {
    "protocols/cggmp24/resharing.test.ts": [
      "names who deals something else than zero",
      "sends a wrong share",
      "deals though no dealer",
    ],
    "crypto/feldman.test.ts": ["shares zero for a refresh, and only then has an identity as constant term"],
  },
  "an envelope of a stranger; a banned node": {
    "session/session.test.ts": ["refuses forged, foreign, replayed and oversized bytes without a change of state"],
    "node/hostile-node.test.ts": ["and its ballot counts no more at those who saw it, not even after a restart"],
    "consensus/certificate.test.ts": ["only unbanned parties of the wallet vote"],
  },
  "a signature of high s": {
    "protocols/cggmp24/signing.test.ts": ["is normalized to low s, and r = 0 or s = 0 is refused"],
    "wallet/transaction-finalizer.test.ts": ["refuses a high s, another sighash byte and trailing bytes"],
    "wallet/wycheproof.test.ts": ["the valid ones of high s are refused"],
  },
  "a field of 10 MB, negative or not canonical": {
    "crypto/modulus.test.ts": ["refuse other lengths before any parsing, other signs, and a negative zero"],
    "crypto/curve.test.ts": ["scalars round-trip in canonical form only"],
    "crypto/proofs/suite.ts": ["refuses malformed fields, and never throws"],
    "crypto/proofs/prm.test.ts": ["rejects responses that are not canonical"],
  },
  "any field of any round": {
    "misbehaviour/coverage.test.ts": [
      "every field of every round, and nothing that is not there",
      "covers every protocol that exists",
    ],
    "misbehaviour/scene.ts": ["a judge in another process agrees about every piece of evidence"],
  },
  "framing, and accusing oneself": {
    "misbehaviour/scene.ts": [
      "and convicts no honest party, whatever is put together or forged",
      "and hears nobody who accuses itself, is no party of the session or alters the evidence",
    ],
    "session/session.test.ts": [
      "judges reject evidence that was altered, moved to another session, or turned against somebody else",
    ],
  },
  "going on with a session that failed": {
    "session/session.test.ts": ["two different envelopes in one slot convict at once, an identical one is ignored"],
    "node/session-exchange.test.ts": ["a session id runs once"],
    "node/hostile-coordinator.test.ts": ["and every node still signs what is honest, once in a session"],
  },
  "arithmetic that is wrong": {
    "crypto/modulus.test.ts": [
      "agrees with textbook arithmetic in 10,000 random cases from 512 to 1,024 bits",
      "covers the values at which OpenSSL throws or answers wrongly",
    ],
    "crypto/third-arithmetic.test.ts": [
      "agree in 10,000 random cases of products, remainders, divisors, inverses and powers",
      "agree at the edges: 0, 1, -1, and exponents around them",
    ],
  },
};

describe("attacks that have a test", () => {
  for (const [attack, tests] of Object.entries(attacks)) {
    it(attack, () => {
      assert.ok(Object.keys(tests).length > 0);
      for (const [file, titles] of Object.entries(tests)) {
        const path = join("test", file);
        assert.ok(existsSync(path), `${path} is gone`);
        const source = readFileSync(path, "utf8");
        for (const title of titles) {
          // What is shorter than a title is the name of a case, and begins where a string does.
          const names = title.length > 20 ? [title] : [`"${title}`, `\`${title}`];
          const found = names.some((name) => source.includes(name));
          assert.ok(found, `"${title}" is not in ${path}`);
        }
      }
    });
  }
});
