import type { Facts } from "../crypto/fault.js";

/** One event of the network layer for whoever keeps the logs. `facts` never contain a secret. */
export interface NetworkEvent {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly event: string;
  readonly facts: Facts;
  /** For logs only, never for a peer. */
  readonly cause?: unknown;
}

export type NetworkLog = (event: NetworkEvent) => void;
