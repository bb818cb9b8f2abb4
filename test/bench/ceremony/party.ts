// One party of a benched ceremony. It runs where it is made: in the process that benches, or in one of its own
// (party-process.ts); either way it only sees orders and envelopes.
import { createPrivateKey } from "node:crypto";
import { Scalar } from "../../../src/crypto/curve.js";
import { profiles, type SecurityProfile } from "../../../src/crypto/security-profile.js";
import { systemClock, systemRandom } from "../../../src/node/ambient.js";
import { SessionPool } from "../../../src/node/session-pool.js";
import { drawAuxPrimes } from "../../../src/protocols/cggmp24/aux-primes.js";
import { encodeAuxInfo } from "../../../src/protocols/cggmp24/aux-record.js";
import { Presignature } from "../../../src/protocols/cggmp24/presignature.js";
import { encodeKeyShare } from "../../../src/protocols/key-share.js";
import { keygen } from "../../../src/protocols/keygen.js";
import { partyId } from "../../../src/session/party.js";
import { Session } from "../../../src/session/session.js";
import { auxRun, type Ceremony, ceremony, of, presignRun, signRun } from "../../protocols/cggmp24/ceremony.js";
import { type Loose, lying, otherPoint, otherScalar } from "../../protocols/cggmp24/dishonesty.js";
import { identitySeed, type Run, SeededRandom, signAs, testGroup } from "../../session/simulation.js";

/** What all parties do together. */
export interface Task {
  readonly operation:
    | "keygen"
    | "aux-info"
    | "aux-info-cold"
    | "presign"
    | "presign-batch"
    | "sign"
    | "failed-nonce"
    | "failed-chi";
  readonly profile: SecurityProfile["name"];
  /** Party indices, ascending. The last one lies where something shall fail. */
  readonly ids: readonly number[];
  readonly threshold: number;
  /** Another one for every run. */
  readonly seed: string;
  /** Sessions of a batch. */
  readonly count: number;
}

/** Sends an envelope of one session of the task; `to` is 0 for all others. */
export type SendEnvelope = (session: number, to: number, bytes: Uint8Array) => void;

/** As a node has it: sessions of a batch that run at once, and the threads that they run in. */
const LANES = 2;
const WORKERS = 2;
const HOLDERS = 5;
const PATIENCE = { roundTimeoutMs: 600_000, sessionTimeoutMs: 600_000 };

export class Party {
  readonly self: number;
  readonly #ceremonies = new Map<string, Ceremony>();
  readonly #presignatures: Presignature[] = [];
  readonly #receivers = new Map<number, (bytes: Uint8Array) => void>();
  readonly #early: { readonly session: number; readonly bytes: Uint8Array }[] = [];
  #pool: SessionPool | undefined;

  constructor(self: number) {
    this.self = self;
  }

  /** What is not measured: keys, worker threads. */
  async prepare(task: Task): Promise<void> {
    this.#receivers.clear();
    this.#early.length = 0;
    if (task.operation !== "keygen") this.#ceremonyOf(task);
    if (task.operation === "presign-batch") this.#pool ??= await this.#startPool();
  }

  /** Runs to the end; resolves with how it ended. */
  async run(task: Task, send: SendEnvelope): Promise<string> {
    return task.operation === "presign-batch" ? await this.#batch(task, send) : await this.#single(task, send);
  }

  receive(session: number, bytes: Uint8Array): void {
    const receiver = this.#receivers.get(session);
    if (receiver === undefined) this.#early.push({ session, bytes });
    else receiver(bytes);
  }

  async close(): Promise<void> {
    await this.#pool?.close();
  }

