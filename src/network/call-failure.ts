import { Code, ConnectError } from "@connectrpc/connect";
import { Unavailable } from "../crypto/fault.js";
import type { StreamLoss } from "./quic-stream.js";

/** The error outside, with our fault class inside as its cause. */
export function unavailable(fault: Unavailable): ConnectError {
  return new ConnectError(fault.message, Code.Unavailable, undefined, undefined, fault);
}

/** What a call's owner sees when its stream ends early: a reset carries the Connect code. */
export function lossError(loss: StreamLoss): ConnectError {
  if (loss.kind === "lost") return unavailable(loss.fault);
  const code = Code[loss.code] === undefined ? Code.Unavailable : (loss.code as Code);
  return new ConnectError("the peer ended the call", code);
}

/** Any error on the way to a stream as a ConnectError. */
export function callError(error: unknown): ConnectError {
  return error instanceof Unavailable ? unavailable(error) : ConnectError.from(error);
}

/** The Connect code that a reset carries when a call is given up because of `reason`. */
export function resetCode(reason: unknown): Code {
  return ConnectError.from(reason, Code.Canceled).code;
}
