import { create } from "@bufbuild/protobuf";
import { UInt32ValueSchema } from "@bufbuild/protobuf/wkt";
import { type ConnectRouter, createClient, type Transport } from "@connectrpc/connect";
import { createAsyncIterable } from "@connectrpc/connect/protocol";
import { ControlService, type ExchangeRequest, SessionService } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import { PRODUCE } from "./test-service.js";

const CHUNK_BYTES = 16_384;
/** 8 MB in messages of 16 KB. */
const BULK_MESSAGES = 512;
const CALL_MS = 120_000;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Messages that the producers of this process were asked for. */
export const produced = { messages: 0 };

/** Pings, a producer of large streams, and a session whose reader takes one message and then waits for the end. */
export function bulkRoutes(router: ConnectRouter): void {
  router.service(ControlService, { ping: ({ payload }) => ({ payload, timeMs: 1n }) });
  router.service(SessionService, {
    async *exchange(requests: AsyncIterable<ExchangeRequest>, context) {
      await requests[Symbol.asyncIterator]().next();
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve, { once: true }));
    },
  });
  router.rpc(PRODUCE, async function* ({ value }) {
    for (let index = 0; index < value; index++) {
      produced.messages += 1;
      yield { value: new Uint8Array(CHUNK_BYTES).fill(index) };
    }
  });
}

/** A large stream that is under way. */
export interface Bulk {
  /** Messages that the sending application was asked for. */
  readonly sent: () => number;
  readonly stop: () => Promise<void>;
}

/** 8 MB come from the peer, and nobody here reads more than the first message. */
export async function stalledDownload(transport: Transport): Promise<Bulk> {
  const stop = new AbortController();
  const before = produced.messages;
  const reader = await download(transport, stop.signal);
  await reader.next();
  return {
    sent: () => produced.messages - before,
    stop: async () => {
      stop.abort();
      // Connect keeps a call's deadline timer until its reader has seen the end.
      while (
        !(await reader.next().then(
          ({ done }) => done === true,
          () => true,
        ))
      );
    },
  };
}

/** 8 MB go to the peer, which reads only the first message. */
export async function stalledUpload(transport: Transport): Promise<Bulk> {
  const stop = new AbortController();
  let sent = 0;
  async function* requests() {
    for (; sent < BULK_MESSAGES; sent++) {
      yield { frame: { kind: { case: "envelope" as const, value: new Uint8Array(CHUNK_BYTES) } } };
    }
    await pause(CALL_MS);
  }
  const session = createClient(SessionService, transport);
  const answers = session.exchange(requests(), { signal: stop.signal, timeoutMs: CALL_MS });
  const over = (async () => {
    for await (const _ of answers);
  })().catch(() => {});
  return {
    sent: () => sent,
    stop: async () => {
      stop.abort();
      await over;
    },
  };
}

/** 8 MB come from the peer again and again, read 64 KB every 10 ms: 6.4 MB a second. */
export async function slowDownload(transport: Transport): Promise<Bulk> {
  const stop = new AbortController();
  const before = produced.messages;
  const over = (async () => {
    while (!stop.signal.aborted) {
      const reader = await download(transport, stop.signal);
      for (let taken = 1; (await reader.next()).done !== true; taken++) if (taken % 4 === 0) await pause(10);
    }
  })().catch(() => {});
  return {
    sent: () => produced.messages - before,
    stop: async () => {
      stop.abort();
      await over;
    },
  };
}

/** Reads the whole of a stream of `count` messages; returns how many came. */
export async function wholeDownload(transport: Transport, count: number): Promise<number> {
  const reader = await download(transport, undefined, count);
  let taken = 0;
  while ((await reader.next()).done !== true) taken += 1;
  return taken;
}

async function download(transport: Transport, signal: AbortSignal | undefined, count = BULK_MESSAGES) {
  const input = createAsyncIterable([create(UInt32ValueSchema, { value: count })]);
  const { message } = await transport.stream(PRODUCE, signal, CALL_MS, undefined, input);
  return message[Symbol.asyncIterator]();
}

/** Latencies, in milliseconds, of `count` calls of 200 bytes one after the other. */
export async function smallCalls(transport: Transport, count: number): Promise<number[]> {
  const client = createClient(ControlService, transport);
  const payload = new Uint8Array(200);
  const latencies: number[] = [];
  for (let call = 0; call < count; call++) {
    const startMs = performance.now();
    await client.ping({ payload }, { timeoutMs: 30_000 });
    latencies.push(performance.now() - startMs);
  }
  return latencies;
}

/** The value below which `fraction` of the samples lie. */
export function percentile(samples: readonly number[], fraction: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? Number.NaN;
}
