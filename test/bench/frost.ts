// `npm run bench -- frost [--runs N] [--json]`: what FROST signing and key generation cost one party, 3 of 5.
// All parties run in this one thread, one after another; CPU time is the process's, divided by the parties. Our signing
// and the same protocol by noble-curves' `schnorr_FROST` (which signed here before) alternate in one run, so that load on
// the machine meets both.
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { create } from "@bufbuild/protobuf";
import type { FrostPublic, FrostSecret, NonceCommitments } from "@noble/curves/abstract/frost.js";
import { schnorr, schnorr_FROST } from "@noble/curves/secp256k1.js";
import {
  type NonceCommitments as NonceCommitmentsMessage,
  NonceCommitmentsSchema,
  SignatureSharesSchema,
} from "../../gen/mpcwallet/frost/v1/frost_pb.js";
import { Point, Scalar, scalar } from "../../src/crypto/curve.js";
import { ed25519PrivateKey, signEd25519 } from "../../src/crypto/ed25519.js";
import { isPoint, isScalar } from "../../src/protocols/element-shape.js";
import { prepareNonces } from "../../src/protocols/frost/prepare-nonces.js";
import { PreparedNonces } from "../../src/protocols/frost/prepared-nonces.js";
import { type FrostSigning, frostSign, type SigningItem } from "../../src/protocols/frost/sign.js";
import { frostSignPrepared } from "../../src/protocols/frost/sign-prepared.js";
import { outputKey } from "../../src/protocols/frost/taproot.js";
import type { KeyShare, PublicKeyPackage } from "../../src/protocols/key-share.js";
import { keygen } from "../../src/protocols/keygen.js";
import { type PartyId, partyId } from "../../src/session/party.js";
import {
  broadcast,
  type Participant,
  type Protocol,
  type Round,
  receive,
  type Steps,
} from "../../src/session/protocol.js";
import { Session } from "../../src/session/session.js";
import { identitySeed, type Run, SeededRandom, testGroup } from "../session/simulation.js";

// ---- the same protocol by noble-curves, kept for comparison only

const NONCES: Round<typeof NonceCommitmentsSchema> = {
  id: "nonces",
  step: 1,
  message: NonceCommitmentsSchema,
  delivery: "broadcast",
  maxBytes: 256 * 96,
  wellFormed: ({ commitments }, { batch }) =>
    commitments.length === batch && commitments.every(({ hiding, binding }) => isPoint(hiding) && isPoint(binding)),
};
const SHARES: Round<typeof SignatureSharesSchema> = {
  id: "shares",
  step: 2,
  message: SignatureSharesSchema,
  delivery: "broadcast",
  maxBytes: 256 * 48,
  wellFormed: ({ shares }, { batch }) => shares.length === batch && shares.every(isScalar),
};

const identifierOf = (party: PartyId): string => schnorr_FROST.Identifier.fromNumber(party);

interface NobleKey {
  readonly pub: FrostPublic;
  readonly share: (secretShare: Scalar) => Scalar;
}

function nobleKey(key: PublicKeyPackage, bip32Tweak: Scalar): NobleKey {
  const tauG = Point.base.timesPublic(bip32Tweak);
  const derived = key.groupKey.plus(tauG);
  const negated = !derived.hasEvenY;
  const internal = negated ? derived.negate() : derived;
  const hash = schnorr.utils.taggedHash("TapTweak", internal.toBytes().subarray(1));
  const t = scalar(BigInt(`0x${Buffer.from(hash).toString("hex")}`));
  const tG = Point.base.timesPublic(t);
  const verifyingShares: Record<string, Uint8Array> = {};
  for (const [party, X_j] of key.publicShares) {
    const child = X_j.plus(tauG);
    verifyingShares[identifierOf(party)] = (negated ? child.negate() : child).plus(tG).toBytes();
  }
  const signers = { min: key.threshold, max: key.publicShares.size };
  return {
    pub: { signers, commitments: [internal.plus(tG).toBytes()], verifyingShares } as FrostPublic,
    share: (secretShare) => {
      const child = Scalar.plus(secretShare, bip32Tweak);
      return Scalar.plus(negated ? Scalar.negate(child) : child, t);
    },
  };
}

function nobleList(all: ReadonlyMap<PartyId, NonceCommitmentsMessage>, index: number): NonceCommitments[] {
  return [...all].map(([party, { commitments }]) => ({
    identifier: identifierOf(party),
    hiding: new Uint8Array(commitments[index]?.hiding?.sec1 ?? []),
    binding: new Uint8Array(commitments[index]?.binding?.sec1 ?? []),
  }));
}

