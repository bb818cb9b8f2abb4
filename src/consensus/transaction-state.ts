/**
 * The life of one payment's transaction: a pure `transition(state, event)`. Every state is a plain record that
 * survives a round trip through storage, so a coordinator that takes over knows where to go on.
 */

/** Where a payment stands. The last four never change again. */
export const PHASES = [
  "created",
  "voting",
  "approved",
  "signing",
  "signed",
  "broadcasting",
  "broadcast",
  "confirmed",
  "rejected",
  "timed-out",
  "failed",
] as const;

export type Phase = (typeof PHASES)[number];
