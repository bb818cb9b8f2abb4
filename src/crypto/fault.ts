/**
 * The five kinds of error. Every fault is a closed union member `{ code, …facts }`, so that whoever handles one must
 * decide whom it blames; gateway/ maps them to Connect codes in one place. Causes go to logs only.
 *
 * `Bug` is thrown when our own code broke an invariant; the four others are verdicts about the outside.
 */
export type FaultKind = "invalid-input" | "unavailable" | "peer-fault" | "peer-silent" | "bug";

/** Facts are shown to people and machines: never a secret, never a key share, never a passphrase. */
export type Facts = Readonly<Record<string, string | number | bigint | boolean | readonly (string | number)[]>>;

abstract class Fault extends Error {
  abstract readonly kind: FaultKind;
  readonly code: string;
  readonly facts: Facts;

  constructor(code: string, message: string, facts: Facts = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.facts = facts;
  }
}

/** The caller asked for something that cannot be; asking again unchanged fails again. */
export class InvalidInput extends Fault {
  override readonly name = "InvalidInput";
  readonly kind = "invalid-input" as const;
}

/** A part that is needed does not answer now; the same call may succeed later. */
export class Unavailable extends Fault {
  override readonly name = "Unavailable";
  readonly kind = "unavailable" as const;
}

/** Parties broke the protocol; `culprits` are named and the evidence is portable. */
export class PeerFault<Evidence = unknown> extends Fault {
  override readonly name = "PeerFault";
  readonly kind = "peer-fault" as const;
  readonly culprits: readonly string[];
  readonly evidence: readonly Evidence[];
  /** Encoded public facts of the session that a judge needs and may not have. */
  readonly exhibits: readonly Uint8Array[];

  constructor(
    code: string,
    message: string,
    blame: {
      culprits: readonly string[];
      evidence: readonly Evidence[];
      exhibits?: readonly Uint8Array[];
    },
    facts: Facts = {},
  ) {
    super(code, message, { ...facts, culprits: blame.culprits });
    this.culprits = blame.culprits;
    this.evidence = blame.evidence;
    this.exhibits = blame.exhibits ?? [];
  }
}

/** Parties did not answer in time. Blame without proof: never a strike toward a ban. */
export class PeerSilent extends Fault {
  override readonly name = "PeerSilent";
  readonly kind = "peer-silent" as const;
  readonly silent: readonly string[];

  constructor(code: string, message: string, silent: readonly string[], facts: Facts = {}) {
    super(code, message, { ...facts, silent });
    this.silent = silent;
  }
}

/** Our own code broke an invariant: stop, do not go on. */
export class Bug extends Fault {
  override readonly name = "Bug";
  readonly kind = "bug" as const;

  constructor(message: string, facts: Facts = {}, cause?: unknown) {
    super("bug", message, facts, cause);
  }
}
