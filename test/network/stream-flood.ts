import { Code } from "@connectrpc/connect";
import { encodeEnd } from "../../src/network/frame-codec.js";
import { percentile } from "./bulk-service.js";
import { HostilePeer, type RawStream } from "./hostile-peer.js";
import {
  BOMBS,
  dataFrames,
  EXCHANGE,
  grpcMessage,
  halfRequest,
  hugeClaim,
  pingBody,
  requestHead,
  singleBytes,
  wholePing,
} from "./hostile-requests.js";
import { NodeProcess } from "./node-process.js";
import { TestAuthority, testVerifier } from "./test-certificates.js";

/** What a hostile peer does on each of its streams, on so many at a time, again as soon as one is over. */
interface Attack {
  readonly name: string;
  readonly streams: number;
  begin(stream: RawStream["stream"], number: number): void;
}

/** One byte each 100 ms. */
function trickle(stream: RawStream["stream"], bytes: Uint8Array): void {
  let sent = 0;
  const timer = setInterval(() => {
    if (!stream.sending || sent === bytes.length) clearInterval(timer);
    else stream.write(bytes.subarray(sent, sent + 1));
    sent += 1;
  }, 100).unref();
}

const half = halfRequest(1_000_000);
const halfTalk = halfRequest(1_000_000, EXCHANGE);
const large = wholePing(1_900_000);
const single = Buffer.concat([requestHead(), singleBytes(pingBody(50_000)), encodeEnd()]);
const bombs = BOMBS.map(([, make]) => make());
const claim = hugeClaim();
const body = dataFrames(grpcMessage(1_000_000));

const ATTACKS: readonly Attack[] = [
  { name: "heads a byte at a time", streams: 90, begin: (stream) => trickle(stream, requestHead()) },
  {
    name: "messages a byte at a time",
    streams: 90,
    begin: (stream) => {
      stream.write(requestHead());
      trickle(stream, body);
    },
  },
  { name: "requests of 1 MB without their last byte", streams: 90, begin: (stream) => void stream.write(half) },
  {
    name: "conversations of 1 MB without their last byte",
    streams: 90,
    begin: (stream) => void stream.write(halfTalk),
  },
  { name: "messages in frames of one byte", streams: 20, begin: (stream) => stream.end(single) },
  {
    name: "header bombs",
    streams: 45,
    begin: (stream, number) => void stream.write(bombs[number % bombs.length] ?? claim),
  },
  { name: "claims of 4 GB", streams: 45, begin: (stream) => stream.end(claim) },
  {
    name: "answers of 1.9 MB that nobody reads",
    streams: 20,
    begin: (stream) => {
      stream.pause();
      stream.end(large);
    },
  },
];

export interface Latency {
  readonly calls: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** What one attack did. */
export interface FloodPhase {
  readonly attack: string;
  readonly opened: number;
  /** How streams ended: by an answer, by a reset with its code, or not before the attack was over. */
  readonly answered: number;
  readonly reset: Readonly<Record<string, number>>;
  readonly unfinished: number;
  /** Calls of an honest peer, one after the other; none failed. */
  readonly alone: Latency;
  readonly during: Latency;
  /** The largest growth of the victim's process, which is alone in it, at any time of the attack. */
  readonly rssGrowthMb: number;
}

const latencyOf = (samples: readonly number[]): Latency => ({
  calls: samples.length,
  p50Ms: percentile(samples, 0.5),
  p99Ms: percentile(samples, 0.99),
});

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Attacks a node with a good certificate, one kind after the other for `attackMs` each. The node, an honest peer and the
 * attacker have a process each; the node has its default limits.
 *
 * @throws when a call of the honest peer fails, or the node loses one of the connections
 */
export async function floodStreams(options: {
  readonly attackMs: number;
  readonly aloneMs: number;
}): Promise<FloodPhase[]> {
  const authority = await TestAuthority.create("stream-flood");
  const b = await NodeProcess.start({
    nodeId: "node-b",
    authority,
    peers: [{ nodeId: "node-a" }, { nodeId: "node-h", dial: "them" }],
  });
  const to = { nodeId: "node-b", host: "127.0.0.1", port: b.port };
  const a = await NodeProcess.start({ nodeId: "node-a", authority, peers: [to] });
  const hostile = await HostilePeer.connect({
    nodeId: "node-h",
    credentials: await authority.issue("node-h"),
    verifier: testVerifier(authority.rootDer),
    to,
  });
  const calls = async (durationMs: number) => {
    const { failed, latenciesMs } = await a.calls("node-b", durationMs, 60_000);
    if (failed.length > 0) throw new Error(`${failed.length} calls of the honest peer failed: ${failed[0]}`);
    return latencyOf(latenciesMs);
  };
  const phases: FloodPhase[] = [];
  try {
    await calls(1_000);
    for (const attack of ATTACKS) {
      const alone = await calls(options.aloneMs);
      const before = await b.memory();
      let most = before;
      let attacking = true;
      const watch = (async () => {
        for (; attacking; await pause(100)) most = Math.max(most, await b.memory());
      })();
      const [during, ended] = await Promise.all([calls(options.attackMs), run(hostile, attack, options.attackMs)]);
      attacking = false;
      await watch;
      phases.push({ attack: attack.name, ...ended, alone, during, rssGrowthMb: (most - before) / 2 ** 20 });
      const { connections } = await b.peer("node-a");
      if (connections !== 1 || hostile.connection.phase !== "active")
        throw new Error(`${attack.name}: a connection died`);
    }
  } finally {
    await hostile.close();
    await Promise.all([a.kill(), b.kill()]);
  }
  return phases;
}

async function run(
  hostile: HostilePeer,
  attack: Attack,
  attackMs: number,
): Promise<Pick<FloodPhase, "opened" | "answered" | "reset" | "unfinished">> {
  const over = pause(attackMs).then(() => "over" as const);
  const reset: Record<string, number> = {};
  const tally = { opened: 0, answered: 0, unfinished: 0, reset };
  const attacker = async () => {
    for (;;) {
      // There may be no room for a stream before the end.
      const opening = hostile.open();
      const opened = await Promise.race([opening, over]);
      if (opened === "over") {
        void opening.then(
          ({ stream }) => stream.reset(0),
          () => {},
        );
        return;
      }
      attack.begin(opened.stream, tally.opened);
      tally.opened += 1;
      const end = await Promise.race([opened.over, over]);
      if (end === "over") {
        tally.unfinished += 1;
        opened.stream.reset(0);
        return;
      }
      opened.stream.reset(0);
      const { resetCode } = opened;
      if (resetCode === undefined) tally.answered += 1;
      else {
        const code = Code[resetCode] ?? String(resetCode);
        reset[code] = (reset[code] ?? 0) + 1;
      }
    }
  };
  await Promise.all(Array.from({ length: attack.streams }, attacker));
  return tally;
}
