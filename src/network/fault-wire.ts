import { Code, ConnectError } from "@connectrpc/connect";
import { type FaultDetail, FaultDetailSchema, FaultKind } from "../../gen/mpcwallet/peer/v1/peer_pb.js";
import type { Evidence } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { Bug, InvalidInput, PeerFault, PeerSilent, Unavailable } from "../crypto/fault.js";

/** How faults travel between peers: a Connect code for the transport, and a detail that restores the fault. */

type AnyFault = InvalidInput | Unavailable | PeerFault | PeerSilent | Bug;

function isFault(error: unknown): error is AnyFault {
  return (
    error instanceof InvalidInput ||
    error instanceof Unavailable ||
    error instanceof PeerFault ||
    error instanceof PeerSilent ||
    error instanceof Bug
  );
}

/** What a handler throws at a peer. A cause, and everything about an error that is no fault, stays here. */
export function faultToWire(error: unknown, report: (error: unknown) => void): ConnectError {
  if (error instanceof ConnectError) return error;
  if (!isFault(error) || error.kind === "bug") {
    report(error);
    return wire(Code.Internal, "internal error", { kind: FaultKind.BUG, code: "bug" });
  }
  const { code, message } = error;
  switch (error.kind) {
    case "invalid-input":
      return wire(Code.InvalidArgument, message, { kind: FaultKind.INVALID_INPUT, code });
    case "unavailable":
      return wire(Code.Unavailable, message, { kind: FaultKind.UNAVAILABLE, code });
    case "peer-silent":
      return wire(Code.DeadlineExceeded, message, { kind: FaultKind.PEER_SILENT, code, parties: [...error.silent] });
    case "peer-fault":
      return wire(Code.Aborted, message, {
        kind: FaultKind.PEER_FAULT,
        code,
        parties: [...error.culprits],
        evidence: error.evidence as readonly Evidence[] as Evidence[],
        exhibits: [...error.exhibits],
      });
  }
}

/** What a caller throws when a peer answered with an error. `peer` is whom we called. */
export function faultFromWire(error: unknown, peer: string): AnyFault {
  if (isFault(error)) return error;
  const connectError = ConnectError.from(error);
  const [detail] = connectError.findDetails(FaultDetailSchema);
  const facts = { peer };
  const message = connectError.rawMessage.slice(0, 500);
  if (detail === undefined) return withoutDetail(connectError, peer);
  const { code, parties, evidence, exhibits } = detail;
  switch (detail.kind) {
    case FaultKind.INVALID_INPUT:
      return new InvalidInput(code, message, facts);
    case FaultKind.PEER_FAULT:
      return new PeerFault<Evidence>(code, message, { culprits: parties, evidence, exhibits }, facts);
    case FaultKind.PEER_SILENT:
      return new PeerSilent(code, message, parties, facts);
    default:
      return new Unavailable(code === "" ? "peer-failed" : code, message, facts);
  }
}

function withoutDetail(error: ConnectError, peer: string): AnyFault {
  const facts = { peer, code: Code[error.code] ?? "unknown" };
  switch (error.code) {
    case Code.InvalidArgument:
    case Code.Unauthenticated:
    case Code.PermissionDenied:
    case Code.Unimplemented:
      return new InvalidInput(
        "peer-refused",
        `${peer} refused the call: ${error.rawMessage.slice(0, 200)}`,
        facts,
        error,
      );
    case Code.DeadlineExceeded:
      return new PeerSilent("peer-silent", `${peer} did not answer in time`, [peer], facts);
    default:
      return new Unavailable("peer-unavailable", `${peer}: ${error.rawMessage.slice(0, 200)}`, facts, error);
  }
}

function wire(code: Code, message: string, detail: Partial<Omit<FaultDetail, "$typeName">>): ConnectError {
  return new ConnectError(message, code, undefined, [{ desc: FaultDetailSchema, value: detail }]);
}
