import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Evidence, EvidenceSchema } from "../../gen/mpcwallet/session/v1/session_pb.js";
import { Bug, type Facts, InvalidInput, PeerFault, PeerSilent } from "../crypto/fault.js";
import type { Progress } from "../session/session.js";
import type { SessionResult } from "./session-job.js";

/** What whoever runs sessions tells the pool. */
export type SessionReport =
  | { readonly kind: "send"; readonly handle: number; readonly to: number; readonly bytes: Uint8Array }
  | { readonly kind: "waiting"; readonly handle: number; readonly round: string; readonly missing: readonly number[] }
  | { readonly kind: "end"; readonly handle: number; readonly end: SessionEnd };

/** How a session ended, as plain values: faults do not survive a structured clone with their class. */
export type SessionEnd =
  | { readonly state: "done"; readonly result: SessionResult }
  | {
      readonly state: "failed";
      readonly kind: "peer-fault" | "peer-silent" | "invalid-input" | "bug";
      readonly code: string;
      readonly message: string;
      readonly facts: Facts;
      readonly parties: readonly string[];
      readonly evidence: readonly Uint8Array[];
      readonly exhibits: readonly Uint8Array[];
    };

export function describeEnd(
  progress: Progress<SessionResult> | { readonly state: "crashed"; readonly error: unknown },
): SessionEnd {
  switch (progress.state) {
    case "done":
      return { state: "done", result: progress.output };
    case "aborted": {
      const { fault } = progress;
      const { code, message, facts } = fault;
      return fault.kind === "peer-fault"
        ? {
            state: "failed",
            kind: fault.kind,
            code,
            message,
            facts,
            parties: fault.culprits,
            evidence: fault.evidence.map((item) => toBinary(EvidenceSchema, item)),
            exhibits: fault.exhibits,
          }
        : {
            state: "failed",
            kind: fault.kind,
            code,
            message,
            facts,
            parties: fault.silent,
            evidence: [],
            exhibits: [],
          };
    }
    case "crashed": {
      const { error } = progress;
      const none = { parties: [], evidence: [], exhibits: [] };
      if (error instanceof InvalidInput) {
        const { code, message, facts } = error;
        return { state: "failed", kind: "invalid-input", code, message, facts, ...none };
      }
      const message = error instanceof Error ? error.message : "unknown";
      return { state: "failed", kind: "bug", code: "bug", message, facts: {}, ...none };
    }
    case "waiting":
      throw new Bug("a session that waits has not ended");
  }
}

/** The result, or the fault that was described. */
export function resultOf(end: SessionEnd): SessionResult {
  if (end.state === "done") return end.result;
  const { code, message, facts, parties, exhibits } = end;
  switch (end.kind) {
    case "peer-fault": {
      const evidence: Evidence[] = end.evidence.map((bytes) => fromBinary(EvidenceSchema, bytes));
      throw new PeerFault(code, message, { culprits: parties, evidence, exhibits }, facts);
    }
    case "peer-silent":
      throw new PeerSilent(code, message, parties, facts);
    case "invalid-input":
      throw new InvalidInput(code, message, facts);
    case "bug":
      throw new Bug(message, facts);
  }
}
