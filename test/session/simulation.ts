import { generateKeyPairSync, type KeyObject } from "node:crypto";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { sha256 } from "@noble/hashes/sha2.js";
import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import type { Random } from "../../src/crypto/ambient.js";
import { ed25519PrivateKey, ed25519PublicKey, signEd25519 } from "../../src/crypto/ed25519.js";
import { judge } from "../../src/session/evidence.js";
import { Group, type PartyId, partyId } from "../../src/session/party.js";
import type { Effect, Protocol, Round, Steps } from "../../src/session/protocol.js";
import { type Progress, type Receipt, Session, type SessionContext, sessionDigest } from "../../src/session/session.js";

/** Deterministic stream: SHA-256 in counter mode over a seed. The same seed gives the same run. */
export class SeededRandom implements Random {
  readonly #seed: string;
  #counter = 0;

  constructor(seed: string | number) {
    this.#seed = String(seed);
  }

  bytes(length: number): Uint8Array {
    const out = new Uint8Array(length);
    for (let offset = 0; offset < length; offset += 32) {
      const block = sha256(Buffer.from(`${this.#seed}/${this.#counter++}`));
      out.set(block.subarray(0, Math.min(32, length - offset)), offset);
    }
    return out;
  }

  /** Uniform enough for scheduling. */
  below(bound: number): number {
    return Buffer.from(this.bytes(6)).readUIntBE(0, 6) % bound;
  }
}

const seeds = new Map<number, Uint8Array>();
/** Identity seed of a test party; the same index has the same key in every test. */
export function identitySeed(id: number): Uint8Array {
  const seed = seeds.get(id) ?? sha256(Buffer.from(`identity of test party ${id}`));
  seeds.set(id, seed);
  return seed;
}

const identities = new Map<number, { readonly key: KeyObject; readonly publicKey: Uint8Array }>();
function identityOf(id: number) {
  const known = identities.get(id);
  if (known !== undefined) return known;
  const key = ed25519PrivateKey(identitySeed(id));
  const made = { key, publicKey: ed25519PublicKey(key) };
  identities.set(id, made);
  return made;
}

export const signAs = (id: number) => {
  const { key } = identityOf(id);
  return (message: Uint8Array): Uint8Array => signEd25519(key, message);
};

/** A group of test parties with the given indices. */
export function testGroup(ids: readonly number[]): Group {
  return new Group(ids.map((id) => ({ id: partyId(id), nodeId: `node-${id}`, identityKey: identityOf(id).publicKey })));
}

export interface Run<Pub, Secret, Out> {
  readonly protocol: Protocol<Pub, Secret, Out>;
  readonly ids: readonly number[];
  readonly pub: Pub;
  /** What one party holds in place of `pub`: the same public values, with its own secrets behind them. */
  readonly pubOf?: (party: PartyId) => Pub;
  readonly secret: (party: PartyId) => Secret;
  readonly seed: string | number;
  /** Protocol that one party runs in place of the honest one. */
  readonly cheats?: ReadonlyMap<number, Protocol<Pub, Secret, Out>>;
  /** Parties whose own session may break down over what they did; an honest party's breakdown fails the test. */
  readonly dishonest?: readonly number[];
  /** Changes bytes in flight; undefined drops them. */
  readonly wire?: (delivery: Delivery) => Uint8Array | undefined;
}

export interface Delivery {
  readonly from: PartyId;
  readonly to: PartyId;
  readonly bytes: Uint8Array;
}

export interface Outcome<Out> {
  readonly progress: ReadonlyMap<PartyId, Progress<Out>>;
  readonly receipts: readonly Receipt[];
  readonly delivered: readonly Delivery[];
  readonly context: SessionContext<unknown>;
}

