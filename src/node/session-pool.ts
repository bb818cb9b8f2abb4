import type { KeyObject } from "node:crypto";
import { Worker } from "node:worker_threads";
import type { Clock } from "../crypto/ambient.js";
import { Bug, Unavailable } from "../crypto/fault.js";
import { SessionDesk, type SessionOrder } from "./session-desk.js";
import { type SessionJob, type SessionResult, type SessionSeat, sessionDependencies } from "./session-job.js";
import { resultOf, type SessionEnd, type SessionReport } from "./session-report.js";

/**
 * After a link broke, what is still under way from others may arrive. Without this wait the first party to give up
 * would itself look silent to the next.
 */
export const LINK_GRACE_MS = 300;

export interface SessionPoolOptions {
  /** Worker threads, 1 to 64; with 0 sessions run in the thread of the pool itself. */
  readonly workers: number;
  /** This node's Ed25519 identity. */
  readonly identity: KeyObject;
  /** Sessions at once over all workers; one more is refused. */
  readonly maxSessions: number;
  readonly patience: (kind: SessionJob["kind"]) => SessionPatience;
}

/** How long a session of one kind may take. */
export interface SessionPatience {
  /** Longest wait for one round. */
  readonly roundTimeoutMs: number;
  /** Longest run of a session. */
  readonly sessionTimeoutMs: number;
}

/** How a running session reaches its peers. */
export interface SessionWire {
  /** `to` is a party index, or 0 for all others. */
  send(to: number, bytes: Uint8Array): void;
  /** Hears of every round that the session begins to wait for. */
  onRound?(round: string): void;
  /** What the session says is held back until its release: nobody can be late with an answer before. */
  readonly held?: boolean;
}

/** A session under way. */
export interface SessionHandle {
  receive(bytes: Uint8Array): void;
  /** The link to a party broke: the session ends as soon as it waits for that party, not after the round's time. */
  lost(party: number): void;
  /** Of a held session: what it said leaves now, and others have the time of a round to answer. */
  release(): void;
  /** Ends the session without a word: nobody waits for its result, which stays open. */
  drop(): void;
  readonly result: Promise<SessionResult>;
}

/** Whatever runs a node's sessions. */
export interface SessionRunner {
  /** @throws Unavailable `session-limit` when too many sessions run */
  run(job: SessionJob, seat: SessionSeat, wire: SessionWire): SessionHandle;
  close(): Promise<void>;
}

/** What runs sessions: a worker thread, or a desk in this one. */
interface Runner {
  postMessage(order: SessionOrder): void;
  terminate(): Promise<unknown>;
}

interface Running {
  readonly worker: Runner;
  readonly wire: SessionWire;
  readonly roundTimeoutMs: number;
  isReleased: boolean;
  round: string;
  missing: readonly number[];
  readonly lost: Set<number>;
  cancelRound: () => void;
  readonly cancelSession: () => void;
  readonly settle: (end: SessionEnd) => void;
}

/** Runs sessions in warm threads, each session whole in one thread, and holds the clocks that they have not. */
export class SessionPool implements SessionRunner {
  readonly #options: SessionPoolOptions;
  readonly #clock: Clock;
  #workers: Runner[] = [];
  readonly #running = new Map<number, Running>();
  #next = 1;
  #closing = false;

  private constructor(options: SessionPoolOptions, clock: Clock) {
    this.#options = options;
    this.#clock = clock;
  }