function* nobleRun(
  { self, pub, random }: Participant<FrostSigning>,
  secretShare: Scalar,
): Steps<FrostSigning, readonly Uint8Array[]> {
  const signers = pub.items.map((item) => {
    const key = nobleKey(pub.key, item.bip32Tweak);
    const secret = (): FrostSecret =>
      ({ identifier: identifierOf(self), signingShare: Scalar.toBytes(key.share(secretShare)) }) as FrostSecret;
    const generated = schnorr_FROST.commit(secret(), ((length = 32) => random.bytes(length)) as never);
    return { item, key, secret, generated };
  });
  yield* broadcast(
    NONCES,
    create(NonceCommitmentsSchema, {
      commitments: signers.map(({ generated: { commitments } }) => ({
        hiding: { sec1: commitments.hiding },
        binding: { sec1: commitments.binding },
      })),
    }),
  );
  const nonces = yield* receive(NONCES);
  const own = signers.map(({ item, key, secret, generated }, index) =>
    schnorr_FROST.signShare(secret(), key.pub, generated.nonces, nobleList(nonces, index), item.message),
  );
  yield* broadcast(SHARES, create(SignatureSharesSchema, { shares: own.map((be32) => ({ be32 })) }));
  const shares = yield* receive(SHARES);
  return signers.map(({ item, key }, index) => {
    const list = [...shares].map(([party, m]) => [identifierOf(party), m.shares[index]?.be32 ?? new Uint8Array()]);
    return schnorr_FROST.aggregate(key.pub, nobleList(nonces, index), item.message, Object.fromEntries(list));
  });
}

const nobleSign: Protocol<FrostSigning, Scalar, readonly Uint8Array[]> = {
  ...frostSign,
  rounds: [NONCES, SHARES],
  checks: [],
  run: nobleRun,
};

/** The session engine alone: messages of the same sizes, made and read without any curve arithmetic. */
const emptySign: Protocol<FrostSigning, Scalar, readonly Uint8Array[]> = {
  ...frostSign,
  rounds: [
    { ...NONCES, wellFormed: () => true },
    { ...SHARES, wellFormed: () => true },
  ] as readonly Round[],
  checks: [],
  *run({ pub }) {
    const [nonces, shares] = emptySign.rounds as readonly [typeof NONCES, typeof SHARES];
    const point = { sec1: new Uint8Array(33) };
    const commitments = pub.items.map(() => ({ hiding: point, binding: point }));
    yield* broadcast(nonces, create(NonceCommitmentsSchema, { commitments }));
    yield* receive(nonces);
    const zero = { be32: new Uint8Array(32) };
    yield* broadcast(shares, create(SignatureSharesSchema, { shares: pub.items.map(() => zero) }));
    yield* receive(shares);
    return [];
  },
};

// ---- measuring

interface Sample<Out> {
  readonly wallMs: number;
  /** Mean over the parties. */
  readonly cpuMs: number;
  readonly outputs: ReadonlyMap<PartyId, Out>;
}

const cpuNowMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** Identity keys are imported once, as nodes do. */
const identityKeys = new Map([1, 2, 3, 4, 5].map((id) => [id, ed25519PrivateKey(identitySeed(id))]));
const identity =
  (id: number) =>
  (message: Uint8Array): Uint8Array =>
    signEd25519(identityKeys.get(id) ?? identitySeed(id), message);

/** Runs all parties, in order of delivery. */
function measure<Pub, Secret, Out>(run: Run<Pub, Secret, Out>): Sample<Out> {
  const group = testGroup(run.ids);
  const sessionId = new SeededRandom(run.seed).bytes(16);
  const [startMs, startCpuMs] = [performance.now(), cpuNowMs()];
  const sessions = group.ids.map((self) => {
    const context = { sessionId, group, pub: run.pubOf?.(self) ?? run.pub };
    const options = { protocol: run.protocol, context, self, secret: run.secret(self) };
    return new Session(options, { random: new SeededRandom(`${run.seed}/${self}`), sign: identity(self) });
  });
  for (let moved = true; moved; ) {
    moved = false;
    for (const from of sessions) {
      for (const { to, bytes } of from.drain()) {
        moved = true;
        for (const session of sessions)
          if (session !== from && (to === 0 || to === session.self)) session.receive(bytes);
      }
    }
  }
  const [wallMs, cpuMs] = [performance.now() - startMs, cpuNowMs() - startCpuMs];
  const outputs = new Map(
    sessions.map(({ self, progress }) => {
      if (progress.state !== "done") throw new Error(`party ${self} is ${progress.state}`);
      return [self, progress.output];
    }),
  );
  return { wallMs, cpuMs: cpuMs / sessions.length, outputs };
}

const { values } = parseArgs({
  options: { runs: { type: "string", default: "60" }, json: { type: "boolean", default: false } },
});
const runs = Math.min(1_000, Math.max(3, Number(values.runs)));
const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;

interface Row {
  readonly name: string;
  readonly inputs: number;
  readonly cpuMsPerParty: number;
  readonly wallMsAllParties: number;
  readonly runs: number;
}
const rows: Row[] = [];
function report(name: string, inputs: number, samples: readonly Sample<unknown>[]): void {
  // The clock of CPU time ticks in microseconds but is charged in slices: the mean is fair, the median is robust.
  const cpuMsPerParty = median(samples.map(({ cpuMs }) => cpuMs));
  rows.push({
    name,
    inputs,
    cpuMsPerParty,
    wallMsAllParties: median(samples.map((s) => s.wallMs)),
    runs: samples.length,
  });
}

