import { type Facts, InvalidInput } from "../crypto/fault.js";

/** Why something from outside is not accepted. The code is for machines, the message for people. */
export interface Refusal<Code extends string> {
  readonly code: Code;
  readonly message: string;
  readonly facts: Facts;
}

export function refusal<Code extends string>(code: Code, message: string, facts: Facts = {}): Refusal<Code> {
  return { code, message, facts };
}

/** The same refusal for a caller who asked for it: `InvalidInput` with the refusal's code. */
export function refused(why: Refusal<string>): InvalidInput {
  return new InvalidInput(why.code, why.message, why.facts);
}
