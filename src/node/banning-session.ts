import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { PeerFault } from "../crypto/fault.js";
import type { BanRegister } from "./ban-register.js";
import type { SessionExchange } from "./session-exchange.js";
import type { SessionJob, SessionResult, SessionSeat } from "./session-job.js";

/** Runs this node's part of a session and says which round it waits for; whom it convicts is banned, durably, before anybody hears of it. */
export async function runSession(
  parts: { readonly exchange: SessionExchange; readonly bans: BanRegister },
  job: SessionJob,
  seat: SessionSeat,
  onRound?: (round: string) => void,
): Promise<SessionResult> {
  try {
    return await parts.exchange.run(job, seat, onRound);
  } catch (error) {
    if (error instanceof PeerFault) await parts.bans.accuse(error as PeerFault<Evidence>, seat);
    throw error;
  }
}