  static async start(options: SessionPoolOptions, dependencies: { readonly clock: Clock }): Promise<SessionPool> {
    const pool = new SessionPool(options, dependencies.clock);
    if (options.workers === 0) pool.#workers.push(pool.#desk());
    await Promise.all(Array.from({ length: options.workers }, () => pool.#spawn()));
    return pool;
  }

  run(job: SessionJob, seat: SessionSeat, wire: SessionWire): SessionHandle {
    if (this.#running.size >= this.#options.maxSessions) {
      throw new Unavailable("session-limit", "too many sessions run at once; try again", {
        limit: this.#options.maxSessions,
      });
    }
    const worker = this.#leastBusy();
    const { roundTimeoutMs, sessionTimeoutMs } = this.#options.patience(job.kind);
    const handle = this.#next++;
    const result = new Promise<SessionResult>((resolve, reject) => {
      const running: Running = {
        worker,
        wire,
        roundTimeoutMs,
        isReleased: wire.held !== true,
        round: "",
        missing: [],
        lost: new Set(),
        cancelRound: () => {},
        cancelSession: this.#clock.after(sessionTimeoutMs, () => this.#order(worker, { kind: "expire", handle })),
        settle: (end) => {
          running.cancelRound();
          running.cancelSession();
          this.#running.delete(handle);
          try {
            resolve(resultOf(end));
          } catch (fault) {
            reject(fault);
          }
        },
      };
      this.#running.set(handle, running);
      this.#order(worker, { kind: "start", handle, job, seat });
    });
    const lost = (party: number): void => {
      const running = this.#running.get(handle);
      if (running === undefined) return;
      running.lost.add(party);
      this.#clock.after(LINK_GRACE_MS, () => this.#expireIfLost(handle));
    };
    const drop = (): void => {
      const running = this.#running.get(handle);
      if (running === undefined) return;
      running.cancelRound();
      running.cancelSession();
      this.#running.delete(handle);
      this.#order(worker, { kind: "drop", handle });
    };
    return {
      result,
      lost,
      drop,
      release: () => {
        const running = this.#running.get(handle);
        if (running === undefined) return;
        running.isReleased = true;
        this.#startRound(running, handle);
      },
      receive: (bytes) => this.#order(worker, { kind: "receive", handle, bytes }),
    };
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #desk(): Runner {
    const desk = new SessionDesk(sessionDependencies(this.#options.identity), (report) => this.#onReport(report));
    return { postMessage: (order) => desk.order(order), terminate: async () => undefined };
  }

  async #spawn(): Promise<void> {
    const worker = new Worker(new URL("./session-worker.js", import.meta.url), {
      workerData: { identity: this.#options.identity },
    });
    worker.on("message", (report: SessionReport) => this.#onReport(report));
    worker.on("error", (error) => this.#onCrash(worker, error.message));
    worker.on("exit", () => this.#onCrash(worker, "the session thread ended"));
    await new Promise<void>((resolve, reject) => {
      worker.once("online", resolve);
      worker.once("error", reject);
    });
    this.#workers.push(worker);
  }

  #onReport(report: SessionReport): void {
    const running = this.#running.get(report.handle);
    if (running === undefined) return;
    switch (report.kind) {
      case "send":
        running.wire.send(report.to, report.bytes);
        break;
      case "waiting":
        running.missing = report.missing;
        if (running.lost.size > 0) this.#clock.after(LINK_GRACE_MS, () => this.#expireIfLost(report.handle));
        if (report.round === running.round) break;
        running.round = report.round;
        running.wire.onRound?.(report.round);
        if (running.isReleased) this.#startRound(running, report.handle);
        break;
      case "end":
        running.settle(report.end);
        break;
    }
  }

  #startRound(running: Running, handle: number): void {
    const { worker, roundTimeoutMs } = running;
    running.cancelRound();
    running.cancelRound = this.#clock.after(roundTimeoutMs, () => this.#order(worker, { kind: "expire", handle }));
  }

  #expireIfLost(handle: number): void {
    const running = this.#running.get(handle);
    if (running?.missing.some((party) => running.lost.has(party)) === true) {
      this.#order(running.worker, { kind: "expire", handle });
    }
  }

  /** A thread that died takes its sessions with it; a new thread takes its place. */
  #onCrash(worker: Runner, message: string): void {
    if (!this.#workers.includes(worker)) return;
    this.#workers = this.#workers.filter((other) => other !== worker);
    for (const running of [...this.#running.values()]) {
      if (running.worker !== worker) continue;
      running.settle({
        state: "failed",
        kind: "bug",
        code: "bug",
        message,
        facts: {},
        parties: [],
        evidence: [],
        exhibits: [],
      });
    }
    if (!this.#closing) void this.#spawn();
  }

  #leastBusy(): Runner {
    const [only] = this.#workers;
    if (only !== undefined && this.#workers.length === 1) return only;
    const load = (worker: Runner): number => [...this.#running.values()].filter((run) => run.worker === worker).length;
    const [first] = [...this.#workers].sort((a, b) => load(a) - load(b));
    if (first === undefined) throw new Bug("no session thread is alive");
    return first;
  }

  #order(worker: Runner, order: SessionOrder): void {
    worker.postMessage(order);
  }
}