/** Runs all parties in memory; the seed decides entropy and the order of every delivery. */
export function simulate<Pub, Secret, Out>(run: Run<Pub, Secret, Out>): Outcome<Out> {
  const schedule = new SeededRandom(`${run.seed}/schedule`);
  const group = testGroup(run.ids);
  const context = { sessionId: new SeededRandom(`${run.seed}/session`).bytes(16), group, pub: run.pub };
  const sessions = new Map(
    group.ids.map((self) => [
      self,
      new Session<Pub, Secret, Out>(
        {
          protocol: run.cheats?.get(self) ?? run.protocol,
          context: { ...context, pub: run.pubOf?.(self) ?? run.pub },
          self,
          secret: run.secret(self),
        },
        { random: new SeededRandom(`${run.seed}/${self}`), sign: signAs(self) },
      ),
    ]),
  );
  const inFlight: Delivery[] = [];
  const receipts: Receipt[] = [];
  const delivered: Delivery[] = [];
  const collect = (from: PartyId, session: Session<Pub, Secret, Out>) => {
    for (const { to, bytes } of session.drain()) {
      for (const recipient of to === 0 ? group.others(from) : [to]) inFlight.push({ from, to: recipient, bytes });
    }
  };
  for (const [from, session] of sessions) collect(from, session);
  while (inFlight.length > 0) {
    const [delivery] = inFlight.splice(schedule.below(inFlight.length), 1);
    if (delivery === undefined) break;
    const bytes = run.wire === undefined ? delivery.bytes : run.wire(delivery);
    if (bytes === undefined) continue;
    // Every eighth delivery, as the seed has it, arrives twice.
    if (schedule.below(8) === 0) inFlight.push(delivery);
    const session = sessions.get(delivery.to);
    if (session === undefined) continue;
    delivered.push({ ...delivery, bytes });
    try {
      receipts.push(session.receive(bytes));
      collect(delivery.to, session);
    } catch (error) {
      if (run.dishonest?.includes(delivery.to) !== true && run.cheats?.has(delivery.to) !== true) throw error;
      sessions.delete(delivery.to);
    }
  }
  for (const session of sessions.values()) session.expire();
  return {
    progress: new Map([...sessions].map(([id, session]) => [id, session.progress])),
    receipts,
    delivered,
    context,
  };
}

/**
 * The protocol with every message of one round changed before it is signed; the party itself goes on as if it had
 * sent the honest one, and accuses nobody. `to` is 0 for a broadcast.
 */
export function cheating<Pub, Secret, Out, M extends DescMessage>(
  protocol: Protocol<Pub, Secret, Out>,
  round: Round<M>,
  change: (message: MessageShape<M>, to: number) => MessageShape<M>,
): Protocol<Pub, Secret, Out> {
  return {
    ...protocol,
    *run(participant, secret): Steps<Pub, Out> {
      const steps = protocol.run(participant, secret);
      let input: unknown;
      let honest: unknown;
      for (;;) {
        const next = steps.next(input);
        if (next.done === true) return next.value;
        const effect: Effect<Pub> = next.value;
        if (effect.kind === "verify") {
          input = undefined;
        } else if (effect.kind === "send" && effect.round.id === round.id) {
          input = yield {
            ...effect,
            compose(to) {
              honest = effect.compose(to);
              return change(honest as MessageShape<M>, to);
            },
          };
        } else {
          input = yield effect;
          if (effect.kind === "receive" && effect.round.id === round.id && round.delivery === "broadcast") {
            input = new Map(input as ReadonlyMap<PartyId, unknown>).set(participant.self, honest);
          }
        }
      }
    },
  };
}

/** Outputs of all parties; throws when one of them is not done. */
export function outputs<Out>(outcome: Outcome<Out>): ReadonlyMap<PartyId, Out> {
  return new Map(
    [...outcome.progress].map(([id, progress]) => {
      if (progress.state !== "done") throw new Error(`party ${id} is ${describe(progress)}`);
      return [id, progress.output];
    }),
  );
}

function describe<Out>(progress: Progress<Out>): string {
  return progress.state === "aborted" ? `aborted: ${progress.fault.message}` : progress.state;
}

/** Evidence that a party gathered; empty when it did not abort with a proof. */
export function evidenceOf<Out>(progress: Progress<Out> | undefined): readonly Evidence[] {
  return progress?.state === "aborted" && progress.fault.kind === "peer-fault" ? progress.fault.evidence : [];
}

/** A judge's verdict on evidence, from public facts alone. */
export function judged<Pub, Secret, Out>(
  protocol: Protocol<Pub, Secret, Out>,
  context: SessionContext<Pub>,
  evidence: Evidence,
): boolean {
  const { group, pub } = context;
  const trial = {
    protocol,
    group,
    pub,
    shape: protocol.shape(pub, group.ids.length),
    ssid: sessionDigest(protocol, context),
  };
  return judge(trial, evidence);
}

/** A fresh identity that is in no group. */
export function strangerSeed(): Uint8Array {
  const { privateKey } = generateKeyPairSync("ed25519");
  return new Uint8Array(privateKey.export({ format: "der", type: "pkcs8" }).subarray(-32));
}
