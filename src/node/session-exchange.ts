import { setImmediate as nextTurn } from "node:timers/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type ExchangeRequest,
  type ExchangeRequestSchema,
  type ExchangeResponse,
  type ExchangeResponseSchema,
  type SessionFrame,
  SessionFrameSchema,
} from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Clock } from "../crypto/ambient.js";
import { Bug, InvalidInput, Unavailable } from "../crypto/fault.js";
import { FrameQueue } from "./frame-queue.js";
import type { SessionJob, SessionResult, SessionSeat } from "./session-job.js";
import type { SessionHandle, SessionRunner } from "./session-pool.js";
import { TakeRoll } from "./take-roll.js";

/** Opens one stream to a peer; ends or fails with the signal. */
export type OpenExchange = (
  to: { readonly peer: string; readonly kind: SessionJob["kind"] },
  requests: AsyncIterable<MessageInitShape<typeof ExchangeRequestSchema>>,
  signal: AbortSignal,
) => AsyncIterable<ExchangeResponse>;

export interface SessionExchangeOptions {
  /** How long an incoming stream waits for its session to be started here. */
  readonly patienceMs: number;
  /** Incoming streams that may wait at once. */
  readonly maxWaiting: number;
  /** Frames that may wait for one peer. */
  readonly linkCapacity: number;
  /** Session ids remembered after their end, so that none runs twice. */
  readonly rememberedSessions: number;
  /** How long a signer waits for the others to say that they have used up their parts. */
  readonly takePatienceMs: number;
}

export interface RunOptions {
  /** Hears of every round that the session begins to wait for. */
  readonly onRound?: (round: string) => void;
  /** Called once, before the session is started. */
  readonly release?: () => Promise<void>;
}

/** A session that this node has joined: its streams to the peers are being opened. To be left in the end. */
export interface SessionPlace {
  /**
   * Tells the peers that this node has used up its part of the items that it joined with, durably, and resolves when all
   * of them have said the same. Only then may anything leave that depends on the items: one peer that has used its part
   * for another session before says no such thing, whatever this node or the coordinator has forgotten.
   *
   * @throws what `TakeRoll.complete` throws
   */
  takeTogether(): Promise<void>;
  /**
   * Runs this node's part to its end. With `release` the session computes what it has to say while that is pending, and
   * until it resolves nothing of the session leaves this node: no envelope, no output.
   *
   * @throws what the session throws, or what `release` rejects with
   */
  run(job: SessionJob, options?: RunOptions): Promise<SessionResult>;
  leave(): void;
}

/** A session that was joined here, with a queue of frames for each peer. */
interface Live {
  readonly kind: SessionJob["kind"];
  readonly seat: SessionSeat;
  readonly links: ReadonlyMap<number, FrameQueue<SessionFrame>>;
  readonly attached: Set<number>;
  readonly roll: TakeRoll | undefined;
  /** Resolves with undefined when the session is left before it ran. */
  readonly handle: Promise<SessionHandle | undefined>;
}

/** Given to the streams of sessions that are over; one for all, since an error costs more to make than a small call. */
const LEFT = new Unavailable("session-over", "the session is over here");

const keyOf = (sessionId: Uint8Array): string => Buffer.from(sessionId).toString("hex");

/**
 * Carries the envelopes of sessions between peers: one bidirectional stream for a session and a pair of parties,
 * opened by the party with the lower index. The streams authenticate nodes, the envelopes authenticate themselves.
 */
export class SessionExchange {
  readonly #options: SessionExchangeOptions;
  readonly #pool: Pick<SessionRunner, "run">;
  readonly #open: OpenExchange;
  readonly #clock: Clock;
  readonly #live = new Map<string, Live>();
  readonly #ended = new Set<string>();
  readonly #waiting = new Map<string, Set<(live: Live) => void>>();
  #waitingCount = 0;

  constructor(
    options: SessionExchangeOptions,
    dependencies: {
      readonly pool: Pick<SessionRunner, "run">;
      readonly open: OpenExchange;
      readonly clock: Clock;
    },
  ) {
    this.#options = options;
    this.#pool = dependencies.pool;
    this.#open = dependencies.open;
    this.#clock = dependencies.clock;
  }

