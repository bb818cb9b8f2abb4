import type { SessionDependencies } from "./session-job.js";
import { type RunningSession, type SessionJob, type SessionSeat, startSession } from "./session-job.js";
import { describeEnd, type SessionReport } from "./session-report.js";

/** What a pool tells whoever runs its sessions. */
export type SessionOrder =
  | { readonly kind: "start"; readonly handle: number; readonly job: SessionJob; readonly seat: SessionSeat }
  | { readonly kind: "receive"; readonly handle: number; readonly bytes: Uint8Array }
  | { readonly kind: "expire" | "drop"; readonly handle: number };

/** Runs protocol sessions in the thread that it is made in: orders in, reports out. A session that crashes is over. */
export class SessionDesk {
  readonly #dependencies: SessionDependencies;
  readonly #report: (report: SessionReport) => void;
  readonly #sessions = new Map<number, RunningSession>();

  constructor(dependencies: SessionDependencies, report: (report: SessionReport) => void) {
    this.#dependencies = dependencies;
    this.#report = report;
  }

  order(order: SessionOrder): void {
    const { handle } = order;
    try {
      if (order.kind === "start") {
        const session = startSession(order.job, order.seat, this.#dependencies);
        this.#sessions.set(handle, session);
        this.#advance(handle, session);
        return;
      }
      const session = this.#sessions.get(handle);
      if (session === undefined) return;
      if (order.kind === "drop") {
        this.#sessions.delete(handle);
        return;
      }
      if (order.kind === "receive") session.receive(order.bytes);
      else session.expire();
      this.#advance(handle, session);
    } catch (error) {
      this.#sessions.delete(handle);
      this.#report({ kind: "end", handle, end: describeEnd({ state: "crashed", error }) });
    }
  }

  /** Sends what the session wants delivered, then says how far it is. */
  #advance(handle: number, session: RunningSession): void {
    for (const { to, bytes } of session.drain()) this.#report({ kind: "send", handle, to, bytes });
    const { progress } = session;
    if (progress.state === "waiting") {
      this.#report({ kind: "waiting", handle, round: progress.round, missing: progress.missing });
    } else {
      this.#sessions.delete(handle);
      this.#report({ kind: "end", handle, end: describeEnd(progress) });
    }
  }
}
