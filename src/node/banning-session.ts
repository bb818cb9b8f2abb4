import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { InvalidInput, PeerFault } from "../crypto/fault.js";
import type { BanRegister } from "./ban-register.js";
import type { RunOptions, SessionExchange, SessionPlace } from "./session-exchange.js";
import type { SessionJob, SessionResult, SessionSeat } from "./session-job.js";

/**
 * Whoever broke a protocol once takes part in no session about an existing wallet here, until people have lifted the ban.
 * A key generation is another matter: its parties are named by people, and it puts nothing at risk that was there before.
 *
 * @throws InvalidInput `party-banned`
 */
export function requireNoneBanned(bans: Pick<BanRegister, "banned">, { parties }: Pick<SessionSeat, "parties">): void {
  const banned = parties.map(({ nodeId }) => nodeId).filter((nodeId) => bans.banned.has(nodeId));
  if (banned.length === 0) return;
  throw new InvalidInput("party-banned", `this node has banned ${banned.join(", ")}; see \`mpc-wallet node bans\``, {
    banned,
  });
}

/** Runs this node's part of a session and says which round it waits for; whom it convicts is banned, durably, before anybody hears of it. */
export async function runSession(
  parts: { readonly exchange: SessionExchange; readonly bans: BanRegister },
  job: SessionJob,
  seat: SessionSeat,
  /** `place` is of a session that was joined before; its owner leaves it. */
  { place, ...options }: RunOptions & { readonly place?: SessionPlace } = {},
): Promise<SessionResult> {
  if (job.kind !== "keygen") requireNoneBanned(parts.bans, seat);
  try {
    return await (place === undefined ? parts.exchange.run(job, seat, options) : place.run(job, options));
  } catch (error) {
    if (error instanceof PeerFault) await parts.bans.accuse(error as PeerFault<Evidence>, seat);
    throw error;
  }
}
