import type { SecurityProfile } from "../../crypto/security-profile.js";

/** A proof's two functions for what a message carries. */
export interface Carried<M, P> {
  readonly message: M | undefined;
  decode(profile: SecurityProfile, message: M): P | undefined;
  verify(proof: P): boolean;
}

/** Whether a message carries the proof, canonically encoded, and it verifies. Total. */
export function carries<M, P>(profile: SecurityProfile, { message, decode, verify }: Carried<M, P>): boolean {
  const proof = message === undefined ? undefined : decode(profile, message);
  return proof !== undefined && verify(proof);
}