  async #single(task: Task, send: SendEnvelope): Promise<string> {
    const run = await this.#runOf(task);
    const self = partyId(this.self);
    const session = new Session<unknown, unknown, unknown>(
      {
        protocol: run.cheats?.get(this.self) ?? run.protocol,
        context: { sessionId: sessionId(task, 0), group: testGroup(run.ids), pub: run.pubOf?.(self) ?? run.pub },
        self,
        secret: run.secret(self),
      },
      { random: new SeededRandom(`${run.seed}/${this.self}`), sign: signAs(this.self) },
    );
    return await new Promise((resolve) => {
      const advance = (): void => {
        for (const { to, bytes } of session.drain()) send(0, to, bytes);
        const { progress } = session;
        if (progress.state === "waiting") return;
        if (progress.state === "done" && progress.output instanceof Presignature) {
          this.#presignatures.push(progress.output);
        }
        resolve(progress.state === "aborted" ? `aborted, named ${namedIn(progress.fault)}` : progress.state);
      };
      const lies = run.cheats?.has(this.self) === true;
      this.#listen(0, (bytes) => {
        try {
          session.receive(bytes);
          advance();
        } catch (error) {
          if (!lies) throw error; // a liar may break down over its own lies
        }
      });
      advance();
      if (lies) resolve("lied"); // it accuses nobody, so it would wait for ever when the others have ended
    });
  }

  /** Sessions in worker threads, as a node makes a batch. */
  async #batch(task: Task, send: SendEnvelope): Promise<string> {
    const pool = this.#pool ?? (await this.#startPool());
    const { shares, aux } = this.#ceremonyOf(task);
    const self = partyId(this.self);
    const parties = testGroup(task.ids).parties.map((party) => ({ ...party }));
    const waiting = Array.from({ length: task.count }, (_, index) => index);
    const lane = async (): Promise<void> => {
      for (let index = waiting.shift(); index !== undefined; index = waiting.shift()) {
        const session = index;
        const job = {
          kind: "presign" as const,
          keyShare: encodeKeyShare(of(shares, self)),
          auxInfo: encodeAuxInfo(of(aux, self)),
        };
        const handle = pool.run(
          job,
          { sessionId: sessionId(task, session), self: this.self, parties },
          { send: (to, bytes) => send(session, to, bytes) },
        );
        this.#listen(session, (bytes) => handle.receive(bytes));
        await handle.result;
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    return "done";
  }

  #listen(session: number, receiver: (bytes: Uint8Array) => void): void {
    this.#receivers.set(session, receiver);
    for (const early of this.#early.splice(0)) {
      if (early.session === session) receiver(early.bytes);
      else this.#early.push(early);
    }
  }

  async #startPool(): Promise<SessionPool> {
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), identitySeed(this.self)]);
    const identity = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const options = { workers: WORKERS, identity, maxSessions: 64, patience: () => PATIENCE };
    return await SessionPool.start(options, { clock: systemClock });
  }

  #ceremonyOf(task: Task): Ceremony {
    const name = `${task.profile}/${task.threshold}`;
    const made =
      this.#ceremonies.get(name) ??
      ceremony({ threshold: task.threshold, n: HOLDERS, profile: profileOf(task) }, `bench ${task.threshold}`);
    this.#ceremonies.set(name, made);
    return made;
  }

  async #runOf(task: Task): Promise<Run<unknown, unknown, unknown>> {
    const { operation, ids, seed } = task;
    switch (operation) {
      case "keygen": {
        const pub = { scheme: "cggmp24" as const, threshold: task.threshold, walletId: "wallet" };
        return loose({ protocol: keygen, ids, pub, secret: () => undefined, seed });
      }
      case "aux-info":
        return loose(auxRun(ids, this.#ceremonyOf(task).key, profileOf(task), seed));
      case "aux-info-cold": {
        const primes = await drawAuxPrimes(profileOf(task), systemRandom, () => {});
        return loose({ ...auxRun(ids, this.#ceremonyOf(task).key, profileOf(task), seed), secret: () => primes });
      }
      case "sign": {
        const own = this.#presignatures.pop();
        if (own === undefined) throw new Error("nothing was presigned before signing");
        const random = new SeededRandom(`${seed}/message`);
        const message = { digest: { bytes: random.bytes(32) }, bip32Tweak: Scalar.random(random) };
        const set = new Map(ids.map((id) => [partyId(id), own]));
        return loose(signRun(this.#ceremonyOf(task), [set], [message], seed));
      }
      case "failed-nonce":
        return loose(lied(this.#honest(task), (share) => otherScalar(share.productShare)));
      case "failed-chi":
        return loose(lied(this.#honest(task), (share) => otherPoint(share.key)));
      default:
        return loose(this.#honest(task));
    }
  }

  #honest(task: Task) {
    return presignRun(this.#ceremonyOf(task), task.ids, task.seed);
  }
}

/** The last party publishes a wrong share of step 3. */
function lied<Pub, Secret, Out>(run: Run<Pub, Secret, Out>, change: (share: Loose) => void): Run<Pub, Secret, Out> {
  return { ...run, cheats: new Map([[run.ids.at(-1) ?? 0, lying(run.protocol, { share: change })]]) };
}

/** The engine treats all protocols alike; here a run and its session stay together. */
const loose = <Pub, Secret, Out>(run: Run<Pub, Secret, Out>): Run<unknown, unknown, unknown> => run as Loose;

function profileOf({ profile: wanted }: Task): SecurityProfile {
  const profile = profiles.find(({ name }) => name === wanted);
  if (profile === undefined) throw new Error(`no profile ${wanted}`);
  return profile;
}

const sessionId = (task: Task, session: number): Uint8Array =>
  new SeededRandom(`${task.operation}/${task.seed}/${session}`).bytes(16);

const namedIn = (fault: { readonly kind: string }): string =>
  "culprits" in fault && Array.isArray(fault.culprits) ? fault.culprits.join(" and ") : "nobody";
