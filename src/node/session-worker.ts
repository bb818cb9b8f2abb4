/**
 * A warm worker thread that runs protocol sessions, so that secrets of a session stay in the thread and heavy
 * arithmetic never blocks the event loop that serves peers. A thread that crashes takes its sessions with it; they
 * are never resumed.
 */
import type { KeyObject } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { signEd25519 } from "../crypto/ed25519.js";
import { Bug } from "../crypto/fault.js";
import { systemRandom } from "./ambient.js";
import { PROTOCOLS, type RunningSession, type SessionJob, type SessionSeat, startSession } from "./session-job.js";
import { describeEnd, type WorkerReport } from "./session-report.js";

/** What the pool tells a worker. */
export type WorkerOrder =
  | { readonly kind: "start"; readonly handle: number; readonly job: SessionJob; readonly seat: SessionSeat }
  | { readonly kind: "receive"; readonly handle: number; readonly bytes: Uint8Array }
  | { readonly kind: "expire" | "drop"; readonly handle: number };

const port = parentPort;
if (port === null) throw new Bug("the session worker runs as a worker thread");
const { identity } = workerData as { readonly identity: KeyObject };
const dependencies = {
  random: systemRandom,
  sign: (message: Uint8Array) => signEd25519(identity, message),
  protocols: PROTOCOLS,
};
const sessions = new Map<number, RunningSession>();

const report = (message: WorkerReport): void => port.postMessage(message);

/** Sends what the session wants delivered, then says how far it is. */
function advance(handle: number, session: RunningSession): void {
  for (const { to, bytes } of session.drain()) report({ kind: "send", handle, to, bytes });
  const { progress } = session;
  if (progress.state === "waiting")
    report({ kind: "waiting", handle, round: progress.round, missing: progress.missing });
  else {
    sessions.delete(handle);
    report({ kind: "end", handle, end: describeEnd(progress) });
  }
}

port.on("message", (order: WorkerOrder) => {
  const { handle } = order;
  try {
    if (order.kind === "start") {
      const session = startSession(order.job, order.seat, dependencies);
      sessions.set(handle, session);
      advance(handle, session);
      return;
    }
    const session = sessions.get(handle);
    if (session === undefined) return;
    if (order.kind === "drop") {
      sessions.delete(handle);
      return;
    }
    if (order.kind === "receive") session.receive(order.bytes);
    else session.expire();
    advance(handle, session);
  } catch (error) {
    sessions.delete(handle);
    report({ kind: "end", handle, end: describeEnd({ state: "crashed", error }) });
  }
});
