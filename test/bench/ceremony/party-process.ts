// A party in a process of its own: `fork("party-process.js", [index])`. Its CPU time is all that this process used from
// the order to begin until its own session ended, envelopes to and from the parent included.
import { Party, type Task } from "./party.js";

export type PartyOrder =
  | { readonly kind: "prepare"; readonly task: Task }
  | { readonly kind: "run"; readonly task: Task }
  | { readonly kind: "receive"; readonly session: number; readonly bytes: Uint8Array };

export type PartyReport =
  | { readonly kind: "prepared" }
  | { readonly kind: "send"; readonly session: number; readonly to: number; readonly bytes: Uint8Array }
  | { readonly kind: "ended"; readonly outcome: string; readonly cpuMs: number }
  | { readonly kind: "broke"; readonly why: string };

const party = new Party(Number(process.argv[2]));
/** Whoever benched may be gone already: a liar goes on when the honest ones have ended. */
const report = (message: PartyReport): void => void process.send?.(message, undefined, {}, () => {});
process.once("disconnect", () => process.exit(0));
process.on("message", (order: PartyOrder) => void obey(order).catch((error: unknown) => broke(error)));

function broke(error: unknown): void {
  report({ kind: "broke", why: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}

async function obey(order: PartyOrder): Promise<void> {
  switch (order.kind) {
    case "prepare":
      await party.prepare(order.task);
      report({ kind: "prepared" });
      break;
    case "run": {
      const before = process.cpuUsage();
      const outcome = await party.run(order.task, (session, to, bytes) => report({ kind: "send", session, to, bytes }));
      const { user, system } = process.cpuUsage(before);
      report({ kind: "ended", outcome, cpuMs: (user + system) / 1000 });
      break;
    }
    case "receive":
      party.receive(order.session, order.bytes);
      break;
  }
}