  /** Runs this node's part of a session to its end. @throws InvalidInput `session-reused`, and what the session throws */
  async run(job: SessionJob, seat: SessionSeat, options?: RunOptions): Promise<SessionResult> {
    const place = this.join(job.kind, seat);
    try {
      return await place.run(job, options);
    } finally {
      place.leave();
    }
  }

  /**
   * Begins a session with its peers: the streams are opened while this node still prepares its part. `takes` are the ids
   * of the one-use items that it is about to use up, for a session that signs with such.
   *
   * @throws InvalidInput `session-reused`
   */
  join(kind: SessionJob["kind"], seat: SessionSeat, takes?: readonly Uint8Array[]): SessionPlace {
    const key = keyOf(seat.sessionId);
    if (this.#live.has(key) || this.#ended.has(key)) {
      throw new InvalidInput("session-reused", "a session id is used once", { sessionId: key });
    }
    const peers = seat.parties.filter(({ id }) => id !== seat.self);
    const links = new Map(peers.map(({ id }) => [id, new FrameQueue<SessionFrame>(this.#options.linkCapacity)]));
    const sendAll = (frame: SessionFrame): void => {
      for (const link of links.values()) link.push(frame);
    };
    const roll = takes === undefined ? undefined : new TakeRoll({ takes, peers }, this.#clock);
    let begin = (_: SessionHandle | undefined): void => {};
    const handle = new Promise<SessionHandle | undefined>((resolve) => {
      begin = resolve;
    });
    const stop = new AbortController();
    const live: Live = { kind, seat, links, attached: new Set(), roll, handle };
    this.#live.set(key, live);
    for (const { id, nodeId } of peers) if (id > seat.self) void this.#dial(live, { id, nodeId }, stop.signal);
    for (const wake of this.#waiting.get(key) ?? []) wake(live);
    return {
      takeTogether: async () => {
        if (takes === undefined || roll === undefined) throw new Bug("a session that takes nothing");
        sendAll(create(SessionFrameSchema, { kind: { case: "take", value: { itemIds: [...takes] } } }));
        await roll.complete(this.#options.takePatienceMs);
      },
      run: async (job, { onRound, release } = {}) => {
        const send = (to: number, bytes: Uint8Array): void => {
          const frame = create(SessionFrameSchema, { kind: { case: "envelope", value: bytes } });
          if (to === 0) sendAll(frame);
          else links.get(to)?.push(frame);
        };
        let held: [number, Uint8Array][] | undefined;
        const start = (): SessionHandle =>
          this.#pool.run(job, seat, {
            send: (to, bytes) => void (held === undefined ? send(to, bytes) : held.push([to, bytes])),
            held: held !== undefined,
            ...(onRound === undefined ? {} : { onRound }),
          });
        if (release === undefined) {
          if (roll !== undefined) throw new Bug("a session that takes waits until all have taken");
          const running = start();
          begin(running);
          return await running.result;
        }
        held = [];
        const released = release();
        released.catch(() => {}); // a session that cannot be started fails before it is looked at
        // What this node has just said goes out before its thread computes for a millisecond.
        await nextTurn();
        await nextTurn();
        const running = start();
        try {
          // A session that fails meanwhile ends the wait.
          await Promise.race([released, running.result.then(() => released)]);
        } catch (error) {
          running.drop();
          throw error;
        }
        for (const [to, bytes] of held) send(to, bytes);
        held = undefined;
        running.release();
        begin(running);
        return await running.result;
      },
      leave: () => {
        if (this.#live.get(key) !== live) return;
        begin(undefined);
        this.#remember(key);
        for (const link of links.values()) link.end();
        // What is still queued goes out before the streams are cut.
        this.#clock.after(1_000, () => stop.abort(LEFT));
      },
    };
  }

  /** Serves a stream that a peer with a lower index opened. */
  async *accept(
    peer: string,
    requests: AsyncIterable<ExchangeRequest>,
    signal: AbortSignal,
  ): AsyncGenerator<MessageInitShape<typeof ExchangeResponseSchema>> {
    const reader = requests[Symbol.asyncIterator]();
    const first = await reader.next();
    const kind = first.done === true ? undefined : first.value.frame?.kind;
    if (kind?.case !== "opening" || kind.value.sessionId.length !== 16) {
      throw new InvalidInput("session-opening", "a session stream begins with the session id");
    }
    const live = await this.#find(keyOf(kind.value.sessionId), signal);
    const party = live.seat.parties.find(({ nodeId }) => nodeId === peer);
    const link = party === undefined ? undefined : live.links.get(party.id);
    if (party === undefined || link === undefined || party.id > live.seat.self || live.attached.has(party.id)) {
      throw new InvalidInput("session-stranger", "this peer has no stream to open in this session", { peer });
    }
    live.attached.add(party.id);
    void this.#feed(live, party.id, { [Symbol.asyncIterator]: () => reader });
    for await (const frame of link) yield { frame };
  }

  async #dial(live: Live, { id, nodeId }: { id: number; nodeId: string }, signal: AbortSignal): Promise<void> {
    const link = live.links.get(id);
    if (link === undefined) throw new Bug("a peer without a link");
    const { sessionId } = live.seat;
    const requests = async function* (): AsyncGenerator<MessageInitShape<typeof ExchangeRequestSchema>> {
      yield { frame: { kind: { case: "opening", value: { sessionId } } } };
      for await (const frame of link) yield { frame };
    };
    live.attached.add(id);
    await this.#feed(live, id, this.#open({ peer: nodeId, kind: live.kind }, requests(), signal));
  }

  /** Hands a peer's envelopes to the session until the stream ends; a broken stream is a lost party. */
  async #feed(live: Live, party: number, frames: AsyncIterable<ExchangeRequest | ExchangeResponse>): Promise<void> {
    try {
      for await (const { frame } of frames) {
        if (frame?.kind.case === "take") live.roll?.heard(party, frame.kind.value.itemIds);
        // Envelopes of a peer that is ahead wait in its stream until the session runs here.
        else if (frame?.kind.case === "envelope") (await live.handle)?.receive(frame.kind.value);
      }
    } catch {
      // Why the stream broke is in the transport's log; for the session it is a party that went away.
    }
    // A party that has ended its stream sends no more, whether it is done or gone.
    live.roll?.lost(party);
    (await live.handle)?.lost(party);
  }

  async #find(key: string, signal: AbortSignal): Promise<Live> {
    const known = this.#live.get(key);
    if (known !== undefined) return known;
    if (this.#ended.has(key)) throw new InvalidInput("session-ended", "this session has ended", { sessionId: key });
    if (this.#waitingCount >= this.#options.maxWaiting) {
      throw new Unavailable("session-limit", "too many streams wait for their session", {
        limit: this.#options.maxWaiting,
      });
    }
    this.#waitingCount++;
    const wakers = this.#waiting.get(key) ?? new Set();
    this.#waiting.set(key, wakers);
    let forget = (): void => {};
    try {
      return await new Promise<Live>((resolve, reject) => {
        const fail = (): void =>
          reject(new Unavailable("session-unknown", "no such session was started here", { sessionId: key }));
        wakers.add(resolve);
        const cancel = this.#clock.after(this.#options.patienceMs, fail);
        signal.addEventListener("abort", fail, { once: true });
        forget = () => {
          wakers.delete(resolve);
          cancel();
          signal.removeEventListener("abort", fail);
        };
      });
    } finally {
      this.#waitingCount--;
      forget();
      if (wakers.size === 0) this.#waiting.delete(key);
    }
  }

  #remember(key: string): void {
    this.#live.delete(key);
    this.#ended.add(key);
    const [oldest] = this.#ended;
    if (this.#ended.size > this.#options.rememberedSessions && oldest !== undefined) this.#ended.delete(oldest);
  }
}