const keygenRun = (seed: string): Run<Parameters<typeof keygen.digest>[0], undefined, KeyShare> => ({
  protocol: keygen,
  ids: [1, 2, 3, 4, 5],
  pub: { scheme: "frost", threshold: 3, walletId: "bench" },
  secret: () => undefined,
  seed,
});
for (let warm = 0; warm < 5; warm++) measure(keygenRun(`warm ${warm}`));
const generated = Array.from({ length: Math.ceil(runs / 3) }, (_, index) => measure(keygenRun(`keygen ${index}`)));
const shares = generated[0]?.outputs ?? new Map<PartyId, KeyShare>();
report("key generation, 3 of 5", 0, generated);

/** Nonces first, then one round with them; keys are the nodes' own, remembered between sessions as nodes do. */
function measurePrepared(items: readonly SigningItem[], authorization: Uint8Array, seed: string) {
  const ids = [1, 3, 5];
  const keyOf = (party: PartyId): KeyShare => shares.get(party) ?? fail();
  const secretShare = (party: PartyId): Scalar => keyOf(party).secretShare;
  const pub = { key: keyOf(partyId(1)), count: items.length };
  const made = measure({ protocol: prepareNonces, ids, pub, secret: secretShare, seed });
  const named = items.map((item, index) => ({
    ...item,
    noncesId: made.outputs.get(partyId(1))?.[index]?.id ?? fail(),
  }));
  const stored = new Map([...made.outputs].map(([party, all]) => [party, all.map((nonces) => nonces.encode())]));
  const signed = measure({
    protocol: frostSignPrepared,
    ids,
    pub: { key: pub.key, items: named, authorization },
    pubOf: (party) => ({ key: keyOf(party), items: named, authorization }),
    secret: (party) => ({
      secretShare: secretShare(party),
      nonces: stored.get(party)?.map((bytes) => PreparedNonces.decode(bytes)) ?? [],
    }),
    seed: `${seed}/sign`,
  });
  const [signatures] = signed.outputs.values();
  for (const [at, { message, bip32Tweak }] of items.entries()) {
    const { xOnly } = outputKey(pub.key, bip32Tweak);
    if (!schnorr.verify(signatures?.[at] ?? new Uint8Array(), message, xOnly)) throw new Error("does not verify");
  }
  return { made, signed };
}
function fail(): never {
  throw new Error("incomplete");
}

const contenders = { "noble-curves": nobleSign, ours: frostSign, "session engine alone": emptySign };
for (const inputs of [1, 10]) {
  const samples = new Map<string, Sample<readonly Uint8Array[]>[]>();
  const preparations: Sample<unknown>[] = [];
  const count = inputs === 1 ? runs : Math.ceil(runs / 3);
  const warmUp = inputs === 1 ? 20 : 3;
  for (let index = -warmUp; index < count; index++) {
    const random = new SeededRandom(`items ${inputs} ${index}`);
    const items: SigningItem[] = Array.from({ length: inputs }, () => ({
      message: random.bytes(32),
      bip32Tweak: Scalar.random(random),
    }));
    const authorization = random.bytes(32);
    for (const [name, protocol] of Object.entries(contenders)) {
      const [key] = shares.values();
      if (key === undefined) throw new Error("no key");
      const sample = measure({
        protocol,
        ids: [1, 3, 5],
        pub: { key, items, authorization },
        // Each party of each run has a key object of its own, as from its own store: none is remembered for another.
        pubOf: () => ({ key: { ...key }, items, authorization }),
        secret: (party) => shares.get(party)?.secretShare ?? Scalar.zero,
        seed: `sign ${inputs} ${index}`,
      });
      if (protocol !== emptySign) {
        const [signatures] = sample.outputs.values();
        for (const [at, { message, bip32Tweak }] of items.entries()) {
          const signature = signatures?.[at] ?? new Uint8Array();
          if (!schnorr.verify(signature, message, outputKey(key, bip32Tweak).xOnly)) throw new Error("does not verify");
        }
      }
      if (index >= 0) samples.set(name, [...(samples.get(name) ?? []), sample]);
    }
    const { made, signed } = measurePrepared(items, authorization, `prepared ${inputs} ${index}`);
    if (index < 0) continue;
    samples.set("ours, nonces ready", [...(samples.get("ours, nonces ready") ?? []), signed]);
    preparations.push(made);
  }
  report(`nonces for ${inputs} input${inputs === 1 ? "" : "s"}`, inputs, preparations);
  for (const [name, all] of samples) report(`sign ${inputs} input${inputs === 1 ? "" : "s"}, ${name}`, inputs, all);
}

if (values.json) {
  console.log(JSON.stringify({ machine: { cpus: cpus().length, node: process.version }, rows }));
} else {
  console.log(`${cpus().length} cores, Node ${process.version}, 3 of 5; medians\n`);
  for (const { name, cpuMsPerParty, wallMsAllParties, runs: count } of rows) {
    const wall = `wall ${wallMsAllParties.toFixed(1).padStart(7)} ms all parties in turn`;
    console.log(`${name.padEnd(36)} CPU ${cpuMsPerParty.toFixed(2).padStart(6)} ms a party   ${wall}   (${count})`);
  }
}
